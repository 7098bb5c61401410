// `latency`: options, the runs, the statistics. How a run under ddbg goes: engine/event_cost.h;
// under ptrace: baseline/tracer.h; what is printed: latency_report.cpp.
#include "dtrace-lite/baseline/tracer.h"
#include "dtrace-lite/ddbg/commands.h"
#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/latency.h"
#include "dtrace-lite/ddbg/text.h"
#include "dtrace-lite/engine/shell_words.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

namespace ddbg::ui {

using engine::EventKind;
using engine::EventPlace;
using engine::EventTimes;
using Clock = std::chrono::steady_clock;

namespace {

constexpr std::string_view kUsage =
    "Usage: latency [-n EVENTS] [--against ptrace|none] [--json] [--svg FILE]\n"
    "               -b LOCATION | -w EXPRESSION | --step  [--] [PROGRAM [ARGUMENTS]]";
constexpr uint64_t kMostEvents = 10'000'000;
constexpr uint64_t kStepBatch = 100;

Diagnostic usage_error(std::string message) {
  return {std::move(message), std::string(kUsage), {}};
}

std::string first_line_of(const char* path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);)
    if (line.compare(0, key.size(), key) == 0)
      return line.substr(key.size());
  return {};
}

std::string machine_text() {
  std::string model = first_line_of("/proc/cpuinfo", "model name");
  model.erase(0,
              model.find_first_not_of("\t :") == model.npos ? 0 : model.find_first_not_of("\t :"));
  utsname name{};
  uname(&name);
  const bool virtual_machine =
      first_line_of("/proc/cpuinfo", "flags").find(" hypervisor") != std::string::npos;
  return fmt::format("{} x {}{}, Linux {}", sysconf(_SC_NPROCESSORS_ONLN), model,
                     virtual_machine ? " (virtual machine)" : "", name.release);
}

std::string load_text() { return "load average " + first_line_of("/proc/loadavg", ""); }

// Two of the CPUs that we may use: one for the tracer, one for the program. -1 with fewer.
std::pair<int, int> two_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0)
    return {-1, -1};
  std::vector<int> usable;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set))
      usable.push_back(cpu);
  return usable.size() < 2 ? std::pair{-1, -1} : std::pair{usable[0], usable[1]};
}

double at_fraction(const std::vector<double>& sorted, double fraction) {
  const double last = static_cast<double>(sorted.size() - 1);
  return sorted[static_cast<size_t>(std::lround(last * fraction))];
}

// `own`: the program's own time between two events, in nanoseconds; `alone`: of the whole run,
// seconds.
LatencyRow make_row(std::string tracer, std::string way, EventTimes times, double own,
                    double alone) {
  LatencyRow row;
  row.tracer = std::move(tracer);
  row.way = std::move(way);
  row.hits = times.hits;
  row.ended = times.ended;
  if (!times.events.empty()) {
    std::sort(times.events.begin(), times.events.end());
    row.median = std::max(0.0, at_fraction(times.events, 0.5) - own);
    row.p99 = std::max(0.0, at_fraction(times.events, 0.99) - own);
    const double sum = std::accumulate(times.events.begin(), times.events.end(), 0.0);
    row.mean = std::max(0.0, sum / static_cast<double>(times.events.size()) - own);
  } else if (times.hits != 0) {
    row.mean = std::max(0.0, times.seconds - alone) * 1e9 / static_cast<double>(times.hits);
  }
  return row;
}

class CpuOfThread {
public:
  explicit CpuOfThread(int cpu) {
    sched_getaffinity(0, sizeof before_, &before_);
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (cpu >= 0)
      sched_setaffinity(0, sizeof set, &set);
  }
  ~CpuOfThread() { sched_setaffinity(0, sizeof before_, &before_); }
  CpuOfThread(const CpuOfThread&) = delete;
  CpuOfThread& operator=(const CpuOfThread&) = delete;

private:
  cpu_set_t before_;
};

