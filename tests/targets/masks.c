// masks ROUNDS: threads that change their signal masks all the time by an inline system call, and
// make others by a generic one, under a storm of signals, and look at every register each time;
// forked children do the same.
#define _GNU_SOURCE
#include "hits.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long rounds;
static atomic_long errors, handled, calls;
static atomic_int running;

// A system call with a known value in every register that one keeps; true if one of them, or a
// flag, or the red zone, is another one afterwards. The fourth argument of the call is 8.
#define CHECKED_CALL(NAME, LABEL, NUMBER, LAST)                                                    \
  __asm__(".text\n"                                                                                \
          ".globl " #NAME "\n"                                                                     \
          ".type " #NAME ", @function\n" #NAME ":\n"                                               \
          "  push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"                   \
          "  push %rcx\n" /* result */                                                             \
          "  mov $0x1111111111111111, %rbx; mov $0x2222222222222222, %rbp\n"                       \
          "  mov $0x3333333333333333, %r12; mov $0x4444444444444444, %r13\n"                       \
          "  mov %rdi, %r14; mov %rsi, %r15; mov %rdx, %r9\n"                                      \
          "  " NUMBER "\n"                                                                         \
          "  mov $0x5555, %r8d; movq %rbx, %xmm7\n"                                                \
          "  movq $0x6666, -8(%rsp); movq $0x7777, -128(%rsp)\n"                                   \
          "  mov $8, %r10d\n"                                                                      \
          "  stc\n"                                                                                \
          ".globl " LABEL "_mov\n" LABEL "_mov:\n"                                                 \
          "  " LAST "\n"                                                                           \
          ".globl " LABEL "_syscall\n" LABEL "_syscall:\n"                                         \
          "  syscall\n"                                                                            \
          ".globl " LABEL "_after\n" LABEL "_after:\n"                                             \
          "  jnc 1f\n"                                                                             \
          "  cmpq $0x6666, -8(%rsp); jne 1f\n"                                                     \
          "  cmpq $0x7777, -128(%rsp); jne 1f\n"                                                   \
          "  cmp $0x5555, %r8; jne 1f\n"                                                           \
          "  cmp $8, %r10; jne 1f\n"                                                               \
          "  cmp %rdi, %r14; jne 1f\n"                                                             \
          "  cmp %rsi, %r15; jne 1f\n"                                                             \
          "  cmp %rdx, %r9; jne 1f\n"                                                              \
          "  lea " LABEL "_after(%rip), %r8; cmp %r8, %rcx; jne 1f\n"                              \
          "  mov $0x1111111111111111, %r8; cmp %r8, %rbx; jne 1f\n"                                \
          "  movq %xmm7, %r8; cmp %r8, %rbx; jne 1f\n"                                             \
          "  mov $0x2222222222222222, %r8; cmp %r8, %rbp; jne 1f\n"                                \
          "  mov $0x3333333333333333, %r8; cmp %r8, %r12; jne 1f\n"                                \
          "  mov $0x4444444444444444, %r8; cmp %r8, %r13; jne 1f\n"                                \
          "  xor %ecx, %ecx; jmp 2f\n"                                                             \
          "1: mov $1, %ecx\n"                                                                      \
          "2: pop %rdx; mov %rax, (%rdx); mov %rcx, %rax\n"                                        \
          "  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"                         \
          "  ret\n"                                                                                \
          ".size " #NAME ", . - " #NAME "\n")

// rt_sigprocmask(how, set, old, 8).
long change_mask(long how, const void* set, void* old, long* result);
CHECKED_CALL(change_mask, "masks", "", "mov $14, %eax");
// Any call, as Go makes it: the `syscall` after an instruction of three bytes.
long generic_call(long a, const void* b, void* c, long* result, long number);
CHECKED_CALL(generic_call, "generic", "mov %r8, %rax; xor %edi, %edi", "mov %r14, %rdi");

static void handler(int signal) {
  (void)signal;
  atomic_fetch_add(&handled, 1);
}

static void one_round(void) {
  const uint64_t usr1 = 1 << (SIGUSR1 - 1), trap = 1 << (SIGTRAP - 1);
  const uint64_t block = usr1 | trap;
  uint64_t before, now;
  long result;
  errors += change_mask(SIG_BLOCK, &block, &before, &result) || result || (before & block);
  errors += change_mask(SIG_SETMASK, &before, &now, &result) || result || now != (before | block);
  errors += change_mask(SIG_BLOCK, NULL, &now, &result) || result || now != before;
  errors += change_mask(17, &block, NULL, &result) || result != -22;              // EINVAL
  errors += change_mask(SIG_BLOCK, (uint64_t*)8, NULL, &result) || result != -14; // EFAULT
  calls += 5;
  // The same by a call whose number is not in sight, and others by it.
  errors += syscall(SYS_rt_sigprocmask, SIG_BLOCK, &block, &now, 8) || now != before;
  errors += syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, &now, 8) || now != (before | block);
  errors += syscall(SYS_getpid) != getpid();
  errors += syscall(SYS_read, -1, NULL, 0) != -1 || errno != EBADF;
  const struct timespec moment = {0, 1000}; // the storm may well end it
  errors += syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &moment, NULL) != 0 && errno != EINTR;
  const long mask = SYS_rt_sigprocmask;
  errors += generic_call(SIG_BLOCK, &block, &now, &result, mask) || result || now != before;
  errors += generic_call(SIG_SETMASK, &before, NULL, &result, mask) || result;
  errors += generic_call(0, NULL, NULL, &result, SYS_getpid) || result != getpid();
  errors += generic_call(-1, NULL, NULL, &result, SYS_read) || result != -EBADF;
  errors += generic_call(-1, "/", NULL, &result, SYS_faccessat) || result != 0; // 256 + 13
  counted_b += 5;
}

