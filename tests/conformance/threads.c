// Threads: clone and its flags, thread ids, robust and other futexes, thread-local state, and how
// the process ends.
#include "conformance.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

static long futex(void* word, int operation, unsigned value, const struct timespec* timeout) {
  return syscall(SYS_futex, word, operation, value, timeout, NULL, 0);
}

// --- clone --------------------------------------------------------------------------------------
enum { kThreadFlags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD };
struct Raw {
  atomic_int tid, child_tid, parent_tid, done;
  char* tls;
};
static struct Raw raw;
// Runs `body` in a thread that libc does not know, which ends with exit(2).
long raw_clone(unsigned long flags, void* stack, void* parent, void* child, void* tls,
               void (*body)(void));
__asm__("raw_clone: mov %rcx, %r10; mov $56, %eax; syscall; test %rax, %rax; jnz 1f\n"
        "xor %ebp, %ebp; call *%r9; xor %edi, %edi; mov $60, %eax; syscall\n"
        "1: ret");
static long raw_call(long number, long a) {
  __asm__ volatile("syscall" : "+a"(number) : "D"(a) : "rcx", "r11", "memory");
  return number;
}
static void say_tid(void) {
  raw.tid = (int)raw_call(SYS_gettid, 0);
  raw.done = 1;
}
static char raw_stack[64 * 1024] __attribute__((aligned(64)));
static long raw_thread(unsigned long more_flags, void* tls, void (*body)(void)) {
  memset(&raw, 0, sizeof raw);
  raw.child_tid = 1;
  return raw_clone(kThreadFlags | CLONE_CHILD_CLEARTID | more_flags, raw_stack + sizeof raw_stack,
                   &raw.parent_tid, &raw.child_tid, tls, body);
}
static void wait_for_raw(void) {
  while (raw.child_tid != 0)
    futex(&raw.child_tid, FUTEX_WAIT, (unsigned)raw.child_tid, NULL);
}
static void ids_that_clone_writes(void) {
  long tid = raw_thread(CLONE_PARENT_SETTID | CLONE_CHILD_SETTID, NULL, say_tid);
  CHECK(tid > 0 && raw.parent_tid == tid);
  wait_for_raw();
  CHECK(raw.done && raw.tid == tid && raw.child_tid == 0);
}
static void no_id_is_written_unasked(void) {
  long tid = raw_thread(0, NULL, say_tid);
  CHECK(tid > 0);
  wait_for_raw();
  CHECK(raw.parent_tid == 0 && raw.tid == tid);
}
static void read_tls(void) {
  long value;
  __asm__ volatile("mov %%fs:8, %0" : "=r"(value));
  raw.tid = (int)value;
  raw.done = 1;
}
static void tls_of_clone(void) {
  static char block[4096] __attribute__((aligned(64)));
  *(long*)(block + 8) = 4321;
  CHECK(raw_thread(CLONE_SETTLS, block, read_tls) > 0);
  wait_for_raw();
  CHECK(raw.tid == 4321);
}
static void clone_errors(void) {
  CHECK_FAILS(syscall(SYS_clone, CLONE_THREAD, 0, 0, 0, 0), EINVAL);
  CHECK_FAILS(syscall(SYS_clone, CLONE_SIGHAND, 0, 0, 0, 0), EINVAL);
  CHECK_FAILS(syscall(SYS_clone, CLONE_FS | CLONE_NEWNS, 0, 0, 0, 0), EINVAL);
  struct clone_args arguments = {.exit_signal = 200};
  CHECK_FAILS(syscall(SYS_clone3, &arguments, sizeof arguments), EINVAL);
  arguments = (struct clone_args){.flags = CLONE_THREAD};
  CHECK_FAILS(syscall(SYS_clone3, &arguments, sizeof arguments), EINVAL);
  CHECK_FAILS(syscall(SYS_clone3, &arguments, 8), EINVAL);
  CHECK_FAILS(syscall(SYS_clone3, &arguments, 100000), E2BIG);
}
static void clone3_makes_a_child(void) {
  int fd = -1;
  struct clone_args arguments = {
      .flags = CLONE_PIDFD, .pidfd = (uint64_t)&fd, .exit_signal = SIGCHLD};
  long child = syscall(SYS_clone3, &arguments, sizeof arguments);
  if (child == 0)
    _exit(19);
  CHECK(child > 0 && fd >= 0);
  siginfo_t info;
  memset(&info, 0, sizeof info);
  CHECK(waitid((idtype_t)3 /* P_PIDFD */, (id_t)fd, &info, WEXITED) == 0);
  CHECK(info.si_pid == child && info.si_status == 19);
  close(fd);
}
static int shared_flags(unsigned long flags, int (*body)(void)) {
  long child = syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL);
  if (child == 0)
    _exit(body());
  return status_of((pid_t)child);
}
static int opens_nine(void) { return dup2(0, 99) == 99 ? 5 : 6; }
static void shared_and_own_descriptors(void) {
  CHECK(shared_flags(CLONE_FILES, opens_nine) == 5 << 8);
  CHECK(fcntl(99, F_GETFD) >= 0 && close(99) == 0);
  CHECK(shared_flags(0, opens_nine) == 5 << 8);
  CHECK_FAILS(fcntl(99, F_GETFD), EBADF);
}
static int goes_to_root(void) { return chdir("/proc") == 0 ? 5 : 6; }
static void shared_directory(void) {
  char before[4096], after[4096];
  CHECK(getcwd(before, sizeof before) != NULL);
  CHECK(shared_flags(0, goes_to_root) == 5 << 8);
  CHECK(getcwd(after, sizeof after) != NULL && strcmp(before, after) == 0);
  CHECK(shared_flags(CLONE_FS, goes_to_root) == 5 << 8);
  CHECK(getcwd(after, sizeof after) != NULL && strcmp("/proc", after) == 0);
  CHECK(chdir(before) == 0);
}
static void child_with_another_signal(void) {
  block(SIGUSR1);
  long child = syscall(SYS_clone, SIGUSR1, NULL, NULL, NULL, NULL);
  if (child == 0)
    _exit(3);
  sigset_t set = set_of(SIGUSR1);
  siginfo_t info;
  CHECK(sigwaitinfo(&set, &info) == SIGUSR1 && info.si_code == CLD_EXITED && info.si_status == 3);
  CHECK_FAILS(waitpid((pid_t)child, NULL, WNOHANG), ECHILD); // a "clone" child
  CHECK(status_of((pid_t)child) == 3 << 8);
}

