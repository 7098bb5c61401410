// Views, and large pages in them and in the tables of all. In the program of application_test.cpp.
#include "tests/unit/application/support.h"

#include <dune/enter.h>
#include <dune/paging.h>
#include <dune/trap.h>

#include <atomic>
#include <csetjmp>
#include <csignal>
#include <sched.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace dune {
namespace {

int g_faults;
sigjmp_buf g_back;

TEST(Views, ShowOtherMemoryAtTheSamePlace) {
  char* page = map_pages(3);
  page[0] = 'a';
  page[4096] = 'b';
  auto view = View::open();
  ASSERT_TRUE(view);
  ASSERT_TRUE(view->map(page, 4096, page + 4096, kRead | kWrite));
  EXPECT_EQ(page[0], 'a');
  view->use();
  const char seen = const_cast<volatile char*>(page)[0];
  const_cast<volatile char*>(page)[1] = 'B';
  char* fresh = new char[100000](); // memory that the tables of all have not seen yet
  fresh[99999] = 1;
  use_no_view();
  EXPECT_EQ(seen, 'b');
  EXPECT_EQ(page[1], 0);
  EXPECT_EQ(page[4097], 'B');
  EXPECT_EQ(fresh[99999], 1);
  delete[] fresh;
  EXPECT_TRUE(view->page_state(page).dirty);
  EXPECT_FALSE(page_state(page).is_decided);
}

TEST(Views, HaveRightsOfTheirOwn) {
  static char* page;
  page = map_pages(1);
  page[0] = 1;
  auto view = View::open();
  ASSERT_TRUE(view);
  ASSERT_TRUE(view->protect(page, 4096, kRead));
  g_faults = 0;
  ASSERT_TRUE(set_trap_handler(vector::kPageFault, [](Trap& trap) {
    ++g_faults;
    EXPECT_EQ(trap.address, reinterpret_cast<uint64_t>(page));
    use_no_view();
    return g_faults < 2 || release(page, 4096);
  }));
  page[0] = 2;
  EXPECT_EQ(g_faults, 0);
  view->use();
  const_cast<volatile char*>(page)[0] = 3; // goes on without it
  EXPECT_EQ(g_faults, 1);
  EXPECT_EQ(page[0], 3);
  ASSERT_TRUE(view->follow(page, 4096));
  view->use();
  const_cast<volatile char*>(page)[0] = 4;
  use_no_view();
  EXPECT_EQ(g_faults, 1);
  // What all may not, a view may not either where it follows.
  ASSERT_TRUE(protect(page, 4096, kRead));
  view->use();
  const_cast<volatile char*>(page)[0] = 5;
  EXPECT_EQ(g_faults, 2);
  ASSERT_TRUE(set_trap_handler(vector::kPageFault, nullptr));
}

// In the view; a SIGSEGV says that it may not.
bool may_write(const View& view, char* page) {
  volatile bool wrote = false;
  view.use();
  if (!sigsetjmp(g_back, 1)) {
    const_cast<volatile char*>(page)[0] = 3;
    wrote = true;
  }
  use_no_view();
  return wrote;
}

// The mapping behind a page that lies elsewhere goes, comes, and loses its rights.
TEST(Views, HaveNoMoreThanTheProcess) {
  char* page = map_pages(2);
  auto view = View::open();
  ASSERT_TRUE(view);
  ASSERT_TRUE(view->map(page, 4096, page + 4096, kRead | kWrite));
  struct sigaction action {
  }, before;
  action.sa_sigaction = [](int, siginfo_t*, void*) { siglongjmp(g_back, 1); };
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, &before);
  for (int protection : {PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE, PROT_READ | PROT_WRITE}) {
    ASSERT_EQ(mprotect(page + 4096, 4096, protection), 0);
    EXPECT_EQ(may_write(*view, page), bool(protection & PROT_WRITE)) << protection;
  }
  sigaction(SIGSEGV, &before, nullptr);
}

constexpr size_t kLarge = 2 << 20, kHuge = 1 << 30;

