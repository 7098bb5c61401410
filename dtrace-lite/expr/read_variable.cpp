// A variable's value from its location: memory, a register, pieces of both, or nothing.
#include "dtrace-lite/expr/evaluate.h"

#include <algorithm>
#include <cstring>

namespace ddbg::expr {
namespace {

using symbols::LocatedPiece;

// Copies `count` bits, least significant first.
void copy_bits(std::span<std::byte> to, uint64_t to_bit, std::span<const std::byte> from,
               uint64_t from_bit, uint64_t count) {
  for (uint64_t i = 0; i < count; i++) {
    uint64_t source = from_bit + i, target = to_bit + i;
    if (source / 8 >= from.size() || target / 8 >= to.size())
      return;
    bool bit = (from[source / 8] >> (source % 8) & std::byte{1}) != std::byte{0};
    std::byte mask = std::byte{1} << (target % 8);
    to[target / 8] = bit ? to[target / 8] | mask : to[target / 8] & ~mask;
  }
}

} // namespace

Checked<Value> read_variable(const Symbol& symbol, TypeRef type, Context& context) {
  Value value;
  value.type = type;
  auto plan = symbol.table->plan(symbol.variable, symbol.pc);
  if (!plan)
    return plan.error();
  auto location = symbols::evaluate_location(*plan, context, symbol.bias);
  if (!location)
    return location.error();
  const auto& pieces = location->pieces;
  if (pieces.size() == 1 && pieces[0].bit_size == 0 &&
      pieces[0].kind == LocatedPiece::Kind::kMemory)
    return Value::in_memory(type, pieces[0].address);

  if (type->size() > kMaxValueSize)
    return too_large(type->size());
  uint64_t total = type->size() * 8;
  value.bytes.resize(type->size());
  uint64_t at = 0;
  for (const LocatedPiece& piece : pieces) {
    if (at >= total)
      break;
    uint64_t bits = std::min(piece.bit_size ? piece.bit_size : total - at, total - at);
    bool known = false;
    if (piece.bit_offset > kMaxValueSize * 8)
      return too_large(piece.bit_offset / 8);
    switch (piece.kind) {
    case LocatedPiece::Kind::kMemory: {
      std::vector<std::byte> bytes((piece.bit_offset + bits + 7) / 8);
      if (!context.read_memory(piece.address, bytes))
        return cannot_access(piece.address);
      copy_bits(value.bytes, at, bytes, piece.bit_offset, bits);
      known = true;
      break;
    }
    case LocatedPiece::Kind::kRegister: {
      std::vector<std::byte> bytes(std::max<uint64_t>((piece.bit_offset + bits + 7) / 8, 8));
      if (piece.dwarf_register >= 17 && piece.dwarf_register <= 40) {
        known = context.read_wide_register(piece.dwarf_register, bytes);
      } else if (auto word = context.read_register(piece.dwarf_register)) {
        std::memcpy(bytes.data(), &*word, 8);
        known = bits + piece.bit_offset <= 64;
        if (auto reg = register_by_dwarf(piece.dwarf_register);
            known && reg && pieces.size() == 1 && piece.bit_offset == 0) {
          value.place = Value::Place::kRegister;
          value.reg = *reg;
        }
      }
      if (known)
        copy_bits(value.bytes, at, bytes, piece.bit_offset, bits);
      break;
    }
    case LocatedPiece::Kind::kBytes:
      copy_bits(value.bytes, at, piece.bytes, piece.bit_offset, bits);
      known = true;
      break;
    case LocatedPiece::Kind::kImplicitPointer:
      value.is_synthetic_pointer = pieces.size() == 1;
      known = value.is_synthetic_pointer;
      break;
    case LocatedPiece::Kind::kOptimizedOut:
      break;
    }
    if (!known)
      value.optimized_out.push_back({at, at + bits});
    at += bits;
  }
  if (at < total)
    value.optimized_out.push_back({at, total});
  return value;
}

} // namespace ddbg::expr
