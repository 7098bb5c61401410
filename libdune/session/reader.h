// What the front end takes out of a session. The target can write anything there at any time, by
// mistake or on purpose, so this is the one place where its words become values: each is read once,
// an index or an enumerator is within its range, and nothing is a length or an address that is used
// unchecked. A word that no agent writes is remembered as damage and comes out as something
// harmless; the front end asks for damage() where it can end the session.
//
// No system calls, no locks: this is the way of every stop. Freestanding-clean.
#pragma once

#include "libdune/base/result.h"
#include "libdune/session/layout.h"

#include <optional>
#include <span>

namespace dune::session {

struct StopOwner {
  enum class Kind { kNobody, kFrontend, kThread } kind = Kind::kNobody;
  uint32_t slot = 0; // kThread
};

// Why the thread that owns the stop has stopped.
struct StopWords {
  StopReason reason = StopReason::kNone;
  uint32_t signal = 0; // kSignal: 1..kSignals - 1
  uint32_t fired_count = 0;
  uint32_t fired[kMaxFired] = {}; // kBreakpoint, kWatchpoint: below kRecords
  uint8_t siginfo[128] = {};
  WatchedValue watched[kMaxFired] = {}; // kWatchpoint
};

struct NoticeWords {
  NoticeKind kind;
  uint32_t tid;
  uint32_t value;
};

struct RecordCounters {
  uint64_t hits, evaluations, faults, ignore_count;
};

struct XsaveImage {
  uint64_t address; // in the target; 0: none
  uint32_t size;    // at most kMaxSize
  static constexpr uint32_t kMaxSize = 64 * 1024;
};

class SessionReader {
public:
  explicit SessionReader(const Session& session) : session_(session) {}

  // The first contradiction that was met; detail is the word.
  const std::optional<Error>& damage() const { return damage_; }

  uint32_t slot_count() {
    const uint32_t count = load(session_.header.slots_in_use);
    return count <= kThreadSlots ? count : damaged("more threads than slots", count, kThreadSlots);
  }
  // Stopping one thread stops all.
  bool is_single_threaded() const { return load(session_.header.live_threads) == 1; }

  StopOwner stop_owner() {
    const uint32_t word = load(session_.header.stop_owner);
    if (word == 0)
      return {};
    if (word == kOwnedByFrontend)
      return {StopOwner::Kind::kFrontend, 0};
    if (word > slot_count())
      return damaged("a stop by a thread that does not exist", word, StopOwner{});
    return {StopOwner::Kind::kThread, word - 1};
  }

  ThreadState state(uint32_t slot) {
    const uint32_t word = load(session_.threads[slot].state);
    return word <= static_cast<uint32_t>(ThreadState::kInCall)
               ? static_cast<ThreadState>(word)
               : damaged("an unknown state of a thread", word, ThreadState::kFree);
  }
  // Whose number this is nobody checks: it may only be used where the kernel does, in the files of
  // /proc/PID/task and in calls that also take the process.
  uint32_t tid(uint32_t slot) const { return load(session_.threads[slot].tid); }
  bool is_asleep(uint32_t slot) const { return load(session_.threads[slot].asleep); }
  uint64_t steps_taken(uint32_t slot) const { return load(session_.threads[slot].steps_taken); }
  Registers registers(uint32_t slot) const { return session_.threads[slot].regs; }
  XsaveImage xsave_image(uint32_t slot) const {
    const uint32_t size = load(session_.threads[slot].fpstate_size);
    return {load(session_.threads[slot].fpstate),
            size < XsaveImage::kMaxSize ? size : XsaveImage::kMaxSize};
  }

  // Of a thread that owns the stop and is parked.
  StopWords stop(uint32_t slot) {
    const ThreadSlot& s = session_.threads[slot];
    StopWords out;
    const auto reason = load(s.reason);
    switch (reason) {
    case StopReason::kStep:
    case StopReason::kExec:
    case StopReason::kExecFailed:
    case StopReason::kDying:
      break;
    case StopReason::kBreakpoint:
    case StopReason::kWatchpoint: {
      const uint32_t count = load(s.fired_count);
      if (count == 0 || count > kMaxFired)
        return damaged("a stop with an impossible number of reasons", count, out);
      for (uint32_t i = 0; i < count; ++i) {
        const uint32_t id = load(s.fired[i]);
        if (id >= kRecords)
          return damaged("a stop at a breakpoint that does not exist", id, out);
        out.fired[i] = id;
        out.watched[i] = {load(s.watched[i].before), load(s.watched[i].after)};
      }
      out.fired_count = count;
      break;
    }
    case StopReason::kSignal: {
      const uint32_t signal = load(s.signal);
      if (signal == 0 || signal >= kSignals)
        return damaged("a stop by an unknown signal", signal, out);
      out.signal = signal;
      for (uint32_t i = 0; i < sizeof out.siginfo; ++i)
        out.siginfo[i] = load(s.siginfo[i]);
      break;
    }
    default:
      return damaged("a stop for an unknown reason", static_cast<int64_t>(reason), out);
    }
    out.reason = reason;
    return out;
  }

  // Of a watchpoint in a guest: it has no debug register.
  bool is_watched_by_page(uint32_t record) const {
    for (const WatchPlace& w : session_.header.watch_places)
      if (load(w.record) == record + 1)
        return !load(w.by_register);
    return false;
  }

  // The notice with this number, if it is complete. A kind that nobody knows says nothing.
  std::optional<NoticeWords> notice(uint32_t number) const {
    const Notice& n = session_.notices[number % kNotices];
    if (n.sequence.load(std::memory_order_acquire) != number + 1)
      return std::nullopt;
    const NoticeKind kind = load(n.kind);
    return NoticeWords{kind <= NoticeKind::kExiting ? kind : NoticeKind::kNone, load(n.tid),
                       load(n.value)};
  }

  RecordCounters counters(uint32_t record) const {
    const Record& r = session_.records[record];
    return {load(r.hits), load(r.evaluations), load(r.faults), load(r.ignore_count)};
  }

private:
  // One access, whatever the compiler thinks of reading the word again later.
  template <class T> static T load(const T& word) { return *const_cast<const volatile T*>(&word); }
  template <class T> static T load(const std::atomic<T>& word) { return word.load(); }

  template <class T> T damaged(const char* what, int64_t word, T instead) {
    if (!damage_)
      damage_ = Error{Errc::kCorrupt, what, word};
    return instead;
  }

  const Session& session_;
  std::optional<Error> damage_;
};

} // namespace dune::session
