// Signals: what is sent, queued, masked, shown and returned from. Calls that a signal interrupts
// are in restarts.c, faults in faults.c. Long because it is one table of many small cases.
#include "conformance.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

enum { kMost = 64 };
static volatile sig_atomic_t seen;
static siginfo_t infos[kMost];
static void on_signal(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)context;
  if (seen < kMost)
    infos[seen] = *info;
  ++seen;
}
static void expect(int signal, int flags) {
  seen = 0;
  memset(infos, 0, sizeof infos);
  install(signal, on_signal, flags);
}
static int send_to_self(int signal) {
  return (int)syscall(SYS_tgkill, getpid(), own_tid(), signal);
}
static int pending(int signal) {
  sigset_t set;
  CHECK(sigpending(&set) == 0);
  return sigismember(&set, signal);
}

// --- Masks and what waits -----------------------------------------------------------------------
static void delivered_when_unblocked(void) {
  expect(SIGUSR1, 0);
  block(SIGUSR1);
  CHECK(raise(SIGUSR1) == 0 && seen == 0 && pending(SIGUSR1));
  unblock(SIGUSR1);
  CHECK(seen == 1 && !pending(SIGUSR1)); // before the call returned
}
static void standard_signals_merge(void) {
  expect(SIGUSR1, 0);
  block(SIGUSR1);
  for (int i = 0; i < 5; ++i)
    raise(SIGUSR1);
  unblock(SIGUSR1);
  CHECK(seen == 1);
}
static void thread_and_process_each_hold_one(void) {
  expect(SIGUSR1, 0);
  block(SIGUSR1);
  CHECK(kill(getpid(), SIGUSR1) == 0 && send_to_self(SIGUSR1) == 0);
  unblock(SIGUSR1);
  CHECK(seen == 2 && infos[0].si_code == SI_TKILL && infos[1].si_code == SI_USER);
}
static void real_time_signals_queue(void) {
  expect(SIGRTMIN + 3, 0);
  install(SIGRTMIN + 1, on_signal, 0);
  block(SIGRTMIN + 3), block(SIGRTMIN + 1);
  for (int i = 0; i < 10; ++i) {
    CHECK(sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = i}) == 0);
    CHECK(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i + 100}) == 0);
  }
  // The lower number first, each in the order sent: taken, because handlers nest the other way.
  sigset_t both = set_of(SIGRTMIN + 1);
  sigaddset(&both, SIGRTMIN + 3);
  for (int i = 0; i < 20; ++i) {
    siginfo_t info;
    int got = sigwaitinfo(&both, &info);
    CHECK(got == (i < 10 ? SIGRTMIN + 1 : SIGRTMIN + 3));
    CHECK(info.si_value.sival_int == (i < 10 ? 100 + i : i - 10));
  }
}
static void real_time_handlers_run_for_each(void) {
  expect(SIGRTMIN + 2, 0);
  block(SIGRTMIN + 2);
  for (int i = 0; i < 30; ++i)
    CHECK(sigqueue(getpid(), SIGRTMIN + 2, (union sigval){.sival_int = i}) == 0);
  unblock(SIGRTMIN + 2);
  CHECK(seen == 30);
  for (int i = 0; i < 30; ++i)
    CHECK(infos[i].si_value.sival_int == i && infos[i].si_code == SI_QUEUE);
}
static void every_signal_reaches_its_handler(void) {
  for (int signal = 1; signal <= SIGRTMAX; ++signal) {
    if (signal == SIGKILL || signal == SIGSTOP || signal == 32 || signal == 33)
      continue;
    expect(signal, 0);
    CHECK(kill(getpid(), signal) == 0);
    if (seen != 1 || infos[0].si_signo != signal || infos[0].si_code != SI_USER) {
      say("signal %d came %d times", signal, (int)seen);
      CHECK(!"every signal comes once");
    }
  }
}
static void every_signal_can_wait(void) {
  for (int signal = 1; signal <= SIGRTMAX; ++signal) {
    if (signal == SIGKILL || signal == SIGSTOP || signal == 32 || signal == 33)
      continue;
    expect(signal, 0);
    block(signal);
    CHECK(kill(getpid(), signal) == 0 && seen == 0);
    if (!pending(signal)) {
      say("signal %d does not wait", signal);
      CHECK(!"it is pending");
    }
    unblock(signal);
    CHECK(seen == 1);
  }
}
static void kill_and_stop_cannot_be_blocked(void) {
  sigset_t all, now_blocked;
  sigfillset(&all);
  CHECK(sigprocmask(SIG_SETMASK, &all, NULL) == 0);
  CHECK(sigprocmask(SIG_SETMASK, NULL, &now_blocked) == 0);
  for (int signal = 1; signal <= SIGRTMAX; ++signal)
    if (signal < 32 || signal >= SIGRTMIN)
      CHECK(sigismember(&now_blocked, signal) == (signal != SIGKILL && signal != SIGSTOP));
}
static void mask_call_errors(void) {
  uint64_t set = 0;
  CHECK_FAILS(syscall(SYS_rt_sigprocmask, 99, &set, NULL, 8), EINVAL);
  CHECK_FAILS(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, NULL, 4), EINVAL);
  CHECK_FAILS(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, NULL, 16), EINVAL);
  CHECK_FAILS(syscall(SYS_rt_sigpending, &set, 9), EINVAL);
  CHECK_FAILS(syscall(SYS_rt_sigsuspend, &set, 4), EINVAL);
  CHECK(syscall(SYS_rt_sigprocmask, 99, NULL, &set, 8) == 0); // without a set nobody looks
}
static void ignoring_drops_what_waits(void) {
  expect(SIGUSR1, 0);
  block(SIGUSR1);
  raise(SIGUSR1);
  signal(SIGUSR1, SIG_IGN);
  CHECK(!pending(SIGUSR1));
  install(SIGUSR1, on_signal, 0);
  unblock(SIGUSR1);
  CHECK(seen == 0);
}
static void default_ignored_is_dropped(void) {
  block(SIGURG);
  raise(SIGURG);
  CHECK(pending(SIGURG)); // blocked, it is kept
  signal(SIGURG, SIG_DFL);
  CHECK(!pending(SIGURG));
}
static void kept_while_others_change(void) {
  block(SIGURG), block(SIGWINCH);
  raise(SIGURG), raise(SIGWINCH);
  expect(SIGCHLD, 0);
  signal(SIGCHLD, SIG_IGN);
  signal(SIGUSR1, SIG_IGN);
  signal(SIGUSR1, SIG_DFL);
  CHECK(pending(SIGURG) && pending(SIGWINCH));
}
static void* tells_pending(void* unused) {
  (void)unused;
  return (void*)(uintptr_t)(pending(SIGUSR1) | pending(SIGUSR2) << 1);
}
static void pending_of_thread_and_process(void) {
  block(SIGUSR1), block(SIGUSR2);
  send_to_self(SIGUSR1);
  kill(getpid(), SIGUSR2);
  void* others = NULL;
  CHECK(pthread_join(start(tells_pending, NULL), &others) == 0);
  CHECK(pending(SIGUSR1) && pending(SIGUSR2) && others == (void*)2);
}
static pthread_t volatile taker;
static void on_note_thread(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)info, (void)context;
  taker = pthread_self();
  ++seen;
}
static atomic_int may_end;
static void* waits_unblocked(void* unused) {
  unblock(SIGUSR1);
  while (!may_end)
    sched_yield();
  return unused;
}
static void goes_to_a_thread_that_lets_it_in(void) {
  seen = 0, may_end = 0;
  install(SIGUSR1, on_note_thread, 0);
  block(SIGUSR1);
  pthread_t other = start(waits_unblocked, NULL);
  for (int i = 1; i <= 20; ++i) {
    CHECK(kill(getpid(), SIGUSR1) == 0);
    while (seen < i)
      sched_yield();
    CHECK(pthread_equal(taker, other));
  }
  may_end = 1;
  finish(other);
}
static void sent_to_another_thread(void) {
  seen = 0, may_end = 0;
  install(SIGUSR1, on_note_thread, 0);
  pthread_t other = start(waits_unblocked, NULL);
  for (int i = 1; i <= 20; ++i) {
    CHECK(pthread_kill(other, SIGUSR1) == 0);
    while (seen < i)
      sched_yield();
    CHECK(pthread_equal(taker, other));
  }
  may_end = 1;
  finish(other);
}
static void mask_of_a_new_thread(void) {
  block(SIGUSR2);
  send_to_self(SIGUSR2); // waits for this thread alone
  void* others = NULL;
  CHECK(pthread_join(start(tells_pending, NULL), &others) == 0 && others == NULL);
  CHECK(pending(SIGUSR2));
}
static void queue_limit(void) {
  struct rlimit old, small;
  CHECK(getrlimit(RLIMIT_SIGPENDING, &old) == 0);
  small = old;
  small.rlim_cur = 0;
  block(SIGRTMIN + 1), block(SIGUSR1);
  CHECK(setrlimit(RLIMIT_SIGPENDING, &small) == 0);
  CHECK_FAILS(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 1}), EAGAIN);
  CHECK(kill(getpid(), SIGUSR1) == 0 && pending(SIGUSR1)); // without siginfo, but there
  CHECK(setrlimit(RLIMIT_SIGPENDING, &old) == 0);
}

