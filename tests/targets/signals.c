// signals CASE: what a program may do with signals. Prints what it saw. A list of cases, each for
// itself; together they are long.
#define _GNU_SOURCE
#include "hits.h"

#include <errno.h>
#include <immintrin.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static volatile sig_atomic_t seen;
static volatile uint64_t seen_rip, foreign_rips, wrong_state;
static void* volatile seen_address;
static volatile int seen_code;
static volatile int seen_signal;

static void install(int signal, void (*handler)(int, siginfo_t*, void*), int flags) {
  struct sigaction a;
  memset(&a, 0, sizeof a);
  a.sa_sigaction = handler;
  a.sa_flags = SA_SIGINFO | flags;
  sigemptyset(&a.sa_mask);
  if (sigaction(signal, &a, NULL))
    perror("sigaction");
}

static uint64_t rip_of(void* context) {
  return (uint64_t)((ucontext_t*)context)->uc_mcontext.gregs[REG_RIP];
}

// Code of a file that the program mapped, or the vDSO: where a program's instruction pointer can
// be.
static struct { uint64_t begin, end; } code[32];
static int code_count;
static void read_code_ranges(void) {
  FILE* maps = fopen("/proc/self/maps", "r");
  char line[512], protection[5], path[400];
  while (maps && fgets(line, sizeof line, maps) && code_count < 32) {
    unsigned long begin, end;
    path[0] = 0;
    if (sscanf(line, "%lx-%lx %4s %*s %*s %*s %399s", &begin, &end, protection, path) >= 3 &&
        protection[2] == 'x' && path[0] && !strstr(path, "memfd:")) {
      code[code_count].begin = begin;
      code[code_count++].end = end;
    }
  }
  if (maps)
    fclose(maps);
}
static int in_program(uint64_t rip) {
  for (int i = 0; i < code_count; ++i)
    if (rip >= code[i].begin && rip < code[i].end)
      return 1;
  return 0;
}

// Until a process of ours waits in a system call; it is told by its state, which anyone may read.
static void wait_until_asleep(pid_t process) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%d/stat", process);
  for (;;) {
    FILE* file = fopen(path, "r");
    const char* name_end = file && fgets(text, sizeof text, file) ? strrchr(text, ')') : NULL;
    if (file)
      fclose(file);
    if (name_end && name_end[2] == 'S')
      return;
    sched_yield();
  }
}
static pid_t send_to_sleeper(int signal) {
  const pid_t child = fork();
  if (child == 0) {
    wait_until_asleep(getppid());
    kill(getppid(), signal);
    _exit(0);
  }
  return child;
}

// --- A timer's signals while sites are hit ------------------------------------------------------

static void on_alarm(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)info;
  ++seen;
  hit_b();
  if (!in_program(rip_of(context)))
    ++foreign_rips;
  // Clobbers what the interrupted code keeps there.
  __asm__ volatile("vpcmpeqb %%ymm7, %%ymm7, %%ymm7; vpcmpeqb %%ymm3, %%ymm3, %%ymm3" ::
                       : "xmm3", "xmm7");
}

static void timer_storm(int flags) {
  read_code_ranges();
  install(SIGALRM, on_alarm, flags);
  const char* given = getenv("DDBG_TEST_STORM_US");
  const int period = given ? atoi(given) : 100; // more than a machine takes for a signal
  struct itimerval timer = {{0, period}, {0, period}};
  setitimer(ITIMER_REAL, &timer, NULL);
  for (long i = 0; i < 30000 || seen < 200; ++i) {
    uint64_t value[4] = {(uint64_t)i, ~(uint64_t)i, (uint64_t)i * 3, 42}, after[4], low;
    __asm__ volatile("vmovdqu %2, %%ymm7\n\tmov $77, %%r15\n\tsub $136, %%rsp\n\t"
                     "call hit_a\n\tadd $136, %%rsp\n\tvmovdqu %%ymm7, %0\n\tmov %%r15, %1"
                     : "=m"(after), "=r"(low)
                     : "m"(value)
                     : "xmm7", "r15", "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11",
                       "cc", "memory");
    if (memcmp(value, after, sizeof value) || low != 77)
      ++wrong_state;
  }
  memset(&timer, 0, sizeof timer);
  setitimer(ITIMER_REAL, &timer, NULL);
  printf("wrong states %lu, foreign instruction pointers %lu, handler %s\n",
         (unsigned long)wrong_state, (unsigned long)foreign_rips,
         seen == counted_b ? "counted" : "lost");
}

