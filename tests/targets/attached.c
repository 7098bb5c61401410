// attached CASE...: a thread for each case, which does one thing until standard input ends and says
// at last what it saw: `CASE: as it should be`, or what was not. A debugger comes and goes
// meanwhile.
// attached again N CASE...: the same after N times exec.
#define _GNU_SOURCE
#include "hits.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char** environ;
static atomic_int done, started;
static uint64_t late_us = 250000; // more than a stop of the test takes
static int ended[2];              // a pipe that is closed at the end
static char complaint[64][200];
static int complaints;
static pthread_mutex_t complaining = PTHREAD_MUTEX_INITIALIZER;

struct job {
  const char* name;
  void (*run)(void);
  void (*prepare)(void); // before the thread says that it has started
  pthread_t thread;
  atomic_int failures;
};
static _Thread_local struct job* me;
static _Thread_local char* my_stack;

static void expect(int holds, const char* what) {
  const int error = errno;
  if (holds || atomic_fetch_add(&me->failures, 1) >= 3)
    return;
  pthread_mutex_lock(&complaining);
  snprintf(complaint[complaints++ % 64], sizeof complaint[0], "%s: not as it should be: %s (%s)",
           me->name, what, strerror(error));
  pthread_mutex_unlock(&complaining);
}

static uint64_t now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void read_until_end(void) {
  char byte;
  errno = 0;
  expect(read(ended[0], &byte, 1) == 0, "the blocking read");
}

static void tick(void) {
  hit_a();
  const struct timespec millisecond = {0, 1000000};
  expect(nanosleep(&millisecond, NULL) == 0, "nanosleep");
}
static void tick_until_end(void) {
  while (!done)
    tick();
}

// --- Signal handlers -----------------------------------------------------------------------------

static void take_alternate_stack(void) {
  my_stack = malloc(65536);
  const stack_t stack = {.ss_sp = my_stack, .ss_size = 65536};
  sigaltstack(&stack, NULL);
}
static void check_alternate_stack(int flags) {
  stack_t now;
  sigaltstack(NULL, &now);
  char text[120];
  snprintf(text, sizeof text, "sigaltstack: %p+%zx flags %x, not %p flags %x", now.ss_sp,
           now.ss_size, now.ss_flags, my_stack, flags);
  expect(now.ss_sp == my_stack && now.ss_size == 65536 && now.ss_flags == flags, text);
}

static _Thread_local void (*in_handler)(void);
static void on_signal(int signal) {
  char here;
  (void)signal;
  expect(!my_stack || (&here > my_stack && &here < my_stack + 65536), "the handler's stack");
  in_handler();
  expect(!my_stack || (&here > my_stack && &here < my_stack + 65536), "the handler's stack");
  if (my_stack)
    check_alternate_stack(SS_ONSTACK);
}
static void run_in_handler(void (*what)(void)) {
  in_handler = what;
  expect(pthread_kill(pthread_self(), SIGUSR1) == 0, "pthread_kill");
  if (my_stack)
    check_alternate_stack(0);
}

static void vdso_until_end(void) {
  struct timespec t;
  struct timeval v;
  while (!done) {
    for (int i = 0; i < 1000; ++i) {
      clock_gettime(CLOCK_MONOTONIC, &t);
      gettimeofday(&v, NULL);
    }
    hit_b();
  }
}
static void handler_read(void) { run_in_handler(read_until_end); }
static void handler_tick(void) { run_in_handler(tick_until_end); }
static void handler_spin(void) { run_in_handler(vdso_until_end); }
static void handler_again(void) {
  while (!done)
    run_in_handler(tick);
}

// --- Masks ---------------------------------------------------------------------------------------

static void block_all(void) {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, NULL);
}
static void check_all_blocked(void) {
  sigset_t now;
  pthread_sigmask(SIG_SETMASK, NULL, &now);
  for (int signal = 1; signal < NSIG; ++signal)
    if (signal != SIGKILL && signal != SIGSTOP && signal != 32 && signal != 33)
      expect(sigismember(&now, signal), "the mask");
}
static void masked_read(void) {
  read_until_end();
  check_all_blocked();
}
static void masked_spin(void) {
  while (!done) {
    hit_b();
    check_all_blocked();
  }
}
// A SIGTRAP of the program's own waits for it all the time.
static void block_with_sigtrap(void) {
  block_all();
  const union sigval value = {.sival_int = 4711};
  pthread_sigqueue(pthread_self(), SIGTRAP, value);
}
static void masked_pending(void) {
  sigset_t set;
  siginfo_t info;
  while (!done) {
    expect(sigpending(&set) == 0 && sigismember(&set, SIGTRAP), "SIGTRAP is pending");
    tick();
  }
  sigemptyset(&set);
  sigaddset(&set, SIGTRAP);
  expect(sigwaitinfo(&set, &info) == SIGTRAP && info.si_code == SI_QUEUE &&
             info.si_value.sival_int == 4711 && info.si_pid == getpid(),
         "the SIGTRAP that was pending");
}

