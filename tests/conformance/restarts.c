// Calls that a signal's handler interrupts, one by one: which end with EINTR, which are made again
// where the handler has SA_RESTART (signal(7)). The signal is sent once the kernel shows that the
// thread sleeps in the call.
#include "conformance.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>

enum Ends { kRestarts, kNever };

static int pipe_ends[2], sockets[2], listener, epoll, event_fd, lock_file, queue, semaphores;
static pid_t child;
static atomic_uint word;
static char big[1 << 20];
static struct sockaddr_un address;

// --- What the thread sleeps in ------------------------------------------------------------------
static long in_read(void) {
  char byte;
  return read(pipe_ends[0], &byte, 1);
}
static long in_readv(void) {
  char byte;
  struct iovec part = {&byte, 1};
  return readv(pipe_ends[0], &part, 1);
}
static long in_write(void) { return write(pipe_ends[1], "x", 1); }
static long in_recvfrom(void) {
  char byte;
  return recv(sockets[0], &byte, 1, 0);
}
static long in_recvmsg(void) {
  char byte;
  struct iovec part = {&byte, 1};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  return recvmsg(sockets[0], &message, 0);
}
static long in_sendto(void) { return send(sockets[0], "x", 1, 0); }
static long in_accept(void) {
  int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  if (fd >= 0)
    close(fd);
  return fd >= 0 ? 1 : -1;
}
static long in_eventfd(void) {
  uint64_t value;
  return read(event_fd, &value, sizeof value) == 8 ? 1 : -1;
}
static long in_wait4(void) { return waitpid(child, NULL, 0) == child ? 1 : -1; }
static long in_waitid(void) {
  siginfo_t info;
  return waitid(P_PID, (id_t)child, &info, WEXITED) == 0 ? 1 : -1;
}
static long in_futex(void) {
  return syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0) == 0 ? 1 : -1;
}
static long in_futex_bitset(void) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += 100;
  return syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 0, &until, NULL, ~0u) == 0 ? 1 : -1;
}
static long in_flock(void) { return flock(lock_file, LOCK_EX) == 0 ? 1 : -1; }
static long in_lock(void) {
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
  return fcntl(lock_file, F_OFD_SETLKW, &lock) == 0 ? 1 : -1;
}
static long in_msgrcv(void) {
  struct {
    long type;
    char text[8];
  } message;
  return msgrcv(queue, &message, 8, 0, 0) >= 0 ? 1 : -1;
}
static long in_semop(void) {
  struct sembuf take = {0, -1, 0};
  return syscall(SYS_semop, semaphores, &take, 1) == 0 ? 1 : -1;
}
static long in_poll(void) {
  struct pollfd it = {pipe_ends[0], POLLIN, 0};
  return poll(&it, 1, -1);
}
static long in_poll_timed(void) {
  struct pollfd it = {pipe_ends[0], POLLIN, 0};
  return poll(&it, 1, 100000);
}
static long in_ppoll(void) {
  struct pollfd it = {pipe_ends[0], POLLIN, 0};
  sigset_t nothing;
  sigemptyset(&nothing);
  return ppoll(&it, 1, NULL, &nothing);
}
static long in_select(void) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(pipe_ends[0], &set);
  return syscall(SYS_select, pipe_ends[0] + 1, &set, NULL, NULL, NULL);
}
static long in_pselect(void) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(pipe_ends[0], &set);
  sigset_t nothing;
  sigemptyset(&nothing);
  return pselect(pipe_ends[0] + 1, &set, NULL, NULL, NULL, &nothing);
}
static long in_epoll_wait(void) {
  struct epoll_event event;
  return syscall(SYS_epoll_wait, epoll, &event, 1, -1);
}
static long in_epoll_pwait(void) {
  struct epoll_event event;
  sigset_t nothing;
  sigemptyset(&nothing);
  return epoll_pwait(epoll, &event, 1, -1, &nothing);
}
static long in_nanosleep(void) {
  struct timespec time = {100, 0}, left = {0, 0};
  long result = syscall(SYS_nanosleep, &time, &left);
  CHECK(left.tv_sec >= 90 && left.tv_sec <= 100);
  return result;
}
static long in_clock_nanosleep(void) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += 100;
  return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}