// --- What a handler is told ---------------------------------------------------------------------
static void info_of_kill(void) {
  expect(SIGUSR1, 0);
  CHECK(kill(getpid(), SIGUSR1) == 0);
  CHECK(infos[0].si_signo == SIGUSR1 && infos[0].si_code == SI_USER && infos[0].si_errno == 0);
  CHECK(infos[0].si_pid == getpid() && infos[0].si_uid == getuid());
}
static void info_of_tgkill(void) {
  expect(SIGUSR1, 0);
  CHECK(send_to_self(SIGUSR1) == 0);
  CHECK(infos[0].si_code == SI_TKILL && infos[0].si_pid == getpid());
}
static void info_of_sigqueue(void) {
  expect(SIGUSR1, 0);
  CHECK(sigqueue(getpid(), SIGUSR1, (union sigval){.sival_ptr = infos}) == 0);
  CHECK(infos[0].si_code == SI_QUEUE && infos[0].si_pid == getpid() &&
        infos[0].si_value.sival_ptr == infos);
}
static void info_made_up(void) {
  expect(SIGUSR1, 0);
  siginfo_t info;
  memset(&info, 0, sizeof info);
  info.si_signo = SIGUSR1;
  info.si_code = -77;
  info.si_errno = 5;
  info.si_pid = 12345;
  CHECK(syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, &info) == 0);
  CHECK(syscall(SYS_rt_tgsigqueueinfo, getpid(), own_tid(), SIGUSR1, &info) == 0);
  CHECK(seen == 2 && infos[0].si_code == -77 && infos[0].si_pid == 12345 && infos[0].si_errno == 5);
  CHECK(infos[1].si_code == -77);
  info.si_code = SI_KERNEL; // allowed to oneself only
  CHECK(syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, &info) == 0 &&
        infos[2].si_code == SI_KERNEL);
  CHECK_FAILS(syscall(SYS_rt_sigqueueinfo, getppid(), 0, &info), EPERM);
}
static void info_of_a_child(void) {
  expect(SIGCHLD, 0);
  pid_t child = fork();
  if (child == 0)
    _exit(7);
  while (seen < 1)
    sched_yield();
  CHECK(infos[0].si_code == CLD_EXITED && infos[0].si_pid == child && infos[0].si_status == 7);
  CHECK(status_of(child) == 7 << 8);
  expect(SIGCHLD, 0);
  child = fork();
  if (child == 0)
    for (;;)
      pause();
  kill(child, SIGSTOP);
  while (seen < 1)
    sched_yield();
  CHECK(infos[0].si_code == CLD_STOPPED && infos[0].si_status == SIGSTOP);
  kill(child, SIGCONT);
  while (seen < 2)
    sched_yield();
  CHECK(infos[1].si_code == CLD_CONTINUED && infos[1].si_status == SIGCONT);
  kill(child, SIGKILL);
  while (seen < 3)
    sched_yield();
  CHECK(infos[2].si_code == CLD_KILLED && infos[2].si_status == SIGKILL);
  CHECK(status_of(child) == SIGKILL);
}
static void no_sigchld_for_stops(void) {
  expect(SIGCHLD, SA_NOCLDSTOP);
  pid_t child = fork();
  if (child == 0)
    for (;;)
      pause();
  int status = 0;
  kill(child, SIGSTOP);
  CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
  kill(child, SIGKILL);
  while (seen < 1)
    sched_yield();
  CHECK(seen == 1 && infos[0].si_code == CLD_KILLED);
  status_of(child);
}
static void no_zombies(void) {
  expect(SIGCHLD, SA_NOCLDWAIT);
  pid_t child = fork();
  if (child == 0)
    _exit(0);
  CHECK_FAILS(waitpid(child, NULL, 0), ECHILD);
}
static void info_of_a_timer(void) {
  expect(SIGRTMIN + 4, 0);
  struct sigevent event;
  memset(&event, 0, sizeof event);
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGRTMIN + 4;
  event.sigev_value.sival_int = 4711;
  timer_t timer;
  CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
  struct itimerspec soon = {{0, 0}, {0, 1000000}};
  CHECK(timer_settime(timer, 0, &soon, NULL) == 0);
  while (seen < 1)
    sched_yield();
  CHECK(infos[0].si_code == SI_TIMER && infos[0].si_value.sival_int == 4711);
  CHECK(timer_delete(timer) == 0);
  CHECK_FAILS(syscall(SYS_timer_delete, 12345678), EINVAL);
}
static void info_of_sigio(void) {
  expect(SIGRTMIN + 5, 0);
  int ends[2];
  CHECK(pipe2(ends, O_CLOEXEC) == 0);
  CHECK(fcntl(ends[0], F_SETOWN, getpid()) == 0 && fcntl(ends[0], F_SETSIG, SIGRTMIN + 5) == 0);
  CHECK(fcntl(ends[0], F_SETFL, O_ASYNC) == 0 && write(ends[1], "x", 1) == 1);
  while (seen < 1)
    sched_yield();
  CHECK(infos[0].si_code == POLL_IN && infos[0].si_fd == ends[0] && (infos[0].si_band & POLLIN));
  close(ends[0]), close(ends[1]);
}
static void info_of_sigpipe(void) {
  expect(SIGPIPE, 0);
  int ends[2];
  CHECK(pipe2(ends, O_CLOEXEC) == 0);
  close(ends[0]);
  CHECK_FAILS(write(ends[1], "x", 1), EPIPE);
  CHECK(seen == 1 && infos[0].si_code == SI_USER && infos[0].si_pid == getpid());
  close(ends[1]);
}
static void sending_fails(void) {
  CHECK_FAILS(kill(getpid(), 65), EINVAL);
  CHECK_FAILS(kill(getpid(), -1), EINVAL);
  CHECK_FAILS(kill(0x3fffffff, 0), ESRCH);
  CHECK_FAILS(syscall(SYS_tgkill, getpid(), 0x3fffffff, 0), ESRCH);
  CHECK_FAILS(syscall(SYS_tgkill, -1, own_tid(), 0), EINVAL);
  CHECK_FAILS(syscall(SYS_tgkill, getppid(), own_tid(), 0), ESRCH);
  CHECK_FAILS(syscall(SYS_tkill, 0, SIGUSR1), EINVAL);
  CHECK(kill(getpid(), 0) == 0 && syscall(SYS_tkill, own_tid(), 0) == 0);
}
static void sent_by_pidfd(void) {
  expect(SIGUSR1, 0);
  int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
  CHECK(fd >= 0 && syscall(SYS_pidfd_send_signal, fd, SIGUSR1, NULL, 0) == 0);
  CHECK(seen == 1 && infos[0].si_code == SI_USER && infos[0].si_pid == getpid());
  close(fd);
}

