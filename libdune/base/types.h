// Address types. An address in the target, one in our own process, a guest-physical address and a
// file offset are four different things; mixing them up is a compile error.
// Freestanding-clean.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

namespace dune {

// A 64-bit quantity of one kind. Arithmetic with plain byte counts stays within the kind; the
// difference of two is a plain byte count.
template <class Tag> struct Address {
  uint64_t value = 0;

  constexpr Address() = default;
  constexpr explicit Address(uint64_t v) : value(v) {}

  constexpr auto operator<=>(const Address&) const = default;
  constexpr explicit operator bool() const { return value != 0; }

  constexpr Address& operator+=(uint64_t n) {
    value += n;
    return *this;
  }
  constexpr Address& operator-=(uint64_t n) {
    value -= n;
    return *this;
  }
  friend constexpr Address operator+(Address a, uint64_t n) { return Address(a.value + n); }
  friend constexpr Address operator-(Address a, uint64_t n) { return Address(a.value - n); }
  // Wraps modulo 2^64, as addresses do; cast to int64_t for a signed distance.
  friend constexpr uint64_t operator-(Address a, Address b) { return a.value - b.value; }

  constexpr Address align_down(uint64_t power_of_two) const {
    return Address(value & ~(power_of_two - 1));
  }
  constexpr Address align_up(uint64_t power_of_two) const {
    return Address((value + power_of_two - 1) & ~(power_of_two - 1));
  }
};

using TargetAddr = Address<struct TargetAddrTag>;       // a virtual address in the target (GVA)
using GuestPhysAddr = Address<struct GuestPhysAddrTag>; // second-level input address (GPA)
using FileOffset = Address<struct FileOffsetTag>;       // an offset in a file
using LinkAddr = Address<struct LinkAddrTag>; // an address as an ELF file says it (unbiased)

// Half-open [begin, end).
template <class Addr> struct Range {
  Addr begin{};
  Addr end{};

  constexpr bool contains(Addr a) const { return a >= begin && a < end; }
  constexpr bool overlaps(const Range& o) const { return begin < o.end && o.begin < end; }
  constexpr uint64_t size() const { return end - begin; }
  constexpr bool empty() const { return begin == end; }
  constexpr bool operator==(const Range&) const = default;
};
using TargetRange = Range<TargetAddr>;
using LinkRange = Range<LinkAddr>;

inline constexpr uint64_t kPageSize = 4096;

} // namespace dune
