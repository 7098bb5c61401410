// Four-level page tables (AMD64 Architecture Programmer's Manual 2, "Long-Mode Page Translation")
// in memory of the process that is its own guest: a table has an address here and one in
// guest-physical memory, and the two need not be the same. Freestanding-clean.
#pragma once

#include "libdune/arch/page_policy.h"
#include "libdune/base/result.h"
#include "libdune/base/types.h"

#include <span>

namespace dune {

// The lower half of the address space: what user space can have with four levels. The last page is
// never mapped by the kernel.
inline constexpr uint64_t kUserEnd = 0x7ffffffff000;

// Takes its tables from a fixed pool. They only cache what the process's own mappings say, so when
// the pool is full the program's are forgotten (prune), and their pages used anew (reuse).
//
// A view is another root. It shows what the tables show, but for single pages that are mapped in
// the view alone: on their paths it has tables of its own, which map() and clear() keep in step,
// and it shares the rest. Whoever maps such a page again for all takes it from the view, too.
//
// Not thread-safe; the processor reads the tables all the time, entries change in one store each.
// The roots stay where they are.
//
// A page may have a policy (page_policy.h), which its entry keeps whatever becomes of the mapping:
// of a program that is in ring 0 itself, which may change it at any time, too. In a view of such a
// program's a page has the policy of all, or one of its own, and may lie elsewhere.
//
// Pages of higher levels are large: 2 MiB (1) or 1 GiB (2). Of those that all have none has a
// policy; a view's own may lie elsewhere as a whole. Such a page stays what it is until a part of
// it is to be another, and is a table from then on.
class PageTables {
public:
  static constexpr uint32_t kViews = 64;

  PageTables() = default;
  // `pool` is page-aligned, reads as zero, is contiguous in guest-physical memory from `physical`
  // and at most kLargestPool.
  PageTables(TargetRange pool, GuestPhysAddr physical)
      : pool_(pool), next_(pool.begin + 2 * kPageSize), physical_(physical) {}

  // The pool's second page has a bit for each that prune() has left in use.
  static constexpr uint64_t kLargestPool = 8 * kPageSize * kPageSize;

  GuestPhysAddr root() const { return physical_; } // for CR3
  // The same of a view: the tables themselves where nothing is mapped in it yet.
  GuestPhysAddr root(uint32_t view) const {
    return views_[view] ? physical_of(views_[view]) : physical_;
  }

  // Replaces what was there. kExhausted: the pool is full.
  Status map(TargetAddr page, GuestPhysAddr to, uint64_t rights) {
    if (auto ok = reach(page); !ok)
      return ok;
    for_each_entry(page, [=](Entry e) {
      return e & kEntryElsewhere ? e : with_mapping(e, entry(to, rights));
    });
    return {};
  }

  static constexpr uint64_t kLargePage = 512 * kPageSize;
  static constexpr int kHighestPage = 2; // the level
  static constexpr uint64_t size_of(int level) { return kPageSize << 9 * level; }

  // A large page, where there is no table yet. It is taken away as a whole.
  Status map_large(TargetAddr page, GuestPhysAddr to, uint64_t rights, int level = 1) {
    Status ok = reach(page, level);
    if (ok)
      set(page, level, entry(to, rights) | kEntryLarge);
    return ok;
  }

  // The page's policy for all, as f says from what its entry is; the tables on the way to it are
  // made.
  template <class F> Status change_entry(TargetAddr page, F&& f) {
    if (auto ok = reach(page); !ok)
      return ok;
    for_each_entry(page, [&](Entry e) { return e & kEntryOfView ? e : f(e); });
    return {};
  }
  // The same in a view alone, of a page of that level. What f makes of it is the view's own if it
  // says so. Pre: has_room_in
  template <class F> Status change_entry_in(uint32_t view, TargetAddr page, F&& f, int level = 0) {
    Status ok = reach(page, level);
    if (ok)
      ok = split(view, page, level);
    if (ok)
      change(*entry_at(views_[view], page, level), f);
    return ok;
  }
  // Whether the view has no table of its own in place of a page of that level.
  bool has_room_in(uint32_t view, TargetAddr page, int level) const {
    const Entry *own = table_at(root_of(view)), *shared = table_at(pool_.begin);
    for (int l = 3;; --l) {
      const Entry e = own[index(page, l)], s = shared[index(page, l)];
      if (l == 0 || !is_table(e) || same_table(e, s))
        return true;
      if (l <= level)
        return false;
      own = next(e);
      shared = next(s);
    }
  }
  // A page of the view's own becomes what all have there. Pre: it is the whole page.
  void follow_in(uint32_t view, TargetAddr page, int level) {
    const Entry* shared = entry_at(pool_.begin, page, level);
    change(*entry_at(views_[view], page, level), [=](Entry) { return *shared; });
  }

