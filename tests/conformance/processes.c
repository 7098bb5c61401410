// Processes: fork, vfork, posix_spawn, execve and what is inherited by them, and how a parent
// learns of the end. New images are this program's own, with `--as ROLE`, which conformance.c hands
// to `role`.
#include "conformance.h"

#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>

extern char** environ;
static char self[] = "/proc/self/exe";

// --- fork ---------------------------------------------------------------------------------------
static void fork_answers(void) {
  pid_t parent = getpid();
  int ends[2];
  CHECK(pipe2(ends, O_CLOEXEC) == 0);
  pid_t child = fork();
  if (child == 0) {
    pid_t ids[3] = {getpid(), getppid(), own_tid()};
    _exit(write(ends[1], ids, sizeof ids) != sizeof ids);
  }
  pid_t ids[3];
  CHECK(read(ends[0], ids, sizeof ids) == sizeof ids);
  CHECK(ids[0] == child && ids[1] == parent && ids[2] == child);
  CHECK(status_of(child) == 0);
  close(ends[0]), close(ends[1]);
}
static void forked_by_the_old_call(void) {
  pid_t parent = getpid(), child = (pid_t)syscall(SYS_fork);
  if (child == 0)
    syscall(SYS_exit_group, getppid() == parent ? 5 : 6);
  CHECK(child > 0 && status_of(child) == 5 << 8);
}
static void exit_codes(void) {
  const int codes[] = {0, 1, 127, 128, 255};
  for (size_t i = 0; i < sizeof codes / sizeof *codes; ++i) {
    pid_t child = fork();
    if (child == 0)
      _exit(codes[i]);
    int status = status_of(child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == codes[i]);
  }
  pid_t child = fork();
  if (child == 0)
    _exit(0x1234);
  CHECK(status_of(child) == 0x3400);
}
static void deaths_by_signals(void) {
  const int signals[] = {SIGTERM, SIGKILL, SIGUSR1, SIGALRM, SIGRTMIN, SIGRTMAX};
  for (size_t i = 0; i < sizeof signals / sizeof *signals; ++i) {
    pid_t child = fork();
    if (child == 0) {
      raise(signals[i]);
      _exit(0);
    }
    int status = status_of(child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == signals[i] && !WCOREDUMP(status));
  }
}
static void wait_answers(void) {
  CHECK_FAILS(waitpid(-1, NULL, 0), ECHILD);
  CHECK_FAILS(waitpid(getppid(), NULL, 0), ECHILD);
  CHECK_FAILS(waitpid(-1, NULL, 0x100), EINVAL);
  CHECK_FAILS(waitid(P_PID, 0, NULL, 0), EINVAL);
  pid_t child = fork();
  if (child == 0)
    for (;;)
      pause();
  CHECK(waitpid(child, NULL, WNOHANG) == 0);
  int status = 0;
  CHECK(kill(child, SIGSTOP) == 0 && waitpid(child, &status, WUNTRACED) == child);
  CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
  CHECK(kill(child, SIGCONT) == 0 && waitpid(child, &status, WCONTINUED) == child);
  CHECK(WIFCONTINUED(status));
  siginfo_t info;
  CHECK(kill(child, SIGTERM) == 0 && waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT) == 0);
  CHECK(info.si_code == CLD_KILLED && info.si_status == SIGTERM && info.si_pid == child);
  struct rusage usage;
  CHECK(wait4(child, &status, 0, &usage) == child && status == SIGTERM);
}
static void orphans_of_a_subreaper(void) {
  CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
  pid_t child = fork();
  if (child == 0) {
    if (fork() == 0)
      _exit(9);
    _exit(8);
  }
  CHECK(status_of(child) == 8 << 8);
  int status;
  CHECK(wait(&status) > 0 && status == 9 << 8);
  CHECK(prctl(PR_SET_CHILD_SUBREAPER, 0) == 0);
}
static void inherited_by_fork(void) {
  signal(SIGUSR1, SIG_IGN);
  block(SIGUSR2), block(SIGTRAP), block(SIGSEGV);
  raise(SIGUSR2);
  char* p = new_pages(16);
  stack_t stack = {.ss_sp = p, .ss_size = 16 * kPage}, there;
  CHECK(sigaltstack(&stack, NULL) == 0);
  struct itimerval timer = {{0, 0}, {100, 0}};
  CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
  pid_t child = fork();
  if (child == 0) {
    struct sigaction action;
    sigset_t pending_ones;
    int wrong = sigaction(SIGUSR1, NULL, &action) != 0 || action.sa_handler != SIG_IGN;
    wrong |= (!blocked(SIGUSR2) || !blocked(SIGTRAP) || !blocked(SIGSEGV) || blocked(SIGTERM)) << 1;
    wrong |= (sigpending(&pending_ones) != 0 || sigismember(&pending_ones, SIGUSR2)) << 2;
    wrong |= (sigaltstack(NULL, &there) != 0 || there.ss_sp != p || there.ss_flags != 0) << 3;
    wrong |= (getitimer(ITIMER_REAL, &timer) != 0 || timer.it_value.tv_sec != 0) << 4;
    _exit(wrong);
  }
  CHECK(status_of(child) == 0);
}
static volatile int seen_in_child;
static void on_in_child(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)info, (void)context;
  ++seen_in_child;
}
static void handlers_run_in_a_child(void) {
  install(SIGUSR1, on_in_child, 0);
  install(SIGTRAP, on_in_child, 0);
  pid_t child = fork();
  if (child == 0) {
    raise(SIGUSR1);
    raise(SIGTRAP);
    __asm__ volatile("int3");
    _exit(seen_in_child);
  }
  CHECK(status_of(child) == 3 << 8);
}
static void* forks(void* unused) {
  pid_t child = fork();
  if (child == 0) {
    char line[64] = "";
    int count = 0;
    FILE* status = fopen("/proc/self/status", "re");
    while (status && fgets(line, sizeof line, status))
      if (sscanf(line, "Threads: %d", &count) == 1)
        break;
    _exit(count * 10 + (own_tid() == getpid()));
  }
  CHECK(status_of(child) == 11 << 8);
  return unused;
}
static void fork_from_a_thread(void) {
  pthread_t threads[4];
  for (int i = 0; i < 4; ++i)
    threads[i] = start(forks, NULL);
  for (int i = 0; i < 4; ++i)
    finish(threads[i]);
}
static void generations(void) {
  pid_t child = fork();
  if (child == 0) {
    for (int i = 0; i < 10; ++i) {
      pid_t next = fork();
      if (next != 0) {
        int status;
        _exit(waitpid(next, &status, 0) == next && WIFEXITED(status) ? WEXITSTATUS(status) + 1
                                                                     : 99);
      }
    }
    _exit(1);
  }
  CHECK(status_of(child) == 11 << 8);
}

