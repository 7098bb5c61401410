// Faults and traps of the processor as signals: code, address, trap number and error code, and
// where the frame says the program was.
#include "conformance.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <sys/prctl.h>
#include <sys/wait.h>

// Left by siglongjmp, or by moving the instruction pointer on.
static sigjmp_buf after_fault;
static siginfo_t info_seen;
static greg_t registers[NGREG];
static volatile int seen;
static volatile uint64_t go_on_at; // 0: jump out
static void on_fault(int signal, siginfo_t* info, void* context) {
  (void)signal;
  ucontext_t* frame = context;
  info_seen = *info;
  memcpy(registers, frame->uc_mcontext.gregs, sizeof registers);
  ++seen;
  if (go_on_at)
    frame->uc_mcontext.gregs[REG_RIP] = (greg_t)go_on_at;
  else
    siglongjmp(after_fault, 1);
}
static void catch_all(void) {
  const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS};
  for (size_t i = 0; i < sizeof signals / sizeof *signals; ++i)
    install(signals[i], on_fault, 0);
  memset(&info_seen, 0, sizeof info_seen);
  memset(registers, 0, sizeof registers);
  seen = 0;
  go_on_at = 0;
}
// The instructions at the label `fault_NAME` raise a signal; the label's address is what the frame
// has to show.
#define RAISED(...)                                                                                \
  do {                                                                                             \
    catch_all();                                                                                   \
    if (sigsetjmp(after_fault, 1) == 0) {                                                          \
      __VA_ARGS__;                                                                                 \
      CHECK(!"it raises a signal");                                                                \
    }                                                                                              \
  } while (0)
#define SHOWS(signal, code, address, trap, error)                                                  \
  do {                                                                                             \
    say("%d/%d trap %lld error %#llx", info_seen.si_signo, info_seen.si_code,                      \
        (long long)registers[REG_TRAPNO], (long long)registers[REG_ERR]);                          \
    CHECK(seen == 1 && info_seen.si_signo == (signal) && info_seen.si_code == (code));             \
    CHECK(info_seen.si_addr == (void*)(uintptr_t)(address));                                       \
    CHECK(registers[REG_TRAPNO] == (trap) && registers[REG_ERR] == (error));                       \
  } while (0)

