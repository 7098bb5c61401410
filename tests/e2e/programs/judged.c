// A program for confined_test.py: what a filter can see, and all that it can answer. Its output and its end are the same with and
// without a debugger.
#define _GNU_SOURCE
#include "say.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define LINE(...) (struct sock_filter) __VA_ARGS__
#define RETURN(what) LINE(BPF_STMT(BPF_RET | BPF_K, what))
#define LOAD(field) LINE(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field)))
#define EQUAL(value, yes, no) LINE(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)(value), yes, no))

void work(int i) { (void)i; }

static int install_with(unsigned flags, struct sock_filter* lines, size_t count) {
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &(struct sock_fprog){(unsigned short)count, lines});
}
#define INSTALL_WITH(flags, ...)                                                                                                   \
  install_with(flags, (struct sock_filter[]){__VA_ARGS__}, sizeof((struct sock_filter[]){__VA_ARGS__}) / sizeof(struct sock_filter))
#define INSTALL(...) INSTALL_WITH(0, __VA_ARGS__)
// What is answered to one call, all others being let pass.
#define ANSWER(number, what) INSTALL(LOAD(nr), EQUAL(number, 0, 1), RETURN(what), RETURN(SECCOMP_RET_ALLOW))

#define TRY(call)                                                                                                                  \
  do {                                                                                                                             \
    errno = 0;                                                                                                                     \
    const long result_ = (long)(call);                                                                                             \
    say("%s: %d %d\n", #call, result_ > 0 ? 1 : (int)result_, errno);                                                              \
  } while (0)

// The same call from two places of its own.
__asm__(".text; first_place: mov $110, %eax; syscall; first_end: ret\n"
        "second_place: mov $110, %eax; syscall; ret");
long first_place(void), second_place(void);
extern char first_end[];

// Only from the first.
static void by_address(void) {
  const unsigned long end = (unsigned long)first_end;
  say("installed: %d\n", INSTALL(LOAD(nr), EQUAL(SYS_getppid, 0, 5), LOAD(instruction_pointer), EQUAL(end, 0, 2),
                                 LINE(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4)),
                                 EQUAL(end >> 32, 1, 0), RETURN(SECCOMP_RET_ERRNO | 33), RETURN(SECCOMP_RET_ALLOW)));
  say("first: %d second: %ld\n", first_place() > 0, second_place());
}

// Calls that a debugger may answer itself, or make in another form.
static void all_are_judged(void) {
  static const int numbers[] = {SYS_rt_sigprocmask, SYS_rt_sigaction, SYS_sigaltstack, SYS_rt_sigpending, SYS_rt_sigtimedwait,
                                SYS_vfork, SYS_munmap, SYS_arch_prctl, SYS_close_range};
  void* page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; ++i)
    if (ANSWER(numbers[i], SECCOMP_RET_ERRNO | (40 + i)) != 0)
      abort();
  TRY(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, NULL, 8));
  TRY(syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 8));
  TRY(syscall(SYS_sigaltstack, NULL, NULL));
  TRY(syscall(SYS_rt_sigpending, NULL, 8));
  TRY(syscall(SYS_rt_sigtimedwait, NULL, NULL, NULL, 8));
  TRY(syscall(SYS_vfork));
  TRY(munmap(page, 4096));
  TRY(syscall(SYS_arch_prctl, 0x1002, 0));
  TRY(syscall(SYS_close_range, 100, 200, 0));
}

// Of several the strictest, of equal ones the youngest; errors have an end.
static void several(void) {
  ANSWER(SYS_getppid, SECCOMP_RET_ERRNO | 33);
  ANSWER(SYS_getppid, SECCOMP_RET_LOG);
  ANSWER(SYS_getppid, SECCOMP_RET_TRACE | 7);
  TRY(getppid());
  ANSWER(SYS_getppid, SECCOMP_RET_ERRNO | 34);
  TRY(getppid());
  ANSWER(SYS_getpgid, SECCOMP_RET_LOG);
  TRY(getpgid(0));
  ANSWER(SYS_getsid, SECCOMP_RET_TRACE | 7);
  TRY(getsid(0));
  ANSWER(SYS_getuid, SECCOMP_RET_ERRNO | 0xffff);
  TRY(syscall(SYS_getuid) == -1 && errno == 4095);
  ANSWER(SYS_getgid, SECCOMP_RET_ERRNO);
  TRY(syscall(SYS_getgid));
  // Arithmetic: a number that is 2 * 51 + 2 after (x & 0xff) / 2 << 1 by way of X and a scratch word.
  INSTALL(LOAD(nr), LINE(BPF_STMT(BPF_MISC | BPF_TAX, 0)), LINE(BPF_STMT(BPF_ST, 3)), LINE(BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0)),
          LINE(BPF_STMT(BPF_ALU | BPF_SUB | BPF_K, 64)), LINE(BPF_STMT(BPF_ALU | BPF_OR | BPF_X, 0)),
          LINE(BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 1)), LINE(BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, 3)),
          LINE(BPF_STMT(BPF_LDX | BPF_W | BPF_MEM, 3)), LINE(BPF_JUMP(BPF_JMP | BPF_JGT | BPF_X, 0, 0, 2)),
          LINE(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getegid / 2 * 3, 0, 1)), RETURN(SECCOMP_RET_ERRNO | 35), RETURN(SECCOMP_RET_ALLOW));
  TRY(syscall(SYS_getegid));
  TRY(syscall(SYS_geteuid));
}

