// step, next, finish and their kin: decides after each halt of the stepping thread whether the
// command is done, and if not, how to go on. The rules are gdb's (stop where a new line begins,
// step into functions with line information past their prologue, over the others); the single steps
// themselves are the agent's.
#pragma once

#include "dtrace-lite/engine/frames.h"
#include "dtrace-lite/engine/modules.h"

#include <string>

namespace ddbg::engine {

enum class StepKind {
  kStep,    // into functions with line information
  kNext,    // over calls
  kStepi,   // `count` instructions
  kNexti,   // over calls
  kFinish,  // until `frame` returns
  kUntil,   // as next, but never backwards (without a location)
  kAdvance, // run to `places`, or until the frame returns; `until LOCATION` too
};

struct StepRequest {
  StepKind kind = StepKind::kStep;
  uint64_t count = 1;
  unsigned frame = 0;             // kFinish: the frame to leave
  std::vector<TargetAddr> places; // kAdvance
};

// What the stepping thread is to do next.
struct StepDecision {
  bool done = false;
  ResumePlan plan;
};

} // namespace ddbg::engine
