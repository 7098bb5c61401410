// What a front end tells its user when the target has stopped, or is gone.
#pragma once

#include "dtrace-lite/engine/breakpoints.h"
#include "dtrace-lite/engine/frames.h"
#include "dtrace-lite/expr/value.h"

#include <string>
#include <sys/types.h>
#include <vector>

namespace ddbg::engine {

enum class StopWhy {
  kNone,        // nothing to say beyond where: attach
  kStarted,     // starti
  kBreakpoint,  // `breakpoints`
  kWatchpoint,  // `watches`
  kWatchScope,  // `watches`: the frame that they belong to was left, they are deleted
  kStepDone,    // step, next, stepi, nexti
  kFinished,    // finish: `returned`
  kReached,     // until, advance
  kSignal,      // `signal`
  kInterrupted, // Ctrl-C; gdb shows it as SIGINT
  kExited,      // `status`; the target is gone
  kLost,        // `text`; the target is gone, or runs on without us
};

struct WatchChange {
  unsigned number = 0;
  BreakpointType type = BreakpointType::kWatch;
  std::string expression;
  std::string old_value, new_value; // formatted; old is empty for a read
  bool changed = true;              // awatch: else "Value = "
};

struct ReturnedValue {
  std::string function;
  std::string type;
  std::string value;          // formatted
  std::vector<uint8_t> bytes; // as returned, when the value fits registers
  expr::Value history_value;  // for $1, $2 ...
};

struct StopReport {
  StopWhy why = StopWhy::kNone;
  pid_t pid = 0;                           // of the target, which may be gone
  uint32_t thread = 0;                     // number; already selected, with frame 0
  bool thread_switched = false;            // another one than before: "[Switching to Thread ...]"
  std::vector<unsigned> breakpoints;       // that stopped it, ascending, watchpoints included
  std::vector<unsigned> temporary_deleted; // of those; "Temporary breakpoint 1, ..."
  std::vector<std::string> commands;       // of those, in order
  std::vector<WatchChange> watches;
  int signal = 0;
  keeper::ExitStatus status;
  std::optional<ReturnedValue> returned;
  // Print only the source line: the same function instance as before the step. Else the whole
  // frame.
  bool source_line_only = false;
  bool at_line_start = true;         // else gdb puts the address before the source line
  std::string text;                  // kLost
  std::vector<std::string> messages; // what happened on the way, in gdb's words, a line each

  bool target_gone() const { return why == StopWhy::kExited || why == StopWhy::kLost; }
};

} // namespace ddbg::engine
