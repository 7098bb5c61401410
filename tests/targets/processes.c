// processes CASE: threads and processes made and ended in every way. Prints what does not vary.
#define _GNU_SOURCE
#include "hits.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;
static const char* self;

static void* short_life(void* unused) {
  hit_a();
  return unused;
}

static atomic_int detached_left;
static void* short_detached_life(void* unused) {
  hit_a();
  atomic_fetch_sub(&detached_left, 1);
  return unused;
}

static void* churner(void* unused) {
  pthread_attr_t detached;
  pthread_attr_init(&detached);
  pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
  for (int i = 0; i < 250; ++i) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, short_life, NULL) == 0)
      pthread_join(thread, NULL);
    atomic_fetch_add(&detached_left, 1);
    if (pthread_create(&thread, &detached, short_detached_life, NULL))
      atomic_fetch_sub(&detached_left, 1);
    hit_b();
  }
  return unused;
}

static void churn(void) {
  pthread_t threads[4];
  for (int i = 0; i < 4; ++i)
    pthread_create(&threads[i], NULL, churner, NULL);
  for (int i = 0; i < 4; ++i)
    pthread_join(threads[i], NULL);
  while (atomic_load(&detached_left))
    sched_yield();
}

static void* forker(void* unused) {
  for (int i = 0; i < 50; ++i) {
    hit_a();
    pid_t child = fork();
    if (child == 0) {
      hit_a(); // with the child's own counter
      hit_b();
      long seen = counted_a;
      _exit(seen > 0 ? 17 : 1);
    }
    int status = 0;
    if (waitpid(child, &status, 0) != child || WEXITSTATUS(status) != 17)
      printf("a child ended with %#x\n", status);
  }
  return unused;
}

static void forks(void) {
  pthread_t other;
  pthread_create(&other, NULL, forker, NULL);
  forker(NULL);
  pthread_join(other, NULL);
  fflush(stdout);
  if (fork() == 0) { // a child that goes on as the program would
    pthread_t thread;
    pthread_create(&thread, NULL, short_life, NULL);
    pthread_join(thread, NULL);
    FILE* status = fopen("/proc/self/status", "r");
    char line[200];
    while (fgets(line, sizeof line, status))
      if (strncmp(line, "SigBlk", 6) == 0 || strncmp(line, "SigCgt", 6) == 0 ||
          strncmp(line, "TracerPid", 9) == 0 || strncmp(line, "SigIgn", 6) == 0)
        fputs(line, stdout);
    raise(SIGTRAP);
    _exit(0);
  }
  int status = 0;
  wait(&status);
  printf("child: signal %d\n", WTERMSIG(status));
}