// --- vfork and posix_spawn ----------------------------------------------------------------------
static void vfork_runs_first(void) {
  static volatile int written;
  written = 0;
  pid_t child = vfork();
  if (child == 0) {
    written = 77; // in the parent's memory
    _exit(6);
  }
  CHECK(written == 77 && status_of(child) == 6 << 8);
}
static void vfork_and_exec(void) {
  for (int i = 0; i < 5; ++i) {
    char* arguments[] = {self, (char*)"--as", (char*)"exit7", NULL};
    pid_t child = vfork();
    if (child == 0) {
      execv(self, arguments);
      _exit(99);
    }
    CHECK(status_of(child) == 7 << 8);
  }
}
static void vfork_that_cannot_exec(void) {
  char* arguments[] = {self, NULL};
  pid_t child = vfork();
  if (child == 0) {
    execv("/nowhere/at/all", arguments);
    _exit(errno == ENOENT ? 12 : 13);
  }
  CHECK(status_of(child) == 12 << 8);
}
static void* vforks(void* unused) {
  for (int i = 0; i < 5; ++i)
    vfork_and_exec();
  return unused;
}
static void vfork_from_threads(void) {
  pthread_t threads[3];
  for (int i = 0; i < 3; ++i)
    threads[i] = start(vforks, NULL);
  for (int i = 0; i < 3; ++i)
    finish(threads[i]);
}
static void spawned(void) {
  char* arguments[] = {self, (char*)"--as", (char*)"exit7", NULL};
  pid_t child;
  CHECK(posix_spawn(&child, self, NULL, NULL, arguments, environ) == 0);
  CHECK(status_of(child) == 7 << 8);
  CHECK(posix_spawn(&child, "/nowhere/at/all", NULL, NULL, arguments, environ) == ENOENT);
}
static void spawned_with_attributes(void) {
  char* arguments[] = {self, (char*)"--as", (char*)"signals", NULL};
  block(SIGUSR1);
  CHECK(signal(SIGUSR2, SIG_IGN) == SIG_DFL);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t mask = set_of(SIGTERM), reset = set_of(SIGUSR2);
  posix_spawnattr_setsigmask(&attributes, &mask);
  posix_spawnattr_setsigdefault(&attributes, &reset);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  pid_t child;
  CHECK(posix_spawn(&child, self, NULL, &attributes, arguments, environ) == 0);
  CHECK(status_of(child) == 4 << 8); // SIGTERM is blocked, no more
  posix_spawnattr_destroy(&attributes);
}

