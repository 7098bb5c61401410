#include <pthread.h>
#include <stdio.h>

static int total;

static void add_one(void) { __atomic_add_fetch(&total, 1, __ATOMIC_SEQ_CST); }

static void* work(void* arg) {
  for (int i = 0; i < 1000; i++)
    add_one();
  return arg;
}

int main(void) {
  pthread_t threads[4];
  for (int i = 0; i < 4; i++)
    pthread_create(&threads[i], 0, work, 0);
  for (int i = 0; i < 4; i++)
    pthread_join(threads[i], 0);
  printf("total=%d\n", total);
  return 0;
}