// --- Threads as libc makes them -----------------------------------------------------------------
static _Thread_local long own = 5;
static void* changes_its_own(void* value) {
  CHECK(own == 5);
  for (long i = 0; i < 100; ++i) {
    own = (long)value + i;
    sched_yield();
    CHECK(own == (long)value + i);
  }
  return (void*)(own + 1);
}
static void thread_local_values(void) {
  pthread_t threads[8];
  for (long i = 0; i < 8; ++i)
    threads[i] = start(changes_its_own, (void*)(i * 1000));
  for (long i = 0; i < 8; ++i) {
    void* result;
    CHECK(pthread_join(threads[i], &result) == 0 && result == (void*)(i * 1000 + 100));
  }
  CHECK(own == 5);
}
static void* says_ids(void* unused) {
  (void)unused;
  CHECK(getpid() != own_tid());
  return (void*)(uintptr_t)own_tid();
}
static void ids_of_threads(void) {
  void* tid;
  CHECK(own_tid() == getpid());
  CHECK(pthread_join(start(says_ids, NULL), &tid) == 0);
  while (syscall(SYS_tgkill, getpid(), (pid_t)(uintptr_t)tid, 0) == 0)
    sched_yield(); // the kernel tells of the end a little earlier
  CHECK(errno == ESRCH);
}
static void* sleeps_in_futex(void* word) {
  futex(word, FUTEX_WAIT, 0, NULL);
  return NULL;
}
static int tasks(void) {
  char line[256];
  int count = -1;
  FILE* status = fopen("/proc/self/status", "re");
  while (status && fgets(line, sizeof line, status))
    sscanf(line, "Threads: %d", &count);
  if (status)
    fclose(status);
  return count;
}
static void count_of_threads(void) {
  static atomic_uint word;
  word = 0;
  int before = tasks();
  pthread_t threads[5];
  for (int i = 0; i < 5; ++i)
    threads[i] = start(sleeps_in_futex, &word);
  CHECK(tasks() == before + 5);
  word = 1;
  futex(&word, FUTEX_WAKE, 1000, NULL);
  for (int i = 0; i < 5; ++i)
    finish(threads[i]);
}
static int listed_threads(void) {
  int count = 0;
  DIR* folder = opendir("/proc/self/task");
  for (struct dirent* entry; folder && (entry = readdir(folder));)
    count += entry->d_name[0] != '.';
  if (folder)
    closedir(folder);
  return count;
}
static atomic_int named;
static void* sleeps_as_another(void* word) {
  CHECK(prctl(PR_SET_NAME, "kvm-nx-lpage-re") == 0);
  ++named;
  return sleeps_in_futex(word);
}
static void list_of_threads(void) {
  static atomic_uint word;
  word = 0;
  named = 0;
  while (listed_threads() != 1) // joined ones may show a little longer
    sched_yield();
  pthread_t threads[5];
  for (int i = 0; i < 5; ++i)
    threads[i] = start(sleeps_as_another, &word);
  while (named != 5)
    sched_yield();
  CHECK(listed_threads() == 6);
  word = 1;
  futex(&word, FUTEX_WAKE, 1000, NULL);
  for (int i = 0; i < 5; ++i)
    finish(threads[i]);
}
static void* has_own_descriptors(void* unused) {
  CHECK(unshare(CLONE_FILES) == 0);
  pthread_t threads[20];
  for (int i = 0; i < 20; ++i)
    threads[i] = start(says_ids, NULL);
  for (int i = 0; i < 20; ++i)
    finish(threads[i]);
  return unused;
}
static void threads_beside_own_descriptors(void) {
  for (int round = 0; round < 2; ++round) {
    finish(start(has_own_descriptors, NULL));
    pthread_t threads[20];
    for (int i = 0; i < 20; ++i)
      threads[i] = start(says_ids, NULL);
    for (int i = 0; i < 20; ++i)
      finish(threads[i]);
  }
}
static void set_tid_address_answers(void) {
  // What libc has there is wanted at this thread's end only; it is told by PR_GET_TID_ADDRESS.
  long old = 0;
  int mine;
  int known = prctl(40 /* PR_GET_TID_ADDRESS */, &old) == 0;
  CHECK(syscall(SYS_set_tid_address, &mine) == own_tid());
  long now_there = 0;
  CHECK(!known || (prctl(40, &now_there) == 0 && now_there == (long)&mine));
  if (known)
    CHECK(syscall(SYS_set_tid_address, old) == own_tid());
  say("%s", known ? "known" : "not told");
}
static void* names_itself(void* unused) {
  char name[16];
  CHECK(prctl(PR_SET_NAME, "a worker") == 0);
  CHECK(prctl(PR_GET_NAME, name) == 0 && strcmp(name, "a worker") == 0);
  return unused;
}
static void names_of_threads(void) {
  char before[16], after[16];
  CHECK(prctl(PR_GET_NAME, before) == 0);
  finish(start(names_itself, NULL));
  CHECK(prctl(PR_GET_NAME, after) == 0 && strcmp(before, after) == 0);
}
static atomic_int cancelled;
static void* is_cancelled(void* fd) {
  char byte;
  cancelled = gettid();
  while (read(*(int*)fd, &byte, 1) == 1)
    ;
  return NULL;
}
static void cancelled_in_a_call(void) {
  int ends[2];
  CHECK(pipe2(ends, O_CLOEXEC) == 0);
  for (int i = 0; i < 20; ++i) {
    cancelled = 0;
    pthread_t thread = start(is_cancelled, &ends[0]);
    while (!cancelled)
      sched_yield();
    wait_until_in_call(cancelled, SYS_read);
    CHECK(pthread_cancel(thread) == 0);
    void* result;
    CHECK(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);
  }
  close(ends[0]), close(ends[1]);
}
static void detached_threads(void) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  static atomic_uint word;
  word = 1;
  const int before = tasks();
  for (int i = 0; i < 50; ++i) {
    pthread_t thread;
    CHECK(pthread_create(&thread, &attributes, sleeps_in_futex, &word) == 0);
  }
  while (tasks() > before) // one of the case before may have been ending then
    sched_yield();
  pthread_attr_destroy(&attributes);
}
static void limit_of_threads(void) {
  // The cgroup's and the user's limits are the machine's; a stack that cannot be had is not.
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  CHECK(pthread_attr_setstacksize(&attributes, 1ul << 46) == 0);
  pthread_t thread;
  CHECK(pthread_create(&thread, &attributes, says_ids, NULL) == EAGAIN);
  pthread_attr_destroy(&attributes);
}

