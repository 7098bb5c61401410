// What a process is and has: descriptors and their limits, identity, prctl, limits, /proc/self, and
// that nothing else shows in there.
#include "conformance.h"

#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>

// --- Descriptors --------------------------------------------------------------------------------
// Those that are open, without the one that is needed to see them.
static int open_descriptors(int* highest) {
  int count = 0;
  *highest = -1;
  DIR* folder = opendir("/proc/self/fd");
  CHECK(folder != NULL);
  for (struct dirent* entry; folder && (entry = readdir(folder));)
    if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(folder)) {
      ++count;
      if (atoi(entry->d_name) > *highest)
        *highest = atoi(entry->d_name);
    }
  if (folder)
    closedir(folder);
  return count;
}
static void descriptors_at_the_start(void) {
  // Of 0 to 2 and what the test's runner has left open; ours are not to be seen.
  int highest;
  open_descriptors(&highest);
  int counted = 0;
  for (int fd = 0; fd < 20000; ++fd)
    counted += fcntl(fd, F_GETFD) >= 0;
  CHECK(counted == open_descriptors(&highest));
  say("%d", counted);
}
static int listed_descriptors(const char* path, int fd) {
  char entries[64]; // for two at most
  int count = 0;
  for (long n; (n = syscall(SYS_getdents, fd, entries, sizeof entries)) != 0;) {
    CHECK(n > 0);
    for (long at = 0; at < n; at += *(unsigned short*)(entries + at + 16))
      count += entries[at + 18] != '.';
    if (n < 0)
      break;
  }
  say("%s %d", strrchr(path, '/') + 1, count);
  return count;
}
static void descriptors_in_small_parts(void) {
  const char* paths[] = {"/proc/self/fd", "/proc/self/fdinfo", "/proc/thread-self/fd"};
  int highest, without = open_descriptors(&highest);
  for (int i = 0; i < 3; ++i) {
    int fd = open(paths[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(listed_descriptors(paths[i], fd) == without + 1);
    close(fd);
  }
  CHECK_FAILS(syscall(SYS_getdents, 999, &highest, sizeof highest), EBADF);
}
static void the_lowest_is_taken(void) {
  int a = open("/dev/null", O_RDONLY), b = open("/dev/null", O_RDONLY);
  CHECK(a >= 3 && b == a + 1);
  close(a);
  CHECK(open("/dev/null", O_RDONLY) == a);
  CHECK(fcntl(b, F_DUPFD, 100) == 100 && fcntl(b, F_DUPFD, 100) == 101);
  CHECK(fcntl(b, F_DUPFD_CLOEXEC, 100) == 102 && fcntl(102, F_GETFD) == FD_CLOEXEC);
  close(a), close(b), close(100), close(101), close(102);
}
static void dup2_takes_any(void) {
  struct rlimit limit;
  CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  int last = (int)limit.rlim_cur - 1;
  for (int fd = 3; fd <= last; fd += fd < 20 || fd > last - 20 ? 1 : 97) {
    int was_open = fcntl(fd, F_GETFD) >= 0;
    if (was_open)
      continue;
    CHECK(dup2(0, fd) == fd && close(fd) == 0);
  }
  CHECK(dup2(0, last) == last && close(last) == 0);
  CHECK_FAILS(dup2(0, last + 1), EBADF);
  CHECK_FAILS(dup2(999, 5), EBADF);
  CHECK_FAILS(dup3(0, 0, 0), EINVAL);
}
static void close_range_closes_all_above(void) {
  int highest;
  CHECK(dup2(0, 50) == 50 && dup2(0, 51) == 51 && dup2(0, 200) == 200);
  CHECK(syscall(SYS_close_range, 51, 100, 0) == 0);
  CHECK(fcntl(50, F_GETFD) >= 0 && fcntl(200, F_GETFD) >= 0);
  CHECK_FAILS(fcntl(51, F_GETFD), EBADF);
  CHECK(syscall(SYS_close_range, 50, ~0u, 4 /* CLOSE_RANGE_CLOEXEC */) == 0);
  CHECK(fcntl(200, F_GETFD) == FD_CLOEXEC);
  CHECK(syscall(SYS_close_range, 3, ~0u, 0) == 0);
  CHECK(open_descriptors(&highest) == 3 && highest == 2);
  CHECK_FAILS(syscall(SYS_close_range, 100, 50, 0), EINVAL);
  CHECK_FAILS(syscall(SYS_close_range, 3, ~0u, 128), EINVAL);
  CHECK(kill(getpid(), 0) == 0); // and on it goes
}
// Among them those that something else in the process might have taken.
static void numbers_that_are_not_open(void) {
  struct rlimit limit;
  CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
  CHECK(self >= 0);
  const int commands[] = {F_GETFD,
                          F_GETFL,
                          F_GETLK,
                          F_SETLK,
                          F_SETLKW,
                          F_OFD_GETLK,
                          F_OFD_SETLK,
                          F_OFD_SETLKW,
                          F_SETOWN_EX,
                          F_GETOWN_EX,
                          17 /* F_GETOWNER_UIDS */,
                          F_GET_RW_HINT,
                          F_SET_RW_HINT,
                          F_GET_FILE_RW_HINT,
                          F_SET_FILE_RW_HINT};
  const int first = (int)(limit.rlim_cur / 4 * 3);
  for (int fd = first; fd < first + 50; ++fd) {
    uint64_t room[8] = {0};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; ++i)
      CHECK_FAILS(fcntl(fd, commands[i], room), EBADF);
    CHECK_FAILS(dup(fd), EBADF);
    CHECK_FAILS(dup2(fd, fd), EBADF);
    CHECK_FAILS(dup3(fd, 70, 0), EBADF);
    CHECK_FAILS(syscall(SYS_pidfd_getfd, self, fd, 0), EBADF);
  }
  close(self);
}
// Of what a processor in a guest does not have, each asked for in the way that anybody may.
static void descriptor_table_of_the_process(void) {
  uint64_t entry = 0;
  say("%ld", syscall(SYS_modify_ldt, 0, &entry, sizeof entry));
}
static void io_ports(void) {
  say("%ld %ld", syscall(SYS_iopl, 0), syscall(SYS_ioperm, 0x80, 1, 0));
}
static void system_call_dispatch(void) {
  say("%d", prctl(59 /* PR_SET_SYSCALL_USER_DISPATCH */, 0, 0, 0, 0));
}
static void close_one_by_one(void) {
  int highest;
  for (int fd = 3; fd < 20000; ++fd)
    close(fd);
  CHECK(open_descriptors(&highest) == 3);
}
static void* opens_nothing(void* unused) {
  int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 3 && close(fd) == 0);
  return unused;
}
static void threads_after_all_is_closed(void) {
  CHECK(syscall(SYS_close_range, 3, ~0u, 0) == 0);
  for (int i = 0; i < 10; ++i)
    finish(start(opens_nothing, NULL));
  pid_t child = fork();
  if (child == 0)
    _exit(5);
  CHECK(status_of(child) == 5 << 8);
}
static void small_limit_of_descriptors(void) {
  struct rlimit old, small;
  CHECK(getrlimit(RLIMIT_NOFILE, &old) == 0);
  int first = open("/dev/null", O_RDONLY | O_CLOEXEC);
  small = old;
  small.rlim_cur = (rlim_t)first + 1;
  CHECK(setrlimit(RLIMIT_NOFILE, &small) == 0);
  CHECK_FAILS(open("/dev/null", O_RDONLY | O_CLOEXEC), EMFILE);
  CHECK_FAILS(dup(0), EMFILE);
  int ends[2];
  CHECK_FAILS(pipe(ends), EMFILE);
  CHECK_FAILS(epoll_create1(0), EMFILE);
  CHECK_FAILS(socket(AF_UNIX, SOCK_STREAM, 0), EMFILE);
  CHECK_FAILS(dup2(0, first + 5), EBADF);
  CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
  close(first);
}
static void* needs_no_descriptor(void* unused) { return unused; }
static void threads_and_children_without_descriptors(void) {
  struct rlimit old, none;
  CHECK(getrlimit(RLIMIT_NOFILE, &old) == 0);
  none = old;
  none.rlim_cur = 0;
  CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
  for (int i = 0; i < 5; ++i)
    finish(start(needs_no_descriptor, NULL));
  pid_t child = fork();
  if (child == 0)
    _exit(5);
  CHECK(status_of(child) == 5 << 8);
  CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
}
static void descriptors_are_passed(void) {
  int sockets[2], file = memfd_create("passed", MFD_CLOEXEC);
  CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0 &&
        write(file, "text", 4) == 4);
  char byte = 'x';
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control;
  struct iovec part = {&byte, 1};
  struct msghdr message = {.msg_iov = &part,
                           .msg_iovlen = 1,
                           .msg_control = control.bytes,
                           .msg_controllen = sizeof control.bytes};
  memset(&control, 0, sizeof control);
  control.header.cmsg_level = SOL_SOCKET;
  control.header.cmsg_type = SCM_RIGHTS;
  control.header.cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(&control.header), &file, sizeof file);
  CHECK(sendmsg(sockets[0], &message, 0) == 1);
  CHECK(recvmsg(sockets[1], &message, MSG_CMSG_CLOEXEC) == 1);
  int got = -1;
  memcpy(&got, CMSG_DATA(&control.header), sizeof got);
  char text[4];
  CHECK(got != file && pread(got, text, 4, 0) == 4 && memcmp(text, "text", 4) == 0);
  close(got), close(file), close(sockets[0]), close(sockets[1]);
}
static void pidfd_of_itself(void) {
  int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
  CHECK(fd >= 0);
  int copy = (int)syscall(SYS_pidfd_getfd, fd, 0, 0);
  say("%s", copy >= 0 ? "copied" : strerror(errno));
  if (copy >= 0)
    close(copy);
  CHECK_FAILS(syscall(SYS_pidfd_open, 0x3fffffff, 0), ESRCH);
  close(fd);
}