// --- Dispositions -------------------------------------------------------------------------------
static void sigaction_gives_back_what_it_got(void) {
  struct sigaction set, got;
  memset(&set, 0, sizeof set);
  set.sa_sigaction = on_signal;
  set.sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER | SA_ONSTACK | (int)SA_RESETHAND;
  sigaddset(&set.sa_mask, SIGUSR2);
  sigaddset(&set.sa_mask, SIGTRAP);
  sigaddset(&set.sa_mask, SIGSEGV);
  for (int signal = 1; signal <= SIGRTMAX; ++signal) {
    if (signal == SIGKILL || signal == SIGSTOP || signal == 32 || signal == 33)
      continue;
    CHECK(sigaction(signal, &set, &got) == 0 && got.sa_handler == SIG_DFL);
    CHECK(sigaction(signal, NULL, &got) == 0 && got.sa_sigaction == on_signal);
    CHECK((got.sa_flags & ~0x04000000) == set.sa_flags);
    CHECK(sigismember(&got.sa_mask, SIGUSR2) && sigismember(&got.sa_mask, SIGTRAP) &&
          sigismember(&got.sa_mask, SIGSEGV) && !sigismember(&got.sa_mask, SIGUSR1));
  }
}
static void sigaction_errors(void) {
  struct sigaction set;
  memset(&set, 0, sizeof set);
  CHECK_FAILS(sigaction(SIGKILL, &set, NULL), EINVAL);
  CHECK_FAILS(sigaction(SIGSTOP, &set, NULL), EINVAL);
  CHECK_FAILS(syscall(SYS_rt_sigaction, 65, &set, NULL, 8), EINVAL);
  CHECK_FAILS(syscall(SYS_rt_sigaction, 0, NULL, NULL, 8), EINVAL);
  CHECK_FAILS(syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 16), EINVAL);
  struct sigaction got;
  CHECK(sigaction(SIGKILL, NULL, &got) == 0 && got.sa_handler == SIG_DFL);
}
static int mask_in_handler[4];
static void on_look_at_mask(int signal, siginfo_t* info, void* context) {
  (void)info, (void)context;
  mask_in_handler[0] = blocked(signal);
  mask_in_handler[1] = blocked(SIGUSR2);
  mask_in_handler[2] = blocked(SIGTRAP);
  mask_in_handler[3] = blocked(SIGTERM);
  ++seen;
}
static void mask_during_a_handler(void) {
  struct sigaction set;
  memset(&set, 0, sizeof set);
  set.sa_sigaction = on_look_at_mask;
  set.sa_flags = SA_SIGINFO;
  sigaddset(&set.sa_mask, SIGUSR2);
  sigaddset(&set.sa_mask, SIGTRAP);
  CHECK(sigaction(SIGUSR1, &set, NULL) == 0);
  raise(SIGUSR1);
  CHECK(mask_in_handler[0] && mask_in_handler[1] && mask_in_handler[2] && !mask_in_handler[3]);
  CHECK(!blocked(SIGUSR1) && !blocked(SIGUSR2) && !blocked(SIGTRAP));
  set.sa_flags |= SA_NODEFER;
  CHECK(sigaction(SIGUSR1, &set, NULL) == 0);
  raise(SIGUSR1);
  CHECK(!mask_in_handler[0] && mask_in_handler[1]);
}
static volatile int depth, deepest;
static void on_nested(int signal, siginfo_t* info, void* context) {
  (void)info, (void)context;
  if (++depth > deepest)
    deepest = depth;
  if (++seen < 6)
    raise(signal);
  --depth;
}
static void nodefer_nests(void) {
  seen = depth = deepest = 0;
  install(SIGUSR1, on_nested, SA_NODEFER);
  raise(SIGUSR1);
  CHECK(seen == 6 && deepest == 6);
  seen = depth = deepest = 0;
  install(SIGUSR1, on_nested, 0);
  raise(SIGUSR1);
  CHECK(seen == 6 && deepest == 1);
}
static void on_raise_next(int signal, siginfo_t* info, void* context) {
  (void)info, (void)context;
  if (++depth > deepest)
    deepest = depth;
  ++seen;
  if (signal < SIGRTMIN + 10)
    raise(signal + 1);
  --depth;
}
static void different_signals_nest(void) {
  seen = depth = deepest = 0;
  for (int i = 0; i <= 10; ++i)
    install(SIGRTMIN + i, on_raise_next, 0);
  raise(SIGRTMIN);
  CHECK(seen == 11 && deepest == 11);
}
static void reset_hand(void) {
  expect(SIGUSR1, (int)SA_RESETHAND);
  raise(SIGUSR1);
  struct sigaction got;
  CHECK(sigaction(SIGUSR1, NULL, &got) == 0 && got.sa_handler == SIG_DFL && seen == 1);
}
static void on_look_at_disposition(int signal, siginfo_t* info, void* context) {
  (void)info, (void)context;
  struct sigaction got;
  sigaction(signal, NULL, &got);
  seen = got.sa_handler == SIG_DFL ? 2 : 1;
}
static void reset_before_the_handler(void) {
  seen = 0;
  install(SIGUSR1, on_look_at_disposition, (int)SA_RESETHAND);
  raise(SIGUSR1);
  CHECK(seen == 2);
}

