// Waiting for events: with inferior_stop.cpp the front end's half of docs/stop-protocol.md.
#include "dtrace-lite/engine/inferior_impl.h"

#include "dtrace-lite/keeper/proc.h"

#include <algorithm>
#include <fmt/format.h>
#include <linux/futex.h>
#include <poll.h>
#include <thread>

namespace ddbg::engine {

using namespace std::chrono_literals;

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
  case keeper::News::Kind::kUntraced:
    return lost(news->text + " The program runs on without the debugger.");
  case keeper::News::Kind::kSuspended:
    if (header().signal_policy[static_cast<uint32_t>(news->signal) % kSignals] & kSignalStop)
      suspended_by = news->signal;
    return std::nullopt;
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
    if (sites->valid(stop.fired[i])) {
      e.fired.push_back(stop.fired[i]);
      e.watched.push_back(stop.watched[i]);
    }
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

// Its memory goes before its last thread, and both before the keeper tells of the end (or of the
// next image): until then everything may fail, and none of that is worth a word.
bool Inferior::Impl::is_ending() const {
  uint8_t byte;
  if (pread(born.memory.get(), &byte, 1, static_cast<off_t>(map.agent_text)) == 0)
    return true;
  // A child of vfork may keep the memory.
  const std::vector<pid_t> tids = keeper::read_tasks(born.pid);
  return std::all_of(tids.begin(), tids.end(),
                     [](pid_t tid) { return keeper::is_ended(keeper::thread_state(tid)); });
}

// The news that an ending process brings; none when it does not end.
std::optional<Event> Inferior::Impl::await_end() {
  const auto begin = Clock::now();
  for (;;) {
    if (auto e = take_news())
      return e;
    if (!is_ending() || waits_in_vain(begin))
      return std::nullopt;
    pollfd wait{client.fd(), POLLIN, 0};
    (void)poll(&wait, 1, 10);
  }
}

// A stop could not be completed: whatever the reason, the target must not stay stopped.
Event Inferior::Impl::give_up(const Diagnostic& why) {
  if (auto e = await_end())
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
    if (keeper::is_ended(state))
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

namespace {

// The thread is parked before something that the keeper has to be ready for; the user is not told.
bool is_for_keeper(StopReason reason) {
  return reason == StopReason::kExec || reason == StopReason::kExecFailed ||
         reason == StopReason::kDying;
}

} // namespace

void Inferior::Impl::tell_keeper(uint32_t index, StopReason reason) {
  if (reason == StopReason::kExec)
    (void)!client.expect_exec(tid_of(index));
  else if (reason == StopReason::kExecFailed)
    (void)!client.exec_failed();
  else
    (void)!client.expect_death(tid_of(index));
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
    e.signal = std::exchange(suspended_by, 0);
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
  if (is_for_keeper(stop.reason)) {
    tell_keeper(owner.slot, stop.reason);
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
  static const bool kPays = std::thread::hardware_concurrency() > 1;
  bool may_spin = kPays;
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
    if (interrupted || m.suspended_by)
      if (uint32_t nobody = 0;
          m.header().stop_owner.compare_exchange_strong(nobody, kOwnedByFrontend)) {
        m.header().stop_request = 1;
        continue;
      }
    if (may_spin) {
      may_spin = spin(m.header().event_seq, seq, 50us);
      continue;
    }
    // A signal between the check above and the futex is seen at the next wake-up; this bounds how
    // long that takes.
    const timespec bound{0, 100'000'000};
    m.header().frontend_waits = 1;
    const long slept = futex(m.header().event_seq, FUTEX_WAIT, seq, &bound);
    m.header().frontend_waits = 0;
    may_spin = kPays && slept == 0;
  }
}

} // namespace ddbg::engine
