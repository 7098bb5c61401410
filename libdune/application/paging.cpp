// The page tables of a program in ring 0: entries that are there are changed here, by the thread
// itself; what needs a table is the agent's.
#include "libdune/include/dune/paging.h"

#include "libdune/application/process.h"
#include "libdune/include/dune/enter.h"

#include <cerrno>
#include <utility>

namespace dune {

namespace {

using agent::ApplicationCall;

constexpr uint64_t kNoPolicy = ~uint64_t{0};
Error not_inside() { return {Errc::kInvalid, "the thread is not in Dune mode"}; }
constexpr uint64_t kPagesFlushedSingly = 32; // beyond, all of the processor's is cheaper

TargetRange pages_of(const void* begin, size_t size) {
  const TargetAddr at(reinterpret_cast<uint64_t>(begin));
  return {at.align_down(kPageSize), (at + size).align_up(kPageSize)};
}

Status check(TargetRange pages, size_t size) {
  if (size <= kUserEnd && pages.begin <= pages.end && pages.end <= TargetAddr(kUserEnd))
    return {};
  return Error{Errc::kInvalid, "no memory of the program's",
               static_cast<int64_t>(pages.begin.value)};
}

constexpr struct {
  uint32_t access;
  PageEntry allowed;
} kAccesses[] = {{kRead, kEntryAllowRead},
                 {kWrite, kEntryAllowWrite},
                 {kExecute, kEntryAllowExecute},
                 {kRing3, kEntryAllowRing3}};

constexpr PageEntry allowed_by(uint32_t access) {
  PageEntry allowed = 0;
  for (const auto& a : kAccesses)
    allowed |= access & a.access ? a.allowed : 0;
  return allowed;
}
constexpr uint32_t access_of(PageEntry e) {
  uint32_t access = 0;
  for (const auto& a : kAccesses)
    access |= e & a.allowed ? a.access : 0;
  return access;
}

// False: the agent has to.
template <class F> bool change_here(TargetRange pages, F&& f) {
  if (application::tables().has_views())
    return false;
  PageEntry* e = nullptr;
  for (TargetAddr page = pages.begin; page < pages.end; page += kPageSize) {
    const bool same_table = e && page.value % (512 * kPageSize) != 0;
    e = same_table ? e + 1 : application::tables().find_entry(page);
    if (!e)
      return false;
    PageEntry now = __atomic_load_n(e, __ATOMIC_RELAXED);
    do
      if (now & kPageOwn)
        return false;
    while (
        !__atomic_compare_exchange_n(e, &now, f(now), false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
  }
  return true;
}

// Where there are tags, each view has one, and those of all have 0: so that a change over need not
// make the processor forget. What is changed it forgets under all tags, there and then; no state is
// kept of what a tag still has, which a signal's handler could come between.
uint64_t g_views;   // that are in use, a bit each
uint32_t g_entries; // into Dune mode, of this process and those that it was forked from

uint64_t tag_of(uint32_t view) { return view + 1; }
// In a write of CR3: what is cached under the tag stays. It is true, whoever has used it.
constexpr uint64_t kKeep = 1ull << 63;
uint64_t keep() { return application::config()->has_tags ? kKeep : 0; }

enum class Forget : uint64_t { kAddress = 0, kAll = 2 };
void invalidate(Forget what, uint64_t tag, uint64_t address) {
  const uint64_t descriptor[2] = {tag, address};
  asm volatile("invpcid (%0), %1" : : "r"(descriptor), "r"(what) : "memory");
}

void flush_here(TargetRange pages) {
  const int tags = application::config()->has_tags
                       ? 1 + __builtin_popcountll(__atomic_load_n(&g_views, __ATOMIC_ACQUIRE))
                       : 1;
  if (pages.size() / kPageSize * static_cast<uint64_t>(tags) > kPagesFlushedSingly)
    return flush_thread();
  for (TargetAddr page = pages.begin; page < pages.end; page += kPageSize)
    flush_page(reinterpret_cast<const void*>(page.value));
}

bool has_other_threads() {
  const auto& session = *reinterpret_cast<session::Session*>(application::config()->session);
  return session.header.live_threads.load(std::memory_order_relaxed) > 1;
}

// The processor of a thread that has ended is the next one's, which would find there what it had.
Status forget_of_others() {
  agent::AgentConfig& c = *application::config();
  const uint32_t begun = __atomic_load_n(&c.threads_begun, __ATOMIC_SEQ_CST);
  const bool is_alone = !has_other_threads();
  if (is_alone && begun == c.threads_forgotten)
    return {};
  Status ok = flush_all_threads();
  if (ok && is_alone)
    c.threads_forgotten = begun;
  return ok;
}

Status answer_of(long result) {
  if (result == -EINVAL)
    return Error{Errc::kInvalid, "no memory of the program's, or no such view"};
  if (is_errno(result))
    return Error{Errc::kExhausted, "the page tables are full", -result};
  return {};
}

Status forget(TargetRange pages, Reach reach) {
  flush_here(pages);
  return reach == Reach::kAllThreads ? forget_of_others() : Status();
}

Status change(const void* begin, size_t size, PageEntry allowed, Reach reach) {
  if (!inside())
    return not_inside();
  const TargetRange pages = pages_of(begin, size);
  if (auto ok = check(pages, size); !ok)
    return ok;
  // A view that has come meanwhile may have taken an entry along as it was.
  const bool here = change_here(pages, [allowed](PageEntry e) {
    return allowed == kNoPolicy ? without_policy(e) : with_policy(without_age(e), allowed);
  });
  if (!here || application::tables().has_views())
    if (auto ok = answer_of(application::call_agent(ApplicationCall::kPolicy, pages.begin.value,
                                                    pages.end.value, allowed, agent::kAllViews));
        !ok)
      return ok;
  return forget(pages, reach);
}

} // namespace

Status protect(const void* begin, size_t size, uint32_t access, Reach reach) {
  return change(begin, size, allowed_by(access), reach);
}

Status release(const void* begin, size_t size, Reach reach) {
  return change(begin, size, kNoPolicy, reach);
}

namespace {

void set_root(uint64_t root) { asm volatile("mov %0, %%cr3" : : "r"(root) : "memory"); }

} // namespace

namespace application {
void begin_views() {
  g_views = 0;
  ++g_entries;
}

bool finds_tags() {
  constexpr uint64_t kTags = 1 << 17; // CR4.PCIDE
  constexpr uint32_t kFeatures = 7, kForgetsByTag = 1 << 10;
  uint64_t cr4;
  asm volatile("mov %%cr4, %0" : "=r"(cr4));
  uint32_t a = kFeatures, b, c = 0, d;
  asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  return cr4 & kTags && b & kForgetsByTag;
}
} // namespace application

void flush_page(const void* address) {
  asm volatile("invlpg (%0)" ::"r"(address) : "memory");
  if (!application::config()->has_tags)
    return;
  const auto page = reinterpret_cast<uint64_t>(address);
  uint64_t views = __atomic_load_n(&g_views, __ATOMIC_ACQUIRE);
  if (!views)
    return;
  invalidate(Forget::kAddress, 0, page);
  for (; views; views &= views - 1)
    invalidate(Forget::kAddress, tag_of(static_cast<uint32_t>(__builtin_ctzll(views))), page);
}

void flush_thread() {
  if (application::config()->has_tags)
    return invalidate(Forget::kAll, 0, 0);
  uint64_t root;
  asm volatile("mov %%cr3, %0" : "=r"(root));
  set_root(root);
}

Status flush_all_threads() {
  if (!inside())
    return not_inside();
  const long result = application::call_agent(ApplicationCall::kForget);
  if (is_errno(result))
    return Error{Errc::kSystem, "the backend does not forget what it has cached", -result};
  return {};
}

namespace {

PageState state_of(PageEntry e, int level) {
  PageState s{};
  s.size = level <= PageTables::kHighestPage ? PageTables::size_of(level) : kPageSize;
  s.is_decided = e & kEntryPolicy;
  s.mapped = e & (kPageRead | kEntryGiven);
  if (!s.is_decided)
    return s;
  s.access = access_of(e);
  s.accessed = e & (kEntryAccessed | kEntryDirty | kEntryWasDirty);
  s.dirty = e & (kEntryDirty | kEntryWasDirty);
  return s;
}

PageTables::Leaf leaf_at(uint64_t root, uint64_t page) {
  const PageTables& tables = application::tables();
  return tables.find_leaf(root ? GuestPhysAddr(root & ~kKeep) : tables.root(), TargetAddr(page));
}

PageState state_at(uint64_t root, const void* address) {
  const TargetAddr page = TargetAddr(reinterpret_cast<uint64_t>(address)).align_down(kPageSize);
  return inside() && page < TargetAddr(kUserEnd) ? detail::take_state(root, page.value, false)
                                                 : PageState{};
}

} // namespace

PageState page_state(const void* address) { return state_at(0, address); }

namespace detail {

PageState take_state(uint64_t root, uint64_t page, bool clear) {
  const PageTables::Leaf leaf = leaf_at(root, page);
  constexpr PageEntry kSeen = kEntryAccessed | kEntryDirty | kEntryWasDirty;
  const PageEntry e = clear ? __atomic_fetch_and(leaf.entry, ~kSeen, __ATOMIC_ACQ_REL)
                            : __atomic_load_n(leaf.entry, __ATOMIC_RELAXED);
  return state_of(e, leaf.level);
}

uint64_t next_decided(uint64_t root, uint64_t page, uint64_t end) {
  while (page < end) {
    const PageTables::Leaf leaf = leaf_at(root, page);
    const uint64_t table = leaf.size() * 512; // what all entries beside it are about
    const PageEntry* e = leaf.entry;
    do {
      const PageEntry now = __atomic_load_n(e, __ATOMIC_RELAXED);
      if (now & kEntryPolicy)
        return page;
      if (leaf.level > 0 && PageTables::is_table(now))
        break; // which is looked at from its own beginning
      ++e;
      page = (page & ~(leaf.size() - 1)) + leaf.size();
    } while (page < end && page % table != 0);
  }
  return end;
}

} // namespace detail

Result<View> View::open() {
  if (!inside())
    return not_inside();
  uint64_t used = __atomic_load_n(&g_views, __ATOMIC_RELAXED);
  uint32_t free = 0;
  do {
    if (used == ~uint64_t{0})
      return Error{Errc::kExhausted, "there are no more views", PageTables::kViews};
    free = static_cast<uint32_t>(__builtin_ctzll(~used));
  } while (!__atomic_compare_exchange_n(&g_views, &used, used | uint64_t{1} << free, false,
                                        __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
  View view;
  view.number_ = free;
  view.entry_ = g_entries;
  const long root = application::call_agent(ApplicationCall::kOpenView, free);
  if (is_errno(root))
    return Error{Errc::kExhausted, "the page tables are full", -root};
  view.root_ = static_cast<uint64_t>(root);
  if (keep())
    view.root_ |= tag_of(free) | kKeep;
  return view;
}

View::View(View&& other) noexcept
    : number_(std::exchange(other.number_, PageTables::kViews)), entry_(other.entry_),
      root_(other.root_) {}

View& View::operator=(View&& other) noexcept {
  std::swap(number_, other.number_);
  std::swap(entry_, other.entry_);
  std::swap(root_, other.root_);
  return *this;
}

bool View::is_open() const {
  return inside() && number_ < PageTables::kViews && entry_ == g_entries;
}

// The next one to have the number finds it as all have it.
View::~View() {
  if (!is_open())
    return;
  application::call_agent(ApplicationCall::kCloseView, number_);
  __atomic_fetch_and(&g_views, ~(uint64_t{1} << number_), __ATOMIC_ACQ_REL);
}

Status View::change(const void* begin, size_t size, uint64_t allowed, const void* memory,
                    Reach reach) {
  const TargetRange pages = pages_of(begin, size);
  if (!is_open())
    return inside() ? Error{Errc::kInvalid, "the view was moved from, or opened before a fork"}
                    : not_inside();
  if (auto ok = check(pages, size); !ok)
    return ok;
  const long result =
      memory ? application::call_agent(ApplicationCall::kMap, pages.begin.value, pages.end.value,
                                       allowed, number_, reinterpret_cast<uint64_t>(memory))
             : application::call_agent(ApplicationCall::kPolicy, pages.begin.value, pages.end.value,
                                       allowed, number_);
  const Status ok = answer_of(result);
  return ok ? forget(pages, reach) : ok;
}

Status View::map(const void* at, size_t size, const void* memory, uint32_t access, Reach reach) {
  if (!memory)
    return Error{Errc::kInvalid, "no memory is given that the view is to show"};
  const uint64_t small = access & kSmallPages ? agent::kSmallPagesOnly : 0;
  return change(at, size, allowed_by(access) | small, memory, reach);
}
Status View::protect(const void* begin, size_t size, uint32_t access, Reach reach) {
  return change(begin, size, allowed_by(access), nullptr, reach);
}
Status View::follow(const void* begin, size_t size, Reach reach) {
  return change(begin, size, kNoPolicy, nullptr, reach);
}
PageState View::page_state(const void* address) const {
  return is_open() ? state_at(root_, address) : PageState{};
}
void View::use() const { set_root(root_); }
void use_no_view() { set_root(application::tables().root().value | keep()); }

} // namespace dune
