#include "dtrace-lite/engine/event_cost.h"

#include "dtrace-lite/engine/debugger.h"
#include "dtrace-lite/engine/modules.h"

#include <algorithm>
#include <chrono>
#include <fmt/format.h>
#include <sched.h>

namespace ddbg::engine {

using dune::session::Action;
using dune::session::kSignalPass;
using dune::session::kSignals;
using Clock = std::chrono::steady_clock;

namespace {

double nanoseconds(Clock::duration d) {
  return std::chrono::duration<double, std::nano>(d).count();
}

void run_on(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof set, &set);
}

// This thread's CPUs while a measurement lasts.
class Affinity {
public:
  Affinity() { sched_getaffinity(0, sizeof before_, &before_); }
  ~Affinity() { sched_setaffinity(0, sizeof before_, &before_); }
  Affinity(const Affinity&) = delete;
  Affinity& operator=(const Affinity&) = delete;

private:
  cpu_set_t before_;
};

std::string shell_word(const std::string& word) {
  std::string quoted = "'";
  for (const char c : word)
    quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string shell_command(const EventProgram& program) {
  std::string command = shell_word(program.path);
  for (const std::string& argument : program.arguments)
    command += " " + shell_word(argument);
  return command;
}

// xor %eax, %eax; ret: the cheapest condition there is, and it is false.
const std::vector<uint8_t> kFalse = {0x31, 0xc0, 0xc3};

// One run of the program, from birth to the place where measuring begins.
class Run {
public:
  explicit Run(const std::function<bool()>& interrupted) : interrupted_(interrupted) {}

  Checked<void> start(const EventProgram& program, TargetAddr begin) {
    if (program.target_cpu >= 0)
      run_on(program.target_cpu); // keeper and target inherit it
    auto client = keeper::Client::start();
    if (!client)
      return client.error();
    client_ = std::move(*client);
    keeper::LaunchOptions options;
    options.program = program.path;
    options.shell_command = shell_command(program) + " </dev/null >/dev/null";
    options.environment = program.environment;
    options.own_terminal_group = false; // nothing is typed to it
    auto born = Inferior::launch(*client_, options);
    if (!born)
      return born.error();
    inferior_ = std::move(*born);
    if (program.front_end_cpu >= 0)
      run_on(program.front_end_cpu);
    for (int signal = 1; signal < static_cast<int>(kSignals); ++signal)
      inferior_->set_signal_policy(signal, kSignalPass);
    if (auto known = modules_.start(*inferior_, program.path); !known)
      return known.error();
    RecordSpec spec;
    spec.internal = true;
    auto record = inferior_->add_record(begin, spec);
    if (!record)
      return record.error();
    auto event = next({});
    if (!event)
      return event.error();
    if (event->kind != Event::Kind::kStopped)
      return Diagnostic{"The program ended before it reached main.", {}, {}};
    thread_ = event->thread;
    return inferior_->remove_record(*record);
  }

  // To the next event that is not the dynamic linker's.
  Checked<Event> next(ResumePlan plan) {
    linked_ = false;
    for (;;) {
      if (auto ok = inferior_->resume(plan); !ok)
        return ok.error();
      auto event = inferior_->wait(interrupted_);
      if (!event)
        return event;
      if (event->kind == Event::Kind::kLost)
        return Diagnostic{event->text, {}, {}};
      if (event->kind == Event::Kind::kExeced)
        return Diagnostic{"The program has executed another one.", {}, {}};
      if (event->kind == Event::Kind::kExited)
        return event;
      if (event->reason == dune::session::StopReason::kRequested)
        return Diagnostic{"Interrupted.", {}, {}};
      if (event->fired.size() != 1 || !modules_.is_linker_record(event->fired.front()))
        return event;
      linked_ = true;
      if (auto ok = modules_.refresh(*inferior_); !ok)
        return ok.error();
      plan = {};
    }
  }

  Checked<RecordId> set(const EventPlace& place, const RecordSpec& spec) {
    if (place.kind == EventKind::kWatch)
      return inferior_->add_watch(place.address, place.size, keeper::Client::Access::kWrite,
                                  WatchWhen::kAccessed, spec);
    return inferior_->add_record(place.address, spec);
  }

  Inferior& inferior() { return *inferior_; }
  uint32_t thread() const { return thread_; }
  bool linked() const { return linked_; } // next() dealt with the dynamic linker meanwhile

private:
  const std::function<bool()>& interrupted_;
  std::unique_ptr<keeper::Client> client_; // outlives the inferior; its end is the target's
  std::unique_ptr<Inferior> inferior_;
  Modules modules_;
  uint32_t thread_ = 0;
  bool linked_ = false;
};

Checked<EventTimes> run_to_end(Run& run, std::optional<RecordId> record) {
  EventTimes times;
  const auto begin = Clock::now();
  auto event = run.next({});
  if (!event)
    return event.error();
  if (event->kind != Event::Kind::kExited)
    return Diagnostic{"The program stopped where nothing was set.", {}, {}};
  times.seconds = nanoseconds(Clock::now() - begin) / 1e9;
  times.ended = true;
  if (record)
    times.hits = run.inferior().counts(*record).evaluations;
  return times;
}

} // namespace

Checked<EventPlace> EventCost::find(EventKind kind, const std::string& what) {
  EventPlace place;
  place.kind = kind;
  Debugger debugger;
  debugger.set_interrupt(interrupted_);
  std::vector<std::string> messages;
  debugger.set_message_sink([](const std::string&) {});
  debugger.settings().args.clear();
  for (const std::string& argument : program_.arguments)
    debugger.settings().args += shell_word(argument) + " ";
  debugger.settings().args += "</dev/null >/dev/null";
  debugger.settings().own_terminal_group = false;
  if (auto ok = debugger.set_program(program_.path); !ok)
    return ok.error();
  AddBreakpoint at_main;
  at_main.arguments = "main";
  at_main.disposition = Disposition::kDelete;
  if (auto ok = debugger.add_breakpoint(at_main); !ok)
    return Diagnostic{ok.error().message, "Measuring begins at main; this program has none.", {}};
  auto stop = debugger.run(RunMode::kRun);
  if (!stop)
    return stop.error();
  if (stop->target_gone())
    return Diagnostic{"The program ended before it reached main.", {}, {}};
  auto registers = debugger.registers(nullptr);
  if (!registers)
    return registers.error();
  place.start = TargetAddr(registers->rip);
  if (auto ok = debugger.read_memory(place.start, {&place.start_byte, 1}); !ok)
    return ok.error();

  switch (kind) {
  case EventKind::kBreakpoint: {
    const Linespec found = debugger.resolve(what);
    if (found.places.empty())
      return found.problem;
    const ResolvedPlace& first = found.places.front();
    place.address = first.address;
    place.description = fmt::format("{} ({:#x})", what, first.address.value);
    if (auto ok = debugger.read_memory(place.address, {&place.byte, 1}); !ok)
      return ok.error();
    break;
  }
  case EventKind::kWatch: {
    AddWatchpoint watch;
    watch.arguments = what;
    auto number = debugger.add_watchpoint(watch);
    if (!number)
      return number.error();
    const Breakpoint* b = debugger.breakpoint(*number);
    if (!b || b->watch_scope_return)
      return Diagnostic{what + " does not live as long as the program.",
                        "Measure with a global or static object, or an address.",
                        {}};
    place.address = b->watch_address;
    place.size = b->watch_size;
    place.description =
        fmt::format("writes to {} ({} bytes at {:#x})", what, place.size, place.address.value);
    break;
  }
  case EventKind::kStep:
    place.description = "one instruction";
    break;
  }
  if (auto ok = debugger.kill(); !ok)
    return ok.error();
  return place;
}

Checked<EventTimes> EventCost::undisturbed(const EventPlace& place) {
  Affinity restored;
  Run run(interrupted_);
  if (auto ok = run.start(program_, place.start); !ok)
    return ok.error();
  return run_to_end(run, std::nullopt);
}

Checked<EventTimes> EventCost::passed(const EventPlace& place) {
  Affinity restored;
  Run run(interrupted_);
  if (auto ok = run.start(program_, place.start); !ok)
    return ok.error();
  RecordSpec spec;
  spec.condition = kFalse;
  auto record = run.set(place, spec);
  if (!record)
    return record.error();
  return run_to_end(run, *record);
}

Checked<EventTimes> EventCost::stopped(const EventPlace& place, uint64_t limit) {
  Affinity restored;
  Run run(interrupted_);
  if (auto ok = run.start(program_, place.start); !ok)
    return ok.error();
  auto record = run.set(place, {});
  if (!record)
    return record.error();
  EventTimes times;
  times.events.reserve(limit);
  const auto begin = Clock::now();
  auto before = begin;
  while (times.hits < limit) {
    auto event = run.next({});
    const auto now = Clock::now();
    if (!event)
      return event.error();
    if (event->kind == Event::Kind::kExited) {
      times.ended = true;
      break;
    }
    // The first one is the way from the start, not from an event.
    if (times.hits++ != 0 && !run.linked())
      times.events.push_back(nanoseconds(now - before));
    before = Clock::now();
  }
  times.seconds = nanoseconds(Clock::now() - begin) / 1e9;
  if (!times.ended)
    (void)run.inferior().kill();
  return times;
}

Checked<EventTimes> EventCost::stepped(const EventPlace& place, uint64_t limit, uint64_t batch) {
  Affinity restored;
  Run run(interrupted_);
  if (auto ok = run.start(program_, place.start); !ok)
    return ok.error();
  EventTimes times;
  const auto begin = Clock::now();
  while (times.hits < limit) {
    ResumePlan plan;
    plan.thread = run.thread();
    plan.action = Action::kStep;
    plan.step_count = std::min(batch, limit - times.hits);
    const auto before = Clock::now();
    auto event = run.next(plan);
    if (!event)
      return event.error();
    if (event->kind == Event::Kind::kExited) {
      times.ended = true;
      break;
    }
    times.events.push_back(nanoseconds(Clock::now() - before) /
                           static_cast<double>(plan.step_count));
    times.hits += plan.step_count;
  }
  times.seconds = nanoseconds(Clock::now() - begin) / 1e9;
  if (!times.ended)
    (void)run.inferior().kill();
  return times;
}

} // namespace ddbg::engine