static void* in_thread(void* result) {
  *(long*)result = syscall(SYS_getppid) == -1 ? errno : 0;
  return NULL;
}
static void* installs(void* number) {
  ANSWER(SYS_getppid, SECCOMP_RET_ERRNO | (int)(long)number);
  return NULL;
}

// A thread's are its own, and its children's; of all threads with TSYNC.
static void threads(void) {
  pthread_t thread;
  long result = -1;
  pthread_create(&thread, NULL, installs, (void*)33);
  pthread_join(thread, NULL);
  TRY(getppid());
  ANSWER(SYS_getppid, SECCOMP_RET_ERRNO | 34);
  pthread_create(&thread, NULL, in_thread, &result);
  pthread_join(thread, NULL);
  say("inherited: %ld\n", result);
  pid_t child = fork();
  if (child == 0)
    _exit(syscall(SYS_getppid) == -1 ? errno : 0);
  int status;
  waitpid(child, &status, 0);
  say("child: %d\n", WEXITSTATUS(status));
  say("vfork: %d\n", system("test $PPID -gt 1"));
}

static pthread_barrier_t barrier;
static void* between(void* result) {
  pthread_barrier_wait(&barrier);
  pthread_barrier_wait(&barrier);
  return in_thread(result);
}
static void synchronised(void) {
  pthread_t thread;
  long result = -1;
  pthread_barrier_init(&barrier, NULL, 2);
  pthread_create(&thread, NULL, between, &result);
  pthread_barrier_wait(&barrier);
  say("installed: %d\n", INSTALL_WITH(SECCOMP_FILTER_FLAG_TSYNC, LOAD(nr), EQUAL(SYS_getppid, 0, 1), RETURN(SECCOMP_RET_ERRNO | 33),
                                      RETURN(SECCOMP_RET_ALLOW)));
  pthread_barrier_wait(&barrier);
  pthread_join(thread, NULL);
  say("the other's: %ld\n", result);
}

// A supervisor in a thread without the filter; the call waits for it.
static volatile int listener = -1;
static void* asks(void* unused) {
  listener = INSTALL_WITH(SECCOMP_FILTER_FLAG_NEW_LISTENER, LOAD(nr), EQUAL(SYS_getppid, 0, 1), RETURN(SECCOMP_RET_USER_NOTIF),
                          RETURN(SECCOMP_RET_ALLOW));
  pthread_barrier_wait(&barrier);
  for (int i = 0; i < 3; ++i)
    TRY(getppid());
  return unused;
}
static void supervised(void) {
  pthread_t thread;
  pthread_barrier_init(&barrier, NULL, 2);
  pthread_create(&thread, NULL, asks, NULL);
  pthread_barrier_wait(&barrier);
  for (int i = 0; i < 3; ++i) {
    struct seccomp_notif asked = {0};
    struct seccomp_notif_resp answer = {0};
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) != 0)
      abort();
    say("asked for %d\n", asked.data.nr);
    answer.id = asked.id;
    if (i == 0)
      answer.error = -33;
    else if (i == 1)
      answer.val = 7;
    else
      answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer) != 0)
      abort();
  }
  pthread_join(thread, NULL);
}

// A killed thread takes nobody along, and gives back what it holds as any that ends.
static void* killed(void* unused) {
  ANSWER(SYS_getppid, SECCOMP_RET_KILL_THREAD);
  getppid();
  return unused;
}
static void a_thread_killed(void) {
  for (int i = 0; i < 3; ++i) {
    pthread_t thread;
    pthread_create(&thread, NULL, killed, NULL);
    pthread_join(thread, NULL);
    say("gone\n");
  }
}

