// Tries to change every byte of memory that is not its own: a static program knows which mappings
// it has, and all others are a debugger's. By instructions on every page, by read(2) on every page,
// and by the other system calls on the first page of each mapping. Prints what it was let do. What
// can be read is written back as it was, so that it gets to its end where nothing is protected.
//   intruder        as said
//   intruder watched  by an instruction that reads `bait` and stores it in the first and last page of
//   each mapping
//   intruder frame  a signal's frame in the first such mapping that is writable: the kernel kills
//   for it
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <unistd.h>

enum { kPage = 4096, kMost = 64 };
static struct {
  uintptr_t begin, end;
  int writable;
} foreign[kMost];
static int count;
static long pages, stored, read_into;
static sigjmp_buf refused;
static int pipe_out, pipe_in, memory;

static void on_fault(int signal) { siglongjmp(refused, signal); }

static void find_foreign(void) {
  static char text[65536], own[4096];
  const int maps = open("/proc/self/maps", O_RDONLY);
  ssize_t size = 0;
  for (ssize_t n; (n = read(maps, text + size, sizeof text - 1 - (size_t)size)) > 0;)
    size += n;
  close(maps);
  const ssize_t length = readlink("/proc/self/exe", own, sizeof own - 1);
  own[length] = 0;
  for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
    *end = 0;
    unsigned long begin, behind;
    char rights[5];
    if (sscanf(line, "%lx-%lx %4s", &begin, &behind, rights) != 3)
      exit(101);
    const uintptr_t zeroed = (uintptr_t)text; // what of the program is in no file
    if ((zeroed >= begin && zeroed < behind) || strstr(line, own) || strstr(line, "[heap]") ||
        strstr(line, "[stack]") || strstr(line, "[v"))
      continue;
    if (count == kMost)
      exit(102);
    foreign[count].begin = begin;
    foreign[count].end = behind;
    foreign[count++].writable = rights[1] == 'w';
  }
}

// Left to the end of the page where it may have been let: 0 there is what we leave.
static unsigned char load(volatile unsigned char* at) {
  unsigned char value = 0;
  if (sigsetjmp(refused, 1) == 0)
    value = *at;
  return value;
}

static void try_page(uintptr_t page) {
  volatile unsigned char* at = (unsigned char*)page + kPage - 1;
  volatile unsigned char before = load(at);
  pages++;
  if (sigsetjmp(refused, 1) == 0) {
    *at = before;
    stored++;
  }
  const unsigned char byte = before;
  if (write(pipe_in, &byte, 1) != 1)
    exit(103);
  if (read(pipe_out, (void*)at, 1) == 1)
    read_into++;
  else {
    unsigned char rest;
    if (errno != EFAULT || read(pipe_out, &rest, 1) != 1)
      exit(104);
  }
}

unsigned char bait;

static void try_past_watch(uintptr_t page) {
  const void* from = &bait;
  void* to = (void*)(page + kPage - 1);
  bait = load(to);
  pages++;
  if (sigsetjmp(refused, 1) == 0) {
    asm volatile("movsb" : "+S"(from), "+D"(to) : : "memory");
    stored++;
  }
}

// Where a call was made although it names such memory.
static void let(const char* call, uintptr_t page) {
  printf("let: %s at %#lx\n", call, (unsigned long)page);
}

#define REFUSED(wanted, name, made)                                                                \
  do {                                                                                             \
    errno = 0;                                                                                     \
    if ((long)(made) != -1 || errno != (wanted))                                                   \
      let(name, page);                                                                             \
  } while (0)

