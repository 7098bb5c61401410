// System calls without libc. Return values are the kernel's: -errno on failure.
// Freestanding-clean.
#pragma once

#include <asm/unistd_64.h>
#include <cstdint>

namespace dune {

inline long syscall_raw(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0,
                        long f = 0) {
  long result;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}

template <class... Args> long syscall_of(long number, Args... args) {
  return syscall_raw(number, (long)args...);
}

inline bool is_errno(long result) { return result < 0 && result >= -4095; }

} // namespace dune
