// A lock that sleeps, for threads of one address space. Not for signal handlers, and of no use to a
// forked child: whoever holds it there does not run. Freestanding-clean.
#pragma once

#include "libdune/arch/syscall.h"

#include <atomic>
#include <cstdint>
#include <linux/futex.h>

namespace dune::process {

class Mutex {
public:
  void lock() {
    uint32_t seen = kFree;
    if (word_.compare_exchange_strong(seen, kHeld, std::memory_order_acquire))
      return;
    while (word_.exchange(kWaitedFor, std::memory_order_acquire) != kFree)
      syscall_of(__NR_futex, &word_, FUTEX_WAIT_PRIVATE, kWaitedFor, 0);
  }
  void unlock() {
    if (word_.exchange(kFree, std::memory_order_release) == kWaitedFor)
      syscall_of(__NR_futex, &word_, FUTEX_WAKE_PRIVATE, 1);
  }

private:
  enum State : uint32_t { kFree, kHeld, kWaitedFor };
  std::atomic<uint32_t> word_ = kFree;
};

class Holder {
public:
  explicit Holder(Mutex& mutex) : mutex_(mutex) { mutex_.lock(); }
  ~Holder() { mutex_.unlock(); }
  Holder(const Holder&) = delete;
  Holder& operator=(const Holder&) = delete;

private:
  Mutex& mutex_;
};

} // namespace dune::process
