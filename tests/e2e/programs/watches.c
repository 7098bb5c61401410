// watches N: variables of one page are used in every way that a watchpoint can see, in two threads,
// in a signal's handler and in a child, each of the former times between N uses of a neighbour.
// What comes when does not depend on the scheduler.
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
  volatile long neighbour, word;
  volatile short half;
  volatile char byte;
  volatile int fifth;
  long array[8];
} page __attribute__((aligned(4096)));
static long uses;
static int begin[2], done[2];

static void use_neighbour(void) {
  for (long i = 0; i < uses; ++i)
    ++page.neighbour;
}

static void on_signal(int signal) { page.word = 100 + signal; }

static void use_all(long round) {
  use_neighbour();
  page.word = round;
  page.word = round; // unchanged
  use_neighbour();
  page.half += 1;
  long sum = page.byte;
  use_neighbour();
  page.byte = (char)(round + sum);
  asm volatile("rep stosq"
               :
               : "D"(page.array), "c"(sizeof page.array / sizeof *page.array), "a"(round)
               : "memory");
  page.fifth += 1;
}

static void* other(void* unused) {
  char one;
  if (read(begin[0], &one, 1) == 1) // asleep there when the watchpoints come
    use_all(3);
  (void)!write(done[1], &one, 1);
  return unused;
}

__attribute__((noinline)) void ready(void) { asm volatile(""); }
__attribute__((noinline)) void ended(void) { asm volatile(""); }

int main(int argc, char** argv) {
  pthread_t thread, late;
  char one = 0;
  uses = argc > 1 ? atol(argv[1]) : 0;
  if (pipe(begin) || pipe(done))
    return 1;
  signal(SIGUSR1, on_signal);
  pthread_create(&thread, NULL, other, NULL);
  ready();
  use_all(1);
  use_all(2);
  (void)!write(begin[1], &one, 1);
  (void)!read(done[0], &one, 1);
  pthread_join(thread, NULL);
  raise(SIGUSR1);
  const pid_t child = fork();
  if (child == 0) {
    use_all(7);
    _exit(page.fifth);
  }
  int status = 0;
  waitpid(child, &status, 0);
  (void)!write(begin[1], &one, 1);
  pthread_create(&late, NULL, other, NULL); // born with watchpoints
  pthread_join(late, NULL);
  ended();
  use_all(4);
  printf("word %ld half %d byte %d fifth %d array %ld neighbour %ld child %d\n", page.word,
         page.half, page.byte, page.fifth, page.array[1], page.neighbour, WEXITSTATUS(status));
  return 0;
}
