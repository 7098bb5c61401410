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
constexpr uint64_t kPagesFlushedSingly = 32; // beyond, all of the processor's is cheaper

TargetRange pages_of(const void* begin, size_t size) {
  const TargetAddr at(reinterpret_cast<uint64_t>(begin));
  return {at.align_down(kPageSize), (at + size).align_up(kPageSize)};
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

void flush_here(TargetRange pages) {
  if (pages.size() / kPageSize > kPagesFlushedSingly)
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
    return Error{Errc::kInvalid, "the thread is not in Dune mode"};
  const TargetRange pages = pages_of(begin, size);
  if (pages.end < pages.begin || pages.end > TargetAddr(kUserEnd))
    return Error{Errc::kInvalid, "no memory of the program's",
                 static_cast<int64_t>(pages.begin.value)};
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
uint64_t current_root() {
  uint64_t root;
  asm volatile("mov %%cr3, %0" : "=r"(root));
  return root;
}
void set_root(uint64_t root) { asm volatile("mov %0, %%cr3" : : "r"(root) : "memory"); }
} // namespace

void flush_thread() { set_root(current_root()); }

Status flush_all_threads() {
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
  return tables.find_leaf(root ? GuestPhysAddr(root) : tables.root(), TargetAddr(page));
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

namespace {
uint64_t g_views; // that are in use, a bit each
}

Result<View> View::open() {
  if (!inside())
    return Error{Errc::kInvalid, "the thread is not in Dune mode"};
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
  const long root = application::call_agent(ApplicationCall::kOpenView, free);
  if (is_errno(root))
    return Error{Errc::kExhausted, "the page tables are full", -root};
  view.root_ = static_cast<uint64_t>(root);
  return view;
}

View::View(View&& other) noexcept
    : number_(std::exchange(other.number_, PageTables::kViews)), root_(other.root_) {}

View& View::operator=(View&& other) noexcept {
  std::swap(number_, other.number_);
  std::swap(root_, other.root_);
  return *this;
}

// The next one to have the number finds it as all have it.
View::~View() {
  if (number_ == PageTables::kViews)
    return;
  application::call_agent(ApplicationCall::kCloseView, number_);
  __atomic_fetch_and(&g_views, ~(uint64_t{1} << number_), __ATOMIC_ACQ_REL);
}

Status View::change(const void* begin, size_t size, uint64_t allowed, const void* memory,
                    Reach reach) {
  const TargetRange pages = pages_of(begin, size);
  const long result =
      memory ? application::call_agent(ApplicationCall::kMap, pages.begin.value, pages.end.value,
                                       allowed, number_, reinterpret_cast<uint64_t>(memory))
             : application::call_agent(ApplicationCall::kPolicy, pages.begin.value, pages.end.value,
                                       allowed, number_);
  const Status ok = answer_of(result);
  return ok ? forget(pages, reach) : ok;
}

Status View::map(const void* at, size_t size, const void* memory, uint32_t access, Reach reach) {
  const uint64_t small = access & kSmallPages ? agent::kSmallPagesOnly : 0;
  return change(at, size, allowed_by(access) | small, memory, reach);
}
Status View::protect(const void* begin, size_t size, uint32_t access, Reach reach) {
  return change(begin, size, allowed_by(access), nullptr, reach);
}
Status View::follow(const void* begin, size_t size, Reach reach) {
  return change(begin, size, kNoPolicy, nullptr, reach);
}
PageState View::page_state(const void* address) const { return state_at(root_, address); }
void View::use() const { set_root(root_); }
void use_no_view() { set_root(application::tables().root().value); }

} // namespace dune
