// thread_storm COUNT: that many threads come and go, four makers at a time. Each finds its
// thread-local values as they begin, keeps its own, and gives back what it was given.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { kMakers = 4, kAtOnce = 16 };
static atomic_long errors, ran;
static long share;
static _Thread_local uint64_t first = 0x1122334455667788, zero, many[64];
static pthread_key_t key;
static atomic_long destroyed;

static void fail(const char* what) {
  if (atomic_fetch_add(&errors, 1) < 10)
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
}
static void destroy(void* value) {
  if (value)
    atomic_fetch_add(&destroyed, 1);
}
static void* short_life(void* value) {
  if (first != 0x1122334455667788 || zero != 0 || many[63] != 0)
    fail("thread-local values at the start");
  const pid_t tid = (pid_t)syscall(SYS_gettid);
  first = zero = many[63] = (uint64_t)value + (uint64_t)tid;
  pthread_setspecific(key, &many);
  if ((uint64_t)value % 16 == 0)
    sched_yield();
  if (first != (uint64_t)value + (uint64_t)tid || zero != first || many[63] != first ||
      (pid_t)syscall(SYS_gettid) != tid)
    fail("thread-local values");
  uint64_t base, self;
  __asm__ volatile("mov %%fs:0, %0" : "=r"(base));
  __asm__ volatile("mov %%fs:0x10, %0" : "=r"(self));
  if (self != (uint64_t)pthread_self() || base != self)
    fail("the segment base");
  atomic_fetch_add(&ran, 1);
  return (void*)((uint64_t)value ^ 0x5555);
}
static void* makes(void* unused) {
  (void)unused;
  first = 1;
  for (long made = 0; made < share;) {
    pthread_t threads[kAtOnce];
    int n = 0;
    for (; n < kAtOnce && made < share; ++n, ++made)
      if (pthread_create(&threads[n], NULL, short_life, (void*)made)) {
        fail("pthread_create");
        break;
      }
    for (int i = 0; i < n; ++i) {
      void* result;
      if (pthread_join(threads[i], &result) || result != (void*)((uint64_t)(made - n + i) ^ 0x5555))
        fail("what a thread gave back");
    }
  }
  if (first != 1)
    fail("a maker's thread-local value");
  return NULL;
}

int main(int argc, char** argv) {
  const long count = argc > 1 ? atol(argv[1]) : 100000;
  share = count / kMakers;
  if (pthread_key_create(&key, destroy))
    return 1;
  pthread_t makers[kMakers];
  for (int i = 0; i < kMakers; ++i)
    if (pthread_create(&makers[i], NULL, makes, NULL))
      return 1;
  for (int i = 0; i < kMakers; ++i)
    pthread_join(makers[i], NULL);
  printf("errors %ld, threads %ld, destroyed %ld\n", (long)errors, (long)ran, (long)destroyed);
  return errors != 0 || ran != share * kMakers || destroyed != ran;
}