Checked<EventTimes> run_under_ptrace(const baseline::Program& program, const EventPlace& place,
                                     uint64_t limit, const std::function<bool()>& interrupted) {
  auto launched = baseline::Tracer::launch(program);
  if (!launched)
    return launched.error();
  baseline::Tracer& tracer = **launched;
  if (auto ok = tracer.set_breakpoint(place.start, place.start_byte); !ok)
    return ok.error();
  auto there = tracer.run_to_hit();
  if (!there)
    return there.error();
  if (!*there)
    return Diagnostic{"Under ptrace the program ended before it reached main.", {}, {}};
  if (auto ok = tracer.remove_breakpoint(); !ok)
    return ok.error();
  Checked<void> set;
  if (place.kind == EventKind::kBreakpoint)
    set = tracer.set_breakpoint(place.address, place.byte);
  else if (place.kind == EventKind::kWatch)
    set = tracer.set_watch(place.address, place.size);
  if (!set)
    return set.error();
  EventTimes times;
  times.events.reserve(limit);
  const auto begin = Clock::now();
  while (times.hits < limit) {
    const auto before = Clock::now();
    auto more = place.kind == EventKind::kStep ? tracer.step() : tracer.run_to_hit();
    const auto now = Clock::now();
    if (!more)
      return more.error();
    if (interrupted())
      return Diagnostic{"Interrupted.", {}, {}};
    if (!*more) {
      times.ended = true;
      break;
    }
    // The first one is the way from main, not from an event.
    if (times.hits++ != 0 || place.kind == EventKind::kStep)
      times.events.push_back(std::chrono::duration<double, std::nano>(now - before).count());
  }
  times.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  return times;
}

std::vector<std::string> our_environment() {
  std::vector<std::string> all;
  for (char** variable = environ; *variable; ++variable)
    all.emplace_back(*variable);
  return all;
}

Checked<uint64_t> parse_events(const std::string& text) {
  auto number = parse_integer(text);
  if (!number)
    return number.error();
  if (*number < 2 || static_cast<uint64_t>(*number) > kMostEvents)
    return Diagnostic{fmt::format("-n takes 2 to {} events.", kMostEvents), {}, {}};
  return static_cast<uint64_t>(*number);
}

} // namespace

Checked<LatencyRequest> parse_latency(std::span<const std::string> words, bool have_program) {
  LatencyRequest request;
  bool have_event = false;
  size_t i = 0;
  for (; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word == "--") {
      ++i;
      break;
    }
    if (word.empty() || word[0] != '-')
      break;
    if (word == "--json") {
      request.json = true;
      continue;
    }
    if (word == "--step") {
      if (have_event)
        return usage_error("One of -b, -w and --step at a time.");
      have_event = true;
      request.kind = EventKind::kStep;
      continue;
    }
    const bool is_event = word == "-b" || word == "-w";
    if (!is_event && word != "-n" && word != "--against" && word != "--svg")
      return usage_error("latency has no option " + word + ".");
    if (i + 1 == words.size())
      return usage_error(word + " needs a value.");
    const std::string& value = words[++i];
    if (is_event) {
      if (have_event)
        return usage_error("One of -b, -w and --step at a time.");
      have_event = true;
      request.kind = word == "-b" ? EventKind::kBreakpoint : EventKind::kWatch;
      request.what = value;
    } else if (word == "-n") {
      auto events = parse_events(value);
      if (!events)
        return events.error();
      request.events = *events;
    } else if (word == "--svg") {
      request.svg_file = value;
    } else if (value == "ptrace" || value == "none") {
      request.against_ptrace = value == "ptrace";
    } else {
      return usage_error("--against takes ptrace or none.");
    }
  }
  if (!have_event)
    return usage_error("What event? Give -b LOCATION, -w EXPRESSION or --step.");
  if (i < words.size()) {
    request.program = engine::find_program(expand_tilde(words[i]));
    request.arguments.assign(words.begin() + static_cast<ptrdiff_t>(i) + 1, words.end());
  } else if (!have_program) {
    return usage_error("Which program?");
  }
  return request;
}

