// SIGTRAP: int3 at a site, single steps, watchpoints, and the program's own traps.
//
// A thread is always in one of these states between two instructions of the program:
//   running   TF clear, nothing pending
//   stepping  TF set, block.action is kStep or kRange
//   free call block.stepping_over_call: TF clear until the site at the call's return is hit by the
//             same frame; then stepping again
//   stepping out  block.step_out: TF set only to leave a place where the program's state cannot be
//             named; then whatever waited for it happens
#include "libdune/agent/agent.h"

namespace dune::agent {

using namespace session;

namespace {

bool steps(const ThreadBlock* t) { return t->action != Action::kRun && !t->stepping_over_call; }

void enter_copy(ThreadBlock* t, Site* site, KernelUcontext* uc) {
  if (t)
    t->copy_site = reinterpret_cast<uint64_t>(site);
  uc->mcontext.rip = site->copy;
}

bool installed(const Site* site) {
  return site->flags.load(std::memory_order_acquire) & kSiteInstalled;
}

bool has_jump(const Site* site) { return site->flags.load(std::memory_order_relaxed) & kSiteJump; }

// The kernel leaves a system call with TF set by IRET, and the trap comes after the instruction
// that follows. So a thread that is stepped makes its system calls from a place of ours with a trap
// of ours behind it.
void step_system_call(ThreadBlock* t, KernelUcontext* uc) {
  uint8_t code[kSyscallLength];
  if (!read_user(t, code, uc->mcontext.rip, sizeof code) || code[0] != 0x0f || code[1] != 0x05)
    return;
  switch (uc->mcontext.rax) { // unseen by the front end, and not to return here, or not only once
  case __NR_rt_sigreturn:
  case __NR_clone:
  case __NR_clone3:
  case __NR_fork:
  case __NR_vfork:
    return;
  }
  t->stepped_call = uc->mcontext.rip;
  slot_of(t).regs.rip = uc->mcontext.rip + kSyscallLength; // where it is, for a stop meanwhile
  uc->mcontext.rip = reinterpret_cast<uint64_t>(agent_stepped_call);
  uc->mcontext.eflags &= ~kEflagsTrap;
}

// The instruction at the site, whose records were dealt with.
void run_displaced(ThreadBlock* t, Site* site, KernelUcontext* uc) {
  if (site->flags.load(std::memory_order_relaxed) & kSiteSyscall)
    handle_syscall(t, site, uc);
  else
    enter_copy(t, site, uc);
  if (t)
    apply_trap_flag(t, uc);
}

// Stops for what run_records found, for as long as the thread arrives at sites.
void arrive_at_site(ThreadBlock* t, Site* site, KernelUcontext* uc) {
  for (;;) {
    if (stop_wanted(t)) {
      park(t, uc, StopReason::kRequested); // before the hit: it happens after the stop
      if (uc->mcontext.rip != site->address || !installed(site) || slot_of(t).signal)
        return go_on_after_stop(t, uc, 0);
      continue;
    }
    switch (run_records(t, site, uc)) {
    case Verdict::kBusy:
      continue; // claim_stop failed because a stop is on: stop_wanted sees it
    case Verdict::kStop:
      park(t, uc, StopReason::kBreakpoint);
      return go_on_after_stop(t, uc, site->address);
    case Verdict::kPass:
      return run_displaced(t, site, uc);
    }
  }
}

void on_int3(ThreadBlock* t, KernelUcontext* uc, KernelSiginfo* info) {
  uint64_t address = uc->mcontext.rip - 1;
  if (t && t->stepped_call &&
      address == reinterpret_cast<uint64_t>(agent_stepped_call) + kSyscallLength) {
    uc->mcontext.rip = address;
    const bool was_step = !t->partial_done;
    leave_stepped_call(t, uc);
    if (was_step && takes_part(t) && steps(t))
      return step_landed(t, uc);
    const bool stopped = stop_wanted(t);
    if (stopped)
      park(t, uc, StopReason::kRequested);
    if (cannot_serve()) // it was in this call when the keeper attached
      return give_back(t, uc);
    return stopped ? go_on_after_stop(t, uc, 0) : go_on(t, uc, 0);
  }
  Site* site = find_site(address);
  if (!site)
    return signal_at_program(t, uc, info, 0);
  uc->mcontext.rip = address;
  if (!takes_part(t))
    return run_displaced(t, site, uc);
  slot_of(t).traps++;
  if (t->stepping_over_call && uc->mcontext.rsp > t->call_rsp) {
    // Back from the call that a range step ran at full speed: one step, as far as the user can see.
    t->stepping_over_call = 0;
    return step_landed(t, uc);
  }
  arrive_at_site(t, site, uc);
}

// What waited for a place where the program's state can be named.
void stepped_out(ThreadBlock* t, KernelUcontext* uc, uint64_t counted) {
  end_step_out(t, uc);
  if (t->deferred) {
    t->deferred = 0;
    KernelSiginfo info = t->deferred_info;
    return signal_at_program(t, uc, &info, counted);
  }
  const bool stopped = stop_wanted(t);
  if (stopped)
    park(t, uc, StopReason::kRequested);
  if (cannot_serve())
    return give_back(t, uc);
  stopped ? go_on_after_stop(t, uc, counted) : go_on(t, uc, counted);
}

// In the middle of a copy of several instructions (a displaced call), which could still be taken
// back: right for a fault, but a step that did so would begin the same instruction for ever.
bool half_done(const ThreadBlock* t, uint64_t rip) {
  auto* site = reinterpret_cast<const Site*>(t->copy_site);
  if (!site || rip - site->copy >= site->copy_size || rip == site->copy)
    return false;
  for (uint32_t i = 0; i < site->boundary_count && i < kMaxBoundaries; ++i)
    if (site->boundaries[i].copy_offset == rip - site->copy)
      return site->boundaries[i].original == site->address;
  return false;
}

void on_step(ThreadBlock* t, KernelUcontext* uc, KernelSiginfo* info) {
  if (!t || (t->action == Action::kRun && !t->step_out))
    return signal_at_program(t, uc, info, 0); // the program set TF itself
  if (half_done(t, uc->mcontext.rip))
    return;
  uint64_t counted;
  if (to_program(t, uc, &counted) == Place::kUnclear)
    return; // TF is still set: on to the next instruction
  if (t->step_out)
    return stepped_out(t, uc, counted);
  if (!takes_part(t)) {
    uc->mcontext.eflags &= ~kEflagsTrap; // the vfork child of a stepped thread runs freely
    return;
  }
  if (counted) // an iteration of a repeated string instruction: still the same instruction
    return enter_copy(t, find_site(counted), uc);
  step_landed(t, uc);
}

void on_watch(ThreadBlock* t, KernelUcontext* uc, KernelSiginfo* info) {
  // Nobody but the agent runs with SIGTRAP blocked: it was its own look at the watched value.
  if (!takes_part(t) || (info->perf.flags & kTrapPerfAsync))
    return;
  uint64_t counted;
  if (to_program(t, uc, &counted) == Place::kUnclear)
    return step_out_with(t, uc, *info);
  signal_at_program(t, uc, info, counted);
}

// The call instruction just stepped has left the range: let it run to its return, where the front
// end has put a site.
bool begin_free_call(ThreadBlock* t, KernelUcontext* uc, const ThreadSlot& slot) {
  if (!(slot.range_flags & kRangeStepOverCalls) || uc->mcontext.rsp != t->last_rsp - 8)
    return false;
  uint64_t back = 0;
  if (!read_user(t, &back, uc->mcontext.rsp, 8) || back <= slot.range_begin ||
      back > slot.range_end)
    return false;
  Site* site = find_site(back);
  if (!site || !installed(site))
    return false;
  t->stepping_over_call = 1;
  t->call_rsp = uc->mcontext.rsp;
  return true;
}

} // namespace

void apply_trap_flag(ThreadBlock* t, KernelUcontext* uc) {
  // On its way into a call that the agent makes for it: what comes behind the call sees to the
  // flag. (A forked child, above all, would trap when the handler is no longer ours.)
  if (in_agent_text(uc->mcontext.rip))
    uc->mcontext.eflags &= ~kEflagsTrap;
  else if (steps(t) || t->step_out)
    uc->mcontext.eflags |= kEflagsTrap;
  t->last_rsp = uc->mcontext.rsp;
}

void step_out(ThreadBlock* t, KernelUcontext* uc) {
  if (!t->step_out) {
    t->step_out = 1;
    t->deferred_mask = uc->sigmask;
  }
  uc->sigmask = agent_mask() & ~signal_bit(kSigTrap);
  uc->mcontext.eflags |= kEflagsTrap;
}

void step_out_with(ThreadBlock* t, KernelUcontext* uc, const KernelSiginfo& info) {
  t->deferred = 1;
  t->deferred_info = info;
  step_out(t, uc);
}

void end_step_out(ThreadBlock* t, KernelUcontext* uc) {
  t->step_out = 0;
  uc->mcontext.eflags &= ~kEflagsTrap;
  uc->sigmask = t->deferred_mask;
}

void go_on(ThreadBlock* t, KernelUcontext* uc, uint64_t counted) {
  Site* site = find_site(uc->mcontext.rip);
  if (site && !installed(site) && has_jump(site) && t && (steps(t) || t->step_out))
    return run_displaced(t, site, uc); // the instruction, not what the jump leads to
  if (!site || !installed(site)) {
    apply_trap_flag(t, uc);
    if (takes_part(t) && steps(t))
      step_system_call(t, uc);
    return;
  }
  // Not counted yet, but running: the int3 itself traps. Stepping must not execute it with TF set.
  if (counted != site->address && !steps(t))
    return;
  if (counted != site->address)
    return arrive_at_site(t, site, uc);
  run_displaced(t, site, uc);
}

void go_on_after_stop(ThreadBlock* t, KernelUcontext* uc, uint64_t counted) {
  // The user has seen the thread here: a site at this address, even one set meanwhile, is behind
  // it.
  if (uc->mcontext.rip == t->stop_rip)
    counted = t->stop_rip;
  const uint32_t wanted = slot_of(t).signal;
  if (!wanted)
    return go_on(t, uc, counted);
  KernelSiginfo info{};
  info.signal = static_cast<int32_t>(wanted);
  info.code = kSiUser;
  info.rt.pid = static_cast<int32_t>(agent_config.target_pid);
  const uint64_t rip = uc->mcontext.rip;
  deliver(t, uc, &info, counted);
  if (uc->mcontext.rip == rip)
    go_on(t, uc, counted);
}

void step_landed(ThreadBlock* t, KernelUcontext* uc) {
  ThreadSlot& slot = slot_of(t);
  t->steps_taken++;
  uc->mcontext.eflags &= ~kEflagsTrap;
  bool done;
  if (t->action == Action::kStep) {
    done = t->steps_left <= 1;
    t->steps_left--;
  } else {
    uint64_t rip = uc->mcontext.rip;
    done = rip < slot.range_begin || rip >= slot.range_end;
    if (begin_free_call(t, uc, slot)) // into the range, too, where a function calls itself
      return go_on(t, uc, 0);
  }
  Site* site = find_site(uc->mcontext.rip);
  bool at_site = site && installed(site);
  for (;;) {
    if (stop_wanted(t)) {
      park(t, uc, StopReason::kRequested);
      return go_on_after_stop(t, uc, 0);
    }
    Verdict verdict = at_site ? run_records(t, site, uc) : Verdict::kPass;
    if (verdict == Verdict::kBusy)
      continue;
    if (verdict == Verdict::kPass && !done)
      break;
    if (verdict == Verdict::kPass && !claim_stop(t))
      continue;
    park(t, uc, verdict == Verdict::kStop ? StopReason::kBreakpoint : StopReason::kStep);
    return go_on_after_stop(t, uc, at_site ? site->address : 0);
  }
  go_on(t, uc, at_site ? site->address : 0);
}

extern "C" void agent_on_trap(int, KernelSiginfo* info, KernelUcontext* uc) {
  ThreadBlock* t = current();
  if (t && (uc->mcontext.eflags & kEflagsTrap) && t->action == Action::kRun && !t->step_out &&
      info->code == kTrapTrace)
    return signal_at_program(t, uc, info, 0);
  switch (info->code) {
  case kSiKernel:
    uc->mcontext.eflags &= ~kEflagsTrap; // set again where it is still wanted
    return on_int3(t, uc, info);
  case kTrapTrace:
  case kTrapBrkpt:
    return on_step(t, uc, info);
  case kTrapPerf:
    if (info->perf.data == kKickValue)
      return on_kick(t, uc, KickedBy::kPerfEvent);
    return on_watch(t, uc, info);
  default:
    if (is_queued_kick(*info))
      return on_kick(t, uc,
                     KickedBy::kPerfEvent); // its own, see kick_self: no call was interrupted
    return on_asynchronous_signal(t, uc, info);
  }
}

} // namespace dune::agent