// --- Who it is ----------------------------------------------------------------------------------
static void ids_agree(void) {
  CHECK(syscall(SYS_getpid) == getpid() && own_tid() == getpid());
  CHECK(getpgid(0) == getpgrp() && getsid(0) == getsid(getpid()) && getsid(0) >= 0);
  uid_t real, effective, saved;
  CHECK(getresuid(&real, &effective, &saved) == 0 && real == getuid() && effective == geteuid());
  char link[64];
  ssize_t n = readlink("/proc/self", link, sizeof link - 1);
  link[n > 0 ? n : 0] = 0;
  CHECK(atoi(link) == getpid());
  CHECK_FAILS(getpgid(0x3fffffff), ESRCH);
  CHECK_FAILS(setpgid(-1, 0), EINVAL);
}
static void groups_and_sessions(void) {
  pid_t child = vfork();
  if (child == 0) {
    int wrong = setsid() != getpid();
    wrong |= (getpgrp() != getpid() || getsid(0) != getpid()) << 1;
    wrong |= (setsid() != -1 || errno != EPERM) << 2;
    _exit(wrong);
  }
  CHECK(status_of(child) == 0);
}
static int shown_in_status(const char* format) {
  char line[256];
  int value = -1;
  FILE* status = fopen("/proc/self/status", "re");
  while (status && fgets(line, sizeof line, status))
    sscanf(line, format, &value);
  if (status)
    fclose(status);
  return value;
}
static void not_traced(void) { CHECK(shown_in_status("TracerPid: %d") == 0); }
static void one_thread(void) { CHECK(shown_in_status("Threads: %d") == 1); }
static void own_executable(void) {
  char path[4096];
  ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
  CHECK(n > 0);
  path[n > 0 ? n : 0] = 0;
  struct stat a, b;
  CHECK(stat(path, &a) == 0 && stat("/proc/self/exe", &b) == 0 && a.st_ino == b.st_ino);
  char name[16], comm[32] = "";
  CHECK(prctl(PR_GET_NAME, name) == 0);
  int fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
  n = read(fd, comm, sizeof comm - 1);
  close(fd);
  CHECK(n > 1 && strncmp(comm, name, (size_t)n - 1) == 0);
  CHECK(strncmp(strrchr(path, '/') + 1, name, 15) == 0);
}
static void command_line_and_auxiliary_vector(void) {
  char line[256] = "";
  int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
  CHECK(read(fd, line, sizeof line - 1) > 0);
  close(fd);
  CHECK(strcmp(line, program_invocation_name) == 0);
  Elf64_auxv_t entries[64];
  fd = open("/proc/self/auxv", O_RDONLY | O_CLOEXEC);
  ssize_t n = read(fd, entries, sizeof entries);
  close(fd);
  CHECK(n > 0);
  for (ssize_t i = 0; i < n / (ssize_t)sizeof *entries && entries[i].a_type != AT_NULL; ++i)
    CHECK(entries[i].a_type == AT_HWCAP || // which glibc keeps for itself
          getauxval(entries[i].a_type) == entries[i].a_un.a_val);
  CHECK(getauxval(AT_SYSINFO_EHDR) != 0 &&
        memcmp((void*)getauxval(AT_SYSINFO_EHDR), ELFMAG, 4) == 0);
}
static void names(void) {
  char name[17] = "";
  CHECK(prctl(PR_SET_NAME, "a long name that is cut off") == 0);
  CHECK(prctl(PR_GET_NAME, name) == 0 && strcmp(name, "a long name tha") == 0);
  CHECK(prctl(PR_SET_NAME, "state") == 0);
}
static void prctl_answers(void) {
  CHECK(prctl(PR_GET_DUMPABLE) == 1 && prctl(PR_SET_DUMPABLE, 0) == 0);
  CHECK(prctl(PR_GET_DUMPABLE) == 0 && prctl(PR_SET_DUMPABLE, 1) == 0);
  CHECK_FAILS(prctl(PR_SET_DUMPABLE, 7), EINVAL);
  CHECK_FAILS(prctl(0x7fffffff), EINVAL);
  int signal = -1;
  CHECK(prctl(PR_SET_PDEATHSIG, SIGUSR1) == 0 && prctl(PR_GET_PDEATHSIG, &signal) == 0 &&
        signal == SIGUSR1 && prctl(PR_SET_PDEATHSIG, 0) == 0);
  CHECK_FAILS(prctl(PR_SET_PDEATHSIG, 100), EINVAL);
  CHECK(prctl(PR_SET_TIMERSLACK, 70000) == 0 && prctl(PR_GET_TIMERSLACK) == 70000 &&
        prctl(PR_SET_TIMERSLACK, 0) == 0);
  CHECK(prctl(PR_GET_SECCOMP) == 0);
  int tsc = 0;
  CHECK(prctl(PR_GET_TSC, &tsc) == 0 && tsc == PR_TSC_ENABLE);
}
static void no_new_privileges(void) {
  CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
  CHECK_FAILS(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), EINVAL);
}
static void persona(void) {
  int old = personality(0xffffffff);
  say("%#x", old & ~ADDR_NO_RANDOMIZE); // debuggers have that
  CHECK(personality((unsigned long)old | READ_IMPLIES_EXEC) == old);
  char* p = mmap(NULL, kPage, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(mapped_as(p, "r-xp"));
  munmap(p, kPage);
  CHECK(personality((unsigned long)old) == (old | READ_IMPLIES_EXEC));
}
static void limits(void) {
  struct rlimit a, b;
  for (int i = 0; i < RLIM_NLIMITS; ++i) {
    CHECK(syscall(SYS_getrlimit, i, &a) == 0 && prlimit(0, i, NULL, &b) == 0);
    CHECK(a.rlim_cur == b.rlim_cur && a.rlim_max == b.rlim_max);
    CHECK(syscall(SYS_setrlimit, i, &a) == 0);
  }
  CHECK_FAILS(getrlimit(99, &a), EINVAL);
  a.rlim_cur = 2, a.rlim_max = 1;
  CHECK_FAILS(syscall(SYS_setrlimit, RLIMIT_CORE, &a), EINVAL);
}
static void working_directory_and_umask(void) {
  char before[4096], inside[4096];
  CHECK(getcwd(before, sizeof before) != NULL && chdir("/proc") == 0);
  CHECK(getcwd(inside, sizeof inside) != NULL && strcmp(inside, "/proc") == 0 &&
        chdir(before) == 0);
  CHECK_FAILS(chdir("/nowhere/at/all"), ENOENT);
  mode_t old = umask(0123);
  CHECK(umask(old) == 0123);
}
static void scheduling(void) {
  cpu_set_t set;
  CHECK(sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) >= 1);
  CHECK(sched_setaffinity(0, sizeof set, &set) == 0);
  CHECK(sched_getscheduler(0) == SCHED_OTHER && sched_yield() == 0);
  for (int processor = 0; processor < CPU_SETSIZE; ++processor)
    if (CPU_ISSET(processor, &set)) {
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(processor, &one);
      unsigned by_call = ~0u;
      CHECK(sched_setaffinity(0, sizeof one, &one) == 0 && sched_getcpu() == processor);
      CHECK(syscall(SYS_getcpu, &by_call, NULL, NULL) == 0 && by_call == (unsigned)processor);
    }
  CHECK(sched_setaffinity(0, sizeof set, &set) == 0);
  errno = 0;
  int nice_value = getpriority(PRIO_PROCESS, 0);
  CHECK(errno == 0 && setpriority(PRIO_PROCESS, 0, nice_value) == 0);
  CHECK_FAILS(sched_setscheduler(0, 99, &(struct sched_param){0}), EINVAL);
}
static void times_of_the_process(void) {
  struct timespec a, b;
  struct rusage usage;
  CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a) == 0);
  for (volatile int i = 0; i < 3000000; ++i)
    ;
  CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b) == 0);
  CHECK((b.tv_sec - a.tv_sec) * 1000000000l + (b.tv_nsec - a.tv_nsec) > 100000);
  CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a) == 0 && getrusage(RUSAGE_THREAD, &usage) == 0);
  CHECK_FAILS(getrusage(99, &usage), EINVAL);
  CHECK_FAILS(clock_gettime(99, &a), EINVAL);
}
static void machine(void) {
  struct utsname name;
  CHECK(uname(&name) == 0 && strcmp(name.sysname, "Linux") == 0 &&
        strcmp(name.machine, "x86_64") == 0);
  char bytes[32] = {0}, zeros[32] = {0};
  CHECK(syscall(SYS_getrandom, bytes, sizeof bytes, 0) == sizeof bytes &&
        memcmp(bytes, zeros, sizeof bytes) != 0);
}
static void capabilities(void) {
  struct {
    uint32_t version;
    int pid;
  } header = {0x20080522, 0};
  uint32_t data[6];
  CHECK(syscall(SYS_capget, &header, data) == 0);
  header.version = 1;
  CHECK_FAILS(syscall(SYS_capget, &header, data), EINVAL);
  CHECK(header.version == 0x20080522);
}
// Lets a call fail with 33, all others pass.
struct RefusingFilter {
  struct {
    uint16_t code;
    uint8_t jt, jf;
    uint32_t k;
  } lines[4];
  struct {
    unsigned short length;
    void* lines;
  } program;
};
static void* refuse(struct RefusingFilter* f, uint32_t number) {
  *f = (struct RefusingFilter){{{0x20, 0, 0, 0},
                                {0x15, 0, 1, number},
                                {0x06, 0, 0, 0x00050000 | 33},
                                {0x06, 0, 0, 0x7fff0000}},
                               {4, f->lines}};
  return &f->program;
}
// One filter by each of the calls that install one.
static void confine(uint32_t refused_first, uint32_t refused_then) {
  struct RefusingFilter filter;
  CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  CHECK(prctl(PR_SET_SECCOMP, 2, refuse(&filter, refused_first)) == 0);
  CHECK_FAILS(syscall(refused_first, 0, NULL, NULL, 8), 33);
  CHECK(syscall(SYS_seccomp, 1 /* SECCOMP_SET_MODE_FILTER */, 0, refuse(&filter, refused_then)) ==
        0);
  CHECK_FAILS(syscall(refused_first, 0, NULL, NULL, 8), 33);
  CHECK_FAILS(syscall(refused_then, NULL, NULL), 33);
}
static void seccomp_filter(void) {
  confine(SYS_getppid, SYS_getpgrp);
  CHECK(getpid() > 0 && prctl(PR_GET_SECCOMP) == 2);
}
static void seccomp_filter_on_signals(void) { confine(SYS_rt_sigprocmask, SYS_sigaltstack); }

