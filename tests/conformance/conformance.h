// What the programs of this folder share. Each is an area: a table of cases, in which a case is a
// name, a function and the system calls (or instructions) it is about. It says `name: ok` or what
// it saw, in words that are the same in every run.
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

// Cases that end the process, or change what cannot be changed back, have a process of their own.
enum CaseKind { kShared, kAlone };

struct Case {
  const char* name;
  void (*run)(void);
  const char* about; // separated by blanks
  enum CaseKind kind;
};
// The rows of an area's table: what it is about stands there without quotes. AREA is the area's
// name.
#define ROW(name, ...)                                                                             \
  { AREA "." #name, name, #__VA_ARGS__, kShared }
#define ALONE(name, ...)                                                                           \
  { AREA "." #name, name, #__VA_ARGS__, kAlone }
extern const struct Case cases[];
extern const size_t case_count;

// Fail the case; the first failure is what it says. Any thread may.
void check_failed(const char* file, int line, const char* what, int error);
// Adds words to what the case says.
__attribute__((format(printf, 1, 2))) void say(const char* format, ...);
// Says the case's result now: it is about to end the process. The exit status is the rest of the
// result.
void case_ends(void);
// What removes things from the system that would outlive a process which stops at a failure.
extern void (*clean_up)(void);
int role(const char* name); // see processes.c

#define CHECK(holds)                                                                               \
  do {                                                                                             \
    if (!(holds))                                                                                  \
      check_failed(__FILE__, __LINE__, #holds, errno);                                             \
  } while (0)
// The call answers -1 and errno is `error`.
#define CHECK_FAILS(call, error)                                                                   \
  do {                                                                                             \
    errno = 0;                                                                                     \
    long result_ = (long)(call);                                                                   \
    if (result_ != -1 || errno != (error))                                                         \
      check_failed(__FILE__, __LINE__, #call " fails with " #error, errno);                        \
  } while (0)

typedef void (*Handler)(int, siginfo_t*, void*);
void install(int signal, Handler handler, int flags);
sigset_t set_of(int signal);
void block(int signal);
void unblock(int signal);
int blocked(int signal);
pid_t own_tid(void);
double now(void); // seconds, CLOCK_MONOTONIC

// Returns once the thread is asleep in that call, as the kernel shows it.
void wait_until_in_call(pid_t tid, long number);
// A thread that runs `body(argument)`; a failure to create it fails the case.
#include <pthread.h>
pthread_t start(void* (*body)(void*), void* argument);
void finish(pthread_t thread);

// Reaps the child; its wait status.
int status_of(pid_t child);
// Whether /proc/self/maps has a mapping that starts at the address, and with these rights ("rw-p").
int mapped_as(const void* start, const char* rights);
// Whether the byte can be read: by write(2), so without a signal.
int readable(const void* address);
char* new_pages(size_t count); // private, zero, readable and writable
extern const size_t kPage;