// --- execve -------------------------------------------------------------------------------------
static int exec_as(const char* name) {
  char* arguments[] = {self, (char*)"--as", (char*)name, NULL};
  pid_t child = vfork();
  if (child == 0) {
    execv(self, arguments);
    _exit(99);
  }
  return status_of(child);
}
static void exec_errors(void) {
  char* arguments[] = {self, NULL};
  CHECK_FAILS(execv("/nowhere/at/all", arguments), ENOENT);
  CHECK_FAILS(execv("/tmp", arguments), EACCES);
  CHECK_FAILS(execv("/proc/self/exe/x", arguments), ENOTDIR);
  int fd = memfd_create("conformance", MFD_CLOEXEC);
  CHECK(write(fd, "no program", 10) == 10 && fchmod(fd, 0700) == 0);
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  CHECK_FAILS(execv(path, arguments), ENOEXEC);
  close(fd);
  static char long_argument[200000];
  memset(long_argument, 'x', sizeof long_argument - 1);
  char* too_long[] = {self, long_argument, NULL};
  CHECK_FAILS(execv(self, too_long), E2BIG);
}
static void signals_over_exec(void) {
  install(SIGTERM, on_in_child, 0); // becomes the default
  signal(SIGUSR2, SIG_IGN);         // stays
  block(SIGUSR1);                   // stays
  CHECK(exec_as("signals") == (1 | 2) << 8);
}
static void traps_blocked_over_exec(void) {
  block(SIGTRAP), block(SIGSEGV);
  CHECK(exec_as("faults") == (1 | 2) << 8);
}
static void closed_by_exec(void) {
  int kept = open("/dev/null", O_RDONLY), closed = open("/dev/null", O_RDONLY | O_CLOEXEC);
  CHECK(dup2(kept, 70) == 70 && dup3(closed, 71, O_CLOEXEC) == 71);
  CHECK(exec_as("descriptors") == 1 << 8);
  close(kept), close(closed), close(70), close(71);
}
static void kept_over_exec(void) {
  CHECK(prctl(PR_SET_NAME, "before") == 0);
  CHECK(exec_as("name") == 0);
}
static void* execs(void* unused) {
  case_ends();
  char* arguments[] = {self, (char*)"--as", (char*)"exit7", NULL};
  execv(self, arguments);
  return unused;
}
static void exec_from_a_thread(void) {
  start(execs, NULL);
  for (;;)
    pause();
}
static void* lives_on(void* unused) {
  for (;;)
    sched_yield();
  return unused;
}
static void exec_among_threads(void) {
  for (int i = 0; i < 6; ++i)
    start(lives_on, NULL);
  execs(NULL);
}
static void exec_of_a_script(void) {
  case_ends();
  char* arguments[] = {(char*)"sh", (char*)"-c", (char*)"exit 21", NULL};
  execv("/bin/sh", arguments);
}
static void fexec(void) {
  int fd = open(self, O_RDONLY | O_CLOEXEC);
  char* arguments[] = {self, (char*)"--as", (char*)"faults", NULL};
  block(SIGTRAP), block(SIGSEGV);
  case_ends();
  syscall(SYS_execveat, fd, "", arguments, environ, 0x1000 /* AT_EMPTY_PATH */);
}
static void exec_with_what_waits(void) {
  block(SIGUSR1), block(SIGURG);
  raise(SIGUSR1), raise(SIGURG);
  case_ends();
  char* arguments[] = {self, (char*)"--as", (char*)"pending", NULL};
  execv(self, arguments);
}

