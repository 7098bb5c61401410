#include "dtrace-lite/engine/inferior.h"

#include "dtrace-lite/engine/inferior_sites.h"
#include "libdune/base/file.h"

#include <algorithm>
#include <cinttypes>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/futex.h>
#include <map>
#include <sys/syscall.h>
#include <thread>

namespace ddbg::engine {

using namespace dune::session;
using keeper::Client;

namespace {

constexpr uint8_t kInt3 = 0xcc;

int futex(std::atomic<uint32_t>& word, int operation, uint32_t value, const timespec* timeout) {
  return static_cast<int>(syscall(SYS_futex, &word, operation, value, timeout, nullptr, 0));
}

// What /proc/PID/task/TID/syscall says: where a thread is when it is not running.
struct KernelView {
  enum class Kind { kGone, kRunning, kBlocked } kind = Kind::kGone;
  int64_t number = -1;
  uint64_t arguments[6] = {};
  uint64_t sp = 0, pc = 0;
  bool operator==(const KernelView&) const = default;
};

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

} // namespace

struct Inferior::Impl {
  explicit Impl(Client& c) : client(c) {}

  Client& client;
  keeper::Born born;
  dune::Mapping session_mapping, code_mapping;
  std::unique_ptr<SitePool> sites;
  MemoryMap map{};
  uint32_t capability_bits = 0;
  BackendInfo backend{};
  bool is_alive = true;
  bool is_running = false;
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

  Session& session() const { return *reinterpret_cast<Session*>(session_mapping.data()); }
  Header& header() const { return session().header; }
  ThreadSlot& slot(uint32_t i) const { return session().threads[i]; }
  ThreadState state(uint32_t i) const { return static_cast<ThreadState>(slot(i).state.load()); }
  uint32_t slot_count() const { return std::min(header().slots_in_use.load(), kThreadSlots); }

  Checked<void> adopt(keeper::Born);
  Checked<void> wait_until_parked();
  bool process_alive() const { return ::kill(born.pid, 0) == 0 || errno == EPERM; }

  void drain_notices(const std::function<void(const NoticeView&)>& hear);
  std::optional<Event> take_news();
  std::optional<Event> check();
  Event lost(std::string text);
  Event give_up(const Diagnostic& why);
  Event describe(uint32_t slot_index);
  void handle_exec(uint32_t slot_index);

  Checked<void> park_others();
  Checked<bool> settle_once(std::map<uint32_t, KernelView>& kicked);
  bool in_stepped_call(const KernelView&) const;
  bool waits_for_vfork_child(const KernelView&) const;
  void kick(pid_t tid);
  void let_go(const ResumePlan* plan);
  void mark_running(uint32_t slot_index);
  void wake(uint32_t slot_index);

  void refresh_views();
  void refresh_names();
  void fill_blocked(ThreadView&, const KernelView&);

