// loop CALLS: calls work() that many times, each time with a store to `word`, and prints what one
// round took, in nanoseconds. It times itself, so that a debugger around it can be asked for
// nothing but not to be slow.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

volatile long word;

__attribute__((noinline, noclone)) long work(long i) {
  asm volatile("" ::: "memory");
  return i ^ 1;
}

__attribute__((noinline, noclone)) void begin(void) { asm volatile("" ::: "memory"); }

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(int argc, char** argv) {
  const long calls = argc > 1 ? atol(argv[1]) : 1000;
  long sum = 0;
  begin();
  const double start = now();
  for (long i = 0; i < calls; ++i) {
    sum += work(i);
    word = i + 1;
  }
  const double took = now() - start;
  printf("%.2f ns a round\n", took / (double)calls);
  return sum == 42;
}
