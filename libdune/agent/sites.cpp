// Sites: deciding what the records of the one that trapped want, and naming the program's
// instruction pointer when a thread is inside a displaced copy.
#include "libdune/agent/records.h"

namespace dune::agent {

using namespace session;

void leave_stepped_call(ThreadBlock* t, KernelUcontext* uc) {
  KernelSigcontext& m = uc->mcontext;
  const bool made = m.rip != reinterpret_cast<uint64_t>(agent_stepped_call);
  if (t->partial_done) { // the program is behind its call, whatever became of the rest
    const bool more = made && static_cast<int64_t>(m.rax) > 0;
    m.rax = t->partial_done + (more ? m.rax : 0);
    m.rsi = t->partial_rsi;
    m.rdx = t->partial_rdx;
  }
  if (t->confining.filter)
    end_confining(t, &m, made);
  m.rip = t->stepped_call + (made || t->partial_done ? kSyscallLength : 0);
  if (made || t->partial_done)
    m.rcx = m.rip;
  t->partial_done = t->stepped_call = 0;
  end_wait(t, m, made ? static_cast<long>(m.rax) : 0);
}

void end_wait(ThreadBlock* t, const KernelSigcontext& m, long result) {
  KernelSiginfo info;
  if (t->waits_for && result > 0 && m.rsi &&
      read_user(t, &info, m.rsi, sizeof info)) { // sigtimedwait
    undo_passing_on(&info);
    write_user(t, m.rsi, &info, sizeof info);
  }
  t->waits_for = 0;
}

namespace {

// Inside agent_quick_call: back before the program's system call, or behind it, as the frame says.
bool leave_quick_call(KernelUcontext* uc) {
  KernelSigcontext& m = uc->mcontext;
  if (!between(m.rip, agent_quick_call, agent_quick_end))
    return false;
  if (between(m.rip, agent_quick_call, agent_quick_saved)) {
    m.rip = m.rcx;
    return true;
  }
  const uint64_t frame = between(m.rip, agent_quick_blocked, agent_quick_leaving) ? m.rbx : m.r11;
  Registers r = reinterpret_cast<const QuickFrame*>(frame)->regs;
  if (m.rip == reinterpret_cast<uint64_t>(agent_quick_saved))
    r.eflags = m.eflags; // the last to be saved
  registers_to(m, r);
  return true;
}

} // namespace

Place to_program(ThreadBlock* t, KernelUcontext* uc, uint64_t* counted) {
  *counted = 0;
  uint64_t rip = uc->mcontext.rip;
  if (!t)
    return Place::kProgram;

  if (in_agent_text(rip)) {
    auto begin = reinterpret_cast<uint64_t>(agent_restore_begin);
    auto end = reinterpret_cast<uint64_t>(agent_restore_end);
    if (rip == own_trampoline(t) && t->pending_call == PendingCall::kExec) {
      // Signals are open before an execve: one of them came first. The call is made anew after it.
      uc->mcontext.rip = t->call_regs.rip - kSyscallLength;
      set_program_mask(t, uc, program_mask(t, t->call_mask));
      return Place::kProgram;
    }
    if (leave_quick_call(uc))
      return Place::kProgram;
    if (rip >= begin && rip < end) {
      Registers r = t->call_regs;
      r.rcx = r.rip;
      r.eflags = uc->mcontext.eflags;
      registers_to(uc->mcontext, r);
      rip = r.rip;
    }
    // The agent may have been on its way there (agent_on_enter_call).
    const auto stepped = reinterpret_cast<uint64_t>(agent_stepped_call);
    if (t->stepped_call && (rip == stepped || rip == stepped + kSyscallLength)) {
      const uint64_t call = t->stepped_call;
      leave_stepped_call(t, uc);
      if (uc->mcontext.rip == call && find_site(call))
        *counted = call;
    } else if (in_agent_text(rip)) {
      return Place::kUnclear;
    }
    return Place::kProgram;
  }

  if (runs_agent(uc)) // a compiled condition, which is no code of the agent's text
    return Place::kUnclear;
  auto* site = reinterpret_cast<const Site*>(t->copy_site);
  if (!site || rip - site->copy >= site->copy_size) {
    if (in_arena(rip)) { // a jump site's trampoline is entered without the agent's knowing
      uc->mcontext.rip = out_of_trampoline(site_table(), rip);
      if (uc->mcontext.rcx == rip)
        uc->mcontext.rcx = uc->mcontext.rip; // right behind the call
    }
    return Place::kProgram;
  }
  uint32_t count = site->boundary_count < kMaxBoundaries ? site->boundary_count : kMaxBoundaries;
  for (uint32_t i = 0; i < count; ++i) {
    const Boundary& b = site->boundaries[i];
    if (b.copy_offset != rip - site->copy)
      continue;
    Registers r;
    registers_from(r, uc->mcontext);
    for (uint16_t n = 0; n < b.saved_count && n < 2; ++n)
      if (b.saved[n].reg >= kRegisterCount ||
          !read_user(t, &register_at(r, static_cast<Reg>(b.saved[n].reg)),
                     r.rsp + static_cast<uint64_t>(static_cast<int64_t>(b.saved[n].at)), 8))
        return Place::kUnclear;
    r.rsp += static_cast<uint64_t>(static_cast<int64_t>(b.rsp_add));
    r.rip = b.original;
    if (r.rcx == rip)
      r.rcx = r.rip; // right behind a system call
    registers_to(uc->mcontext, r);
    if (b.original == site->address)
      *counted = site->address;
    return Place::kProgram;
  }
  return Place::kUnclear;
}

namespace {

bool take_ignore(Record& r) {
  uint64_t left = r.ignore_count.load(std::memory_order_relaxed);
  while (left)
    if (r.ignore_count.compare_exchange_weak(left, left - 1, std::memory_order_relaxed))
      return true;
  return false;
}

} // namespace

// Counting and claiming belong together: a hit that loses the race for the stop is undone, the
// thread parks before the instruction and runs into the site again afterwards. So each execution of
// the instruction counts once, whatever other threads do.
Verdict run_records(ThreadBlock* t, Site* site, const KernelUcontext* uc) {
  ThreadSlot& slot = slot_of(t);
  Registers regs;
  registers_from(regs, uc->mcontext);
  uint32_t fired[kMaxFired], ignored[kMaxFired];
  uint32_t fired_count = 0, ignored_count = 0;
  bool fault_of[kMaxFired];

  // The chain is the front end's and short; the bound is against a session scribbled over.
  uint32_t index = site->first_record.load(std::memory_order_acquire);
  for (uint32_t n = 0; index < kRecords && n < kRecords; ++n) {
    Record& r = the_session().records[index];
    uint32_t this_index = index;
    index = r.next.load(std::memory_order_acquire);
    if ((r.flags.load(std::memory_order_relaxed) & kRecordParkOnly) ||
        !applies(r, slot.tid, regs.rsp))
      continue;
    bool faulted;
    if (!condition_holds(t, r, regs, &faulted)) {
      count_evaluation(r, false);
      continue;
    }
    if (ignored_count < kMaxFired && take_ignore(r)) {
      ignored[ignored_count++] = this_index;
      continue;
    }
    if (fired_count == kMaxFired)
      continue;
    fault_of[fired_count] = faulted;
    fired[fired_count++] = this_index;
  }

  if (fired_count && !claim_stop(t)) {
    for (uint32_t i = 0; i < ignored_count; ++i)
      the_session().records[ignored[i]].ignore_count.fetch_add(1, std::memory_order_relaxed);
    return Verdict::kBusy;
  }
  for (uint32_t i = 0; i < ignored_count; ++i) {
    Record& r = the_session().records[ignored[i]];
    count_evaluation(r, false);
    r.hits.fetch_add(1, std::memory_order_relaxed);
  }
  if (!fired_count)
    return Verdict::kPass;
  for (uint32_t i = 0; i < fired_count; ++i) {
    Record& r = the_session().records[fired[i]];
    count_evaluation(r, fault_of[i]);
    r.hits.fetch_add(1, std::memory_order_relaxed);
    slot.fired[i] = fired[i];
  }
  slot.fired_count = fired_count;
  return Verdict::kStop;
}

namespace {

bool watches(const Record& r, uint32_t tid, uint64_t rsp) {
  return applies(r, tid, rsp) && r.watch_size != 0 && r.watch_size <= 8;
}

// By whether the value has changed. `last`: at the last look; becomes what it was before.
bool passes_unasked(const Record& r, uint64_t* last, uint64_t now, const uint64_t* before) {
  const uint32_t flags = r.flags.load(std::memory_order_relaxed);
  // Two threads may both have written before either comes here: the second has changed it, too.
  if (*last == now && before && (flags & kRecordCompareValue))
    *last = *before;
  return flags & (*last == now ? kRecordCompareValue : kRecordUnchangedOnly);
}

// True: it wants to stop, and only that hit is not counted yet.
bool run_watch(ThreadBlock* t, const WatchedAccess& access, const KernelUcontext* uc,
               WatchedValue* value) {
  if (access.record >= kRecords)
    return false;
  Record& r = the_session().records[access.record];
  if (!watches(r, slot_of(t).tid, uc->mcontext.rsp))
    return false;
  uint64_t now = 0;
  if (!read_user(t, &now, r.watch_address, r.watch_size))
    return false;
  uint64_t last = r.watch_value.exchange(now, std::memory_order_relaxed);
  if (passes_unasked(r, &last, now, access.before) || (last == now && !access.is_certain))
    return false;
  Registers regs;
  registers_from(regs, uc->mcontext);
  bool faulted;
  bool holds = condition_holds(t, r, regs, &faulted);
  count_evaluation(r, faulted);
  if (!holds)
    return false;
  if (take_ignore(r)) {
    r.hits.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  *value = {last, now};
  return true;
}

} // namespace

bool run_watches(ThreadBlock* t, const WatchedAccess* accesses, uint32_t count,
                 const KernelUcontext* uc) {
  ThreadSlot& slot = slot_of(t);
  uint32_t fired = 0;
  for (uint32_t i = 0; i < count && fired < kMaxFired; ++i)
    if (run_watch(t, accesses[i], uc, &slot.watched[fired]))
      slot.fired[fired++] = accesses[i].record;
  slot.fired_count = fired;
  return fired != 0;
}

uint32_t seen_by(uint32_t record, WatchedAccess* accesses) {
  if (record >= kRecords)
    return 0;
  uint32_t count = 0;
  accesses[count++] = {record, true, nullptr};
  const auto end_of = [](const Record& r) { return r.watch_address + r.watch_size; };
  const Record& told = the_session().records[record];
  for (const WatchPlace& place : header().watch_places) {
    const uint32_t other = place.record.load() - 1;
    if (other >= kRecords || other == record || count == kWatchPlaces)
      continue;
    const Record& r = the_session().records[other];
    const bool overlaps = r.watch_address < end_of(told) && told.watch_address < end_of(r);
    const bool covers = r.watch_address <= told.watch_address && end_of(told) <= end_of(r);
    if (overlaps)
      accesses[count++] = {other, covers, nullptr};
  }
  return count;
}

bool pass_watch(ThreadBlock* t, uint32_t index, const Registers& regs, const uint64_t* before) {
  if (index >= kRecords)
    return true;
  Record& r = the_session().records[index];
  if (!watches(r, slot_of(t).tid, regs.rsp))
    return true;
  uint64_t now = 0, seen = r.watch_value.load(std::memory_order_relaxed), last = seen;
  if (!read_user(t, &now, r.watch_address, r.watch_size))
    return false;
  const bool unasked = passes_unasked(r, &last, now, before);
  bool faulted;
  if ((!unasked && condition_holds(t, r, regs, &faulted)) ||
      !r.watch_value.compare_exchange_strong(seen, now, std::memory_order_relaxed))
    return false;
  if (!unasked)
    count_evaluation(r, false);
  return true;
}

} // namespace dune::agent