// Of that size and alignment, and far from all else: what was decided on stays so behind munmap,
// and where the kernel puts the next mapping some of that may be.
char* map_aligned(size_t size, size_t alignment) {
  static std::atomic<uint64_t> nobodys = 0x2000'0000'0000;
  void* const hint = reinterpret_cast<void*>(nobodys.fetch_add(size + alignment));
  char* at = static_cast<char*>(mmap(hint, size + alignment, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  EXPECT_NE(at, MAP_FAILED);
  return at + (alignment - reinterpret_cast<uint64_t>(at) % alignment) % alignment;
}

struct Cpuid {
  uint32_t a, b, c = 0, d;

  explicit Cpuid(uint32_t leaf) : a(leaf) {
    asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  }
};
bool has_pages_of_a_gigabyte() { return Cpuid(0x80000001).d >> 26 & 1; }

TEST(Pages, AreLargeWhereTheMappingIsAndSmallWhereItIsDecidedOn) {
  for (const size_t large : {kLarge, has_pages_of_a_gigabyte() ? kHuge : kLarge}) {
    char* pages = map_aligned(large, large);
    pages[5 * 4096] = 5;
    pages[large - 1] = 9;
    EXPECT_EQ(page_state(pages + 5 * 4096).size, large);
    EXPECT_TRUE(page_state(pages + 5 * 4096).mapped);
    ASSERT_TRUE(protect(pages + 5 * 4096, 4096, kRead));
    EXPECT_EQ(page_state(pages + 5 * 4096).size, 4096u);
    EXPECT_EQ(pages[5 * 4096], 5);
    EXPECT_EQ(pages[large - 1], 9);
    EXPECT_EQ(pages[large / 2], 0);
    EXPECT_FALSE(page_state(pages + large - 4096).is_decided);
    ASSERT_TRUE(release(pages + 5 * 4096, 4096));
    pages[5 * 4096] = 6;
    // What the process loses the guest loses, too.
    ASSERT_EQ(munmap(pages + large / 2, 4096), 0);
    pages[large / 2 - 1] = 1;
    int from_there[2];
    ASSERT_EQ(pipe(from_there), 0);
    EXPECT_EQ(write(from_there[1], pages + large / 2, 1), -1);
    EXPECT_EQ(pages[5 * 4096], 6);
    close(from_there[0]);
    close(from_there[1]);
    munmap(pages, large);
  }
}

TEST(Views, ShowLargePages) {
  char* place = map_aligned(kLarge, kLarge);
  char* memory = map_aligned(2 * kLarge, kLarge);
  memory[7] = 'm';
  place[7] = 'p';
  auto view = View::open();
  ASSERT_TRUE(view);
  ASSERT_TRUE(view->map(place, kLarge, memory, kRead | kWrite));
  EXPECT_EQ(view->page_state(place).size, kLarge);
  view->use();
  const char seen = const_cast<volatile char*>(place)[7];
  use_no_view();
  EXPECT_EQ(seen, 'm');
  EXPECT_TRUE(view->page_state(place + 99 * 4096).accessed);
  EXPECT_FALSE(view->page_state(place).dirty);
  view->use();
  const_cast<volatile char*>(place)[99 * 4096] = 'w';
  use_no_view();
  EXPECT_EQ(memory[99 * 4096], 'w');
  EXPECT_EQ(place[99 * 4096], 0);
  int calls = 0;
  view->walk_pages(place, kLarge, true, [&](void* page, const PageState& state) {
    ++calls;
    EXPECT_EQ(page, place);
    EXPECT_EQ(state.size, kLarge);
    EXPECT_TRUE(state.dirty);
  });
  EXPECT_EQ(calls, 1);
  EXPECT_FALSE(view->page_state(place).dirty);
  // Rights of the whole leave it large, those of a part do not.
  ASSERT_TRUE(view->protect(place, kLarge, kRead));
  EXPECT_EQ(view->page_state(place).size, kLarge);
  EXPECT_EQ(view->page_state(place).access, uint32_t{kRead});
  ASSERT_TRUE(view->protect(place + 4096, 4096, kRead | kWrite));
  EXPECT_EQ(view->page_state(place + 4096).size, 4096u);
  struct sigaction action {
  }, before;
  action.sa_sigaction = [](int, siginfo_t*, void*) { siglongjmp(g_back, 1); };
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, &before);
  EXPECT_TRUE(may_write(*view, place + 4096));
  EXPECT_FALSE(may_write(*view, place));
  EXPECT_FALSE(may_write(*view, place + kLarge - 1));
  sigaction(SIGSEGV, &before, nullptr);
  EXPECT_EQ(memory[4096], 3);
  view->use();
  const char still = const_cast<volatile char*>(place)[99 * 4096];
  use_no_view();
  EXPECT_EQ(still, 'w');
  // A part becomes what it is for all, and the whole.
  ASSERT_TRUE(view->follow(place + 99 * 4096, 4096));
  view->use();
  const char followed = const_cast<volatile char*>(place)[99 * 4096];
  const char beside = const_cast<volatile char*>(place)[7];
  use_no_view();
  EXPECT_EQ(followed, 0);
  EXPECT_EQ(beside, 'm');
  ASSERT_TRUE(view->follow(place, kLarge));
  view->use();
  const char own = const_cast<volatile char*>(place)[7];
  use_no_view();
  EXPECT_EQ(own, 'p');
  ASSERT_TRUE(view->map(place + kLarge / 2, 4096, memory, kRead | kSmallPages));
  EXPECT_EQ(view->page_state(place + kLarge / 2).size, 4096u);
  munmap(place, kLarge);
  munmap(memory, 2 * kLarge);
}

TEST(Views, ShowSmallPagesWhereThoseAreWantedOrLargeOnesDoNotFit) {
  char* place = map_aligned(2 * kLarge, kLarge);
  char* memory = map_aligned(4 * kLarge, kLarge);
  auto view = View::open();
  ASSERT_TRUE(view);
  ASSERT_TRUE(view->map(place, kLarge, memory, kRead | kWrite | kSmallPages));
  EXPECT_EQ(view->page_state(place).size, 4096u);
  ASSERT_TRUE(view->map(place + kLarge, kLarge, memory + kLarge + 4096, kRead | kWrite));
  EXPECT_EQ(view->page_state(place + kLarge).size, 4096u);
  view->use();
  const_cast<volatile char*>(place)[kLarge + 4096] = 'x';
  use_no_view();
  EXPECT_EQ(memory[kLarge + 2 * 4096], 'x');
  int dirty = 0, pages = 0;
  view->walk_pages(place, 2 * kLarge, false, [&](void*, const PageState& state) {
    ++pages;
    dirty += state.dirty;
  });
  EXPECT_EQ(pages, 1024);
  EXPECT_EQ(dirty, 1);
  munmap(place, 2 * kLarge);
  munmap(memory, 4 * kLarge);
}

// Behind a large page the mapping changes in a part: what is left is shown, and no more than that.
TEST(Views, LargePagesHaveNoMoreThanTheProcess) {
  char* place = map_aligned(kLarge, kLarge);
  char* memory = map_aligned(kLarge, kLarge);
  auto view = View::open();
  ASSERT_TRUE(view);
  ASSERT_TRUE(view->map(place, kLarge, memory, kRead | kWrite));
  struct sigaction action {
  }, before;
  action.sa_sigaction = [](int, siginfo_t*, void*) { siglongjmp(g_back, 1); };
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, &before);
  EXPECT_TRUE(may_write(*view, place));
  EXPECT_EQ(view->page_state(place).size, kLarge);
  ASSERT_EQ(mprotect(memory + 3 * 4096, 4096, PROT_READ), 0);
  EXPECT_FALSE(may_write(*view, place + 3 * 4096));
  EXPECT_TRUE(may_write(*view, place + 4 * 4096));
  EXPECT_EQ(view->page_state(place).size, 4096u);
  ASSERT_EQ(munmap(memory + 5 * 4096, 4096), 0);
  EXPECT_FALSE(may_write(*view, place + 5 * 4096));
  EXPECT_TRUE(may_write(*view, place + 6 * 4096));
  EXPECT_EQ(memory[6 * 4096], 3);
  sigaction(SIGSEGV, &before, nullptr);
  munmap(place, kLarge);
  munmap(memory, kLarge);
}