static void storm(void) { timer_storm(SA_RESTART); }
static char big_stack[65536];
static void storm_on_altstack(void) {
  stack_t stack = {.ss_sp = big_stack, .ss_size = sizeof big_stack};
  sigaltstack(&stack, NULL);
  timer_storm(SA_RESTART | SA_ONSTACK);
}

// --- Faults at sites ----------------------------------------------------------------------------

void fault_load(void), fault_after(void), divide(void), divide_after(void), own_int3(void);
__asm__(".text\n.globl fault_load, fault_after, divide, divide_after, own_int3, touch, quotient\n"
        "touch: endbr64\n"
        "fault_load: mov (%rdi), %eax\n"
        "fault_after: nop\n ret\n"
        "quotient: mov %edi, %eax\n cltd\n"
        "divide: idiv %esi\n"
        "divide_after: nop\n ret\n"
        "own_int3: int3\n ret\n");
int touch(const void*);
int quotient(int, int);

static void on_fault(int signal, siginfo_t* info, void* context) {
  seen_signal = signal;
  seen_code = info->si_code;
  seen_address = info->si_addr;
  seen_rip = rip_of(context);
  ++seen;
  hit_b();
  ucontext_t* uc = context;
  if (seen_rip == (uint64_t)fault_load)
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)fault_after;
  else if (seen_rip == (uint64_t)divide)
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)divide_after;
}

static void say_fault(const char* what, const void* expected) {
  printf("%s: signal %d code %d address %p at %s, seen %d\n", what, seen_signal, seen_code,
         seen_signal == SIGSEGV || seen_signal == SIGBUS ? seen_address : NULL,
         seen_rip == (uint64_t)expected ? "place" : "ELSEWHERE", (int)seen);
}

static void faults(void) {
  install(SIGSEGV, on_fault, 0);
  install(SIGBUS, on_fault, SA_NODEFER);
  install(SIGFPE, on_fault, 0);
  for (int i = 0; i < 100; ++i) {
    touch((void*)8);
    quotient(7, 0);
    hit_a();
  }
  say_fault("divide", divide);
  touch((void*)16);
  say_fault("load", fault_load);
  FILE* file = tmpfile();
  char* page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fileno(file), 0);
  touch(page);
  seen_address = (void*)((uint64_t)seen_address & 4095);
  say_fault("beyond the file", fault_load);
  printf("non-canonical\n");
  touch((void*)0x8000000000000000);
  say_fault("non-canonical", fault_load);
}

// --- SIGTRAP of the program's own ---------------------------------------------------------------

static void on_trap(int signal, siginfo_t* info, void* context) {
  seen_signal = signal;
  seen_code = info->si_code;
  seen_rip = rip_of(context);
  ++seen;
  hit_b();
}

static void on_single_step(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)info;
  ++seen;
  ucontext_t* uc = context;
  if (seen >= 20)
    uc->uc_mcontext.gregs[REG_EFL] &= ~0x100;
}

static const char* pending(int signal) {
  sigset_t set;
  sigpending(&set);
  return sigismember(&set, signal) ? "pending" : "not pending";
}

