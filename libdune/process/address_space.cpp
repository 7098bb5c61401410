#include "libdune/process/address_space.h"

#include <asm/errno.h>
#include <linux/fcntl.h>
#include <linux/mman.h>
#include <linux/shm.h>

namespace dune::process {

namespace {

// Neighbours that come along with a page, counted in pages and aligned: with 1, 16, 64 a page of a
// run costs 42, 6.8 and 4.9 us under software virtualisation.
constexpr uint64_t kAround = 16 * kPageSize;
// So many faults bring no neighbours after KVM met a page that the host refuses: it must not come
// back as another one's neighbour before it has faulted.
constexpr uint32_t kFaultsAlone = 256;
constexpr uint32_t kPatience = 16; // see unbacked()

constexpr uint64_t kAllRights = kPageRead | kPageWrite | kPageExecute;
constexpr TargetRange kEverything{TargetAddr(0), TargetAddr(kUserEnd)};

long on_page(long call, TargetAddr page, int advice) {
  return syscall_of(call, page.value, kPageSize, advice);
}

// 0 or -errno. The page is there then, and may be accessed so.
long populate(TargetAddr page, bool for_write) {
  return on_page(__NR_madvise, page, for_write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
}

// Whether the host can read it, tried by a call that reads memory and does nothing else.
bool readable(TargetAddr page) {
  constexpr long kNoSuchAction = -1;
  return syscall_of(__NR_rt_sigprocmask, kNoSuchAction, page.value, 0, 8) != -EFAULT;
}

bool is_beyond_reach(long address, long size) {
  const auto begin = static_cast<uint64_t>(address), length = static_cast<uint64_t>(size);
  return begin > kUserEnd || length > kUserEnd - begin;
}

bool is_mapped(TargetAddr page) { return on_page(__NR_msync, page, MS_ASYNC) != -ENOMEM; }

// 0: the kernel does not tell.
uint64_t pagemap_entry(TargetAddr page) {
  static constexpr char kPath[] = "/proc/self/pagemap";
  const long fd = syscall_of(__NR_openat, AT_FDCWD, kPath, O_RDONLY | O_CLOEXEC, 0);
  if (is_errno(fd))
    return 0;
  uint64_t entry = 0;
  syscall_of(__NR_pread64, fd, &entry, sizeof entry, page.value / kPageSize * sizeof entry);
  syscall_of(__NR_close, fd);
  return entry;
}

// Made by MADV_GUARD_INSTALL, which kernels have that say so here. To the rest it looks like a page
// beyond the end of a file.
bool is_guard(TargetAddr page) {
  constexpr uint64_t kGuardRegion = 1ull << 58;
  return pagemap_entry(page) & kGuardRegion;
}

// In the kernel's tables, where one without any right is not.
bool is_present(TargetAddr page) {
  constexpr uint64_t kPresent = 1ull << 63;
  return pagemap_entry(page) & kPresent && readable(page);
}

uint64_t rights_of(long prot) {
  return (prot & PROT_READ ? uint64_t{kPageRead} : 0) |
         (prot & PROT_WRITE ? uint64_t{kPageWrite} : 0) |
         (prot & PROT_EXEC ? uint64_t{kPageExecute} : 0);
}

long prot_of(uint64_t rights) {
  return (rights & kPageRead ? PROT_READ : 0) | (rights & kPageWrite ? PROT_WRITE : 0) |
         (rights & kPageExecute ? PROT_EXEC : 0);
}

// As x86 has it: any right is one to read.
bool allows(uint64_t rights, uint64_t error) {
  if (error & kFaultWrite)
    return rights & kPageWrite;
  return error & kFaultFetch ? rights & kPageExecute : rights != 0;
}

// The pages that a call's arguments name. What the kernel will not take may come out as anything.
TargetRange pages_of(long address, long size) {
  const TargetAddr begin = TargetAddr(static_cast<uint64_t>(address)).align_down(kPageSize);
  const TargetAddr end = (TargetAddr(static_cast<uint64_t>(address)) + static_cast<uint64_t>(size))
                             .align_up(kPageSize);
  if (begin >= kEverything.end)
    return {};
  return {begin, end < begin || end > kEverything.end ? kEverything.end : end};
}

// The same for calls whose size the kernel rounds up to a huge page, if that is what the mapping
// consists of.
TargetRange huge_pages_of(long address, long size) {
  constexpr uint64_t kHuge[] = {2ull << 20, 1ull << 30};
  TargetRange range = pages_of(address, size);
  for (uint64_t huge : kHuge)
    if (range.begin == range.begin.align_down(huge))
      range.end = range.end.align_up(huge);
  return range;
}

TargetRange common(TargetRange a, TargetRange b) {
  return {a.begin > b.begin ? a.begin : b.begin, a.end < b.end ? a.end : b.end};
}

} // namespace

Status AddressSpace::open(backend::Guest& guest, std::span<Mapped> pool,
                          std::span<const TargetRange> own, std::span<const TargetRange> copies) {
  guest_ = &guest;
  known_ = Mappings(pool);
  own_ = own;
  copies_ = copies;
  static constexpr char kPath[] = "/proc/self/maps";
  const long fd =
      backend::move_high(syscall_of(__NR_openat, AT_FDCWD, kPath, O_RDONLY | O_CLOEXEC, 0));
  if (is_errno(fd))
    return Error{Errc::kSystem, "cannot open /proc/self/maps", -fd};
  maps_ = static_cast<int>(fd);
  return {};
}

void AddressSpace::close() {
  if (maps_ >= 0)
    syscall_of(__NR_close, maps_);
  maps_ = -1;
}

namespace {

TargetRange range_at(std::span<const TargetRange> ranges, TargetAddr a) {
  for (const TargetRange& range : ranges)
    if (range.contains(a))
      return range;
  return {};
}

} // namespace

TargetRange AddressSpace::own_at(TargetAddr a) const { return range_at(own_, a); }
TargetRange AddressSpace::copy_at(TargetAddr a) const { return range_at(copies_, a); }

// Everything, or in a pool that is too small what there is room for around `wanted`. False: the
// kernel does not tell.
bool AddressSpace::read_mappings(TargetAddr wanted) {
  known_.forget_all();
  MapsParser parser;
  for (uint64_t offset = 0;;) {
    const long n = syscall_of(__NR_pread64, maps_, text_, sizeof text_, offset);
    if (n <= 0)
      return n == 0 && offset > 0;
    offset += static_cast<uint64_t>(n);
    for (long i = 0; i < n; ++i) {
      if (!parser.feed(text_[i]))
        continue;
      if (known_.full() && known_.find(wanted))
        return true;
      known_.assign(common(parser.mapped().range, kEverything), parser.mapped().rights);
    }
  }
}

void AddressSpace::drop(TargetRange range) {
  known_.forget(range);
  backend::unmap_pages(*guest_, range);
}

// KVM takes no page of a mapping without the right to read, though any other includes that.
bool AddressSpace::make_readable(const Mapped& m) {
  const long prot = prot_of(m.rights | kPageRead);
  if (syscall_of(__NR_mprotect, m.range.begin.value, m.range.size(), prot) != 0)
    return false;
  known_.assign(m.range, m.rights | kPageRead);
  return true;
}

uint64_t AddressSpace::withheld_at(TargetAddr page) const {
  uint64_t rights = 0;
  for (const WatchedPage& w : std::span(watched_, watched_count_))
    if (w.page == page)
      rights |= w.writes_only ? uint64_t{kPageWrite} : kAllRights;
  return rights;
}

// What the processor, or KVM's shadow of the tables, has of the page beside its entry. The MMU
// notifier of a change of the mapping has both forget it (to set CR3 does not: a shadow knows
// nothing of entries that were written from here). The change must take nothing away: a system call
// of another thread may be about to write there. So it is to the right to execute, which nobody
// needs outside the guest, given or taken and back. Only where that is refused (a file system that
// is mounted noexec) it is to the right to write.
void AddressSpace::flush(TargetAddr page) {
  read_mappings(page);
  const Mapped* m = known_.find(page);
  if (!m || !m->rights)
    return; // nobody can have used it
  const long prot = prot_of(m->rights);
  // Of huge pages only the whole.
  const TargetRange parts[] = {{page, page + kPageSize}, m->range};
  for (const long other : {prot ^ PROT_EXEC, prot ^ PROT_WRITE})
    for (const TargetRange& part : parts)
      if (syscall_of(__NR_mprotect, part.begin.value, part.size(), other) == 0) {
        syscall_of(__NR_mprotect, part.begin.value, part.size(), prot);
        return;
      }
}

void AddressSpace::watch_locked(std::span<const WatchedPage> pages) {
  watched_count_ = 0;
  // Those from before need nothing: an entry with too few rights leads to a fault, which mends it.
  for (const WatchedPage& w :
       pages.first(pages.size() < kMostWatched ? pages.size() : kMostWatched)) {
    WatchedPage* same = watched_;
    while (same < watched_ + watched_count_ && same->page != w.page)
      ++same;
    if (same < watched_ + watched_count_)
      same->writes_only &= w.writes_only;
    else if (own_at(w.page).empty())
      watched_[watched_count_++] = w;
  }
  for (const WatchedPage& w : std::span(watched_, watched_count_)) {
    backend::unmap_pages(*guest_, {w.page, w.page + kPageSize});
    flush(w.page);
  }
}

static_assert(AddressSpace::kMostWatched < PageTables::kViews);
constexpr uint32_t kViewOfAll = AddressSpace::kMostWatched;

uint32_t AddressSpace::watched_bit(TargetAddr page) {
  const Holder holder(mutex_);
  for (uint32_t i = 0; i < watched_count_; ++i)
    if (watched_[i].page == page)
      return 1u << i;
  return 0;
}

GuestPhysAddr AddressSpace::root_for(uint32_t watched) const {
  if (!watched)
    return guest_->tables.root();
  const bool is_one = !(watched & (watched - 1));
  return guest_->tables.root(is_one ? static_cast<uint32_t>(__builtin_ctz(watched)) : kViewOfAll);
}

Status AddressSpace::map_in_views(TargetAddr page, GuestPhysAddr to, uint64_t rights) {
  Status ok;
  if (guest_->placement != backend::Placement::kRing0)
    return ok;
  for (uint32_t i = 0; i < watched_count_ && ok; ++i)
    if (watched_[i].page == page)
      ok = guest_->tables.map_in(i, page, to, rights);
  return ok ? guest_->tables.map_in(kViewOfAll, page, to, rights) : ok;
}

// The level of the largest that can show it to a program in ring 0: for that the second level need
// not be one of small pages, and nothing is shown in part; what it says of a page makes small ones
// of a large one.
int AddressSpace::largest_page(TargetAddr page, TargetRange mapping) const {
  if (!guest_->system_call)
    return 0;
  const auto fits = [&](int level) {
    const uint64_t size = PageTables::size_of(level);
    const TargetRange large{page.align_down(size), page.align_down(size) + size};
    for (const TargetRange& own : own_)
      if (own.overlaps(large))
        return false;
    return large.begin >= mapping.begin && large.end <= mapping.end;
  };
  const int room = guest_->tables.find_leaf(guest_->tables.root(), page).level;
  int level = room < guest_->highest_page ? room : guest_->highest_page;
  while (level > 0 && !fits(level))
    --level;
  return level;
}

Status AddressSpace::map_large(TargetAddr page, uint64_t rights, int level) {
  auto physical = backend::cover(*guest_, page);
  return physical ? guest_->tables.map_large(page, *physical, rights, level) : physical.error();
}

Outcome AddressSpace::map_around(TargetAddr page, uint64_t error, const Mapped& m) {
  const bool is_watched = !allows((m.rights | kPageRead) & ~withheld_at(page), error);
  const int level = is_watched || alone_ > 0 ? 0 : largest_page(page, m.range);
  if (level > 0) {
    const TargetAddr large = page.align_down(PageTables::size_of(level));
    const Status ok = map_large(large, m.rights | kPageRead, level);
    return ok ? Outcome::kServed : Outcome::kOutOfMemory;
  }
  const TargetAddr first = page.align_down(kAround);
  TargetRange window{page, page + kPageSize};
  if (is_watched)
    window = {page, page};
  else if (alone_ > 0)
    --alone_;
  else
    window = common({first, first + kAround}, m.range);
  uint64_t rights = m.rights | kPageRead | (guest_->system_call ? 0 : uint64_t{kPageUser});
  if (const TargetRange own = own_at(page); !own.empty()) {
    const TargetRange copy = copy_at(page);
    window = common(window, copy.empty() ? own : copy);
    rights |= kPageOwn;
    if (copy.empty() && guest_->placement == backend::Placement::kRing0)
      rights &= ~uint64_t{kPageUser};
  } else {
    for (const TargetRange& other : own_)
      if (other.overlaps(window))
        window = other.begin > page ? TargetRange{window.begin, other.begin}
                                    : TargetRange{other.end, window.end};
  }
  const Status ok = backend::map_with_room(*guest_, [&]() -> Status {
    auto physical = backend::cover(*guest_, window.begin);
    if (!physical)
      return physical.error();
    for (TargetAddr a = window.begin; a < window.end; a += kPageSize) {
      const uint64_t withheld = withheld_at(a);
      if (a == page || (!withheld && !guest_->tables.mapped(a)))
        if (auto mapped = guest_->tables.map(a, *physical + (a - window.begin), rights & ~withheld);
            !mapped)
          return mapped;
    }
    if (withheld_at(page))
      return map_in_views(page, *physical + (page - window.begin), rights);
    return {};
  });
  if (!ok)
    return Outcome::kOutOfMemory;
  return is_watched ? Outcome::kWatched : Outcome::kServed;
}

// The kernel has the page and allows to read it, or to write if that was wanted.
Outcome AddressSpace::map_present(TargetAddr page, uint64_t error, bool grown) {
  const Mapped* m = known_.find(page);
  if (!m || !allows(m->rights, error)) {
    // Of a stack that grows, the kernel has said all there is to know.
    const bool enough = grown && !(error & kFaultFetch);
    const bool read = !enough && read_mappings(page);
    m = known_.find(page);
    if (m && error & kFaultFetch && !allows(m->rights, error))
      return Outcome::kNoRights;
    if (!m || !allows(m->rights, error)) {
      if (read)
        return Outcome::kServed; // not any more; the next fault says what there is now
      known_.assign({page, page + kPageSize},
                    kPageRead | (error & kFaultWrite ? uint64_t{kPageWrite} : 0));
      m = known_.find(page);
    }
  }
  return map_around(page, error, *m);
}

// The rights do not suffice, or there are no pages of memory (vvar, a device).
Outcome AddressSpace::map_special(TargetAddr page, uint64_t error) {
  const auto refuses = [&](const Mapped* m) {
    return m && (m->rights == 0 || (error & kFaultWrite && !(m->rights & kPageWrite)));
  };
  const Mapped* m = known_.find(page);
  if (refuses(m))
    return Outcome::kNoRights;
  read_mappings(page);
  m = known_.find(page);
  if (!m)
    return Outcome::kServed; // gone meanwhile; the next fault says so
  if (refuses(m))
    return Outcome::kNoRights;
  if (!(m->rights & kPageRead))
    return make_readable(*m) ? Outcome::kServed : Outcome::kNoPage;
  if (!readable(page))
    return Outcome::kNoPage;
  return allows(m->rights, error) ? map_around(page, error, *m) : Outcome::kNoRights;
}

Outcome AddressSpace::answer(TargetAddr page, uint64_t error, long populated, bool grown) {
  switch (populated) {
  case 0:
    return map_present(page, error, grown);
  case -EINVAL:
    return map_special(page, error);
  case -ENOMEM:
    if (!is_mapped(page)) {
      known_.forget({page, page + kPageSize});
      return Outcome::kNoMapping;
    }
    // Out of memory, where the kernel does the same: the fault comes again.
    return Outcome::kServed;
  case -EINTR:
  case -EAGAIN:
    return Outcome::kServed;
  default:
    return is_guard(page) ? Outcome::kNoMapping : Outcome::kNoPage;
  }
}

// A program in ring 0 may say things of the page.
AddressSpace::Said AddressSpace::said_by_program(GuestPhysAddr root, TargetAddr page) {
  if (!guest_->system_call)
    return {};
  const Holder holder(mutex_);
  const PageTables::Leaf leaf = guest_->tables.find_leaf(root, page);
  return leaf.entry ? Said{*leaf.entry, leaf.level} : Said{};
}

// In a view the page is another of the process's, which has come, gone or changed. A large one
// stays large as far as one mapping is behind all of it.
Outcome AddressSpace::serve_elsewhere(GuestPhysAddr root, TargetAddr page, Said found,
                                      uint64_t error) {
  const uint64_t size = PageTables::size_of(found.level);
  const GuestPhysAddr at((found.entry & kEntryAddress) + page.value % size);
  const TargetAddr behind = backend::found_at(*guest_, at);
  const long populated = populate(behind, error & kFaultWrite);
  if (populated == -EINTR || populated == -EAGAIN)
    return Outcome::kServed;
  if (populated)
    return populated == -ENOMEM ? Outcome::kNoMapping : Outcome::kNoRights;
  const Holder holder(mutex_);
  const auto holds = [&](const Mapped* m, int level) {
    const TargetAddr begin = behind.align_down(PageTables::size_of(level));
    return m && allows(m->rights, error) && m->range.begin <= begin &&
           begin + PageTables::size_of(level) <= m->range.end;
  };
  const Mapped* m = known_.find(behind);
  if (!holds(m, found.level) && read_mappings(behind))
    m = known_.find(behind);
  if (!holds(m, 0))
    return Outcome::kNoRights;
  int level = found.level;
  while (!holds(m, level))
    --level;
  const uint32_t view = guest_->tables.view_of(root);
  if (view == PageTables::kViews || !guest_->tables.has_room_in(view, page, level))
    return Outcome::kServed;
  const GuestPhysAddr entry_at = at.align_down(PageTables::size_of(level));
  const PageEntry given = kEntryGiven | (m->rights & kPageWrite ? kEntryGivenWrite : 0) |
                          (m->rights & kPageExecute ? kEntryGivenExecute : 0);
  const Status ok = guest_->tables.change_entry_in(
      view, page,
      [=](PageEntry e) {
        const bool same = e & kEntryElsewhere && GuestPhysAddr(e & kEntryAddress) == entry_at;
        return same ? effective(e | given) : e;
      },
      level);
  return ok ? Outcome::kServed : Outcome::kOutOfMemory;
}

Outcome AddressSpace::serve(TargetAddr address, uint64_t error, FaultHistory& history,
                            GuestPhysAddr root) {
  const TargetAddr page = address.align_down(kPageSize);
  const bool hidden = guest_->placement == backend::Placement::kRing0 && error & kFaultUser &&
                      !own_at(page).empty() && copy_at(page).empty();
  Outcome outcome = Outcome::kNoMapping;
  if (kEverything.contains(page) && !hidden) {
    const Said said = said_by_program(root ? root : guest_->tables.root(), page);
    if (guest_->system_call && policy_refuses(said.entry, error))
      outcome = Outcome::kNoRights;
    else if (said.entry & kEntryElsewhere)
      outcome = serve_elsewhere(root, page, said, error);
    else
      outcome = serve_mapping(page, error);
  }
  if (outcome == Outcome::kServed)
    history.served = page;
  else
    history = {};
  return outcome;
}

Outcome AddressSpace::serve_mapping(TargetAddr page, uint64_t error) {
  const bool for_write = error & kFaultWrite;
  long populated = populate(page, for_write);
  // What grows down does so when it is accessed, not when it is populated.
  const bool grown = populated == -ENOMEM && readable(page);
  if (grown)
    populated = populate(page, for_write);
  const Holder holder(mutex_);
  return answer(page, error, populated, grown);
}

uint64_t error_in_kernel(TargetAddr address, uint64_t error, Outcome refused) {
  // It says so of all of its own addresses, lest anybody learns which are there.
  const bool present = address >= kEverything.end ||
                       (refused == Outcome::kNoRights && is_present(address.align_down(kPageSize)));
  return (error & ~uint64_t{kFaultPresent}) | (present ? uint64_t{kFaultPresent} : 0);
}

TargetAddr AddressSpace::unbacked(FaultHistory& history) {
  const Holder holder(mutex_);
  backend::unmap_pages(*guest_, kEverything);
  alone_ = kFaultsAlone;
  history.times = history.served == history.suspect ? history.times + 1 : 0;
  history.suspect = history.served;
  if (history.times < kPatience || !history.served)
    return {};
  const TargetAddr page = history.served;
  history = {};
  return page;
}

// The guest's tables have four levels: what is beyond their reach is so as on a processor that has
// no more, where a hint is just ignored.
long AddressSpace::map(const long a[6], Call call, void* context) {
  const bool fixed = a[3] & (MAP_FIXED | MAP_FIXED_NOREPLACE);
  if (fixed && is_beyond_reach(a[0], a[1]))
    return -ENOMEM;
  const long b[6] = {is_beyond_reach(a[0], 0) ? 0 : a[0], a[1], a[2], a[3], a[4], a[5]};
  if (fixed && !(b[3] & MAP_FIXED_NOREPLACE))
    drop(huge_pages_of(b[0], b[1]));
  const long result = call(context, __NR_mmap, b);
  if (!is_errno(result))
    known_.assign(pages_of(result, b[1]), rights_of(b[2]));
  return result;
}

long AddressSpace::protect(long number, const long a[6], Call call, void* context) {
  // The range is not just the one that it says then.
  const bool grows = a[2] & (PROT_GROWSDOWN | PROT_GROWSUP);
  const TargetRange range = grows ? kEverything : pages_of(a[0], a[1]);
  drop(range);
  const long result = call(context, number, a);
  // After an error a part of it may have changed.
  if (result == 0 && !grows)
    known_.assign(range, rights_of(a[2]));
  return result;
}

long AddressSpace::move(const long a[6], Call call, void* context) {
  if ((a[3] & MREMAP_FIXED) && is_beyond_reach(a[4], a[2]))
    return -EINVAL;
  const TargetRange from = pages_of(a[0], a[1]);
  const Mapped* m = known_.find(from.begin);
  const bool known = m && !from.empty() && from.end <= m->range.end;
  const uint64_t rights = known ? m->rights : 0;
  drop(huge_pages_of(a[0], a[1]));
  if (a[3] & MREMAP_FIXED)
    drop(huge_pages_of(a[4], a[2]));
  const long result = call(context, __NR_mremap, a);
  if (!is_errno(result) && known)
    known_.assign(pages_of(result, a[2]), rights);
  return result;
}

long AddressSpace::set_break(const long a[6], Call call, void* context) {
  const long before = syscall_of(__NR_brk, 0);
  const long after = call(context, __NR_brk, a);
  const auto page_end = [](long at) {
    return TargetAddr(static_cast<uint64_t>(at)).align_up(kPageSize);
  };
  // What is unmapped may be cleared afterwards as long as nothing else can be mapped there.
  if (after < before)
    drop({page_end(after), page_end(before)});
  else
    known_.assign({page_end(before), page_end(after)}, kPageRead | kPageWrite);
  return after;
}

long AddressSpace::change(long number, const long a[6], Call call, void* context) {
  switch (number) {
  case __NR_mmap:
  case __NR_munmap:
  case __NR_mprotect:
  case __NR_pkey_mprotect:
  case __NR_mremap:
  case __NR_remap_file_pages:
  case __NR_brk:
  case __NR_shmat:
  case __NR_shmdt:
    break;
  default:
    return call(context, number, a);
  }
  const Holder holder(mutex_);
  switch (number) {
  case __NR_mmap:
    return map(a, call, context);
  case __NR_mprotect:
  case __NR_pkey_mprotect:
    return protect(number, a, call, context);
  case __NR_mremap:
    return move(a, call, context);
  case __NR_brk:
    return set_break(a, call, context);
  case __NR_shmat: // without this it takes nothing away
    if (a[2] & SHM_REMAP)
      drop(kEverything);
    break;
  case __NR_shmdt: // how much, only the kernel knows
    drop(kEverything);
    break;
  default:
    drop(pages_of(a[0], a[1]));
  }
  return call(context, number, a);
}

} // namespace dune::process