// --- Calls that wait -----------------------------------------------------------------------------

static atomic_uint word;
static void futex_wait(void) {
  while (!done)
    if (syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0) != 0)
      expect(errno == EAGAIN, "futex");
}
static void condition(void) {
  pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t c = PTHREAD_COND_INITIALIZER;
  pthread_mutex_lock(&m);
  while (!done) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 50000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    expect(pthread_cond_timedwait(&c, &m, &until) == ETIMEDOUT, "pthread_cond_timedwait");
  }
}
static void sigtimedwait_(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  const struct timespec span = {0, 50000000};
  while (!done)
    expect(sigtimedwait(&set, NULL, &span) == -1 && errno == EAGAIN, "sigtimedwait");
}
static void block_usr2(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
}
static void epoll(void) {
  struct epoll_event event = {.events = EPOLLIN};
  int fd = epoll_create1(EPOLL_CLOEXEC);
  epoll_ctl(fd, EPOLL_CTL_ADD, ended[0], &event);
  expect(epoll_wait(fd, &event, 1, -1) == 1, "epoll_wait");
  close(fd);
}
static void receive(void) {
  int pair[2];
  char byte;
  const struct timeval t = {0, 50000};
  socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
  setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
  while (!done)
    expect(recv(pair[0], &byte, 1, 0) == -1 && errno == EAGAIN, "recv with a time limit");
  close(pair[0]);
  close(pair[1]);
}
// The time that is left is the kernel's to know: it must not start anew.
static void sleeps(void) {
  const struct timespec span = {0, 400000000};
  while (!done) {
    const uint64_t begin = now_us();
    expect(nanosleep(&span, NULL) == 0, "nanosleep");
    const uint64_t took = now_us() - begin;
    expect(took >= 400000, "nanosleep came back early");
    if (took >= 400000 + late_us) {
      char text[80];
      snprintf(text, sizeof text, "nanosleep took %lu us", (unsigned long)took);
      expect(0, text);
    }
    errno = 0;
    expect(poll(NULL, 0, 30) == 0, "poll");
  }
}

// --- System calls through a function that does not know their numbers, as Go makes them ----------

__attribute__((noinline, noclone)) static long generic_call(long number, long a, void* b, long c) {
  long result;
  __asm__ volatile(".globl generic_mov\ngeneric_mov: mov %%rbx, %%rdi\n"
                   ".globl generic_syscall\ngeneric_syscall: syscall\n"
                   : "=a"(result)
                   : "a"(number), "b"(a), "S"(b), "d"(c)
                   : "rdi", "rcx", "r11", "memory");
  return result;
}
static void generic(void) {
  int ends[2];
  expect(pipe(ends) == 0, "pipe");
  for (long i = 0; !done; ++i) {
    long back = 0;
    struct timespec moment = {0, 300000};
    expect(generic_call(SYS_write, ends[1], &i, sizeof i) == sizeof i, "a generic write");
    expect(generic_call(SYS_nanosleep, (long)&moment, NULL, 0) == 0, "a generic nanosleep");
    expect(generic_call(SYS_read, ends[0], &back, sizeof back) == sizeof back, "a generic read");
    expect(back == i, "what a generic read read");
  }
}
static void generic_read(void) {
  char byte;
  expect(generic_call(SYS_read, ended[0], &byte, 1) == 0, "the blocking generic read");
}

// --- Threads and processes -----------------------------------------------------------------------