static void traps(void) {
  install(SIGTRAP, on_trap, 0);
  own_int3();
  say_fault("int3", (char*)own_int3 + 1);
  kill(getpid(), SIGTRAP);
  printf("kill: code %d, seen %d\n", seen_code, (int)seen);
  raise(SIGTRAP);
  printf("raise: code %d, seen %d\n", seen_code, (int)seen);
  sigset_t trap, before;
  sigemptyset(&trap);
  sigaddset(&trap, SIGTRAP);
  sigprocmask(SIG_BLOCK, &trap, &before);
  printf("was blocked: %d\n", sigismember(&before, SIGTRAP));
  kill(getpid(), SIGTRAP);
  hit_a();
  printf("blocked: %s, seen %d\n", pending(SIGTRAP), (int)seen);
  sigprocmask(SIG_UNBLOCK, &trap, &before);
  printf("unblocked: %d %s, seen %d\n", sigismember(&before, SIGTRAP), pending(SIGTRAP), (int)seen);

  signal(SIGTRAP, SIG_IGN);
  kill(getpid(), SIGTRAP);
  hit_a();
  printf("ignored: seen %d\n", (int)seen);

  seen = 0;
  install(SIGTRAP, on_single_step, 0);
  __asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq\n\t"
                   ".rept 30\n\tnop\n\t.endr" ::
                       : "cc", "memory");
  hit_a();
  printf("own steps: %d\n", (int)seen);
}

static void trap_waits(void) {
  install(SIGTRAP, on_trap, 0);
  sigset_t trap, before;
  sigemptyset(&trap);
  sigaddset(&trap, SIGTRAP);
  sigprocmask(SIG_BLOCK, &trap, &before);
  siginfo_t info;
  struct timespec soon = {0, 1000000};
  int got = sigtimedwait(&trap, &info, &soon);
  printf("sigtimedwait: %d %s\n", got, strerror(errno));
  hit_a();
  sigqueue(getpid(), SIGTRAP, (union sigval){.sival_int = 5});
  hit_a();
  got = sigtimedwait(&trap, &info, &soon);
  printf("sigtimedwait: %d code %d value %d\n", got, info.si_code, info.si_value.sival_int);
  raise(SIGTRAP);
  got = sigwaitinfo(&trap, &info);
  printf("sigwaitinfo: %d code %d, seen %d\n", got, info.si_code, (int)seen);

  // The signal comes while it waits.
  pid_t child = send_to_sleeper(SIGTRAP);
  got = sigwaitinfo(&trap, &info);
  printf("sigwaitinfo, late: %d from %s\n", got, info.si_pid == child ? "the child" : "ELSEWHERE");
  waitpid(child, NULL, 0);

  // A call that it does not concern goes on.
  child = fork();
  if (child == 0) {
    wait_until_asleep(getppid());
    kill(getppid(), SIGTRAP);
    usleep(30000); // for the call to be ended, if it is
    _exit(0);
  }
  const pid_t ended = waitpid(child, NULL, 0);
  printf("waitpid: %s, %s\n", ended == child ? "done" : strerror(errno), pending(SIGTRAP));
}