TEST(Views, ShowPagesOfAGigabyte) {
  if (!has_pages_of_a_gigabyte())
    GTEST_SKIP() << "the processor has none";
  char* place = map_aligned(kHuge, kHuge);
  char* memory = map_aligned(kHuge, kHuge);
  auto view = View::open();
  ASSERT_TRUE(view);
  ASSERT_TRUE(view->map(place, kHuge, memory, kRead | kWrite));
  EXPECT_EQ(view->page_state(place).size, kHuge);
  view->use();
  const_cast<volatile char*>(place)[kHuge / 2 + 77 * kLarge] = 'g';
  use_no_view();
  EXPECT_EQ(memory[kHuge / 2 + 77 * kLarge], 'g');
  EXPECT_EQ(place[kHuge / 2 + 77 * kLarge], 0);
  EXPECT_EQ(view->page_state(place).size, kHuge);
  ASSERT_TRUE(view->protect(place + kHuge / 2, 4096, kRead));
  EXPECT_EQ(view->page_state(place).size, kLarge);
  EXPECT_EQ(view->page_state(place + kHuge / 2).size, 4096u);
  view->use();
  const char seen = const_cast<volatile char*>(place)[kHuge / 2 + 77 * kLarge];
  use_no_view();
  EXPECT_EQ(seen, 'g');
  munmap(place, kHuge);
  munmap(memory, kHuge);
}

