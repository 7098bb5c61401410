// Arguments that point nowhere: EFAULT, call by call, and what was done before the bad part is
// kept. The addresses are: unmapped, without rights, the kernel's, not canonical; for what the
// kernel writes also memory that is only readable.
#include "conformance.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>

static char* area; // three pages: usable, without rights, only readable
static int pipe_ends[2], sockets[2], zero, epoll;
static void* unusable(int i) {
  switch (i) {
  case 0:
    return area + 3 * kPage; // unmapped
  case 1:
    return area + kPage;
  case 2:
    return (void*)0xffff800000000000ul;
  case 3:
    return (void*)0x0123456789abcde8ul;
  default:
    return area + 2 * kPage; // only where the kernel writes
  }
}
static void open_all(void) {
  area = new_pages(4);
  munmap(area + 3 * kPage, kPage);
  mprotect(area + kPage, kPage, PROT_NONE);
  mprotect(area + 2 * kPage, kPage, PROT_READ);
  CHECK(pipe2(pipe_ends, O_CLOEXEC) == 0);
  CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0);
  zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
  epoll = epoll_create1(EPOLL_CLOEXEC);
}
static void close_all(void) {
  munmap(area, 3 * kPage);
  close(pipe_ends[0]), close(pipe_ends[1]), close(sockets[0]), close(sockets[1]);
  close(zero), close(epoll);
}

// A case whose calls all answer -EFAULT with `bad`. Without libc, which would look at some
// arguments itself.
#define ANSWERS_EFAULT(name, kinds, ...)                                                           \
  static void name(void) {                                                                         \
    open_all();                                                                                    \
    for (int i = 0; i < (kinds); ++i) {                                                            \
      void* bad = unusable(i);                                                                     \
      (void)bad;                                                                                   \
      CHECK_FAILS(syscall(__VA_ARGS__), EFAULT);                                                   \
    }                                                                                              \
    close_all();                                                                                   \
  }
#define READS(name, ...) ANSWERS_EFAULT(name, 4, __VA_ARGS__)
#define WRITES(name, ...) ANSWERS_EFAULT(name, 5, __VA_ARGS__)

