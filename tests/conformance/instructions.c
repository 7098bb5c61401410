// Instructions whose effect a debugger could change: what is below the stack pointer, flags and
// registers over system calls and handlers, vector state, segment bases, cpuid, the time stamp
// counter.
#include "conformance.h"

#include <asm/prctl.h>
#include <cpuid.h>
#include <elf.h>
#include <fcntl.h>
#include <immintrin.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/auxv.h>
#include <sys/time.h>
#include <sys/wait.h>

static volatile sig_atomic_t seen;

// --- The red zone -------------------------------------------------------------------------------
static void on_signal(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)info, (void)context;
  volatile char deep[2048];
  memset((char*)deep, 0xaa, sizeof deep);
  ++seen;
}
static void red_zone_over_a_signal(void) {
  seen = 0;
  install(SIGUSR1, on_signal, 0);
  long number = SYS_tgkill, pid = getpid(), tid = own_tid(), signal = SIGUSR1, first, last;
  __asm__ volatile("movq $0x1111, -8(%%rsp); movq $0x2222, -128(%%rsp); syscall\n"
                   "movq -8(%%rsp), %1; movq -128(%%rsp), %2"
                   : "+a"(number), "=&r"(first), "=&r"(last)
                   : "D"(pid), "S"(tid), "d"(signal)
                   : "rcx", "r11", "memory");
  CHECK(seen == 1 && first == 0x1111 && last == 0x2222);
}
static void red_zone_over_a_breakpoint(void) {
  seen = 0;
  install(SIGTRAP, on_signal, 0);
  long first, last;
  __asm__ volatile("movq $0x1111, -8(%%rsp); movq $0x2222, -128(%%rsp); int3\n"
                   "movq -8(%%rsp), %0; movq -128(%%rsp), %1"
                   : "=&r"(first), "=&r"(last)
                   :
                   : "memory");
  CHECK(seen == 1 && first == 0x1111 && last == 0x2222);
}
static void red_zone_over_system_calls(void) {
  const long numbers[] = {SYS_getpid, SYS_sched_yield, SYS_gettid, SYS_rt_sigpending};
  const long results[] = {own_tid(), 0, getpid(), 0};
  sigset_t set;
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; ++i) {
    long number = numbers[i], first, last;
    __asm__ volatile("movq $0x1111, -8(%%rsp); movq $0x2222, -128(%%rsp); syscall\n"
                     "movq -8(%%rsp), %1; movq -128(%%rsp), %2"
                     : "+a"(number), "=&r"(first), "=&r"(last)
                     : "D"(&set), "S"(8)
                     : "rcx", "r11", "memory");
    CHECK(number == results[i]);
    CHECK(first == 0x1111 && last == 0x2222);
  }
}

