// A fork and two threads, one after the other.
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static void* idle(void* argument) { return argument; }

int main(void) {
  pthread_t thread;
  for (int i = 0; i < 2; i++) {
    pthread_create(&thread, 0, idle, 0);
    pthread_join(thread, 0);
  }
  if (fork() == 0)
    _exit(0);
  wait(0);
  return 0;
}
