// An entry of a page table, and what a program in ring 0 may say in it: the policy of a page,
// beyond which no access is allowed whatever the mapping gives. An entry with a policy remembers
// what the mapping gives, too, so that both can change by themselves; the processor sees what both
// allow. Freestanding-clean.
#pragma once

#include <cstdint>

namespace dune {

enum PageRights : uint64_t {
  kPageRead = 1, // present
  kPageWrite = 2,
  kPageUser = 4,
  kPageOwn = 1 << 9,         // ours, not the program's: clear() leaves it alone
  kPageExecute = 1ull << 63, // kept inverted in the entry (NX)
};

using PageEntry = uint64_t;

inline constexpr PageEntry kEntryAccessed = 1 << 5, kEntryDirty = 1 << 6,
                           kEntryLarge = 1 << 7, // a page, where there could be a table
    kEntryAddress = 0x000ffffffffff000;
// The processor leaves these to us.
inline constexpr PageEntry kEntryPolicy = 1 << 10, // there is one
    kEntryWasDirty = 1 << 11,                      // before the mapping was lost
    kEntryGiven = 1ull << 52,                      // the mapping's rights: the address is there,
    kEntryGivenWrite = 1ull << 53,                 // may be written,
    kEntryGivenExecute = 1ull << 54,               // executed
    kEntryAllowRead = 1ull << 55, kEntryAllowWrite = 1ull << 56, kEntryAllowExecute = 1ull << 57,
                           kEntryAllowRing3 = 1ull << 58;
// Of a view: the policy is its own; the address, too, which the mapping there does not change.
inline constexpr PageEntry kEntryOfView = 1ull << 59, kEntryElsewhere = 1ull << 60;
inline constexpr PageEntry kEntryAllowed =
    kEntryAllowRead | kEntryAllowWrite | kEntryAllowExecute | kEntryAllowRing3;
inline constexpr PageEntry kEntryOfPolicy = kEntryPolicy | kEntryWasDirty | kEntryAllowed;

// What the processor is to see of an entry with a policy.
constexpr PageEntry effective(PageEntry e) {
  const auto both = [e](PageEntry given, PageEntry allowed) {
    return (e & given) && (e & allowed);
  };
  e &= ~(kPageRead | kPageWrite | kPageUser | kPageExecute);
  e |= both(kEntryGiven, kEntryAllowRead) ? uint64_t{kPageRead} : 0;
  e |= both(kEntryGivenWrite, kEntryAllowWrite) ? uint64_t{kPageWrite} : 0;
  e |= e & kEntryAllowRing3 ? uint64_t{kPageUser} : 0;
  e |= both(kEntryGivenExecute, kEntryAllowExecute) ? 0 : uint64_t{kPageExecute};
  return e;
}

// The same page with a policy (of kEntryAllowed).
constexpr PageEntry with_policy(PageEntry e, PageEntry allowed) {
  if (!(e & kEntryPolicy)) {
    const PageEntry given = e & kPageRead ? kEntryGiven | (e & kPageWrite ? kEntryGivenWrite : 0) |
                                                (e & kPageExecute ? 0 : kEntryGivenExecute)
                                          : 0;
    e |= given;
  }
  return effective((e & ~kEntryAllowed) | kEntryPolicy | allowed);
}

// Without one any more. What the mapping gives is not forgotten, and not ring 3's.
constexpr PageEntry without_policy(PageEntry e) {
  if (!(e & kEntryPolicy))
    return e;
  if (!(e & kEntryGiven))
    return 0;
  const PageEntry open = effective(e | kEntryAllowed) & ~uint64_t{kPageUser};
  return open & ~(kEntryOfPolicy | kEntryGiven | kEntryGivenWrite | kEntryGivenExecute);
}

// The mapping has come (`mapped` is an entry without a policy), or gone (0).
constexpr PageEntry with_mapping(PageEntry e, PageEntry mapped) {
  if (!(e & kEntryPolicy))
    return mapped;
  const PageEntry dirty = e & (kEntryDirty | kEntryWasDirty) ? kEntryWasDirty : 0;
  return with_policy(mapped & ~(kEntryAccessed | kEntryDirty), e & kEntryAllowed) | dirty |
         (e & (kEntryOfView | kEntryElsewhere));
}

// Of an address elsewhere, which nobody knows any more to be good.
constexpr PageEntry in_doubt(PageEntry e) {
  return with_mapping(e, 0) | (e & (kEntryAddress | kEntryLarge));
}

// Accessed and dirty begin anew.
constexpr PageEntry without_age(PageEntry e) {
  return e & ~(kEntryAccessed | kEntryDirty | kEntryWasDirty);
}

// The page is another's, or it is the policy that stands in the way of such an access (the error
// code of a page fault).
constexpr bool policy_refuses(PageEntry e, uint64_t error) {
  constexpr uint64_t kWrite = 2, kRing3 = 4, kFetch = 16;
  if (!(e & kEntryPolicy))
    return error & kRing3;
  const PageEntry needed = kEntryAllowRead | (error & kWrite ? kEntryAllowWrite : 0) |
                           (error & kRing3 ? kEntryAllowRing3 : 0) |
                           (error & kFetch ? kEntryAllowExecute : 0);
  return (e & needed) != needed;
}

} // namespace dune
