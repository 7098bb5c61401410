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

// Takes its tables from a fixed pool. The tables only cache what the process's own mappings say, so
// when the pool is full, starting afresh is an answer.
// Not thread-safe; the processor reads the tables all the time, entries change in one store each.
class PageTables {
public:
  PageTables() = default;
  // `pool` is page-aligned, reads as zero and is contiguous in guest-physical memory from
  // `physical`.
  PageTables(TargetRange pool, GuestPhysAddr physical)
      : pool_(pool), used_(pool.begin + kPageSize), physical_(physical) {}

  GuestPhysAddr root() const { return physical_; } // for CR3

  // Replaces what was there. kExhausted: the pool is full.
  Status map(TargetAddr page, GuestPhysAddr to, uint64_t rights) {
    DUNE_ASSERT(page < TargetAddr(kUserEnd));
    Entry* table = table_at(pool_.begin);
    for (int level = 3; level > 0; --level) {
      Entry& e = table[index(page, level)];
      if (!(e & kPageRead)) {
        if (used_ >= pool_.end)
          return Error{Errc::kExhausted, "no page table is left",
                       int64_t(pool_.size() / kPageSize)};
        store(e, physical_of(used_).value | kPageRead | kPageWrite | kPageUser);
        used_ += kPageSize;
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

private:
  using Entry = uint64_t;
  static constexpr uint64_t kAddressMask = 0x000ffffffffff000;

  static uint64_t index(TargetAddr a, int level) { return a.value >> (12 + 9 * level) & 511; }
  static void store(Entry& e, uint64_t value) { __atomic_store_n(&e, value, __ATOMIC_RELAXED); }
  static Entry* table_at(TargetAddr a) { return reinterpret_cast<Entry*>(a.value); }
  Entry* next(Entry e) const {
    return table_at(pool_.begin + (GuestPhysAddr(e & kAddressMask) - physical_));
  }
  GuestPhysAddr physical_of(TargetAddr a) const { return physical_ + (a - pool_.begin); }

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
  TargetAddr used_; // tables before it are taken; the first is the root
  GuestPhysAddr physical_;
};

} // namespace dune
