// count THREADS N: each thread calls hit() N times and recursive() with depth 10 N / 1000 times.
// Prints what was counted natively.
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static atomic_long calls, deep;
static long n;

__attribute__((noinline, noclone)) long hit(long i) {
  atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
  return i ^ 1;
}

__attribute__((noinline, noclone)) long recursive(long depth) {
  atomic_fetch_add_explicit(&deep, 1, memory_order_relaxed);
  return depth ? recursive(depth - 1) * 3 + 1 : 1;
}

static void* work(void* unused) {
  long sum = 0;
  for (long i = 0; i < n; ++i) {
    sum += hit(i);
    if (i % 1000 == 0)
      sum += recursive(9);
  }
  (void)unused;
  return (void*)sum;
}

int main(int argc, char** argv) {
  int threads = argc > 1 ? atoi(argv[1]) : 4;
  n = argc > 2 ? atol(argv[2]) : 1000;
  pthread_t all[64];
  long sum = 0;
  for (int i = 0; i < threads; ++i)
    pthread_create(&all[i], NULL, work, NULL);
  for (int i = 0; i < threads; ++i) {
    void* result;
    pthread_join(all[i], &result);
    sum += (long)result;
  }
  printf("calls %ld deep %ld sum %ld\n", (long)calls, (long)deep, sum);
  return 7;
}
