// A program for odd_processes_test.py: odd MODE. Goes on until its standard input ends.
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
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

int main(int argc, char** argv) {
  const char* mode = argc > 1 ? argv[1] : "";
  pthread_t thread;
  signal(SIGCONT, strstr(mode, "handler") ? on_continue : SIG_DFL);
  if (strstr(mode, "spin"))
    pthread_create(&thread, NULL, spinning, NULL);
  if (strstr(mode, "protected"))
    prctl(PR_SET_DUMPABLE, 0);
  puts("started");
  fflush(stdout);
  if (strstr(mode, "leave"))
    pthread_exit(NULL);
  struct pollfd input = {STDIN_FILENO, POLLIN, 0};
  while (poll(&input, 1, 1) <= 0) {
    tick();
    if (strstr(mode, "births") && pthread_create(&thread, NULL, short_lived, NULL) == 0)
      pthread_join(thread, NULL);
  }
  puts("ended");
  return 3;
}