// --- Registers and flags over system calls ------------------------------------------------------
struct Registers {
  uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15, flags;
};
// Makes the call with these registers (and flags); they are as it left them then. `at` is the
// address behind it.
void make_call(struct Registers* r, uint64_t* at);
__asm__("make_call:\n"
        "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; push %rsi; push %rdi\n"
        "pushq 120(%rdi); popfq\n"
        "mov 0(%rdi), %rax; mov 8(%rdi), %rbx; mov 16(%rdi), %rcx; mov 24(%rdi), %rdx\n"
        "mov 32(%rdi), %rsi; mov 48(%rdi), %rbp; mov 56(%rdi), %r8; mov 64(%rdi), %r9\n"
        "mov 72(%rdi), %r10; mov 80(%rdi), %r11; mov 88(%rdi), %r12; mov 96(%rdi), %r13\n"
        "mov 104(%rdi), %r14; mov 112(%rdi), %r15; mov 40(%rdi), %rdi\n"
        "syscall\n"
        "call_made: pushfq; push %rdi; mov 16(%rsp), %rdi\n"
        "mov %rax, 0(%rdi); mov %rbx, 8(%rdi); mov %rcx, 16(%rdi); mov %rdx, 24(%rdi)\n"
        "mov %rsi, 32(%rdi); mov %rbp, 48(%rdi); mov %r8, 56(%rdi); mov %r9, 64(%rdi)\n"
        "mov %r10, 72(%rdi); mov %r11, 80(%rdi); mov %r12, 88(%rdi); mov %r13, 96(%rdi)\n"
        "mov %r14, 104(%rdi); mov %r15, 112(%rdi)\n"
        "pop %rax; mov %rax, 40(%rdi); pop %rax; mov %rax, 120(%rdi); cld\n"
        "pop %rdi; pop %rsi; lea call_made(%rip), %rax; mov %rax, (%rsi)\n"
        "pushq $0x202; popfq\n"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret");
static void check_call(long number, long a, long b, long c, long d, uint64_t flags, long expected) {
  struct Registers before = {
      (uint64_t)number, 0xb0b0,      0xc0c0, (uint64_t)c, (uint64_t)b, (uint64_t)a, 0xb9b9, 0x8888,
      0x9999,           (uint64_t)d, 0x1111, 0x1212,      0x1313,      0x1414,      0x1515, flags};
  struct Registers r = before;
  uint64_t behind;
  make_call(&r, &behind);
  CHECK((long)r.rax == expected);
  CHECK(r.rbx == before.rbx && r.rdx == before.rdx && r.rsi == before.rsi && r.rdi == before.rdi);
  CHECK(r.rbp == before.rbp && r.r8 == before.r8 && r.r9 == before.r9 && r.r10 == before.r10);
  CHECK(r.r12 == before.r12 && r.r13 == before.r13 && r.r14 == before.r14 && r.r15 == before.r15);
  CHECK(r.rcx == behind);
  CHECK(r.r11 == flags && r.flags == flags);
}
static const uint64_t kFlags[] = {0x202, 0x203, 0xad7 | 0x202, 0x602, 0x200202, 0x40202};
static void registers_over_plain_calls(void) {
  for (size_t i = 0; i < sizeof kFlags / sizeof *kFlags; ++i) {
    check_call(SYS_getpid, 1, 2, 3, 4, kFlags[i], own_tid());
    check_call(SYS_gettid, 1, 2, 3, 4, kFlags[i], getpid());
    check_call(SYS_read, -1, 0, 0, 0, kFlags[i], -EBADF);
    check_call(100000, 1, 2, 3, 4, kFlags[i], -ENOSYS);
  }
}
static void registers_over_memory_calls(void) {
  for (size_t i = 0; i < sizeof kFlags / sizeof *kFlags; ++i) {
    char* p = new_pages(2);
    check_call(SYS_mprotect, (long)p, (long)kPage, PROT_READ, 4, kFlags[i], 0);
    check_call(SYS_madvise, (long)p, (long)kPage, MADV_DONTNEED, 4, kFlags[i], 0);
    check_call(SYS_munmap, (long)p, (long)(2 * kPage), 3, 4, kFlags[i], 0);
    check_call(SYS_brk, 0, 2, 3, 4, kFlags[i], (long)sbrk(0));
    CHECK((long)sbrk(0) > (long)&seen);
  }
}
static void registers_over_signal_calls(void) {
  uint64_t set = 0, old;
  stack_t stack;
  struct sigaction action;
  for (size_t i = 0; i < sizeof kFlags / sizeof *kFlags; ++i) {
    check_call(SYS_rt_sigprocmask, SIG_BLOCK, (long)&set, (long)&old, 8, kFlags[i], 0);
    check_call(SYS_rt_sigpending, (long)&old, 8, 3, 4, kFlags[i], 0);
    check_call(SYS_rt_sigaction, SIGUSR1, 0, (long)&action, 8, kFlags[i], 0);
    check_call(SYS_sigaltstack, 0, (long)&stack, 3, 4, kFlags[i], 0);
  }
}
static void registers_over_waits(void) {
  struct timespec none = {0, 0};
  uint64_t set = 1ul << (SIGUSR1 - 1);
  for (size_t i = 0; i < sizeof kFlags / sizeof *kFlags; ++i) {
    check_call(SYS_rt_sigtimedwait, (long)&set, 0, (long)&none, 8, kFlags[i], -EAGAIN);
    check_call(SYS_nanosleep, (long)&none, 0, 3, 4, kFlags[i], 0);
    check_call(SYS_ppoll, 0, 0, (long)&none, 0, kFlags[i], 0);
    check_call(SYS_sched_yield, 1, 2, 3, 4, kFlags[i], 0);
  }
}
static void unknown_calls(void) {
  CHECK_FAILS(syscall(100000), ENOSYS);
  CHECK_FAILS(syscall(-1), ENOSYS);
  CHECK_FAILS(syscall(0x40000000 + SYS_getpid), ENOSYS); // x32
  CHECK_FAILS(syscall(400),
              ENOSYS); // between the old numbers and those that all architectures share
}
static void upper_half_of_the_number(void) {
  long number = (long)(0xabcdef0000000000ul | SYS_getpid);
  __asm__ volatile("syscall" : "+a"(number) : : "rcx", "r11", "memory");
  say("%s", number == own_tid() ? "ignored" : number == -ENOSYS ? "ENOSYS" : "?");
}

// --- Other ways into the kernel -----------------------------------------------------------------
static sigjmp_buf after_fault;
static void on_jump(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)info, (void)context;
  siglongjmp(after_fault, signal);
}
// All that it changes is rax.
static long call_of_32_bits(unsigned number, unsigned long a, unsigned long b, unsigned long c) {
  unsigned long result = 0xabcd00000000 | number, in[5] = {a, b, c, 8, 11};
  register unsigned long r8 __asm__("r8") = 8, r11 __asm__("r11") = 11;
  unsigned long before = 0, after = 0;
  __asm__ volatile("pushf; pop %[before]; int $0x80; pushf; pop %[after]"
                   : "+a"(result), "+b"(a), "+c"(b), "+d"(c), "+r"(r8),
                     "+r"(r11), [before] "+&r"(before), [after] "+&r"(after)
                   :
                   : "memory");
  const unsigned long out[5] = {a, b, c, r8, r11};
  CHECK(memcmp(in, out, sizeof in) == 0 && ((before ^ after) & ~0x8d5ul) == 0);
  return (long)result;
}
static void calls_of_32_bits(void) {
  install(SIGSEGV, on_jump, 0);
  int signal = sigsetjmp(after_fault, 1);
  if (signal != 0) {
    say("signal %d", signal);
    return;
  }
  char* page =
      mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
  const unsigned long at = (unsigned long)page;
  const unsigned long high = 0xdead00000000; // which nobody looks at
  int ends[2];
  CHECK(page != MAP_FAILED && pipe(ends) == 0);
  CHECK(call_of_32_bits(20, 0, 0, 0) == own_tid());
  CHECK(call_of_32_bits(224, 0, 0, 0) == getpid());
  strcpy(page, "thirty-two");
  CHECK(call_of_32_bits(4, high | (unsigned)ends[1], high | at, 10) == 10);
  CHECK(call_of_32_bits(3, (unsigned)ends[0], at + 100, 10) == 10 &&
        memcmp(page, page + 100, 10) == 0);
  CHECK(call_of_32_bits(3, 1000000, at, 1) == -EBADF);
  CHECK(call_of_32_bits(4, (unsigned)ends[1], 1, 1) == -EFAULT);
  CHECK(call_of_32_bits(19, (unsigned)ends[0], -1ul, 0) == -ESPIPE);
  CHECK(call_of_32_bits(1000, 0, 0, 0) == -ENOSYS);
  CHECK(call_of_32_bits(125, at, 4096, PROT_READ) == 0);
  signal = sigsetjmp(after_fault, 1);
  if (signal == 0) {
    *(volatile char*)page = 1;
    CHECK(!"read only");
  }
  CHECK(call_of_32_bits(91, at, 4096, 0) == 0 &&
        call_of_32_bits(4, (unsigned)ends[1], at, 1) == -EFAULT);
  CHECK(call_of_32_bits(6, (unsigned)ends[0], 0, 0) == 0 &&
        call_of_32_bits(6, (unsigned)ends[0], 0, 0) == -EBADF);
  close(ends[1]);
  say("there");
}
// What they end.
static void exit_of_32_bits(void) {
  install(SIGSEGV, on_jump, 0);
  if (sigsetjmp(after_fault, 1) != 0) {
    say("signal");
    return;
  }
  const pid_t child = fork();
  if (child == 0) {
    call_of_32_bits(252, 7, 0, 0);
    _exit(1);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7);
  case_ends();
  call_of_32_bits(1, 0, 0, 0);
}
static void vsyscall_page(void) {
  install(SIGSEGV, on_jump, 0);
  int signal = sigsetjmp(after_fault, 1);
  if (signal == 0) {
    long seconds = ((long (*)(long*))0xffffffffff600400)(NULL);
    struct timeval time = {0, 0};
    long result = ((long (*)(struct timeval*, void*))0xffffffffff600000)(&time, NULL);
    CHECK(labs(seconds - time.tv_sec) <= 1 && result == 0);
    say("there");
  } else {
    say("signal %d", signal);
  }
}
static void clocks_of_the_vdso(void) {
  const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW};
  for (size_t i = 0; i < sizeof clocks / sizeof *clocks; ++i)
    for (int n = 0; n < 100; ++n) {
      struct timespec a, b, c;
      CHECK(syscall(SYS_clock_gettime, clocks[i], &a) == 0);
      CHECK(clock_gettime(clocks[i], &b) == 0);
      CHECK(syscall(SYS_clock_gettime, clocks[i], &c) == 0);
      CHECK(a.tv_sec < b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec <= b.tv_nsec));
      CHECK(b.tv_sec < c.tv_sec || (b.tv_sec == c.tv_sec && b.tv_nsec <= c.tv_nsec));
    }
}