static long in_recv_timed(void) {
  struct timeval time = {100, 0};
  CHECK(setsockopt(sockets[0], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time) == 0);
  char byte;
  return recv(sockets[0], &byte, 1, 0);
}
static long in_open_fifo(void) {
  char path[64];
  snprintf(path, sizeof path, "/tmp/conformance-fifo-%d", getpid());
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd >= 0)
    close(fd);
  return fd >= 0 ? 1 : -1;
}

// --- What ends the sleep ------------------------------------------------------------------------
static void by_pipe(void) { CHECK(write(pipe_ends[1], "x", 1) == 1); }
static void by_draining(void) { CHECK(read(pipe_ends[0], big, sizeof big) > 0); }
static void by_socket(void) { CHECK(write(sockets[1], "x", 1) == 1); }
static void by_draining_socket(void) {
  while (recv(sockets[1], big, sizeof big, MSG_DONTWAIT) > 0)
    ;
}
static void by_connecting(void) {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(connect(fd, (struct sockaddr*)&address, sizeof(sa_family_t) + 20) == 0);
  close(fd);
}
static void by_event(void) {
  uint64_t one = 1;
  CHECK(write(event_fd, &one, sizeof one) == 8);
}
static void by_death(void) { CHECK(kill(child, SIGKILL) == 0); }
static void by_waking(void) {
  word = 1;
  CHECK(syscall(SYS_futex, &word, FUTEX_WAKE, 1, NULL, NULL, 0) == 1);
}
static int second_lock;
static void by_unlocking(void) { CHECK(flock(second_lock, LOCK_UN) == 0); }
static void by_unlocking_record(void) {
  struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_len = 1};
  CHECK(fcntl(second_lock, F_OFD_SETLK, &lock) == 0);
}
static void by_writing_fifo(void) {
  char path[64];
  snprintf(path, sizeof path, "/tmp/conformance-fifo-%d", getpid());
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  close(fd);
}

