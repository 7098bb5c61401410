// Places for breakpoints, each of which counts itself; the test compares.
#pragma once
#include <stdatomic.h>

atomic_long counted_a, counted_b;

__attribute__((noinline, noclone)) void hit_a(void) {
  atomic_fetch_add_explicit(&counted_a, 1, memory_order_relaxed);
}
__attribute__((noinline, noclone)) void hit_b(void) {
  atomic_fetch_add_explicit(&counted_b, 1, memory_order_relaxed);
}
// Called at the end: the counts are final.
__attribute__((noinline, noclone)) void finish_line(void) { __asm__ volatile(""); }