uint64_t tag_in_use() {
  uint64_t root;
  asm volatile("mov %%cr3, %0" : "=r"(root));
  return root & 0xfff;
}

TEST(Views, HaveTagsWhereTheProcessorHas) {
  const bool has_tags = wants_tags() && Cpuid(1).c >> 17 & 1 && Cpuid(7).b >> 10 & 1;
  auto one = View::open(), other = View::open();
  ASSERT_TRUE(one && other);
  one->use();
  const uint64_t first = tag_in_use();
  other->use();
  const uint64_t second = tag_in_use();
  use_no_view();
  EXPECT_EQ(tag_in_use(), 0u);
  EXPECT_EQ(first != 0, has_tags);
  EXPECT_EQ(first != second, has_tags);
}

// Whatever a processor has cached under a view's tag: what is said of the page outside of the view
// counts at the next access in it, however it is forgotten.
TEST(Views, SeeChangesThatWereMadeOutside) {
  constexpr int kFew = 2, kMany = 100;
  char* pages = map_pages(kMany);
  auto view = View::open(), other = View::open();
  ASSERT_TRUE(view && other);
  struct sigaction action {
  }, before;
  action.sa_sigaction = [](int, siginfo_t*, void*) { siglongjmp(g_back, 1); };
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, &before);
  const auto all_may = [&](int count, bool expected) {
    for (int i = 0; i < count; ++i) {
      EXPECT_EQ(may_write(*view, pages + i * 4096), expected) << i;
      EXPECT_EQ(may_write(*other, pages + i * 4096), expected) << i;
    }
  };
  for (const int count : {kFew, kMany})
    for (const Reach reach : {Reach::kThisThread, Reach::kAllThreads}) {
      const size_t size = size_t(count) * 4096;
      ASSERT_TRUE(protect(pages, size, kRead | kWrite, reach));
      all_may(count, true);
      ASSERT_TRUE(protect(pages, size, kRead, reach));
      all_may(count, false);
      ASSERT_TRUE(release(pages, size, reach));
      all_may(count, true);
      other->use();
      ASSERT_TRUE(view->protect(pages, size, kRead, reach));
      ASSERT_TRUE(other->protect(pages, size, kRead, reach));
      all_may(count, false);
      ASSERT_TRUE(view->follow(pages, size, reach));
      ASSERT_TRUE(other->follow(pages, size, reach));
      all_may(count, true);
    }
  // Of the process's own: the mapping goes.
  ASSERT_EQ(mprotect(pages, kFew * 4096, PROT_READ), 0);
  all_may(kFew, false);
  sigaction(SIGSEGV, &before, nullptr);
}

