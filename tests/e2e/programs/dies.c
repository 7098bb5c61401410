// A process that dies with threads about, each with registers of its own: numbers that begin with its
// place in the list of threads.
//   dies HOW: segv, abort, both (two threads at once), or wait: a segv at the end of its standard input.
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// Fills the registers with base + 1, 2, ..., says so in *ready, and stays: spinning, or in the system call `number`.
#define PROLOGUE(name)                                                                                                   \
  ".globl " name "\n.type " name ", @function\n" name ":\n.cfi_startproc\n"                                              \
  "push %rbp\n.cfi_adjust_cfa_offset 8\n.cfi_rel_offset rbp, 0\n"                                                        \
  "lea 1(%rdi), %rbx\nlea 2(%rdi), %rbp\nlea 3(%rdi), %r12\nlea 4(%rdi), %r13\nlea 5(%rdi), %r14\nlea 6(%rdi), %r15\n"   \
  "lea 7(%rdi), %rax\nmovq %rax, %xmm1\nlea 8(%rdi), %rax\nmovq %rax, %xmm15\n"
#define EPILOGUE(name) ".cfi_endproc\n.size " name ", .-" name "\n"
__asm__(PROLOGUE("spin_with") "movl $1, (%rsi)\n1: jmp 1b\n" EPILOGUE("spin_with"));
__asm__(PROLOGUE("wait_with") "movl $1, (%rsi)\n"
                              "mov %rdx, %rax\nmov %rcx, %rdi\nmov %r8, %rsi\nmov %r9, %rdx\n"
                              "xor %r10d, %r10d\nsyscall\nud2\n" EPILOGUE("wait_with"));
__asm__(PROLOGUE("crash_with") "movl $1, (%rsi)\n1: cmpl $0, (%rdx)\nje 1b\nxor %eax, %eax\nmov %rax, (%rax)\n" EPILOGUE("crash_with"));
void spin_with(long base, atomic_int* ready);
void wait_with(long base, atomic_int* ready, long number, long first, const void* second, long third);
void crash_with(long base, atomic_int* ready, atomic_int* go);

enum { kSpins, kReads, kSleeps, kWaits, kHandles, kHandlesInCall, kThreads };
static const long kCalls[kThreads] = {-1, SYS_read, SYS_nanosleep, SYS_futex, -1, SYS_read};
static atomic_int ready[kThreads + 1], ids[kThreads], go;
static int pipe_ends[2], futex_word;
static long base_of(long index) { return (long)((unsigned long)(index + 1) * 0x1111000000000000 >> 4); }

static void read_forever(long index) {
  static char byte;
  wait_with(base_of(index), &ready[index], SYS_read, pipe_ends[0], &byte, 1);
}

static __thread long own_index;
static void on_signal(int signal) {
  (void)signal;
  if (own_index == kHandles)
    spin_with(base_of(own_index), &ready[own_index]);
  read_forever(own_index);
}

static void* run(void* argument) {
  static const struct timespec kLong = {100000, 0};
  own_index = (long)argument;
  ids[own_index] = (int)syscall(SYS_gettid);
  switch (own_index) {
  case kSpins:
    spin_with(base_of(own_index), &ready[own_index]);
    break;
  case kReads:
    read_forever(own_index);
    break;
  case kSleeps:
    wait_with(base_of(own_index), &ready[own_index], SYS_nanosleep, (long)&kLong, NULL, 0);
    break;
  case kWaits: // FUTEX_WAIT
    wait_with(base_of(own_index), &ready[own_index], SYS_futex, (long)&futex_word, NULL, 0);
    break;
  default:
    raise(SIGUSR1);
  }
  return NULL;
}

static void* crash(void* argument) {
  (void)argument;
  crash_with(base_of(kThreads), &ready[kThreads], &go);
  return NULL;
}

// Inside its call, and blocked there.
static int is_there(int index) {
  char path[64], text[64] = "";
  if (!ready[index])
    return 0;
  if (kCalls[index] < 0)
    return 1;
  snprintf(path, sizeof path, "/proc/self/task/%d/syscall", ids[index]);
  FILE* file = fopen(path, "r");
  const int found = file && fgets(text, sizeof text, file) && text[0] != 'r' && atol(text) == kCalls[index];
  if (file)
    fclose(file);
  return found;
}

int main(int count, char** arguments) {
  pthread_t thread;
  const char* how = count > 1 ? arguments[1] : "segv";
  if (pipe(pipe_ends))
    return 1;
  signal(SIGUSR1, on_signal);
  for (long i = 0; i < kThreads; ++i)
    pthread_create(&thread, NULL, run, (void*)i);
  for (int i = 0; i < kThreads; ++i)
    while (!is_there(i))
      sched_yield();
  if (!strcmp(how, "both")) {
    pthread_create(&thread, NULL, crash, NULL);
    while (!ready[kThreads])
      sched_yield();
  }
  printf("ready %d\n", getpid());
  fflush(stdout);
  if (!strcmp(how, "wait")) {
    char byte;
    while (read(0, &byte, 1) > 0) {
    }
  }
  if (!strcmp(how, "abort"))
    abort();
  crash_with(base_of(kThreads + 1), &go, &go); // and so does the other one, if there is one
}
