// System calls that make, replace or end threads and processes. They run from the trampolines of
// entry.S, so that the agent sees the result in the thread that got it, the new one included.
#include "libdune/agent/guest_loop.h"
#include "libdune/base/types.h"

namespace dune::agent {

using namespace session;

namespace {

constexpr uint64_t kCloneVm = 0x100, kCloneVfork = 0x4000, kCloneThread = 0x10000;

uint64_t child_trampoline(const ThreadBlock* child) {
  return reinterpret_cast<uint64_t>(agent_child_trampolines) + child->slot * kTrampolineSize;
}

// Sends the thread through a trampoline: its own (`child` null), or that of a new thread's slot.
void to_trampoline(ThreadBlock* t, KernelUcontext* uc, PendingCall call, ThreadBlock* child) {
  KernelSigcontext& m = uc->mcontext;
  t->pending_call = call;
  t->cloned = reinterpret_cast<uint64_t>(child);
  t->call_mask = uc->sigmask;
  t->call_regs.rip = m.rip + kSyscallLength;
  slot_of(t).regs.rip = t->call_regs.rip; // where it is, for a stop meanwhile
  t->call_regs.r11 = m.eflags;
  t->call_regs.eflags = steps(t) ? kEflagsTrap : m.eflags & kEflagsTrap;
  m.rip = own_trampoline(t);
  if (child) {
    child->parent = reinterpret_cast<uint64_t>(t);
    child->call_mask = t->call_mask;
    child->call_regs.rip = t->call_regs.rip;
    child->call_regs.r11 = t->call_regs.r11;
    child->call_regs.eflags = m.eflags & kEflagsTrap;
    m.rip = child_trampoline(child);
  }
  // Nothing may arrive before the new thread has its stack for signals, nor in between: a kick
  // waits until entry.S opens the mask. Faults stay open, they are always ours.
  uc->sigmask |= agent_mask();
  // But for what a filter answers the call with: blocked, it would kill.
  if (agent_config.confined && !(t->call_mask & signal_bit(kSigSys)))
    uc->sigmask &= ~signal_bit(kSigSys);
}

// A slot for a thread that does not exist yet. Its block starts with what a thread inherits.
ThreadBlock* prepare_child(const ThreadBlock* t) {
  const uint32_t index = allocate_slot();
  if (index == kNone)
    return nullptr;
  drop_pending(index);
  ThreadBlock* child = block_at(index);
  memset(child, 0, sizeof *child);
  child->slot = index;
  child->parent_pending = 1;
  child->blocked = t->blocked;
  child->altstack.flags = kSsDisable;
  if (in_guest(t))
    inherit_filters(child, t);
  return child;
}

// The child of a fork: sites, dispositions, mask and alternate stack as the program set them. The
// agent stays mapped, but nothing leads to it any more, unless a site could not be removed: then it
// goes on serving the copies.
void become_native(ThreadBlock* t) {
  process.detached = 1;
  t->action = Action::kRun;
  t->call_regs.eflags &= ~kEflagsTrap; // the parent may be stepping
  const bool clean = remove_sites(t);
  for (int signal = 1; signal <= kSignalCount; ++signal)
    if (signal != kSigKill && signal != kSigStop && (clean || signal != kSigTrap))
      syscall_of(__NR_rt_sigaction, signal, reinterpret_cast<uint64_t>(&process.actions[signal]), 0,
                 8);
  if (!clean)
    return;
  t->call_mask = program_mask(t, t->call_mask);
  agent_set_altstack(&t->altstack, nullptr);
}

void begin_thread(ThreadBlock* t) {
  ThreadSlot& slot = slot_of(t);
  slot.tid = static_cast<uint32_t>(syscall_of(__NR_gettid));
  const KernelStack stack = stack_of_slot(agent_config.stacks, t->slot);
  agent_set_altstack(&stack, nullptr);
  if (t->passthrough) {
    t->child_pid = static_cast<uint32_t>(syscall_of(__NR_getpid));
    slot.state.store(static_cast<uint32_t>(ThreadState::kLeaving)); // until its process is gone
    return;
  }
  slot.reason = StopReason::kNone;
  slot.signal = 0;
  slot.exempt.store(0);
  slot.traps = slot.kicks = 0;
  slot.state.store(static_cast<uint32_t>(ThreadState::kRunning));
  notice(NoticeKind::kThreadBorn, slot.tid, slot.tid);
  // Either the front end's look at the slots, which comes after its request, sees this thread run,
  // or this thread sees the request.
  if (stop_wanted(t))
    kick_self();
}

} // namespace

bool remove_sites(ThreadBlock* t) {
  SiteTable& table = site_table();
  const uint32_t count = table.count.load();
  bool all = true;
  for (uint32_t i = 0; i < count && i < kSites; ++i) {
    // Whatever its flags say: the table is shared with the parent, whose front end may have taken
    // the site out since, and it may not be in the parent's text yet either.
    const Site& site = table.sites[i];
    const bool jump = site.flags.load(std::memory_order_relaxed) & kSiteJump;
    const uint64_t size = jump ? kJumpLength : 1;
    uint8_t now;
    if (!read_user(t, &now, site.address, 1) || site.original[0] == kInt3 ||
        (now != kInt3 && !(jump && now == kJumpOpcode)))
      continue; // not written, or unmapped or replaced since
    const uint64_t page = site.address & ~(kPageSize - 1);
    const uint64_t pages = ((site.address + size - 1) & ~(kPageSize - 1)) - page + kPageSize;
    constexpr long kReadWriteExecute = 7, kReadExecute = 5;
    if (is_errno(syscall_of(__NR_mprotect, page, pages, kReadWriteExecute))) {
      all = false;
      continue;
    }
    // A thread that comes by meanwhile finds an int3 at a known site.
    auto* text = reinterpret_cast<volatile uint8_t*>(site.address);
    text[0] = kInt3;
    for (uint64_t at = 1; at < size; ++at)
      text[at] = site.original[at];
    text[0] = site.original[0];
    syscall_of(__NR_mprotect, page, pages, kReadExecute);
  }
  return all;
}

ProcessCall begin_process_call(ThreadBlock* t, KernelUcontext* uc) {
  const KernelSigcontext& m = uc->mcontext;
  constexpr ProcessCall kNothing{PendingCall::kNone, nullptr};
  if (!takes_part(t)) {
    // Without a guest, a vfork child shares its parent's block, which holds what the parent needs
    // to return: its calls go straight to the kernel. The image it may become inherits the
    // program's mask.
    if (m.rax == __NR_execve || m.rax == __NR_execveat)
      uc->sigmask = program_mask(t, uc->sigmask);
    if (!in_guest(t))
      return kNothing;
  }
  uint64_t flags = 0;
  switch (m.rax) {
  case __NR_exit:
    if (!takes_part(t))
      return kNothing;
    notice(NoticeKind::kThreadExited, slot_of(t).tid, slot_of(t).tid);
    header().live_threads.fetch_sub(1);
    slot_of(t).state.store(static_cast<uint32_t>(ThreadState::kLeaving));
    uc->sigmask = ~SignalSet{0};
    t->action = Action::kRun;
    t->stepping_over_call = 0;
    return kNothing;

  case __NR_exit_group:
    if (takes_part(t))
      notice(NoticeKind::kExiting, slot_of(t).tid, static_cast<uint32_t>(m.rdi));
    return kNothing;

  case __NR_execve:
  case __NR_execveat:
    if (!takes_part(t))
      return kNothing;
    while (!claim_stop(t))
      if (stop_wanted(t))
        park(t, uc, StopReason::kRequested);
    park(t, uc, StopReason::kExec);
    return {PendingCall::kExec, nullptr};

  case __NR_fork:
    break;
  case __NR_vfork:
    flags = kCloneVm | kCloneVfork;
    break;
  case __NR_clone:
    flags = m.rdi;
    break;
  case __NR_clone3:
    if (!read_user(t, &flags, m.rdi, sizeof flags))
      return kNothing; // the kernel says EFAULT
    break;
  default:
    return kNothing;
  }

  if (!(flags & kCloneVm))
    return {PendingCall::kFork, nullptr};
  if ((flags & kCloneVfork) && !(flags & kCloneThread) && !in_guest(t))
    return {PendingCall::kVfork, nullptr};
  ThreadBlock* child = prepare_child(t);
  if (!child && in_guest(t))
    return {PendingCall::kThread, nullptr};
  if (!child) { // runs unseen: its sites are continued, its stops counted as missed
    header().missed_stops.fetch_add(1);
    return kNothing;
  }
  child->passthrough = t->passthrough || !(flags & kCloneThread);
  if (!child->passthrough)
    header().live_threads.fetch_add(1);
  return {PendingCall::kThread, child};
}

bool process_call(ThreadBlock* t, KernelUcontext* uc) {
  if (!t)
    return false;
  const ProcessCall made = begin_process_call(t, uc);
  switch (made.call) {
  case PendingCall::kNone:
    return false;
  case PendingCall::kVfork:
    t->vfork_blocked = t->blocked;
    t->vfork_altstack = t->altstack;
    to_trampoline(t, uc, made.call, nullptr);
    t->in_vfork = 1;
    return true;
  case PendingCall::kExec:
    to_trampoline(t, uc, made.call, nullptr);
    uc->sigmask = program_mask(t, t->call_mask); // what the new image inherits
    return true;
  default:
    to_trampoline(t, uc, made.call, made.child);
    return true;
  }
}

// Both are called by entry.S on the block's own stack with all of the program's signals blocked;
// entry.S then restores call_mask and call_regs.

// A new thread, for the first time.
extern "C" void agent_in_new_thread(ThreadBlock* t) { begin_thread(t); }

// Whoever made a call of its own, after it: parent or child of a fork, failed execve.
extern "C" void agent_after_call(ThreadBlock* t) {
  const long result = static_cast<long>(t->call_regs.rax);
  const PendingCall call = t->pending_call;
  // As it left the agent; a vfork child has used the block meanwhile.
  t->trap_flag = TrapFlag::kAway;
  t->program_trap_flag = t->call_regs.r11 & kEflagsTrap;
  t->pending_call = PendingCall::kNone;
  switch (call) {
  case PendingCall::kThread: {
    auto* child = reinterpret_cast<ThreadBlock*>(t->cloned);
    if (is_errno(result)) {
      if (!child->passthrough)
        header().live_threads.fetch_sub(1);
      free_slot(child->slot);
    } else if (child->passthrough && takes_part(t)) {
      notice(NoticeKind::kForked, slot_of(t).tid, static_cast<uint32_t>(result));
    }
    child->parent_pending = 0;
    break;
  }
  case PendingCall::kFork:
    if (result == 0)
      become_native(t);
    else if (!is_errno(result))
      notice(NoticeKind::kForked, slot_of(t).tid, static_cast<uint32_t>(result));
    break;
  case PendingCall::kVfork:
    if (result == 0) {
      t->pending_call = call; // for the parent, which comes after us
      break;
    }
    t->in_vfork = 0;
    t->blocked = t->vfork_blocked;
    t->altstack = t->vfork_altstack;
    if (!is_errno(result))
      notice(NoticeKind::kForked, slot_of(t).tid, static_cast<uint32_t>(result));
    break;
  case PendingCall::kExec: {
    // Only a failed execve returns. The keeper waits for the new image: tell it that none comes.
    KernelUcontext uc{};
    registers_to(uc.mcontext, t->call_regs);
    uc.mcontext.rcx = t->call_regs.rip;
    while (!claim_stop(t))
      if (stop_wanted(t))
        park(t, &uc, StopReason::kRequested);
    park(t, &uc, StopReason::kExecFailed);
    break;
  }
  case PendingCall::kNone:
    break;
  }
}

void leave_refused_call(ThreadBlock* t, KernelUcontext* uc) {
  KernelSigcontext& m = uc->mcontext;
  if (!t || t->pending_call == PendingCall::kNone)
    return;
  const uint64_t call = t->pending_call == PendingCall::kThread
                            ? child_trampoline(reinterpret_cast<const ThreadBlock*>(t->cloned))
                            : own_trampoline(t);
  if (m.rip != call + kSyscallLength)
    return;
  m.rip = m.rcx = t->call_regs.rip;
  registers_from(t->call_regs, m);
  constexpr long kEnosys = -38;
  t->call_regs.rax = static_cast<uint64_t>(kEnosys);
  t->call_regs.r11 = m.eflags;
  agent_after_call(t);
  t->trap_flag = TrapFlag::kProgram; // a handler is about to see to it
  uc->sigmask = t->call_mask;
}

} // namespace dune::agent
