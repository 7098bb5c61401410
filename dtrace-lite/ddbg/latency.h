// `ddbg latency`: what one kind of event costs the user's own program, here and under ptrace.
#pragma once

#include "dtrace-lite/engine/event_cost.h"

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace ddbg::ui {

struct LatencyRequest {
  engine::EventKind kind = engine::EventKind::kBreakpoint;
  std::string what; // location or expression
  uint64_t events = 1000;
  bool against_ptrace = true;
  bool json = false;
  std::string svg_file; // empty: none
  std::string program;
  std::vector<std::string> arguments;
};
// The arguments after "latency". `have_program`: it may be left out.
Checked<LatencyRequest> parse_latency(std::span<const std::string> words, bool have_program);

// One way to have the event happen. Times are nanoseconds.
struct LatencyRow {
  std::string tracer; // "ddbg", "ptrace, same core"
  std::string way;    // "stop and resume", "condition false", "in the agent"
  uint64_t hits = 0;
  // Of single events, less the program's own time between two of them; empty: events of this way
  // cannot be told apart.
  std::optional<double> median, p99;
  double mean = 0;    // per event, from the time of the whole run
  bool ended = false; // the program ran to its end; else `events` were enough
  double ratio = 0;   // the fastest stop under ptrace, divided by this; 0: there is none
};

struct LatencyReport {
  std::string program, event, machine, load;
  double own_nanoseconds = 0; // between two events, of the program alone
  std::vector<LatencyRow> rows;
};

Checked<LatencyReport> measure_latency(const LatencyRequest&,
                                       const std::function<bool()>& interrupted);

std::string latency_text(const LatencyReport&);
std::string latency_json(const LatencyReport&);
std::string latency_svg(const LatencyReport&);

// `ddbg latency ...` from a shell. Returns the exit status.
int latency_main(std::span<const std::string> words);

} // namespace ddbg::ui