// --- Frames -------------------------------------------------------------------------------------
static ucontext_t shown;
static volatile int edit;
static void on_frame(int signal, siginfo_t* info, void* context) {
  (void)info;
  ucontext_t* frame = context;
  shown = *frame;
  ++seen;
  switch (edit) {
  case 1:
    sigaddset(&frame->uc_sigmask, SIGUSR2);
    break;
  case 2:
    frame->uc_mcontext.gregs[REG_RBX] += 1000;
    break;
  case 3:
    sigdelset(&frame->uc_sigmask, signal);
    break;
  default:
    break;
  }
}
static void frame_shows_the_mask_before(void) {
  seen = edit = 0;
  install(SIGUSR1, on_frame, 0);
  block(SIGUSR2), block(SIGSEGV);
  raise(SIGUSR1);
  CHECK(sigismember(&shown.uc_sigmask, SIGUSR2) && sigismember(&shown.uc_sigmask, SIGSEGV) &&
        !sigismember(&shown.uc_sigmask, SIGUSR1) && !sigismember(&shown.uc_sigmask, SIGTRAP));
}
static void mask_edited_in_the_frame(void) {
  seen = 0, edit = 1;
  install(SIGUSR1, on_frame, 0);
  raise(SIGUSR1);
  CHECK(seen == 1 && blocked(SIGUSR2) && !blocked(SIGUSR1));
}
// tgkill(self) with a known value in rbx; what is there after it.
static long rbx_after_signal(long rbx) {
  long number = SYS_tgkill, pid = getpid(), tid = own_tid(), signal = SIGUSR1;
  __asm__ volatile("syscall"
                   : "+a"(number), "+b"(rbx)
                   : "D"(pid), "S"(tid), "d"(signal)
                   : "rcx", "r11", "memory");
  CHECK(number == 0);
  return rbx;
}
static void registers_in_the_frame(void) {
  seen = edit = 0;
  install(SIGUSR1, on_frame, 0);
  CHECK(rbx_after_signal(0x1234567890abcdef) == 0x1234567890abcdef);
  const greg_t* r = shown.uc_mcontext.gregs;
  CHECK(r[REG_RBX] == 0x1234567890abcdef && r[REG_RAX] == 0 && r[REG_RDI] == getpid() &&
        r[REG_RSI] == own_tid() && r[REG_RDX] == SIGUSR1);
  CHECK(r[REG_RCX] == r[REG_RIP] && (r[REG_R11] & 0x200) != 0); // as syscall leaves them
  const unsigned char* code = (const unsigned char*)r[REG_RIP];
  CHECK(code[-2] == 0x0f && code[-1] == 0x05);
  CHECK((r[REG_CSGSFS] & 0xffff) == 0x33 && (shown.uc_mcontext.gregs[REG_EFL] & 0x100) == 0);
}
static void registers_edited_in_the_frame(void) {
  seen = 0, edit = 2;
  install(SIGUSR1, on_frame, 0);
  CHECK(rbx_after_signal(5) == 1005 && seen == 1);
}
static void on_flags(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)info;
  ((ucontext_t*)context)->uc_mcontext.gregs[REG_EFL] |= 0x1 | 0x800; // CF, OF
  __asm__ volatile("pushfq; popq %0" : "=r"(shown.uc_mcontext.gregs[REG_EFL]) : : "memory");
}
static void flags_of_a_handler_and_after(void) {
  install(SIGUSR1, on_flags, 0);
  long pid = getpid(), tid = own_tid(), number = SYS_tgkill, signal = SIGUSR1, flags;
  __asm__ volatile("std; syscall; pushfq; popq %1; cld"
                   : "+a"(number), "=&r"(flags)
                   : "D"(pid), "S"(tid), "d"(signal)
                   : "rcx", "r11", "memory", "cc");
  CHECK((shown.uc_mcontext.gregs[REG_EFL] & 0x400) == 0); // a handler begins with DF clear
  CHECK((flags & 0x400) != 0 && (flags & 0x801) == 0x801);
}
static void on_move_on(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)info;
  ++seen;
  ((ucontext_t*)context)->uc_mcontext.gregs[REG_RIP] += 3; // over the inc
}
static void continues_where_the_frame_says(void) {
  seen = 0;
  install(SIGUSR1, on_move_on, 0);
  long pid = getpid(), tid = own_tid(), number = SYS_tgkill, signal = SIGUSR1, x = 0;
  __asm__ volatile("syscall; incq %%rbx; nop"
                   : "+a"(number), "+b"(x)
                   : "D"(pid), "S"(tid), "d"(signal)
                   : "rcx", "r11", "memory", "cc");
  CHECK(seen == 1 && x == 0);
}

