// Debug registers: what DR7 asks of the processor, and DR6 answers. Freestanding-clean.
#pragma once

#include <cstdint>

namespace dune {

// Bit n of DR6: what DR7 has register n watch was accessed.
inline constexpr uint64_t kDr6Hits = 15, kDr6Step = 1 << 14;

// Has register `number` watch `size` bytes (1, 2, 4 or 8, at a multiple of it): writes, or reads,
// too. The bits of DR7 of several are or-ed.
constexpr uint64_t dr7_watching(uint32_t number, uint32_t size, bool writes_only) {
  const uint64_t length = size == 8 ? 2 : size - 1;
  const uint64_t access = writes_only ? 1 : 3;
  return uint64_t{1} << 2 * number | (length << 2 | access) << (16 + 4 * number);
}

} // namespace dune
