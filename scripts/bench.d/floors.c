// The floors: what the kernel alone takes for an event that a process handles itself. Whatever
// handles int3, TF or a debug register inside the process by signals cannot be faster than this.
// Under ddbg in Dune mode the same program tells what the events take there, by its own clock.
//   floors EVENT CPU EVENTS RUNS
// prints one line per run: nanoseconds per event. EVENT:
//   call   the loop that the others run, with a call of an empty function: what is not the event.
//          A breakpoint on `empty` makes it the cost of a hit
//   int3   int3, SIGTRAP on an alternate stack with all signals blocked, return
//   step   the trap flag set: one SIGTRAP per instruction
//   watch  a store to a word under a perf_event breakpoint with sigtrap
//   store  the same without one: for a debugger that watches `watched`
//   getppid  a system call that does nothing
//   fault  the first touch of each page of anonymous memory; fault16: of every sixteenth
//   stepped  an instruction of a loop in which nothing happens: for a debugger that steps from
//          `stepped_begin` on, EVENTS instructions and then some, but not kSlack
#define _GNU_SOURCE
#include <errno.h>
#include <linux/hw_breakpoint.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

enum { kTrapFlag = 0x100, kPage = 4096, kSlack = 4000 };

static volatile long handled, stop_at;
static volatile long watched;
static char stack[64 * 1024] __attribute__((aligned(64)));

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void on_trap(int signal, siginfo_t* info, void* context) {
  (void)signal;
  (void)info;
  (void)context;
  ++handled;
}

static void on_step(int signal, siginfo_t* info, void* context) {
  (void)signal;
  (void)info;
  if (++handled >= stop_at)
    ((ucontext_t*)context)->uc_mcontext.gregs[REG_EFL] &= ~kTrapFlag;
}

static void handle(void (*handler)(int, siginfo_t*, void*)) {
  stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
  sigaltstack(&alternate, NULL);
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  sigfillset(&action.sa_mask);
  sigaction(SIGTRAP, &action, NULL);
}

// Two bytes between two functions: whatever a debugger puts here is no longer than an int3.
void empty(void);
asm(".pushsection .text\n"
    ".globl empty\n"
    ".type empty, @function\n"
    "empty:\tnop\n\tret\n"
    ".size empty, . - empty\n"
    ".globl behind_empty\n"
    ".type behind_empty, @function\n"
    "behind_empty:\tret\n"
    ".size behind_empty, . - behind_empty\n"
    ".popsection");

static double call(long n) {
  const double start = now();
  for (long i = 0; i < n; ++i)
    empty();
  return now() - start;
}

static double int3(long n) {
  handle(on_trap);
  handled = 0;
  const double start = now();
  for (long i = 0; i < n; ++i)
    asm volatile("int3" ::: "memory");
  const double took = now() - start;
  if (handled != n)
    exit(3);
  return took;
}

static double step(long n) {
  handle(on_step);
  handled = 0;
  stop_at = n;
  const double start = now();
  asm volatile("lea -128(%%rsp), %%rsp\n\t"
               "pushfq\n\torq $0x100, (%%rsp)\n\tpopfq\n\t"
               "lea 128(%%rsp), %%rsp\n"
               "1:\tcmp %1, %0\n\tjl 1b"
               :
               : "m"(handled), "r"(n)
               : "memory", "cc");
  return now() - start;
}

static int open_watch(void) {
  struct perf_event_attr attr;
  memset(&attr, 0, sizeof attr);
  attr.size = sizeof attr;
  attr.type = PERF_TYPE_BREAKPOINT;
  attr.bp_type = HW_BREAKPOINT_W;
  attr.bp_addr = (uintptr_t)&watched;
  attr.bp_len = HW_BREAKPOINT_LEN_8;
  attr.sample_period = 1;
  attr.exclude_kernel = 1;
  attr.exclude_hv = 1;
  attr.remove_on_exec = 1;
  attr.sigtrap = 1;
  return (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

static double watch(long n) {
  handle(on_trap);
  const int event = open_watch();
  if (event < 0) {
    fprintf(stderr, "perf_event_open: %s\n", strerror(errno));
    exit(4);
  }
  handled = 0;
  const double start = now();
  for (long i = 0; i < n; ++i)
    watched = i;
  const double took = now() - start;
  close(event);
  if (handled != n)
    exit(3);
  return took;
}

static double store(long n) {
  const double start = now();
  for (long i = 0; i < n; ++i)
    watched = i;
  return now() - start;
}

static double getppid_calls(long n) {
  const double start = now();
  for (long i = 0; i < n; ++i)
    syscall(SYS_getppid);
  return now() - start;
}

static double first_touches(long n, size_t distance) {
  const size_t size = (size_t)n * distance;
  char* const memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED || madvise(memory, size, MADV_NOHUGEPAGE) != 0) {
    perror("floors: memory");
    exit(4);
  }
  const double start = now();
  for (size_t at = 0; at < size; at += distance)
    *(volatile char*)(memory + at) = 1;
  const double took = now() - start;
  munmap(memory, size);
  return took;
}

static double fault(long n) { return first_touches(n, kPage); }
static double fault16(long n) { return first_touches(n, 16 * kPage); }

__attribute__((noinline, noclone)) void stepped_begin(void) { asm volatile("" ::: "memory"); }

static void loop_of(long instructions) {
  long n = instructions / 2;
  asm volatile("1:\tdec %0\n\tjnz 1b" : "+r"(n)::"cc");
}

static double stepped(long n) {
  stepped_begin();
  const double before = now(), start = now();
  loop_of(n);
  const double end = now();
  // The steps end in here.
  loop_of(kSlack);
  // The clock is stepped through, too.
  return (end - start) - (start - before);
}

static const struct {
  const char* name;
  double (*run)(long);
} kEvents[] = {{"call", call},
               {"int3", int3},
               {"step", step},
               {"watch", watch},
               {"store", store},
               {"getppid", getppid_calls},
               {"fault", fault},
               {"fault16", fault16},
               {"stepped", stepped}};

int main(int argc, char** argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: floors EVENT CPU EVENTS RUNS\n");
    return 2;
  }
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(atoi(argv[2]), &set);
  sched_setaffinity(0, sizeof set, &set);
  const long events = atol(argv[3]);
  for (size_t i = 0; i < sizeof kEvents / sizeof *kEvents; ++i) {
    if (strcmp(argv[1], kEvents[i].name) != 0)
      continue;
    kEvents[i].run(events / 10 + 1); // warm
    for (int run = 0; run < atoi(argv[4]); ++run) {
      printf("%.2f\n", kEvents[i].run(events) / (double)events);
      fflush(stdout);
    }
    return 0;
  }
  fprintf(stderr, "floors: no event %s\n", argv[1]);
  return 2;
}
