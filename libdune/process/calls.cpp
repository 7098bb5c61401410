#include "libdune/process/calls.h"

#include "libdune/arch/syscall.h"
#include "libdune/process/shapes.h"

#include <linux/errno.h>
#include <linux/ioctl.h>

namespace dune::process {
namespace {

template <class T> T load(const std::byte* from) {
  T value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

uint64_t end_of(uint64_t begin, uint64_t size) {
  const uint64_t end = begin + size;
  return end < begin ? ~uint64_t{0} : end;
}

} // namespace

// The way through one call's arguments. A holder is what fields lie in: the arguments, or a
// structure's copy.
class Walk {
public:
  Walk(const long args[kMostArguments], std::span<const TargetRange> ours, Reader read,
       CallCopy* copy)
      : args_(reinterpret_cast<const std::byte*>(args)), ours_(ours), read_(read), copy_(copy) {
    if (copy)
      __builtin_memcpy(copy->arguments_, args, sizeof copy->arguments_);
  }

  bool row(const Argument arguments[kMostArguments]) {
    bool named = false;
    for (unsigned i = 0; i < kMostArguments; i++) {
      std::byte* mine = copy_ ? reinterpret_cast<std::byte*>(&copy_->arguments_[i]) : nullptr;
      named = named || argument(arguments[i], args_, 8 * i, mine);
    }
    return named;
  }

private:
  bool is_ours(uint64_t begin, uint64_t size) const {
    if (size == 0)
      return false;
    const TargetRange touched{TargetAddr(begin), TargetAddr(end_of(begin, size))};
    for (const TargetRange& r : ours_) {
      if (r.overlaps(touched))
        return true;
    }
    return false;
  }

  // A count below zero is refused, after a look at the first element in some calls.
  static uint64_t count_of(const Argument& a, const std::byte* holder) {
    if (!a.narrow)
      return load<uint64_t>(holder + a.count);
    const auto count = load<int32_t>(holder + a.count);
    return count < 0 ? 1 : static_cast<uint64_t>(count);
  }
  static uint64_t size_of(const Argument& a, uint64_t count) {
    constexpr uint64_t kMost = 0x7ffff000; // MAX_RW_COUNT
    uint64_t size;
    if (__builtin_mul_overflow(count, a.factor, &size) || size > kMost)
      size = kMost;
    return a.fixed + size;
  }
  uint32_t int_at(uint64_t address) const {
    int32_t value;
    if (!read_(&value, TargetAddr(address), sizeof value))
      return 0;
    return value < 0 ? 1 : static_cast<uint32_t>(value);
  }

  bool holds(When when, const std::byte* holder) const {
    if (when == When::kAlways)
      return true;
    if (when == When::kOwnProcess)
      return syscall_of(__NR_tgkill, syscall_of(__NR_getpid), load<int32_t>(args_), 0) == 0;
    const Condition& c = condition_of(when);
    const bool equal = (load<uint32_t>(holder + c.place) & c.mask) == c.value;
    return equal != c.negated;
  }

  // `mine`: where the kernel will find the address, if that is in our copy.
  bool argument(const Argument& a, const std::byte* holder, unsigned place, std::byte* mine) {
    if (!a.is_pointer())
      return false;
    const auto address = load<uint64_t>(holder + place);
    if (address == 0 || !holds(a.when, holder))
      return false;
    switch (a.kind) {
    case Kind::kBytes:
      return is_ours(address, size_of(a, a.factor ? count_of(a, holder) : 0));
    case Kind::kRegion:
      return is_ours(address, count_of(a, holder));
    case Kind::kBytesAt:
      return is_ours(address, int_at(load<uint64_t>(holder + a.count)));
    case Kind::kSizedWithin: {
      const uint64_t says = uint64_t{int_at(address + a.count)} + a.factor;
      const bool is_taken = says > a.fixed && says <= kPageSize;
      return is_ours(address, is_taken ? says : a.fixed);
    }
    case Kind::kBits: {
      const uint64_t bits = count_of(a, holder);
      return bits > a.factor && is_ours(address, (bits - a.factor + 63) / 64 * 8);
    }
    case Kind::kPages:
      return is_ours(address, (count_of(a, holder) + kPageSize - 1) / kPageSize);
    case Kind::kString:
      return string(address, a.fixed);
    case Kind::kStrings:
      return strings(address);
    case Kind::kStructs:
      return structs(a, address, size_of(a, a.factor ? count_of(a, holder) : 0), mine);
    case Kind::kSizedStruct:
      return sized_struct(a, address, count_of(a, holder), mine);
    case Kind::kUnknown:
      return is_ours(address, 1);
    case Kind::kIoctl: {
      const auto command = load<uint32_t>(holder + 8);
      const unsigned size = _IOC_DIR(command) != _IOC_NONE ? _IOC_SIZE(command) : 0;
      return is_ours(address, size ? size : 1);
    }
    default:
      return false;
    }
  }

