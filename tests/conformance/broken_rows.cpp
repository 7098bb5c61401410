// Prints the rows and operations of libdune/process/calls.h as they lie in memory, and what each is
// broken to. broken_rows.py puts the latter into the agent's image.
#include "libdune/process/calls.h"

#include <asm/unistd_64.h>

#include <cstdio>
#include <cstring>

using namespace dune::process;

namespace {

const char* name_of(Effect effect) {
  switch (effect) {
  case Effect::kPass:
    return "pass";
  case Effect::kMemory:
    return "memory";
  case Effect::kThread:
    return "thread";
  case Effect::kSignal:
    return "signal";
  case Effect::kDescriptor:
    return "descriptor";
  case Effect::kOpen:
    return "open";
  case Effect::kIdentity:
    return "identity";
  case Effect::kAbsent:
    return "absent";
  case Effect::kUnguarded:
    return "unguarded";
  }
  return "";
}

// A copy with the bytes between the fields.
template <class T> T copy_of(const T& from) {
  T copy;
  memcpy(&copy, &from, sizeof copy);
  return copy;
}

// The call is not made and answers `error`, or is made whatever its arguments are.
template <class T> T broken(const T& from, Effect effect, unsigned error = 0) {
  T copy = copy_of(from);
  copy.effect = effect;
  copy.error = static_cast<uint16_t>(error);
  for (Argument& a : copy.arguments) {
    if (a.kind != Kind::kNone)
      a.kind = Kind::kNumber;
  }
  if constexpr (requires { copy.selector; })
    copy.selector = Row{}.selector;
  return copy;
}

template <class T> void print_bytes(const T& object) {
  unsigned char bytes[sizeof object];
  memcpy(bytes, &object, sizeof object);
  putchar('\t');
  for (unsigned char byte : bytes)
    printf("%02x", byte);
}

template <class T> void print(const T& it) {
  constexpr unsigned kEnosys = 38;
  printf("\t%s", name_of(it.effect));
  print_bytes(it);
  print_bytes(broken(it, Effect::kAbsent, kEnosys));
  print_bytes(broken(it, Effect::kAbsent));
  print_bytes(broken(it, Effect::kPass));
  putchar('\n');
}

} // namespace

int main() {
  for (const Row& row : all_rows()) {
    printf("%s", row.name);
    print(row);
  }
  for (const Operation& operation : all_operations()) {
    printf("%s:%#x", policy_of(operation.number).name, operation.value);
    print(operation);
  }
}
