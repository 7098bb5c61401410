// Waiting for events, stopping the other threads, letting them go: the front end's half of
// docs/stop-protocol.md.
#include "dtrace-lite/engine/inferior_impl.h"

#include "dtrace-lite/keeper/proc.h"

#include <algorithm>
#include <cinttypes>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <thread>

namespace ddbg::engine {

long futex(std::atomic<uint32_t>& word, int operation, uint32_t value, const timespec* timeout) {
  return syscall(SYS_futex, &word, operation, value, timeout, nullptr, 0);
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

// --- Waiting -------------------------------------------------------------------------------------

Event Inferior::Impl::lost(std::string text) {
  Event e;
  e.kind = Event::Kind::kLost;
  e.text = std::move(text);
  is_running = false;
  is_alive = false;
  return e;
}

std::optional<Event> Inferior::Impl::take_news() {
  auto news = client.poll_news();
  if (!news)
    return std::nullopt;
  Event e;
  switch (news->kind) {
  case keeper::News::Kind::kExited:
    e.kind = Event::Kind::kExited;
    e.status = news->status;
    is_alive = false;
    is_running = false;
    return e;
  case keeper::News::Kind::kExeced:
    for (RecordId id = 0; id < kRecords; ++id)
      if (sites->valid(id))
        e.last_counts[id] = counts(id);
    if (auto ok = adopt(std::move(news->born)); !ok)
      return give_up(ok.error());
    e.kind = Event::Kind::kExeced;
    return e;
  case keeper::News::Kind::kExecUntraced:
    return lost(news->text + " The program runs on without the debugger.");
  case keeper::News::Kind::kKeeperLost:
    abandon();
    return lost("The keeper process has died. The program runs on without the debugger.");
  }
  return std::nullopt;
}

Event Inferior::Impl::describe(uint32_t index, const StopWords& stop) {
  Event e;
  e.reason = stop.reason;
  refresh_views();
  for (const ThreadView& v : views)
    if (v.slot == index)
      e.thread = v.number;
  if (!e.thread)
    return give_up({"The target corrupted its session: the thread that stopped is gone.", {}, {}});
  for (uint32_t i = 0; i < stop.fired_count; ++i)
    if (sites->valid(stop.fired[i]))
      e.fired.push_back(stop.fired[i]);
  e.watch_old = stop.watch_old;
  e.watch_new = stop.watch_new;
  e.signal = static_cast<int>(stop.signal);
  if (stop.reason == StopReason::kSignal)
    e.siginfo.assign(stop.siginfo, stop.siginfo + sizeof stop.siginfo);
  return e;
}

Diagnostic Inferior::Impl::corrupted() const {
  const dune::Error& damage = *reader->damage();
  return {fmt::format("The target corrupted its session: {} ({:#x}).", damage.text, damage.detail),
          {},
          {}};
}

// A stop could not be completed: whatever the reason, the target must not stay stopped.
Event Inferior::Impl::give_up(const Diagnostic& why) {
  if (auto e = take_news())
    return std::move(*e);
  auto left = leave();
  std::string text = why.message + " It is left to run without the debugger.";
  if (left)
    for (const std::string& what : *left)
      text += "\n" + what;
  return lost(std::move(text));
}

// A stop that does not come. While another debugger keeps the process stopped it cannot come.
bool Inferior::Impl::waits_in_vain(Clock::time_point since) const {
  return Clock::now() - since >= patience && keeper::thread_state(born.pid) != 't';
}

// Threads that SIGSTOP or its like has stopped do not come to a stop of ours.
Checked<void> Inferior::Impl::lift_suspension() {
  for (pid_t tid : keeper::read_tasks(born.pid)) {
    const char state = keeper::thread_state(tid);
    if (state == 'Z' || state == 'X' || state == 0)
      continue; // ended: any other tells for all
    if (state != 'T')
      break;
    was_suspended = true;
    return client.lift_suspension();
  }
  return {};
}

Diagnostic interrupted_wait() {
  return {"Interrupted while waiting for the program's threads.", "The program is as it was.", {}};
}

// The thread is parked before its execve: the keeper has to be ready for the new image.
void Inferior::Impl::handle_exec(uint32_t index, StopReason reason) {
  if (reason == StopReason::kExec)
    (void)!client.expect_exec(tid_of(index));
  else
    (void)!client.exec_failed();
  let_go(nullptr);
}

std::optional<Event> Inferior::Impl::check() {
  const StopOwner owner = reader->stop_owner();
  const bool is_parked =
      owner.kind == StopOwner::Kind::kThread && state(owner.slot) == ThreadState::kParked;
  // A stop that a resume() has been waiting for is worth no system call: news that came with it is
  // told by the next wait(). In every other case news goes first: a target that was killed while it
  // was stopped keeps its stop.
  if (!(is_running && is_parked))
    if (auto e = take_news())
      return e;
  if (reader->damage())
    return give_up(corrupted());
  if (owner.kind != StopOwner::Kind::kThread || is_parked)
    claim_seen.reset();
  switch (owner.kind) {
  case StopOwner::Kind::kNobody:
    return std::nullopt;
  case StopOwner::Kind::kFrontend: {
    if (auto ok = lift_suspension(); !ok)
      return give_up(ok.error());
    if (auto ok = park_others(); !ok)
      return give_up(ok.error());
    if (pending_event)
      return std::exchange(pending_event, std::nullopt);
    is_running = false;
    refresh_views();
    Event e;
    e.reason = StopReason::kRequested;
    e.thread = views.empty() ? 0 : views.front().number;
    return e;
  }
  case StopOwner::Kind::kThread:
    break;
  }
  if (!is_parked) { // it has claimed the stop and is about to park
    if (!claim_seen)
      claim_seen = Clock::now();
    if (waits_in_vain(*claim_seen))
      return give_up({"The target does not stop: a thread has said so and runs on.", {}, {}});
    return std::nullopt;
  }
  const StopWords stop = reader->stop(owner.slot);
  if (reader->damage())
    return give_up(corrupted());
  if (stop.reason == StopReason::kExec || stop.reason == StopReason::kExecFailed) {
    handle_exec(owner.slot, stop.reason);
    return std::nullopt;
  }
  if (!reader->is_single_threaded())
    if (auto ok = park_others(); !ok)
      return give_up(ok.error());
  if (pending_event)
    return std::exchange(pending_event, std::nullopt);
  is_running = false;
  views_fresh = false;
  stopped_slot = owner.slot;
  return describe(owner.slot, stop);
}

// One round of the ring at most: a target that keeps writing cannot keep us here.
void Inferior::Impl::drain_notices(const std::function<void(const NoticeView&)>& hear) {
  for (uint32_t i = 0; i < kNotices; ++i) {
    const std::optional<NoticeWords> entry = reader->notice(next_notice);
    if (!entry)
      return;
    NoticeView view{entry->kind, tids->outer(entry->tid), entry->value};
    const bool comes_or_goes =
        view.kind == NoticeKind::kThreadBorn || view.kind == NoticeKind::kThreadExited;
    const bool forked = view.kind == NoticeKind::kForked;
    if (comes_or_goes || forked)
      view.value = static_cast<uint32_t>(forked ? tids->outer_child(view.value) : view.tid);
    const bool known = view.value != 0 || !(comes_or_goes || forked); // or it has gone already
    header().notice_head.store(++next_notice);                        // the entry may be used again
    if (hear && known)
      hear(view);
  }
}

Checked<Event> Inferior::wait(const std::function<bool()>& interrupt,
                              const std::function<void(const NoticeView&)>& notice) {
  Impl& m = *impl_;
  if (m.pending_event) {
    m.is_running = false;
    return *std::exchange(m.pending_event, std::nullopt);
  }
  if (!m.is_alive)
    return Diagnostic{"The program is not being run.", {}, {}};
  // Spinning pays when the answer comes from another core within microseconds; with one core it
  // would keep the target from running.
  static const int kSpins = std::thread::hardware_concurrency() > 1 ? 4000 : 0;
  int spins = 0;
  bool interrupted = false;
  for (;;) {
    const uint32_t seq = m.header().event_seq.load();
    // Asked before an event is told: one after the other must not make us deaf.
    interrupted |= interrupt && interrupt();
    std::optional<Event> event = m.check();
    m.drain_notices(notice);
    if (event) {
      event->interrupted = interrupted;
      return std::move(*event);
    }
    if (!m.is_alive)
      return Diagnostic{"The program is not being run.", {}, {}};
    if (interrupted)
      if (uint32_t nobody = 0;
          m.header().stop_owner.compare_exchange_strong(nobody, kOwnedByFrontend)) {
        m.header().stop_request = 1;
        continue;
      }
    if (spins < kSpins) {
      while (spins < kSpins && m.header().event_seq.load(std::memory_order_relaxed) == seq) {
        ++spins;
        __builtin_ia32_pause();
      }
      if (spins < kSpins)
        spins = 0;
      continue;
    }
    // A signal between the check above and the futex is seen at the next wake-up; this bounds how
    // long that takes.
    const timespec bound{0, 100'000'000};
    m.header().frontend_waits = 1;
    const long slept = futex(m.header().event_seq, FUTEX_WAIT, seq, &bound);
    m.header().frontend_waits = 0;
    if (slept == 0)
      spins = 0;
  }
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
    if (state(i) != ThreadState::kRunning) {
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
  for (auto& [i, tid, view] : candidates) {
    const TargetAddr back = sites->original_of(TargetAddr(view.pc));
    if (in_stepped_call(view)) { // behind it is a trap already
      view.pc = reader->registers(i).rip;
      blocked[i] = view;
      continue;
    }
    if (back.value >= map.agent_text && back.value < map.agent_stacks) {
      // Inside a call the agent makes for it (vfork, or about to park): the kick waits at its end.
      if (auto ok = kick(i, tid); !ok)
        return ok.error();
      if (waits_for_vfork_child(view))
        blocked[i] = view;
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
    if (*settled)
      return {};
    if (is_told_to_give_up())
      return interrupted_wait();
    if (waits_in_vain(begin))
      return Diagnostic{"The target does not stop: a thread neither parks nor blocks.", {}, {}};
    for (int i = 0; i < 2000 && header().event_seq.load(std::memory_order_relaxed) == seq; ++i)
      __builtin_ia32_pause();
    if (header().event_seq.load() != seq)
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
  for (uint32_t i = 0; i < count; ++i)
    if (state(i) == ThreadState::kParked || i == stopped_slot)
      parked.push_back(i);
  stopped_slot.reset();
  if (chosen != kNone) {
    ThreadSlot& s = slot(chosen);
    s.action = plan->action;
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
    if (auto ok = remove_records(records); !ok)
      return ok.error();
  }
  if (std::exchange(m.was_suspended, false))
    if (auto ok = m.client.forget_suspension(); !ok)
      return ok.error();
  m.blocked.clear();
  m.kicker->clear();
  m.is_running = true;
  m.views_fresh = false;
  m.let_go(&plan);
  return {};
}

} // namespace ddbg::engine
