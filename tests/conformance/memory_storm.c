// memory_storm COUNT: that many changes of mappings (mmap, munmap, mprotect, mremap, madvise, fork)
// by two threads, while others write. Every page says what it is; a write that a right forbids
// faults, and is made again once the right is back.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kWriters = 4, kPages = 32 };
static const size_t kPage = 4096;
static atomic_long errors, faults, changes;
static atomic_int done;
static struct Area {
  char* pages;
  pthread_mutex_t changing; // held while rights are away, and by a fork
  uint64_t written[kPages]; // by the only writer
} areas[kWriters];

static void fail(const char* what) {
  if (atomic_fetch_add(&errors, 1) < 10)
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
}
static void on_fault(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)context;
  for (int i = 0; i < kWriters; ++i)
    if ((char*)info->si_addr - areas[i].pages >= 0 &&
        (char*)info->si_addr - areas[i].pages < (long)(kPages * kPage)) {
      atomic_fetch_add(&faults, 1);
      sched_yield();
      return; // once more: the right comes back
    }
  static const char text[] = "a fault elsewhere\n";
  if (write(2, text, sizeof text - 1) < 0)
    _exit(3);
  _exit(2);
}

static void* writes(void* of) {
  struct Area* area = of;
  for (uint64_t n = 1; !done; ++n)
    for (int i = 0; i < kPages; ++i) {
      volatile uint64_t* page = (volatile uint64_t*)(area->pages + (size_t)i * kPage);
      const uint64_t before = area->written[i];
      if (page[0] != before || page[511] != before)
        fail("a page has lost what was written");
      page[0] = n;
      page[511] = n;
      area->written[i] = n;
    }
  return NULL;
}
// Takes rights away from pages that are written to, and gives them back.
static void* protects(void* of) {
  struct Area* area = of;
  unsigned seed = 1;
  while (!done) {
    int page = rand_r(&seed) % kPages, rights = rand_r(&seed) % 2 ? PROT_READ : PROT_NONE;
    pthread_mutex_lock(&area->changing);
    if (mprotect(area->pages + (size_t)page * kPage, kPage, rights) ||
        mprotect(area->pages + (size_t)page * kPage, kPage, PROT_READ | PROT_WRITE))
      fail("mprotect");
    pthread_mutex_unlock(&area->changing);
    atomic_fetch_add(&changes, 2);
  }
  return NULL;
}
static void fill(char* p, int pages, int value) {
  for (int i = 0; i < pages; ++i)
    memset(p + (size_t)i * kPage, value + i, kPage);
}
static int is_filled(const char* p, int pages, int value) {
  for (int i = 0; i < pages; ++i)
    for (size_t at = 0; at < kPage; at += 256)
      if ((unsigned char)p[(size_t)i * kPage + at] != (unsigned char)(value + i))
        return 0;
  return 1;
}
static void map_and_move(unsigned* seed) {
  const int value = rand_r(seed) % 200, rights = PROT_READ | PROT_WRITE;
  char* p = mmap(NULL, 8 * kPage, rights, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED || !is_filled(p, 1, 0))
    return fail("mmap");
  fill(p, 8, value);
  char* moved = mremap(p, 8 * kPage, 16 * kPage, MREMAP_MAYMOVE);
  if (moved == MAP_FAILED || !is_filled(moved, 8, value) || !is_filled(moved + 8 * kPage, 1, 0))
    return fail("mremap");
  if (madvise(moved + 2 * kPage, kPage, MADV_DONTNEED) || !is_filled(moved + 2 * kPage, 1, 0))
    fail("madvise");
  if (munmap(moved + 4 * kPage, 12 * kPage) || !is_filled(moved, 2, value))
    fail("munmap of a part");
  if (munmap(moved, 4 * kPage))
    fail("munmap");
  atomic_fetch_add(&changes, 5);
}
static void fork_it(unsigned* seed) {
  const int value = rand_r(seed) % 200;
  char* p = mmap(NULL, 8 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  fill(p, 8, value);
  pid_t child = fork();
  if (child == 0) {
    int right = is_filled(p, 8, value);
    fill(p, 8, value + 7);
    _exit(right && is_filled(p, 8, value + 7) ? 11 : 12);
  }
  fill(p, 8, value + 3);
  int status;
  pid_t got;
  while ((got = waitpid(child, &status, 0)) < 0 && errno == EINTR)
    ;
  if (got != child || status != 11 << 8 || !is_filled(p, 8, value + 3))
    fail("a child's memory");
  munmap(p, 8 * kPage);
  atomic_fetch_add(&changes, 3);
}

int main(int argc, char** argv) {
  const long count = argc > 1 ? atol(argv[1]) : 200000;
  struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
  sigaction(SIGSEGV, &action, NULL);
  pthread_t threads[kWriters + 2];
  for (int i = 0; i < kWriters; ++i) {
    areas[i].pages =
        mmap(NULL, kPages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_mutex_init(&areas[i].changing, NULL);
  }
  for (int i = 0; i < kWriters; ++i)
    if (pthread_create(&threads[i], NULL, writes, &areas[i]))
      return 1;
  for (int i = 0; i < 2; ++i)
    if (pthread_create(&threads[kWriters + i], NULL, protects, &areas[i]))
      return 1;
  unsigned seed = 7;
  for (long n = 0; changes < count; ++n) {
    map_and_move(&seed);
    if (n % 100 == 0)
      fork_it(&seed);
  }
  done = 1;
  for (int i = 0; i < kWriters + 2; ++i)
    pthread_join(threads[i], NULL);
  printf("errors %ld, faults %s\n", (long)errors, faults ? "came" : "did not come");
  return errors != 0;
}