Checked<LatencyReport> measure_latency(const LatencyRequest& request,
                                       const std::function<bool()>& interrupted) {
  const auto [tracer_cpu, target_cpu] = two_cpus();
  engine::EventCost cost(
      {request.program, request.arguments, our_environment(), tracer_cpu, target_cpu}, interrupted);
  auto place = cost.find(request.kind, request.what);
  if (!place)
    return place.error();
  LatencyReport report;
  report.program = request.program;
  report.event = place->description;
  report.machine = machine_text();
  report.load = load_text();

  if (request.kind == EventKind::kStep) {
    auto inside = cost.stepped(*place, request.events, kStepBatch);
    if (!inside)
      return inside.error();
    report.rows.push_back(make_row("ddbg", "in the agent", std::move(*inside), 0, 0));
    auto each = cost.stepped(*place, request.events, 1);
    if (!each)
      return each.error();
    report.rows.push_back(make_row("ddbg", "stop and resume", std::move(*each), 0, 0));
  } else {
    auto alone = cost.undisturbed(*place);
    if (!alone)
      return alone.error();
    auto passed = cost.passed(*place);
    if (!passed)
      return passed.error();
    if (passed->hits == 0)
      return Diagnostic{"The program runs to its end without the event.", {}, {}};
    report.own_nanoseconds = alone->seconds * 1e9 / static_cast<double>(passed->hits);
    report.rows.push_back(
        make_row("ddbg", "condition false", std::move(*passed), 0, alone->seconds));
    auto stopped = cost.stopped(*place, request.events);
    if (!stopped)
      return stopped.error();
    report.rows.push_back(make_row("ddbg", "stop and resume", std::move(*stopped),
                                   report.own_nanoseconds, alone->seconds));
  }

  if (request.against_ptrace) {
    baseline::Program program;
    program.path = request.program;
    program.arguments = request.arguments;
    program.arguments.insert(program.arguments.begin(), request.program);
    program.environment = our_environment();
    program.discards = true;
    const bool two = tracer_cpu >= 0;
    for (const bool same_core : {true, false}) {
      if (!same_core && !two)
        continue;
      program.cpu = target_cpu;
      CpuOfThread pinned(same_core ? target_cpu : tracer_cpu);
      auto times = run_under_ptrace(program, *place, request.events, interrupted);
      if (!times)
        return times.error();
      report.rows.push_back(make_row(!two        ? "ptrace"
                                     : same_core ? "ptrace, same core"
                                                 : "ptrace, other core",
                                     "stop and resume", std::move(*times), report.own_nanoseconds,
                                     0));
    }
    double best = 0;
    for (const LatencyRow& row : report.rows)
      if (row.tracer.compare(0, 6, "ptrace") == 0 && row.median &&
          (best == 0 || *row.median < best))
        best = *row.median;
    for (LatencyRow& row : report.rows)
      if (const double value = row.median.value_or(row.mean); value > 0)
        row.ratio = best / value;
  }
  return report;
}

namespace {

Checked<void> run_latency(const LatencyRequest& request, Output& out,
                          const std::function<bool()>& interrupted) {
  auto report = measure_latency(request, interrupted);
  if (!report)
    return report.error();
  out.write(request.json ? latency_json(*report) : latency_text(*report));
  if (!request.svg_file.empty()) {
    std::ofstream file(expand_tilde(request.svg_file));
    file << latency_svg(*report);
    if (!file.flush())
      return Diagnostic{request.svg_file + ": cannot be written.", {}, {}};
  }
  return {};
}

} // namespace

int latency_main(std::span<const std::string> words) {
  Output out;
  const bool help = words.size() == 1 && (words[0] == "--help" || words[0] == "-h");
  if (help) {
    out.write(std::string(kUsage) + "\n");
    return 0;
  }
  Checked<void> done;
  if (auto request = parse_latency(words, false); !request)
    done = request.error();
  else
    done = run_latency(*request, out, [] { return signals::take_interrupt(); });
  out.flush();
  if (done)
    return 0;
  out.error_line("ddbg latency: " + done.error().message);
  if (!done.error().hint.empty())
    out.error_line(done.error().hint);
  return 1;
}

namespace cmd {

Checked<void> latency(Context& context, std::string_view args) {
  if (context.debugger.alive())
    return Diagnostic{
        "The program is being run; latency runs it anew.", "Kill it or detach from it first.", {}};
  const std::vector<std::string> words = engine::split_words(args);
  auto request = parse_latency(words, !context.debugger.program().empty());
  if (!request)
    return request.error();
  if (request->program.empty()) {
    request->program = context.debugger.program();
    request->arguments = engine::split_words(context.settings.text(Setting::kArgs));
  }
  return run_latency(*request, context.out, [] { return signals::take_interrupt(); });
}

} // namespace cmd

} // namespace ddbg::ui