static void* short_life(void* unused) {
  hit_a();
  return unused;
}
static void churn(void) {
  while (!done) {
    pthread_t threads[4];
    for (int i = 0; i < 4; ++i)
      expect(pthread_create(&threads[i], NULL, short_life, NULL) == 0, "pthread_create");
    for (int i = 0; i < 4; ++i)
      pthread_join(threads[i], NULL);
  }
}
// As fast as they can be made: in a guest such a thread is mostly on its way in or out.
static void* make_calls(void* job) {
  me = job;
  const pid_t parent = getppid();
  while (!done)
    expect(getppid() == parent, "getppid");
  return NULL;
}
static void calls(void) {
  pthread_t threads[2];
  for (int i = 0; i < 2; ++i)
    expect(pthread_create(&threads[i], NULL, make_calls, me) == 0, "pthread_create");
  for (int i = 0; i < 2; ++i)
    pthread_join(threads[i], NULL);
}
static void spawn(void) {
  while (!done) {
    pid_t child;
    int status = 0;
    char* arguments[] = {"true", NULL};
    expect(posix_spawn(&child, "/bin/true", NULL, NULL, arguments, environ) == 0, "posix_spawn");
    expect(waitpid(child, &status, 0) == child && status == 0, "the spawned process's end");
    child = fork();
    if (child == 0) {
      hit_a();
      _exit(7);
    }
    expect(waitpid(child, &status, 0) == child && status == 7 << 8, "the forked process's end");
  }
}
// The child lives in our memory, and stays there.
static void vfork_(void) {
  while (!done) {
    int status = 0;
    const pid_t child = vfork();
    if (child == 0) {
      const struct timespec span = {0, 30000000};
      syscall(SYS_nanosleep, &span, NULL);
      _exit(8);
    }
    expect(waitpid(child, &status, 0) == child && status == 8 << 8, "the vforked process's end");
  }
}

// -------------------------------------------------------------------------------------------------

static struct job jobs[] = {
    {.name = "read", .run = read_until_end},
    {.name = "tick", .run = tick_until_end},
    {.name = "vdso", .run = vdso_until_end},
    {.name = "handler_read", .run = handler_read, .prepare = take_alternate_stack},
    {.name = "handler_tick", .run = handler_tick, .prepare = take_alternate_stack},
    {.name = "handler_spin", .run = handler_spin, .prepare = take_alternate_stack},
    {.name = "handler_again", .run = handler_again, .prepare = take_alternate_stack},
    {.name = "handler_same_stack", .run = handler_read},
    {.name = "masked_read", .run = masked_read, .prepare = block_all},
    {.name = "masked_spin", .run = masked_spin, .prepare = block_all},
    {.name = "masked_pending", .run = masked_pending, .prepare = block_with_sigtrap},
    {.name = "futex", .run = futex_wait},
    {.name = "condition", .run = condition},
    {.name = "sigtimedwait", .run = sigtimedwait_, .prepare = block_usr2},
    {.name = "epoll", .run = epoll},
    {.name = "receive", .run = receive},
    {.name = "sleeps", .run = sleeps},
    {.name = "generic", .run = generic},
    {.name = "generic_read", .run = generic_read},
    {.name = "calls", .run = calls},
    {.name = "churn", .run = churn},
    {.name = "spawn", .run = spawn},
    {.name = "vfork", .run = vfork_},
};
enum { kJobs = sizeof jobs / sizeof *jobs };

static void* run_job(void* argument) {
  me = argument;
  if (me->prepare)
    me->prepare();
  atomic_fetch_add(&started, 1);
  me->run();
  return NULL;
}

int main(int argc, char** argv) {
  if (argc > 2 && strcmp(argv[1], "again") == 0) {
    char left[20];
    snprintf(left, sizeof left, "%d", atoi(argv[2]) - 1);
    hit_a();
    if (atoi(left) > 0)
      argv[2] = left;
    else
      memmove(argv + 1, argv + 3, (size_t)(argc - 2) * sizeof *argv);
    execv("/proc/self/exe", argv);
    return 101;
  }
  struct job* chosen[kJobs];
  int count = 0;
  for (int a = 1; a < argc && count < kJobs; ++a)
    for (int i = 0; i < kJobs; ++i)
      if (strcmp(argv[a], jobs[i].name) == 0)
        chosen[count++] = &jobs[i];
  if (getenv("ATTACHED_LATE_US"))
    late_us = strtoull(getenv("ATTACHED_LATE_US"), NULL, 10);
  if (count != argc - 1 || pipe(ended))
    return 100;
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
  sigaction(SIGUSR1, &action, NULL);
  for (int i = 0; i < count; ++i)
    pthread_create(&chosen[i]->thread, NULL, run_job, chosen[i]);
  while (started != count)
    sched_yield();
  puts("started");
  fflush(stdout);
  char line[100];
  errno = 0;
  const ssize_t n = read(0, line, sizeof line);
  const int error = errno;
  done = 1;
  close(ended[1]);
  word = 1;
  syscall(SYS_futex, &word, FUTEX_WAKE, 1000, NULL, NULL, 0);
  for (int i = 0; i < count; ++i)
    pthread_join(chosen[i]->thread, NULL);
  finish_line();
  for (int i = 0; i < count; ++i)
    if (!chosen[i]->failures)
      printf("%s: as it should be\n", chosen[i]->name);
  for (int i = 0; i < complaints && i < 64; ++i)
    puts(complaint[i]);
  printf("main: read returned %zd, %s\n", n, n < 0 ? strerror(error) : "no error");
  return 6;
}
