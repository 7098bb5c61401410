// System calls about signals, answered by the agent: what the program asked for and what the kernel
// has differ (see signals.cpp). The numbers and errors are those of the manual pages.
#include "libdune/agent/agent.h"

namespace dune::agent {

using namespace session;

namespace {

constexpr long kEfault = -14, kEinval = -22, kEperm = -1, kEnomem = -12;

// In a vfork child the kernel's dispositions are the child's own, while the table of the program's
// is shared with the sleeping parent: the call goes to the kernel, but never takes away a handler
// that keeps traps from killing the child.
long child_sigaction(ThreadBlock* t, int signal, uint64_t act, uint64_t old) {
  KernelSigaction action;
  if (act && !read_user(t, &action, act, sizeof action))
    return kEfault;
  if (old && !write_user(t, old, &process.actions[signal], sizeof action))
    return kEfault;
  if (!act || (owned() & signal_bit(signal)))
    return 0;
  return syscall_of(__NR_rt_sigaction, signal, reinterpret_cast<uint64_t>(&action), 0, 8);
}

long call_sigaction(ThreadBlock* t, const KernelSigcontext& m) {
  const int signal = static_cast<int>(m.rdi);
  const uint64_t act = m.rsi, old = m.rdx;
  if (m.r10 != sizeof(SignalSet) || signal < 1 || signal > kSignalCount ||
      (act && (signal == kSigKill || signal == kSigStop)))
    return kEinval;
  if (t && (t->in_vfork || t->passthrough))
    return child_sigaction(t, signal, act, old);
  KernelSigaction action;
  if (act && !read_user(t, &action, act, sizeof action))
    return kEfault;
  SpinLock lock(process.lock);
  const KernelSigaction before = process.actions[signal];
  if (act) {
    action.mask &= ~(signal_bit(kSigKill) | signal_bit(kSigStop));
    process.actions[signal] = action;
    install_action(signal);
  }
  if (old && !write_user(t, old, &before, sizeof before))
    return kEfault;
  return 0;
}

long call_sigprocmask(ThreadBlock* t, KernelUcontext* uc) {
  const KernelSigcontext& m = uc->mcontext;
  const SignalSet before = program_mask(t, uc->sigmask);
  if (m.r10 != sizeof(SignalSet))
    return kEinval;
  if (m.rsi) {
    SignalSet set;
    if (!read_user(t, &set, m.rsi, sizeof set))
      return kEfault;
    switch (static_cast<int>(m.rdi)) {
    case 0: // SIG_BLOCK
      set |= before;
      break;
    case 1: // SIG_UNBLOCK
      set = before & ~set;
      break;
    case 2: // SIG_SETMASK
      break;
    default:
      return kEinval;
    }
    set_program_mask(t, uc, set);
  }
  if (m.rdx && !write_user(t, m.rdx, &before, sizeof before))
    return kEfault;
  return 0;
}

long call_sigaltstack(ThreadBlock* t, const KernelSigcontext& m) {
  KernelStack before = t->altstack;
  const bool on_stack = !(before.flags & (kSsDisable | kSsAutodisarm)) && m.rsp > before.sp &&
                        m.rsp - before.sp <= before.size;
  if (m.rdi) {
    KernelStack wanted;
    if (!read_user(t, &wanted, m.rdi, sizeof wanted))
      return kEfault;
    if (on_stack)
      return kEperm;
    const uint32_t mode = wanted.flags & ~kSsAutodisarm;
    if (mode != 0 && mode != kSsDisable && mode != kSsOnstack)
      return kEinval;
    constexpr uint64_t kMinSigStackSize = 2048;
    if (mode == kSsDisable)
      wanted.sp = wanted.size = 0;
    else if (wanted.size < kMinSigStackSize)
      return kEnomem;
    wanted.flags &= ~kSsOnstack;
    t->altstack = wanted;
  }
  if (m.rsi) {
    if (on_stack)
      before.flags |= kSsOnstack;
    if (!write_user(t, m.rsi, &before, sizeof before))
      return kEfault;
  }
  return 0;
}

// The frame on the program's stack may have been edited by its handler: everything is taken from
// there, and the kernel restores from our own frame.
void call_sigreturn(ThreadBlock* t, KernelUcontext* uc) {
  const uint64_t address = uc->mcontext.rsp;
  KernelUcontext frame;
  if (!read_user(t, &frame, address, sizeof frame)) {
    KernelSiginfo fault{};
    fault.signal = kSigSegv;
    fault.code = kSiKernel;
    return signal_at_program(t, uc, &fault, 0);
  }
  uc->mcontext = frame.mcontext;
  uc->flags = frame.flags;
  set_program_mask(t, uc, frame.sigmask);
  uint64_t counted = 0;
  if (t) {
    if (!(frame.stack.flags & ~(kSsAutodisarm | kSsOnstack | kSsDisable))) {
      frame.stack.flags &= ~kSsOnstack;
      t->altstack = frame.stack;
    }
    for (CountedFrame& c : t->counted)
      if (c.frame == address) {
        if (c.site == uc->mcontext.rip)
          counted = c.site;
        c.frame = 0;
      }
    t->restored_rip = uc->mcontext.rip;
  }
  if (t && t->step_frame == address) { // a handler ran in the middle of a step
    t->step_frame = 0;
    return go_on(t, uc, counted);
  }
  const uint64_t rip = uc->mcontext.rip;
  deliver_pending(t, uc);
  if (uc->mcontext.rip == rip && takes_part(t))
    go_on(t, uc, counted);
}

long call_sigpending(ThreadBlock* t, const KernelSigcontext& m) {
  SignalSet pending = 0;
  long result = syscall_of(__NR_rt_sigpending, reinterpret_cast<uint64_t>(&pending), m.rsi);
  if (is_errno(result))
    return result;
  pending |= pending_signals(t);
  return write_user(t, m.rdi, &pending, sizeof pending) ? 0 : kEfault;
}

} // namespace

// The thread gets the signals that it lets in behind its call: `first`, and others.
void answer(ThreadBlock* t, KernelUcontext* uc, long result, KernelSiginfo* first) {
  KernelSigcontext& m = uc->mcontext;
  m.rax = static_cast<uint64_t>(result);
  m.rip += kSyscallLength;
  if (!t || !t->call_32) {
    m.rcx = m.rip;
    m.r11 = m.eflags;
  }
  if (!t)
    return;
  t->restored_rip = 0;
  t->landing = steps(t);
  if (first)
    signal_at_program(t, uc, first, 0);
  deliver_pending(t, uc);
  if (t->landing && !t->step_frame)
    go_on(t, uc, 0);
}

namespace {

// Only a signal of ours that is already pending has to come from us. That the thread waits for one
// that comes later is said first: see pending.cpp.
bool call_sigtimedwait(ThreadBlock* t, const KernelSigcontext& m, long* result) {
  SignalSet set;
  if (m.r10 != sizeof set || !read_user(t, &set, m.rdi, sizeof set) || !takes_part(t))
    return false;
  __atomic_store_n(&t->waits_for, set & owned(), __ATOMIC_SEQ_CST);
  KernelSiginfo info;
  if (!take_pending(t, set, &info))
    return false;
  t->waits_for = 0;
  *result = m.rsi && !write_user(t, m.rsi, &info, sizeof info) ? kEfault : info.signal;
  return true;
}

// The call's result if it does not wait; 0 if it would.
long poll_at_once(ThreadBlock* t, const KernelSigcontext& m) {
  constexpr uint64_t kMostDescriptors = 8192;
  struct {
    int64_t seconds, nanoseconds;
  } no_time{};
  const auto none = reinterpret_cast<uint64_t>(&no_time);
  switch (m.rax) {
  case __NR_ppoll:
    return syscall_of(__NR_ppoll, m.rdi, m.rsi, none, 0, 0);
  case __NR_epoll_pwait:
    return syscall_of(__NR_epoll_pwait, m.rdi, m.rsi, m.rdx, 0, 0, 0);
  case __NR_epoll_pwait2:
    return syscall_of(__NR_epoll_pwait2, m.rdi, m.rsi, m.rdx, none, 0, 0);
  case __NR_pselect6: {
    uint64_t sets[3][kMostDescriptors / 64]; // copies: the call must not have begun for the program
    const uint64_t given[3] = {m.rsi, m.rdx, m.r10};
    uint64_t copies[3] = {};
    const uint64_t bytes = (m.rdi + 63) / 64 * 8;
    if (m.rdi > kMostDescriptors)
      return 0;
    for (int i = 0; i < 3; ++i)
      if (given[i] && read_user(t, sets[i], given[i], bytes))
        copies[i] = reinterpret_cast<uint64_t>(sets[i]);
    const long count = syscall_of(__NR_pselect6, m.rdi, copies[0], copies[1], copies[2], none, 0);
    for (int i = 0; i < 3; ++i)
      if (count > 0 && copies[i])
        write_user(t, given[i], sets[i], bytes);
    return count;
  }
  }
  return 0;
}

// An epoll_wait that does not wait looks at no signal.
bool waits(ThreadBlock* t, const KernelSigcontext& m) {
  uint64_t time[2];
  if (m.rax == __NR_epoll_pwait)
    return static_cast<int>(m.r10) != 0;
  return m.rax != __NR_epoll_pwait2 || !m.r10 || !read_user(t, time, m.r10, sizeof time) ||
         time[0] || time[1];
}

SignalSet ignored_signals() {
  SignalSet set = 0;
  for (int signal : kOwnedSignals)
    if (process.actions[signal].handler == kSigIgn)
      set |= signal_bit(signal);
  return set;
}

// A signal of ours that pends, and that the call's own mask lets in, ends it before it waits,
// unless it has something to say at once. True: it is over.
bool call_wait(ThreadBlock* t, KernelUcontext* uc) {
  constexpr long kEintr = -4;
  KernelSigcontext& m = uc->mcontext;
  SignalSet mask;
  if (!wait_mask(t, m.rax, m, &mask))
    return false;
  if (m.rax == __NR_rt_sigsuspend)
    __atomic_store_n(&t->waits_for, owned() & ~mask, __ATOMIC_SEQ_CST);
  for (KernelSiginfo ignored; take_pending(t, ~mask & ignored_signals(), &ignored);) {
  }
  KernelSiginfo info;
  if (!take_pending(t, ~mask, &info))
    return false;
  t->waits_for = 0;
  const long result = poll_at_once(t, m);
  if (result || !waits(t, m)) {
    keep_pending(t, info);
    answer(t, uc, result);
    return true;
  }
  t->ended_wait = m.rip + kSyscallLength;
  t->ended_mask = mask;
  answer(t, uc, kEintr, &info);
  t->ended_wait = 0;
  return true;
}

} // namespace

bool signal_call(ThreadBlock* t, KernelUcontext* uc, long* result) {
  const KernelSigcontext& m = uc->mcontext;
  switch (m.rax) {
  case __NR_rt_sigaction:
    *result = call_sigaction(t, m);
    return true;
  case __NR_rt_sigprocmask:
    *result = call_sigprocmask(t, uc);
    return true;
  case __NR_sigaltstack:
    if (!t)
      return false;
    *result = call_sigaltstack(t, m);
    return true;
  case __NR_rt_sigpending:
    if (!t)
      return false;
    *result = call_sigpending(t, m);
    return true;
  case __NR_rt_sigtimedwait:
    return t && call_sigtimedwait(t, m, result);
  }
  return false;
}

// From entry.S, for a call that came through a jump site; signals are held back. Whatever is not
// simple is left to the int3 on the `syscall` itself: that is where the frame says to go on.
extern "C" void agent_on_quick_call(ThreadBlock* t, QuickFrame* f) {
  if (!takes_part(t) || t->action != Action::kRun || pending_signals(t) || stop_wanted(t) ||
      t->strict || header().abandoned.load(std::memory_order_relaxed))
    return;
  KernelUcontext uc;
  uc.sigmask = f->mask;
  registers_to(uc.mcontext, f->regs);
  long result;
  if (!signal_call(t, &uc, &result))
    return;
  // One has come for the process meanwhile.
  for (KernelSiginfo info; take_pending(t, ~t->blocked, &info);)
    send_to_self(info);
  f->mask = uc.sigmask;
  f->regs.rax = static_cast<uint64_t>(result);
  f->regs.rip += kSyscallLength;
  f->regs.rcx = f->regs.rip; // as a system call leaves it
}

bool answer_signal_call(ThreadBlock* t, KernelUcontext* uc) {
  long result;
  if (uc->mcontext.rax == __NR_rt_sigreturn) {
    call_sigreturn(t, uc);
    return true;
  }
  if (takes_part(t) && call_wait(t, uc))
    return true;
  if (!signal_call(t, uc, &result))
    return false;
  answer(t, uc, result);
  return true;
}

void handle_syscall(ThreadBlock* t, Site* site, KernelUcontext* uc) {
  KernelSigcontext& m = uc->mcontext;
  if (process.detached || (t && t->strict && !is_strictly_allowed(m.rax))) {
    m.rip = site->copy;
    return;
  }
  if (answer_signal_call(t, uc))
    return;
  if (process_call(t, uc))
    return;
  switch (confine(t, uc, site->address)) {
  case Confinement::kNoMemory:
    return answer(t, uc, kEnomem);
  case Confinement::kOnItsWay:
    return;
  case Confinement::kNone:
    break;
  }
  if (t && t->waits_for) // where it ends in the agent, which learns that it waits no more
    return call_from_agent(t, uc, site->address);
  if (t)
    t->copy_site = reinterpret_cast<uint64_t>(site);
  m.rip = site->copy;
}

} // namespace dune::agent