// --- Futexes ------------------------------------------------------------------------------------
static void futex_answers(void) {
  static atomic_uint word, other;
  word = 5;
  struct timespec soon = {0, 10000000};
  CHECK_FAILS(futex(&word, FUTEX_WAIT, 4, NULL), EAGAIN);
  double begin = now();
  CHECK_FAILS(futex(&word, FUTEX_WAIT, 5, &soon), ETIMEDOUT);
  CHECK(now() - begin >= 0.01);
  CHECK(futex(&word, FUTEX_WAKE, 10, NULL) == 0);
  CHECK_FAILS(futex((char*)&word + 1, FUTEX_WAIT, 5, &soon), EINVAL);
  CHECK_FAILS(futex(&word, 999, 5, &soon), ENOSYS);
  CHECK_FAILS(syscall(SYS_futex, &word, FUTEX_CMP_REQUEUE, 1, 1, &other, 4), EAGAIN);
  soon.tv_nsec = 2000000000;
  CHECK_FAILS(futex(&word, FUTEX_WAIT, 5, &soon), EINVAL);
}
static pthread_mutex_t robust;
static void* dies_with_it(void* unused) {
  CHECK(pthread_mutex_lock(&robust) == 0);
  return unused;
}
static void owner_of_a_robust_mutex_dies(void) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  CHECK(pthread_mutex_init(&robust, &attributes) == 0);
  finish(start(dies_with_it, NULL));
  CHECK(pthread_mutex_lock(&robust) == EOWNERDEAD);
  CHECK(pthread_mutex_consistent(&robust) == 0 && pthread_mutex_unlock(&robust) == 0);
  pthread_mutex_destroy(&robust);
}
static void* waits_for_robust(void* unused) {
  (void)unused;
  return (void*)(uintptr_t)pthread_mutex_lock(&robust);
}
static atomic_int may_die;
static void* dies_when_told(void* unused) {
  CHECK(pthread_mutex_lock(&robust) == 0);
  may_die = 1;
  while (may_die != 2)
    sched_yield();
  return unused;
}
static void waiter_for_a_robust_mutex(void) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  CHECK(pthread_mutex_init(&robust, &attributes) == 0);
  may_die = 0;
  pthread_t owner = start(dies_when_told, NULL);
  while (may_die != 1)
    sched_yield();
  pthread_t waiter = start(waits_for_robust, NULL);
  may_die = 2;
  void* result;
  finish(owner);
  CHECK(pthread_join(waiter, &result) == 0 && result == (void*)(uintptr_t)EOWNERDEAD);
}
static void robust_list_of_libc(void) {
  void* head = NULL;
  size_t size = 0;
  CHECK(syscall(SYS_get_robust_list, 0, &head, &size) == 0 && head != NULL && size == 24);
  CHECK_FAILS(syscall(SYS_set_robust_list, head, 8), EINVAL);
  CHECK(syscall(SYS_set_robust_list, head, size) == 0);
}
static void* inherits_priority(void* unused) {
  CHECK(pthread_mutex_lock(&robust) == 0 && pthread_mutex_unlock(&robust) == 0);
  return unused;
}
static void priority_inheriting_mutex(void) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
  CHECK(pthread_mutex_init(&robust, &attributes) == 0);
  CHECK(pthread_mutex_lock(&robust) == 0);
  pthread_t others[3];
  for (int i = 0; i < 3; ++i)
    others[i] = start(inherits_priority, NULL);
  sched_yield();
  CHECK(pthread_mutex_unlock(&robust) == 0);
  for (int i = 0; i < 3; ++i)
    finish(others[i]);
  pthread_mutex_destroy(&robust);
}
static long counter;
static pthread_mutex_t plain = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static void* takes_turns(void* parity) {
  for (int i = 0; i < 300; ++i) {
    pthread_mutex_lock(&plain);
    while ((counter & 1) != (long)parity)
      pthread_cond_wait(&changed, &plain);
    ++counter;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&plain);
  }
  return NULL;
}
static void conditions_alternate(void) {
  counter = 0;
  pthread_t even = start(takes_turns, (void*)0), odd = start(takes_turns, (void*)1);
  finish(even), finish(odd);
  CHECK(counter == 600);
}
static void membarrier_answers(void) {
  long which = syscall(SYS_membarrier, 0, 0, 0);
  say("%s", which < 0 ? strerror(errno) : "there");
  if (which > 0 && (which & 16)) {
    CHECK(syscall(SYS_membarrier, 16 /* register private expedited */, 0, 0) == 0);
    CHECK(syscall(SYS_membarrier, 8, 0, 0) == 0);
  }
  CHECK_FAILS(syscall(SYS_membarrier, 1 << 30, 0, 0), EINVAL);
}
static void rseq_answers(void) {
  // libc has registered its own, or there is none.
  static char area[32] __attribute__((aligned(32)));
  long result = syscall(SYS_rseq, area, 32, 0, 0x53053053);
  say("%s", result == 0 ? "registered" : errno == ENOSYS ? "ENOSYS" : strerror(errno));
}

