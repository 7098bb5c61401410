// A program for confined_test.py: confined WORD... confines itself to what it uses, and works. Its output and its end are the
// same with and without a debugger.
#define _GNU_SOURCE
#include "say.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

volatile long total, turns;
int main(int, char**);

void work(long i) { total += i; }

void turn(void) { turns++; }

static void* turning(void* started) {
  pthread_barrier_wait(started);
  for (;;)
    turn();
  return NULL;
}

static char** words;

static int has(const char* word) {
  for (char** w = words; *w; ++w)
    if (strcmp(*w, word) == 0)
      return 1;
  return 0;
}

// Calls in the ways that a debugger deals with differently: by libc's wrapper, with the number not in sight, from a place that has
// a breakpoint perhaps, by what makes processes.
static long by_wrapper(void) { return getppid(); }
static long by_number(void) { return syscall(SYS_getppid); }
static long by_hand(void) {
  long result = SYS_getppid;
  __asm__ volatile("nop; syscall; nop" : "+a"(result) : : "rcx", "r11", "memory");
  if (result >= 0)
    return result;
  errno = (int)-result;
  return -1;
}
static long by_fork(void) { return syscall(SYS_fork); }
static long by_vfork(void) { return syscall(SYS_vfork); }
static int nothing(void* unused) { return unused != NULL; }
static long by_clone(void) {
  static char stack[65536];
  return clone(nothing, stack + sizeof stack, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD, NULL);
}
static long by_mask(void) { return sigprocmask(SIG_BLOCK, NULL, NULL); }
static long by_exec(void) { return execve("/bin/true", words, NULL); }

static const struct {
  const char* name;
  long (*call)(void);
} calls[] = {{"wrapper", by_wrapper}, {"number", by_number}, {"hand", by_hand},
             {"fork", by_fork},          {"vfork", by_vfork},     {"clone", by_clone},
             {"exec", by_exec},        {"mask", by_mask}};

static void on_refusal(int signal, siginfo_t* info, void* context) {
  ucontext_t* uc = context;
  greg_t* r = uc->uc_mcontext.gregs;
  const unsigned char* behind = info->si_call_addr;
  say("signal %d code %d call %d arch %d at %d rax %d rcx %d mask %d\n", signal, info->si_code, info->si_syscall,
      info->si_arch == AUDIT_ARCH_X86_64, behind == (void*)r[REG_RIP], (int)r[REG_RAX], behind == (void*)r[REG_RCX],
      sigismember(&uc->uc_sigmask, SIGSYS));
  // With a breakpoint on it the call is none that shows.
  say("from %#lx\n", (unsigned long)((char*)behind - (has("wrapper") ? (char*)getppid : has("number") || has("fork") || has("vfork") ? (char*)syscall
                                     : has("clone") ? (char*)clone : has("exec") ? (char*)execve : (char*)main)));
  r[REG_RAX] = -EXDEV;
}

static int install(struct sock_fprog* program) {
  const unsigned long tsync = has("tsync") ? SECCOMP_FILTER_FLAG_TSYNC : 0;
  if (has("seccomp") || has("tsync"))
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, tsync, program);
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program);
}

// What a debugger inside needs, and the next image does not.
static void forbid_and_execute(char* file) {
  static const int calls[] = {SYS_sigaltstack, SYS_rt_sigprocmask, SYS_memfd_create, SYS_madvise, SYS_gettid};
  struct sock_filter filter[16] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
  unsigned n = 1;
  for (size_t i = 0; i < sizeof calls / sizeof *calls; ++i) {
    filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i], 0, 1);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  }
  filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (install(&(struct sock_fprog){(unsigned short)n, filter}) == 0)
    execl(file, file, NULL);
  abort();
}