  // Of an entry above the last level. (A page of a view's own may be large and not present.)
  static bool is_table(PageEntry e) { return (e & (kPageRead | kEntryLarge)) == kPageRead; }

  // The entry that says of the page what it is, or that there is no more, and at which level it
  // stands. Null: tables that are none of these.
  struct Leaf {
    PageEntry* entry;
    int level;

    uint64_t size() const { return size_of(level); }
  };
  Leaf find_leaf(GuestPhysAddr root, TargetAddr page) const {
    if (root - physical_ >= pool_.size())
      return {nullptr, 0};
    Entry* table = next(root.value);
    int level = 3;
    for (; level > 0 && is_table(table[index(page, level)]); --level)
      table = next(table[index(page, level)]);
    return {&table[index(page, level)], level};
  }

  // Whether what is left is for what cannot do without: the process's pages, as it comes to them.
  bool is_nearly_full() const { return !free_ && pool_.end - next_ < pool_.size() / 8; }

  // Where the entry stands; null: there is no table. For whoever is about to change it by
  // compare and exchange, which is safe at any time as long as no table is ever given up (prune)
  // and there are no views.
  PageEntry* find_entry(TargetAddr page) const {
    const Leaf leaf = find_leaf(physical_, page);
    return leaf.level == 0 ? leaf.entry : nullptr;
  }

  // kViews: there is no such view. A root may have a tag (PCID) in its lower bits, here and above.
  uint32_t view_of(GuestPhysAddr root) const {
    uint32_t view = 0;
    while (view < kViews &&
           !(views_[view] && same_table(physical_of(views_[view]).value, root.value)))
      ++view;
    return view;
  }
  bool has_views() const { return views_end_ > 0; }
  // A root of its own, which shows the same so far.
  Status open_view(uint32_t view) {
    if (views_[view])
      return {};
    auto root = copy_of(table_at(pool_.begin));
    if (!root)
      return root.error();
    views_[view] = *root;
    views_end_ = views_end_ > view ? views_end_ : view + 1;
    return {};
  }

  // It shows the same again, and has no tables but its root. Pre: no processor uses it.
  void close_view(uint32_t view) {
    if (views_[view])
      follow(table_at(views_[view]), table_at(pool_.begin), 3);
  }
  // The tables of closed views are free. Pre: no processor has anything of them any more.
  void reuse_closed() {
    while (closed_) {
      const TargetAddr table = closed_;
      closed_ = TargetAddr(*table_at(table));
      *table_at(table) = free_.value;
      free_ = table;
    }
  }

  Status map_in(uint32_t view, TargetAddr page, GuestPhysAddr to, uint64_t rights) {
    Status ok = reach(page);
    if (ok)
      ok = split(view, page);
    if (ok)
      store(*entry_at(views_[view], page, 0), entry(to, rights));
    return ok;
  }

  bool mapped(TargetAddr page) const {
    const Entry* table = table_at(pool_.begin);
    for (int level = 3; level > 0; --level) {
      const Entry e = table[index(page, level)];
      if (!is_table(e))
        return e & kPageRead;
      table = next(e);
    }
    return table[index(page, 0)] & kPageRead;
  }

  // Takes away every page in the range that is not our own. The processor may go on using what it
  // has cached: whoever takes rights away does the same to the host mapping afterwards.
  void clear(TargetRange range) {
    for (TargetAddr view : views())
      if (view)
        clear(table_at(view), table_at(pool_.begin), 3, 0, range);
    clear(table_at(pool_.begin), nullptr, 3, 0, range);
  }

