// watched HOW: four threads write a variable 200 times each, two others its neighbours all the
// time.
//   locked  one at a time
//   churn   meanwhile a timer's signals come, and one more thread changes mappings, the variable's,
//   too copied  then one more word is copied from the variable 200 times, from page to page
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>

enum { kWriters = 4, kOthers = 2, kWrites = 200, kPage = 4096 };

static struct { long before, watched, behind; } __attribute__((aligned(4096))) page;
static long copied __attribute__((aligned(4096)));
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int locked, ended;

static void* write_it(void* unused) {
  for (int i = 0; i < kWrites; ++i) {
    if (locked)
      pthread_mutex_lock(&lock);
    __atomic_fetch_add(&page.watched, 1, __ATOMIC_RELAXED);
    if (locked)
      pthread_mutex_unlock(&lock);
  }
  return unused;
}

static void* write_others(void* unused) {
  while (!__atomic_load_n(&ended, __ATOMIC_RELAXED)) {
    ++page.before;
    ++page.behind;
  }
  return unused;
}

static void on_alarm(int signal) { page.behind += signal; }

static void* change_mappings(void* unused) {
  while (!__atomic_load_n(&ended, __ATOMIC_RELAXED)) {
    mprotect(&page, kPage, PROT_READ | PROT_WRITE | PROT_EXEC);
    char* at = mmap(NULL, 4 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    at[kPage] = 1;
    mprotect(&page, kPage, PROT_READ | PROT_WRITE);
    mprotect(at, kPage, PROT_READ);
    munmap(at, 4 * kPage);
  }
  return unused;
}

static void copy(void) {
  for (int i = 0; i < kWrites; ++i) {
    const long* from = &page.watched;
    long* to = &copied;
    asm volatile("movsq" : "+S"(from), "+D"(to) : : "memory");
  }
}

int main(int argc, char** argv) {
  pthread_t writers[kWriters], others[kOthers], changer;
  const char* how = argc > 1 ? argv[1] : "";
  const int churn = !strcmp(how, "churn");
  locked = !strcmp(how, "locked");
  if (churn) {
    const struct itimerval often = {{0, 3000}, {0, 3000}};
    signal(SIGALRM, on_alarm);
    setitimer(ITIMER_REAL, &often, NULL);
    pthread_create(&changer, NULL, change_mappings, NULL);
  }
  for (int i = 0; i < kOthers; ++i)
    pthread_create(&others[i], NULL, write_others, NULL);
  for (int i = 0; i < kWriters; ++i)
    pthread_create(&writers[i], NULL, write_it, NULL);
  for (int i = 0; i < kWriters; ++i)
    pthread_join(writers[i], NULL);
  __atomic_store_n(&ended, 1, __ATOMIC_RELAXED);
  for (int i = 0; i < kOthers; ++i)
    pthread_join(others[i], NULL);
  if (churn)
    pthread_join(changer, NULL);
  if (!strcmp(how, "copied"))
    copy();
  printf("%ld\n", page.watched);
  return 0;
}