// --- Alternate stacks ---------------------------------------------------------------------------
static char* stack_low;
static size_t stack_size;
static volatile int handler_was_there, flags_there, change_refused;
static void on_look_at_stack(int signal, siginfo_t* info, void* context) {
  (void)info;
  char here;
  handler_was_there = &here >= stack_low && &here < stack_low + stack_size;
  stack_t current;
  sigaltstack(NULL, &current);
  flags_there = current.ss_flags;
  stack_t other = {.ss_flags = SS_DISABLE};
  change_refused = flags_there != SS_DISABLE && sigaltstack(&other, NULL) == -1 && errno == EPERM;
  shown = *(ucontext_t*)context;
  if (++seen == 1 && signal == SIGUSR1)
    raise(SIGUSR2);
}
static void use_alternate_stack(int flags) {
  stack_size = 64 * 1024;
  stack_low = new_pages(stack_size / kPage);
  stack_t stack = {.ss_sp = stack_low, .ss_size = stack_size, .ss_flags = flags};
  CHECK(sigaltstack(&stack, NULL) == 0);
}
static void alternate_stack_is_used(void) {
  use_alternate_stack(0);
  seen = 1;
  install(SIGUSR1, on_look_at_stack, SA_ONSTACK);
  raise(SIGUSR1);
  CHECK(handler_was_there && flags_there == SS_ONSTACK && change_refused);
  CHECK(shown.uc_stack.ss_sp == stack_low && shown.uc_stack.ss_size == stack_size);
  stack_t after;
  CHECK(sigaltstack(NULL, &after) == 0 && after.ss_flags == 0 && after.ss_sp == stack_low);
  install(SIGUSR1, on_look_at_stack, 0);
  raise(SIGUSR1);
  CHECK(!handler_was_there && flags_there == 0 && !change_refused);
  munmap(stack_low, stack_size);
}
static void nested_on_the_same_stack(void) {
  use_alternate_stack(0);
  seen = 0;
  install(SIGUSR1, on_look_at_stack, SA_ONSTACK);
  install(SIGUSR2, on_look_at_stack, SA_ONSTACK);
  raise(SIGUSR1);
  CHECK(seen == 2 && handler_was_there && flags_there == SS_ONSTACK);
}
static void disarmed_while_used(void) {
  use_alternate_stack((int)(1u << 31)); // SS_AUTODISARM
  seen = 1;
  install(SIGUSR1, on_look_at_stack, SA_ONSTACK);
  raise(SIGUSR1);
  CHECK(handler_was_there && flags_there == SS_DISABLE && !change_refused);
  stack_t after;
  CHECK(sigaltstack(NULL, &after) == 0 && after.ss_sp == stack_low &&
        after.ss_flags == (int)(1u << 31));
}
static void alternate_stack_errors(void) {
  char* p = new_pages(4);
  stack_t stack = {.ss_sp = p, .ss_size = 100};
  CHECK_FAILS(sigaltstack(&stack, NULL), ENOMEM);
  stack.ss_size = 4 * kPage;
  stack.ss_flags = 0x40;
  CHECK_FAILS(sigaltstack(&stack, NULL), EINVAL);
  stack_t old;
  CHECK(sigaltstack(NULL, &old) == 0 && old.ss_flags == SS_DISABLE);
  munmap(p, 4 * kPage);
}
static void* looks_at_its_stack(void* unused) {
  (void)unused;
  stack_t current;
  CHECK(sigaltstack(NULL, &current) == 0 && current.ss_flags == SS_DISABLE);
  return NULL;
}
static void a_new_thread_has_none(void) {
  use_alternate_stack(0);
  finish(start(looks_at_its_stack, NULL));
}

// --- Leaving a handler by other ways ------------------------------------------------------------
static sigjmp_buf jump;
static void on_jump(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)info, (void)context;
  ++seen;
  siglongjmp(jump, 1);
}
static void jumps_out(void) {
  seen = 0;
  install(SIGUSR1, on_jump, 0);
  for (volatile int i = 0; i < 100; ++i) {
    if (sigsetjmp(jump, 1) == 0)
      raise(SIGUSR1);
    CHECK(!blocked(SIGUSR1));
  }
  CHECK(seen == 100);
  if (sigsetjmp(jump, 0) == 0)
    raise(SIGUSR1);
  CHECK(blocked(SIGUSR1)); // without the mask
}
static ucontext_t outside, inside;
static void on_swap(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)info, (void)context;
  ++seen;
  swapcontext(&inside, &outside);
  ++seen;
}
static volatile int coroutine_done;
static void coroutine(void) {
  raise(SIGUSR1);
  coroutine_done = 1;
}
static void swaps_out_and_in(void) {
  seen = coroutine_done = 0;
  install(SIGUSR1, on_swap, 0);
  static char stack[65536];
  static volatile int phase;
  ucontext_t other, back;
  phase = 0;
  getcontext(&other);
  other.uc_stack.ss_sp = stack;
  other.uc_stack.ss_size = sizeof stack;
  other.uc_link = &back;
  makecontext(&other, coroutine, 0);
  swapcontext(&outside, &other);
  CHECK(seen == 1 && !coroutine_done);
  getcontext(&back);
  if (++phase == 1)
    setcontext(&inside);
  CHECK(seen == 2 && coroutine_done);
}