// --- The ends -----------------------------------------------------------------------------------
static void exits_with_a_code(void) {
  case_ends();
  syscall(SYS_exit_group, 0x1234); // exit(3) would take another call if this one returned
  _exit(99);
}
static void aborts(void) {
  case_ends();
  abort();
}
static void killed(void) {
  case_ends();
  kill(getpid(), SIGKILL);
  pause();
}
static void by_a_real_time_signal(void) {
  case_ends();
  raise(SIGRTMIN + 5);
}
static void by_62(void) {
  case_ends();
  raise(62);
}
static void of_a_limit(void) {
  struct rlimit limit = {1, 2};
  CHECK(setrlimit(RLIMIT_CPU, &limit) == 0);
  case_ends();
  for (;;)
    ;
}

// --- As new images ------------------------------------------------------------------------------
int role(const char* name) {
  struct sigaction action;
  if (strcmp(name, "exit7") == 0)
    return 7;
  if (strcmp(name, "signals") == 0) {
    sigaction(SIGUSR2, NULL, &action);
    int answer = blocked(SIGUSR1) | (action.sa_handler == SIG_IGN) << 1 | blocked(SIGTERM) << 2;
    sigaction(SIGTERM, NULL, &action);
    return answer | (action.sa_handler != SIG_DFL) << 3;
  }
  if (strcmp(name, "faults") == 0)
    return blocked(SIGTRAP) | blocked(SIGSEGV) << 1 | blocked(SIGBUS) << 2;
  if (strcmp(name, "descriptors") == 0)
    return (fcntl(70, F_GETFD) >= 0) | (fcntl(71, F_GETFD) >= 0) << 1;
  if (strcmp(name, "name") == 0) {
    char text[16];
    prctl(PR_GET_NAME, text);
    return strcmp(text, "exe") != 0;
  }
  if (strcmp(name, "pending") == 0) {
    sigset_t set;
    sigpending(&set);
    return sigismember(&set, SIGUSR1) | sigismember(&set, SIGURG) << 1 | blocked(SIGUSR1) << 2;
  }
  return 98;
}

#define AREA "processes"
const struct Case cases[] = {
    ROW(fork_answers, clone getpid),
    ROW(forked_by_the_old_call, fork),
    ROW(exit_codes, clone wait4),
    ROW(deaths_by_signals, clone wait4),
    ROW(wait_answers, wait4 waitid kill),
    ROW(orphans_of_a_subreaper, prctl wait4),
    ROW(inherited_by_fork, clone rt_sigprocmask sigaltstack setitimer),
    ROW(handlers_run_in_a_child, clone rt_sigaction),
    ROW(fork_from_a_thread, clone),
    ROW(generations, clone wait4),
    ROW(vfork_runs_first, vfork),
    ROW(vfork_and_exec, vfork execve),
    ROW(vfork_that_cannot_exec, vfork execve),
    ROW(vfork_from_threads, vfork execve),
    ROW(spawned, clone3 execve),
    ROW(spawned_with_attributes, clone3 execve rt_sigprocmask rt_sigaction),
    ROW(exec_errors, execve),
    ROW(signals_over_exec, execve rt_sigprocmask rt_sigaction),
    ROW(traps_blocked_over_exec, execve rt_sigprocmask),
    ROW(closed_by_exec, execve),
    ROW(kept_over_exec, execve prctl),
    ALONE(exec_from_a_thread, execve),
    ALONE(exec_among_threads, execve),
    ALONE(exec_of_a_script, execve),
    ALONE(fexec, execveat),
    ALONE(exec_with_what_waits, execve rt_sigpending),
    ALONE(exits_with_a_code, exit_group),
    ALONE(aborts, tgkill),
    ALONE(killed, kill),
    ALONE(by_a_real_time_signal, tgkill),
    ALONE(by_62, tgkill),
    ALONE(of_a_limit, prlimit64),
};
const size_t case_count = sizeof cases / sizeof *cases;