// --- One case -----------------------------------------------------------------------------------
static volatile sig_atomic_t seen;
static void on_signal(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)info, (void)context;
  ++seen;
}
struct Sleep {
  pid_t tid;
  long number;
  void (*release)(void);
};
static void* interrupts(void* argument) {
  const struct Sleep* sleep = argument;
  wait_until_in_call(sleep->tid, sleep->number);
  CHECK(syscall(SYS_tgkill, getpid(), sleep->tid, SIGUSR1) == 0);
  if (sleep->release) {
    while (!seen)
      sched_yield();
    wait_until_in_call(sleep->tid, sleep->number);
    sleep->release();
  }
  return NULL;
}
static void sleep_once(long (*call)(void), long number, void (*release)(void), int flags) {
  seen = 0;
  word = 0;
  install(SIGUSR1, on_signal, flags);
  struct Sleep sleep = {own_tid(), number, release};
  pthread_t thread = start(interrupts, &sleep);
  errno = 0;
  long result = call();
  int error = errno;
  CHECK(seen == 1); // first: without it the thread does not end
  finish(thread);
  errno = error;
  if (release)
    CHECK(result == 1);
  else
    CHECK(result == -1 && error == EINTR);
}
static void open_all(void) {
  CHECK(pipe2(pipe_ends, O_CLOEXEC) == 0);
  CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0);
  listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  memset(&address, 0, sizeof address);
  address.sun_family = AF_UNIX;
  snprintf(address.sun_path + 1, 19, "conformance-%d", getpid()); // abstract
  CHECK(bind(listener, (struct sockaddr*)&address, sizeof(sa_family_t) + 20) == 0 &&
        listen(listener, 5) == 0);
  epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN};
  CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, pipe_ends[0], &event) == 0);
  event_fd = eventfd(0, EFD_CLOEXEC);
}
static void close_all(void) {
  close(pipe_ends[0]), close(pipe_ends[1]), close(sockets[0]), close(sockets[1]);
  close(listener), close(epoll), close(event_fd);
}
static void fill_pipe(void) {
  CHECK(fcntl(pipe_ends[1], F_SETFL, O_NONBLOCK) == 0);
  while (write(pipe_ends[1], big, 4096) > 0)
    ;
  CHECK(fcntl(pipe_ends[1], F_SETFL, 0) == 0);
}
static void fill_socket(void) {
  while (send(sockets[0], big, 4096, MSG_DONTWAIT) > 0)
    ;
}
static void a_child(void) {
  child = fork();
  if (child == 0)
    for (;;)
      pause();
}
static void a_lock(void) {
  lock_file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  second_lock = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  CHECK(flock(second_lock, LOCK_EX) == 0);
}
static void a_record_lock(void) {
  lock_file = memfd_create("conformance", MFD_CLOEXEC);
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", lock_file);
  second_lock = open(path, O_RDWR | O_CLOEXEC);
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
  CHECK(second_lock >= 0 && fcntl(second_lock, F_OFD_SETLK, &lock) == 0);
}
static void close_locks(void) { close(lock_file), close(second_lock); }
static void a_queue(void) { CHECK((queue = msgget(IPC_PRIVATE, IPC_CREAT | 0600)) >= 0); }
static void remove_queue(void) { CHECK(msgctl(queue, IPC_RMID, NULL) == 0); }
static void a_semaphore(void) {
  CHECK((semaphores = semget(IPC_PRIVATE, 1, IPC_CREAT | 0600)) >= 0);
}
static void remove_semaphore(void) { CHECK(semctl(semaphores, 0, IPC_RMID) == 0); }
static void a_fifo(void) {
  char path[64];
  snprintf(path, sizeof path, "/tmp/conformance-fifo-%d", getpid());
  CHECK(mkfifo(path, 0600) == 0);
}
static void remove_fifo(void) {
  char path[64];
  snprintf(path, sizeof path, "/tmp/conformance-fifo-%d", getpid());
  unlink(path);
}
static void nothing(void) {}
static void reap(void) {
  if (kill(child, SIGKILL) == 0)
    waitpid(child, NULL, 0);
}

#define SLEEP(name, ends, number, call, before, release, after)                                    \
  static void name(void) {                                                                         \
    clean_up = after;                                                                              \
    open_all();                                                                                    \
    before();                                                                                      \
    sleep_once(call, number, NULL, 0);                                                             \
    sleep_once(call, number, ends == kRestarts ? release : NULL, SA_RESTART);                      \
    after();                                                                                       \
    close_all();                                                                                   \
  }