static void after_masked(const char* name, int got) {
  printf("%s: %d %s, seen %d, %s\n", name, got, got < 0 ? strerror(errno) : "", (int)seen,
         pending(SIGTRAP));
  hit_a();
}
// The waits that change the mask let in what is pending, when there is nothing else to tell.
static void trap_masks(void) {
  install(SIGTRAP, on_trap, 0);
  sigset_t trap;
  sigemptyset(&trap);
  sigaddset(&trap, SIGTRAP);
  sigprocmask(SIG_BLOCK, &trap, NULL);
  raise(SIGTRAP);
  sigset_t none;
  sigemptyset(&none);
  int got = sigsuspend(&none);
  printf("sigsuspend: %d %s, seen %d\n", got, strerror(errno), (int)seen);
  struct pollfd nothing = {-1, 0, 0};
  struct timespec second = {1, 0}, no_time = {0, 0};
  int ends[2];
  if (pipe(ends) || write(ends[1], "x", 1) != 1)
    perror("pipe");
  struct pollfd ready = {ends[0], POLLIN, 0};
  const int empty = epoll_create1(EPOLL_CLOEXEC), full = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN, .data.u32 = 7};
  epoll_ctl(full, EPOLL_CTL_ADD, ends[0], &event);
  for (int timed = 0; timed < 2; ++timed) {
    const struct timespec* time = timed ? &second : &no_time;
    raise(SIGTRAP);
    after_masked("ppoll", ppoll(&nothing, 1, time, &none));
    raise(SIGTRAP);
    after_masked("ppoll, ready", ppoll(&ready, 1, time, &none));
    after_masked("ppoll, bad", (int)syscall(SYS_ppoll, 8, 1, time, &none, 8));
    after_masked("ppoll, generic", (int)syscall(SYS_ppoll, &nothing, 1, &second, &none, 8));
    raise(SIGTRAP);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(ends[1], &set);
    after_masked("pselect", pselect(ends[1] + 1, &set, NULL, NULL, time, &none));
    printf("the set is %s\n", FD_ISSET(ends[1], &set) ? "as it was" : "empty");
    FD_SET(ends[0], &set);
    raise(SIGTRAP);
    after_masked("pselect, ready", pselect(ends[1] + 1, &set, NULL, NULL, time, &none));
    printf("the set is %s\n", FD_ISSET(ends[1], &set) ? "as it was" : "smaller");
    after_masked("epoll_pwait, ready", epoll_pwait(full, &event, 1, 1000 * timed, &none));
    after_masked("epoll_pwait", epoll_pwait(empty, &event, 1, 1000 * timed, &none));
    raise(SIGTRAP);
    after_masked("epoll_pwait2", (int)syscall(441, empty, &event, 1, time, &none, 8));
    sigprocmask(SIG_UNBLOCK, &trap, NULL);
    sigprocmask(SIG_BLOCK, &trap, NULL);
    after_masked("unblocked", 0);
  }
  signal(SIGTRAP, SIG_IGN); // pends all the same, and then is nothing
  raise(SIGTRAP);
  struct timespec soon = {0, 1000000};
  after_masked("ppoll, ignored", ppoll(&nothing, 1, &soon, &none));
}

static sigset_t mask_in_handler;
static void on_mask(int signal) {
  seen = signal;
  sigprocmask(SIG_BLOCK, NULL, &mask_in_handler);
}
static void after_wait(const char* name, int got) {
  printf("%s: %d %s, seen %d, blocked in the handler:", name, got, got < 0 ? strerror(errno) : "",
         (int)seen);
  for (int signal = 1; signal < 32; ++signal)
    if (sigismember(&mask_in_handler, signal))
      printf(" %d", signal);
  sigset_t now;
  sigprocmask(SIG_BLOCK, NULL, &now);
  printf(", afterwards:");
  for (int signal = 1; signal < 32; ++signal)
    if (sigismember(&now, signal))
      printf(" %d", signal);
  printf("\n");
  seen = 0;
  waitpid(-1, NULL, 0);
}
// What comes while a call waits with a mask of its own: the handler runs with that mask.
static void wait_masks(void) {
  signal(SIGTRAP, on_mask);
  signal(SIGUSR1, on_mask);
  sigset_t blocked, open;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTRAP);
  sigaddset(&blocked, SIGUSR1);
  sigaddset(&blocked, SIGHUP);
  sigprocmask(SIG_BLOCK, &blocked, NULL);
  sigemptyset(&open);
  sigaddset(&open, SIGALRM);
  struct timespec long_enough = {60, 0};
  const int signals[] = {SIGUSR1, SIGTRAP};
  for (int i = 0; i < 2; ++i) {
    send_to_sleeper(signals[i]);
    after_wait("sigsuspend", sigsuspend(&open));
    hit_a();
    send_to_sleeper(signals[i]);
    after_wait("ppoll", ppoll(NULL, 0, &long_enough, &open));
    hit_a();
    send_to_sleeper(signals[i]);
    after_wait("pselect", pselect(0, NULL, NULL, NULL, &long_enough, &open));
    hit_a();
    struct epoll_event event;
    int fd = epoll_create1(EPOLL_CLOEXEC);
    send_to_sleeper(signals[i]);
    after_wait("epoll_pwait", epoll_pwait(fd, &event, 1, 60000, &open));
    close(fd);
  }
  raise(SIGTRAP); // pends, and the wait lets it in
  int got = sigsuspend(&open);
  printf("sigsuspend, pending: %d %s, seen %d\n", got, strerror(errno), (int)seen);
}