static int confine(void) {
  static const int base[] = {SYS_read, SYS_write, SYS_poll, SYS_exit_group, SYS_seccomp, SYS_prctl};
  struct sock_filter filter[64] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
  unsigned n = 1;
  const unsigned refusal = has("trap")     ? SECCOMP_RET_TRAP
                           : has("errno")  ? SECCOMP_RET_ERRNO | EXDEV
                           : has("thread") ? SECCOMP_RET_KILL_THREAD
                                           : SECCOMP_RET_KILL_PROCESS;
  if (has("strict"))
    return has("seccomp") ? (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, NULL) : prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
  for (size_t i = 0; i < sizeof base / sizeof *base; ++i) {
    filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)base[i], 0, 1);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  }
  if (has("trap")) {
    filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 0, 1);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  }
  filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, refusal);
  struct sock_fprog program = {(unsigned short)n, filter};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  return install(&program);
}

// What the kernel says to it is the same.
static void misuse(void) {
  struct sock_filter allow[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)}, bad[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0)};
  static struct sock_filter many[BPF_MAXINSNS + 1];
  for (size_t i = 0; i <= BPF_MAXINSNS; ++i)
    many[i] = *allow;
  struct sock_fprog none = {0, allow}, broken = {1, bad}, nowhere = {1, (void*)8}, too_many = {BPF_MAXINSNS + 1, many};
  struct sock_fprog* const programs[] = {&none, &broken, &nowhere, &too_many, NULL, (void*)8};
  if (geteuid() != 0) // root needs no promise
    say("without a promise: %d", install(&(struct sock_fprog){1, allow})), say(" %d\n", errno);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  for (size_t i = 0; i < sizeof programs / sizeof *programs; ++i) {
    errno = 0;
    const int result = install(programs[i]);
    say("misuse %zu: %d %d\n", i, result, errno);
  }
  say("flags: %d", (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 1u << 31, &broken)), say(" %d\n", errno);
  say("strict: %d", (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 1, NULL)), say(" %d\n", errno);
  struct sock_fprog most = {BPF_MAXINSNS - 64, many};
  say("most: %d\n", install(&most));
  const int listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &(struct sock_fprog){1, allow});
  say("listener: %d\n", listener >= 0);
  say("strict behind it: %d", prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)), say(" %d\n", errno);
}

int main(int argc, char** argv) {
  words = argv + 1;
  pthread_barrier_t started;
  pthread_t thread;
  (void)argc;
  struct sigaction action = {.sa_sigaction = on_refusal, .sa_flags = SA_SIGINFO};
  if (has("trap"))
    sigaction(SIGSYS, &action, NULL);
  if (has("tsync")) {
    pthread_barrier_init(&started, NULL, 3);
    for (int i = 0; i < 2; ++i)
      if (pthread_create(&thread, NULL, turning, &started) != 0)
        return 1;
    pthread_barrier_wait(&started);
  }
  if (has("first")) { // a debugger can attach
    char c;
    say("started\n");
    if (read(STDIN_FILENO, &c, 1) != 1)
      return 1;
  }
  if (has("misuse"))
    misuse();
  if (has("execute"))
    forbid_and_execute(argv[0]);
  say("confined: %d\n", confine());
  if (has("twice"))
    say("confined: %d\n", confine());
  for (long i = 0; i < 4000; ++i)
    work(i);
  struct pollfd input = {STDIN_FILENO, POLLIN, 0};
  while (has("wait") && !has("strict") && poll(&input, 1, has("sleep") ? 1000000 : 1) <= 0)
    work(0);
  char c;
  while (has("wait") && has("strict") && read(STDIN_FILENO, &c, 1) > 0 && c != '\n')
    work(0);
  for (size_t i = 0; i < sizeof calls / sizeof *calls; ++i)
    if (has(calls[i].name)) {
      errno = 0;
      const long result = calls[i].call();
      say("%s: %ld %d\n", calls[i].name, result, errno);
    }
  say("total %ld\n", total);
  if (has("strict"))
    syscall(SYS_exit, 3);
  _exit(3);
}