SLEEP(read_of_a_pipe, kRestarts, SYS_read, in_read, nothing, by_pipe, nothing)
SLEEP(readv_of_a_pipe, kRestarts, SYS_readv, in_readv, nothing, by_pipe, nothing)
SLEEP(write_to_a_pipe, kRestarts, SYS_write, in_write, fill_pipe, by_draining, nothing)
SLEEP(recv_, kRestarts, SYS_recvfrom, in_recvfrom, nothing, by_socket, nothing)
SLEEP(recvmsg_, kRestarts, SYS_recvmsg, in_recvmsg, nothing, by_socket, nothing)
SLEEP(send_, kRestarts, SYS_sendto, in_sendto, fill_socket, by_draining_socket, nothing)
SLEEP(accept_, kRestarts, SYS_accept4, in_accept, nothing, by_connecting, nothing)
SLEEP(read_of_an_eventfd, kRestarts, SYS_read, in_eventfd, nothing, by_event, nothing)
SLEEP(wait_for_a_child, kRestarts, SYS_wait4, in_wait4, a_child, by_death, reap)
SLEEP(waitid_, kRestarts, SYS_waitid, in_waitid, a_child, by_death, reap)
SLEEP(futex_, kRestarts, SYS_futex, in_futex, nothing, by_waking, nothing)
SLEEP(flock_, kRestarts, SYS_flock, in_flock, a_lock, by_unlocking, close_locks)
SLEEP(record_lock, kRestarts, SYS_fcntl, in_lock, a_record_lock, by_unlocking_record, close_locks)
SLEEP(open_of_a_fifo, kRestarts, SYS_openat, in_open_fifo, a_fifo, by_writing_fifo, remove_fifo)
SLEEP(futex_with_a_timeout, kNever, SYS_futex, in_futex_bitset, nothing, NULL, nothing)
SLEEP(msgrcv_, kNever, SYS_msgrcv, in_msgrcv, a_queue, NULL, remove_queue)
SLEEP(semop_, kNever, SYS_semop, in_semop, a_semaphore, NULL, remove_semaphore)
SLEEP(poll_, kNever, SYS_poll, in_poll, nothing, NULL, nothing)
SLEEP(poll_with_a_timeout, kNever, SYS_poll, in_poll_timed, nothing, NULL, nothing)
SLEEP(ppoll_, kNever, SYS_ppoll, in_ppoll, nothing, NULL, nothing)
SLEEP(select_, kNever, SYS_select, in_select, nothing, NULL, nothing)
SLEEP(pselect_, kNever, SYS_pselect6, in_pselect, nothing, NULL, nothing)
SLEEP(epoll_wait_, kNever, SYS_epoll_wait, in_epoll_wait, nothing, NULL, nothing)
SLEEP(epoll_pwait_, kNever, SYS_epoll_pwait, in_epoll_pwait, nothing, NULL, nothing)
SLEEP(nanosleep_, kNever, SYS_nanosleep, in_nanosleep, nothing, NULL, nothing)
SLEEP(clock_nanosleep_, kNever, SYS_clock_nanosleep, in_clock_nanosleep, nothing, NULL, nothing)
SLEEP(recv_with_a_timeout, kNever, SYS_recvfrom, in_recv_timed, nothing, NULL, nothing)