// --- The end of threads and process -------------------------------------------------------------
static void* ends_the_process(void* unused) {
  (void)unused;
  exit(41);
}
static void exit_by_another_thread(void) {
  case_ends();
  start(ends_the_process, NULL);
  for (;;)
    pause();
}
static void* survives(void* main_thread) {
  CHECK(pthread_join(*(pthread_t*)main_thread, NULL) == 0);
  char path[64], text[256];
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", getpid());
  ssize_t n;
  do { // a zombie until the process ends
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
  } while (n > 0 && !strstr(text, ") Z "));
  CHECK(n > 0);
  case_ends();
  _exit(42);
}
static void the_main_thread_ends_first(void) {
  static pthread_t self;
  self = pthread_self();
  start(survives, &self);
  pthread_exit(NULL);
}
static void* lives_on(void* unused) {
  for (;;)
    pause();
  return unused;
}
static void exit_group_with_threads(void) {
  for (int i = 0; i < 10; ++i)
    start(lives_on, NULL);
  case_ends();
  syscall(SYS_exit_group, 43);
}
static void* last_exit(void* main_thread) {
  pthread_join(*(pthread_t*)main_thread, NULL);
  case_ends();
  syscall(SYS_exit, 44); // the last thread
  return NULL;
}
static void exits_one_by_one(void) {
  static pthread_t self;
  self = pthread_self();
  start(last_exit, &self);
  pthread_exit(NULL);
}
static void* dies_of_a_signal(void* unused) {
  raise(SIGTERM);
  return unused;
}
static void a_thread_dies_of_a_signal(void) {
  case_ends();
  start(dies_of_a_signal, NULL);
  for (;;)
    pause();
}

