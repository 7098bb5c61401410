// Stopping the other threads and letting them go: with inferior_wait.cpp the front end's half of
// docs/stop-protocol.md.
#include "dtrace-lite/engine/inferior_impl.h"

#include <algorithm>
#include <cinttypes>
#include <climits>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/futex.h>
#include <sys/syscall.h>

namespace ddbg::engine {

using namespace std::chrono_literals;

long futex(std::atomic<uint32_t>& word, int operation, uint32_t value, const timespec* timeout) {
  return syscall(SYS_futex, &word, operation, value, timeout, nullptr, 0);
}

bool spin(const std::atomic<uint32_t>& word, uint32_t value, std::chrono::microseconds limit) {
  const auto end = Clock::now() + limit;
  do {
    if (word.load(std::memory_order_relaxed) != value)
      return true;
    __builtin_ia32_pause();
  } while (Clock::now() < end);
  return word.load() != value;
}

KernelView look_at(pid_t pid, pid_t tid) {
  KernelView view;
  dune::Fd fd(
      open(fmt::format("/proc/{}/task/{}/syscall", pid, tid).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd)
    return view;
  char text[512];
  const ssize_t n = read(fd.get(), text, sizeof text - 1);
  if (n <= 0)
    return view;
  text[n] = 0;
  view.kind = KernelView::Kind::kRunning;
  if (sscanf(text, "%" SCNd64, &view.number) != 1)
    return view; // "running"
  const int fields =
      view.number < 0
          ? sscanf(text, "%*d %" SCNx64 " %" SCNx64, &view.sp, &view.pc)
          : sscanf(text,
                   "%*d %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64
                   " %" SCNx64 " %" SCNx64,
                   &view.arguments[0], &view.arguments[1], &view.arguments[2], &view.arguments[3],
                   &view.arguments[4], &view.arguments[5], &view.sp, &view.pc);
  if (fields == 8 || (view.number < 0 && fields == 2))
    view.kind = KernelView::Kind::kBlocked;
  return view;
}

// --- Stopping ------------------------------------------------------------------------------------

// A thread that the agent lets make a system call in the middle of a step.
bool Inferior::Impl::in_stepped_call(const KernelView& view) const {
  if (view.pc < map.agent_text + 2 || view.pc >= map.agent_stacks)
    return false;
  const uint8_t call[] = {0x0f, 0x05, kInt3}; // agent/entry.S, agent_stepped_call
  uint8_t code[sizeof call];
  return pread(born.memory.get(), code, sizeof code, static_cast<off_t>(view.pc - 2)) ==
             sizeof code &&
         std::memcmp(code, call, sizeof call) == 0;
}

// Not any clone: one that is only slow will yet return, and bring a new thread.
bool Inferior::Impl::waits_for_vfork_child(const KernelView& view) const {
  uint64_t flags = 0;
  switch (view.number) {
  case SYS_vfork:
    return true;
  case SYS_clone:
    flags = view.arguments[0];
    break;
  case SYS_clone3: // the flags come first in its structure
    if (pread(born.memory.get(), &flags, sizeof flags, static_cast<off_t>(view.arguments[0])) !=
        sizeof flags)
      return false;
    break;
  default:
    return false;
  }
  return flags & CLONE_VFORK;
}

// One look at every thread that is neither parked nor known to be blocked. True when there is none
// left.
Checked<bool> Inferior::Impl::settle_once(std::set<uint32_t>& kicked) {
  bool settled = true;
  // `tid` has been found in the process: a number that the session was made to say may be
  // anybody's.
  auto kick = [&](uint32_t i, pid_t tid) -> Checked<void> {
    return kicked.insert(i).second ? kicker->kick(tid) : Checked<void>();
  };
  struct Candidate {
    uint32_t slot;
    pid_t tid;
    KernelView view;
  };
  std::vector<Candidate> candidates;
  for (uint32_t i = 0; i < slot_count(); ++i) {
    if (state(i) != ThreadState::kRunning) { // also one in a call, see ThreadState::kInCall
      blocked.erase(i);
      settled &= state(i) != ThreadState::kStarting; // runs in a moment, or could not be made
      continue;
    }
    if (blocked.count(i))
      continue;
    const auto tid = tid_of(i);
    const KernelView view = look_at(born.pid, tid);
    if (view.kind == KernelView::Kind::kGone) {
      // Ended without passing the agent (a system call made from code that nobody could know).
      uint32_t running = static_cast<uint32_t>(ThreadState::kRunning);
      if (tid != 0 &&
          slot(i).state.compare_exchange_strong(running, static_cast<uint32_t>(ThreadState::kFree)))
        header().live_threads.fetch_sub(1);
      continue;
    }
    settled = false;
    if (view.kind == KernelView::Kind::kBlocked && view.number >= 0) {
      candidates.push_back({i, tid, view});
    } else if (auto ok = kick(i, tid); !ok) {
      return ok.error();
    }
  }
  // A thread in the kernel is left there; a site at the call's return catches it.
  std::vector<uint32_t> new_sites;
  // In a call that the agent makes for it: the agent has written down where the program made it.
  auto blocked_in_agent = [&](uint32_t i, const KernelView& view) {
    blocked[i] = view;
    blocked[i].pc = reader->registers(i).rip;
  };
  for (const auto& [i, tid, view] : candidates) {
    const TargetAddr back = sites->original_of(TargetAddr(view.pc));
    if (in_stepped_call(view)) { // behind it is a trap already
      blocked_in_agent(i, view);
      continue;
    }
    if (back.value >= map.agent_text && back.value < map.agent_stacks) {
      // About to park, or in vfork: the kick waits at the end.
      if (auto ok = kick(i, tid); !ok)
        return ok.error();
      if (waits_for_vfork_child(view))
        blocked_in_agent(i, view);
      continue;
    }
    auto bytes = original_bytes(back, 16);
    auto index = bytes ? sites->site_at(back, *bytes, 0) : Checked<uint32_t>(bytes.error());
    if (!index) {
      // Nothing can be patched there: a precise kick catches the thread when it comes out, any
      // other has to interrupt the call.
      if (auto ok = kick(i, tid); !ok)
        return ok.error();
      if (capability_bits & kCapPreciseKick)
        blocked[i] = view;
      continue;
    }
    RecordSpec spec;
    spec.internal = spec.park_only = true;
    auto record = sites->add_record(*index, spec);
    if (!record)
      return record.error();
    park_records.push_back(*record);
    new_sites.push_back(*index);
    blocked[i] = view; // to be confirmed below
  }
  if (!new_sites.empty()) {
    if (auto ok = install(new_sites); !ok)
      return ok.error();
    // Look again: it may have returned before the site was there.
    for (const auto& [i, tid, view] : candidates)
      if (blocked.count(i) && look_at(born.pid, tid) != view)
        blocked.erase(i);
  }
  return settled;
}

bool Inferior::Impl::anybody_left() {
  for (uint32_t i = 0; i < slot_count(); ++i)
    if (const ThreadState s = state(i);
        s == ThreadState::kRunning || s == ThreadState::kParked || s == ThreadState::kInCall)
      return true;
  return false;
}

// A kick may find its thread where it has no effect: it is repeated, after this many milliseconds.
constexpr int kRoundsAKick = 4;

Checked<void> Inferior::Impl::park_others() {
  views_fresh = false;
  blocked.clear();
  std::set<uint32_t> kicked;
  const auto begin = Clock::now();
  for (int round = 1;; ++round) {
    const uint32_t seq = header().event_seq.load();
    if (auto e = take_news()) {
      pending_event = std::move(e);
      return {};
    }
    auto settled = settle_once(kicked);
    if (!settled)
      return settled.error();
    if (reader->damage())
      return corrupted();
    if (*settled && (anybody_left() || !is_ending()))
      return {};
    if (is_told_to_give_up())
      return interrupted_wait();
    if (waits_in_vain(begin))
      return Diagnostic{"The target does not stop: a thread neither parks nor blocks.", {}, {}};
    if (spin(header().event_seq, seq, 25us))
      continue;
    const timespec millisecond{0, 1'000'000};
    header().frontend_waits = 1;
    futex(header().event_seq, FUTEX_WAIT, seq, &millisecond);
    header().frontend_waits = 0;
    if (round % kRoundsAKick == 0) {
      kicked.clear();
      if (auto ok = lift_suspension(); !ok)
        return ok.error();
    }
  }
}

Checked<void> Inferior::stop() {
  Impl& m = *impl_;
  for (;;) {
    const uint32_t seq = m.header().event_seq.load();
    if (uint32_t nobody = 0;
        m.header().stop_owner.compare_exchange_strong(nobody, kOwnedByFrontend)) {
      m.header().stop_request = 1;
      if (auto ok = m.park_others(); !ok)
        return ok.error();
      break;
    }
    // A thread's own stop came first, or an execve: it is the next event.
    if (auto e = m.check()) {
      m.pending_event = std::move(e);
      break;
    }
    if (!m.is_alive)
      return Diagnostic{"The program is not being run.", {}, {}};
    const timespec millisecond{0, 1'000'000};
    m.header().frontend_waits = 1;
    futex(m.header().event_seq, FUTEX_WAIT, seq, &millisecond);
    m.header().frontend_waits = 0;
  }
  m.is_running = false;
  m.refresh_views();
  return {};
}

// --- Resuming ------------------------------------------------------------------------------------

void Inferior::Impl::mark_running(uint32_t index) {
  ThreadSlot& s = slot(index);
  // From here on it runs, although it may not have woken up yet: the next stop must not take it for
  // a thread that is parked.
  uint32_t parked = static_cast<uint32_t>(ThreadState::kParked);
  s.state.compare_exchange_strong(parked, static_cast<uint32_t>(ThreadState::kRunning));
  s.resume.fetch_add(1);
}

void Inferior::Impl::wake(uint32_t index) {
  mark_running(index);
  futex(slot(index).resume, FUTEX_WAKE, INT_MAX, nullptr);
}

void Inferior::Impl::let_go(const ResumePlan* plan) {
  claim_seen.reset();
  const uint32_t count = slot_count();
  uint32_t chosen = kNone;
  if (plan)
    for (const ThreadView& v : views)
      if (v.number == plan->thread)
        chosen = v.slot;
  std::vector<uint32_t> parked;
  for (uint32_t i = 0; i < count; ++i) {
    slot(i).action = i == chosen ? plan->action : Action::kRun;
    slot(i).arrives = i == chosen && plan->arrives;
    if (state(i) == ThreadState::kParked || i == stopped_slot)
      parked.push_back(i);
  }
  stopped_slot.reset();
  if (chosen != kNone) {
    ThreadSlot& s = slot(chosen);
    s.step_count = plan->step_count;
    s.range_begin = plan->range.begin.value;
    s.range_end = plan->range.end.value;
    s.range_flags = plan->step_over_calls ? uint32_t{kRangeStepOverCalls} : 0;
    s.signal = static_cast<uint32_t>(plan->deliver_signal);
    s.exempt = plan->only_this_thread;
  }
  // Before the stop is cleared: afterwards a thread may leave by itself, and be parked for a stop
  // of its own when we come to it.
  std::erase_if(parked, [&](uint32_t i) {
    return plan && plan->only_this_thread && chosen != kNone && i != chosen;
  });
  for (uint32_t i : parked) {
    if (i != chosen)
      slot(i).signal = 0; // the agent left there what it stopped with; only the plan delivers
    mark_running(i);
  }
  header().stop_request.store(plan && plan->only_this_thread && chosen != kNone);
  header().stop_owner.store(0);
  for (uint32_t i : parked)
    if (reader->is_asleep(i))
      futex(slot(i).resume, FUTEX_WAKE, INT_MAX, nullptr);
}

Checked<void> Inferior::resume(const ResumePlan& plan) {
  Impl& m = *impl_;
  if (m.pending_event) { // what stop() found: wait() has to tell it first
    m.is_running = true;
    return {};
  }
  if (!m.is_alive)
    return Diagnostic{"The program is not being run.", {}, {}};
  if (m.is_running)
    return Diagnostic{"The program is already running.", {}, {}};
  if (!m.park_records.empty()) {
    auto records = std::exchange(m.park_records, {});
    if (auto ok = remove_records(records); !ok && !m.is_ending()) // wait() tells of the end
      return ok.error();
  }
  if (std::exchange(m.was_suspended, false)) {
    m.suspended_by = 0;
    if (auto ok = m.client.forget_suspension(); !ok)
      return ok.error();
  }
  m.blocked.clear();
  m.kicker->clear();
  m.is_running = true;
  m.views_fresh = false;
  m.let_go(&plan);
  return {};
}

} // namespace ddbg::engine