// --- Signals that interrupt nothing -------------------------------------------------------------
static void* sends_what_is_ignored(void* argument) {
  const struct Sleep* sleep = argument;
  wait_until_in_call(sleep->tid, sleep->number);
  for (int i = 0; i < 20; ++i) {
    CHECK(syscall(SYS_tgkill, getpid(), sleep->tid, SIGURG) == 0);  // ignored by default
    CHECK(syscall(SYS_tgkill, getpid(), sleep->tid, SIGUSR2) == 0); // ignored
    CHECK(syscall(SYS_tgkill, getpid(), sleep->tid, SIGUSR1) == 0); // blocked
    wait_until_in_call(sleep->tid, sleep->number);
  }
  sleep->release();
  return NULL;
}
static void not_by_ignored_or_blocked(void) {
  open_all();
  signal(SIGUSR2, SIG_IGN);
  install(SIGUSR1, on_signal, 0);
  seen = 0;
  block(SIGUSR1);
  struct Sleep sleep = {own_tid(), SYS_poll, by_pipe};
  pthread_t thread = start(sends_what_is_ignored, &sleep);
  CHECK(in_poll() == 1);
  finish(thread);
  CHECK(seen == 0);
  unblock(SIGUSR1);
  CHECK(seen == 1);
  close_all();
}
static void* interrupts_a_write(void* argument) {
  const struct Sleep* sleep = argument;
  wait_until_in_call(sleep->tid, sleep->number);
  CHECK(syscall(SYS_tgkill, getpid(), sleep->tid, SIGUSR1) == 0);
  return NULL;
}
static void a_write_that_has_begun_is_short(void) {
  open_all();
  seen = 0;
  install(SIGUSR1, on_signal, SA_RESTART);
  struct Sleep sleep = {own_tid(), SYS_write, NULL};
  pthread_t thread = start(interrupts_a_write, &sleep);
  ssize_t n = write(pipe_ends[1], big, sizeof big);
  CHECK(n > 0 && n < (ssize_t)sizeof big && seen == 1);
  finish(thread);
  say("%zd", n);
  close_all();
}
static void* interrupts_often(void* argument) {
  const struct Sleep* sleep = argument;
  for (int i = 1; i <= 20; ++i) {
    wait_until_in_call(sleep->tid, sleep->number);
    CHECK(syscall(SYS_tgkill, getpid(), sleep->tid, SIGUSR1) == 0);
    while (seen < i)
      sched_yield();
  }
  wait_until_in_call(sleep->tid, sleep->number);
  sleep->release();
  return NULL;
}
static void restarted_twenty_times(void) {
  open_all();
  seen = 0;
  install(SIGUSR1, on_signal, SA_RESTART);
  struct Sleep sleep = {own_tid(), SYS_read, by_pipe};
  pthread_t thread = start(interrupts_often, &sleep);
  CHECK(in_read() == 1);
  finish(thread);
  CHECK(seen == 20);
  close_all();
}
static volatile long handler_result;
static void on_call_in_handler(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)info, (void)context;
  char byte;
  errno = 0;
  handler_result = read(-1, &byte, 1) == -1 && errno == EBADF;
  ++seen;
}
static void a_handlers_own_calls_change_nothing(void) {
  open_all();
  seen = 0;
  install(SIGUSR1, on_call_in_handler, SA_RESTART);
  struct Sleep sleep = {own_tid(), SYS_read, by_pipe};
  pthread_t thread = start(interrupts_often, &sleep);
  CHECK(in_read() == 1);
  finish(thread);
  CHECK(seen == 20 && handler_result == 1);
  close_all();
}
static void* interrupts_after_a_while(void* argument) {
  const struct Sleep* sleep = argument;
  wait_until_in_call(sleep->tid, sleep->number);
  struct timespec time = {0, 50000000};
  nanosleep(&time, NULL);
  CHECK(syscall(SYS_tgkill, getpid(), sleep->tid, SIGUSR1) == 0);
  return NULL;
}
static void what_is_left_of_a_sleep(void) {
  seen = 0;
  install(SIGUSR1, on_signal, SA_RESTART);
  struct Sleep sleep = {own_tid(), SYS_nanosleep, NULL};
  pthread_t thread = start(interrupts_after_a_while, &sleep);
  struct timespec time = {50, 0}, left = {0, 0};
  double begin = now();
  CHECK_FAILS(syscall(SYS_nanosleep, &time, &left), EINTR);
  double slept = now() - begin;
  finish(thread);
  double rest = (double)left.tv_sec + 1e-9 * (double)left.tv_nsec;
  CHECK(slept >= 0.05 && rest <= 50 - 0.049 && slept + rest >= 50 - 0.001);
}

#define AREA "restarts"
const struct Case cases[] = {
    ROW(read_of_a_pipe, read),
    ROW(readv_of_a_pipe, readv),
    ROW(write_to_a_pipe, write),
    ROW(recv_, recvfrom),
    ROW(recvmsg_, recvmsg),
    ROW(send_, sendto),
    ROW(accept_, accept4),
    ROW(read_of_an_eventfd, read),
    ROW(wait_for_a_child, wait4),
    ROW(waitid_, waitid),
    ROW(futex_, futex),
    ROW(flock_, flock),
    ROW(record_lock, fcntl),
    ROW(open_of_a_fifo, openat),
    ROW(futex_with_a_timeout, futex),
    ROW(msgrcv_, msgrcv),
    ROW(semop_, semop),
    ROW(poll_, poll),
    ROW(poll_with_a_timeout, poll),
    ROW(ppoll_, ppoll),
    ROW(select_, select),
    ROW(pselect_, pselect6),
    ROW(epoll_wait_, epoll_wait),
    ROW(epoll_pwait_, epoll_pwait),
    ROW(nanosleep_, nanosleep),
    ROW(clock_nanosleep_, clock_nanosleep),
    ROW(recv_with_a_timeout, recvfrom),
    ROW(not_by_ignored_or_blocked, poll),
    ROW(a_write_that_has_begun_is_short, write),
    ROW(restarted_twenty_times, read),
    ROW(a_handlers_own_calls_change_nothing, read),
    ROW(what_is_left_of_a_sleep, nanosleep),
};
const size_t case_count = sizeof cases / sizeof *cases;