static void spawns(void) {
  for (volatile int i = 0; i < 20; ++i) {
    pid_t child = vfork();
    if (child == 0) {
      hit_a(); // in our memory, as another process
      execl("/bin/true", "true", NULL);
      _exit(1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    if (status)
      printf("vfork: %#x\n", status);
    char* arguments[] = {"true", NULL};
    if (posix_spawn(&child, "/bin/true", NULL, NULL, arguments, environ) == 0)
      waitpid(child, &status, 0);
    if (status)
      printf("posix_spawn: %#x\n", status);
    hit_b();
  }
  fflush(stdout);
  printf("system: %d\n", system("echo from system; exit 3") >> 8);
  FILE* pipe = popen("echo from popen", "r");
  char line[100] = "";
  if (!fgets(line, sizeof line, pipe))
    line[0] = 0;
  printf("popen: %d %s", pclose(pipe), line);
  pid_t child = vfork();
  if (child == 0)
    _exit(9);
  int status;
  waitpid(child, &status, 0);
  printf("vfork and _exit: %d\n", WEXITSTATUS(status));
  char* none[] = {"none", NULL};
  printf("posix_spawn of nothing: %s\n",
         strerror(posix_spawn(&child, "/nonexistent", NULL, NULL, none, environ)));
  hit_b();
  counted_a = 0; // what another process did is not ours to count
}

static void exec_done(void) {
  hit_a();
  printf("the new image\n");
}

static void exec_main(void) {
  hit_a();
  hit_b();
  fflush(stdout);
  execl(self, self, "exec_done", NULL);
  printf("exec: %s\n", strerror(errno));
}

static void* exec_in_thread(void* unused) {
  exec_main();
  return unused;
}
static void* wait_forever(void* unused) {
  pause();
  return unused;
}
static void exec_thread(void) {
  pthread_t thread;
  for (int i = 0; i < 3; ++i)
    pthread_create(&thread, NULL, wait_forever, NULL);
  pthread_create(&thread, NULL, exec_in_thread, NULL);
  pthread_join(thread, NULL);
}

static void tracer(void) {
  FILE* status = fopen("/proc/self/status", "r");
  char line[200];
  while (fgets(line, sizeof line, status))
    if (strncmp(line, "TracerPid", 9) == 0)
      fputs(line, stdout);
  fclose(status);
}

static void exec_fail(void) {
  for (int i = 0; i < 50; ++i) {
    execl("/nonexistent/program", "program", NULL);
    int error = errno;
    hit_a();
    printf("exec: %s\n", strerror(error));
    tracer();
  }
  execl("/tmp", "tmp", NULL);
  printf("exec: %s\n", strerror(errno));
  execl("/proc/self/status", "status", NULL);
  printf("exec: %s\n", strerror(errno));
  tracer();
}

static char clone_stack[4][65536] __attribute__((aligned(16)));
static int cloned(void* argument) {
  hit_b();
  *(int*)argument += 1;
  hit_b();
  return 21;
}
static void clone_vm(void) {
  static int values[4];
  pid_t children[4];
  for (int i = 0; i < 4; ++i)
    children[i] = clone(cloned, clone_stack[i] + 65536, CLONE_VM | SIGCHLD, &values[i]);
  for (int i = 0; i < 4; ++i) {
    int status;
    waitpid(children[i], &status, 0);
    printf("clone: %d %d\n", WEXITSTATUS(status), values[i]);
  }
  hit_a();
  counted_b = 0; // what another process did is not ours to count
}

enum { kMany = 1100 };
static pthread_barrier_t all_there;
static void* one_of_many(void* unused) {
  pthread_barrier_wait(&all_there);
  hit_a();
  pthread_barrier_wait(&all_there);
  return unused;
}
static void many(void) {
  static pthread_t threads[kMany];
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 65536);
  pthread_barrier_init(&all_there, NULL, kMany + 1);
  for (int i = 0; i < kMany; ++i)
    if (pthread_create(&threads[i], &small, one_of_many, NULL))
      exit(1);
  pthread_barrier_wait(&all_there);
  pthread_barrier_wait(&all_there);
  for (int i = 0; i < kMany; ++i)
    pthread_join(threads[i], NULL);
  printf("many: %ld\n", (long)counted_a);
  for (int i = 0; i < 10; ++i) {
    pthread_create(&threads[0], NULL, short_life, NULL);
    pthread_join(threads[0], NULL);
  }
}

static sem_t passed;
static void* leave(void* unused) {
  hit_a();
  sem_post(&passed);
  pthread_exit(unused);
}
static void* raw_exit(void* unused) {
  hit_a();
  (void)unused;
  syscall(SYS_exit_group, 13);
  return NULL;
}
static void exit_in_thread(void) {
  pthread_t thread;
  sem_init(&passed, 0, 0);
  for (int i = 0; i < 20; ++i) {
    pthread_create(&thread, NULL, leave, NULL);
    pthread_detach(thread);
  }
  for (int i = 0; i < 20; ++i) // exit_group must not cut one short
    sem_wait(&passed);
  fflush(stdout);
  pthread_create(&thread, NULL, raw_exit, NULL);
  pthread_exit(NULL); // the main thread first
}

static const struct {
  const char* name;
  void (*run)(void);
} cases[] = {
    {"churn", churn},         {"forks", forks},         {"spawns", spawns},
    {"exec_done", exec_done}, {"exec_main", exec_main}, {"exec_thread", exec_thread},
    {"exec_fail", exec_fail}, {"clone_vm", clone_vm},   {"many", many},
    {"exit_in_thread", exit_in_thread},
};

int main(int argc, char** argv) {
  self = argv[0];
  setvbuf(stdout, NULL, _IONBF, 0);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i)
    if (argc > 1 && strcmp(argv[1], cases[i].name) == 0) {
      cases[i].run();
      finish_line();
      return 5;
    }
  return 100;
}
