// Inside the Inferior, for inferior*.cpp only.
#pragma once

#include "dtrace-lite/engine/inferior.h"
#include "dtrace-lite/engine/inferior_sites.h"
#include "dtrace-lite/keeper/kick.h"
#include "dtrace-lite/keeper/tids.h"
#include "libdune/base/file.h"
#include "libdune/session/reader.h"

#include <chrono>
#include <csignal>
#include <map>
#include <set>

namespace ddbg::engine {

using namespace dune::session;
using keeper::Client;

using Clock = std::chrono::steady_clock;

long futex(std::atomic<uint32_t>& word, int operation, uint32_t value, const timespec* timeout);
// Whether the word changes within that time. By the clock, not by rounds: where a hypervisor or an
// emulator takes the processor away at each `pause`, one round may last milliseconds.
bool spin(const std::atomic<uint32_t>& word, uint32_t value, std::chrono::microseconds limit);

// What /proc/PID/task/TID/syscall says: where a thread is when it is not running.
struct KernelView {
  enum class Kind { kGone, kRunning, kBlocked } kind = Kind::kGone;
  int64_t number = -1;
  uint64_t arguments[6] = {};
  uint64_t sp = 0, pc = 0;
  bool operator==(const KernelView&) const = default;
};
KernelView look_at(pid_t pid, pid_t tid);
Diagnostic interrupted_wait();

struct Inferior::Impl {
  explicit Impl(Client& c) : client(c) {}
  ~Impl() {
    if (session_mapping.data())
      header().frontend = 0; // the kernel could not mark our death there any more
  }

  Client& client;
  keeper::Born born;
  dune::Mapping session_mapping, code_mapping;
  std::optional<SessionReader> reader; // of session_mapping
  std::unique_ptr<SitePool> sites;
  std::optional<keeper::Kicker> kicker;
  std::optional<keeper::TidMap> tids;
  MemoryMap map{};
  uint32_t capability_bits = 0;
  BackendInfo backend{};
  bool is_alive = true;
  bool is_running = false;
  bool was_suspended = false;            // by SIGSTOP or its like, before this stop
  int suspended_by = 0;                  // it is to be told as a stop of its own
  std::function<bool()> give_up_waiting; // while an attach waits for threads
  std::vector<ThreadView> views;
  bool views_fresh = false;
  bool names_fresh = false;                               // of `views`
  std::map<std::pair<uint32_t, pid_t>, uint32_t> numbers; // (slot, tid) -> thread number
  uint32_t next_number = 1;
  std::map<uint32_t, KernelView> blocked; // slot -> where, during a stop
  std::vector<RecordId> park_records;     // temporary sites at the returns of blocked calls
  std::map<RecordId, uint32_t> watch_ids; // the keeper's number of a watchpoint
  std::optional<Event> pending_event;     // found while doing something else
  uint32_t next_notice = 0;               // ours: the header's copy may be scribbled over
  // Whose stop was told last: parked, whatever its slot may say by now.
  std::optional<uint32_t> stopped_slot;
  // Since when the owner of the stop has claimed it without parking.
  std::optional<Clock::time_point> claim_seen;
  std::chrono::milliseconds patience{20'000};

  // To write to; what the target may have written is asked of the reader.
  Session& session() const { return *reinterpret_cast<Session*>(session_mapping.data()); }
  Header& header() const { return session().header; }
  ThreadSlot& slot(uint32_t i) const { return session().threads[i]; }
  ThreadState state(uint32_t i) { return reader->state(i); }
  pid_t tid_of(uint32_t i) { return tids->outer(reader->tid(i)); }
  uint32_t slot_count() { return reader->slot_count(); }

  static Checked<std::unique_ptr<Inferior>> bring_up(Client&, keeper::Born,
                                                     std::function<bool()> give_up_waiting);
  Checked<void> adopt(keeper::Born);
  Checked<void> wait_until_parked();
  bool waits_in_vain(Clock::time_point since) const;
  bool is_ending() const;
  bool is_told_to_give_up() const { return give_up_waiting && give_up_waiting(); }
  Checked<void> lift_suspension();

  RecordCounts counts(RecordId) const;
  void drain_notices(const std::function<void(const NoticeView&)>& hear);
  std::optional<Event> take_news();
  std::optional<Event> await_end();
  std::optional<Event> check();
  Event lost(std::string text);
  Event give_up(const Diagnostic& why);
  Diagnostic corrupted() const;
  Event describe(uint32_t slot_index, const StopWords&);
  void tell_keeper(uint32_t slot_index, StopReason);

  Checked<void> park_others();
  bool anybody_left();
  Checked<bool> settle_once(std::set<uint32_t>& kicked);
  bool in_stepped_call(const KernelView&) const;
  bool waits_for_vfork_child(const KernelView&) const;
  void let_go(const ResumePlan* plan);
  void mark_running(uint32_t slot_index);
  void wake(uint32_t slot_index);

  void refresh_views();
  void forget_numbers();
  void refresh_names();
  void fill_blocked(ThreadView&, const KernelView&);

  RecordSpec in_agents_numbers(RecordSpec) const;
  Checked<std::vector<uint8_t>> original_bytes(TargetAddr, size_t wanted) const;
  Checked<void> install(std::span<const uint32_t> site_indices);
  Checked<void> uninstall(std::span<const uint32_t> site_indices);
  Checked<void> install_jumps(std::span<const SyscallSpot> spots);
  bool text_is(TargetAddr, uint8_t byte) const;
  void abandon();
  Checked<std::vector<std::string>> leave();
};

} // namespace ddbg::engine
