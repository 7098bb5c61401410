// calls mask|number|generic ROUNDS: system calls that the agent has to see, or may have to, timed
// by themselves. mask: sigprocmask; number: libc's syscall(), whose number is not in sight;
// generic: the same as Go has it, behind a short instruction.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

__attribute__((noinline, noclone)) long generic(long number, long a) {
  long result;
  __asm__ volatile("mov %%rbx, %%rdi; syscall"
                   : "=a"(result)
                   : "a"(number), "b"(a)
                   : "rdi", "rcx", "r11", "memory");
  return result;
}

int main(int argc, char** argv) {
  const long rounds = argc > 2 ? atol(argv[2]) : 100000;
  const char* const kind = argc > 1 ? argv[1] : "number";
  const int mask = strcmp(kind, "mask") == 0, by_generic = strcmp(kind, "generic") == 0;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  const double begin = now();
  for (long i = 0; i < rounds; ++i)
    if (mask)
      sigprocmask(i % 2 ? SIG_UNBLOCK : SIG_BLOCK, &set, NULL);
    else if (by_generic)
      generic(SYS_getppid, 0);
    else
      syscall(SYS_getppid);
  printf("%.2f ns a round\n", (now() - begin) / (double)rounds);
  return 0;
}
