// The program's signals. The kernel's handlers are the agent's wherever the program has a handler,
// the user wants a stop or there would be a core; the program's handlers run on frames that the
// agent builds, so that they see the program's own instruction pointer, mask, alternate stack and
// return path.
//
// Signals of AgentConfig::owned stay deliverable in the kernel whatever the program's mask says;
// the difference is kept in block.blocked and block.pending.
#include "libdune/agent/guest_loop.h"

#include <linux/prctl.h>

namespace dune::agent {

using namespace session;

constinit Process process{};

namespace {

constexpr SignalSet kDefaultStop =
    signal_bit(kSigStop) | signal_bit(kSigTstp) | signal_bit(kSigTtin) | signal_bit(kSigTtou);
constexpr SignalSet kUnblockable = signal_bit(kSigKill) | signal_bit(kSigStop);

bool is_owned(int signal) { return owned() & signal_bit(signal); }

uint8_t policy_of(int signal) {
  if (process.detached || header().abandoned.load(std::memory_order_relaxed))
    return kSignalPass;
  return header().signal_policy[signal].load(std::memory_order_relaxed);
}

KernelSigaction our_action(int signal, uint64_t program_flags) {
  KernelSigaction a{};
  a.handler = signal == kSigTrap ? reinterpret_cast<uint64_t>(&agent_on_trap)
                                 : reinterpret_cast<uint64_t>(&agent_on_signal);
  // SA_NODEFER on the synchronous ones: a condition may fault while we handle the program's fault.
  a.flags = kSaSiginfo | kSaOnstack | kSaRestorer |
            (program_flags & (kSaNocldstop | kSaNocldwait | kSaRestart | kSaExposeTagbits)) |
            (kSynchronous & signal_bit(signal) ? kSaNodefer : 0) |
            (is_owned(signal) && signal == kKickSignal ? kSaRestart : 0);
  a.restorer = reinterpret_cast<uint64_t>(&agent_restorer);
  a.mask = agent_mask();
  return a;
}

KernelSigaction kernel_action(int signal) {
  const KernelSigaction& program = process.actions[signal];
  if (is_owned(signal))
    return our_action(signal, program.flags);
  const bool default_kills = !((kDefaultIgnored | kDefaultStop) & signal_bit(signal));
  const bool stops = policy_of(signal) & kSignalStop;
  const bool dumps = kDefaultDumps & signal_bit(signal); // the core is to show the program
  if (program.handler == kSigIgn ||
      (program.handler == kSigDfl && !(default_kills && (stops || dumps))))
    return program;
  return our_action(signal, program.flags);
}

bool is_dropped(int signal, const KernelSigaction& a) {
  return a.handler == kSigIgn || (a.handler == kSigDfl && (kDefaultIgnored & signal_bit(signal)));
}

// Of those that the agent would otherwise hold back.
bool is_ignored(int signal, const KernelSigaction& a) {
  return (kSynchronous & signal_bit(signal)) || is_dropped(signal, a);
}

// For a change of ours. An action by which the kernel drops signals is the program's, and there
// already; set again, it would take away what the program blocks and what waits.
void renew_kernel_action(int signal) {
  const KernelSigaction action = kernel_action(signal);
  if (!is_dropped(signal, action))
    set_kernel_action(signal, action);
}

template <class F> void each_signal(F&& f) {
  for (int signal = 1; signal <= kSignalCount; ++signal)
    if (signal != kSigKill && signal != kSigStop)
      f(signal);
}

// Of a signal whose core shows other threads, too: the keeper has to bring them out of the agent,
// and to see that this one dies before they go on.
void announce_death(ThreadBlock* t, KernelUcontext* uc) {
  if (header().live_threads.load() == 1 || syscall_of(__NR_prctl, PR_GET_DUMPABLE) == 0)
    return;
  while (!claim_stop(t))
    if (stop_wanted(t))
      park(t, uc, StopReason::kRequested);
  park(t, uc, StopReason::kDying);
}

} // namespace

void default_action(ThreadBlock* t, KernelUcontext* uc, const KernelSiginfo* info) {
  const int signal = info->signal;
  const SignalSet bit = signal_bit(signal);
  if (kDefaultIgnored & bit)
    return;
  if (kDefaultStop & bit) {
    syscall_of(__NR_kill, syscall_of(__NR_getpid), kSigStop);
    return;
  }
  if (takes_part(t) && (kDefaultDumps & bit))
    announce_death(t, uc);
  hold_back(bit); // until the thread has left the agent, whose mask leaves some open
  KernelSigaction dfl{};
  set_kernel_action(signal, dfl);
  uc->sigmask &= ~bit;
  if (t) {
    t->action = Action::kRun;
    t->leaves_guest = 1; // the core shows where the kernel finds the thread
  }
  syscall_of(__NR_rt_tgsigqueueinfo, syscall_of(__NR_getpid), syscall_of(__NR_gettid), signal,
             reinterpret_cast<uint64_t>(info));
}

namespace {

uint64_t xstate_bytes(uint64_t fpstate) {
  if (!fpstate)
    return 0;
  FpSoftwareBytes software;
  memcpy(&software, reinterpret_cast<const char*>(fpstate) + kFpSwReservedOffset, sizeof software);
  return software.magic1 == kFpXstateMagic1 ? software.extended_size : kFpLegacySize;
}

// What the program blocks at this moment: its mask, or that of a waiting call which a signal has
// just ended (the kernel lets it hold until the handler has begun).
SignalSet blocked_now(ThreadBlock* t, const KernelUcontext* uc) {
  SignalSet temporary;
  if (t && t->ended_wait == uc->mcontext.rip)
    return t->ended_mask;
  return wait_mask(t, interrupted_call(t, uc), uc->mcontext, &temporary)
             ? temporary
             : program_mask(t, uc->sigmask);
}

// Builds the frame the kernel would have built (arch/x86/kernel/signal_64.c, x64_setup_rt_frame)
// and turns uc into the first instruction of the program's handler.
bool enter_handler(ThreadBlock* t, KernelUcontext* uc, const KernelSiginfo* info,
                   const KernelSigaction& action, uint64_t counted) {
  KernelSigcontext& m = uc->mcontext;
  KernelStack altstack = t ? t->altstack : uc->stack;
  altstack.flags &= ~kSsOnstack;
  uint64_t sp = m.rsp - 128; // the red zone
  const bool on_alt = !(altstack.flags & (kSsDisable | kSsAutodisarm)) && m.rsp > altstack.sp &&
                      m.rsp - altstack.sp <= altstack.size;
  if ((action.flags & kSaOnstack) && !(altstack.flags & kSsDisable) && !on_alt)
    // Without a slot we are on the program's stack ourselves, with room for what is still to come.
    sp = t ? altstack.sp + altstack.size
           : reinterpret_cast<uint64_t>(__builtin_frame_address(0)) - 2048;

  if (in_guest(t))
    fetch_vectors(t);
  KernelSigframe frame;
  memset(&frame, 0, sizeof frame);
  const uint64_t fp_size = xstate_bytes(m.fpstate);
  uint64_t fp_address = 0;
  if (fp_size) {
    sp = (sp - fp_size) & ~uint64_t{63};
    fp_address = sp;
  }
  const uint64_t frame_address = ((sp - sizeof frame) & ~uint64_t{15}) - 8;
  frame.return_address = action.restorer;
  frame.uc = *uc;
  frame.uc.link = 0;
  frame.uc.stack = altstack;
  if (on_alt)
    frame.uc.stack.flags |= kSsOnstack;
  frame.uc.mcontext.fpstate = fp_address;
  frame.uc.sigmask = program_mask(t, uc->sigmask);
  frame.info = *info;
  if (fp_size && !write_user(t, fp_address, reinterpret_cast<const void*>(m.fpstate), fp_size))
    return false;
  if (!write_user(t, frame_address, &frame, sizeof frame))
    return false;

  if (t && counted) {
    // The handler must see the program's address, and its sigreturn must not count the site again.
    CountedFrame* entry = &t->counted[0];
    for (CountedFrame& c : t->counted) {
      if (c.frame && c.frame < m.rsp - 128 - 65536)
        c.frame = 0; // long gone: left by siglongjmp
      if (!c.frame)
        entry = &c;
    }
    *entry = {frame_address + offsetof(KernelSigframe, uc), counted};
  }

  if (t && steps(t)) // goes on after the handler
    t->step_frame = frame_address + offsetof(KernelSigframe, uc);

  SignalSet mask = blocked_now(t, uc) | action.mask;
  if (!(action.flags & kSaNodefer))
    mask |= signal_bit(info->signal);
  set_program_mask(t, uc, mask);
  if (t && (altstack.flags & kSsAutodisarm))
    t->altstack = {0, kSsDisable, 0, 0};
  m.rdi = static_cast<uint32_t>(info->signal);
  m.rsi = frame_address + offsetof(KernelSigframe, info);
  m.rdx = frame_address + offsetof(KernelSigframe, uc);
  m.rax = 0;
  m.rsp = frame_address;
  m.rip = action.handler;
  m.eflags &= ~(kEflagsTrap | (1u << 10) | (1u << 16)); // TF, DF, RF
  m.fpstate = 0; // handlers start with the initial state, as the kernel does it
  return true;
}

} // namespace

SignalSet program_mask(const ThreadBlock* t, SignalSet kernel_mask) {
  return t ? (kernel_mask & ~owned()) | t->blocked : kernel_mask;
}

void set_program_mask(ThreadBlock* t, KernelUcontext* uc, SignalSet mask) {
  mask &= ~kUnblockable;
  if (!t) {
    uc->sigmask = mask & ~owned();
    return;
  }
  uc->sigmask = mask & ~owned();
  __atomic_store_n(&t->blocked, mask & owned(), __ATOMIC_SEQ_CST); // see pending.cpp
}

bool wait_mask(ThreadBlock* t, uint64_t number, const KernelSigcontext& m, SignalSet* mask) {
  struct {
    uint64_t set, size;
  } given{};
  switch (number) {
  case __NR_rt_sigsuspend:
    given = {m.rdi, m.rsi};
    break;
  case __NR_ppoll:
    given = {m.r10, m.r8};
    break;
  case __NR_epoll_pwait:
  case __NR_epoll_pwait2:
    given = {m.r8, m.r9};
    break;
  case __NR_pselect6: // a structure of its own
    if (!m.r9 || !read_user(t, &given, m.r9, sizeof given))
      return false;
    break;
  }
  return given.set && given.size == sizeof *mask && read_user(t, mask, given.set, sizeof *mask);
}

KernelSigaction kick_action() { return our_action(kKickSignal, kSaRestart); }

void install_action(int signal) {
  const KernelSigaction action = kernel_action(signal);
  const bool ignored = is_ignored(signal, action);
  if (ignored == ((process.mask & signal_bit(signal)) != 0)) {
    // The masks of our handlers change with it: the signal must not be open in them when it has a
    // handler. Who is in one already meets it in agent_on_signal.
    process.mask ^= signal_bit(signal);
    if (ignored)
      set_kernel_action(signal, action);
    each_signal([&](int other) {
      if (other != signal)
        renew_kernel_action(other);
    });
  }
  set_kernel_action(signal, action);
}

void refresh_policy() {
  SpinLock lock(process.lock);
  process.policy_seq = header().policy_seq.load();
  SignalSet mask = ~kSynchronous;
  each_signal([&](int signal) {
    if (is_ignored(signal, kernel_action(signal)))
      mask &= ~signal_bit(signal);
  });
  process.mask = mask;
  each_signal(renew_kernel_action);
}

void deliver(ThreadBlock* t, KernelUcontext* uc, KernelSiginfo* info, uint64_t counted) {
  KernelSigaction action;
  {
    SpinLock lock(process.lock);
    action = process.actions[info->signal];
    if ((action.flags & kSaResethand) && action.handler != kSigDfl && action.handler != kSigIgn)
      process.actions[info->signal].handler = kSigDfl;
  }
  if (action.handler == kSigIgn)
    return;
  if (action.handler == kSigDfl)
    return default_action(t, uc, info);
  if (!enter_handler(t, uc, info, action, counted)) {
    // No stack for the handler: the kernel forces SIGSEGV, fatally.
    KernelSiginfo fault{};
    fault.signal = kSigSegv;
    fault.code = kSiKernel;
    default_action(t, uc, &fault);
  }
}

void deliver_pending(ThreadBlock* t, KernelUcontext* uc) {
  KernelSiginfo info;
  while (t && pending_signals(t) && take_pending(t, ~blocked_now(t, uc), &info))
    signal_at_program(t, uc, &info, 0);
}

uint32_t signal_to_deliver(const ThreadBlock* t) {
  const uint32_t signal = *const_cast<const volatile uint32_t*>(&slot_of(t).signal);
  return signal <= kSignalCount ? signal : 0;
}

KernelSiginfo chosen_signal(uint32_t signal) {
  KernelSiginfo info{};
  info.signal = static_cast<int32_t>(signal);
  info.code = kSiUser;
  info.rt.pid = static_cast<int32_t>(agent_config.target_pid);
  return info;
}

bool stop_for_watches(ThreadBlock* t, KernelUcontext* uc, const WatchedAccess* accesses,
                      uint32_t count) {
  if (!run_watches(t, accesses, count, uc))
    return false;
  // The access has happened and cannot be repeated: wait for our turn instead of undoing.
  while (!claim_stop(t))
    if (stop_wanted(t))
      park(t, uc, StopReason::kRequested);
  const ThreadSlot& slot = slot_of(t);
  for (uint32_t i = 0; i < slot.fired_count && i < kMaxFired; ++i)
    if (slot.fired[i] < kRecords) // the program can have scribbled over it
      the_session().records[slot.fired[i]].hits.fetch_add(1, std::memory_order_relaxed);
  park(t, uc, StopReason::kWatchpoint);
  return true;
}

void signal_at_program(ThreadBlock* t, KernelUcontext* uc, KernelSiginfo* info, uint64_t counted) {
  const int signal = info->signal;
  if (signal == kSigTrap && info->code == kTrapPerf && takes_part(t)) {
    WatchedAccess accesses[kWatchPlaces];
    const uint32_t count = seen_by(static_cast<uint32_t>(info->perf.data), accesses);
    if (!stop_for_watches(t, uc, accesses, count))
      return go_on(t, uc, counted);
    return go_on_after_stop(t, uc, counted ? counted : uc->mcontext.rip);
  }

  const uint8_t policy = policy_of(signal);
  const bool blocked =
      t && (t->blocked & signal_bit(signal)) && (blocked_now(t, uc) & signal_bit(signal));
  const bool synchronous =
      info->code > 0 && (signal == kSigTrap || (kSynchronous & signal_bit(signal)));
  if (blocked && !synchronous) {
    keep_pending(t, *info);
    repair_interrupted_call(t, uc);
    return go_on(t, uc, counted);
  }
  bool pass = policy & kSignalPass;
  if (takes_part(t) && (policy & kSignalStop)) {
    ThreadSlot& slot = slot_of(t);
    while (!claim_stop(t))
      if (stop_wanted(t))
        park(t, uc, StopReason::kRequested);
    slot.signal = static_cast<uint32_t>(signal);
    memcpy(slot.siginfo, info, sizeof *info);
    const uint64_t rip = uc->mcontext.rip;
    park(t, uc, StopReason::kSignal);
    if (!counted && uc->mcontext.rip == rip)
      counted = rip; // the stop was reported here: a site at this address is stepped over
    const uint32_t chosen = signal_to_deliver(t);
    pass = chosen != 0;
    if (pass && static_cast<int>(chosen) != signal)
      *info = chosen_signal(chosen);
  } else if (takes_part(t) && (policy & kSignalPrint)) {
    notice(NoticeKind::kSignal, slot_of(t).tid, static_cast<uint32_t>(signal));
  }
  if (!pass)
    return go_on(t, uc, counted);

  // A fault or trap that the program blocks or ignores kills it, as the kernel forces such signals.
  if (synchronous && (blocked || process.actions[signal].handler == kSigIgn))
    return default_action(t, uc, info);
  const uint64_t rip = uc->mcontext.rip;
  deliver(t, uc, info, counted);
  if (uc->mcontext.rip == rip)
    go_on(t, uc, counted);
}

void send_to_self(const KernelSiginfo& info) {
  syscall_of(__NR_rt_tgsigqueueinfo, syscall_of(__NR_getpid), syscall_of(__NR_gettid), info.signal,
             reinterpret_cast<uint64_t>(&info));
}

namespace {

// A signal at a place where the program's state is known. Its handler is the program's own code: it
// runs after a stop that is on.
void arrived(ThreadBlock* t, KernelUcontext* uc, KernelSiginfo* info, uint64_t counted) {
  if (stop_wanted(t))
    park(t, uc, StopReason::kRequested);
  if (takes_part(t) && cannot_serve()) {
    const bool fault = info->code > 0 && (kSynchronous & signal_bit(info->signal));
    return give_back(t, uc, fault ? nullptr : info); // a fault will happen again
  }
  signal_at_program(t, uc, info, counted);
}

} // namespace

void on_asynchronous_signal(ThreadBlock* t, KernelUcontext* uc, KernelSiginfo* info) {
  const KernelSigcontext found = uc->mcontext;
  undo_passing_on(info);
  const bool refused = info->signal == kSigSys && info->code > 0; // a system call of the program's
  if (refused)
    leave_refused_call(t, uc);
  uint64_t counted;
  if (to_program(t, uc, &counted) == Place::kProgram) {
    if (refused)
      info->fault_address = uc->mcontext.rip; // si_call_addr, which is behind the call
    if (!counted || steps(t) || (find_site(counted)->flags.load() & kSiteInterruptible))
      return arrived(t, uc, info, counted);
    // Behind the instruction, not before it: a handler may leave for elsewhere, come back to its
    // address by a way that is not sigreturn (Go's preemption), and hit the site twice.
    uc->mcontext = found;
    return step_out_with(t, uc, *info);
  }
  if (!runs_agent(uc))
    return step_out_with(t, uc, *info);
  // It had no handler, and so was open, when this thread entered the agent: once more, behind it.
  uc->sigmask |= signal_bit(info->signal);
  send_to_self(*info);
}

namespace {

// Every signal but SIGTRAP, a kick by signal included.
void on_signal(ThreadBlock* t, KernelUcontext* uc, int signal, KernelSiginfo* info) {
  const bool fault = (kSynchronous & signal_bit(signal)) && info->code > 0;
  if (fault && take_guard(t, uc->mcontext))
    return;
  if (is_queued_kick(*info))
    return on_kick(t, uc, KickedBy::kSignal);
  if (!fault)
    return on_asynchronous_signal(t, uc, info);
  if (t && t->step_out) { // the fault comes first, what waited comes after it
    end_step_out(t, uc);
    if (t->deferred)
      send_to_self(t->deferred_info);
    t->deferred = t->accessed = 0;
  }
  uint64_t counted;
  if (to_program(t, uc, &counted) == Place::kUnclear)
    return step_out_with(t, uc, *info);
  arrived(t, uc, info, counted);
}

} // namespace

extern "C" void agent_on_signal(int signal, KernelSiginfo* info, KernelUcontext* uc) {
  ThreadBlock* t = current();
  const bool fault = (kSynchronous & signal_bit(signal)) && info->code > 0;
  if (in_guest(t) && runs_agent(uc) &&
      ((fault && take_guard(t, uc->mcontext)) || record_signal(t, *info, uc)))
    return;
  if (end_access(t, uc, info)) // its trap, which the signal came in place of
    return agent_on_trap(info->signal, info, uc);
  take_trap_flag(t, uc);
  on_signal(t, uc, signal, info);
  set_trap_flag(t, uc);
  run_in_guest(t, uc);
}

} // namespace dune::agent