// Nothing leaves the guest between a look that clears the bits and the next write: nobody but the
// look itself makes the processor forget that the page was written, under whatever tag. (Emulators
// forget with each change over to other tables, tags or not.)
TEST(Views, WritesAreSeenAgainBehindALookThatClears) {
  auto* page = static_cast<volatile char*>(map_pages(1));
  char* begin = const_cast<char*>(page);
  auto view = View::open(), other = View::open();
  ASSERT_TRUE(view && other);
  page[0] = 1;
  ASSERT_TRUE(protect(begin, 4096, kRead | kWrite));
  int seen = 0;
  for (int round = 0; round < 100; ++round)
    for (const View* v : {&*view, &*other}) {
      v->use();
      page[0] = 1;
      use_no_view();
      walk_pages(begin, 4096, true, [](void*, const PageState&) {});
      v->use();
      page[0] = 2;
      use_no_view();
      seen += page_state(begin).dirty;
    }
  EXPECT_EQ(seen, 200);
}

// Another thread has used the view, and is somewhere else now.
TEST(Views, SeeChangesThatAnotherThreadMakes) {
  static char* page;
  page = map_pages(1);
  auto view = View::open();
  ASSERT_TRUE(view);
  std::atomic<int> step = 0;
  std::atomic<bool> may[3];
  std::thread thread([&] {
    for (int i = 0; i < 3; ++i) {
      while (step < 2 * i)
        sched_yield();
      may[i] = may_write(*view, page);
      ++step;
    }
  });
  struct sigaction action {
  }, before;
  action.sa_sigaction = [](int, siginfo_t*, void*) { siglongjmp(g_back, 1); };
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, &before);
  const auto wait = [&](int until) {
    while (step < until)
      sched_yield();
  };
  wait(1);
  EXPECT_TRUE(protect(page, 4096, kRead));
  step = 2;
  wait(3);
  EXPECT_TRUE(release(page, 4096));
  step = 4;
  thread.join();
  EXPECT_TRUE(may[0]);
  EXPECT_FALSE(may[1]);
  EXPECT_TRUE(may[2]);
  sigaction(SIGSEGV, &before, nullptr);
}

TEST(Views, RefuseWhatIsNotTheirs) {
  char* page = map_pages(2);
  auto view = View::open();
  ASSERT_TRUE(view);
  EXPECT_FALSE(view->map(page, 4096, nullptr, kRead));
  EXPECT_FALSE(view->protect(page, ~size_t{0}, kRead));
  EXPECT_FALSE(view->page_state(page).is_decided);
  const View moved = std::move(*view);
  EXPECT_FALSE(view->protect(page, 4096, kRead));
  EXPECT_FALSE(page_state(page).is_decided);
  EXPECT_FALSE(moved.page_state(page).is_decided);
}

// A child that enters begins without any, and its parent's are not its own.
TEST(Views, AreOfTheProcessThatHasOpenedThem) {
  std::vector<View> views;
  for (;;) {
    auto view = View::open();
    if (!view)
      break;
    views.push_back(std::move(*view));
  }
  char* page = map_pages(1);
  const pid_t child = fork();
  if (child == 0) {
    if (!enter())
      _exit(1);
    auto own = View::open();
    if (!own)
      _exit(2);
    if (views[0].protect(page, 4096, kRead) || views[0].page_state(page).is_decided)
      _exit(3);
    views.clear();
    _exit(own->protect(page, 4096, kRead) && own->page_state(page).is_decided ? 42 : 4);
  }
  EXPECT_EQ(exit_of(child), 42);
}

TEST(Views, ThereAreSixtyFourAndTheyAreUsedAnew) {
  char* page = map_pages(1);
  for (int round = 0; round < 3; ++round) {
    std::vector<View> views;
    for (;;) {
      auto view = View::open();
      if (!view)
        break;
      EXPECT_FALSE(view->page_state(page).is_decided);
      ASSERT_TRUE(view->protect(page, 4096, kNoAccess));
      views.push_back(std::move(*view));
    }
    EXPECT_EQ(views.size(), 64u);
  }
}

} // namespace
} // namespace dune