// --- Waiting for signals ------------------------------------------------------------------------
static void timedwait_takes(void) {
  sigset_t set = set_of(SIGUSR1);
  siginfo_t info;
  block(SIGUSR1);
  raise(SIGUSR1);
  struct timespec none = {0, 0}, short_time = {0, 20000000}, wrong = {0, 2000000000};
  CHECK(sigtimedwait(&set, &info, &none) == SIGUSR1 && info.si_pid == getpid());
  CHECK_FAILS(sigtimedwait(&set, &info, &none), EAGAIN);
  double begin = now();
  CHECK_FAILS(sigtimedwait(&set, &info, &short_time), EAGAIN);
  CHECK(now() - begin >= 0.02);
  CHECK_FAILS(sigtimedwait(&set, &info, &wrong), EINVAL);
}
struct Sender {
  pid_t tid;
  long call;
  int signal;
};
static void* sends_when_it_waits(void* argument) {
  const struct Sender* sender = argument;
  wait_until_in_call(sender->tid, sender->call);
  CHECK(syscall(SYS_tgkill, getpid(), sender->tid, sender->signal) == 0);
  return NULL;
}
static void timedwait_is_woken(void) {
  block(SIGUSR1);
  expect(SIGUSR2, SA_RESTART);
  sigset_t set = set_of(SIGUSR1);
  siginfo_t info;
  struct Sender sender = {own_tid(), SYS_rt_sigtimedwait, SIGUSR1};
  pthread_t thread = start(sends_when_it_waits, &sender);
  CHECK(sigwaitinfo(&set, &info) == SIGUSR1 && info.si_pid == getpid());
  finish(thread);
  sender.signal = SIGUSR2; // one with a handler ends it
  thread = start(sends_when_it_waits, &sender);
  CHECK_FAILS(sigwaitinfo(&set, &info), EINTR);
  finish(thread);
  CHECK(seen == 1);
}
static void suspend_replaces_the_mask(void) {
  seen = 0;
  install(SIGUSR1, on_look_at_mask, 0);
  block(SIGUSR1), block(SIGTERM);
  raise(SIGUSR1);
  sigset_t during;
  sigfillset(&during);
  sigdelset(&during, SIGUSR1);
  sigdelset(&during, SIGTERM);
  CHECK_FAILS(sigsuspend(&during), EINTR);
  CHECK(seen == 1 && mask_in_handler[0] && mask_in_handler[1] && mask_in_handler[2] &&
        !mask_in_handler[3]);
  CHECK(blocked(SIGUSR1) && blocked(SIGTERM) && !blocked(SIGUSR2));
  struct Sender sender = {own_tid(), SYS_rt_sigsuspend, SIGUSR1};
  pthread_t thread = start(sends_when_it_waits, &sender);
  CHECK_FAILS(sigsuspend(&during), EINTR);
  finish(thread);
  CHECK(seen == 2 && blocked(SIGUSR1));
}
static void pause_ends(void) {
  expect(SIGUSR1, SA_RESTART);
  struct Sender sender = {own_tid(), SYS_pause, SIGUSR1};
  pthread_t thread = start(sends_when_it_waits, &sender);
  CHECK_FAILS(pause(), EINTR);
  finish(thread);
  CHECK(seen == 1);
}
static void masks_of_polls(void) {
  expect(SIGUSR1, 0);
  block(SIGUSR1);
  sigset_t nothing;
  sigemptyset(&nothing);
  struct timespec long_time = {50, 0}, none = {0, 0};
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event;
  raise(SIGUSR1);
  CHECK_FAILS(ppoll(NULL, 0, &long_time, &nothing), EINTR);
  CHECK(seen == 1 && blocked(SIGUSR1));
  raise(SIGUSR1);
  CHECK_FAILS(pselect(0, NULL, NULL, NULL, &long_time, &nothing), EINTR);
  CHECK(seen == 2 && blocked(SIGUSR1));
  raise(SIGUSR1);
  CHECK_FAILS(epoll_pwait(epoll, &event, 1, 50000, &nothing), EINTR);
  CHECK(seen == 3 && blocked(SIGUSR1));
  CHECK(ppoll(NULL, 0, &none, &nothing) == 0 && blocked(SIGUSR1)); // nothing waits
  close(epoll);
}

// Those that faults raise wait like any other if they are sent.
static const int kOfFaults[] = {SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
static void timedwait_takes_those_of_faults(void) {
  struct timespec none = {0, 0};
  for (size_t i = 0; i < sizeof kOfFaults / sizeof *kOfFaults; ++i) {
    sigset_t set = set_of(kOfFaults[i]);
    siginfo_t info;
    block(kOfFaults[i]);
    CHECK(send_to_self(kOfFaults[i]) == 0);
    CHECK(sigtimedwait(&set, &info, &none) == kOfFaults[i]);
    CHECK_FAILS(sigtimedwait(&set, &info, &none), EAGAIN);
  }
}
static void waits_let_in_those_of_faults(void) {
  sigset_t nothing;
  sigemptyset(&nothing);
  struct timespec second = {1, 0};
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event;
  for (size_t i = 0; i < sizeof kOfFaults / sizeof *kOfFaults; ++i) {
    const int signal = kOfFaults[i];
    expect(signal, 0);
    block(signal);
    CHECK(send_to_self(signal) == 0);
    CHECK_FAILS(ppoll(NULL, 0, &second, &nothing), EINTR);
    CHECK(send_to_self(signal) == 0);
    CHECK_FAILS(pselect(0, NULL, NULL, NULL, &second, &nothing), EINTR);
    CHECK(send_to_self(signal) == 0);
    CHECK_FAILS(epoll_pwait(epoll, &event, 1, 1000, &nothing), EINTR);
    CHECK(send_to_self(signal) == 0);
    CHECK_FAILS(syscall(441 /* epoll_pwait2 */, epoll, &event, 1, &second, &nothing, 8), EINTR);
    CHECK(send_to_self(signal) == 0);
    CHECK_FAILS(sigsuspend(&nothing), EINTR);
    CHECK(seen == 5 && blocked(signal));
  }
  close(epoll);
}

// --- signalfd -----------------------------------------------------------------------------------
static void signalfd_reads(void) {
  sigset_t set = set_of(SIGUSR1);
  sigaddset(&set, SIGRTMIN + 1);
  block(SIGUSR1), block(SIGRTMIN + 1);
  int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  CHECK(fd >= 0);
  struct signalfd_siginfo got[4];
  CHECK_FAILS(read(fd, got, sizeof got), EAGAIN);
  kill(getpid(), SIGUSR1);
  sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 8});
  sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 9});
  struct pollfd poll_it = {fd, POLLIN, 0};
  CHECK(poll(&poll_it, 1, 0) == 1 && poll_it.revents == POLLIN);
  CHECK(read(fd, got, sizeof got) == 3 * (ssize_t)sizeof *got);
  CHECK(got[0].ssi_signo == SIGUSR1 && got[0].ssi_code == SI_USER &&
        got[0].ssi_pid == (uint32_t)getpid());
  CHECK(got[1].ssi_signo == (uint32_t)SIGRTMIN + 1 && got[1].ssi_int == 8 && got[2].ssi_int == 9);
  CHECK(poll(&poll_it, 1, 0) == 0 && !pending(SIGUSR1));
  CHECK_FAILS(read(fd, got, 10), EINVAL);
  set = set_of(SIGUSR2); // another set in the same descriptor
  block(SIGUSR2);
  CHECK(signalfd(fd, &set, 0) == fd);
  raise(SIGUSR1), raise(SIGUSR2);
  CHECK(read(fd, got, sizeof got) == (ssize_t)sizeof *got && got[0].ssi_signo == SIGUSR2);
  close(fd);
}
static void signalfd_errors(void) {
  sigset_t set = set_of(SIGUSR1);
  CHECK_FAILS(syscall(SYS_signalfd4, -1, &set, 8, 1), EINVAL);
  CHECK_FAILS(syscall(SYS_signalfd4, -1, &set, 4, 0), EINVAL);
  CHECK_FAILS(signalfd(9999, &set, 0), EBADF);
  int other = open("/dev/null", O_RDONLY | O_CLOEXEC);
  CHECK_FAILS(signalfd(other, &set, 0), EINVAL);
  close(other);
}
static void* reads_signalfd(void* fd) {
  struct signalfd_siginfo got;
  CHECK(read(*(int*)fd, &got, sizeof got) == sizeof got && got.ssi_signo == SIGUSR1);
  return NULL;
}
static void signalfd_wakes_a_reader(void) {
  sigset_t set = set_of(SIGUSR1);
  block(SIGUSR1);
  int fd = signalfd(-1, &set, SFD_CLOEXEC);
  pthread_t reader = start(reads_signalfd, &fd);
  kill(getpid(), SIGUSR1);
  finish(reader);
  close(fd);
}
static void signalfd_for_faults(void) {
  sigset_t set = set_of(SIGTRAP);
  block(SIGTRAP);
  int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  raise(SIGTRAP);
  struct signalfd_siginfo got;
  memset(&got, 0, sizeof got);
  ssize_t n = read(fd, &got, sizeof got);
  CHECK(n == sizeof got && got.ssi_signo == SIGTRAP);
  close(fd);
}

