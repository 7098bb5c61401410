// watched HOW: four threads write a variable 200 times each, two others its neighbours all the time.
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { kWriters = 4, kOthers = 2, kWrites = 200 };

static struct {
  long before, watched, behind;
} __attribute__((aligned(64))) page;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int locked, ended;

static void *write_it(void *unused) {
  for (int i = 0; i < kWrites; ++i) {
    if (locked)
      pthread_mutex_lock(&lock);
    __atomic_fetch_add(&page.watched, 1, __ATOMIC_RELAXED);
    if (locked)
      pthread_mutex_unlock(&lock);
  }
  return unused;
}

static void *write_others(void *unused) {
  while (!__atomic_load_n(&ended, __ATOMIC_RELAXED)) {
    ++page.before;
    ++page.behind;
  }
  return unused;
}

int main(int argc, char **argv) {
  pthread_t writers[kWriters], others[kOthers];
  locked = argc > 1 && !strcmp(argv[1], "locked");
  for (int i = 0; i < kOthers; ++i)
    pthread_create(&others[i], NULL, write_others, NULL);
  for (int i = 0; i < kWriters; ++i)
    pthread_create(&writers[i], NULL, write_it, NULL);
  for (int i = 0; i < kWriters; ++i)
    pthread_join(writers[i], NULL);
  __atomic_store_n(&ended, 1, __ATOMIC_RELAXED);
  for (int i = 0; i < kOthers; ++i)
    pthread_join(others[i], NULL);
  printf("%ld\n", page.watched);
  return 0;
}
