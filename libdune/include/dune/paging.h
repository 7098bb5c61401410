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
};

enum class Reach {
  kAllThreads, // no processor goes on using what it has cached of the pages
  kThisThread, // the calling thread's processor; others may, until they come to see it
};

// Accesses that are allowed to the pages from `begin` (both are rounded to pages) from now on, as
// far as the mapping does, too. Any other is a page fault for the handler. This counts accesses and
// writes anew (page_state).
// kInvalid: no memory of the program's. kExhausted: the page tables are full.
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
};
PageState page_state(const void* address);

// Calls `f(void* page, const PageState&)` for each page of the range that protect() has decided on.
// `clear`: accessed and dirty begin anew, from that look on.
template <class F> void walk_pages(const void* begin, size_t size, bool clear, F&& f);

// Tables that a thread can run with instead of those of all: they show the same pages with the same
// rights, but for those that it has been given others. Up to 64 at a time; for sandboxes, and for
// parts of a program that are not to see each other's memory.
class View {
public:
  static Result<View> open();
  View(View&&) noexcept;
  View& operator=(View&&) noexcept;
  ~View(); // no thread may be using it

  // At these addresses are pages of the memory from `memory` on, which is the process's too.
  Status map(const void* at, size_t size, const void* memory, uint32_t access,
             Reach = Reach::kAllThreads);
  // The pages there have this access here, whatever protect() says for all.
  Status protect(const void* begin, size_t size, uint32_t access, Reach = Reach::kAllThreads);
  // They are what they are for all again.
  Status follow(const void* begin, size_t size, Reach = Reach::kAllThreads);
  PageState page_state(const void* address) const;

  // The calling thread's tables from now on, in ring 0 and 3, until it uses others. (A thread that
  // it makes begins with those of all.)
  void use() const;

private:
  View() = default;
  Status change(const void* begin, size_t size, uint64_t allowed, const void* memory, Reach);
  uint32_t number_ = 0;
  uint64_t root_ = 0;
};
void use_no_view();

// The translations that the processor has cached, of the calling thread's processor...
inline void flush_page(const void* address) {
  asm volatile("invlpg (%0)" ::"r"(address) : "memory");
}
void flush_thread();
// ... and of all threads'.
Status flush_all_threads();

namespace detail {
PageState take_state(uint64_t page, bool clear);
uint64_t next_decided(uint64_t page, uint64_t end); // `end`: none
} // namespace detail

template <class F> void walk_pages(const void* begin, size_t size, bool clear, F&& f) {
  constexpr uint64_t kPage = 4096;
  const uint64_t from = reinterpret_cast<uint64_t>(begin) & ~(kPage - 1);
  const uint64_t end = reinterpret_cast<uint64_t>(begin) + size;
  for (uint64_t page = detail::next_decided(from, end); page < end;
       page = detail::next_decided(page + kPage, end))
    f(reinterpret_cast<void*>(page), detail::take_state(page, clear));
  if (clear)
    flush_thread();
}

} // namespace dune
