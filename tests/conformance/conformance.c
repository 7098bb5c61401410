// Runs the cases of an area: all that can share a process, or those that are named. Between two
// cases the process is as it was at its start: dispositions, mask, alternate stack, timers, limits.
#include "conformance.h"

#include <fcntl.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>

const size_t kPage = 4096;
static char result[2000], failure[600];
static size_t length;
static atomic_flag failed_already = ATOMIC_FLAG_INIT;
static atomic_int failure_written;
static const struct Case* current;
void (*clean_up)(void);
static pid_t stops_at_failure; // the process, if it was told to

enum { kStoppedAtFailure = 102 };

// One write, so that lines of others do not come in between. By another call where that is what
// has failed (broken_rows.py).
static void print_result(void) {
  char line[3000];
  int n = snprintf(line, sizeof line, "%s: %s%s%s\n", current->name, failure_written ? failure : "",
                   failure_written && length ? "; " : "",
                   length            ? result
                   : failure_written ? ""
                                     : "ok");
  struct iovec all = {line, (size_t)n};
  if (write(STDOUT_FILENO, line, (size_t)n) != n && writev(STDOUT_FILENO, &all, 1) != n)
    _exit(101);
}

void check_failed(const char* file, int line, const char* what, int error) {
  if (atomic_flag_test_and_set(&failed_already))
    return;
  const char* name = strrchr(file, '/');
  snprintf(failure, sizeof failure, "FAILED %s:%d: %s (%s)", name ? name + 1 : file, line, what,
           strerror(error));
  failure_written = 1;
  if (stops_at_failure && stops_at_failure == getpid()) {
    print_result();
    if (clean_up && fork() == 0) { // the system calls of a child are not the broken ones
      clean_up();
      _exit(0);
    }
    _exit(kStoppedAtFailure);
  }
}

void say(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  if (length > 0 && length < sizeof result - 1)
    result[length++] = ' ';
  int n = vsnprintf(result + length, sizeof result - length, format, arguments);
  va_end(arguments);
  if (n > 0)
    length += (size_t)n;
  if (length >= sizeof result)
    length = sizeof result - 1;
}

void case_ends(void) { print_result(); }

void install(int signal, Handler handler, int flags) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = handler;
  action.sa_flags = flags | SA_SIGINFO;
  CHECK(sigaction(signal, &action, NULL) == 0);
}
sigset_t set_of(int signal) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, signal);
  return set;
}
void block(int signal) {
  sigset_t set = set_of(signal);
  CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
}
void unblock(int signal) {
  sigset_t set = set_of(signal);
  CHECK(pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0);
}
int blocked(int signal) {
  sigset_t set;
  CHECK(pthread_sigmask(SIG_SETMASK, NULL, &set) == 0);
  return sigismember(&set, signal);
}
pid_t own_tid(void) { return (pid_t)syscall(SYS_gettid); }
double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void wait_until_in_call(pid_t tid, long number) {
  char path[64], text[64];
  snprintf(path, sizeof path, "/proc/self/task/%d/syscall", tid);
  for (;;) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
      close(fd);
    if (n > 0) {
      text[n] = 0;
      char* end;
      long shown = strtol(text, &end, 10);
      if (end != text && shown == number)
        return;
    } else if (fd < 0 && errno == ENOENT) {
      CHECK(!"the thread is there");
      return;
    }
    sched_yield();
  }
}

pthread_t start(void* (*body)(void*), void* argument) {
  pthread_t thread = 0;
  int error = pthread_create(&thread, NULL, body, argument);
  if (error != 0) {
    errno = error;
    CHECK(!"pthread_create");
  }
  return thread;
}
void finish(pthread_t thread) { CHECK(thread != 0 && pthread_join(thread, NULL) == 0); }

int status_of(pid_t child) {
  int status = -1;
  pid_t got;
  do {
    got = waitpid(child, &status, __WALL);
  } while (got < 0 && errno == EINTR);
  CHECK(got == child);
  return status;
}

int mapped_as(const void* start_of_it, const char* rights) {
  char wanted[32], line[512];
  int found = 0;
  snprintf(wanted, sizeof wanted, "%lx-", (unsigned long)start_of_it);
  FILE* maps = fopen("/proc/self/maps", "re");
  while (maps && fgets(line, sizeof line, maps))
    if (strncmp(line, wanted, strlen(wanted)) == 0) {
      const char* shown = strchr(line, ' ');
      found = shown && strncmp(shown + 1, rights, strlen(rights)) == 0;
    }
  if (maps)
    fclose(maps);
  return found;
}

int readable(const void* address) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0)
    return 0;
  ssize_t n = write(ends[1], address, 1);
  close(ends[0]);
  close(ends[1]);
  return n == 1;
}

char* new_pages(size_t count) {
  char* p = mmap(NULL, count * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(p != MAP_FAILED);
  return p;
}

static void set_all_actions(void (*handler)(int)) {
  for (int signal = 1; signal <= SIGRTMAX; ++signal)
    if (signal != SIGKILL && signal != SIGSTOP && (signal < 32 || signal >= SIGRTMIN)) {
      struct sigaction action;
      memset(&action, 0, sizeof action);
      action.sa_handler = handler;
      sigaction(signal, &action, NULL);
    }
}
static void as_at_start(void) {
  struct itimerval none;
  memset(&none, 0, sizeof none);
  setitimer(ITIMER_REAL, &none, NULL);
  setitimer(ITIMER_VIRTUAL, &none, NULL);
  setitimer(ITIMER_PROF, &none, NULL);
  sigset_t nothing;
  sigemptyset(&nothing);
  // Ignored first: what is pending goes away.
  set_all_actions(SIG_IGN);
  sigprocmask(SIG_SETMASK, &nothing, NULL);
  set_all_actions(SIG_DFL);
  stack_t stack = {.ss_flags = SS_DISABLE};
  sigaltstack(&stack, NULL);
  errno = 0;
}

static int run_case(const struct Case* it) {
  current = it;
  length = 0;
  result[0] = failure[0] = 0;
  failure_written = 0;
  atomic_flag_clear(&failed_already);
  as_at_start();
  it->run();
  clean_up = NULL;
  as_at_start();
  print_result();
  return failure_written;
}

// What a new image of the program does; only some areas have any.
__attribute__((weak)) int role(const char* name) {
  (void)name;
  return 98;
}

int main(int argc, char** argv) {
  int failures = 0;
  if (argc == 3 && strcmp(argv[1], "--as") == 0)
    return role(argv[2]);
  if (argc == 2 && strcmp(argv[1], "--list") == 0) {
    for (size_t i = 0; i < case_count; ++i)
      printf("%s\t%s\t%s\n", cases[i].name, cases[i].kind == kAlone ? "alone" : "shared",
             cases[i].about);
    return 0;
  }
  if (argc > 1 && strcmp(argv[1], "--stop-at-failure") == 0) {
    stops_at_failure = getpid();
    --argc;
    ++argv;
  }
  if (argc == 1)
    for (size_t i = 0; i < case_count; ++i)
      failures += cases[i].kind == kShared ? run_case(&cases[i]) : 0;
  for (int a = 1; a < argc; ++a) {
    size_t i = 0;
    while (i < case_count && strcmp(argv[a], cases[i].name) != 0)
      ++i;
    if (i == case_count) {
      fprintf(stderr, "no case %s; --list says which there are\n", argv[a]);
      return 100;
    }
    failures += run_case(&cases[i]);
  }
  return failures != 0;
}