// Files
WRITES(read_into, SYS_read, zero, bad, 64)
READS(write_from, SYS_write, pipe_ends[1], bad, 64)
WRITES(pread_into, SYS_pread64, zero, bad, 64, 0)
READS(readv_list, SYS_readv, zero, bad, 1)
READS(writev_list, SYS_writev, pipe_ends[1], bad, 1)
WRITES(readv_part, SYS_readv, zero, &(struct iovec){bad, 8}, 1)
READS(writev_part, SYS_writev, pipe_ends[1], &(struct iovec){bad, 8}, 1)
READS(openat_path, SYS_openat, AT_FDCWD, bad, O_RDONLY, 0)
READS(open_path, SYS_open, bad, O_RDONLY, 0)
READS(access_path, SYS_access, bad, R_OK)
READS(stat_path, SYS_stat, bad, area)
WRITES(stat_result, SYS_stat, "/", bad)
WRITES(fstat_result, SYS_fstat, zero, bad)
WRITES(statx_result, SYS_statx, AT_FDCWD, "/", 0, STATX_ALL, bad)
WRITES(statfs_result, SYS_statfs, "/", bad)
READS(chdir_path, SYS_chdir, bad)
WRITES(getcwd_result, SYS_getcwd, bad, 4096)
READS(unlink_path, SYS_unlink, bad)
READS(rename_path, SYS_rename, bad, "/nowhere/at/all")
READS(readlink_path, SYS_readlink, bad, area, 100)
WRITES(readlink_result, SYS_readlink, "/proc/self/exe", bad, 100)
WRITES(pipe_result, SYS_pipe2, bad, 0)
WRITES(socketpair_result, SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, bad)
READS(bind_address, SYS_bind, sockets[0], bad, 20)
READS(connect_address, SYS_connect, sockets[0], bad, 20)
WRITES(getsockname_result, SYS_getsockname, sockets[0], bad, &(int){20})
READS(setsockopt_value, SYS_setsockopt, sockets[0], SOL_SOCKET, SO_SNDBUF, bad, 4)
WRITES(getsockopt_length, SYS_getsockopt, sockets[0], SOL_SOCKET, SO_SNDBUF, area, bad)
READS(sendmsg_message, SYS_sendmsg, sockets[0], bad, 0)
READS(sendto_bytes, SYS_sendto, sockets[0], bad, 16, 0, NULL, 0)
READS(recvmsg_message, SYS_recvmsg, sockets[0], bad, MSG_DONTWAIT)
READS(epoll_ctl_event, SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, pipe_ends[0], bad)
WRITES(poll_list, SYS_poll, bad, 1, 0)
READS(ppoll_timeout, SYS_ppoll, NULL, 0, bad, NULL, 8)
READS(ppoll_mask, SYS_ppoll, NULL, 0, &(struct timespec){0, 0}, bad, 8)
WRITES(select_set, SYS_select, 3, bad, NULL, NULL, &(struct timeval){0, 0})
WRITES(sendfile_offset, SYS_sendfile, sockets[0], zero, bad, 16)
// Signals
READS(sigaction_new, SYS_rt_sigaction, SIGUSR1, bad, NULL, 8)
WRITES(sigaction_old, SYS_rt_sigaction, SIGUSR1, NULL, bad, 8)
READS(sigprocmask_new, SYS_rt_sigprocmask, SIG_BLOCK, bad, NULL, 8)
WRITES(sigprocmask_old, SYS_rt_sigprocmask, SIG_BLOCK, NULL, bad, 8)
WRITES(sigpending_result, SYS_rt_sigpending, bad, 8)
READS(sigsuspend_mask, SYS_rt_sigsuspend, bad, 8)
READS(sigtimedwait_set, SYS_rt_sigtimedwait, bad, NULL, NULL, 8)
READS(sigtimedwait_timeout, SYS_rt_sigtimedwait, &(uint64_t){1ul << (SIGUSR1 - 1)}, NULL, bad, 8)
READS(sigqueue_info, SYS_rt_sigqueueinfo, getpid(), SIGUSR1, bad)
READS(sigaltstack_new, SYS_sigaltstack, bad, NULL)
WRITES(sigaltstack_old, SYS_sigaltstack, NULL, bad)
READS(signalfd_mask, SYS_signalfd4, -1, bad, 8, 0)
// Time
READS(nanosleep_time, SYS_nanosleep, bad, NULL)
READS(clock_nanosleep_time, SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, bad, NULL)
WRITES(clock_gettime_result, SYS_clock_gettime, CLOCK_MONOTONIC, bad)
WRITES(clock_getres_result, SYS_clock_getres, CLOCK_MONOTONIC, bad)
WRITES(gettimeofday_result, SYS_gettimeofday, bad, NULL)
WRITES(time_result, SYS_time, bad)
WRITES(times_result, SYS_times, bad)
READS(setitimer_new, SYS_setitimer, ITIMER_REAL, bad, NULL)
WRITES(getitimer_result, SYS_getitimer, ITIMER_REAL, bad)
READS(timer_create_event, SYS_timer_create, CLOCK_MONOTONIC, bad, area)
WRITES(timer_create_result, SYS_timer_create, CLOCK_MONOTONIC, NULL, bad)
// Processes and threads
READS(execve_path, SYS_execve, bad, NULL, NULL)
READS(execve_arguments, SYS_execve, "/proc/self/exe", bad, NULL)
WRITES(futex_word, SYS_futex, bad, FUTEX_WAIT, 0, &(struct timespec){0, 1}, NULL, 0)
READS(futex_timeout, SYS_futex, area, FUTEX_WAIT, 0, bad, NULL, 0)
READS(futex_second_word, SYS_futex, area, FUTEX_CMP_REQUEUE, 1, 1, bad, 0)
READS(clone3_arguments, SYS_clone3, bad, 64)
WRITES(uname_result, SYS_uname, bad)
WRITES(sysinfo_result, SYS_sysinfo, bad)
WRITES(getrusage_result, SYS_getrusage, RUSAGE_SELF, bad)
WRITES(getrlimit_result, SYS_getrlimit, RLIMIT_NOFILE, bad)
READS(prlimit_new, SYS_prlimit64, 0, RLIMIT_NOFILE, bad, NULL)
READS(prctl_name, SYS_prctl, 15 /* PR_SET_NAME */, bad, 0, 0, 0)
WRITES(prctl_name_result, SYS_prctl, 16 /* PR_GET_NAME */, bad, 0, 0, 0)
WRITES(arch_prctl_result, SYS_arch_prctl, 0x1003 /* ARCH_GET_FS */, bad)
WRITES(getresuid_result, SYS_getresuid, bad, bad, bad)
WRITES(sched_getaffinity_result, SYS_sched_getaffinity, 0, 128, bad)
READS(sched_setparam_value, SYS_sched_setparam, 0, bad)
WRITES(getrandom_result, SYS_getrandom, bad, 16, 0)
WRITES(robust_list_result, SYS_get_robust_list, 0, bad, area)
WRITES(mincore_result, SYS_mincore, area, 4096, bad)

