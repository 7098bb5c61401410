// Four-level page tables (AMD64 Architecture Programmer's Manual 2, "Long-Mode Page Translation")
// in memory of the process that is its own guest: a table has an address here and one in
// guest-physical memory, and the two need not be the same. Freestanding-clean.
#pragma once

#include "libdune/base/result.h"
#include "libdune/base/types.h"

namespace dune {

enum PageRights : uint64_t {
  kPageRead = 1, // present
  kPageWrite = 2,
  kPageUser = 4,
  kPageOwn = 1 << 9,         // ours, not the program's: clear() leaves it alone
  kPageExecute = 1ull << 63, // kept inverted in the entry (NX)
};

// The lower half of the address space: what user space can have with four levels. The last page is
// never mapped by the kernel.
inline constexpr uint64_t kUserEnd = 0x7ffffffff000;

// Takes its tables from a fixed pool. They only cache what the process's own mappings say, so when
// the pool is full the program's are forgotten (prune), and their pages used anew (reuse).
// Not thread-safe; the processor reads the tables all the time, entries change in one store each.
class PageTables {
public:
  PageTables() = default;
  // `pool` is page-aligned, reads as zero, is contiguous in guest-physical memory from `physical`
  // and at most kLargestPool.
  PageTables(TargetRange pool, GuestPhysAddr physical)
      : pool_(pool), next_(pool.begin + 2 * kPageSize), physical_(physical) {}

  // The pool's second page has a bit for each that prune() has left in use.
  static constexpr uint64_t kLargestPool = 8 * kPageSize * kPageSize;

  GuestPhysAddr root() const { return physical_; } // for CR3

  // Replaces what was there. kExhausted: the pool is full.
  Status map(TargetAddr page, GuestPhysAddr to, uint64_t rights) {
    DUNE_ASSERT(page < TargetAddr(kUserEnd));
    Entry* table = table_at(pool_.begin);
    for (int level = 3; level > 0; --level) {
      Entry& e = table[index(page, level)];
      if (!(e & kPageRead)) {
        const TargetAddr taken = take();
        if (!taken)
          return Error{Errc::kExhausted, "no page table is left",
                       int64_t(pool_.size() / kPageSize)};
        store(e, physical_of(taken).value | kPageRead | kPageWrite | kPageUser);
      }
      table = next(e);
    }
    // Accessed and dirty from the start: nobody reads these bits, and setting them costs the
    // processor (or a shadow of these tables) a second walk.
    constexpr uint64_t kAccessedAndDirty = 0x60;
    store(table[index(page, 0)],
          (to.value | kAccessedAndDirty | (rights & ~kPageExecute)) | (~rights & kPageExecute));
    return {};
  }

  bool mapped(TargetAddr page) const {
    const Entry* table = table_at(pool_.begin);
    for (int level = 3; level > 0; --level) {
      const Entry e = table[index(page, level)];
      if (!(e & kPageRead))
        return false;
      table = next(e);
    }
    return table[index(page, 0)] & kPageRead;
  }

  // Takes away every page in the range that is not our own. The processor may go on using what it
  // has cached: whoever takes rights away does the same to the host mapping afterwards.
  void clear(TargetRange range) { clear(table_at(pool_.begin), 3, 0, range); }

  // Takes away all tables but those that lead to pages of our own; no page is free until reuse().
  void prune() {
    __builtin_memset(kept(), 0, kPageSize);
    keep(pool_.begin);
    keep(pool_.begin + kPageSize);
    prune(table_at(pool_.begin), 3);
    next_ = pool_.end;
  }
  // The pages of what was taken away are free. Pre: no processor has anything of them any more.
  void reuse() { next_ = pool_.begin; }

  // Calls f with the address of every page that is mapped.
  template <class F> void each(F&& f) const { each(table_at(pool_.begin), 3, 0, f); }

private:
  using Entry = uint64_t;
  static constexpr uint64_t kAddressMask = 0x000ffffffffff000;

  static uint64_t index(TargetAddr a, int level) { return a.value >> (12 + 9 * level) & 511; }
  static void store(Entry& e, uint64_t value) { __atomic_store_n(&e, value, __ATOMIC_RELEASE); }
  static Entry* table_at(TargetAddr a) { return reinterpret_cast<Entry*>(a.value); }
  TargetAddr address_of(Entry e) const {
    return pool_.begin + (GuestPhysAddr(e & kAddressMask) - physical_);
  }
  Entry* next(Entry e) const { return table_at(address_of(e)); }
  GuestPhysAddr physical_of(TargetAddr a) const { return physical_ + (a - pool_.begin); }

  uint64_t* kept() const { return reinterpret_cast<uint64_t*>((pool_.begin + kPageSize).value); }
  void keep(TargetAddr table) {
    const uint64_t n = (table - pool_.begin) / kPageSize;
    kept()[n / 64] |= uint64_t{1} << n % 64;
  }
  bool is_kept(TargetAddr table) const {
    const uint64_t n = (table - pool_.begin) / kPageSize;
    return kept()[n / 64] >> n % 64 & 1;
  }

  // A page of zeroes; null: the pool is full.
  TargetAddr take() {
    while (next_ < pool_.end && is_kept(next_))
      next_ += kPageSize;
    if (next_ >= pool_.end)
      return {};
    const TargetAddr taken = next_;
    next_ += kPageSize;
    __builtin_memset(table_at(taken), 0, kPageSize);
    return taken;
  }

  // Whether it leads to a page of our own.
  bool prune(Entry* table, int level) {
    bool needed = false;
    for (uint64_t i = 0; i < 512; ++i) {
      const Entry e = table[i];
      if (!(e & kPageRead))
        continue;
      if (level == 0 ? bool(e & kPageOwn) : prune(next(e), level - 1)) {
        needed = true;
        if (level > 0)
          keep(address_of(e));
      } else {
        store(table[i], 0);
      }
    }
    return needed;
  }

  template <class F> void each(const Entry* table, int level, uint64_t base, F& f) const {
    const uint64_t span = kPageSize << (9 * level);
    for (uint64_t i = 0; i < 512; ++i)
      if (!(table[i] & kPageRead))
        continue;
      else if (level > 0)
        each(next(table[i]), level - 1, base + i * span, f);
      else
        f(TargetAddr(base + i * span));
  }

  void clear(Entry* table, int level, uint64_t base, TargetRange range) {
    const uint64_t span = kPageSize << (9 * level);
    for (uint64_t i = range.begin.value > base ? (range.begin.value - base) / span : 0; i < 512;
         ++i) {
      const uint64_t covered = base + i * span;
      if (covered >= range.end.value)
        break;
      if (!(table[i] & kPageRead))
        continue;
      if (level > 0)
        clear(next(table[i]), level - 1, covered, range);
      else if (!(table[i] & kPageOwn))
        store(table[i], 0);
    }
  }

  TargetRange pool_;
  TargetAddr next_; // pages before it are taken; the first is the root
  GuestPhysAddr physical_;
};

} // namespace dune
