// SIGTRAP: int3 at a site, single steps, watchpoints, and the program's own traps.
//
// A thread is always in one of these states between two instructions of the program:
//   running   TF is the program's, nothing pending
//   stepping  TF set, block.action is kStep or kRange
//   handler   block.step_frame: the same, but TF is the program's until its handler returns
//   free call block.stepping_over_call: TF clear until the site at the call's return is hit by the
//             same frame; then stepping again
//   stepping out  block.step_out: TF set only to leave a place where the program's state cannot be
//             named; then whatever waited for it happens
//   accessed  block.accessed: debug registers have seen something, and nobody has looked yet
//   past watches  block.past_watches: TF set to run one instruction with the watched pages that it
//             accesses (guest_watch.cpp)
#include "libdune/agent/guest_loop.h"
#include "libdune/arch/prefixes.h"

namespace dune::agent {

using namespace session;

namespace {

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
// of ours behind it. (The same if the program has set TF: from a copy there would be one more trap
// than without us.)
void step_system_call(ThreadBlock* t, KernelUcontext* uc, uint64_t address) {
  uint8_t code[kSyscallLength];
  if (lives_in_guest(t)) // the host loop makes it
    return;
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
  call_from_agent(t, uc, address);
}

// The instruction at the site, whose records were dealt with.
void run_displaced(ThreadBlock* t, Site* site, KernelUcontext* uc) {
  if (site->flags.load(std::memory_order_relaxed) & kSiteSyscall)
    handle_syscall(t, site, uc);
  else
    enter_copy(t, site, uc);
  if (!t)
    return;
  t->last_rsp = uc->mcontext.rsp;
  if (takes_part(t) && uc->mcontext.rip == site->copy &&
      (steps(t) || (uc->mcontext.eflags & kEflagsTrap)))
    step_system_call(t, uc, site->address);
}

// Stops for what run_records found, for as long as the thread arrives at sites.
void arrive_at_site(ThreadBlock* t, Site* site, KernelUcontext* uc) {
  for (;;) {
    if (stop_wanted(t)) {
      park(t, uc, StopReason::kRequested); // before the hit: it happens after the stop
      if (uc->mcontext.rip != site->address || !installed(site) || slot_of(t).signal ||
          cannot_serve())
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

// At a place where the program's state is known.
void stop_or_go_on(ThreadBlock* t, KernelUcontext* uc, uint64_t counted) {
  if (stop_wanted(t)) {
    park(t, uc, StopReason::kRequested);
    return go_on_after_stop(t, uc, counted);
  }
  cannot_serve() ? give_back(t, uc) : go_on(t, uc, counted);
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
    return stop_or_go_on(t, uc, 0); // it may have been in this call when the keeper attached
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
  if (!t)
    return signal_at_program(t, uc, info, 0); // the program set TF itself
  const uint64_t found = uc->mcontext.rip;
  uint64_t counted;
  if (half_done(t, found) || to_program(t, uc, &counted) == Place::kUnclear) {
    if (t->accessed && !steps(t))
      step_out(t, uc);
    return; // TF stays set: on to the next instruction
  }
  // What waited for a place where the program's state can be named.
  const bool is_out = t->step_out;
  if (is_out)
    end_step_out(t, uc);
  const bool stopped = stop_for_accesses(t, uc);
  if (t->deferred) {
    t->deferred = 0;
    KernelSiginfo deferred = t->deferred_info;
    return signal_at_program(t, uc, &deferred, counted);
  }
  if (is_out && !stopped)
    return stop_or_go_on(t, uc, counted);
  // Behind a system call there is no trap, nor before what a jump stands for.
  const Site* site = find_site(uc->mcontext.rip);
  const bool jumped = site && has_jump(site) && found == site->trampoline.address;
  if (t->program_stepped && !in_agent_text(found) && !jumped) {
    info->fault_address = uc->mcontext.rip;
    t->landing = !stopped && steps(t) && !counted;
    return signal_at_program(t, uc, info, counted);
  }
  if (stopped)
    return go_on_after_stop(t, uc, counted ? counted : uc->mcontext.rip);
  if (!steps(t)) // the vfork child of a stepped thread runs freely
    return go_on(t, uc, counted);
  if (counted) // an iteration of a repeated string instruction: still the same instruction
    return enter_copy(t, find_site(counted), uc);
  step_landed(t, uc);
}

// Debug registers have seen something, and no step is due.
void on_hits(ThreadBlock* t, KernelUcontext* uc) {
  uint64_t counted;
  if (half_done(t, uc->mcontext.rip) || to_program(t, uc, &counted) == Place::kUnclear)
    return step_out(t, uc);
  if (stop_for_accesses(t, uc))
    return go_on_after_stop(t, uc, counted ? counted : uc->mcontext.rip);
  go_on(t, uc, counted);
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

// A handler that interrupted the agent, whose own code runs with the flag clear. The lines behind a
// call run with the program's registers, and are stepped.
bool found_agent(const KernelUcontext* uc) {
  const uint64_t rip = uc->mcontext.rip;
  return uc->mcontext.rsp - agent_config.stacks < kThreadSlots * kAgentStackSize &&
         (rip < reinterpret_cast<uint64_t>(agent_restore_begin) ||
          rip >= reinterpret_cast<uint64_t>(agent_restore_end));
}

// Where the instruction's opcode is, behind its prefixes; 0: it cannot be read.
uint64_t opcode_at(ThreadBlock* t, uint64_t rip) {
  constexpr uint64_t kMaxInstruction = 15;
  uint8_t byte;
  for (uint64_t i = 0; i < kMaxInstruction && read_user(t, &byte, rip + i, 1); ++i)
    if (!is_legacy_prefix(byte) && !is_rex(byte))
      return rip + i;
  return 0;
}

} // namespace

FlagsUse flags_use(ThreadBlock* t, uint64_t rip) {
  const uint64_t at = opcode_at(t, rip);
  uint8_t opcode;
  if (!at || !read_user(t, &opcode, at, 1))
    return FlagsUse::kNone;
  switch (opcode) {
  case 0x9c:
    return FlagsUse::kPush;
  case 0x9d:
  case 0xcf: // iret
    return FlagsUse::kPop;
  default:
    return FlagsUse::kNone;
  }
}

uint64_t behind_system_call(ThreadBlock* t, uint64_t rip) {
  const uint64_t at = opcode_at(t, rip);
  uint8_t code[kSyscallLength];
  const bool is_call =
      at && read_user(t, code, at, sizeof code) && code[0] == 0x0f && code[1] == 0x05;
  return is_call ? at + kSyscallLength : 0;
}

void take_trap_flag(ThreadBlock* t, KernelUcontext* uc) {
  KernelSigcontext& m = uc->mcontext;
  if (!t || found_agent(uc))
    return;
  const TrapFlag whose = t->trap_flag;
  t->trap_flag = TrapFlag::kProgram;
  t->program_stepped = 1;
  if (whose == TrapFlag::kProgram || (whose == TrapFlag::kAway && !in_agent_text(m.rip)))
    return;
  t->program_stepped = t->program_trap_flag != 0;
  const FlagsUse use =
      whose == TrapFlag::kStepping && m.rip != t->armed_at ? t->armed_use : FlagsUse::kNone;
  if (use == FlagsUse::kPop)
    return;
  m.eflags = (m.eflags & ~kEflagsTrap) | t->program_trap_flag;
  uint8_t high; // of the flags on the stack
  if (use == FlagsUse::kPush && !t->program_trap_flag && read_user(t, &high, m.rsp + 1, 1)) {
    high &= static_cast<uint8_t>(~(kEflagsTrap >> 8));
    write_user(t, m.rsp + 1, &high, 1);
  }
}

void set_trap_flag(ThreadBlock* t, KernelUcontext* uc) {
  KernelSigcontext& m = uc->mcontext;
  if (!t || found_agent(uc))
    return;
  t->program_trap_flag = m.eflags & kEflagsTrap;
  if (t->step_out || t->past_watches || (steps(t) && !in_agent_text(m.rip))) {
    t->trap_flag = TrapFlag::kStepping;
    t->armed_at = m.rip;
    t->armed_use = flags_use(t, m.rip);
    m.eflags |= kEflagsTrap;
  } else if (in_agent_text(m.rip)) {
    // On its way into a call that the agent makes for it: what comes behind the call sees to the
    // flag. (A forked child, above all, would trap when the handler is no longer ours.)
    t->trap_flag = TrapFlag::kAway;
    m.eflags &= ~kEflagsTrap;
  }
}

void call_from_agent(ThreadBlock* t, KernelUcontext* uc, uint64_t syscall) {
  t->stepped_call = syscall;
  slot_of(t).regs.rip = syscall + kSyscallLength; // where it is, for a stop meanwhile
  uc->mcontext.rip = reinterpret_cast<uint64_t>(agent_stepped_call);
}

void step_out(ThreadBlock* t, KernelUcontext* uc) {
  if (!t->step_out) {
    t->step_out = 1;
    t->deferred_mask = uc->sigmask;
  }
  uc->sigmask = (uc->sigmask | agent_mask()) & ~signal_bit(kSigTrap);
}

void step_out_with(ThreadBlock* t, KernelUcontext* uc, const KernelSiginfo& info) {
  t->deferred = 1;
  t->deferred_info = info;
  step_out(t, uc);
}

void end_step_out(ThreadBlock* t, KernelUcontext* uc) {
  t->step_out = 0;
  uc->sigmask = t->deferred_mask;
}

void go_on(ThreadBlock* t, KernelUcontext* uc, uint64_t counted) {
  if (t && t->landing && !t->step_frame) {
    t->landing = 0;
    return step_landed(t, uc);
  }
  Site* site = find_site(uc->mcontext.rip);
  const bool traps = t && (steps(t) || t->step_out || (uc->mcontext.eflags & kEflagsTrap));
  if (site && !installed(site) && has_jump(site) && traps)
    return run_displaced(t, site, uc); // the instruction, not what the jump leads to
  if (!site || !installed(site)) {
    if (t)
      t->last_rsp = uc->mcontext.rsp;
    if (steps(t))
      step_system_call(t, uc, uc->mcontext.rip);
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
  const uint32_t wanted = signal_to_deliver(t);
  // The user has seen the thread here: a site at this address, even one set meanwhile, is behind
  // it.
  if (uc->mcontext.rip == t->stop_rip && !slot_of(t).arrives)
    counted = t->stop_rip;
  if (!wanted)
    return cannot_serve() ? give_back(t, uc) : go_on(t, uc, counted);
  KernelSiginfo info = chosen_signal(wanted);
  if (cannot_serve())
    return give_back(t, uc, &info);
  const uint64_t rip = uc->mcontext.rip;
  deliver(t, uc, &info, counted);
  if (uc->mcontext.rip == rip)
    go_on(t, uc, counted);
}

void step_landed(ThreadBlock* t, KernelUcontext* uc) {
  ThreadSlot& slot = slot_of(t);
  t->steps_taken++;
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
      // It may be the stop that it has just been let go from: then it is yet to tell of its step.
      if (park(t, uc, StopReason::kRequested) || !steps(t))
        return go_on_after_stop(t, uc, 0);
      continue;
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

namespace {

void on_trap(ThreadBlock* t, KernelUcontext* uc, KernelSiginfo* info) {
  switch (info->code) {
  case kSiKernel:
    return on_int3(t, uc, info);
  case kTrapTrace:
  case kTrapBrkpt:
    return on_step(t, uc, info);
  case kTrapPerf:
    if (info->perf.data == kKickValue)
      return on_kick(t, uc, KickedBy::kPerfEvent);
    return on_watch(t, uc, info);
  case kTrapHwbkpt:
    if (t && t->accessed)
      return on_hits(t, uc);
    return on_asynchronous_signal(t, uc, info);
  default:
    if (is_queued_kick(*info))
      return on_kick(t, uc,
                     KickedBy::kPerfEvent); // its own, see kick_self: no call was interrupted
    return on_asynchronous_signal(t, uc, info);
  }
}

} // namespace

extern "C" void agent_on_trap(int, KernelSiginfo* info, KernelUcontext* uc) {
  ThreadBlock* t = current();
  if (record_signal(t, *info, uc))
    return;
  const bool was_access = end_access(t, uc, info);
  take_trap_flag(t, uc);
  // From where it is, in a copy, too: nobody else wanted this step.
  const bool goes_on =
      was_access && !t->accessed && !steps(t) && !t->step_out && !t->program_stepped;
  if (!goes_on)
    on_trap(t, uc, info);
  set_trap_flag(t, uc);
  run_in_guest(t, uc);
}

} // namespace dune::agent