  // Takes away all tables but those that lead to pages of our own, and what is in views alone; no
  // page is free until reuse().
  void prune() {
    __builtin_memset(kept(), 0, kPageSize);
    keep(pool_.begin);
    keep(pool_.begin + kPageSize);
    const Entry* root = table_at(pool_.begin);
    prune(table_at(pool_.begin), 3);
    for (TargetAddr view : views())
      if (view) {
        keep(view);
        for (uint64_t i = 0; i < 512; ++i)
          store(table_at(view)[i], root[i]);
      }
    next_ = pool_.end;
    free_ = closed_ = {};
  }
  // The pages of what was taken away are free. Pre: no processor has anything of them any more.
  void reuse() { next_ = pool_.begin; }

  // Calls f with the address of every page that is mapped, but for those that only views have.
  template <class F> void each(F&& f) const { each(table_at(pool_.begin), 3, 0, f); }

private:
  using Entry = PageEntry;
  static constexpr uint64_t kAddressMask = kEntryAddress;

  static uint64_t index(TargetAddr a, int level) { return a.value >> (12 + 9 * level) & 511; }
  static void store(Entry& e, uint64_t value) { __atomic_store_n(&e, value, __ATOMIC_RELEASE); }
  static Entry* table_at(TargetAddr a) { return reinterpret_cast<Entry*>(a.value); }
  static Entry entry(GuestPhysAddr to, uint64_t rights) {
    // Accessed and dirty from the start, for setting them costs the processor (or a shadow of these
    // tables) a second walk. Who reads these bits gives the page a policy.
    return (to.value | kEntryAccessed | kEntryDirty | (rights & ~kPageExecute)) |
           (~rights & kPageExecute);
  }
  // The processor marks what it has used.
  static bool same_table(Entry a, Entry b) { return !((a ^ b) & kAddressMask); }
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

  // A page of zeroes.
  Result<TargetAddr> take_table() {
    if (free_) {
      const TargetAddr taken = free_;
      free_ = TargetAddr(*table_at(taken));
      __builtin_memset(table_at(taken), 0, kPageSize);
      return taken;
    }
    while (next_ < pool_.end && is_kept(next_))
      next_ += kPageSize;
    if (next_ >= pool_.end)
      return Error{Errc::kExhausted, "no page table is left", int64_t(pool_.size() / kPageSize)};
    const TargetAddr taken = next_;
    next_ += kPageSize;
    __builtin_memset(table_at(taken), 0, kPageSize);
    return taken;
  }
  Entry entry_of_table(TargetAddr table) const {
    return physical_of(table).value | kPageRead | kPageWrite | kPageUser;
  }

  TargetAddr root_of(uint32_t view) const { return views_[view] ? views_[view] : pool_.begin; }

  // Pre: the tables above `level` are there, for all. Null: in place of one the view has a page of
  // its own.
  Entry* entry_at(TargetAddr root, TargetAddr page, int level) const {
    Entry* table = table_at(root);
    for (int l = 3; l > level; --l) {
      const Entry e = table[index(page, l)];
      if (!is_table(e))
        return nullptr;
      table = next(e);
    }
    return &table[index(page, level)];
  }

  std::span<const TargetAddr> views() const { return {views_, views_end_}; }