// --- Vector state -------------------------------------------------------------------------------
static unsigned char vectors_in_frame[2048], found_ymm, found_magic;
static volatile int edit_frame;
static void on_vectors(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)info;
  ucontext_t* frame = context;
  char* area = (char*)frame->uc_mcontext.fpregs;
  uint32_t magic, extended, size, end = 0;
  uint64_t features;
  memcpy(&magic, area + 464, 4);
  memcpy(&extended, area + 468, 4);
  memcpy(&features, area + 472, 8);
  memcpy(&size, area + 480, 4);
  if (magic == 0x46505853) {
    memcpy(&end, area + size, 4);
    found_magic = end == 0x46505845 && extended == size + 4;
  }
  memcpy(vectors_in_frame, area + 160, 16);
  found_ymm = found_magic && (features & 4);
  if (found_ymm)
    memcpy(vectors_in_frame + 16, area + 576, 16);
  if (edit_frame) {
    memset(area + 160, 0x77, 16);
    uint64_t in_use;
    memcpy(&in_use, area + 512, 8);
    in_use |= 2;
    memcpy(area + 512, &in_use, 8);
  }
  // Whatever the handler does to them is undone.
  __asm__ volatile("pcmpeqd %%xmm0, %%xmm0; pcmpeqd %%xmm7, %%xmm7; pcmpeqd %%xmm15, %%xmm15"
                   :
                   :
                   : "xmm0", "xmm7", "xmm15");
  if (__builtin_cpu_supports("avx"))
    __asm__ volatile("vzeroall" : : : "xmm0", "xmm1", "xmm2");
  ++seen;
}
__attribute__((target("avx"))) static void vectors_over_a_signal(void) {
  seen = edit_frame = 0;
  if (!__builtin_cpu_supports("avx")) {
    say("not here: no AVX");
    return;
  }
  install(SIGUSR1, on_vectors, 0);
  unsigned char in[64], out[64];
  for (int i = 0; i < 64; ++i)
    in[i] = (unsigned char)(i + 1);
  long number = SYS_tgkill, pid = getpid(), tid = own_tid(), signal = SIGUSR1;
  __asm__ volatile("vmovdqu (%4), %%ymm0; vmovdqu 32(%4), %%ymm15; syscall\n"
                   "vmovdqu %%ymm0, (%5); vmovdqu %%ymm15, 32(%5); vzeroupper"
                   : "+a"(number)
                   : "D"(pid), "S"(tid), "d"(signal), "r"(in), "r"(out)
                   : "rcx", "r11", "memory", "xmm0", "xmm15");
  CHECK(seen == 1 && memcmp(in, out, 64) == 0);
  CHECK(found_magic && found_ymm && memcmp(vectors_in_frame, in, 32) == 0);
}
static void vectors_edited_in_the_frame(void) {
  seen = 0, edit_frame = 1;
  install(SIGUSR1, on_vectors, 0);
  unsigned char out[16], wanted[16];
  memset(wanted, 0x77, sizeof wanted);
  long number = SYS_tgkill, pid = getpid(), tid = own_tid(), signal = SIGUSR1;
  __asm__ volatile("pxor %%xmm0, %%xmm0; syscall; movdqu %%xmm0, (%4)"
                   : "+a"(number)
                   : "D"(pid), "S"(tid), "d"(signal), "r"(out)
                   : "rcx", "r11", "memory", "xmm0");
  edit_frame = 0;
  CHECK(seen == 1 && memcmp(out, wanted, 16) == 0);
}
__attribute__((target("avx512f"))) static void wide_vectors_over_a_signal(void) {
  seen = edit_frame = 0;
  if (!__builtin_cpu_supports("avx512f")) {
    say("not here: no AVX-512");
    return;
  }
  install(SIGUSR1, on_vectors, 0);
  unsigned char in[128], out[128];
  for (int i = 0; i < 128; ++i)
    in[i] = (unsigned char)(i * 3 + 1);
  long number = SYS_tgkill, pid = getpid(), tid = own_tid(), signal = SIGUSR1;
  unsigned mask = 0;
  __asm__ volatile("vmovdqu64 (%5), %%zmm5; vmovdqu64 64(%5), %%zmm31\n"
                   "mov $0x5a5a, %1; kmovw %1, %%k3; xor %1, %1; syscall\n"
                   "vmovdqu64 %%zmm5, (%6); vmovdqu64 %%zmm31, 64(%6); kmovw %%k3, %1; vzeroupper"
                   : "+a"(number), "+&r"(mask)
                   : "D"(pid), "S"(tid), "d"(signal), "r"(in), "r"(out)
                   : "rcx", "r11", "memory", "xmm5", "k3");
  CHECK(seen == 1 && memcmp(in, out, 128) == 0 && mask == 0x5a5a);
}
static void control_words_over_a_signal(void) {
  seen = 0;
  install(SIGUSR1, on_vectors, 0);
  unsigned old, wanted, after;
  unsigned short old_word, word = 0x27f, word_after;
  __asm__ volatile("stmxcsr %0; fnstcw %1" : "=m"(old), "=m"(old_word));
  wanted = old | 0x8040;
  __asm__ volatile("ldmxcsr %0; fldcw %1" : : "m"(wanted), "m"(word));
  raise(SIGUSR1);
  __asm__ volatile("stmxcsr %0; fnstcw %1" : "=m"(after), "=m"(word_after));
  __asm__ volatile("ldmxcsr %0; fldcw %1" : : "m"(old), "m"(old_word));
  CHECK(seen == 1 && after == wanted && word_after == word);
}
static double sum_of_logs(void) {
  double sum = 0;
  for (int i = 1; i < 20000; ++i)
    sum = sum * 1.0000001 + 1.0 / i;
  return sum;
}
static void floats_under_a_timer(void) {
  double expected = sum_of_logs();
  seen = 0;
  install(SIGALRM, on_vectors, SA_RESTART);
  struct itimerval often = {{0, 300}, {0, 300}};
  CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
  while (seen < 50)
    CHECK(sum_of_logs() == expected);
}
static atomic_int stop_sending;
static void* sends_often(void* tid) {
  while (!stop_sending)
    syscall(SYS_tgkill, getpid(), *(pid_t*)tid, SIGUSR1);
  return NULL;
}
static void registers_under_a_storm(void) {
  seen = stop_sending = 0;
  install(SIGUSR1, on_signal, 0);
  pid_t tid = own_tid();
  pthread_t sender = start(sends_often, &tid);
  while (seen < 2000) {
    uint64_t a = 1, b = 2, c = 3, d = 4, flags;
    __asm__ volatile("mov $2000, %%ecx; stc\n"
                     "1: lea 1(%0), %0; lea 1(%1), %1; lea 1(%2), %2; lea 1(%3), %3\n"
                     "lea -1(%%rcx), %%rcx; jrcxz 2f; jmp 1b\n"
                     "2: lea -128(%%rsp), %%rsp; pushfq; pop %4; lea 128(%%rsp), %%rsp"
                     : "+&r"(a), "+&r"(b), "+&r"(c), "+&r"(d), "=&r"(flags)
                     :
                     : "rcx", "memory", "cc");
    CHECK(a == 2001 && b == 2002 && c == 2003 && d == 2004 && (flags & 1));
  }
  stop_sending = 1;
  finish(sender);
}

