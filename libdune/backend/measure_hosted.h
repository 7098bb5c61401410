// What an event costs, as probes measure it.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <time.h>

namespace dune::backend {

inline uint64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}

template <size_t rounds, class F> uint32_t median_ns(F&& event) {
  std::array<uint64_t, rounds> times;
  for (uint64_t& time : times) {
    const uint64_t begin = now_ns();
    event();
    time = now_ns() - begin;
  }
  std::nth_element(times.begin(), times.begin() + rounds / 2, times.end());
  return static_cast<uint32_t>(times[rounds / 2]);
}

} // namespace dune::backend
