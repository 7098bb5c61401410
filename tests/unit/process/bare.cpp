// A program without libc, linked as the agent is, that uses libdune/process as the agent will.
// Exits with 0, or with the number of what went wrong.
#include "libdune/arch/syscall.h"
#include "libdune/process/calls.h"

namespace dune::process {
namespace {

alignas(16) std::byte buffer[64], room[64];

bool read_plainly(void*, void* to, TargetAddr from, uint64_t size) {
  __builtin_memcpy(to, reinterpret_cast<const void*>(from.value), size);
  return true;
}

int run() {
  const TargetAddr here(reinterpret_cast<uint64_t>(buffer));
  const TargetRange ours[] = {{here + 32, here + 64}};
  const auto* program = reinterpret_cast<uint64_t*>(buffer);
  reinterpret_cast<uint64_t*>(buffer)[0] = here.value + 16;
  reinterpret_cast<uint64_t*>(buffer)[1] = 16;
  const long args[kMostArguments] = {0, reinterpret_cast<long>(program), 1};
  CallCopy copy(room);
  if (names_memory(policy_of(__NR_readv), args, ours, {read_plainly, nullptr}, &copy))
    return 1;
  if (copy.arguments()[1] != reinterpret_cast<long>(room))
    return 2;
  reinterpret_cast<uint64_t*>(buffer)[1] = 17;
  if (!names_memory(policy_of(__NR_readv), args, ours, {read_plainly, nullptr}))
    return 3;
  const long unmapped[kMostArguments] = {static_cast<long>(here.align_down(kPageSize).value),
                                         kPageSize};
  const TargetRange page[] = {range_of(unmapped)};
  if (memory_policy(policy_of(__NR_munmap), unmapped, page).act != Policy::Act::kPieces)
    return 4;
  return 0;
}

extern "C" [[noreturn, gnu::used]] void bare_main() {
  const int status = run();
  for (;;)
    syscall_of(__NR_exit_group, status);
}

} // namespace
} // namespace dune::process

extern "C" void* memcpy(void* to, const void* from, __SIZE_TYPE__ n) {
  void* result = to;
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
  return result;
}
extern "C" void* memset(void* to, int value, __SIZE_TYPE__ n) {
  void* result = to;
  asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(value) : "memory");
  return result;
}
extern "C" void dune_assert_failed(const char*, const char*, int) { __builtin_trap(); }
asm(".section .header, \"ax\"\n .quad 0\n .text\n .globl _start\n"
    "_start: and $-16, %rsp; call bare_main\n");