  // Only one that begins close below our memory has to be looked at.
  bool string(uint64_t address, uint64_t most) const {
    for (const TargetRange& r : ours_) {
      if (r.contains(TargetAddr(address)))
        return true;
      if (address < r.begin.value && r.begin.value - address < most &&
          !has_end(address, r.begin.value))
        return true;
    }
    return false;
  }
  // False if [address, end) can be read and has no zero byte. One that cannot be read ends there.
  bool has_end(uint64_t address, uint64_t end) const {
    for (; address < end; address++) {
      char c;
      if (!read_(&c, TargetAddr(address), 1) || c == 0)
        return true;
    }
    return false;
  }

  bool strings(uint64_t list) const {
    for (;; list += sizeof(uint64_t)) {
      uint64_t address;
      if (is_ours(list, sizeof address))
        return true;
      if (!read_(&address, TargetAddr(list), sizeof address) || address == 0)
        return false;
      if (string(address, 32 * kPageSize)) // MAX_ARG_STRLEN
        return true;
    }
  }

  bool structs(const Argument& a, uint64_t address, uint64_t count, std::byte* mine) {
    const Shape& shape = shape_at(a.shape);
    if (count > kMostElements)
      count = kMostElements;
    if (is_ours(address, count * shape.size))
      return true;
    std::byte* copy = mine && shape.copied ? copy_->take(count * shape.size) : nullptr;
    std::byte one[kLargestShape];
    for (uint64_t i = 0; i < count; i++) {
      std::byte* element = copy ? copy + i * shape.size : one;
      if (!read_(element, TargetAddr(address + i * shape.size), shape.size))
        return false; // the kernel will not get past this one either
      if (fields(shape, element, copy != nullptr))
        return true;
    }
    if (copy)
      put_in_place(a, address, count, mine, copy);
    return false;
  }

  bool sized_struct(const Argument& a, uint64_t address, uint64_t size, std::byte* mine) {
    const Shape& shape = shape_at(a.shape);
    if (is_ours(address, size))
      return true;
    if (size >= shape.size) {
      std::byte* copy = mine && shape.copied && size == shape.size ? copy_->take(size) : nullptr;
      std::byte one[kLargestShape];
      std::byte* element = copy ? copy : one;
      if (!read_(element, TargetAddr(address), shape.size))
        return false;
      if (fields(shape, element, copy != nullptr))
        return true;
      if (copy)
        put_in_place(a, address, 1, mine, copy);
      return false;
    }
    std::byte element[kLargestShape] = {}; // an earlier version: what it has not got is zero
    return read_(element, TargetAddr(address), size) && fields(shape, element, false);
  }

  bool fields(const Shape& shape, std::byte* element, bool in_copy) {
    bool named = false;
    for (unsigned i = 0; i < shape.field_count; i++) {
      const Field& f = field_at(shape.first_field + i);
      named =
          named || argument(f.argument, element, f.offset, in_copy ? element + f.offset : nullptr);
    }
    return named;
  }

  void put_in_place(const Argument& a, uint64_t address, uint64_t count, std::byte* mine,
                    std::byte* copy) {
    const Shape& shape = shape_at(a.shape);
    if (a.access == Access::kBoth && shape.written[0].size)
      copy_->written_ = {TargetAddr(address), copy, static_cast<uint32_t>(count), a.shape,
                         a.factor != 0};
    const auto there = reinterpret_cast<uint64_t>(copy);
    __builtin_memcpy(mine, &there, sizeof there);
  }

  const std::byte* args_;
  std::span<const TargetRange> ours_;
  Reader read_;
  CallCopy* copy_;
};

std::byte* CallCopy::take(uint64_t size) {
  if (size > room_.size() - used_)
    return nullptr;
  std::byte* place = room_.data() + used_;
  used_ += (size + 7) & ~uint64_t{7};
  if (used_ > room_.size())
    used_ = room_.size();
  return place;
}

long CallCopy::finish(long result, Writer write) const {
  if (is_errno(result) || written_.count == 0)
    return result;
  const Shape& shape = shape_at(written_.shape);
  // Of several messages the kernel has dealt with as many as it says.
  const uint64_t done = written_.counted ? static_cast<uint64_t>(result) : 1;
  for (uint64_t i = 0; i < written_.count && i < done; i++) {
    for (const FieldSpan& span : shape.written) {
      const uint64_t at = i * shape.size + span.offset;
      if (span.size && !write(written_.from + at, written_.copy + at, span.size))
        return -EFAULT;
    }
  }
  return result;
}

const Operation* operation_of(const Row& row, const long args[kMostArguments]) {
  if (row.selector >= kMostArguments)
    return nullptr;
  const uint32_t value = static_cast<uint32_t>(args[row.selector]) & ~uint32_t{row.selector_flags};
  for (const Operation& o : all_operations()) {
    if (o.number == row.number && o.value == value)
      return &o;
  }
  return nullptr;
}
Effect effect_of(const Row& row, const long args[kMostArguments]) {
  const Operation* operation = operation_of(row, args);
  return operation ? operation->effect : row.effect;
}
uint16_t error_of(const Row& row, const long args[kMostArguments]) {
  const Operation* operation = operation_of(row, args);
  return operation ? operation->error : row.error;
}

bool names_memory(const Row& row, const long args[kMostArguments],
                  std::span<const TargetRange> ours, Reader read, CallCopy* copy) {
  const Operation* operation = operation_of(row, args);
  return Walk(args, ours, read, copy).row(operation ? operation->arguments : row.arguments);
}

} // namespace dune::process
