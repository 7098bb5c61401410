// A program for odd_processes_test.py: odd MODE. Goes on until its standard input ends.
#include <errno.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

volatile long ticks, births, continued;

void tick(void) { ticks++; }

static void on_continue(int signal) {
  (void)signal;
  continued++;
}

static void* spinning(void* unused) {
  for (;;)
    tick();
  return unused;
}

static void* short_lived(void* unused) {
  births++;
  return unused;
}

// From here on a call that is not in the list is answered by `action`.
static void confine(unsigned action, const int* allowed, size_t count) {
  struct sock_filter filter[32] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0)};
  for (size_t i = 0; i < count; ++i)
    filter[i + 1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)allowed[i],
                                                 (unsigned char)(count - i), 0);
  filter[count + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action);
  filter[count + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  struct sock_fprog program = {(unsigned short)(count + 3), filter};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
    abort();
}

static void confine_as(const char* mode) {
  // The last are what a debugger inside needs, and what it needs to run the program in a guest.
  static const int calls[] = {SYS_read,        SYS_write,           SYS_poll,         SYS_exit,
                              SYS_exit_group,  SYS_restart_syscall, SYS_rt_sigreturn, SYS_futex,
                              SYS_sigaltstack, SYS_rt_sigprocmask,
                              SYS_ioctl,       SYS_openat,          SYS_pread64,      SYS_fcntl,
                              SYS_mmap,        SYS_mprotect,        SYS_madvise,      SYS_arch_prctl,
                              SYS_rt_sigtimedwait};
  const size_t count = strstr(mode, "guest") ? 19 : strstr(mode, "open") ? 10 : 6;
  if (strstr(mode, "kill"))
    confine(SECCOMP_RET_KILL_PROCESS, calls, count);
  if (strstr(mode, "trap"))
    confine(SECCOMP_RET_TRAP, calls, count);
  if (strstr(mode, "errno"))
    confine(SECCOMP_RET_ERRNO | EPERM, calls, count);
  if (strstr(mode, "strict")) {
    char c;
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
    write(STDOUT_FILENO, "started\n", 8);
    while (read(STDIN_FILENO, &c, 1) > 0 && c != '\n')
      ;
    syscall(SYS_exit, 3);
  }
}

// A read that a thread of the kernel's waits in for us: it is listed among ours.
static void read_by_worker(void) {
  int ends[2];
  struct io_uring_params params;
  memset(&params, 0, sizeof params);
  const int ring = (int)syscall(SYS_io_uring_setup, 1, &params);
  if (ring < 0 || pipe(ends) != 0) {
    puts("no io_uring");
    exit(77);
  }
  const size_t size = params.sq_off.array + sizeof(unsigned);
  char* queue = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
  struct io_uring_sqe* call =
      mmap(NULL, sizeof *call, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
  static char byte;
  if (queue == MAP_FAILED || call == MAP_FAILED)
    abort();
  call->opcode = IORING_OP_READ;
  call->flags = IOSQE_ASYNC;
  call->fd = ends[0];
  call->addr = (unsigned long)&byte;
  call->len = 1;
  *(unsigned*)(queue + params.sq_off.array) = 0;
  __atomic_store_n((unsigned*)(queue + params.sq_off.tail), 1, __ATOMIC_RELEASE);
  if (syscall(SYS_io_uring_enter, ring, 1, 0, 0, NULL, 0) != 1)
    abort();
}

int main(int argc, char** argv) {
  const char* mode = argc > 1 ? argv[1] : "";
  pthread_t thread;
  setvbuf(stdout, NULL, _IONBF, 0); // memory for a buffer is no call that the filters allow
  signal(SIGCONT, strstr(mode, "handler") ? on_continue : SIG_DFL);
  if (strstr(mode, "spin"))
    pthread_create(&thread, NULL, spinning, NULL);
  if (strstr(mode, "protected"))
    prctl(PR_SET_DUMPABLE, 0);
  if (strstr(mode, "worker"))
    read_by_worker();
  confine_as(mode);
  puts("started");
  if (strstr(mode, "leave"))
    pthread_exit(NULL);
  tick();
  if (strstr(mode, "int80")) {
    long result = 3; // read
    char* c = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    __asm__ volatile("int $0x80" : "+a"(result) : "b"(STDIN_FILENO), "c"(c), "d"(1) : "r8", "r9", "r10", "r11", "memory");
    puts(result == 1 && *c == '\n' ? "ended" : "not read");
    return 3;
  }
  struct pollfd input = {STDIN_FILENO, POLLIN, 0};
  while (poll(&input, 1, 1) <= 0) {
    tick();
    if (strstr(mode, "births") && pthread_create(&thread, NULL, short_lived, NULL) == 0)
      pthread_join(thread, NULL);
  }
  puts("ended");
  return 3;
}