// --- Page faults --------------------------------------------------------------------------------
enum { kPageFault = 14, kGeneralProtection = 13 };
static char* hole(void) {
  char* p = new_pages(1);
  munmap(p, kPage);
  return p;
}
static void read_of_nothing(void) {
  char* p = hole() + 5;
  RAISED((void)*(volatile char*)p);
  SHOWS(SIGSEGV, SEGV_MAPERR, p, kPageFault, 4);
  CHECK(registers[REG_CR2] == (greg_t)p);
}
static void write_to_nothing(void) {
  char* p = hole() + 6;
  RAISED(*(volatile char*)p = 1);
  SHOWS(SIGSEGV, SEGV_MAPERR, p, kPageFault, 6);
  CHECK(registers[REG_CR2] == (greg_t)p);
}
static void jump_to_nothing(void) {
  char* p = hole() + 7;
  RAISED(((void (*)(void))(uintptr_t)p)());
  SHOWS(SIGSEGV, SEGV_MAPERR, p, kPageFault, 0x14);
  CHECK(registers[REG_RIP] == (greg_t)p && registers[REG_CR2] == (greg_t)p);
}
static void null_pointer(void) {
  char* volatile p = NULL;
  RAISED((void)*(volatile char*)p);
  SHOWS(SIGSEGV, SEGV_MAPERR, 0, kPageFault, 4);
}
static void write_to_read_only(void) {
  char* p = new_pages(1);
  *(volatile char*)p = 1;
  mprotect(p, kPage, PROT_READ);
  RAISED(*(volatile char*)p = 1);
  SHOWS(SIGSEGV, SEGV_ACCERR, p, kPageFault, 7);
  munmap(p, kPage);
}
static void read_without_rights(void) {
  char* p = mmap(NULL, kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  RAISED((void)*(volatile char*)p);
  SHOWS(SIGSEGV, SEGV_ACCERR, p, kPageFault, 4);
  munmap(p, kPage);
}
static void execute_data(void) {
  char* p = new_pages(1);
  *p = (char)0xc3;
  RAISED(((void (*)(void))(uintptr_t)p)());
  SHOWS(SIGSEGV, SEGV_ACCERR, p, kPageFault, 0x15);
  munmap(p, kPage);
}
static void beyond_the_file(void) {
  int fd = memfd_create("conformance", MFD_CLOEXEC);
  char* p = mmap(NULL, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  RAISED((void)*(volatile char*)(p + 9));
  SHOWS(SIGBUS, BUS_ADRERR, p + 9, kPageFault, 4);
  munmap(p, kPage);
  close(fd);
}
static void kernel_address(void) {
  char* p = (char*)0xffff888000000010ul;
  RAISED((void)*(volatile char*)p);
  SHOWS(SIGSEGV, SEGV_MAPERR, p, kPageFault,
        5); // as if it were there, so that nobody learns what is
}
static void over_a_page_border(void) {
  char* p = new_pages(2);
  munmap(p + kPage, kPage);
  RAISED(*(volatile uint64_t*)(p + kPage - 3) = 1);
  SHOWS(SIGSEGV, SEGV_MAPERR, p + kPage, kPageFault, 6); // the part that is not there
  CHECK(p[kPage - 3] == 0);
  munmap(p, kPage);
}
static void string_move_stops_within(void) {
  char* from = new_pages(2);
  char* to = new_pages(2);
  memset(from, 7, 2 * kPage);
  munmap(to + kPage, kPage);
  RAISED({
    char *source = from, *target = to + kPage - 100;
    size_t count = 200;
    __asm__ volatile("rep movsb" : "+S"(source), "+D"(target), "+c"(count) : : "memory");
  });
  SHOWS(SIGSEGV, SEGV_MAPERR, to + kPage, kPageFault, 6);
  CHECK(registers[REG_RCX] == 100 && registers[REG_RDI] == (greg_t)(to + kPage) &&
        registers[REG_RSI] == (greg_t)(from + 100));
  for (int i = 0; i < 100; ++i)
    CHECK(to[kPage - 100 + (size_t)i] == 7);
  munmap(from, 2 * kPage), munmap(to, kPage);
}
static char* volatile made_readable;
static void on_fault_repair(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)context;
  ++seen;
  CHECK(info->si_addr == made_readable);
  CHECK(mprotect(made_readable, kPage, PROT_READ | PROT_WRITE) == 0);
}
static void repaired_and_done_again(void) {
  char* p = new_pages(1);
  made_readable = p;
  install(SIGSEGV, on_fault_repair, 0);
  seen = 0;
  for (int i = 0; i < 50; ++i) {
    CHECK(mprotect(p, kPage, PROT_NONE) == 0);
    *(volatile int*)p += 1;
  }
  CHECK(seen == 50 && *(int*)p == 50);
  munmap(p, kPage);
}

// --- General protection and the like ------------------------------------------------------------
static void not_canonical(void) {
  RAISED((void)*(volatile char*)0x0123456789abcdeful);
  SHOWS(SIGSEGV, SI_KERNEL, 0, kGeneralProtection, 0);
}
static void not_canonical_stack(void) {
  char* p = new_pages(16);
  stack_t stack = {.ss_sp = p, .ss_size = 16 * kPage};
  CHECK(sigaltstack(&stack, NULL) == 0);
  catch_all();
  install(SIGBUS, on_fault, SA_ONSTACK);
  if (sigsetjmp(after_fault, 1) == 0)
    __asm__ volatile("mov %%rsp, %%rbx; movabs $0x0123456789abcde8, %%rsp\n"
                     "mov (%%rsp), %%rax; mov %%rbx, %%rsp"
                     :
                     :
                     : "rax", "rbx", "memory");
  SHOWS(SIGBUS, SI_KERNEL, 0, 12, 0);
}
static void* denied_in_a_new_thread(void* unused) {
  RAISED(__asm__ volatile("rdtsc" : : : "rax", "rdx"));
  return unused;
}
static void time_stamps_denied(void) {
  pthread_t thread;
  int mode = 0;
  CHECK(prctl(PR_SET_TSC, PR_TSC_SIGSEGV) == 0);
  CHECK(prctl(PR_GET_TSC, &mode) == 0 && mode == PR_TSC_SIGSEGV);
  RAISED(__asm__ volatile("rdtsc" : : : "rax", "rdx"));
  SHOWS(SIGSEGV, SI_KERNEL, 0, kGeneralProtection, 0);
  RAISED(__asm__ volatile("rdtscp" : : : "rax", "rcx", "rdx"));
  SHOWS(SIGSEGV, SI_KERNEL, 0, kGeneralProtection, 0);
  CHECK(pthread_create(&thread, NULL, denied_in_a_new_thread, NULL) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  SHOWS(SIGSEGV, SI_KERNEL, 0, kGeneralProtection, 0);
  CHECK(prctl(PR_SET_TSC, PR_TSC_ENABLE) == 0);
  __asm__ volatile("rdtsc; rdtscp" : : : "rax", "rcx", "rdx");
}
static void privileged_instructions(void) {
  extern char fault_hlt[], fault_cli[], fault_cr0[], fault_out[], fault_in[];
  RAISED(__asm__ volatile(".globl fault_hlt; fault_hlt: hlt"));
  SHOWS(SIGSEGV, SI_KERNEL, 0, kGeneralProtection, 0);
  CHECK(registers[REG_RIP] == (greg_t)fault_hlt);
  RAISED(__asm__ volatile(".globl fault_cli; fault_cli: cli"));
  SHOWS(SIGSEGV, SI_KERNEL, 0, kGeneralProtection, 0);
  CHECK(registers[REG_RIP] == (greg_t)fault_cli);
  RAISED(__asm__ volatile(".globl fault_cr0; fault_cr0: mov %%cr0, %%rax" : : : "rax"));
  SHOWS(SIGSEGV, SI_KERNEL, 0, kGeneralProtection, 0);
  CHECK(registers[REG_RIP] == (greg_t)fault_cr0);
  RAISED(__asm__ volatile(".globl fault_out; fault_out: outb %%al, $0x80" : : "a"(0)));
  SHOWS(SIGSEGV, SI_KERNEL, 0, kGeneralProtection, 0);
  CHECK(registers[REG_RIP] == (greg_t)fault_out);
  RAISED(__asm__ volatile(".globl fault_in; fault_in: inb $0x80, %%al" : : : "rax"));
  SHOWS(SIGSEGV, SI_KERNEL, 0, kGeneralProtection, 0);
  CHECK(registers[REG_RIP] == (greg_t)fault_in);
}
static void interrupts_that_are_not_ours(void) {
  RAISED(__asm__ volatile("int $0x40"));
  SHOWS(SIGSEGV, SI_KERNEL, 0, kGeneralProtection, 0x40 * 8 + 2);
  RAISED(__asm__ volatile("int $0x0e"));
  SHOWS(SIGSEGV, SI_KERNEL, 0, kGeneralProtection, 0x0e * 8 + 2);
}
static void undefined_instruction(void) {
  extern char fault_ud2[];
  RAISED(__asm__ volatile(".globl fault_ud2; fault_ud2: ud2"));
  SHOWS(SIGILL, ILL_ILLOPN, fault_ud2, 6, 0);
  CHECK(registers[REG_RIP] == (greg_t)fault_ud2);
}
static void lock_where_it_may_not_be(void) {
  extern char fault_lock[];
  RAISED(__asm__ volatile(".globl fault_lock; fault_lock: .byte 0xf0, 0x90"));
  SHOWS(SIGILL, ILL_ILLOPN, fault_lock, 6, 0);
}
static void misaligned_vector(void) {
  static char bytes[64] __attribute__((aligned(64)));
  RAISED(__asm__ volatile("movaps (%0), %%xmm0" : : "r"(bytes + 1) : "xmm0"));
  SHOWS(SIGSEGV, SI_KERNEL, 0, kGeneralProtection, 0);
}

// --- Arithmetic ---------------------------------------------------------------------------------
static void division_by_zero(void) {
  extern char fault_div[];
  RAISED(__asm__ volatile(".globl fault_div; fault_div: idivl %%ecx"
                          :
                          : "a"(1), "d"(0), "c"(0)
                          : "cc"));
  SHOWS(SIGFPE, FPE_INTDIV, fault_div, 0, 0);
  CHECK(registers[REG_RIP] == (greg_t)fault_div);
}
static void quotient_too_large(void) {
  extern char fault_quotient[];
  RAISED(__asm__ volatile(".globl fault_quotient; fault_quotient: idivl %%ecx"
                          :
                          : "a"(0x80000000), "d"(-1), "c"(-1)
                          : "cc"));
  SHOWS(SIGFPE, FPE_INTDIV, fault_quotient, 0, 0);
}
enum Operation { kMultiply, kDivide };
static void with_mxcsr(unsigned mask_bit, enum Operation operation, double a, double b) {
  unsigned old, wanted;
  __asm__ volatile("stmxcsr %0" : "=m"(old));
  wanted = (old & ~0x3fu) & ~mask_bit;
  RAISED({
    if (operation == kDivide)
      __asm__ volatile("ldmxcsr %0; divsd %2, %1" : : "m"(wanted), "x"(a), "x"(b));
    else
      __asm__ volatile("ldmxcsr %0; mulsd %2, %1" : : "m"(wanted), "x"(a), "x"(b));
  });
  __asm__ volatile("ldmxcsr %0" : : "m"(old));
}
static void vector_division_by_zero(void) {
  with_mxcsr(0x200, kDivide, 1.0, 0.0);
  CHECK(seen == 1 && info_seen.si_signo == SIGFPE && info_seen.si_code == FPE_FLTDIV);
  say("code %d trap %lld", info_seen.si_code, (long long)registers[REG_TRAPNO]);
}
static void vector_invalid(void) {
  with_mxcsr(0x080, kMultiply, (double)INFINITY, 0.0);
  CHECK(info_seen.si_signo == SIGFPE && info_seen.si_code == FPE_FLTINV &&
        registers[REG_TRAPNO] == 19);
}
static void vector_overflow(void) {
  with_mxcsr(0x400, kMultiply, 1e300, 1e300);
  CHECK(info_seen.si_signo == SIGFPE && info_seen.si_code == FPE_FLTOVF &&
        registers[REG_TRAPNO] == 19);
}
static void vector_underflow(void) {
  with_mxcsr(0x800, kMultiply, 1e-300, 1e-300);
  CHECK(info_seen.si_signo == SIGFPE && info_seen.si_code == FPE_FLTUND);
}
static void vector_inexact(void) {
  with_mxcsr(0x1000, kMultiply, 1.1, 1.1);
  CHECK(info_seen.si_signo == SIGFPE && info_seen.si_code == FPE_FLTRES);
}
static void x87_division_by_zero(void) {
  RAISED({
    unsigned short control = 0x37f & ~4;
    __asm__ volatile("fldcw %0; fld1; fldz; fdivrp; fwait" : : "m"(control));
  });
  __asm__ volatile("fninit");
  CHECK(info_seen.si_signo == SIGFPE && info_seen.si_code == FPE_FLTDIV &&
        registers[REG_TRAPNO] == 16);
}

// --- Traps --------------------------------------------------------------------------------------
static void own_breakpoint(void) {
  extern char behind_int3[];
  RAISED(__asm__ volatile("int3\n.globl behind_int3; behind_int3:"));
  SHOWS(SIGTRAP, SI_KERNEL, 0, 3, 0);
  CHECK(registers[REG_RIP] == (greg_t)behind_int3);
}
static void long_breakpoint(void) {
  extern char behind_cd03[];
  RAISED(__asm__ volatile(".byte 0xcd, 3\n.globl behind_cd03; behind_cd03:"));
  SHOWS(SIGTRAP, SI_KERNEL, 0, 3, 0);
  CHECK(registers[REG_RIP] == (greg_t)behind_cd03);
}
static void icebp(void) {
  extern char behind_icebp[];
  RAISED(__asm__ volatile(".byte 0xf1\n.globl behind_icebp; behind_icebp:"));
  CHECK(info_seen.si_signo == SIGTRAP && info_seen.si_code == TRAP_BRKPT);
  // Some hypervisors leave the program before the instruction.
  say("trap %lld address at %ld rip at %ld", (long long)registers[REG_TRAPNO],
      (long)((char*)info_seen.si_addr - behind_icebp),
      (long)(registers[REG_RIP] - (greg_t)behind_icebp));
}
static int steps;
static uint64_t stepped[16];
static void on_step(int signal, siginfo_t* info, void* context) {
  (void)signal;
  ucontext_t* frame = context;
  info_seen = *info;
  if (steps < 16)
    stepped[steps] = (uint64_t)frame->uc_mcontext.gregs[REG_RIP];
  ++steps;
}
static void single_steps(void) {
  extern char step_first[], step_second[], step_third[];
  install(SIGTRAP, on_step, 0);
  steps = 0;
  __asm__ volatile("lea -128(%%rsp), %%rsp; pushfq; orq $0x100, (%%rsp); popfq\n"
                   "nop\n"
                   ".globl step_first; step_first: nop\n"
                   ".globl step_second; step_second: pushfq; andq $~0x100, (%%rsp); popfq\n"
                   ".globl step_third; step_third: lea 128(%%rsp), %%rsp"
                   :
                   :
                   : "memory", "cc");
  say("%d steps", steps);
  CHECK(info_seen.si_code == TRAP_TRACE);
  CHECK(stepped[0] == (uint64_t)step_first && stepped[1] == (uint64_t)step_second &&
        stepped[steps - 1] == (uint64_t)step_third);
}
static void a_step_over_a_system_call(void) {
  extern char step_call[];
  install(SIGTRAP, on_step, 0);
  steps = 0;
  long result = SYS_getpid;
  __asm__ volatile("lea -128(%%rsp), %%rsp; pushfq; orq $0x100, (%%rsp); popfq\n"
                   "syscall\n"
                   ".globl step_call; step_call: pushfq; andq $~0x100, (%%rsp); popfq\n"
                   "lea 128(%%rsp), %%rsp"
                   : "+a"(result)
                   :
                   : "rcx", "r11", "memory", "cc");
  say("%d steps, the first at %ld", steps, (long)(stepped[0] - (uint64_t)step_call));
  CHECK(result == own_tid());
}
// A handler begins with AC as it was, and C code is not for that.
void on_unaligned(int signal, siginfo_t* info, void* context);
__asm__("on_unaligned: pushfq; andl $~0x40000, (%rsp); popfq; jmp on_fault_of_alignment");
__attribute__((used)) static void on_fault_of_alignment(int signal, siginfo_t* info,
                                                        void* context) {
  on_fault(signal, info, context);
}
static void alignment_check(void) {
  static char bytes[16] __attribute__((aligned(16)));
  catch_all();
  extern char fault_align[], after_align[];
  install(SIGBUS, on_unaligned, 0);
  go_on_at = (uint64_t)after_align;
  __asm__ volatile("lea -128(%%rsp), %%rsp; pushfq; orl $0x40000, (%%rsp); popfq\n"
                   ".globl fault_align; fault_align: mov (%0), %%eax\n"
                   ".globl after_align; after_align: pushfq; andl $~0x40000, (%%rsp); popfq\n"
                   "lea 128(%%rsp), %%rsp"
                   :
                   : "r"(bytes + 1)
                   : "rax", "memory", "cc");
  SHOWS(SIGBUS, BUS_ADRALN, 0, 17, 0);
  CHECK(registers[REG_RIP] == (greg_t)fault_align);
}

// --- Handlers of faults -------------------------------------------------------------------------
static void on_nested_fault(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)info, (void)context;
  if (++seen < 5)
    *(volatile char*)8 = 1;
  siglongjmp(after_fault, 1);
}
static void a_fault_in_its_handler(void) {
  install(SIGSEGV, on_nested_fault, SA_NODEFER);
  seen = 0;
  if (sigsetjmp(after_fault, 1) == 0)
    *(volatile char*)8 = 1;
  CHECK(seen == 5);
}

static void on_overflow(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)context;
  info_seen = *info;
  ++seen;
  siglongjmp(after_fault, 1);
}
static volatile int without_end = 1;
__attribute__((noinline)) static int endless(volatile char* above) {
  volatile char here[4096];
  here[0] = above[0];
  return without_end ? endless(here) + here[1] : 0;
}
static void* overflows(void* unused) {
  char* p = new_pages(16);
  stack_t stack = {.ss_sp = p, .ss_size = 16 * kPage};
  CHECK(sigaltstack(&stack, NULL) == 0);
  char byte = 0;
  if (sigsetjmp(after_fault, 1) == 0)
    endless(&byte);
  stack.ss_flags = SS_DISABLE;
  CHECK(sigaltstack(&stack, NULL) == 0);
  munmap(p, 16 * kPage);
  return unused;
}
static void stack_overflow(void) {
  seen = 0;
  install(SIGSEGV, on_overflow, SA_ONSTACK);
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 256 * 1024);
  pthread_t thread;
  CHECK(pthread_create(&thread, &small, overflows, NULL) == 0);
  finish(thread);
  CHECK(seen == 1 && info_seen.si_code == SEGV_ACCERR);
  pthread_attr_destroy(&small);
}
static void* faults_often(void* unused) {
  for (int i = 0; i < 200; ++i)
    __asm__ volatile("mov (%%rcx), %%al" : : "c"(8) : "rax"); // two bytes
  return unused;
}
static atomic_int skipped;
static void on_skip(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)info;
  ((ucontext_t*)context)->uc_mcontext.gregs[REG_RIP] += 2;
  atomic_fetch_add(&skipped, 1);
}
static void faults_of_many_threads(void) {
  skipped = 0;
  install(SIGSEGV, on_skip, 0);
  pthread_t threads[6];
  for (int i = 0; i < 6; ++i)
    threads[i] = start(faults_often, NULL);
  for (int i = 0; i < 6; ++i)
    finish(threads[i]);
  CHECK(skipped == 1200);
}

