// A value: bytes with a type, and the place they came from when there is one.
#pragma once

#include "dtrace-lite/symbols/locations.h"
#include "dtrace-lite/symbols/types.h"
#include "libdune/arch/registers.h"

#include <cstddef>
#include <vector>

namespace ddbg::expr {

using dune::TargetAddr;
using symbols::BuiltinTypes;
using symbols::Language;
using symbols::Type;
using symbols::TypeKind;
using symbols::TypeRef;

// Wider than any C integer's arithmetic.
using Wide = __int128;
using UnsignedWide = unsigned __int128;

struct BitRange {
  uint64_t begin, end; // half-open, in the value
};

struct Value {
  enum class Place : uint8_t {
    kNone,        // computed
    kMemory,      // at `address`
    kRegister,    // in `reg`, from byte `register_offset`
    kConvenience, // the variable $`name`, or a part of it from byte `register_offset`
  };

  TypeRef type = BuiltinTypes::get().void_type;
  std::vector<std::byte> bytes{}; // type->size() of them, unless is_lazy
  Place place = Place::kNone;
  bool is_lazy = false;              // kMemory only: not read yet
  bool is_synthetic_pointer = false; // points to what has no address: DW_OP_implicit_pointer
  TargetAddr address{};
  dune::Reg reg{};
  uint32_t register_offset = 0;
  std::string name{};
  // A bit field: which bits, from the first bit of `bytes` or of `address`. size 0: none.
  uint32_t bit_offset = 0;
  uint32_t bit_size = 0;
  std::vector<BitRange> optimized_out{};

  bool is_lvalue() const { return place != Place::kNone; }
  bool is_void() const { return type->stripped()->kind() == TypeKind::kVoid; }
  bool is_optimized_out(uint64_t first_bit, uint64_t bits) const;
  bool is_wholly_optimized_out() const { return is_optimized_out(0, type->size() * 8); }

  static Value void_value() { return {}; }
  static Value of(TypeRef type, std::vector<std::byte> bytes);
  static Value integer(TypeRef type, Wide number);
  static Value floating(TypeRef type, long double number);
  static Value pointer(TypeRef pointer_type, TargetAddr target);
  static Value in_memory(TypeRef type, TargetAddr address); // lazy
};

// Bytes to numbers; the type must be integral or pointer (number), or floating (floating). Values
// must have been fetched.
Wide number_of(const Value& value);
long double floating_of(const Value& value);
Wide read_integer(std::span<const std::byte> bytes, bool is_signed); // little endian, <= 16 bytes
Wide read_bits(std::span<const std::byte> bytes, uint64_t bit_offset, unsigned bit_size,
               bool is_signed);
long double read_float(std::span<const std::byte> bytes);
// Cuts `number` to the type's size and sign.
Wide wrap(TypeRef type, Wide number);

} // namespace ddbg::expr