// --- What the processor says --------------------------------------------------------------------
static void cpuid_and_the_auxiliary_vector(void) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  CHECK(__get_cpuid(1, &a, &b, &c, &d) == 1);
  Elf64_auxv_t entries[64]; // glibc keeps AT_HWCAP for itself
  int fd = open("/proc/self/auxv", O_RDONLY | O_CLOEXEC);
  ssize_t n = read(fd, entries, sizeof entries);
  close(fd);
  for (ssize_t i = 0; i < n / (ssize_t)sizeof *entries; ++i)
    if (entries[i].a_type == AT_HWCAP)
      CHECK(entries[i].a_un.a_val == d);
  CHECK(getauxval(AT_PAGESZ) == kPage && getauxval(AT_MINSIGSTKSZ) >= 1024);
}
// Of its name, its caches, and what ring 3 has of it. (Not which processor it is.)
static void cpuid_is_the_processors(void) {
  const unsigned kInstructions =
      0xf18f0329; // of leaf 7's ebx: FSGSBASE, BMI, AVX2, ADX, SHA, AVX-512 ...
  unsigned a = 0, b = 0, c = 0, d = 0, caches = 0;
  __cpuid(1, a, b, c, d);
  say("version %#x line %u features %#x %#x", a, b >> 8 & 0xff, c, d);
  __cpuid_count(7, 0, a, b, c, d);
  say("%#x", b & kInstructions);
  __cpuid(0x80000001, a, b, c, d);
  say("%#x %#x", c & 1, d);
  const unsigned leaves[] = {4, 0x80000005, 0x80000006, 0x8000001d};
  for (int i = 0; i < 4; ++i)
    for (unsigned subleaf = 0;
         subleaf < 4 && __get_cpuid_max(leaves[i] & 0x80000000, NULL) >= leaves[i]; ++subleaf) {
      __cpuid_count(leaves[i], subleaf, a, b, c, d);
      caches = (((caches * 31 + a) * 31 + b) * 31 + c) * 31 + d;
    }
  say("caches %#x", caches);
  for (unsigned leaf = 0x80000002; leaf <= 0x80000004; ++leaf) {
    unsigned words[5] = {0};
    __cpuid(leaf, words[0], words[1], words[2], words[3]);
    say("%s", (const char*)words);
  }
  __cpuid(0x40000000, a, b, c, d);
  say("over it %#x %#x %#x %#x", a, b, c, d);
}
static void xgetbv_says_what_is_on(void) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  CHECK(__get_cpuid(1, &a, &b, &c, &d) == 1);
  if (!(c & (1u << 27))) {
    say("not here: no OSXSAVE");
    return;
  }
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  CHECK((low & 3) == 3);
  if (c & (1u << 28))
    CHECK((low & 4) == 4);
  say("%#x", low);
}
static void segment_bases_by_instruction(void) {
  if (!(getauxval(AT_HWCAP2) & 2)) {
    say("not here: no FSGSBASE");
    return;
  }
  uint64_t old, fs, gs, read_back, from_kernel = 0;
  __asm__ volatile("rdfsbase %0" : "=r"(fs));
  CHECK(syscall(SYS_arch_prctl, ARCH_GET_FS, &from_kernel) == 0 && from_kernel == fs);
  __asm__ volatile("rdgsbase %0" : "=r"(old));
  gs = (uint64_t)new_pages(1);
  *(uint64_t*)gs = 0x77;
  __asm__ volatile("wrgsbase %0" : : "r"(gs));
  CHECK(syscall(SYS_getppid) > 0); // over a call
  sched_yield();
  seen = 0;
  install(SIGUSR1, on_signal, 0);
  raise(SIGUSR1); // and a signal
  __asm__ volatile("rdgsbase %0" : "=r"(read_back));
  uint64_t through;
  __asm__ volatile("mov %%gs:0, %0" : "=r"(through));
  CHECK(read_back == gs && through == 0x77 && seen == 1);
  CHECK(syscall(SYS_arch_prctl, ARCH_GET_GS, &from_kernel) == 0 && from_kernel == gs);
  __asm__ volatile("wrgsbase %0" : : "r"(old));
}
static void segment_base_by_call(void) {
  uint64_t old = 0, got = 0;
  CHECK(syscall(SYS_arch_prctl, ARCH_GET_GS, &old) == 0);
  char* p = new_pages(1);
  *(uint64_t*)(p + 16) = 0x99;
  CHECK(syscall(SYS_arch_prctl, ARCH_SET_GS, p) == 0);
  uint64_t through;
  __asm__ volatile("mov %%gs:16, %0" : "=r"(through));
  CHECK(through == 0x99);
  CHECK(syscall(SYS_arch_prctl, ARCH_GET_GS, &got) == 0 && got == (uint64_t)p);
  CHECK_FAILS(syscall(SYS_arch_prctl, ARCH_SET_GS, 0xffff800000000000ul), EPERM);
  CHECK_FAILS(syscall(SYS_arch_prctl, 0x9999, 0), EINVAL);
  CHECK(syscall(SYS_arch_prctl, ARCH_SET_GS, old) == 0);
}
static void fs_base_by_call_and_back(void) {
  // Without libc in between: its errno is in there.
  uint64_t fs = 0, other = (uint64_t)new_pages(1), seen_there, ok;
  CHECK(syscall(SYS_arch_prctl, ARCH_GET_FS, &fs) == 0);
  *(uint64_t*)other = 0x123;
  __asm__ volatile("mov %3, %%rsi; mov $0x1002, %%edi; mov $158, %%eax; syscall\n"
                   "mov %%fs:0, %0; mov %%rax, %1\n"
                   "mov %2, %%rsi; mov $0x1002, %%edi; mov $158, %%eax; syscall; or %%rax, %1"
                   : "=&b"(seen_there), "=&r"(ok)
                   : "r"(fs), "r"(other)
                   : "rax", "rcx", "rdi", "rsi", "r11", "memory");
  CHECK(seen_there == 0x123 && ok == 0);
}
static void time_stamps_go_up(void) {
  uint64_t last = 0;
  unsigned processor;
  for (int i = 0; i < 10000; ++i) {
    uint64_t t = __rdtscp(&processor);
    CHECK(t >= last);
    last = t;
  }
}
static void time_stamps_agree_with_the_clock(void) {
  uint64_t t0 = __rdtsc();
  double c0 = now();
  while (now() - c0 < 0.02)
    ;
  double rate = (double)(__rdtsc() - t0) / (now() - c0);
  CHECK(rate > 1e8 && rate < 2e10);
}
static void code_segment_and_others(void) {
  unsigned short cs, ss, ds, es;
  __asm__ volatile("mov %%cs, %0; mov %%ss, %1; mov %%ds, %2; mov %%es, %3"
                   : "=r"(cs), "=r"(ss), "=r"(ds), "=r"(es));
  say("cs %#x ss %#x ds %#x es %#x", cs, ss, ds, es);
}
static void flags_that_cannot_be_set(void) {
  uint64_t flags;
  // IF, IOPL and VM stay as they are.
  __asm__ volatile("lea -128(%%rsp), %%rsp; pushq $0x33000; popfq; pushfq; pop %0\n"
                   "pushq $0x202; popfq; lea 128(%%rsp), %%rsp"
                   : "=r"(flags)
                   :
                   : "memory", "cc");
  CHECK((flags & 0x23200) == 0x200);
}

