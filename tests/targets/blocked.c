// blocked MILLISECONDS: one thread in each call that blocks; what it returned and how long it took,
// as `name result errno milliseconds`.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long total_ms;
static struct timespec span;
static uint32_t futex_timed, futex_untimed;
static int pipe_ends[2], big_pipe[2], socket_pair[2], listener, queue;
static pid_t child;

static uint64_t now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static long do_epoll_wait(void) {
  struct epoll_event e;
  int fd = epoll_create1(EPOLL_CLOEXEC);
  return epoll_wait(fd, &e, 1, (int)total_ms);
}
static long do_poll(void) { return poll(NULL, 0, (int)total_ms); }
static long do_ppoll(void) { return ppoll(NULL, 0, &span, NULL); }
static long do_ppoll_mask(void) {
  sigset_t all;
  sigfillset(&all);
  return ppoll(NULL, 0, &span, &all);
}
static long do_select(void) {
  struct timeval t = {span.tv_sec, span.tv_nsec / 1000};
  return select(0, NULL, NULL, NULL, &t);
}
static long do_pselect(void) { return pselect(0, NULL, NULL, NULL, &span, NULL); }
static long do_nanosleep(void) { return nanosleep(&span, NULL); }
static long do_clock_nanosleep(void) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += span.tv_sec;
  until.tv_nsec += span.tv_nsec;
  if (until.tv_nsec >= 1000000000)
    until.tv_nsec -= 1000000000, until.tv_sec++;
  return clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}
static long do_futex_timed(void) {
  return syscall(SYS_futex, &futex_timed, FUTEX_WAIT, 0, &span, NULL, 0);
}
static long do_futex_untimed(void) {
  return syscall(SYS_futex, &futex_untimed, FUTEX_WAIT, 0, NULL, NULL, 0);
}
static long do_sigtimedwait(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  return sigtimedwait(&set, NULL, &span);
}
static long do_pipe_read(void) {
  char byte[10];
  return read(pipe_ends[0], byte, sizeof byte);
}
static long do_pipe_write(void) {
  static char data[1 << 20];
  long result = write(big_pipe[1], data, sizeof data);
  close(big_pipe[1]);
  return result;
}
static long do_recv(void) {
  static char data[1 << 16];
  return recv(socket_pair[0], data, sizeof data, MSG_WAITALL);
}
static long do_recv_timeout(void) {
  int pair[2];
  char byte;
  struct timeval t = {span.tv_sec, span.tv_nsec / 1000};
  socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
  setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
  return recv(pair[0], &byte, 1, 0);
}
static long do_accept(void) { return accept(listener, NULL, NULL) >= 0; }
static long do_waitpid(void) { return waitpid(child, NULL, 0) == child; }
static long do_msgrcv(void) {
  struct {
    long type;
    char text[16];
  } message;
  return msgrcv(queue, &message, sizeof message.text, 0, 0);
}
static long do_cond_timedwait(void) {
  pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t c = PTHREAD_COND_INITIALIZER;
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += span.tv_sec;
  until.tv_nsec += span.tv_nsec;
  if (until.tv_nsec >= 1000000000)
    until.tv_nsec -= 1000000000, until.tv_sec++;
  pthread_mutex_lock(&m);
  return pthread_cond_timedwait(&c, &m, &until);
}
// Goes in and out of the kernel all the time: stops find it entering and leaving.
static long do_short_sleeps(void) {
  uint64_t end = now_us() + (uint64_t)total_ms * 1000;
  long bad = 0;
  struct timespec tick = {0, 100000};
  while (now_us() < end)
    bad += nanosleep(&tick, NULL) != 0;
  return bad;
}
static long do_short_polls(void) {
  uint64_t end = now_us() + (uint64_t)total_ms * 1000;
  long bad = 0;
  struct epoll_event e;
  int fd = epoll_create1(EPOLL_CLOEXEC);
  while (now_us() < end) {
    bad += epoll_wait(fd, &e, 1, 1) != 0;
    bad += poll(NULL, 0, 1) != 0;
  }
  return bad;
}
// Two threads hand a byte to and fro.
static int ping[2], pong[2];
static volatile int ping_done;
static long do_ping(void) {
  uint64_t end = now_us() + (uint64_t)total_ms * 1000;
  char byte = 1;
  long bad = 0;
  while (now_us() < end) {
    bad += write(ping[1], &byte, 1) != 1;
    bad += read(pong[0], &byte, 1) != 1;
  }
  ping_done = 1;
  byte = 0;
  bad += write(ping[1], &byte, 1) != 1;
  return bad;
}
static long do_pong(void) {
  long bad = 0;
  char byte = 1;
  for (;;) {
    bad += read(ping[0], &byte, 1) != 1;
    if (byte == 0)
      return bad;
    bad += write(pong[1], &byte, 1) != 1;
  }
}
static long do_spin(void) {
  uint64_t end = now_us() + (uint64_t)total_ms * 1000;
  while (now_us() < end)
    ;
  return 0;
}

