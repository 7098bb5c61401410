// What one event costs a program, measured on the program itself: it is run from main again and
// again, with nothing set, with the event's condition false, with a stop at each event. No
// printing, no statistics: `ddbg latency` does those, and runs the same event under ptrace.
#pragma once

#include "dtrace-lite/engine/inferior.h"

#include <functional>
#include <string>
#include <vector>

namespace ddbg::engine {

struct EventProgram {
  std::string path;                   // absolute
  std::vector<std::string> arguments; // without argv[0]
  std::vector<std::string> environment;
  // Each side on a CPU of its own, so that runs can be compared; -1: anywhere.
  int front_end_cpu = -1;
  int target_cpu = -1;
};

enum class EventKind { kBreakpoint, kWatch, kStep };

// The same in every run: addresses are not randomised.
struct EventPlace {
  EventKind kind = EventKind::kBreakpoint;
  TargetAddr start;       // measured from here: main, or the program's entry
  uint8_t start_byte = 0; // what is there
  TargetAddr address;     // of the instruction, or of the watched object
  uint8_t byte = 0;       // breakpoint: what is there
  unsigned size = 0;      // watch: bytes
  std::string description;
};

struct EventTimes {
  uint64_t hits = 0;
  double seconds = 0;         // from `start` to the program's end or the last event
  bool ended = false;         // the program has ended by itself
  std::vector<double> events; // nanoseconds from letting the program go to having the next event
};

class EventCost {
public:
  // `interrupted` is polled while the program runs; true ends the measurement with an error.
  EventCost(EventProgram program, std::function<bool()> interrupted)
      : program_(std::move(program)), interrupted_(std::move(interrupted)) {}

  // `what`: a breakpoint location, or an expression that is in memory for the program's whole life;
  // empty for steps.
  Checked<EventPlace> find(EventKind kind, const std::string& what);

  // Nothing is set: the program's own time.
  Checked<EventTimes> undisturbed(const EventPlace&);
  // The condition is always false: nothing stops, `hits` are evaluations.
  Checked<EventTimes> passed(const EventPlace&);
  // Every event stops all threads; the registers are there; everything runs on. At most `limit`.
  Checked<EventTimes> stopped(const EventPlace&, uint64_t limit);
  // `limit` instructions, `batch` of them for each word with the agent; `events` has one mean per
  // batch.
  Checked<EventTimes> stepped(const EventPlace&, uint64_t limit, uint64_t batch);

private:
  EventProgram program_;
  std::function<bool()> interrupted_;
};

} // namespace ddbg::engine
