// A thread waits in epoll_wait while the main thread is stopped and a child ends: nothing here
// handles SIGCHLD, so nothing may notice.
#include "hits.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

volatile long child_pid;

static void* wait_for_nothing(void* unused) {
  struct epoll_event event;
  const int fd = epoll_create1(0);
  const int result = epoll_wait(fd, &event, 1, 500);
  printf("%d %d\n", result, result < 0 ? errno : 0);
  return unused;
}

int main(void) {
  child_pid = fork();
  if (child_pid == 0) {
    pause();
    _exit(0);
  }
  pthread_t thread;
  pthread_create(&thread, NULL, wait_for_nothing, NULL);
  finish_line();
  pthread_join(thread, NULL);
  int status;
  return waitpid((pid_t)child_pid, &status, 0) == child_pid && WIFSIGNALED(status) ? 3 : 1;
}
