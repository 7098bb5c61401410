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
  pending |= t->pending;
  return write_user(t, m.rdi, &pending, sizeof pending) ? 0 : kEfault;
}

// Only a signal of ours that is already pending has to come from us.
bool call_sigtimedwait(ThreadBlock* t, const KernelSigcontext& m, long* result) {
  SignalSet set;
  if (m.r10 != sizeof set || !read_user(t, &set, m.rdi, sizeof set))
    return false;
  for (int i = 0; i < 5; ++i) {
    const SignalSet bit = signal_bit(kOwnedSignals[i]);
    if (!(set & bit & t->pending))
      continue;
    t->pending &= ~bit;
    if (m.rsi && !write_user(t, m.rsi, &t->pending_info[i], sizeof(KernelSiginfo)))
      *result = kEfault;
    else
      *result = kOwnedSignals[i];
    return true;
  }
  return false;
}

// A signal of ours that pends, and that the call lets in, ends it before it waits. True: it has.
bool call_sigsuspend(ThreadBlock* t, KernelUcontext* uc) {
  constexpr uint64_t kMinusEintr = static_cast<uint64_t>(-4);
  KernelSigcontext& m = uc->mcontext;
  SignalSet set;
  if (!t->pending || m.rsi != sizeof set || !read_user(t, &set, m.rdi, sizeof set) ||
      !(t->pending & ~set))
    return false;
  m.rip += kSyscallLength;
  m.rcx = m.rip;
  m.r11 = m.eflags;
  m.rax = kMinusEintr;
  t->restored_rip = 0;
  deliver_pending(t, uc);
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
  if (!takes_part(t) || t->action != Action::kRun || t->pending || stop_wanted(t) ||
      header().abandoned.load(std::memory_order_relaxed))
    return;
  KernelUcontext uc;
  uc.sigmask = f->mask;
  registers_to(uc.mcontext, f->regs);
  long result;
  if (!signal_call(t, &uc, &result))
    return;
  f->mask = uc.sigmask;
  f->regs.rax = static_cast<uint64_t>(result);
  f->regs.rip += kSyscallLength;
  f->regs.rcx = f->regs.rip; // as a system call leaves it
}

void handle_syscall(ThreadBlock* t, Site* site, KernelUcontext* uc) {
  KernelSigcontext& m = uc->mcontext;
  long result;
  if (process.detached) {
    m.rip = site->copy;
    return;
  }
  if (m.rax == __NR_rt_sigreturn)
    return call_sigreturn(t, uc);
  if (m.rax == __NR_rt_sigsuspend && t && call_sigsuspend(t, uc))
    return;
  if (signal_call(t, uc, &result)) {
    m.rax = static_cast<uint64_t>(result);
    m.rip = site->address + kSyscallLength;
    m.rcx = m.rip;
    m.r11 = m.eflags;
    if (steps(t))
      return step_landed(t, uc);
    return deliver_pending(t, uc);
  }
  if (process_call(t, uc))
    return;
  if (t)
    t->copy_site = reinterpret_cast<uint64_t>(site);
  m.rip = site->copy;
}

} // namespace dune::agent