#define AREA "instructions"
const struct Case cases[] = {
    ROW(red_zone_over_a_signal, tgkill rt_sigreturn),
    ROW(red_zone_over_a_breakpoint, #BP rt_sigreturn),
    ROW(red_zone_over_system_calls, getpid sched_yield gettid rt_sigpending),
    ROW(registers_over_plain_calls, getpid gettid read),
    ROW(registers_over_memory_calls, mprotect madvise munmap),
    ROW(registers_over_signal_calls, rt_sigprocmask rt_sigpending rt_sigaction sigaltstack),
    ROW(registers_over_waits, rt_sigtimedwait nanosleep ppoll sched_yield),
    ROW(unknown_calls, syscall),
    ROW(upper_half_of_the_number, getpid),
    ROW(calls_of_32_bits, int80 getpid gettid read write lseek mprotect munmap close),
    ALONE(exit_of_32_bits, int80 exit),
    ROW(vsyscall_page, vsyscall),
    ROW(clocks_of_the_vdso, clock_gettime vdso),
    ROW(vectors_over_a_signal, rt_sigreturn),
    ROW(vectors_edited_in_the_frame, rt_sigreturn),
    ROW(wide_vectors_over_a_signal, rt_sigreturn),
    ROW(control_words_over_a_signal, rt_sigreturn),
    ROW(floats_under_a_timer, setitimer rt_sigreturn),
    ROW(registers_under_a_storm, tgkill rt_sigreturn),
    ROW(cpuid_and_the_auxiliary_vector, cpuid),
    ROW(cpuid_is_the_processors, cpuid),
    ROW(xgetbv_says_what_is_on, xgetbv),
    ROW(segment_bases_by_instruction, wrgsbase rdfsbase arch_prctl),
    ROW(segment_base_by_call, arch_prctl),
    ROW(fs_base_by_call_and_back, arch_prctl),
    ROW(time_stamps_go_up, rdtscp),
    ROW(time_stamps_agree_with_the_clock, rdtsc),
    ROW(code_segment_and_others, mov),
    ROW(flags_that_cannot_be_set, popf),
};
const size_t case_count = sizeof cases / sizeof *cases;
