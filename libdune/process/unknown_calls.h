// Which system calls were made that calls.h has no row for. They pass; `info backend` shows them.
// Freestanding-clean.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

namespace dune::process {

// Shared by all threads of a process; zeroed memory is an empty one.
class UnknownCalls {
public:
  static constexpr unsigned kMost = 16;
  struct Entry {
    std::atomic<uint32_t> number_plus_one; // 0: free
    std::atomic<uint32_t> calls;
  };

  void count(uint32_t number) {
    for (Entry& entry : entries_) {
      uint32_t expected = 0;
      if (entry.number_plus_one.compare_exchange_strong(expected, number + 1) ||
          expected == number + 1) {
        entry.calls.fetch_add(1, std::memory_order_relaxed);
        return;
      }
    }
    others_.fetch_add(1, std::memory_order_relaxed);
  }
  std::span<const Entry, kMost> entries() const { return entries_; }
  // Calls of numbers for which there was no entry left.
  uint32_t others() const { return others_.load(std::memory_order_relaxed); }

private:
  Entry entries_[kMost];
  std::atomic<uint32_t> others_;
};

} // namespace dune::process
