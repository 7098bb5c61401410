#include "dtrace-lite/expr/value.h"

#include <algorithm>
#include <cstring>

namespace ddbg::expr {

bool Value::is_optimized_out(uint64_t first_bit, uint64_t bits) const {
  if (optimized_out.empty())
    return false;
  uint64_t at = first_bit;
  for (const BitRange& range : optimized_out) // sorted, disjoint
    if (range.begin <= at && at < range.end)
      at = range.end;
  return at >= first_bit + std::max<uint64_t>(bits, 1);
}

Value Value::of(TypeRef type, std::vector<std::byte> bytes) {
  Value value;
  value.type = type;
  value.bytes = std::move(bytes);
  return value;
}

Value Value::integer(TypeRef type, Wide number) {
  std::vector<std::byte> bytes(std::min<uint64_t>(type->size(), 16));
  if (type->stripped()->kind() == TypeKind::kBool)
    number = number != 0;
  if (!bytes.empty()) // of a type that damage has made empty
    std::memcpy(bytes.data(), &number, bytes.size());
  return of(type, std::move(bytes));
}

Value Value::floating(TypeRef type, long double number) {
  std::vector<std::byte> bytes(std::min<uint64_t>(type->size(), 16));
  switch (bytes.size()) {
  case 4: {
    auto f = static_cast<float>(number);
    std::memcpy(bytes.data(), &f, 4);
    break;
  }
  case 8: {
    auto d = static_cast<double>(number);
    std::memcpy(bytes.data(), &d, 8);
    break;
  }
  case 16:
    std::memcpy(bytes.data(), &number, 10); // x87: the other six bytes are padding
    break;
  default:
    break;
  }
  return of(type, std::move(bytes));
}

Value Value::pointer(TypeRef pointer_type, TargetAddr target) {
  return integer(pointer_type, static_cast<Wide>(target.value));
}

Value Value::in_memory(TypeRef type, TargetAddr address) {
  Value value;
  value.type = type;
  value.place = Place::kMemory;
  value.address = address;
  value.is_lazy = true;
  return value;
}

Wide read_integer(std::span<const std::byte> bytes, bool is_signed) {
  UnsignedWide raw = 0;
  size_t size = std::min<size_t>(bytes.size(), 16);
  if (size == 0)
    return 0;
  std::memcpy(&raw, bytes.data(), size);
  unsigned shift = 128 - 8 * static_cast<unsigned>(size);
  raw <<= shift;
  return is_signed ? static_cast<Wide>(raw) >> shift : static_cast<Wide>(raw >> shift);
}

Wide read_bits(std::span<const std::byte> bytes, uint64_t bit_offset, unsigned bit_size,
               bool is_signed) {
  uint64_t first = bit_offset / 8;
  if (bit_size == 0 || bit_size > 64 || first >= bytes.size())
    return 0;
  auto raw = static_cast<UnsignedWide>(read_integer(bytes.subspan(first), false));
  raw >>= bit_offset % 8;
  raw <<= 128 - bit_size;
  return is_signed ? static_cast<Wide>(raw) >> (128 - bit_size)
                   : static_cast<Wide>(raw >> (128 - bit_size));
}

long double read_float(std::span<const std::byte> bytes) {
  switch (bytes.size()) {
  case 4: {
    float f;
    std::memcpy(&f, bytes.data(), 4);
    return f;
  }
  case 8: {
    double d;
    std::memcpy(&d, bytes.data(), 8);
    return d;
  }
  case 10:
  case 12:
  case 16: {
    long double l = 0;
    std::memcpy(&l, bytes.data(), 10);
    return l;
  }
  default:
    return 0;
  }
}

Wide number_of(const Value& value) {
  bool is_signed = value.type->stripped()->is_signed();
  if (value.bit_size)
    return read_bits(value.bytes, value.bit_offset, value.bit_size, is_signed);
  return read_integer(value.bytes, is_signed);
}

long double floating_of(const Value& value) { return read_float(value.bytes); }

Wide wrap(TypeRef type, Wide number) {
  if (type->stripped()->kind() == TypeKind::kBool)
    return number != 0;
  uint64_t size = type->size();
  if (size == 0 || size >= 16)
    return number;
  auto raw = std::as_bytes(std::span(&number, 1)).first(size);
  return read_integer(raw, type->stripped()->is_signed());
}

} // namespace ddbg::expr