// --- Signals for the process --------------------------------------------------------------------

static volatile int taken_by_other;
static pid_t other_tid;
static sem_t other_ready, other_may;
static void on_trap_somewhere(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)context;
  seen_code = info->si_code;
  taken_by_other = gettid() == other_tid;
  ++seen;
}
static void say_taken(const char* what) {
  printf("%s: seen %d, code %d, by %s, %s\n", what, (int)seen, seen_code,
         taken_by_other ? "the other" : "the first", pending(SIGTRAP));
}
static void wait_until_seen(int count) {
  while (seen < count)
    sched_yield();
}
// Until the thread is in this system call, or another.
static void wait_until_in_call(long number) {
  char path[64], text[64];
  snprintf(path, sizeof path, "/proc/self/task/%d/syscall", other_tid);
  for (;;) {
    FILE* file = fopen(path, "r");
    if (file && fgets(text, sizeof text, file) && strtol(text, NULL, 10) == number &&
        text[0] != 'r')
      number = -2;
    if (file)
      fclose(file);
    if (number == -2)
      return;
    sched_yield();
  }
}
static void* other_thread(void* unused) {
  (void)unused;
  sigset_t trap, none;
  sigemptyset(&none);
  sigemptyset(&trap);
  sigaddset(&trap, SIGTRAP);
  other_tid = gettid();
  pthread_sigmask(SIG_UNBLOCK, &trap, NULL);
  sem_post(&other_ready);
  sem_wait(&other_may); // open here, and in a call
  pthread_sigmask(SIG_BLOCK, &trap, NULL);
  sem_post(&other_ready);
  sem_wait(&other_may);
  printf("pends here, too: %s\n", pending(SIGTRAP));
  pthread_sigmask(SIG_UNBLOCK, &trap, NULL);
  pthread_sigmask(SIG_BLOCK, &trap, NULL);
  say_taken("unblocked");
  sem_post(&other_ready);
  siginfo_t info;
  int got = sigwaitinfo(&trap, &info);
  printf("sigwaitinfo: %d code %d\n", got, info.si_code);
  sem_post(&other_ready);
  got = sigwaitinfo(&trap, &info);
  printf("sigwaitinfo: %d code %d value %d\n", got, info.si_code, info.si_value.sival_int);
  sem_post(&other_ready);
  got = sigsuspend(&none);
  printf("sigsuspend: %d %s\n", got, strerror(errno));
  say_taken("suspended");
  sem_post(&other_ready);
  sem_wait(&other_may);
  return NULL;
}
static void wait_for(sem_t* semaphore) {
  while (sem_wait(semaphore))
    printf("interrupted\n");
}
static void trap_elsewhere(void) {
  install(SIGTRAP, on_trap_somewhere, SA_RESTART);
  sem_init(&other_ready, 0, 0);
  sem_init(&other_may, 0, 0);
  sigset_t trap;
  sigemptyset(&trap);
  sigaddset(&trap, SIGTRAP);
  sigprocmask(SIG_BLOCK, &trap, NULL);
  pthread_t other;
  pthread_create(&other, NULL, other_thread, NULL);
  wait_for(&other_ready);
  hit_a();
  kill(getpid(), SIGTRAP);
  wait_until_seen(1);
  say_taken("kill");
  // This one does nothing while another process sends it.
  pid_t child = send_to_sleeper(SIGTRAP);
  waitpid(child, NULL, 0);
  wait_until_seen(2);
  say_taken("kill, from a child");
  sem_post(&other_may);
  wait_for(&other_ready);
  raise(SIGTRAP);
  say_taken("raise, for this one");
  siginfo_t info;
  int got = sigwaitinfo(&trap, &info);
  printf("sigwaitinfo: %d code %d\n", got, info.si_code);
  kill(getpid(), SIGTRAP);
  kill(getpid(), SIGTRAP); // merges
  say_taken("blocked everywhere");
  sem_post(&other_may);
  wait_for(&other_ready);
  wait_until_in_call(SYS_rt_sigtimedwait);
  kill(getpid(), SIGTRAP);
  hit_a();
  wait_for(&other_ready); // it is not in the call still, where the next signal would merge
  wait_until_in_call(SYS_rt_sigtimedwait);
  sigqueue(getpid(), SIGTRAP, (union sigval){.sival_int = 5});
  wait_for(&other_ready);
  wait_until_in_call(SYS_rt_sigsuspend);
  kill(getpid(), SIGTRAP);
  wait_for(&other_ready);
  say_taken("at the end");
  sem_post(&other_may);
  pthread_join(other, NULL);
}

