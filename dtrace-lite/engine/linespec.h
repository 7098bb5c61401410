// What a person types after `break`, `list`, `until`: resolved to places in every module.
//   function  ns::f  f(int)  file.c:12  file.c:function  12  +3  -2  *ADDRESS-EXPRESSION
//   with  if CONDITION, thread N, -qualified, -force-condition  around it
#pragma once

#include "dtrace-lite/engine/location.h"

#include <functional>

namespace ddbg::engine {

struct ResolvedPlace {
  TargetAddr address; // link address when nothing runs
  std::string module; // path; empty for *ADDRESS
  SourceLine source;
  std::string function;
  bool operator==(const ResolvedPlace&) const = default;
};

// A breakpoint command's argument taken apart; nothing is looked up.
struct BreakArguments {
  std::string location; // trimmed; empty: where the selected frame is
  std::string condition;
  std::optional<unsigned> thread;
  bool force_condition = false;
};
Checked<BreakArguments> parse_break_arguments(std::string_view text);
// A line, an address, or where the user is: no name of a function in it.
bool is_position(std::string_view location);

// What relative locations are relative to, and how *EXPR is evaluated.
struct LinespecContext {
  // Of the last stop or list; may be empty. Asked only by what is relative to it: before a first
  // stop it is where main is, which has to be looked up.
  std::function<SourceLine()> default_line;
  std::optional<TargetAddr> default_pc;
  std::function<Checked<uint64_t>(std::string_view expression)> evaluate;
};

struct Linespec {
  std::vector<ResolvedPlace> places;
  // Set when `places` is empty only because no module has such a name (yet): a breakpoint may stay
  // pending.
  bool may_come_later = false;
  Diagnostic problem; // why `places` is empty: "Function \"f\" not defined."
};

// Breakpoint addresses: functions past their prologue.
Linespec resolve_linespec(ModuleSpan modules, const LinespecContext& context,
                          std::string_view text);

} // namespace ddbg::engine
