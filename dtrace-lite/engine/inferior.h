// One live target as the session shows it: threads, registers, memory, sites, stop and resume.
// This is the lowest layer of the engine: it knows addresses and records, not symbols, frames or
// what a user calls a breakpoint. All calls are made by one thread of the front end.
#pragma once

#include "dtrace-lite/keeper/client.h"
#include "dtrace-lite/symbols/diagnostic.h"
#include "libdune/arch/registers.h"
#include "libdune/base/types.h"
#include "libdune/session/layout.h"

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace ddbg::engine {

using dune::TargetAddr;
using dune::TargetRange;

// A record's number in the session: one reason to act at one site.
using RecordId = uint32_t;

// What the instruction before a `syscall` may become, see jump_sites.cpp.
enum class JumpKind : uint8_t { kNone, kQuick, kGate, kWait };

struct RecordSpec {
  std::vector<uint8_t> condition{}; // position-independent code, see expr/compile.h; empty: always
  bool internal = false;            // the front end's own: not counted for the user
  bool park_only = false;
  bool enabled = true;
  pid_t only_tid = 0;             // ThreadView::tid; 0: any thread
  uint64_t min_stack_pointer = 0; // 0: any frame
  uint64_t ignore_count = 0;
};

struct RecordCounts {
  uint64_t hits = 0;        // condition true (ignored hits included)
  uint64_t evaluations = 0; // condition evaluated
  uint64_t faults = 0;      // condition faulted (and counted as true)
  uint64_t ignore_left = 0;
};

// Which accesses of those that the processor reports fire a watchpoint.
enum class WatchWhen {
  kAccessed,  // all (`awatch`)
  kChanged,   // the value is another (`watch`)
  kUnchanged, // it is not (`rwatch`): a read is reported only together with writes
};

enum class ThreadStatus {
  kParked,  // in the agent: all registers known and writable
  kBlocked, // in a system call: pc, sp and the argument registers are known, see ThreadView::known
  kRunning,
};

struct ThreadView {
  uint32_t number = 0; // ddbg's own, from 1, never reused within a run
  uint32_t slot = dune::session::kNone;
  pid_t tid = 0;
  ThreadStatus status = ThreadStatus::kRunning;
  dune::Registers registers{};
  uint32_t known = 0;       // bit i: register i of dune::kRegisters is valid
  uint64_t steps_taken = 0; // instructions stepped by the last kStep or kRange
  std::string name;         // comm
};

// Why the target is stopped, or what became of it.
struct Event {
  enum class Kind {
    kStopped, // `reason` and `thread`
    kExited,  // `status`: the target is gone
    kExeced, // a new image: sessions, sites and modules start anew; threads are parked at its entry
    kLost,   // session corrupted, or the agent is gone while the process lives: `text`
  } kind = Kind::kStopped;
  dune::session::StopReason reason = dune::session::StopReason::kNone;
  uint32_t thread = 0;                              // ThreadView::number
  std::vector<RecordId> fired;                      // kBreakpoint, kWatchpoint
  std::vector<dune::session::WatchedValue> watched; // kWatchpoint: of each of `fired`
  int signal = 0; // kSignal; kRequested: the one that had stopped the target, which asked for it
  bool interrupted = false;     // `interrupt` wanted a stop, too, when this one came first
  std::vector<uint8_t> siginfo; // kSignal: kernel siginfo_t, 128 bytes
  std::map<RecordId, RecordCounts> last_counts; // kExeced: of the records that went
  keeper::ExitStatus status{};
  std::string text;
};

// Something worth telling that stopped nobody.
struct NoticeView {
  dune::session::NoticeKind kind = dune::session::NoticeKind::kNone;
  pid_t tid = 0;      // of the thread it happened to
  uint32_t value = 0; // see NoticeKind
};

struct ResumePlan {
  // What the selected thread does; all others run (or stay parked with `only_this_thread`).
  uint32_t thread = 0; // ThreadView::number; 0: all just run
  dune::session::Action action = dune::session::Action::kRun;
  uint64_t step_count = 1;      // kStep
  TargetRange range{};          // kRange
  bool step_over_calls = false; // kRange
  bool only_this_thread = false;
  bool arrives = false;   // nobody has been shown it where it is: a breakpoint there stops it
  int deliver_signal = 0; // to `thread`: the signal of a kSignal stop, or another, or 0
};

class Inferior {
public:
  // The target's threads are parked at the first instruction of the program (or of its
  // interpreter); nothing of it has run.
  static Checked<std::unique_ptr<Inferior>> launch(keeper::Client&, const keeper::LaunchOptions&);
  // `give_up` (may be null) is polled while threads are waited for; the target is then left as it
  // was.
  static Checked<std::unique_ptr<Inferior>> attach(keeper::Client&, pid_t,
                                                   const std::string& backend = "auto",
                                                   std::function<bool()> give_up = nullptr);
  ~Inferior();

  pid_t pid() const;
  bool attached() const;
  bool alive() const;   // false once kExited was returned
  bool running() const; // between resume() and the next stop
  // SIGSTOP or its like had stopped the target when the present stop came: resume() lets it run,
  // detach() leaves it stopped.
  bool was_suspended() const;
  // ConfinementFlags; also when the process is gone.
  uint32_t confinement() const;
  uint32_t capabilities() const; // dune::session::Capability bits
  const dune::session::BackendInfo& backend() const;

  // --- Running and stopping -----------------------------------------------------------------
  Checked<void> resume(const ResumePlan&);
  // Blocks until something happens. `interrupt` (may be null) is polled after each wake-up and
  // signal; when it returns true a stop is requested and comes as kStopped/kRequested. So does a
  // signal that stops the target by its default action, if that is to be told (set_signal_policy).
  // `notice` (may be null) hears what happened on the way, before the event that came after it.
  Checked<Event> wait(const std::function<bool()>& interrupt = nullptr,
                      const std::function<void(const NoticeView&)>& notice = nullptr);
  // How long a stop may take before the target is given up: it says that it is about to stop, and
  // does not (its session is corrupted, or its agent is). One that another process has stopped is
  // waited for.
  void set_patience(std::chrono::milliseconds);
  // Stops a running target (all threads), without an event of its own. When something else came
  // first (a thread's own stop, the end), resume() lets nothing go and wait() returns that event.
  Checked<void> stop();

  // --- Threads ------------------------------------------------------------------------------
  // Refreshed at each stop; valid until the next resume.
  const std::vector<ThreadView>& threads();
  const ThreadView* thread(uint32_t number);                                // without its name
  Checked<void> write_register(uint32_t thread, dune::Reg, uint64_t value); // parked threads only
  // XSAVE image of a parked thread (x87, SSE, AVX ...), as the kernel lays it out.
  Checked<std::vector<uint8_t>> read_fpstate(uint32_t thread);

  // --- Memory -------------------------------------------------------------------------------
  // Bytes as the program has them: sites are hidden, on reading and on writing. Errors say the
  // first address that could not be accessed ("Cannot access memory at address 0x...").
  Checked<void> read_memory(TargetAddr, std::span<uint8_t>) const;
  Checked<void> write_memory(TargetAddr, std::span<const uint8_t>);

  // --- Records and sites ---------------------------------------------------------------------
  // May be called while the target runs. Each record belongs to one address. Errors: the
  // instruction cannot be displaced (and why), memory not mapped, a pool is full.
  Checked<RecordId> add_record(TargetAddr, const RecordSpec&);
  // One round through the keeper for many.
  Checked<std::vector<RecordId>> add_records(std::span<const std::pair<TargetAddr, RecordSpec>>);
  Checked<void> remove_record(RecordId);
  Checked<void> remove_records(std::span<const RecordId>);
  void enable_record(RecordId, bool on);
  void set_ignore_count(RecordId, uint64_t);
  void set_condition(RecordId, std::vector<uint8_t> code);
  RecordCounts counts(RecordId) const;
  std::optional<TargetAddr> record_address(RecordId) const;

  // Sites on `syscall` instructions, for the agent's own ends (design section 7): no record, and
  // not removed before the target is released. What cannot be displaced is skipped. The target is
  // stopped.
  struct SyscallSpot {
    TargetAddr address;
    TargetAddr before; // the instruction that may become a jump
    JumpKind jump = JumpKind::kNone;
  };
  Checked<void> add_syscall_sites(std::span<const SyscallSpot>);

  // Hardware watchpoint, through the keeper's perf events.
  Checked<RecordId> add_watch(TargetAddr, unsigned size, keeper::Client::Access, WatchWhen when,
                              const RecordSpec&);

  // How many there can be, of up to 8 bytes each; and whether this one is by page protection, as
  // those are that find no debug register.
  unsigned most_watches() const;
  bool is_watched_by_page(RecordId) const;

  // --- Signals ------------------------------------------------------------------------------
  void set_signal_policy(int signal, uint8_t policy); // dune::session::SignalPolicy bits

  // --- Leaving ------------------------------------------------------------------------------
  Checked<std::vector<std::string>> detach();
  Checked<void> kill();

  const dune::session::MemoryMap& memory_map() const;
  // Whether all system calls that the agent has to see have their sites: then it can do without us.
  void set_serving(bool);
  // True when `a` is the agent's or a displaced copy's: not the program's own code.
  bool is_ours(TargetAddr a) const;

private:
  struct Impl;
  explicit Inferior(std::unique_ptr<Impl>);
  std::unique_ptr<Impl> impl_;
};

} // namespace ddbg::engine