static void trap_signalfd(void) {
  sigset_t trap;
  sigemptyset(&trap);
  sigaddset(&trap, SIGTRAP);
  sigprocmask(SIG_BLOCK, &trap, NULL);
  int fd = signalfd(-1, &trap, SFD_CLOEXEC);
  raise(SIGTRAP);
  hit_a();
  struct pollfd readable = {fd, POLLIN, 0};
  int ready = poll(&readable, 1, 1000);
  struct signalfd_siginfo info;
  memset(&info, 0, sizeof info);
  ssize_t got = ready == 1 ? read(fd, &info, sizeof info) : -1;
  printf("signalfd: ready %d, read %zd, signal %u\n", ready, got, info.ssi_signo);
}

// --- Masks --------------------------------------------------------------------------------------

static void all_blocked(void) {
  sigset_t all, before, now;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);
  for (int i = 0; i < 1000; ++i)
    hit_a();
  sigprocmask(SIG_SETMASK, NULL, &now);
  int blocked = 0;
  for (int i = 1; i < 65; ++i)
    blocked += sigismember(&now, i) == 1;
  sigprocmask(SIG_SETMASK, &before, NULL);
  hit_a();
  printf("blocked %d\n", blocked);
}

// --- Alternate stacks ---------------------------------------------------------------------------

static volatile uint64_t stack_low, stack_high;
static volatile int on_stack_flags, handler_runs_there;
static void on_tiny(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)info, (void)context;
  char here;
  ++seen;
  hit_b();
  handler_runs_there = (uint64_t)&here >= stack_low && (uint64_t)&here < stack_high;
  stack_t now;
  sigaltstack(NULL, &now);
  on_stack_flags = now.ss_flags;
}

static void alternate_stacks(void) {
  // As small as this machine allows, plus what the handler itself uses.
  const size_t small = getauxval(51 /* AT_MINSIGSTKSZ */) + 512;
  char* memory = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  stack_t stack = {.ss_sp = memory + 65536 - small, .ss_size = small};
  printf("sigaltstack: %d\n", sigaltstack(&stack, NULL));
  stack_low = (uint64_t)stack.ss_sp, stack_high = stack_low + small;
  install(SIGUSR1, on_tiny, SA_ONSTACK);
  for (int i = 0; i < 100; ++i) {
    raise(SIGUSR1);
    hit_a();
  }
  printf("small: seen %d there %d flags %d\n", (int)seen, handler_runs_there, on_stack_flags);
  stack_t now;
  sigaltstack(NULL, &now);
  printf("kept: %d %d\n", now.ss_sp == stack.ss_sp, now.ss_flags);
  stack.ss_flags = (int)(1u << 31); // SS_AUTODISARM
  printf("autodisarm: %d\n", sigaltstack(&stack, NULL));
  raise(SIGUSR1);
  printf("autodisarm: seen %d there %d flags %#x\n", (int)seen, handler_runs_there,
         (unsigned)on_stack_flags);
  sigaltstack(NULL, &now);
  printf("armed again: %d %#x\n", now.ss_sp == stack.ss_sp, (unsigned)now.ss_flags);
  stack.ss_flags = 0;
  stack.ss_size = 100;
  errno = 0;
  int refused = sigaltstack(&stack, NULL);
  printf("too small: %d %s\n", refused, strerror(errno));
  stack.ss_flags = SS_DISABLE;
  printf("disable: %d\n", sigaltstack(&stack, NULL));
  raise(SIGUSR1);
  printf("disabled: seen %d there %d flags %d\n", (int)seen, handler_runs_there, on_stack_flags);
}