static struct job {
  const char* name;
  long (*run)(void);
  long result;
  int error;
  uint64_t us;
} jobs[] = {
#define JOB(name) {#name, do_##name, 0, 0, 0}
    JOB(epoll_wait),   JOB(poll),        JOB(ppoll),           JOB(ppoll_mask),   JOB(select),
    JOB(pselect),      JOB(nanosleep),   JOB(clock_nanosleep), JOB(futex_timed),  JOB(futex_untimed),
    JOB(sigtimedwait), JOB(pipe_read),   JOB(pipe_write),      JOB(recv),         JOB(recv_timeout),
    JOB(accept),       JOB(waitpid),     JOB(msgrcv),          JOB(cond_timedwait),
    JOB(short_sleeps), JOB(short_polls), JOB(ping),            JOB(pong),         JOB(spin),
};
enum { kJobs = sizeof jobs / sizeof *jobs };

static void* run_job(void* argument) {
  struct job* job = argument;
  uint64_t begin = now_us();
  errno = 0;
  job->result = job->run();
  job->error = errno;
  job->us = now_us() - begin;
  return NULL;
}

static void* feed_big_pipe(void* unused) {
  char piece[4096];
  for (int left = 1 << 20; left > 0;) {
    ssize_t n = read(big_pipe[0], piece, sizeof piece);
    if (n == 0)
      break;
    if (n > 0)
      left -= (int)n;
    usleep((useconds_t)total_ms * 1000 / 300);
  }
  return unused;
}
static void* feed_socket(void* unused) {
  char piece[1024] = {0};
  for (int left = 1 << 16; left > 0; left -= (int)sizeof piece) {
    if (write(socket_pair[1], piece, sizeof piece) != sizeof piece)
      perror("feeding");
    usleep((useconds_t)total_ms * 1000 / 100);
  }
  return unused;
}

int main(int argc, char** argv) {
  total_ms = argc > 1 ? atol(argv[1]) : 500;
  span = (struct timespec){total_ms / 1000, total_ms % 1000 * 1000000};
  if (pipe(pipe_ends) || pipe(big_pipe) || pipe(ping) || pipe(pong) ||
      socketpair(AF_UNIX, SOCK_STREAM, 0, socket_pair))
    return 1;
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  listener = socket(AF_UNIX, SOCK_STREAM, 0);
  if (bind(listener, (struct sockaddr*)&name, sizeof(sa_family_t)) || listen(listener, 1))
    return 1;
  queue = msgget(IPC_PRIVATE, 0600);
  child = fork();
  if (child == 0) {
    nanosleep(&span, NULL);
    _exit(0);
  }
  sigset_t usr1;
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &usr1, NULL);
  pthread_t threads[kJobs], feeders[2];
  if (argc <= 2) { // the large write only when asked for
    close(big_pipe[1]);
    big_pipe[1] = -1;
  }
  for (int i = 0; i < kJobs; ++i)
    pthread_create(&threads[i], NULL, run_job, &jobs[i]);
  pthread_create(&feeders[0], NULL, feed_big_pipe, NULL);
  pthread_create(&feeders[1], NULL, feed_socket, NULL);

  nanosleep(&span, NULL);
  struct sockaddr_un address;
  socklen_t size = sizeof address;
  getsockname(listener, (struct sockaddr*)&address, &size);
  int peer = socket(AF_UNIX, SOCK_STREAM, 0);
  connect(peer, (struct sockaddr*)&address, size);
  if (write(pipe_ends[1], "12345", 5) != 5)
    return 1;
  futex_untimed = 1;
  syscall(SYS_futex, &futex_untimed, FUTEX_WAKE, 1, NULL, NULL, 0);
  struct {
    long type;
    char text[16];
  } message = {1, "text"};
  msgsnd(queue, &message, 4, 0);

  for (int i = 0; i < kJobs; ++i)
    pthread_join(threads[i], NULL);
  pthread_join(feeders[0], NULL);
  pthread_join(feeders[1], NULL);
  msgctl(queue, IPC_RMID, NULL);
  for (int i = 0; i < kJobs; ++i)
    printf("%s %ld %d %lu\n", jobs[i].name, jobs[i].result, jobs[i].error, jobs[i].us / 1000);
  return 4;
}