// --- Timers -------------------------------------------------------------------------------------
static void interval_timer(void) {
  expect(SIGALRM, 0);
  struct itimerval every = {{0, 2000}, {0, 1000}}, left;
  double begin = now();
  CHECK(setitimer(ITIMER_REAL, &every, NULL) == 0);
  while (seen < 5)
    sched_yield();
  CHECK(now() - begin >= 0.009 && infos[0].si_code == SI_KERNEL);
  CHECK(getitimer(ITIMER_REAL, &left) == 0 && left.it_interval.tv_usec == 2000);
  memset(&every, 0, sizeof every);
  CHECK(setitimer(ITIMER_REAL, &every, &left) == 0 && left.it_interval.tv_usec == 2000);
  every.it_value.tv_usec = 1000000;
  CHECK_FAILS(setitimer(ITIMER_REAL, &every, NULL), EINVAL);
  CHECK_FAILS(setitimer(7, &left, NULL), EINVAL);
}
static void virtual_timers(void) {
  expect(SIGVTALRM, 0);
  struct itimerval once = {{0, 0}, {0, 1000}};
  CHECK(setitimer(ITIMER_VIRTUAL, &once, NULL) == 0);
  while (seen < 1)
    ;
  expect(SIGPROF, 0);
  CHECK(setitimer(ITIMER_PROF, &once, NULL) == 0);
  while (seen < 1)
    ;
  CHECK(seen == 1);
}
static void alarm_tells_what_was_left(void) {
  expect(SIGALRM, 0);
  CHECK(alarm(100) == 0);
  unsigned left = alarm(50);
  CHECK(left >= 98 && left <= 100);
  left = alarm(0);
  CHECK(left >= 48 && left <= 50 && alarm(0) == 0 && seen == 0);
}
static void timer_overruns(void) {
  block(SIGUSR1);
  struct sigevent event;
  memset(&event, 0, sizeof event);
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGUSR1;
  timer_t timer;
  CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
  struct itimerspec every = {{0, 100000}, {0, 100000}}, left;
  double begin = now();
  CHECK(timer_settime(timer, 0, &every, NULL) == 0);
  while (now() - begin < 0.01)
    ;
  sigset_t set = set_of(SIGUSR1);
  siginfo_t info;
  CHECK(sigwaitinfo(&set, &info) == SIGUSR1);
  int overrun = timer_getoverrun(timer);
  CHECK(overrun >= 90 && info.si_overrun == overrun);
  CHECK(timer_gettime(timer, &left) == 0 && left.it_interval.tv_nsec == 100000);
  every.it_value.tv_nsec = 1000000000;
  CHECK_FAILS(timer_settime(timer, 0, &every, NULL), EINVAL);
  CHECK(timer_delete(timer) == 0);
  CHECK_FAILS(timer_create(77, &event, &timer), EINVAL);
}
static void* spins_with_a_timer(void* unused) {
  (void)unused;
  struct sigevent event;
  memset(&event, 0, sizeof event);
  event.sigev_notify = 4; // SIGEV_THREAD_ID
  event.sigev_signo = SIGRTMIN + 6;
  event._sigev_un._tid = own_tid();
  timer_t timer;
  CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
  struct itimerspec every = {{0, 1000000}, {0, 1000000}};
  CHECK(timer_settime(timer, 0, &every, NULL) == 0);
  while (seen < 5)
    ;
  CHECK(timer_delete(timer) == 0);
  return (void*)(uintptr_t)pthread_equal(taker, pthread_self());
}
static void timer_of_a_thread(void) {
  seen = 0;
  install(SIGRTMIN + 6, on_note_thread, 0);
  void* itself = NULL;
  CHECK(pthread_join(start(spins_with_a_timer, NULL), &itself) == 0 && itself != NULL);
}
static void timerfd_counts(void) {
  int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  uint64_t count = 0;
  CHECK_FAILS(read(fd, &count, sizeof count), EAGAIN);
  struct itimerspec every = {{0, 1000000}, {0, 1000000}};
  CHECK(timerfd_settime(fd, 0, &every, NULL) == 0);
  double begin = now();
  while (now() - begin < 0.01)
    ;
  CHECK(read(fd, &count, sizeof count) == 8 && count >= 9);
  CHECK_FAILS(read(fd, &count, 4), EINVAL);
  CHECK_FAILS(timerfd_create(99, 0), EINVAL);
  close(fd);
}

// --- Stopped and continued ----------------------------------------------------------------------
static char state_of(pid_t pid) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
  if (fd >= 0)
    close(fd);
  if (n <= 0)
    return 0;
  text[n] = 0;
  const char* end = strrchr(text, ')');
  return end ? end[2] : 0;
}
// In a child: stops its parent with the signal, and lets it go on once it has stopped.
static void stop_and_continue(int signal) {
  pid_t parent = getpid(), child = fork();
  if (child == 0) {
    kill(parent, signal);
    while (state_of(parent) != 'T')
      sched_yield();
    kill(parent, SIGCONT);
    _exit(0);
  }
  CHECK(status_of(child) == 0);
}
static void stopped_by(int signal) {
  expect(SIGCONT, 0);
  stop_and_continue(signal);
  while (seen < 1)
    sched_yield();
  CHECK(seen == 1);
}
static void stopped_and_continued(void) { stopped_by(SIGSTOP); }
static void stopped_by_the_terminals_signal(void) { stopped_by(SIGTSTP); }
static void continue_is_blocked_but_continues(void) {
  expect(SIGCONT, 0);
  block(SIGCONT);
  stop_and_continue(SIGSTOP);
  CHECK(seen == 0 && pending(SIGCONT));
  unblock(SIGCONT);
  CHECK(seen == 1);
}
static void stop_and_continue_undo_each_other(void) {
  block(SIGTSTP), block(SIGCONT);
  raise(SIGTSTP);
  CHECK(pending(SIGTSTP));
  kill(getpid(), SIGCONT);
  CHECK(!pending(SIGTSTP) && pending(SIGCONT));
  raise(SIGTSTP);
  CHECK(pending(SIGTSTP) && !pending(SIGCONT));
}
static void sleeps_on_after_a_stop(void) {
  pid_t parent = getpid(), tid = own_tid();
  pid_t child = fork();
  if (child == 0) {
    char path[64], text[32];
    snprintf(path, sizeof path, "/proc/%d/task/%d/syscall", parent, tid);
    for (;;) { // until it sleeps
      int fd = open(path, O_RDONLY | O_CLOEXEC);
      ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
      close(fd);
      if (n > 0 && strtol(text, NULL, 10) == SYS_clock_nanosleep)
        break;
      sched_yield();
    }
    kill(parent, SIGSTOP);
    while (state_of(parent) != 'T')
      sched_yield();
    kill(parent, SIGCONT);
    _exit(0);
  }
  struct timespec time = {0, 300000000};
  double begin = now();
  CHECK(clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL) == 0);
  CHECK(now() - begin >= 0.3);
  CHECK(status_of(child) == 0);
}

