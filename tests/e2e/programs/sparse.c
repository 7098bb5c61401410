// sparse THREADS: more page tables than a guest of ddbg's has (16384, each serves 2 MiB). Uses a page
// in each of 17000 regions of 2 MiB, twice over, then maps and unmaps one at as many other places, a
// child is forked meanwhile, and a variable written. Says how many pages had what was written there.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kRegions = 17000, kMostThreads = 8, kForkAt = 12000 };

static const unsigned long kRegion = 2 << 20, kPage = 4096;
static long threads, rounds_of_main;
static char *kept, *elsewhere;
static long found[kMostThreads], came[kMostThreads];

static long *page_of(char *area, long i) { return (long *)(area + i * kRegion + i * 37 % 512 * kPage); }

static char *reserve(int prot) {
  char *at = mmap(NULL, kRegions * kRegion, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED || madvise(at, kRegions * kRegion, MADV_NOHUGEPAGE) != 0)
    exit(2);
  return at;
}

static void use(long i) { *page_of(kept, i) += i + 1; }

static long come_and_go(long i) {
  volatile long *page = mmap(page_of(elsewhere, i), kPage, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  if (page == MAP_FAILED)
    exit(3);
  const long before = *page;
  *page = i + 1;
  const long after = *page;
  munmap((void *)page, kPage);
  return before == 0 && after == i + 1;
}

static void forked(void) {
  const pid_t child = fork();
  if (child == 0)
    _exit(*page_of(kept, 0) != 2);
  int status = 1;
  if (waitpid(child, &status, 0) != child || status != 0)
    exit(4);
}

static void *work(void *number) {
  const long first = (long)number;
  for (int round = 0; round < 2; ++round) {
    for (long i = first; i < kRegions; i += threads)
      use(i);
    rounds_of_main += first == 0;
  }
  for (long i = first; i < kRegions; i += threads)
    found[first] += *page_of(kept, i) == 2 * (i + 1);
  for (long i = first; i < kRegions; i += threads) {
    came[first] += come_and_go(i);
    if (first == 0 && i / threads == kForkAt / threads)
      forked();
  }
  return NULL;
}

int main(int argc, char **argv) {
  threads = argc > 1 ? atol(argv[1]) : 1;
  if (threads < 1 || threads > kMostThreads)
    return 1;
  kept = reserve(PROT_READ | PROT_WRITE);
  elsewhere = reserve(PROT_NONE);
  pthread_t others[kMostThreads];
  for (long i = 1; i < threads; ++i)
    pthread_create(&others[i], NULL, work, (void *)i);
  work(0);
  for (long i = 1; i < threads; ++i)
    pthread_join(others[i], NULL);
  for (long i = 1; i < threads; ++i) {
    found[0] += found[i];
    came[0] += came[i];
  }
  printf("kept %ld, came and went %ld\n", found[0], came[0]);
  return 0;
}