// --- Deaths -------------------------------------------------------------------------------------
static void dies_of_a_fault(void) {
  case_ends();
  *(volatile char*)8 = 1;
}
static void dies_of_a_blocked_fault(void) {
  catch_all();
  block(SIGSEGV);
  case_ends();
  *(volatile char*)8 = 1;
}
static void dies_of_an_ignored_fault(void) {
  struct sigaction action;
  CHECK(signal(SIGFPE, SIG_IGN) == SIG_DFL);
  CHECK(sigaction(SIGFPE, NULL, &action) == 0 && action.sa_handler == SIG_IGN);
  case_ends();
  __asm__ volatile("idivl %%ecx" : : "a"(1), "d"(0), "c"(0) : "cc");
}
static void dies_of_its_own_breakpoint(void) {
  case_ends();
  __asm__ volatile("int3");
}
static void dies_of_ud2(void) {
  case_ends();
  __asm__ volatile("ud2");
}
static void dies_for_want_of_a_stack(void) {
  install(SIGUSR1, on_fault, SA_ONSTACK);
  char* none = mmap(NULL, 64 * 1024, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  stack_t stack = {.ss_sp = none, .ss_size = 64 * 1024};
  CHECK(sigaltstack(&stack, NULL) == 0);
  case_ends();
  raise(SIGUSR1);
}

#define AREA "faults"
const struct Case cases[] = {
    ROW(read_of_nothing, #PF rt_sigaction),
    ROW(write_to_nothing, #PF),
    ROW(jump_to_nothing, #PF),
    ROW(null_pointer, #PF),
    ROW(write_to_read_only, #PF mprotect),
    ROW(read_without_rights, #PF mmap),
    ROW(execute_data, #PF mmap),
    ROW(beyond_the_file, #PF mmap),
    ROW(kernel_address, #PF),
    ROW(over_a_page_border, #PF munmap),
    ROW(string_move_stops_within, #PF munmap),
    ROW(repaired_and_done_again, #PF mprotect rt_sigreturn),
    ROW(not_canonical, #GP),
    ROW(not_canonical_stack, #SS),
    ROW(time_stamps_denied, prctl rdtsc rdtscp),
    ROW(privileged_instructions, #GP),
    ROW(interrupts_that_are_not_ours, #GP),
    ROW(undefined_instruction, #UD),
    ROW(lock_where_it_may_not_be, #UD),
    ROW(misaligned_vector, #GP),
    ROW(division_by_zero, #DE),
    ROW(quotient_too_large, #DE),
    ROW(vector_division_by_zero, #XF),
    ROW(vector_invalid, #XF),
    ROW(vector_overflow, #XF),
    ROW(vector_underflow, #XF),
    ROW(vector_inexact, #XF),
    ROW(x87_division_by_zero, #MF),
    ROW(own_breakpoint, #BP),
    ROW(long_breakpoint, #BP),
    ROW(icebp, #DB),
    ROW(single_steps, #DB),
    ROW(a_step_over_a_system_call, #DB getpid),
    ROW(alignment_check, #AC),
    ROW(a_fault_in_its_handler, #PF rt_sigaction),
    ROW(stack_overflow, #PF sigaltstack),
    ROW(faults_of_many_threads, #PF rt_sigreturn),
    ALONE(dies_of_a_fault, #PF),
    ALONE(dies_of_a_blocked_fault, #PF rt_sigprocmask),
    ALONE(dies_of_an_ignored_fault, #DE rt_sigaction),
    ALONE(dies_of_its_own_breakpoint, #BP),
    ALONE(dies_of_ud2, #UD),
    ALONE(dies_for_want_of_a_stack, sigaltstack tgkill),
};
const size_t case_count = sizeof cases / sizeof *cases;
