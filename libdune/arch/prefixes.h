// Prefixes of instructions (AMD64 Architecture Programmer's Manual 3, "Instruction Prefixes").
// Freestanding-clean.
#pragma once

#include <cstdint>

namespace dune {

inline constexpr uint8_t kPrefixOperandSize = 0x66, kPrefixLock = 0xf0, kPrefixRepne = 0xf2,
                         kPrefixRep = 0xf3;

// A legacy prefix, but for lock.
constexpr bool is_legacy_prefix(uint8_t byte) {
  switch (byte) {
  case 0x26: // segments
  case 0x2e:
  case 0x36:
  case 0x3e:
  case 0x64:
  case 0x65:
  case kPrefixOperandSize:
  case 0x67: // address size
  case kPrefixRepne:
  case kPrefixRep:
    return true;
  default:
    return false;
  }
}
constexpr bool is_rex(uint8_t byte) { return (byte & 0xf0) == 0x40; }

} // namespace dune
