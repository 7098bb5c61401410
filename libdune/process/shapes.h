// The structures behind system calls' arguments, for calls.cpp; the tables are in calls_table.cpp.
// Freestanding-clean.
#pragma once

#include "libdune/process/calls.h"

namespace dune::process {

struct Field {
  uint8_t offset;
  Argument argument;
};
struct FieldSpan {
  uint8_t offset;
  uint8_t size;
};
struct Shape {
  uint8_t size;
  // The kernel reads it and remembers no address of it: it may read it in our copy.
  bool copied;
  uint8_t first_field;
  uint8_t field_count;
  FieldSpan written[2] = {}; // by the kernel, if copied
};
inline constexpr unsigned kLargestShape = 88;
// The kernel takes no more elements at once; behind lists of control blocks it has a limit of its
// own, /proc/sys/fs/aio-max-nr.
inline constexpr uint64_t kMostElements = 65536;

struct Condition {
  uint8_t place; // as Argument::count
  bool negated;
  uint32_t mask;
  uint32_t value;
};

const Shape& shape_at(uint8_t index);
const Field& field_at(unsigned index);
const Condition& condition_of(When);

} // namespace dune::process