// Calls with a part that is there.
static void read_up_to_the_hole(void) {
  open_all();
  char* p = area + kPage - 10;
  CHECK(read(zero, p, 64) == 10 || errno == EFAULT); // how much is the device's
  CHECK(write(pipe_ends[1], "0123456789abcdef", 16) == 16);
  CHECK_FAILS(read(pipe_ends[0], area + kPage, 16), EFAULT);
  char rest[32];
  CHECK(read(pipe_ends[0], rest, sizeof rest) == 16 && memcmp(rest, "0123456789abcdef", 16) == 0);
  close_all();
}
static void write_up_to_the_hole(void) {
  open_all();
  memset(area, 'x', kPage);
  ssize_t n = write(pipe_ends[1], area + kPage - 10, 64);
  say("%zd", n);
  CHECK(n == 10 || (n == -1 && errno == EFAULT));
  close_all();
}
static void the_second_part_is_bad(void) {
  open_all();
  CHECK(write(sockets[0], "0123456789", 10) == 10);
  struct iovec parts[] = {{area, 4}, {area + kPage, 4}};
  ssize_t n = readv(zero, parts, 2);
  say("readv %zd", n);
  n = writev(pipe_ends[1], parts, 2);
  say("writev %zd", n);
  close_all();
}
static void a_path_up_to_the_hole(void) {
  open_all();
  memcpy(area + kPage - 4, "/tmp", 4); // no end within the page
  CHECK_FAILS(open(area + kPage - 4, O_RDONLY), EFAULT);
  CHECK_FAILS(syscall(SYS_open, area + kPage - 4, O_RDONLY), EFAULT);
  memcpy(area + kPage - 5, "/tmp", 5);
  int fd = open(area + kPage - 5, O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  close(fd);
  close_all();
}
static void wait_reaps_although_it_cannot_tell(void) {
  open_all();
  pid_t child = fork();
  if (child == 0)
    _exit(3);
  CHECK_FAILS(syscall(SYS_wait4, child, area + kPage, 0, NULL), EFAULT);
  CHECK_FAILS(waitpid(child, NULL, 0), ECHILD);
  close_all();
}
static void epoll_wait_result(void) {
  open_all();
  struct epoll_event event = {.events = EPOLLIN};
  CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, zero, &event) == -1 && errno == EPERM);
  CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, pipe_ends[0], &event) == 0);
  CHECK(write(pipe_ends[1], "x", 1) == 1);
  for (int i = 0; i < 5; ++i)
    CHECK_FAILS(syscall(SYS_epoll_wait, epoll, unusable(i), 1, 0), EFAULT);
  close_all();
}
static void the_kernel_answers_no_signal(void) {
  open_all();
  install(SIGSEGV, (Handler)(void (*)(void))abort, 0);
  for (int i = 0; i < 5; ++i)
    CHECK_FAILS(read(zero, unusable(i), 8), EFAULT);
  close_all();
}