// --- Leaving handlers by other ways -------------------------------------------------------------

static sigjmp_buf jump;
static void on_jump(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)info, (void)context;
  ++seen;
  hit_b();
  siglongjmp(jump, 1);
}

#ifdef __GLIBC__ // musl has no contexts
static ucontext_t main_context, other_context;
static void on_swap(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)info, (void)context;
  ++seen;
  hit_b();
  swapcontext(&other_context, &main_context);
  hit_b();
}

static char coroutine_stack[65536];
static volatile int coroutine_done;
static void coroutine(void) {
  raise(SIGUSR2);
  hit_a();
  coroutine_done = 1;
}
#endif

static void jumps(void) {
  install(SIGSEGV, on_jump, 0);
  install(SIGUSR1, on_jump, SA_NODEFER);
  for (volatile int i = 0; i < 200; ++i) {
    if (sigsetjmp(jump, 1) == 0)
      touch((void*)8);
    hit_a();
    if (sigsetjmp(jump, 0) == 0)
      raise(SIGUSR1);
  }
  sigset_t now;
  sigprocmask(SIG_SETMASK, NULL, &now);
  printf("jumps: seen %d, SIGSEGV blocked %d, SIGUSR1 blocked %d\n", (int)seen,
         sigismember(&now, SIGSEGV), sigismember(&now, SIGUSR1));
#ifdef __GLIBC__
  install(SIGUSR2, on_swap, 0);
  ucontext_t make;
  getcontext(&make);
  make.uc_stack.ss_sp = coroutine_stack;
  make.uc_stack.ss_size = sizeof coroutine_stack;
  make.uc_link = NULL;
  static ucontext_t linked;
  make.uc_link = &linked;
  makecontext(&make, coroutine, 0);
  swapcontext(&main_context, &make); // comes back out of the handler
  printf("out of the handler: done %d\n", coroutine_done);
  getcontext(&linked);
  if (!coroutine_done)
    setcontext(&other_context); // into the handler again
  printf("done %d, seen %d\n", coroutine_done, (int)seen);
#endif
}

// --- Flags --------------------------------------------------------------------------------------

static volatile int depth, deepest;
static void on_nested(int signal, siginfo_t* info, void* context) {
  (void)info, (void)context;
  ++seen;
  if (++depth > deepest)
    deepest = depth;
  hit_b();
  if (seen < 5)
    raise(signal);
  --depth;
}

static void* interrupter(void* thread) {
  for (int i = 0; i < 20; ++i) {
    wait_until_asleep(getpid()); // the first thread's state
    pthread_kill(*(pthread_t*)thread, SIGUSR1);
    while (seen <= i)
      sched_yield();
  }
  if (write(seen_code, "x", 1) != 1)
    perror("write");
  return NULL;
}

static void flags(void) {
  install(SIGUSR1, on_nested, SA_NODEFER);
  raise(SIGUSR1);
  printf("nodefer: seen %d deepest %d\n", (int)seen, deepest);
  seen = depth = deepest = 0;
  install(SIGUSR1, on_nested, 0);
  raise(SIGUSR1);
  printf("defer: seen %d deepest %d\n", (int)seen, deepest);
  install(SIGUSR1, on_tiny, (int)SA_RESETHAND);
  raise(SIGUSR1);
  struct sigaction now;
  sigaction(SIGUSR1, NULL, &now);
  printf("resethand: default again %d flags %#x\n", now.sa_handler == SIG_DFL,
         (unsigned)now.sa_flags & ~0x04000000u);
  for (int restart = 0; restart < 2; ++restart) {
    install(SIGUSR1, on_tiny, restart ? SA_RESTART : 0);
    seen = 0;
    int ends[2];
    if (pipe(ends))
      perror("pipe");
    seen_code = ends[1];
    pthread_t self = pthread_self(), other;
    pthread_create(&other, NULL, interrupter, &self);
    char byte = 0;
    ssize_t got = read(ends[0], &byte, 1);
    printf("restart %d: read %zd %s\n", restart, got, got < 0 ? strerror(errno) : "");
    pthread_join(other, NULL);
    printf("seen %d\n", (int)seen);
  }
}

