// The monitor: what happens in the guest at an int3 and behind a single step, without an exit. It
// settles the cases that nobody wants anything of: a site whose records are all passed, a step with
// more to come. Everything else it leaves, uncounted, to the host side (trap.cpp). It runs on a
// stack of its own, where the home of the thread is not touched.
#include "libdune/agent/guest_loop.h"
#include "libdune/agent/records.h"

namespace dune::agent {

using namespace session;

namespace {

// True: no record of the site wants anything of the hit, and that has been counted. Else nothing
// has been.
bool pass_records(ThreadBlock* t, const Site* site, const Registers& regs) {
  const uint32_t tid = slot_of(t).tid;
  uint32_t passed[kMaxFired], count = 0;
  uint32_t index = site->first_record.load(std::memory_order_acquire);
  for (uint32_t n = 0; index < kRecords && n < kRecords; ++n) {
    const Record& r = the_session().records[index];
    const uint32_t this_index = index;
    index = r.next.load(std::memory_order_acquire);
    if ((r.flags.load(std::memory_order_relaxed) & kRecordParkOnly) || !applies(r, tid, regs.rsp))
      continue;
    bool faulted;
    if (count == kMaxFired || condition_holds(t, r, regs, &faulted))
      return false;
    passed[count++] = this_index;
  }
  for (uint32_t i = 0; i < count; ++i)
    count_evaluation(the_session().records[passed[i]], false);
  return true;
}

bool pass_site(ThreadBlock* t, MonitorFrame& frame) {
  Registers& r = frame.regs;
  r.rip--; // of the int3
  Site* site = find_site(r.rip);
  if (!site || t->action != Action::kRun || (r.eflags & kEflagsTrap) || !pass_records(t, site, r))
    return false;
  t->copy_site = reinterpret_cast<uint64_t>(site);
  frame.trap.rip = site->copy;
  slot_of(t).traps++;
  return true;
}

// Whether the step that has just been made is one of several, and not the last.
bool is_on_the_way(const ThreadBlock* t, const Registers& r) {
  if (t->action == Action::kStep)
    return t->steps_left > 1;
  const ThreadSlot& slot = slot_of(t);
  const bool may_be_call =
      (slot.range_flags & kRangeStepOverCalls) && r.rsp == t->last_rsp - sizeof(uint64_t);
  return r.rip >= slot.range_begin && r.rip < slot.range_end && !may_be_call;
}

// The trap flag was ours for this instruction only, and nothing waits for its end.
bool is_plain(const ThreadBlock* t) {
  return t->trap_flag == TrapFlag::kStepping && t->armed_use == FlagsUse::kNone &&
         !t->program_trap_flag && !t->stepped_call && !t->deferred && !t->accessed && !t->landing;
}

// What take_trap_flag, on_step, step_landed and set_trap_flag come to, from one place in the
// program's own code to another.
bool pass_step(ThreadBlock* t, const MonitorFrame& frame) {
  const Registers& r = frame.regs;
  if (!steps(t) || !is_plain(t) || in_arena(r.rip) || in_arena(t->armed_at) ||
      in_agent_text(r.rip) || !is_on_the_way(t, r) || find_site(r.rip))
    return false;
  const FlagsUse use = flags_use(t, r.rip); // the last that may end in the host side
  if (t->action == Action::kStep)
    t->steps_left--;
  t->steps_taken++;
  t->last_rsp = r.rsp;
  t->armed_at = r.rip;
  t->armed_use = use;
  return true;
}

// Behind what debug registers have seen, where nothing else is due.
bool pass_registers(ThreadBlock* t, const MonitorFrame& frame) {
  const bool alone = t->trap_flag == TrapFlag::kProgram && !(frame.regs.eflags & kEflagsTrap) &&
                     !t->past_watches && !t->deferred && !t->accessed && !t->landing;
  return alone && pass_hits(t, frame.regs);
}

// Behind an instruction that ran past watches: the thread goes on from where it is.
bool pass_watches(ThreadBlock* t, MonitorFrame& frame) {
  if (frame.vector != kVectorDebug || steps(t) || !is_plain(t) || !pass_access(t, frame.regs))
    return false;
  t->trap_flag = TrapFlag::kProgram;
  t->last_rsp = frame.regs.rsp;
  frame.trap.eflags &= ~uint64_t{kEflagsTrap};
  return true;
}

} // namespace

// Null: the host side has to look. Else the trap is dealt with, and frame->trap says where to go
// on.
extern "C" DUNE_OF_MONITOR ThreadBlock* agent_on_monitor_trap(MonitorFrame* frame) {
  ThreadBlock* t = current();
  Registers& r = frame->regs;
  r.rip = frame->trap.rip;
  r.rsp = frame->trap.rsp;
  r.eflags = frame->trap.eflags;
  if (!takes_part(t) || t->step_out || stop_wanted(t))
    return nullptr;
  const bool hit = frame->vector == kVectorDebug && has_hits(t);
  const bool passed = hit                                  ? pass_registers(t, *frame)
                      : t->past_watches                    ? pass_watches(t, *frame)
                      : frame->vector == kVectorBreakpoint ? pass_site(t, *frame)
                                                           : pass_step(t, *frame);
  return passed ? t : nullptr;
}

} // namespace dune::agent