#define AREA "state"
const struct Case cases[] = {
    ALONE(descriptors_at_the_start, openat fcntl getdents64),
    ALONE(descriptors_in_small_parts, getdents),
    ROW(the_lowest_is_taken, openat close fcntl),
    ROW(dup2_takes_any, dup2 close),
    ALONE(close_range_closes_all_above, close_range),
    ALONE(close_one_by_one, close),
    ALONE(threads_after_all_is_closed, close_range clone clone3),
    ROW(small_limit_of_descriptors, prlimit64),
    ROW(threads_and_children_without_descriptors, prlimit64 clone clone3),
    ROW(descriptors_are_passed, sendmsg recvmsg),
    ROW(pidfd_of_itself, pidfd_open pidfd_getfd),
    ROW(ids_agree, getpid gettid getpgid getsid getresuid),
    ROW(groups_and_sessions, setsid),
    ROW(not_traced, openat read),
    ROW(one_thread, openat read),
    ROW(own_executable, readlink prctl),
    ROW(command_line_and_auxiliary_vector, openat read),
    ROW(names, prctl),
    ROW(prctl_answers, prctl),
    ALONE(no_new_privileges, prctl),
    ROW(numbers_that_are_not_open, fcntl dup dup2 dup3 pidfd_getfd),
    ROW(descriptor_table_of_the_process, modify_ldt),
    ROW(io_ports, iopl ioperm),
    ROW(system_call_dispatch, prctl),
    ROW(persona, personality),
    ROW(limits, getrlimit setrlimit prlimit64),
    ROW(working_directory_and_umask, chdir getcwd umask),
    ROW(scheduling, sched_getaffinity sched_setaffinity getcpu),
    ROW(times_of_the_process, clock_gettime getrusage),
    ROW(machine, uname getrandom),
    ROW(capabilities, capget),
    ALONE(seccomp_filter, prctl seccomp),
    ALONE(seccomp_filter_on_signals, prctl seccomp),
};
const size_t case_count = sizeof cases / sizeof *cases;
