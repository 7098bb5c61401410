// How a thread comes under the agent, brought by the keeper at birth or attach, and how it leaves:
// at release by the keeper's doing, or by itself when there is nobody any more.
#include "libdune/agent/guest_loop.h"
#include "libdune/arch/vector_state.h"

namespace dune::agent {

using namespace session;

extern "C" {
__attribute__((section(".config"), used)) AgentConfig agent_config = {};

extern const char agent_text_size[], agent_image_size[], agent_total_size[];
}

namespace {

// Where agent_take_process goes on behind a kick that nobody waited for.
void* unawaited[5];

// The thread has its registers, vector state and mask, and is still on its way back, which needs no
// more than that: by rt_sigreturn a call that the kernel goes on with by restart_syscall would end.
void on_kick_of_take(int signal, KernelSiginfo* info, KernelUcontext* uc) {
  if (!unawaited[0] || !in_agent_text(uc->mcontext.rip) || !is_queued_kick(*info))
    return agent_on_signal(signal, info, uc);
  // The kernel has put its vector state into the frame; a handler begins with none.
  load_vector_state(reinterpret_cast<const void*>(uc->mcontext.fpstate),
                    agent_config.xstate_size > kFpLegacySize);
  __builtin_longjmp(unawaited, 1);
}

} // namespace

void take_actions() {
  for (int signal = 1; signal <= kSignalCount; ++signal)
    syscall_of(__NR_rt_sigaction, signal, 0, reinterpret_cast<uint64_t>(&process.actions[signal]),
               8);
  refresh_policy();
}

void give_back_actions() {
  for (int signal = 1; signal <= kSignalCount; ++signal) {
    KernelSigaction now{};
    if (!is_errno(syscall_of(__NR_rt_sigaction, signal, 0, reinterpret_cast<uint64_t>(&now), 8)) &&
        in_agent_text(now.handler))
      syscall_of(__NR_rt_sigaction, signal, reinterpret_cast<uint64_t>(&process.actions[signal]), 0,
                 8);
  }
}

// The kick at the end stops the thread where the keeper waits for it, and it does not go on here.
// Should the keeper be gone the kick comes, and must neither kill nor be noticed.
extern "C" const Away* agent_take_process(const Away* back) {
  current()->passthrough = 1;
  take_actions();
  open_process_guest();
  KernelSigaction action = kick_action();
  if (!__builtin_setjmp(unawaited)) {
    action.handler = reinterpret_cast<uint64_t>(&on_kick_of_take);
    action.flags &= ~kSaOnstack; // the program may be using what it has
    set_kernel_action(kKickSignal, action);
    send_to_self(kick_by(kKickSignal));
  }
  set_kernel_action(kKickSignal, kick_action());
  return back;
}

namespace {

SignalSet waiting_signals() {
  SignalSet set = 0;
  syscall_of(__NR_rt_sigpending, reinterpret_cast<uint64_t>(&set), sizeof set);
  return set;
}

bool take_from_kernel(int signal, KernelSiginfo& info) {
  const SignalSet set = signal_bit(signal);
  constexpr uint64_t kNoTime[2] = {};
  return !is_errno(syscall_of(__NR_rt_sigtimedwait, reinterpret_cast<uint64_t>(&set),
                              reinterpret_cast<uint64_t>(&info),
                              reinterpret_cast<uint64_t>(&kNoTime), sizeof set));
}

// The first that a thread does under the agent. What the kernel keeps for it changes here, by the
// thread's own hand, and not before: wherever the keeper dies, a thread has all of it or nothing.
void come_in(ThreadBlock* t) {
  hold_back(agent_mask());
  const KernelStack stack = stack_of_slot(agent_config.stacks, t->slot);
  agent_set_altstack(&stack, &t->altstack);
  // What waits for the thread to unblock it waits here from now on: in the kernel, where these
  // signals are not blocked any more, it would interrupt the thread's system call.
  const SignalSet waiting = t->blocked ? waiting_signals() & t->blocked : 0;
  for (int i = 0; i < 5; ++i)
    if ((waiting & signal_bit(kOwnedSignals[i])) &&
        take_from_kernel(kOwnedSignals[i], t->pending_info[i]))
      t->pending |= signal_bit(kOwnedSignals[i]);
  if (t->pending)
    open_gate_of_waits();
  {
    SpinLock lock(process.lock);
    install_action(kKickSignal); // agent_take_process had it handled
  }
  slot_of(t).state.store(static_cast<uint32_t>(ThreadState::kRunning));
}

} // namespace

// rsp points at the KernelSigframe that the keeper built on this block's stack; returning goes to
// agent_restorer. The keeper has filled in block.slot and block.blocked, and the slot's tid.
extern "C" void agent_on_enter(KernelUcontext* uc) {
  ThreadBlock* t = current();
  come_in(t);
  const uint64_t rip = uc->mcontext.rip;
  park(t, uc, StopReason::kRequested);
  t->stop_rip = rip; // shown to the user, like a stop of its own
  go_on_after_stop(t, uc, 0);
  set_trap_flag(t, uc);
  run_in_guest(t, uc);
}

// From the middle of a system call (entry.S). The keeper has filled in call_regs, call_mask and
// stepped_call, too.
extern "C" void agent_on_enter_call(ThreadBlock* t) {
  come_in(t);
  if (!cannot_serve())
    return;
  KernelUcontext uc{};
  uc.sigmask = t->call_mask;
  give_back(t, &uc);
  t->call_mask = uc.sigmask;
  t->call_regs.rip = t->stepped_call;
  t->stepped_call = 0;
}

// The front end, or the keeper before one had come, died without the sites by which the agent
// learns of the program's masks.
bool cannot_serve() { return header().abandoned.load() && !header().serving.load(); }

namespace {

// Only the agent could make sense of these: a kick, the trap of a watchpoint.
bool is_ours(const KernelSiginfo& info) {
  return (info.signal == kSigTrap && info.code == kTrapPerf) || is_queued_kick(info);
}

// To the kernel, what has come for the program and what it has not had yet; it is blocked then.
// `waiting`: what the kernel has for the thread already. A signal of ours among that would take the
// place of another.
void hand_back_signals(ThreadBlock* t, SignalSet waiting, const KernelSiginfo* undelivered) {
  constexpr int kMost = 16; // somebody may send them without end
  KernelSiginfo others[kMost];
  int count = 0;
  for (int signal : {kSigTrap, kKickSignal})
    for (int i = 0; i < (signal == kSigTrap ? 1 : kMost - 1); ++i)
      if ((owned() & waiting & signal_bit(signal)) && take_from_kernel(signal, others[count]) &&
          !is_ours(others[count]))
        ++count;
  hold_back(agent_mask() | owned());
  for (KernelSiginfo info; take_pending(t, owned(), &info);)
    send_to_self(info);
  for (int i = 0; i < count; ++i)
    send_to_self(others[i]);
  if (undelivered)
    send_to_self(*undelivered);
}

// By whoever is the first to leave, if the keeper has not come to it.
void remove_sites_once(ThreadBlock* t) {
  SpinLock lock(process.lock);
  if (!agent_config.sites_removed)
    remove_sites(t);
  agent_config.sites_removed = 1;
}

} // namespace

void give_back(ThreadBlock* t, KernelUcontext* uc, const KernelSiginfo* undelivered) {
  remove_sites_once(t);
  drop_confining(t);
  hand_back_signals(t, waiting_signals(), undelivered);
  uc->sigmask = program_mask(t, uc->sigmask);
  // Some kernels restore it from the frame before they leave this stack, and refuse then.
  agent_set_altstack(&t->altstack, nullptr);
  uc->stack = t->altstack;
  // To the keeper, too, it has none; another takes it when the thread is no more, for we are on its
  // stack.
  slot_of(t).state.store(static_cast<uint32_t>(ThreadState::kLeaving));
}

// At release, on the block's stack (entry.S, agent_run). Where the keeper dies before all threads
// have been sent here they stay as they are: the sites are still there for them.
extern "C" const Away* agent_leave(const Away* stay, Away* leave, SignalSet waiting) {
  if (!agent_config.leaving)
    return stay;
  ThreadBlock* t = current();
  hold_back(agent_mask());
  leave_forwarded_call(t);
  remove_sites_once(t);
  hand_back_signals(t, waiting, nullptr);
  leave->mask = program_mask(t, leave->mask);
  agent_set_altstack(&t->altstack, nullptr);
  drop_confining(t);
  return leave;
}

extern "C" const Away* agent_give_back_actions(const Away* back) {
  close_process_guest();
  give_back_actions();
  return back;
}

} // namespace dune::agent