static void try_calls(uintptr_t page, uintptr_t end) {
  void* at = (void*)page;
  char bytes[16] = "0123456789abcde";
  struct iovec ours = {bytes, 8}, theirs = {at, 8}, both[2] = {{bytes, 1}, {at, 1}};
  struct msghdr message = {.msg_iov = &theirs, .msg_iovlen = 1};
  int sockets[2];
  const int zero = open("/dev/zero", O_RDONLY);
  if (socketpair(AF_UNIX, SOCK_DGRAM, 0, sockets) || send(sockets[0], bytes, 8, 0) != 8)
    exit(105);
  REFUSED(EFAULT, "pread64", pread(zero, at, 8, 0));
  REFUSED(EFAULT, "readv", readv(zero, both, 2));
  REFUSED(EFAULT, "preadv2", preadv2(zero, &theirs, 1, 0, 0));
  REFUSED(EFAULT, "recvmsg", recvmsg(sockets[1], &message, MSG_DONTWAIT));
  REFUSED(EFAULT, "recvfrom", recv(sockets[1], at, 8, MSG_DONTWAIT));
  REFUSED(EFAULT, "process_vm_writev", process_vm_writev(getpid(), &ours, 1, &theirs, 1, 0));
  REFUSED(EFAULT, "process_vm_readv", process_vm_readv(getpid(), &theirs, 1, &ours, 1, 0));
  REFUSED(EFAULT, "getrandom", syscall(SYS_getrandom, at, 8, 0));
  REFUSED(EFAULT, "uname", uname(at));
  REFUSED(EFAULT, "getcwd", syscall(SYS_getcwd, at, 100));
  REFUSED(EFAULT, "readlink", readlink("/proc/self/exe", at, 100));
  REFUSED(EFAULT, "fstat", syscall(SYS_fstat, zero, at));
  REFUSED(EFAULT, "pipe", pipe(at));
  REFUSED(EFAULT, "clock_gettime", syscall(SYS_clock_gettime, 0, at));
  REFUSED(EFAULT, "getrusage", getrusage(RUSAGE_SELF, at));
  REFUSED(EFAULT, "sysinfo", sysinfo(at));
  REFUSED(EFAULT, "rt_sigprocmask", syscall(SYS_rt_sigprocmask, SIG_BLOCK, 0, at, 8));
  REFUSED(EFAULT, "rt_sigaction", syscall(SYS_rt_sigaction, SIGUSR1, 0, at, 8));
  REFUSED(EFAULT, "rt_sigpending", syscall(SYS_rt_sigpending, at, 8));
  REFUSED(EFAULT, "sigaltstack", syscall(SYS_sigaltstack, 0, at));
  REFUSED(EFAULT, "arch_prctl", syscall(SYS_arch_prctl, 0x1003, at));
  REFUSED(EFAULT, "ioctl", syscall(SYS_ioctl, pipe_out, 0x541b, at));
  REFUSED(EFAULT, "futex",
          syscall(SYS_futex, bytes, FUTEX_WAKE_OP, 1, 1, at, FUTEX_OP(FUTEX_OP_SET, 1, 0, 0)));
  REFUSED(EFAULT, "clone",
          syscall(SYS_clone, SIGCHLD | 0x00100000 /* CLONE_PARENT_SETTID */, 0, at, 0, 0));
  REFUSED(ENOMEM, "mprotect", mprotect(at, end - page, PROT_READ | PROT_WRITE));
  REFUSED(ENOMEM, "madvise", madvise(at, end - page, MADV_DONTNEED));
  REFUSED(EFAULT, "mremap", mremap(at, kPage, 2 * kPage, MREMAP_MAYMOVE));
  if (mmap(at, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
      MAP_FAILED)
    let("mmap", page);
  if (munmap(at, kPage) != 0) // a hole, as far as the program can tell
    let("munmap", page);
  if (memory >= 0 && pwrite(memory, bytes, 1, (off_t)page) == 1)
    let("/proc/self/mem", page);
  close(zero);
  close(sockets[0]);
  close(sockets[1]);
}

static void die_of_a_frame(void) {
  for (int i = 0; i < count; i++)
    if (foreign[i].writable && foreign[i].end - foreign[i].begin > 65536) {
      const uintptr_t top = foreign[i].begin + 65536;
      asm volatile("mov %0, %%rsp\n mov %1, %%edi\n mov %2, %%esi\n mov %3, %%eax\n syscall\n ud2"
                   :
                   : "r"(top), "r"(getpid()), "r"(SIGUSR1), "r"(SYS_kill)
                   : "memory");
    }
}

__attribute__((noinline)) void attacked(void) { asm volatile(""); }

int main(int argc, char** argv) {
  struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};
  sigaction(SIGSEGV, &action, NULL);
  sigaction(SIGBUS, &action, NULL);
  int ends[2];
  if (pipe(ends))
    return 106;
  pipe_out = ends[0];
  pipe_in = ends[1];
  find_foreign();
  if (argc > 1 && strcmp(argv[1], "frame") == 0) {
    signal(SIGSEGV, SIG_DFL);
    signal(SIGUSR1, on_fault);
    die_of_a_frame();
    return 107;
  }
  if (argc > 1 && strcmp(argv[1], "watched") == 0) {
    for (int i = 0; i < count; i++) {
      try_past_watch(foreign[i].begin);
      try_past_watch(foreign[i].end - kPage);
    }
    attacked();
    printf("%ld pages: %ld stored to\n", pages, stored);
    return 0;
  }
  for (int i = 0; i < count; i++)
    for (uintptr_t page = foreign[i].begin; page < foreign[i].end; page += kPage)
      try_page(page);
  memory = open("/proc/self/mem", O_RDWR);
  if (memory >= 0)
    puts("let: open /proc/self/mem");
  if (stored == 0)
    for (int i = 0; i < count; i++)
      try_calls(foreign[i].begin, foreign[i].end);
  attacked();
  printf("%d mappings, %ld pages: %ld stored to, %ld read into\n", count, pages, stored, read_into);
  return 0;
}
