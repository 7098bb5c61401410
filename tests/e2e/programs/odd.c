// A program for odd_processes_test.py: odd MODE. Goes on until its standard input ends.
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

volatile long ticks, births, continued;

void tick(void) { ticks++; }

static void on_continue(int signal) {
  (void)signal;
  continued++;
}

static void* spinning(void* unused) {
  for (;;)
    tick();
  return unused;
}

static void* short_lived(void* unused) {
  births++;
  return unused;
}

// From here on a call that is not in the list is answered by `action`.
static void confine(unsigned action, const int* allowed, size_t count) {
  struct sock_filter filter[32] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0)};
  for (size_t i = 0; i < count; ++i)
    filter[i + 1] =
        (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)allowed[i], (unsigned char)(count - i), 0);
  filter[count + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action);
  filter[count + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  struct sock_fprog program = {(unsigned short)(count + 3), filter};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
    abort();
}

static void confine_as(const char* mode) {
  // The last are what a debugger inside needs.
  static const int calls[] = {SYS_read, SYS_write, SYS_poll, SYS_exit, SYS_exit_group, SYS_restart_syscall,
                              SYS_rt_sigreturn, SYS_futex, SYS_sigaltstack, SYS_rt_sigprocmask};
  const size_t count = strstr(mode, "open") ? 10 : 6;
  if (strstr(mode, "kill"))
    confine(SECCOMP_RET_KILL_PROCESS, calls, count);
  if (strstr(mode, "trap"))
    confine(SECCOMP_RET_TRAP, calls, count);
  if (strstr(mode, "errno"))
    confine(SECCOMP_RET_ERRNO | EPERM, calls, count);
  if (strstr(mode, "strict")) {
    char c;
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
    write(STDOUT_FILENO, "started\n", 8);
    while (read(STDIN_FILENO, &c, 1) > 0 && c != '\n')
      ;
    syscall(SYS_exit, 3);
  }
}

int main(int argc, char** argv) {
  const char* mode = argc > 1 ? argv[1] : "";
  pthread_t thread;
  setvbuf(stdout, NULL, _IONBF, 0); // memory for a buffer is no call that the filters allow
  signal(SIGCONT, strstr(mode, "handler") ? on_continue : SIG_DFL);
  if (strstr(mode, "spin"))
    pthread_create(&thread, NULL, spinning, NULL);
  if (strstr(mode, "protected"))
    prctl(PR_SET_DUMPABLE, 0);
  confine_as(mode);
  puts("started");
  if (strstr(mode, "leave"))
    pthread_exit(NULL);
  tick();
  struct pollfd input = {STDIN_FILENO, POLLIN, 0};
  while (poll(&input, 1, 1) <= 0) {
    tick();
    if (strstr(mode, "births") && pthread_create(&thread, NULL, short_lived, NULL) == 0)
      pthread_join(thread, NULL);
  }
  puts("ended");
  return 3;
}
