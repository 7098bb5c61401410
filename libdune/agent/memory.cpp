// Memory: what the compiler expects of a C library, and access to the program's memory that
// survives a bad address.
#include "libdune/agent/guest_loop.h"

extern "C" void* memcpy(void* to, const void* from, size_t n) {
  void* result = to;
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
  return result;
}
extern "C" void* memset(void* to, int value, size_t n) {
  void* result = to;
  asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(value) : "memory");
  return result;
}
extern "C" void dune_assert_failed(const char*, const char*, int) {
  // SIGILL in the target, with the place in the instruction pointer: nothing else is safe here.
  __builtin_trap();
}

namespace dune::agent {
namespace {
struct Copy {
  void* to;
  const void* from;
  uint64_t size;
};
uint64_t do_copy(const Copy* c) {
  memcpy(c->to, c->from, c->size);
  return 0;
}
bool guarded_copy(ThreadBlock* t, void* to, const void* from, uint64_t size) {
  Copy c{to, from, size};
  if (!t) { // a thread without a slot has no guard; what it names is taken as it is
    do_copy(&c);
    return true;
  }
  return !guarded_call(reinterpret_cast<uint64_t>(do_copy), &c, t).faulted;
}
} // namespace

bool read_user(ThreadBlock* t, void* to, uint64_t from, uint64_t size) {
  return guarded_copy(t, to, reinterpret_cast<const void*>(from), size);
}
bool write_user(ThreadBlock* t, uint64_t to, const void* from, uint64_t size) {
  // What the program names may be ours (a stack for a signal's frame).
  if (is_protected() && is_partly_ours({TargetAddr(to), TargetAddr(to) + size}))
    return false;
  return guarded_copy(t, reinterpret_cast<void*>(to), from, size);
}

} // namespace dune::agent
