// Birth, threads, signals and leaving.
#include "dtrace-lite/engine/inferior_impl.h"

#include "dtrace-lite/keeper/life.h"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/syscall.h>
#include <tuple>

namespace ddbg::engine {

// --- Birth ---------------------------------------------------------------------------------------

Checked<void> Inferior::Impl::adopt(keeper::Born b) {
  born = std::move(b);
  auto session_map = dune::Mapping::shared(born.session.get(), kSessionSize);
  auto code_map = dune::Mapping::shared(born.code.get(), kCodeSize);
  if (!session_map || !code_map)
    return to_diagnostic(!session_map ? session_map.error() : code_map.error());
  session_mapping = std::move(*session_map);
  code_mapping = std::move(*code_map);
  reader.emplace(session());
  // Copies: from now on the target can write these, and we must not believe it.
  map = header().map;
  capability_bits = header().capabilities;
  backend = header().backend;
  backend.name[sizeof backend.name - 1] = backend.why_chosen[sizeof backend.why_chosen - 1] = 0;
  if (header().magic != kSessionMagic || header().version != kSessionVersion)
    return Diagnostic{"The agent speaks another version of the session.",
                      "ddbg and ddbg-keeper are of different builds: rebuild both.",
                      {}};
  keeper::show_life_in(header().frontend);
  sites = std::make_unique<SitePool>(session(), code_mapping.data(), map);
  kicker.emplace(born.pid, capability_bits & kCapPreciseKick);
  tids.emplace(born.pid);
  claim_seen.reset();
  stopped_slot.reset();
  views_fresh = false;
  numbers.clear();
  next_number = 1;
  next_notice = 0;
  blocked.clear();
  park_records.clear();
  watch_ids.clear();
  is_alive = true;
  is_running = false;
  was_suspended = born.was_suspended;
  if (auto ok = wait_until_parked(); !ok)
    return ok.error();
  return park_others();
}

// The keeper has let the threads go. All of them park by themselves, or go on in a system call with
// a trap behind it: a kick would only disturb that.
Checked<void> Inferior::Impl::wait_until_parked() {
  constexpr int kRoundsALook = 64; // for what seldom is, every ten milliseconds
  const auto begin = Clock::now();
  for (int round = 1;; ++round) {
    const uint32_t seq = header().event_seq.load();
    bool waiting = false;
    for (uint32_t i = 0; i < slot_count() && !waiting; ++i)
      waiting = state(i) == ThreadState::kStarting ||
                (state(i) == ThreadState::kRunning &&
                 look_at(born.pid, tid_of(i)).kind == KernelView::Kind::kRunning);
    if (reader->damage())
      return corrupted();
    if (!waiting)
      return {};
    if (is_told_to_give_up())
      return interrupted_wait();
    if (waits_in_vain(begin))
      return Diagnostic{"The program does not enter the debugger's agent.", {}, {}};
    if (round % kRoundsALook == 0) {
      if (is_ending())
        return Diagnostic{"The program was killed while ddbg entered it.", {}, {}};
      if (auto ok = lift_suspension(); !ok)
        return ok.error();
    }
    const timespec bound{0, 200'000}; // a thread that enters a system call does not ring
    header().frontend_waits = 1;
    futex(header().event_seq, FUTEX_WAIT, seq, &bound);
    header().frontend_waits = 0;
  }
}

namespace {

// What was born could not be adopted: it must not stay where it is, parked. False: the keeper is
// gone, too.
bool undo_birth(Client& client, bool attached) {
  if (attached)
    return static_cast<bool>(client.detach());
  if (!client.kill())
    return false;
  while (!client.poll_news()) { // its end
    pollfd wait{client.fd(), POLLIN, 0};
    (void)poll(&wait, 1, -1);
  }
  return true;
}

} // namespace

Checked<std::unique_ptr<Inferior>> Inferior::Impl::bring_up(Client& client, keeper::Born born,
                                                            std::function<bool()> give_up_waiting) {
  const bool attached = born.attached;
  auto impl = std::make_unique<Impl>(client);
  impl->give_up_waiting = std::move(give_up_waiting);
  if (auto ok = impl->adopt(std::move(born)); !ok) {
    if (impl->kicker)
      impl->kicker->clear(); // what arrives when the agent is gone would kill the program
    if (!undo_birth(client, attached) && impl->sites)
      impl->abandon();
    return ok.error();
  }
  impl->give_up_waiting = nullptr;
  return std::unique_ptr<Inferior>(new Inferior(std::move(impl)));
}

Inferior::Inferior(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Inferior::~Inferior() = default;

Checked<std::unique_ptr<Inferior>> Inferior::launch(Client& client,
                                                    const keeper::LaunchOptions& options) {
  auto born = client.launch(options);
  if (!born)
    return born.error();
  return Impl::bring_up(client, std::move(*born), nullptr);
}

Checked<std::unique_ptr<Inferior>> Inferior::attach(Client& client, pid_t pid,
                                                    const std::string& backend,
                                                    std::function<bool()> give_up) {
  auto born = client.attach(pid, backend);
  if (!born)
    return born.error();
  return Impl::bring_up(client, std::move(*born), std::move(give_up));
}

void Inferior::set_patience(std::chrono::milliseconds patience) { impl_->patience = patience; }
pid_t Inferior::pid() const { return impl_->born.pid; }
bool Inferior::attached() const { return impl_->born.attached; }
bool Inferior::alive() const { return impl_->is_alive; }
bool Inferior::running() const { return impl_->is_running; }
uint32_t Inferior::confinement() const { return impl_->header().confinement; }
bool Inferior::was_suspended() const { return impl_->was_suspended; }
uint32_t Inferior::capabilities() const { return impl_->capability_bits; }
const BackendInfo& Inferior::backend() const { return impl_->backend; }
const MemoryMap& Inferior::memory_map() const { return impl_->map; }

void Inferior::set_serving(bool on) { impl_->header().serving = on; }

bool Inferior::is_ours(TargetAddr a) const {
  const MemoryMap& m = impl_->map;
  return (a.value >= m.agent_text && a.value < m.agent_end) ||
         a.value - m.code_near_main < m.code_near_main_size;
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

// Threads that are gone do not come back, and there may have been any number of them.
void Inferior::Impl::forget_numbers() {
  constexpr size_t kRemembered = 4 * kThreadSlots;
  if (numbers.size() <= kRemembered)
    return;
  std::erase_if(numbers, [&](const auto& entry) {
    return std::none_of(views.begin(), views.end(),
                        [&](const ThreadView& v) { return v.number == entry.second; });
  });
}

void Inferior::Impl::refresh_views() {
  if (views_fresh)
    return;
  views.clear();
  struct Found {
    pid_t tid;
    uint32_t slot;
    ThreadState state;
  };
  std::vector<Found> found;
  for (uint32_t i = 0; i < slot_count(); ++i)
    if (const ThreadState now = state(i);
        now == ThreadState::kParked || now == ThreadState::kRunning || now == ThreadState::kInCall)
      found.push_back({tid_of(i), i, now});
  std::sort(found.begin(), found.end(), [](const Found& a, const Found& b) {
    return std::tie(a.tid, a.slot) < std::tie(b.tid, b.slot); // by age, as far as tids tell
  });
  for (const Found& f : found) {
    ThreadView v;
    auto [it, is_new] = numbers.try_emplace({f.slot, f.tid}, next_number);
    next_number += is_new;
    v.number = it->second;
    v.slot = f.slot;
    v.tid = f.tid;
    v.steps_taken = reader->steps_taken(f.slot);
    if (f.state == ThreadState::kParked) {
      v.status = ThreadStatus::kParked;
      v.registers = reader->registers(f.slot);
      v.known = (1u << dune::kRegisterCount) - 1;
    } else if (f.state == ThreadState::kInCall) {
      v.status = ThreadStatus::kBlocked;
      v.registers = reader->registers(f.slot);
      v.known = (1u << dune::kRegisterCount) - 1;
    } else if (auto k = blocked.find(f.slot); k != blocked.end()) {
      v.status = ThreadStatus::kBlocked;
      fill_blocked(v, k->second);
    }
    views.push_back(std::move(v));
  }
  forget_numbers();
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
  const XsaveImage where = impl_->reader->xsave_image(v->slot);
  std::vector<uint8_t> image(where.size);
  if (!where.address || image.empty())
    return Diagnostic{"The thread's floating-point registers are in their initial state.", {}, {}};
  if (auto ok = read_memory(TargetAddr(where.address), image); !ok)
    return ok.error();
  return image;
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
  const auto write = [&](TargetAddr at, std::span<const uint8_t> bytes) {
    return pwrite(born.memory.get(), bytes.data(), bytes.size(), static_cast<off_t>(at.value)) ==
           static_cast<ssize_t>(bytes.size());
  };
  // Where the agent goes on serving, what it has to see stays. So do jumps: taking one away is best
  // done when no thread is near it. Else it has not been for long that there are any, and threads
  // that the agent does not see could not use them: an int3 stands before one until it is gone.
  const bool serving = header().serving;
  std::vector<uint32_t> removed;
  sites->each_patched({TargetAddr(0), TargetAddr(~0ull)}, [&](const SitePool::Place& p) {
    const std::span original(p.original);
    const uint8_t first = p.first_byte();
    bool done = false;
    if (p.has_jump() && !serving)
      done = write(p.address, {&kInt3, 1}) && write(p.address + 1, original.subspan(1)) &&
             write(p.address, original.first(1));
    else if (p.installed() && !(serving && (p.flags & kSiteSyscall)))
      done = write(p.address, {&first, 1});
    if (done)
      removed.push_back(p.index);
  });
  for (uint32_t index : removed) {
    sites->set_flag(index, kSiteInstalled, false);
    if (!serving)
      sites->set_flag(index, kSiteJump, false);
  }
  header().abandoned = 1;
  header().stop_request = 0;
  header().stop_owner = 0;
  for (uint32_t i = 0; i < kThreadSlots; ++i)
    wake(i);
}

Checked<std::vector<std::string>> Inferior::Impl::leave() {
  kicker->clear(); // what arrives when the agent is gone would kill the program
  auto left = client.detach();
  if (!left)
    abandon();
  return left;
}

Checked<std::vector<std::string>> Inferior::detach() {
  auto left = impl_->leave();
  impl_->is_alive = false;
  impl_->is_running = false;
  return left;
}

Checked<void> Inferior::kill() {
  auto killed = impl_->client.kill();
  if (!killed) { // without the keeper we can only let it go
    impl_->abandon();
    impl_->is_alive = false;
    impl_->is_running = false;
  }
  return killed;
}

} // namespace ddbg::engine
