// What is known of the process's mappings: ranges with the rights that the program has there. A
// cache of the kernel's list, so that every range may be left out, and a full pool is no error.
// Freestanding-clean.
#pragma once

#include "libdune/arch/paging.h"
#include "libdune/base/types.h"

#include <span>

namespace dune::process {

struct Mapped {
  TargetRange range;
  // kPageRead, kPageWrite, kPageExecute as /proc/self/maps has them; 0: PROT_NONE
  uint64_t rights = 0;

  bool operator==(const Mapped&) const = default;
};

class Mappings {
public:
  Mappings() = default;
  // `pool` stays the caller's. Not empty.
  explicit Mappings(std::span<Mapped> pool) : pool_(pool) {}

  // Null: nothing is known there. Neighbours with the same rights are one.
  const Mapped* find(TargetAddr) const;
  void assign(TargetRange, uint64_t rights);
  void forget(TargetRange);
  void forget_all() { count_ = 0; }
  bool full() const { return count_ == pool_.size(); }
  std::span<const Mapped> all() const { return pool_.first(count_); }

private:
  size_t first_ending_after(TargetAddr) const;
  void insert(size_t at, const Mapped&);
  void erase(size_t from, size_t to);

  std::span<Mapped> pool_; // [0, count_) sorted, disjoint, none empty
  size_t count_ = 0;
};

// Reads /proc/PID/maps a byte at a time.
class MapsParser {
public:
  // True: this byte completed `mapped()`.
  bool feed(char);
  const Mapped& mapped() const { return mapped_; }

private:
  enum class Field { kBegin, kEnd, kRights, kRest };
  Field field_ = Field::kBegin;
  uint64_t number_ = 0;
  uint32_t flags_ = 0;
  Mapped mapped_{};
};

} // namespace dune::process
