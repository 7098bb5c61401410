// What a user calls breakpoints and watchpoints: numbers, places, conditions, counts. Knows how
// they become records of the session and how a record becomes a number again; stops nobody itself.
#pragma once

#include "dtrace-lite/engine/inferior.h"
#include "dtrace-lite/engine/linespec.h"

#include <memory>
#include <string>
#include <vector>

namespace ddbg::engine {

enum class BreakpointType { kBreakpoint, kWatch, kReadWatch, kAccessWatch };
const char* type_name(BreakpointType); // "breakpoint", "hw watchpoint", "read watchpoint", ...

// What happens to it when it stops the target.
enum class Disposition { kKeep, kDelete, kDisable };

enum class ConditionPlace {
  kNone,     // no condition
  kInTarget, // compiled to native code, evaluated by the agent
  kInDdbg,   // not compilable (BreakpointLocation::why_not_compiled): the target stops, ddbg
             // evaluates and resumes
};

struct BreakpointCounts {
  uint64_t hits = 0;
  uint64_t evaluations = 0;
  uint64_t faults = 0; // the condition could not be evaluated; counted as true
};

struct BreakpointLocation {
  unsigned number = 1; // the 2 of "1.2"
  ResolvedPlace place;
  bool enabled = true;
  ConditionPlace condition_place = ConditionPlace::kNone;
  std::string why_not_compiled;   // a sentence
  std::string problem;            // why it is not set though enabled: "Cannot access memory ..."
  std::optional<RecordId> record; // while it is set in the target
  BreakpointCounts counted;       // of records that are gone
};

struct Breakpoint {
  unsigned number = 0;
  BreakpointType type = BreakpointType::kBreakpoint;
  Disposition disposition = Disposition::kKeep;
  bool enabled = true;
  std::string spec;      // as typed: location, or the watched expression
  std::string condition; // source text; empty: none
  uint64_t ignore_count = 0;
  std::optional<unsigned> thread; // number
  std::vector<std::string> commands;
  bool pending = false;    // no place yet; resolved when a module brings one
  bool is_address = false; // `*$pc`, or where the user was: not resolved again
  std::vector<BreakpointLocation> locations;

  // Watchpoints.
  TargetAddr watch_address;
  unsigned watch_size = 0;
  std::string watch_type;        // of the value, for display
  std::string watch_value;       // last seen, formatted
  TargetAddr watch_scope_cfa;    // of the frame whose return ends it; 0: it lives on
  TargetAddr watch_scope_return; // where that frame returns to
  bool watch_location = false;   // `watch -l`: the address, whatever the expression means later
  std::optional<RecordId> scope_record;

  bool is_watch() const { return type != BreakpointType::kBreakpoint; }
  std::string watched() const { return (watch_location ? "-location " : "") + spec; } // as shown
};

// For `info breakpoints`; a copy, so that counts read live do not depend on later changes.
struct BreakpointInfo {
  Breakpoint breakpoint;
  BreakpointCounts total;
  uint64_t ignore_left = 0;
  std::vector<BreakpointCounts> per_location;
  ConditionPlace condition_place = ConditionPlace::kNone; // of all locations; kInDdbg if one is
  bool by_page = false; // a watchpoint, or a part of it, is by page protection
};

struct AddBreakpoint {
  std::string arguments; // what follows `break`: LOCATION [thread N] [if CONDITION]
  Disposition disposition = Disposition::kKeep;
  bool allow_pending = false; // `set breakpoint pending on`, or the user said yes
};

struct AddWatchpoint {
  std::string arguments; // [-l|-location] EXPRESSION [thread N] [if CONDITION]
  BreakpointType type = BreakpointType::kWatch;
};

} // namespace ddbg::engine
