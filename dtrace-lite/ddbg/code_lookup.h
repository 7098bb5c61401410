// Small questions about code and lines that several commands ask.
#pragma once

#include "dtrace-lite/engine/debugger.h"

namespace ddbg::ui {

class Context;

// "main+4"; empty: unknown. "main" for offset 0.
std::string symbol_at(Context&, dune::TargetAddr);
// "<main+4>" with the brackets, or empty.
std::string bracketed(Context&, dune::TargetAddr);

struct FunctionRange {
  std::string name;
  std::vector<dune::TargetRange> ranges; // the first holds the entry
  const engine::SourceLine declared;
};
std::optional<FunctionRange> function_at(Context&, dune::TargetAddr pc);

// What is at `from`, from the target or, while nothing runs, from the program's file; as many bytes
// as are there, at most `size`. Error: not even one.
Checked<std::vector<uint8_t>> read_some(Context&, dune::TargetAddr from, size_t size);

// Where a function of this name begins; nullopt: there is none.
struct FunctionEntry {
  const symbols::LoadedModule* module;
  dune::LinkAddr entry;
  engine::SourceLine source; // of its first line; empty: not known
};
std::optional<FunctionEntry> find_function(Context&, std::string_view name);

// A source place for `list` and `info line`: no code needs to be there.
Checked<engine::SourceLine> resolve_source(Context&, std::string_view text);

} // namespace ddbg::ui