#define AREA "pointers"
const struct Case cases[] = {
    ROW(read_into, read),
    ROW(write_from, write),
    ROW(pread_into, pread64),
    ROW(readv_list, readv),
    ROW(writev_list, writev),
    ROW(readv_part, readv),
    ROW(writev_part, writev),
    ROW(openat_path, openat),
    ROW(open_path, open),
    ROW(access_path, access),
    ROW(stat_path, stat),
    ROW(stat_result, stat),
    ROW(fstat_result, fstat),
    ROW(statx_result, statx),
    ROW(statfs_result, statfs),
    ROW(chdir_path, chdir),
    ROW(getcwd_result, getcwd),
    ROW(unlink_path, unlink),
    ROW(rename_path, rename),
    ROW(readlink_path, readlink),
    ROW(readlink_result, readlink),
    ROW(pipe_result, pipe2),
    ROW(socketpair_result, socketpair),
    ROW(bind_address, bind),
    ROW(connect_address, connect),
    ROW(getsockname_result, getsockname),
    ROW(setsockopt_value, setsockopt),
    ROW(getsockopt_length, getsockopt),
    ROW(sendmsg_message, sendmsg),
    ROW(sendto_bytes, sendto),
    ROW(recvmsg_message, recvmsg),
    ROW(epoll_ctl_event, epoll_ctl),
    ROW(poll_list, poll),
    ROW(ppoll_timeout, ppoll),
    ROW(ppoll_mask, ppoll),
    ROW(select_set, select),
    ROW(sendfile_offset, sendfile),
    ROW(sigaction_new, rt_sigaction),
    ROW(sigaction_old, rt_sigaction),
    ROW(sigprocmask_new, rt_sigprocmask),
    ROW(sigprocmask_old, rt_sigprocmask),
    ROW(sigpending_result, rt_sigpending),
    ROW(sigsuspend_mask, rt_sigsuspend),
    ROW(sigtimedwait_set, rt_sigtimedwait),
    ROW(sigtimedwait_timeout, rt_sigtimedwait),
    ROW(sigqueue_info, rt_sigqueueinfo),
    ROW(sigaltstack_new, sigaltstack),
    ROW(sigaltstack_old, sigaltstack),
    ROW(signalfd_mask, signalfd4),
    ROW(nanosleep_time, nanosleep),
    ROW(clock_nanosleep_time, clock_nanosleep),
    ROW(clock_gettime_result, clock_gettime),
    ROW(clock_getres_result, clock_getres),
    ROW(gettimeofday_result, gettimeofday),
    ROW(time_result, time),
    ROW(times_result, times),
    ROW(setitimer_new, setitimer),
    ROW(getitimer_result, getitimer),
    ROW(timer_create_event, timer_create),
    ROW(timer_create_result, timer_create),
    ROW(execve_path, execve),
    ROW(execve_arguments, execve),
    ROW(futex_word, futex),
    ROW(futex_timeout, futex),
    ROW(futex_second_word, futex),
    ROW(clone3_arguments, clone3),
    ROW(uname_result, uname),
    ROW(sysinfo_result, sysinfo),
    ROW(getrusage_result, getrusage),
    ROW(getrlimit_result, getrlimit),
    ROW(prlimit_new, prlimit64),
    ROW(prctl_name, prctl),
    ROW(prctl_name_result, prctl),
    ROW(arch_prctl_result, arch_prctl),
    ROW(getresuid_result, getresuid),
    ROW(sched_getaffinity_result, sched_getaffinity),
    ROW(sched_setparam_value, sched_setparam),
    ROW(getrandom_result, getrandom),
    ROW(robust_list_result, get_robust_list),
    ROW(mincore_result, mincore),
    ROW(read_up_to_the_hole, read),
    ROW(write_up_to_the_hole, write),
    ROW(the_second_part_is_bad, readv writev),
    ROW(a_path_up_to_the_hole, open openat),
    ROW(wait_reaps_although_it_cannot_tell, wait4),
    ROW(epoll_wait_result, epoll_wait),
    ROW(the_kernel_answers_no_signal, read),
};
const size_t case_count = sizeof cases / sizeof *cases;