  template <class F> static void change(Entry& e, F&& f) {
    Entry now = __atomic_load_n(&e, __ATOMIC_RELAXED);
    while (
        !__atomic_compare_exchange_n(&e, &now, f(now), false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
      ;
  }
  // In the tables, and in those that views have in their place. Pre: those above are there.
  template <class F> void for_each_entry(TargetAddr page, F&& f) {
    Entry* shared = entry_at(pool_.begin, page, 0);
    for (TargetAddr view : views())
      if (view)
        if (Entry* own = entry_at(view, page, 0); own && own != shared)
          change(*own, f);
    change(*shared, f);
  }

  // In the tables, and in those that views have in their place.
  void set(TargetAddr page, int level, Entry value) {
    Entry* shared = entry_at(pool_.begin, page, level);
    for (TargetAddr view : views())
      if (view)
        if (Entry* own = entry_at(view, page, level);
            own && own != shared && !(*own & kEntryOfView))
          store(*own, value);
    store(*shared, value);
  }

  // The tables on the way to the page, down to `last`.
  Status reach(TargetAddr page, int last = 0) {
    DUNE_ASSERT(page < TargetAddr(kUserEnd));
    Entry* table = table_at(pool_.begin);
    for (int level = 3; level > last; --level) {
      Entry& e = table[index(page, level)];
      if (!(e & kPageRead)) {
        auto taken = take_table();
        if (!taken)
          return taken.error();
        set(page, level, entry_of_table(*taken));
      } else if (!is_table(e)) {
        auto taken = take_table();
        if (!taken)
          return taken.error();
        fill_with_large(*taken, e, level);
        set(page, level, entry_of_table(*taken));
      }
      table = next(e);
    }
    return {};
  }

  // The same memory as such an entry at that level, in pages of the next lower one.
  void fill_with_large(TargetAddr table, Entry large, int level) {
    const Entry first = level > 1 ? large : large & ~kEntryLarge;
    for (uint64_t i = 0; i < 512; ++i)
      table_at(table)[i] = first + i * size_of(level - 1);
  }

  Result<TargetAddr> copy_of(const Entry* table) {
    auto taken = take_table();
    if (taken)
      __builtin_memcpy(table_at(*taken), table, kPageSize);
    return taken;
  }

  // The view's own tables on that way, down to `last`. Pre: reach()
  Status split(uint32_t view, TargetAddr page, int last = 0) {
    if (auto ok = open_view(view); !ok)
      return ok;
    const Entry* shared = table_at(pool_.begin);
    Entry* own = table_at(views_[view]);
    for (int level = 3; level > last; --level) {
      Entry& e = own[index(page, level)];
      const Entry s = shared[index(page, level)];
      if (!is_table(e)) {
        auto taken = take_table();
        if (!taken)
          return taken.error();
        change(e, [&](Entry large) { // in which the processor may mark something meanwhile
          fill_with_large(*taken, large, level);
          return entry_of_table(*taken);
        });
      } else if (same_table(e, s)) {
        auto copy = copy_of(next(s));
        if (!copy)
          return copy.error();
        store(e, entry_of_table(*copy));
      }
      own = next(e);
      shared = next(s);
    }
    return {};
  }

  // Up to the root, which no processor uses: each of the view's own tables is closed.
  void follow(Entry* table, const Entry* shared, int level) {
    for (uint64_t i = 0; i < 512; ++i) {
      const Entry e = table[i];
      if (level > 0 && is_table(e) && !same_table(e, shared[i])) {
        follow(next(e), next(shared[i]), level - 1);
        *next(e) = closed_.value;
        closed_ = address_of(e);
      }
      store(table[i], shared[i]);
    }
  }

  // Whether it leads to a page of our own.
  bool prune(Entry* table, int level) {
    bool needed = false;
    for (uint64_t i = 0; i < 512; ++i) {
      const Entry e = table[i];
      if (!(e & kPageRead))
        continue;
      const bool is_page = level == 0 || !is_table(e);
      if (is_page ? bool(e & kPageOwn) : prune(next(e), level - 1)) {
        needed = true;
        if (!is_page)
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
      else if (level > 0 && is_table(table[i]))
        each(next(table[i]), level - 1, base + i * span, f);
      else
        f(TargetAddr(base + i * span));
  }

  // `shared`: what stands at its place in the tables that all have, if it is not one of them.
  void clear(Entry* table, const Entry* shared, int level, uint64_t base, TargetRange range) {
    const uint64_t span = kPageSize << (9 * level);
    for (uint64_t i = range.begin.value > base ? (range.begin.value - base) / span : 0; i < 512;
         ++i) {
      const uint64_t covered = base + i * span;
      if (covered >= range.end.value)
        break;
      if (table[i] & kEntryPolicy) {
        change(table[i],
               [](Entry e) { return e & kEntryElsewhere ? in_doubt(e) : with_mapping(e, 0); });
        continue;
      }
      const bool is_page = level == 0 || !is_table(table[i]);
      if (!(table[i] & kPageRead) || (shared && !is_page && same_table(table[i], shared[i])))
        continue;
      if (!is_page)
        clear(next(table[i]), shared && is_table(shared[i]) ? next(shared[i]) : nullptr, level - 1,
              covered, range);
      else if (!(table[i] & kPageOwn))
        store(table[i], 0);
    }
  }

  TargetRange pool_;
  TargetAddr next_;   // pages before it are taken; the first is the root
  TargetAddr free_;   // but for this one, and the one that its first entry says, ...; null: none
  TargetAddr closed_; // the same, and not free yet
  GuestPhysAddr physical_;
  TargetAddr views_[kViews] = {}; // their roots, null: see root()
  uint32_t views_end_ = 0;        // behind the last that is there
};

} // namespace dune