static void* work(void* unused) {
  for (long i = 0; i < rounds; ++i) {
    one_round();
    if (i % (rounds / 4) == 0) {
      const pid_t child = fork();
      if (child == 0) {
        errors = 0;
        for (int n = 0; n < 20; ++n)
          one_round();
        _exit(errors == 0 ? 7 : 8);
      }
      int status;
      errors +=
          waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 7;
    }
  }
  running--;
  return unused;
}

// A byte there and back, over and over: reads that wait, and are interrupted meanwhile.
static int there[2], back[2];
static void* play(void* serves) {
  for (long i = 0; i < rounds; ++i) {
    char byte = (char)i;
    long result;
    if (serves)
      errors += generic_call(there[1], &byte, (void*)1, &result, SYS_write) || result != 1;
    byte = 0;
    errors += generic_call(serves ? back[0] : there[0], &byte, (void*)1, &result, SYS_read) ||
              result != 1 || byte != (char)i;
    if (!serves)
      errors += generic_call(back[1], &byte, (void*)1, &result, SYS_write) || result != 1;
    counted_b += 2;
  }
  running--;
  return NULL;
}

static void* storm(void* threads) {
  while (running > 0)
    for (int i = 0; i < 4; ++i)
      pthread_kill(((pthread_t*)threads)[i], SIGUSR1);
  return NULL;
}

int main(int argc, char** argv) {
  rounds = argc > 1 ? atol(argv[1]) : 1000;
  struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
  sigaction(SIGUSR1, &action, NULL);
  sigaction(SIGALRM, &action, NULL);
  const struct itimerval often = {{0, 300}, {0, 300}};
  setitimer(ITIMER_REAL, &often, NULL);
  errors += pipe(there) || pipe(back);
  running = 4;
  pthread_t threads[4], sender;
  for (int i = 0; i < 4; ++i)
    pthread_create(&threads[i], NULL, i < 2 ? work : play, i == 2 ? &running : NULL);
  pthread_create(&sender, NULL, storm, threads);
  pthread_join(sender, NULL);
  for (int i = 0; i < 4; ++i)
    pthread_join(threads[i], NULL);
  counted_a = calls;
  finish_line();
  printf("errors %ld, signals %s, calls %ld\n", errors, handled ? "came" : "none", calls);
  return 0;
}
