#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static jmp_buf env;
static sigjmp_buf signal_env;
static volatile int counter;

static void leaf(int n) {
  counter += n;
  longjmp(env, n);
}

static void middle(int n) {
  counter++;
  leaf(n);
  counter--;
}

static void same_frame(void) {
  if (setjmp(env) == 0) {
    counter = 1;
    middle(1);
    counter = 2;
  } else {
    counter = 3;
  }
  counter = 4;
}

static void caught_inside(int n) {
  if (setjmp(env) == 0)
    middle(n);
  counter += n;
}

static void beneath(void) {
  counter = 1;
  caught_inside(7);
  counter = 2;
  for (int i = 0; i < 3; i++)
    caught_inside(i + 1);
  counter = 3;
}

static int recurse(int n) {
  volatile int depth = n;
  if (depth == 0)
    longjmp(env, 1);
  if (depth == 3 && setjmp(env) != 0)
    return depth;
  int below = recurse(depth - 1);
  return below + depth;
}

static void recursion(void) {
  counter = recurse(5);
  counter++;
}

static void handler(int signal) {
  counter += signal;
  siglongjmp(signal_env, 1);
}

static void out_of_handler(void) {
  signal(SIGUSR1, handler);
  if (sigsetjmp(signal_env, 1) == 0) {
    counter = 1;
    raise(SIGUSR1);
    counter = 2;
  }
  counter = 3;
}

static void on_other_stack(void) {
  static char memory[1 << 16];
  stack_t stack = {.ss_sp = memory, .ss_size = sizeof memory};
  sigaltstack(&stack, NULL);
  struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
  sigaction(SIGUSR2, &action, NULL);
  if (sigsetjmp(signal_env, 0) == 0) {
    counter = 1;
    kill(getpid(), SIGUSR2);
    counter = 2;
  }
  counter = 3;
}

static volatile int stop;

static void *jumps_all_the_time(void *unused) {
  jmp_buf own;
  volatile int rounds = 0;
  while (!stop || rounds < 10) {
    if (setjmp(own) == 0)
      longjmp(own, 1);
    rounds++;
  }
  return unused;
}

static void other_thread(void) {
  pthread_t thread;
  pthread_create(&thread, NULL, jumps_all_the_time, NULL);
  counter = 1;
  usleep(2000);
  same_frame();
  counter = 2;
  stop = 1;
  pthread_join(thread, NULL);
  counter = 3;
}

static void outer(void) {
  if (setjmp(env) == 0)
    middle(2);
  counter++;
}

static void through_outer(void) {
  outer();
  counter++;
}

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    void (*function)(void);
  } cases[] = {{"same_frame", same_frame},         {"beneath", beneath},
               {"recursion", recursion},           {"out_of_handler", out_of_handler},
               {"on_other_stack", on_other_stack}, {"other_thread", other_thread},
               {"through_outer", through_outer}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    if (argc < 2 || strcmp(argv[1], cases[i].name) == 0)
      cases[i].function();
  return 0;
}
