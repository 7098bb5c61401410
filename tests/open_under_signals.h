// Whoever opens a VM registers a notifier of the process's address space, for which the kernel
// locks every mapping; it gives up when a signal comes, and that must not be the caller's concern.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <functional>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

namespace dune::test {

// Opens again and again, among many mappings, with one SIGALRM at each moment of the time that it
// takes. `open` opens, closes and says whether that succeeded.
inline void expect_to_open_under_signals(const std::function<bool()>& open) {
  using std::chrono::microseconds, std::chrono::steady_clock;
  constexpr size_t kPage = 4096, kMappings = 2000;
  constexpr int kMoments = 200;
  static std::atomic<int> signals;
  void* pages = mmap(nullptr, kMappings * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(pages, MAP_FAILED);
  for (size_t i = 0; i < kMappings; i += 2)
    ASSERT_EQ(mprotect(static_cast<char*>(pages) + i * kPage, kPage, PROT_READ), 0);
  auto took = microseconds::max();
  for (int i = 0; i < 10; ++i) {
    const auto begin = steady_clock::now();
    ASSERT_TRUE(open());
    took = std::min(took, duration_cast<microseconds>(steady_clock::now() - begin));
  }
  const auto handler = signal(
      SIGALRM, +[](int) { ++signals; });
  int during = 0;
  for (int i = 1; i <= kMoments; ++i) {
    signals = 0;
    const itimerval once{{}, {0, std::max(1l, took.count() * i / kMoments)}};
    setitimer(ITIMER_REAL, &once, nullptr);
    const int before = signals;
    EXPECT_TRUE(open()) << "moment " << i;
    during += signals - before;
    while (signals == 0)
      usleep(100);
  }
  EXPECT_GT(during, kMoments / 4);
  signal(SIGALRM, handler);
  munmap(pages, kMappings * kPage);
}

} // namespace dune::test