static void die_segv(void) { touch((void*)8); }
static void die_abort(void) { abort(); }
static void die_trap(void) { own_int3(); }
static void die_kill_trap(void) { kill(getpid(), SIGTRAP); }
static void die_term(void) { raise(SIGTERM); }
static void die_rt(void) { raise(62); }
static void die_fpe_blocked(void) {
  sigset_t all;
  sigfillset(&all);
  install(SIGFPE, on_fault, 0);
  sigprocmask(SIG_BLOCK, &all, NULL);
  quotient(1, 0);
}
static void die_segv_ignored(void) {
  signal(SIGSEGV, SIG_IGN);
  touch((void*)8);
}
static void die_in_handler(void) {
  install(SIGUSR1, on_nested, 0);
  stack_t stack = {.ss_sp = big_stack, .ss_size = 4096};
  sigaltstack(&stack, NULL);
  install(SIGUSR1, (void (*)(int, siginfo_t*, void*))die_segv, SA_ONSTACK);
  raise(SIGUSR1);
}
static void die_stack_overflow_frame(void) { // no room for the handler's frame
  install(SIGUSR1, on_tiny, SA_ONSTACK);
  char* none = mmap(NULL, 65536, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  stack_t stack = {.ss_sp = none, .ss_size = 65536};
  sigaltstack(&stack, NULL);
  raise(SIGUSR1);
}

static void real_time(void) {
  install(SIGRTMAX, on_trap, 0);
  install(62, on_trap, 0);
  install(SIGRTMIN, on_trap, 0);
  raise(SIGRTMAX);
  raise(SIGRTMIN);
  raise(62);
  hit_a();
  printf("rt: seen %d code %d max %d\n", (int)seen, seen_code, SIGRTMAX);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, 62);
  sigprocmask(SIG_BLOCK, &set, NULL);
  for (int i = 0; i < 5; ++i)
    sigqueue(getpid(), 62, (union sigval){.sival_int = i});
  for (int i = 0; i < 5; ++i) {
    siginfo_t info;
    int got = sigwaitinfo(&set, &info);
    printf("queued: %d %d\n", got, info.si_value.sival_int);
  }
}

static const struct {
  const char* name;
  void (*run)(void);
} cases[] = {
    {"storm", storm},
    {"storm_on_altstack", storm_on_altstack},
    {"faults", faults},
    {"traps", traps},
    {"trap_waits", trap_waits},
    {"trap_masks", trap_masks},
    {"trap_elsewhere", trap_elsewhere},
    {"wait_masks", wait_masks},
    {"trap_signalfd", trap_signalfd},
    {"all_blocked", all_blocked},
    {"alternate_stacks", alternate_stacks},
    {"jumps", jumps},
    {"flags", flags},
    {"real_time", real_time},
    {"die_segv", die_segv},
    {"die_abort", die_abort},
    {"die_trap", die_trap},
    {"die_kill_trap", die_kill_trap},
    {"die_term", die_term},
    {"die_rt", die_rt},
    {"die_fpe_blocked", die_fpe_blocked},
    {"die_segv_ignored", die_segv_ignored},
    {"die_in_handler", die_in_handler},
    {"die_stack_overflow_frame", die_stack_overflow_frame},
};

int main(int argc, char** argv) {
  setvbuf(stdout, NULL, _IONBF, 0);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i)
    if (argc > 1 && strcmp(argv[1], cases[i].name) == 0) {
      cases[i].run();
      finish_line();
      return 3;
    }
  return 100;
}