#define AREA "threads"
const struct Case cases[] = {
    ROW(ids_that_clone_writes, clone exit),
    ROW(no_id_is_written_unasked, clone exit),
    ROW(tls_of_clone, clone exit),
    ROW(clone_errors, clone clone3),
    ROW(clone3_makes_a_child, clone3 waitid),
    ROW(shared_and_own_descriptors, clone),
    ROW(shared_directory, clone),
    ROW(child_with_another_signal, clone wait4),
    ROW(thread_local_values, clone3),
    ROW(ids_of_threads, gettid getpid clone3),
    ALONE(count_of_threads, clone3 exit),
    ROW(list_of_threads, getdents64 clone3),
    ROW(threads_beside_own_descriptors, unshare clone3),
    ROW(set_tid_address_answers, set_tid_address prctl),
    ROW(names_of_threads, prctl),
    ROW(cancelled_in_a_call, tgkill exit),
    ROW(detached_threads, clone3 exit),
    ROW(limit_of_threads, mmap),
    ROW(futex_answers, futex),
    ROW(owner_of_a_robust_mutex_dies, set_robust_list exit),
    ROW(waiter_for_a_robust_mutex, set_robust_list futex exit),
    ROW(robust_list_of_libc, get_robust_list set_robust_list),
    ROW(priority_inheriting_mutex, futex),
    ROW(conditions_alternate, futex),
    ROW(membarrier_answers, membarrier),
    ROW(rseq_answers, rseq),
    ALONE(exit_by_another_thread, exit_group),
    ALONE(the_main_thread_ends_first, exit),
    ALONE(exit_group_with_threads, exit_group),
    ALONE(exits_one_by_one, exit),
    ALONE(a_thread_dies_of_a_signal, tgkill),
};
const size_t case_count = sizeof cases / sizeof *cases;
