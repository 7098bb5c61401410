// storm SECONDS: threads that come and go, timers and signals, forks, spawns and at last an exec, all
// at once, while sites are hit. Prints only what has to be so.
#define _GNU_SOURCE
#include "hits.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char** environ;
static atomic_int done;
static atomic_long errors, alarms;

__attribute__((noinline, noclone)) void hit_changing(void) { __asm__ volatile("nop"); }

static void check(int holds, const char* what) {
  if (!holds) {
    int error = errno;
    if (atomic_fetch_add(&errors, 1) < 10)
      fprintf(stderr, "%s: %s\n", what, strerror(error));
  }
}

static void on_alarm(int signal) {
  int error = errno;
  (void)signal;
  atomic_fetch_add(&alarms, 1);
  hit_a();
  hit_changing();
  errno = error;
}
static void on_user(int signal) {
  (void)signal;
  hit_b();
}

static void* short_life(void* argument) {
  hit_a();
  hit_changing();
  pthread_kill(*(pthread_t*)argument, SIGUSR1);
  return NULL;
}

static void* creator(void* unused) {
  pthread_t me = pthread_self();
  while (!done) {
    pthread_t threads[8];
    int n = 0;
    for (; n < 8; ++n)
      if (pthread_create(&threads[n], NULL, short_life, &me))
        break;
    check(n == 8, "pthread_create");
    for (int i = 0; i < n; ++i)
      pthread_join(threads[i], NULL);
    hit_b();
  }
  return unused;
}

static void* child_maker(void* unused) {
  for (int i = 0; !done; ++i) {
    pid_t child;
    int status = -1;
    if (i % 2) {
      child = fork();
      if (child == 0) {
        hit_a();
        hit_changing();
        _exit(11);
      }
      check(child > 0, "fork");
    } else {
      char* arguments[] = {(char*)"sh", (char*)"-c", (char*)"exit 11", NULL};
      check(posix_spawn(&child, "/bin/sh", NULL, NULL, arguments, environ) == 0, "posix_spawn");
    }
    pid_t got;
    while ((got = waitpid(child, &status, 0)) < 0 && errno == EINTR)
      ;
    if (status != 11 << 8)
      fprintf(stderr, "%s ended with %#x\n", i % 2 ? "fork" : "posix_spawn", (unsigned)status);
    check(got == child && status == 11 << 8, "child");
    hit_b();
  }
  return unused;
}

static void* worker(void* unused) {
  unsigned long x = 1, y = 1;
  while (!done) {
    for (int i = 0; i < 50; ++i) {
      hit_a();
      hit_changing();
      x = x * 6364136223846793005u + 1;
      y = y * 6364136223846793005u + 1;
      check(x == y, "registers");
    }
    struct timespec t = {0, 50000};
    while (nanosleep(&t, &t) && errno == EINTR)
      ;
  }
  return unused;
}

static int ends[2];
static void* reader(void* unused) {
  char piece[7000];
  unsigned char expected = 0;
  for (;;) {
    ssize_t n = read(ends[0], piece, sizeof piece);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return unused;
    for (ssize_t i = 0; i < n; ++i)
      check((unsigned char)piece[i] == expected++, "byte");
  }
}
static void* writer(void* unused) {
  unsigned char piece[5000], next = 0;
  while (!done) {
    for (size_t i = 0; i < sizeof piece; ++i)
      piece[i] = next++;
    for (size_t at = 0; at < sizeof piece;) {
      ssize_t n = write(ends[1], piece + at, sizeof piece - at);
      if (n > 0)
        at += (size_t)n;
      else
        check(errno == EINTR, "write");
    }
  }
  close(ends[1]);
  return unused;
}

int main(int argc, char** argv) {
  if (argc > 2) {
    hit_a();
    printf("the new image\n");
    finish_line();
    return 9;
  }
  double seconds = argc > 1 ? atof(argv[1]) : 5;
  struct sigaction a = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
  sigaction(SIGALRM, &a, NULL);
  a.sa_handler = on_user;
  sigaction(SIGUSR1, &a, NULL);
  struct itimerval timer = {{0, 1000}, {0, 1000}};
  setitimer(ITIMER_REAL, &timer, NULL);
  if (pipe(ends))
    return 1;
  void* (*const jobs[])(void*) = {creator, creator, child_maker, worker, worker, reader, writer};
  pthread_t threads[7];
  for (int i = 0; i < 7; ++i)
    pthread_create(&threads[i], NULL, jobs[i], NULL);
  struct timespec begin, now;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  do {
    usleep(1000);
    clock_gettime(CLOCK_MONOTONIC, &now);
  } while ((double)(now.tv_sec - begin.tv_sec) + 1e-9 * (double)(now.tv_nsec - begin.tv_nsec) <
           seconds);
  done = 1;
  for (int i = 0; i < 7; ++i)
    pthread_join(threads[i], NULL);
  timer = (struct itimerval){{0, 0}, {0, 0}};
  setitimer(ITIMER_REAL, &timer, NULL);
  printf("errors %ld, alarms %s\n", (long)errors, alarms ? "came" : "never came");
  fflush(stdout);
  finish_line();
  execl(argv[0], argv[0], "1", "done", NULL);
  return 1;
}
