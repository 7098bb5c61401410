// The guest's page tables. They show the process's memory at its own addresses, made of the
// process's mappings as it is accessed; what the program says here comes on top of the rights that
// the mappings give, and stays with a page through munmap and mmap until release().
//
// All of it is for threads in Dune mode, and safe to call from several at once and in handlers.
#pragma once

#include <dune/base/result.h>

#include <cstddef>
#include <cstdint>

namespace dune {

enum Access : uint32_t {
  kNoAccess = 0,
  kRead = 1,
  kWrite = 2,
  kExecute = 4,
  kRing3 = 8, // for ring 3, too; without it a page is ring 0's
  // Of View::map: none but pages of 4 KiB, so that it is known of each what happens to it.
  kSmallPages = 16,
};

enum class Reach {
  kAllThreads, // no processor goes on using what it has cached of the pages
  kThisThread, // the calling thread's processor; others may, until they come to see it
};

// Accesses that are allowed to the pages from `begin` (both are rounded to pages) from now on, as
// far as the mapping does, too. Any other is a page fault for the handler. This counts accesses and
// writes anew (page_state). Without kRead there is no access, whatever else is allowed.
// kInvalid: no memory of the program's. kExhausted: the page tables are full, and what comes first
// may be changed already.
Status protect(const void* begin, size_t size, uint32_t access, Reach = Reach::kAllThreads);
// What the mapping says is all there is again, for ring 0.
Status release(const void* begin, size_t size, Reach = Reach::kAllThreads);

struct PageState {
  bool mapped;     // the guest has seen the page
  bool is_decided; // by protect(); the rest is known only then
  uint32_t access; // what that allows
  // Since protect() or the last look that cleared it, by the processor itself; the kernel's own
  // accesses (system calls) are not seen.
  bool accessed, dirty;
  // Of the page that all of it is about: 4 KiB, 2 MiB or 1 GiB, and aligned to that. One that is
  // decided on is larger than 4 KiB only by View::map.
  size_t size = 4096;
};
PageState page_state(const void* address);

// Calls `f(void* page, const PageState&)` for each page of the range that protect() has decided on.
// `clear`: accessed and dirty begin anew, from that look on.
template <class F> void walk_pages(const void* begin, size_t size, bool clear, F&& f);

// Tables that a thread can run with instead of those of all: they show the same pages with the same
// rights, but for those that it has been given others. Up to 64 at a time; for sandboxes, and for
// parts of a program that are not to see each other's memory. The kernel knows nothing of them: a
// system call has what is at an address for all. One that was moved from, or is a forked child's
// copy of its parent's, is none: its functions say kInvalid, and it must not be used.
class View {
public:
  static Result<View> open();
  View(View&&) noexcept;
  View& operator=(View&&) noexcept;
  ~View(); // no thread may be using it

  // At these addresses are pages of the memory from `memory` on, which is the process's too. They
  // are large where both sides are aligned to it, all of it is one mapping, and nothing smaller has
  // been said of a part in this view; and become small when it is.
  Status map(const void* at, size_t size, const void* memory, uint32_t access,
             Reach = Reach::kAllThreads);
  // The pages there have this access here, whatever protect() says for all.
  Status protect(const void* begin, size_t size, uint32_t access, Reach = Reach::kAllThreads);
  // They are what they are for all again.
  Status follow(const void* begin, size_t size, Reach = Reach::kAllThreads);
  PageState page_state(const void* address) const;
  // As dune::walk_pages, for what the view shows. A large page that begins before the range is
  // called by where the range does.
  template <class F> void walk_pages(const void* begin, size_t size, bool clear, F&& f);

  // The calling thread's tables from now on, in ring 0 and 3, until it uses others. (A thread that
  // it makes begins with those of all.) Where the processor keeps the translations of several
  // tables (PCID), it keeps them.
  void use() const;

private:
  View() = default;
  Status change(const void* begin, size_t size, uint64_t allowed, const void* memory, Reach);
  bool is_open() const;
  uint32_t number_ = 0;
  uint32_t entry_ = 0; // which of its process and its parents' it was opened behind
  uint64_t root_ = 0;  // for CR3
};
void use_no_view();

// The translations that the processor has cached, of all tables and views: of the calling thread's
// processor...
void flush_page(const void* address);
void flush_thread();
// ... and of all threads'.
Status flush_all_threads();

namespace detail {
// `root`: of a view, or 0.
PageState take_state(uint64_t root, uint64_t page, bool clear);
uint64_t next_decided(uint64_t root, uint64_t page, uint64_t end); // `end`: none

template <class F>
void walk_pages(uint64_t root, const void* begin, size_t size, bool clear, F&& f) {
  const uint64_t from = reinterpret_cast<uint64_t>(begin) & ~uint64_t{4095};
  const uint64_t end = reinterpret_cast<uint64_t>(begin) + size;
  for (uint64_t page = next_decided(root, from, end); page < end;) {
    const PageState state = take_state(root, page, clear);
    f(reinterpret_cast<void*>(page), state);
    page = next_decided(root, (page & ~(state.size - 1)) + state.size, end);
  }
  if (clear)
    flush_thread();
}
} // namespace detail

template <class F> void walk_pages(const void* begin, size_t size, bool clear, F&& f) {
  detail::walk_pages(0, begin, size, clear, f);
}
template <class F> void View::walk_pages(const void* begin, size_t size, bool clear, F&& f) {
  detail::walk_pages(root_, begin, size, clear, f);
}

} // namespace dune