  Checked<std::vector<uint8_t>> original_bytes(TargetAddr, size_t wanted) const;
  Checked<void> install(std::span<const uint32_t> site_indices);
  Checked<void> uninstall(std::span<const uint32_t> site_indices);
  void abandon();
};

// --- Birth ---------------------------------------------------------------------------------------

Checked<void> Inferior::Impl::adopt(keeper::Born b) {
  born = std::move(b);
  auto session_map = dune::Mapping::shared(born.session.get(), kSessionSize);
  auto code_map = dune::Mapping::shared(born.code.get(), kCodeSize);
  if (!session_map || !code_map)
    return to_diagnostic(!session_map ? session_map.error() : code_map.error());
  session_mapping = std::move(*session_map);
  code_mapping = std::move(*code_map);
  // Copies: from now on the target can write these, and we must not believe it.
  map = header().map;
  capability_bits = header().capabilities;
  backend = header().backend;
  backend.name[sizeof backend.name - 1] = backend.why_chosen[sizeof backend.why_chosen - 1] = 0;
  if (header().magic != kSessionMagic || header().version != kSessionVersion)
    return Diagnostic{"The agent speaks another version of the session.",
                      "ddbg and ddbg-keeper are of different builds: rebuild both.",
                      {}};
  sites = std::make_unique<SitePool>(session(), code_mapping.data(), map);
  views_fresh = false;
  numbers.clear();
  next_number = 1;
  next_notice = 0;
  blocked.clear();
  park_records.clear();
  watch_ids.clear();
  is_alive = true;
  is_running = false;
  if (auto ok = wait_until_parked(); !ok)
    return ok.error();
  return park_others();
}

// The keeper has let the threads go; those that enter the agent park at once.
Checked<void> Inferior::Impl::wait_until_parked() {
  for (;;) {
    const uint32_t seq = header().event_seq.load();
    bool any = false, waiting = false;
    for (uint32_t i = 0; i < slot_count(); ++i) {
      any |= state(i) == ThreadState::kParked;
      waiting |=
          state(i) == ThreadState::kRunning &&
          look_at(born.pid, static_cast<pid_t>(slot(i).tid)).kind != KernelView::Kind::kBlocked;
    }
    if (any || !waiting)
      return {};
    if (!process_alive())
      return Diagnostic{"The program was killed while it started.", {}, {}};
    const timespec tenth{0, 100'000'000};
    header().frontend_waits = 1;
    futex(header().event_seq, FUTEX_WAIT, seq, &tenth);
    header().frontend_waits = 0;
  }
}

Inferior::Inferior(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Inferior::~Inferior() = default;

Checked<std::unique_ptr<Inferior>> Inferior::launch(Client& client,
                                                    const keeper::LaunchOptions& options) {
  auto born = client.launch(options);
  if (!born)
    return born.error();
  auto impl = std::make_unique<Impl>(client);
  if (auto ok = impl->adopt(std::move(*born)); !ok)
    return ok.error();
  return std::unique_ptr<Inferior>(new Inferior(std::move(impl)));
}

Checked<std::unique_ptr<Inferior>> Inferior::attach(Client& client, pid_t pid,
                                                    const std::string& backend) {
  auto born = client.attach(pid, backend);
  if (!born)
    return born.error();
  auto impl = std::make_unique<Impl>(client);
  if (auto ok = impl->adopt(std::move(*born)); !ok)
    return ok.error();
  return std::unique_ptr<Inferior>(new Inferior(std::move(impl)));
}

pid_t Inferior::pid() const { return impl_->born.pid; }
bool Inferior::attached() const { return impl_->born.attached; }
bool Inferior::alive() const { return impl_->is_alive; }
bool Inferior::running() const { return impl_->is_running; }
uint32_t Inferior::capabilities() const { return impl_->capability_bits; }
const BackendInfo& Inferior::backend() const { return impl_->backend; }
const MemoryMap& Inferior::memory_map() const { return impl_->map; }

bool Inferior::is_ours(TargetAddr a) const {
  const MemoryMap& m = impl_->map;
  return (a.value >= m.agent_text && a.value < m.agent_end) ||
         (m.code_near_main && a.value - m.code_near_main < kCodeNearMainSize);
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
    if (auto ok = adopt(std::move(news->born)); !ok)
      return lost(ok.error().message);
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

Event Inferior::Impl::describe(uint32_t index) {
  ThreadSlot& s = slot(index);
  Event e;
  e.reason = s.reason;
  refresh_views();
  for (const ThreadView& v : views)
    if (v.slot == index)
      e.thread = v.number;
  if (e.reason == StopReason::kBreakpoint || e.reason == StopReason::kWatchpoint)
    for (uint32_t i = 0; i < std::min(s.fired_count, kMaxFired); ++i)
      if (sites->valid(s.fired[i]))
        e.fired.push_back(s.fired[i]);
  e.watch_old = s.watch_old;
  e.watch_new = s.watch_new;
  e.signal = static_cast<int>(s.signal);
  if (e.reason == StopReason::kSignal)
    e.siginfo.assign(s.siginfo, s.siginfo + sizeof s.siginfo);
  return e;
}

// A stop could not be completed: whatever the reason, the target must not stay stopped.
Event Inferior::Impl::give_up(const Diagnostic& why) {
  if (auto e = take_news())
    return std::move(*e);
  abandon();
  return lost(why.message);
}

// The thread is parked before its execve: the keeper has to be ready for the new image.
void Inferior::Impl::handle_exec(uint32_t index) {
  if (slot(index).reason == StopReason::kExec)
    (void)!client.expect_exec(static_cast<pid_t>(slot(index).tid));
  else
    (void)!client.exec_failed();
  let_go(nullptr);
}

std::optional<Event> Inferior::Impl::check() {
  const uint32_t owner = header().stop_owner.load();
  // A stop that a resume() has been waiting for is worth no system call: news that came with it is
  // told by the next wait(). In every other case news goes first: a target that was killed while it
  // was stopped keeps its stop.
  const bool awaited_stop =
      is_running && owner - 1 < kThreadSlots && state(owner - 1) == ThreadState::kParked;
  if (!awaited_stop)
    if (auto e = take_news())
      return e;
  if (owner == 0)
    return std::nullopt;
  if (owner == kOwnedByFrontend) {
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
  const uint32_t index = owner - 1;
  if (index >= kThreadSlots)
    return lost("The target corrupted its session.");
  if (state(index) != ThreadState::kParked)
    return std::nullopt; // it has claimed the stop and is about to park
  const StopReason reason = slot(index).reason;
  if (reason == StopReason::kExec || reason == StopReason::kExecFailed) {
    handle_exec(index);
    return std::nullopt;
  }
  if (header().live_threads.load() != 1)
    if (auto ok = park_others(); !ok)
      return give_up(ok.error());
  if (pending_event)
    return std::exchange(pending_event, std::nullopt);
  is_running = false;
  views_fresh = false;
  return describe(index);
}

// One round of the ring at most: a target that keeps writing cannot keep us here.
void Inferior::Impl::drain_notices(const std::function<void(const NoticeView&)>& hear) {
  for (uint32_t i = 0; i < kNotices; ++i) {
    const Notice& entry = session().notices[next_notice % kNotices];
    if (entry.sequence.load(std::memory_order_acquire) != next_notice + 1)
      return;
    const NoticeView view{entry.kind, static_cast<pid_t>(entry.tid), entry.value};
    header().notice_head.store(++next_notice); // the entry may be used again
    if (hear)
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
  for (;;) {
    const uint32_t seq = m.header().event_seq.load();
    std::optional<Event> event = m.check();
    m.drain_notices(notice);
    if (event)
      return std::move(*event);
    if (!m.is_alive)
      return Diagnostic{"The program is not being run.", {}, {}};
    if (interrupt && interrupt())
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
    const int slept = futex(m.header().event_seq, FUTEX_WAIT, seq, &bound);
    m.header().frontend_waits = 0;
    if (slept == 0)
      spins = 0;
  }
}

// --- Stopping ------------------------------------------------------------------------------------

void Inferior::Impl::kick(pid_t tid) {
  siginfo_t info{};
  info.si_signo = kKickSignal;
  info.si_code = SI_QUEUE;
  info.si_pid = getpid();
  info.si_uid = getuid();
  info.si_value.sival_ptr = reinterpret_cast<void*>(kKickValue);
  syscall(SYS_rt_tgsigqueueinfo, born.pid, tid, kKickSignal, &info);
}

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
Checked<bool> Inferior::Impl::settle_once(std::map<uint32_t, KernelView>& kicked) {
  bool settled = true;
  std::vector<std::pair<uint32_t, KernelView>> candidates;
  for (uint32_t i = 0; i < slot_count(); ++i) {
    if (state(i) != ThreadState::kRunning) {
      blocked.erase(i);
      continue;
    }
    if (blocked.count(i))
      continue;
    const auto tid = static_cast<pid_t>(slot(i).tid);
    const KernelView view = look_at(born.pid, tid);
    if (view.kind == KernelView::Kind::kGone) {
      // Ended without passing the agent (a system call made from code that nobody could know).
      uint32_t running = static_cast<uint32_t>(ThreadState::kRunning);
      if (slot(i).tid != 0 &&
          slot(i).state.compare_exchange_strong(running, static_cast<uint32_t>(ThreadState::kFree)))
        header().live_threads.fetch_sub(1);
      continue;
    }
    settled = false;
    if (view.kind == KernelView::Kind::kBlocked && view.number >= 0) {
      candidates.emplace_back(i, view);
    } else if (!kicked.count(i)) {
      kicked[i] = view;
      kick(tid);
    }
  }
  // A thread in the kernel is left there; a site at the call's return catches it.
  std::vector<uint32_t> new_sites;
  for (auto& [i, view] : candidates) {
    const TargetAddr back = sites->original_of(TargetAddr(view.pc));
    if (in_stepped_call(view)) { // behind it is a trap already
      view.pc = slot(i).regs.rip;
      blocked[i] = view;
      continue;
    }
    if (back.value >= map.agent_text && back.value < map.agent_stacks) {
      // Inside a call the agent makes for it (vfork, or about to park): the kick waits at its end.
      if (!kicked.count(i)) {
        kicked[i] = view;
        kick(static_cast<pid_t>(slot(i).tid));
      }
      if (waits_for_vfork_child(view))
        blocked[i] = view;
      continue;
    }
    auto bytes = original_bytes(back, 16);
    auto index = bytes ? sites->site_at(back, *bytes, 0) : Checked<uint32_t>(bytes.error());
    if (!index) {
      if (!kicked.count(i)) { // cannot be displaced: the call has to be interrupted
        kicked[i] = view;
        kick(static_cast<pid_t>(slot(i).tid));
      }
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
    for (auto& [i, view] : candidates) // look again: it may have returned before the site was there
      if (blocked.count(i) && look_at(born.pid, static_cast<pid_t>(slot(i).tid)) != view)
        blocked.erase(i);
  }
  return settled;
}

Checked<void> Inferior::Impl::park_others() {
  views_fresh = false;
  blocked.clear();
  std::map<uint32_t, KernelView> kicked;
  for (;;) {
    const uint32_t seq = header().event_seq.load();
    if (auto e = take_news()) {
      pending_event = std::move(e);
      return {};
    }
    auto settled = settle_once(kicked);
    if (!settled)
      return settled.error();
    if (*settled)
      return {};
    for (int i = 0; i < 2000 && header().event_seq.load(std::memory_order_relaxed) == seq; ++i)
      __builtin_ia32_pause();
    if (header().event_seq.load() != seq)
      continue;
    const timespec millisecond{0, 1'000'000};
    header().frontend_waits = 1;
    futex(header().event_seq, FUTEX_WAIT, seq, &millisecond);
    header().frontend_waits = 0;
    kicked.clear(); // a kick that found the thread on its way into the kernel is sent again
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
  if (slot(index).asleep.load())
    futex(slot(index).resume, FUTEX_WAKE, INT_MAX, nullptr);
}

void Inferior::Impl::let_go(const ResumePlan* plan) {
  const uint32_t count = slot_count();
  uint32_t chosen = kNone;
  if (plan)
    for (const ThreadView& v : views)
      if (v.number == plan->thread)
        chosen = v.slot;
  std::vector<uint32_t> parked;
  for (uint32_t i = 0; i < count; ++i)
    if (state(i) == ThreadState::kParked)
      parked.push_back(i);
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
  for (uint32_t i : parked)
    mark_running(i);
  header().stop_request.store(plan && plan->only_this_thread && chosen != kNone);
  header().stop_owner.store(0);
  for (uint32_t i : parked)
    if (slot(i).asleep.load())
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
  m.blocked.clear();
  m.is_running = true;
  m.views_fresh = false;
  m.let_go(&plan);
  return {};
}

// --- Threads -------------------------------------------------------------------------------------

void Inferior::Impl::fill_blocked(ThreadView& v, const KernelView& k) {
  using dune::Reg;
  auto set = [&](Reg reg, uint64_t value) {
    register_at(v.registers, reg) = value;
    v.known |= 1u << static_cast<unsigned>(reg);
  };
  set(Reg::rip, sites->original_of(TargetAddr(k.pc)).value);
  set(Reg::rsp, k.sp);
  if (k.number < 0)
    return;
  const Reg arguments[] = {Reg::rdi, Reg::rsi, Reg::rdx, Reg::r10, Reg::r8, Reg::r9};
  for (size_t i = 0; i < 6; ++i)
    set(arguments[i], k.arguments[i]);
}

void Inferior::Impl::refresh_views() {
  if (views_fresh)
    return;
  views.clear();
  std::vector<std::pair<pid_t, uint32_t>> found; // tid, slot
  for (uint32_t i = 0; i < slot_count(); ++i)
    if (state(i) == ThreadState::kParked || state(i) == ThreadState::kRunning)
      found.emplace_back(static_cast<pid_t>(slot(i).tid), i);
  std::sort(found.begin(), found.end()); // by age, as far as tids tell
  for (auto [tid, i] : found) {
    ThreadView v;
    auto [it, is_new] = numbers.try_emplace({i, tid}, next_number);
    next_number += is_new;
    v.number = it->second;
    v.slot = i;
    v.tid = tid;
    v.steps_taken = slot(i).steps_taken;
    if (state(i) == ThreadState::kParked) {
      v.status = ThreadStatus::kParked;
      v.registers = slot(i).regs;
      v.known = (1u << dune::kRegisterCount) - 1;
    } else if (auto k = blocked.find(i); k != blocked.end()) {
      v.status = ThreadStatus::kBlocked;
      fill_blocked(v, k->second);
    }
    views.push_back(std::move(v));
  }
  std::sort(views.begin(), views.end(),
            [](const ThreadView& a, const ThreadView& b) { return a.number < b.number; });
  views_fresh = true;
  names_fresh = false;
}

// Three system calls a thread: not for every stop, a script may never ask.
void Inferior::Impl::refresh_names() {
  refresh_views();
  if (std::exchange(names_fresh, true))
    return;
  for (ThreadView& v : views) {
    char name[32] = {};
    dune::Fd comm(
        open(fmt::format("/proc/{}/task/{}/comm", born.pid, v.tid).c_str(), O_RDONLY | O_CLOEXEC));
    const ssize_t n = comm ? read(comm.get(), name, sizeof name - 1) : 0;
    v.name.assign(name, n > 0 ? static_cast<size_t>(n - (name[n - 1] == '\n')) : 0);
  }
}

const std::vector<ThreadView>& Inferior::threads() {
  impl_->refresh_names();
  return impl_->views;
}

const ThreadView* Inferior::thread(uint32_t number) {
  impl_->refresh_views();
  for (const ThreadView& v : impl_->views)
    if (v.number == number)
      return &v;
  return nullptr;
}

Checked<void> Inferior::write_register(uint32_t number, dune::Reg reg, uint64_t value) {
  const ThreadView* v = thread(number);
  if (!v || v->status != ThreadStatus::kParked)
    return Diagnostic{"The thread's registers cannot be written: it is in a system call.",
                      "Let it return first (finish, or a breakpoint after the call).",
                      {}};
  register_at(impl_->slot(v->slot).regs, reg) = value;
  register_at(const_cast<ThreadView*>(v)->registers, reg) = value;
  return {};
}

Checked<std::vector<uint8_t>> Inferior::read_fpstate(uint32_t number) {
  const ThreadView* v = thread(number);
  if (!v || v->status != ThreadStatus::kParked)
    return Diagnostic{
        "The thread's floating-point registers are not known: it is in a system call.", {}, {}};
  const ThreadSlot& s = impl_->slot(v->slot);
  constexpr uint32_t kMaxImage = 64 * 1024;
  std::vector<uint8_t> image(std::min(s.fpstate_size, kMaxImage));
  if (!s.fpstate || image.empty())
    return Diagnostic{"The thread's floating-point registers are in their initial state.", {}, {}};
  if (auto ok = read_memory(TargetAddr(s.fpstate), image); !ok)
    return ok.error();
  return image;
}

// --- Memory --------------------------------------------------------------------------------------

Checked<void> Inferior::read_memory(TargetAddr address, std::span<uint8_t> out) const {
  const Impl& m = *impl_;
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t n = pread(m.born.memory.get(), out.data() + done, out.size() - done,
                            static_cast<off_t>(address.value + done));
    if (n <= 0)
      return Diagnostic{
          fmt::format("Cannot access memory at address {:#x}", address.value + done), {}, {}};
    done += static_cast<size_t>(n);
  }
  m.sites->each_installed({address, address + out.size()},
                          [&](const Site& s) { out[s.address - address.value] = s.original_byte; });
  return {};
}

Checked<void> Inferior::write_memory(TargetAddr address, std::span<const uint8_t> data) {
  Impl& m = *impl_;
  std::vector<uint8_t> bytes(data.begin(), data.end());
  std::optional<TargetAddr> at_site;
  m.sites->each_installed({address - std::min<uint64_t>(15, address.value), address + data.size()},
                          [&](const Site& s) {
                            if (s.address + s.original_length > address.value)
                              at_site = TargetAddr(s.address);
                          });
  if (at_site)
    return Diagnostic{
        fmt::format("The instruction at {:#x} has a breakpoint and cannot be written.",
                    at_site->value),
        "Delete the breakpoint first.",
        {}};
  const ssize_t n =
      pwrite(m.born.memory.get(), bytes.data(), bytes.size(), static_cast<off_t>(address.value));
  if (n != static_cast<ssize_t>(bytes.size()))
    return Diagnostic{fmt::format("Cannot access memory at address {:#x}", address.value), {}, {}};
  return {};
}

// --- Records and sites ---------------------------------------------------------------------------

Checked<std::vector<uint8_t>> Inferior::Impl::original_bytes(TargetAddr address,
                                                             size_t wanted) const {
  std::vector<uint8_t> bytes(wanted);
  ssize_t n = pread(born.memory.get(), bytes.data(), wanted, static_cast<off_t>(address.value));
  if (n <= 0)
    return Diagnostic{fmt::format("Cannot access memory at address {:#x}", address.value), {}, {}};
  bytes.resize(static_cast<size_t>(n));
  sites->each_installed({address, address + bytes.size()},
                        [&](const Site& s) { bytes[s.address - address.value] = s.original_byte; });
  return bytes;
}

Checked<void> Inferior::Impl::install(std::span<const uint32_t> indices) {
  std::vector<keeper::TextWrite> writes;
  for (uint32_t index : indices) {
    Site& s = sites->site(index);
    if (s.flags & kSiteInstalled)
      continue;
    s.flags |= kSiteInstalled; // before the byte: a thread that traps has to find it so
    writes.push_back({TargetAddr(s.address), kInt3, s.original_byte});
  }
  if (writes.empty())
    return {};
  auto ok = client.write_text(writes);
  if (!ok)
    for (const auto& w : writes)
      if (auto index = sites->find(w.address))
        sites->site(*index).flags &= ~kSiteInstalled;
  return ok;
}

Checked<void> Inferior::Impl::uninstall(std::span<const uint32_t> indices) {
  std::vector<keeper::TextWrite> writes;
  for (uint32_t index : indices) {
    Site& s = sites->site(index);
    if ((s.flags & kSiteInstalled) && !sites->needs_int3(index))
      writes.push_back({TargetAddr(s.address), s.original_byte, kInt3});
  }
  if (writes.empty())
    return {};
  auto ok = client.write_text(writes); // the byte first, see install
  for (const auto& w : writes)
    if (auto index = sites->find(w.address))
      sites->site(*index).flags &= ~kSiteInstalled;
  return ok;
}

Checked<std::vector<RecordId>>
Inferior::add_records(std::span<const std::pair<TargetAddr, RecordSpec>> wanted) {
  Impl& m = *impl_;
  std::vector<RecordId> ids;
  std::vector<uint32_t> indices;
  auto undo = [&](Diagnostic d) -> Checked<std::vector<RecordId>> {
    for (RecordId id : ids)
      m.sites->remove_record(id);
    return d;
  };
  for (const auto& [address, spec] : wanted) {
    auto bytes = m.original_bytes(address, 16);
    if (!bytes)
      return undo(bytes.error());
    if (is_ours(address))
      return undo({fmt::format("The address {:#x} belongs to the debugger's agent.", address.value),
                   {},
                   {}});
    auto index = m.sites->site_at(address, *bytes, 0);
    if (!index)
      return undo(index.error());
    auto id = m.sites->add_record(*index, spec);
    if (!id)
      return undo(id.error());
    ids.push_back(*id);
    indices.push_back(*index);
  }
  if (auto ok = m.install(indices); !ok)
    return undo(ok.error());
  return ids;
}

Checked<RecordId> Inferior::add_record(TargetAddr address, const RecordSpec& spec) {
  const std::pair<TargetAddr, RecordSpec> one{address, spec};
  auto ids = add_records({&one, 1});
  if (!ids)
    return ids.error();
  return ids->front();
}

Checked<void> Inferior::add_syscall_sites(std::span<const TargetAddr> addresses) {
  Impl& m = *impl_;
  std::vector<uint32_t> indices;
  for (TargetAddr address : addresses) {
    auto bytes = m.original_bytes(address, 16);
    if (!bytes)
      continue;
    if (auto index = m.sites->site_at(address, *bytes, kSiteSyscall))
      indices.push_back(*index);
  }
  return m.install(indices);
}

Checked<void> Inferior::remove_records(std::span<const RecordId> ids) {
  Impl& m = *impl_;
  std::vector<uint32_t> emptied;
  Checked<void> result;
  for (RecordId id : ids) {
    if (!m.sites->valid(id))
      continue;
    if (auto watch = m.watch_ids.find(id); watch != m.watch_ids.end()) {
      if (m.is_alive)
        result = m.client.remove_watch(watch->second);
      m.watch_ids.erase(watch);
    }
    const uint32_t index = m.sites->site_of(id);
    if (m.sites->remove_record(id) && index != kNone)
      emptied.push_back(index);
  }
  if (m.is_alive && !emptied.empty())
    result = m.uninstall(emptied);
  return result;
}

Checked<void> Inferior::remove_record(RecordId id) { return remove_records({&id, 1}); }

void Inferior::enable_record(RecordId id, bool on) {
  if (!impl_->sites->valid(id))
    return;
  auto& flags = impl_->sites->record(id).flags;
  if (on)
    flags.fetch_or(kRecordEnabled);
  else
    flags.fetch_and(~kRecordEnabled);
}

void Inferior::set_ignore_count(RecordId id, uint64_t count) {
  if (impl_->sites->valid(id))
    impl_->sites->record(id).ignore_count = count;
}

void Inferior::set_condition(RecordId id, std::vector<uint8_t> code) {
  if (impl_->sites->valid(id))
    (void)!impl_->sites->set_condition(id, code);
}

RecordCounts Inferior::counts(RecordId id) const {
  if (!impl_->sites->valid(id))
    return {};
  const Record& r = impl_->sites->record(id);
  return {r.hits, r.evaluations, r.faults, r.ignore_count};
}

std::optional<TargetAddr> Inferior::record_address(RecordId id) const {
  if (!impl_->sites->valid(id) || impl_->sites->site_of(id) == kNone)
    return std::nullopt;
  return TargetAddr(impl_->sites->site(impl_->sites->site_of(id)).address);
}

Checked<RecordId> Inferior::add_watch(TargetAddr address, unsigned size, Client::Access access,
                                      bool compare_value, const RecordSpec& spec) {
  Impl& m = *impl_;
  uint64_t value = 0;
  if (size == 0 || size > 8)
    return Diagnostic{fmt::format("Cannot watch {} bytes.", size),
                      "Hardware watchpoints cover 1, 2, 4 or 8 bytes.",
                      {}};
  if (auto ok = read_memory(address, {reinterpret_cast<uint8_t*>(&value), size}); !ok)
    return ok.error();
  auto id = m.sites->add_watch_record(address, size, value, compare_value, spec);
  if (!id)
    return id.error();
  auto watch = m.client.add_watch(address, size, access, *id);
  if (!watch) {
    m.sites->remove_record(*id);
    return watch.error();
  }
  m.watch_ids[*id] = *watch;
  return id;
}

// --- Signals, leaving ----------------------------------------------------------------------------

void Inferior::set_signal_policy(int signal, uint8_t policy) {
  if (signal < 1 || signal >= static_cast<int>(kSignals))
    return;
  impl_->header().signal_policy[signal] = policy;
  impl_->header().policy_seq.fetch_add(1);
}

// The keeper is gone: what it would do, as far as memory alone allows.
void Inferior::Impl::abandon() {
  sites->each_installed({TargetAddr(0), TargetAddr(~0ull)}, [&](Site& s) {
    if (pwrite(born.memory.get(), &s.original_byte, 1, static_cast<off_t>(s.address)) == 1)
      s.flags &= ~kSiteInstalled;
  });
  header().abandoned = 1;
  header().stop_request = 0;
  header().stop_owner = 0;
  for (uint32_t i = 0; i < kThreadSlots; ++i)
    wake(i);
}

Checked<std::vector<std::string>> Inferior::detach() {
  auto left = impl_->client.detach();
  impl_->is_alive = false;
  impl_->is_running = false;
  return left;
}

Checked<void> Inferior::kill() { return impl_->client.kill(); }

} // namespace ddbg::engine