#define AREA "signals"
const struct Case cases[] = {
    ROW(delivered_when_unblocked, rt_sigprocmask rt_sigpending tgkill),
    ROW(standard_signals_merge, rt_sigprocmask tgkill),
    ROW(thread_and_process_each_hold_one, kill tgkill rt_sigprocmask),
    ROW(real_time_signals_queue, rt_sigqueueinfo rt_sigtimedwait),
    ROW(real_time_handlers_run_for_each, rt_sigqueueinfo rt_sigprocmask rt_sigreturn),
    ROW(every_signal_reaches_its_handler, rt_sigaction kill rt_sigreturn),
    ROW(every_signal_can_wait, rt_sigprocmask rt_sigpending kill),
    ROW(kill_and_stop_cannot_be_blocked, rt_sigprocmask),
    ROW(mask_call_errors, rt_sigprocmask rt_sigpending rt_sigsuspend),
    ROW(ignoring_drops_what_waits, rt_sigaction rt_sigpending),
    ROW(default_ignored_is_dropped, rt_sigaction rt_sigpending),
    ROW(kept_while_others_change, rt_sigaction rt_sigpending),
    ROW(pending_of_thread_and_process, rt_sigpending kill tgkill),
    ROW(goes_to_a_thread_that_lets_it_in, kill rt_sigprocmask),
    ROW(sent_to_another_thread, tgkill),
    ROW(mask_of_a_new_thread, clone3 rt_sigpending),
    ROW(queue_limit, prlimit64 rt_sigqueueinfo),
    ROW(info_of_kill, kill rt_sigaction),
    ROW(info_of_tgkill, tgkill rt_sigaction),
    ROW(info_of_sigqueue, rt_sigqueueinfo),
    ROW(info_made_up, rt_sigqueueinfo rt_tgsigqueueinfo),
    ROW(info_of_a_child, clone wait4 rt_sigaction),
    ROW(no_sigchld_for_stops, rt_sigaction wait4),
    ROW(no_zombies, rt_sigaction wait4),
    ROW(info_of_a_timer, timer_create timer_settime timer_delete),
    ROW(info_of_sigio, fcntl),
    ROW(info_of_sigpipe, write),
    ROW(sending_fails, kill tgkill tkill),
    ROW(sent_by_pidfd, pidfd_open pidfd_send_signal),
    ROW(sigaction_gives_back_what_it_got, rt_sigaction),
    ROW(sigaction_errors, rt_sigaction),
    ROW(mask_during_a_handler, rt_sigaction rt_sigprocmask rt_sigreturn),
    ROW(nodefer_nests, rt_sigaction rt_sigreturn),
    ROW(different_signals_nest, rt_sigaction rt_sigreturn),
    ROW(reset_hand, rt_sigaction),
    ROW(reset_before_the_handler, rt_sigaction),
    ROW(frame_shows_the_mask_before, rt_sigprocmask rt_sigreturn),
    ROW(mask_edited_in_the_frame, rt_sigreturn),
    ROW(registers_in_the_frame, tgkill rt_sigreturn),
    ROW(registers_edited_in_the_frame, rt_sigreturn),
    ROW(flags_of_a_handler_and_after, rt_sigreturn),
    ROW(continues_where_the_frame_says, rt_sigreturn),
    ROW(alternate_stack_is_used, sigaltstack rt_sigreturn),
    ROW(nested_on_the_same_stack, sigaltstack),
    ROW(disarmed_while_used, sigaltstack rt_sigreturn),
    ROW(alternate_stack_errors, sigaltstack),
    ROW(a_new_thread_has_none, sigaltstack clone3),
    ROW(jumps_out, rt_sigprocmask),
    ROW(swaps_out_and_in, rt_sigprocmask rt_sigreturn),
    ROW(timedwait_takes, rt_sigtimedwait),
    ROW(timedwait_is_woken, rt_sigtimedwait),
    ROW(suspend_replaces_the_mask, rt_sigsuspend),
    ROW(pause_ends, pause),
    ROW(masks_of_polls, ppoll pselect6 epoll_pwait),
    ROW(timedwait_takes_those_of_faults, rt_sigtimedwait),
    ROW(waits_let_in_those_of_faults, ppoll pselect6 epoll_pwait epoll_pwait2 rt_sigsuspend),
    ROW(signalfd_reads, signalfd4 read),
    ROW(signalfd_errors, signalfd4),
    ROW(signalfd_wakes_a_reader, signalfd4 read),
    ROW(signalfd_for_faults, signalfd4 read),
    ROW(interval_timer, setitimer getitimer),
    ROW(virtual_timers, setitimer),
    ROW(alarm_tells_what_was_left, alarm),
    ROW(timer_overruns, timer_create timer_settime timer_getoverrun),
    ROW(timer_of_a_thread, timer_create),
    ROW(timerfd_counts, timerfd_create timerfd_settime read),
    ROW(stopped_and_continued, rt_sigaction wait4),
    ROW(stopped_by_the_terminals_signal, rt_sigaction wait4),
    ROW(continue_is_blocked_but_continues, rt_sigaction rt_sigprocmask rt_sigpending),
    ROW(stop_and_continue_undo_each_other, kill rt_sigpending),
    ROW(sleeps_on_after_a_stop, clock_nanosleep wait4),
};
const size_t case_count = sizeof cases / sizeof *cases;
