// A short program with what is awkward to step: calls that the agent answers or makes itself,
// repeated strings, flags, a fork.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static void say(const char* text) {
  if (write(1, text, strlen(text)) < 0)
    _exit(1);
}

// --- The trap flag: nobody sees ours, and the program's own works -------------------------------

enum { kTrapFlag = 0x100, kMostTraps = 40 };
static volatile uint64_t handler_flags, frame_flags;
static volatile uint64_t trap_at[kMostTraps], address_at[kMostTraps];
static volatile int traps;
static volatile int clear_at = -1; // the handler takes the flag away at this trap

static uint64_t push_flags(void) {
  uint64_t flags;
  __asm__ volatile("pushfq; pop %0" : "=r"(flags)::"memory");
  return flags;
}

static void on_user(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)info;
  handler_flags |= push_flags();
  frame_flags |= (uint64_t)((ucontext_t*)context)->uc_mcontext.gregs[REG_EFL];
}

static void on_trap(int signal, siginfo_t* info, void* context) {
  (void)signal;
  greg_t* registers = ((ucontext_t*)context)->uc_mcontext.gregs;
  handler_flags |= push_flags();
  frame_flags |= (uint64_t)registers[REG_EFL];
  if (traps < kMostTraps) {
    trap_at[traps] = (uint64_t)registers[REG_RIP];
    address_at[traps] = (uint64_t)info->si_addr;
  }
  if (traps == clear_at)
    registers[REG_EFL] &= ~kTrapFlag;
  ++traps;
}

void own_begin(void), own_hit(void), own_end(void), own_return(void), popped(void);
uint64_t own_steps(void);
// With a push, two system calls (the agent answers one of them), a repeated string and a call in
// what it steps over; the flag comes with popf, goes with popf, comes with iret. What the push saw.
__asm__(".text\n.globl own_steps, own_begin, own_hit, own_end, own_return, popped\n"
        "own_steps: push %rbx\n sub $128, %rsp\n xor %r8d, %r8d\n"
        "pushfq\n orl $0x100, (%rsp)\n popfq\n"
        "own_begin: nop\n pushfq\n pop %rbx\n"
        "mov $39, %eax\n syscall\n nop\n"
        "xor %edi, %edi\n xor %esi, %esi\n mov %rsp, %rdx\n mov $8, %r10d\n"
        "mov $14, %eax\n syscall\n nop\n"
        "mov $3, %ecx\n mov %rsp, %rdi\n rep stosb\n"
        "call own_hit\n"
        "pushfq\n andl $~0x100, (%rsp)\n popfq\n"
        "popped: nop\n nop\n"
        "mov %rsp, %rax\n mov %ss, %ecx\n push %rcx\n push %rax\n pushfq\n orl $0x100, (%rsp)\n"
        "mov %cs, %ecx\n push %rcx\n lea own_return(%rip), %rcx\n push %rcx\n iretq\n"
        "own_return: nop\n nop\n"
        "pushfq\n andl $~0x100, (%rsp)\n popfq\n"
        "own_end: nop\n mov %rbx, %rax\n add $128, %rsp\n pop %rbx\n ret\n"
        "own_hit: nop\n ret\n");

static void say_number(const char* what, uint64_t n) {
  char text[17] = {0};
  for (int i = 15; i >= 0; --i, n >>= 4)
    text[i] = "0123456789abcdef"[n & 15];
  say(what);
  say(text);
  say("\n");
}

static void trap_flag(void) {
  uint64_t flags = push_flags(), r11;
  uint16_t small;
  __asm__ volatile("pushfw; popw %0" : "=r"(small)::"memory");
  long result;
  __asm__ volatile("syscall; mov %%r11, %1"
                   : "=a"(result), "=r"(r11)
                   : "0"(SYS_getppid)
                   : "rcx", "r11", "memory");
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = on_user;
  sigaction(SIGUSR1, &action, NULL);
  raise(SIGUSR1);
  say_number("pushed ", (flags | small) & kTrapFlag);
  say_number("after a system call ", r11 & kTrapFlag);
  say_number("in a handler ", handler_flags & kTrapFlag);
  say_number("in a frame ", frame_flags & kTrapFlag);

  action.sa_sigaction = on_trap;
  sigaction(SIGTRAP, &action, NULL);
  flags = own_steps();
  clear_at = traps + 1;
  own_steps();
  say_number("own: pushed ", flags & kTrapFlag);
  say_number("in a handler ", handler_flags & kTrapFlag);
  say_number("in a frame ", frame_flags & kTrapFlag);
  say_number("traps ", (uint64_t)traps);
  for (int i = 0; i < traps && i < kMostTraps; ++i) {
    say_number("trap at ", trap_at[i] - (uint64_t)own_begin);
    if (address_at[i] != trap_at[i])
      say("at another address\n");
  }
}

int main(void) {
  trap_flag();
  char from[100] = "abc", to[100];
  void *source = from, *target = to;
  size_t count = sizeof from;
  __asm__ volatile("rep movsb" : "+S"(source), "+D"(target), "+c"(count)::"memory");
  __asm__ volatile("pushfq; popfq; pushfq; orq $1, (%%rsp); popfq; std; cld" ::: "cc", "memory");
  sigset_t set, before;
  sigfillset(&set);
  sigprocmask(SIG_BLOCK, &set, &before);
  sigprocmask(SIG_SETMASK, &before, NULL);
  stack_t stack;
  sigaltstack(NULL, &stack);
  say(stack.ss_flags & SS_DISABLE ? "no stack\n" : "wrong\n");
  pid_t child = fork();
  if (child == 0) {
    say("child\n");
    _exit(2);
  }
  int status = 0;
  waitpid(child, &status, 0);
  say(WIFEXITED(status) && WEXITSTATUS(status) == 2 ? "fork\n" : "wrong\n");
  child = vfork();
  if (child == 0)
    _exit(3);
  waitpid(child, &status, 0);
  say(WIFEXITED(status) && WEXITSTATUS(status) == 3 ? "vfork\n" : "wrong\n");
  char* arguments[] = {(char*)"none", NULL};
  execv("/nonexistent", arguments);
  say(to);
  return 6;
}
