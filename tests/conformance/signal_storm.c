// signal_storm COUNT: that many signals, over eight threads, against calls that block and calls
// that do not. What the calls carry is checked byte by byte, sleeps may not end early, and of the
// queued signals each has to come once.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { kThreads = 8 };
static atomic_long errors, handled, queued_seen[kThreads];
static atomic_int done;
static pthread_t threads[kThreads];
static int ends[2];
static atomic_uint word;
static long count;

static void fail(const char* what) {
  if (atomic_fetch_add(&errors, 1) < 10)
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
}
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void on_plain(int signal) {
  (void)signal;
  atomic_fetch_add(&handled, 1);
}
// Each sender numbers what it queues for a thread: they come in that order, one by one.
static _Thread_local int next_value;
static _Thread_local int index_of_thread;
static void on_queued(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)context;
  if (info->si_value.sival_int != next_value++)
    fail("a queued signal came out of turn");
  atomic_fetch_add(&queued_seen[index_of_thread], 1);
  atomic_fetch_add(&handled, 1);
}

static void write_all(void) {
  unsigned char piece[3000], next = 0;
  while (!done) {
    for (size_t i = 0; i < sizeof piece; ++i)
      piece[i] = next++;
    for (size_t at = 0; at < sizeof piece;) {
      ssize_t n = write(ends[1], piece + at, sizeof piece - at);
      if (n > 0)
        at += (size_t)n;
      else if (errno != EINTR)
        fail("write");
    }
  }
  close(ends[1]);
}
static void read_all(void) {
  unsigned char piece[5000], expected = 0;
  for (;;) {
    ssize_t n = read(ends[0], piece, sizeof piece);
    if (n == 0)
      return;
    if (n < 0 && errno != EINTR)
      fail("read");
    for (ssize_t i = 0; i < n; ++i)
      if (piece[i] != expected++)
        fail("a byte in the pipe");
  }
}
static void sleep_all(void) {
  while (!done) {
    struct timespec time = {0, 3000000};
    double begin = now();
    while (nanosleep(&time, &time) != 0)
      if (errno != EINTR)
        fail("nanosleep");
    if (now() - begin < 0.003)
      fail("a sleep was short");
  }
}
static void wait_for_events(void) {
  int own[2], epoll = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = 4711}, got;
  if (epoll < 0 || pipe(own) || epoll_ctl(epoll, EPOLL_CTL_ADD, own[0], &event))
    fail("epoll");
  while (!done) {
    char byte = 'e';
    int n = epoll_wait(epoll, &got, 1, 1);
    if (n > 0 || (n < 0 && errno != EINTR))
      fail("epoll_wait without an event");
    while (write(own[1], &byte, 1) != 1)
      ;
    while ((n = epoll_wait(epoll, &got, 1, -1)) < 0)
      if (errno != EINTR)
        fail("epoll_wait");
    if (n != 1 || got.data.u64 != 4711 || read(own[0], &byte, 1) != 1 || byte != 'e')
      fail("an event");
  }
}
static void wait_for_word(void) {
  while (!done) {
    struct timespec time = {0, 1000000};
    unsigned seen = word;
    if (syscall(SYS_futex, &word, FUTEX_WAIT, seen, &time, NULL, 0) != 0 && errno != EINTR &&
        errno != EAGAIN && errno != ETIMEDOUT)
      fail("futex");
  }
}
static void wake_word(void) {
  while (!done) {
    ++word;
    if (syscall(SYS_futex, &word, FUTEX_WAKE, 100, NULL, NULL, 0) < 0)
      fail("futex, to wake");
    getppid();
  }
}
static void compute(void) {
  double a = 1, b = 1;
  unsigned long x = 1, y = 1;
  while (!done)
    for (int i = 0; i < 1000; ++i) {
      a = a * 1.0000001 + 1, b = b * 1.0000001 + 1;
      x = x * 6364136223846793005u + 1, y = y * 6364136223846793005u + 1;
      if (a != b || x != y)
        fail("a computation");
    }
}
static void change_mask(void) {
  sigset_t set, old, got;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  while (!done) {
    if (pthread_sigmask(SIG_BLOCK, &set, &old) || pthread_sigmask(SIG_SETMASK, NULL, &got) ||
        !sigismember(&got, SIGUSR1) || sigismember(&old, SIGUSR1))
      fail("a mask");
    if (pthread_sigmask(SIG_UNBLOCK, &set, NULL))
      fail("sigmask");
  }
}
static void (*const jobs[kThreads])(void) = {write_all,     read_all,  sleep_all, wait_for_events,
                                             wait_for_word, wake_word, compute,   change_mask};
static sigset_t stormy; // blocked until a thread knows who it is
static void* run_job(void* index) {
  index_of_thread = (int)(long)index;
  pthread_sigmask(SIG_UNBLOCK, &stormy, NULL);
  jobs[index_of_thread]();
  // The last of the queued ones may still be on their way.
  while (queued_seen[index_of_thread] < count / 2 / kThreads)
    sched_yield();
  return NULL;
}

int main(int argc, char** argv) {
  count = argc > 1 ? atol(argv[1]) : 1000000;
  struct sigaction plain = {.sa_handler = on_plain, .sa_flags = 0};
  struct sigaction queued = {.sa_sigaction = on_queued, .sa_flags = SA_SIGINFO | SA_RESTART};
  sigaction(SIGUSR1, &plain, NULL);
  sigaction(SIGRTMIN + 1, &queued, NULL);
  sigemptyset(&stormy);
  sigaddset(&stormy, SIGUSR1);
  sigaddset(&stormy, SIGRTMIN + 1);
  pthread_sigmask(SIG_BLOCK, &stormy, NULL);
  if (pipe(ends))
    return 1;
  for (long i = 0; i < kThreads; ++i)
    if (pthread_create(&threads[i], NULL, run_job, (void*)i))
      return 1;
  const long rounds = count / 2 / kThreads;
  for (long n = 0; n < rounds; ++n)
    for (int i = 0; i < kThreads; ++i) {
      if (pthread_kill(threads[i], SIGUSR1))
        fail("pthread_kill");
      union sigval value = {.sival_int = (int)n};
      int error;
      while ((error = pthread_sigqueue(threads[i], SIGRTMIN + 1, value)) == EAGAIN)
        sched_yield(); // the queue is full
      if (error)
        fail("pthread_sigqueue");
    }
  for (int i = 0; i < kThreads; ++i)
    while (queued_seen[i] < rounds)
      sched_yield();
  done = 1;
  for (int i = 0; i < kThreads; ++i)
    pthread_join(threads[i], NULL);
  long total = 0;
  for (int i = 0; i < kThreads; ++i)
    total += queued_seen[i];
  printf("errors %ld, queued %ld of %ld, others %s\n", (long)errors, total, rounds * kThreads,
         handled > total ? "came" : "did not come");
  return errors != 0 || total != rounds * kThreads;
}