static void on_refusal(int signal) { say("signal %d\n", signal); }
static void ends_by_signal(int how) {
  struct sigaction action = {.sa_handler = how == SIG_BLOCK ? on_refusal : SIG_IGN};
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGSYS);
  sigaction(SIGSYS, &action, NULL);
  if (how == SIG_BLOCK)
    sigprocmask(SIG_BLOCK, &set, NULL);
  ANSWER(SYS_getppid, SECCOMP_RET_TRAP);
  getppid();
  say("not reached\n");
}
static void blocked(void) { ends_by_signal(SIG_BLOCK); }
static void ignored(void) { ends_by_signal(SIG_SETMASK); }
static void process_killed(void) {
  signal(SIGSYS, on_refusal);
  ANSWER(SYS_getppid, SECCOMP_RET_KILL_PROCESS);
  getppid();
}
static void unknown_action(void) {
  ANSWER(SYS_getppid, 0x12340000);
  getppid();
}
// There is no way back from its handler.
static void no_sigreturn(void) {
  ANSWER(SYS_rt_sigreturn, SECCOMP_RET_KILL_PROCESS);
  signal(SIGUSR1, on_refusal);
  raise(SIGUSR1);
  say("not reached\n");
}

static long call_of_32_bits(int number) {
  long result = number;
  __asm__ volatile("int $0x80" : "+a"(result) : : "r8", "r9", "r10", "r11", "memory");
  return result;
}
// By the next image, with handlers of its own.
static void on_told(int signal, siginfo_t* info, void* context) {
  const greg_t* r = ((ucontext_t*)context)->uc_mcontext.gregs;
  say("signal %d code %d errno %d call %d arch %x at %d rax %d rcx %d\n", signal, info->si_code, info->si_errno, info->si_syscall,
      info->si_arch, info->si_call_addr == (void*)r[REG_RIP], (int)r[REG_RAX], info->si_call_addr == (void*)r[REG_RCX]);
}
// The same numbers mean other calls there.
static void by_architecture(void) {
  sigaction(SIGSYS, &(struct sigaction){.sa_sigaction = on_told, .sa_flags = SA_SIGINFO}, NULL);
  INSTALL(LOAD(arch), EQUAL(AUDIT_ARCH_I386, 0, 5), LOAD(nr), EQUAL(64, 0, 1), RETURN(SECCOMP_RET_ERRNO | 33), EQUAL(24, 0, 1),
          RETURN(SECCOMP_RET_TRAP | 6), RETURN(SECCOMP_RET_ALLOW));
  TRY(call_of_32_bits(64) == -33);
  TRY(call_of_32_bits(24) == 24);
  TRY(call_of_32_bits(20) == getpid());
  TRY(syscall(SYS_sched_yield));
  ANSWER(SYS_sched_yield, SECCOMP_RET_KILL_PROCESS);
  call_of_32_bits(24);
}

static void inherits(void) {
  sigaction(SIGSYS, &(struct sigaction){.sa_sigaction = on_told, .sa_flags = SA_SIGINFO}, NULL);
  TRY(getppid());
  TRY(getpgid(0));
  TRY(syscall(SYS_fork));
  TRY(syscall(SYS_clone, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL, NULL, NULL, NULL));
  TRY(syscall(SYS_execveat, -1, "/bin/true", NULL, NULL, 0));
  TRY(syscall(SYS_mmap, NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 77));
  ANSWER(SYS_getsid, SECCOMP_RET_ERRNO | 34);
  TRY(getsid(0));
}
static void inherited(void) {
  ANSWER(SYS_getppid, SECCOMP_RET_TRAP | 1);
  ANSWER(SYS_getpgid, SECCOMP_RET_ERRNO | 33);
  ANSWER(SYS_fork, SECCOMP_RET_TRAP | 2);
  ANSWER(SYS_clone, SECCOMP_RET_TRAP | 3);
  INSTALL(LOAD(nr), EQUAL(SYS_mmap, 0, 3), LOAD(args[5]), EQUAL(77, 0, 1), RETURN(SECCOMP_RET_TRAP | 5), RETURN(SECCOMP_RET_ALLOW));
  INSTALL(LOAD(nr), EQUAL(SYS_execveat, 0, 1), RETURN(SECCOMP_RET_TRAP | 4), RETURN(SECCOMP_RET_ALLOW));
  execl("/proc/self/exe", "judged", "inherits", NULL);
}

static const struct {
  const char* name;
  void (*run)(void);
} cases[] = {{"by_address", by_address},
             {"all_are_judged", all_are_judged},
             {"several", several},
             {"threads", threads},
             {"synchronised", synchronised},
             {"supervised", supervised},
             {"a_thread_killed", a_thread_killed},
             {"blocked", blocked},
             {"ignored", ignored},
             {"process_killed", process_killed},
             {"unknown_action", unknown_action},
             {"no_sigreturn", no_sigreturn},
             {"by_architecture", by_architecture},
             {"inherited", inherited},
             {"inherits", inherits}};

int main(int argc, char** argv) {
  for (size_t i = 0; argc > 1 && i < sizeof cases / sizeof *cases; ++i)
    if (strcmp(cases[i].name, argv[1]) == 0) {
      for (int n = 0; n < 10; ++n)
        work(n);
      cases[i].run();
    }
  work(10);
  return 3;
}
