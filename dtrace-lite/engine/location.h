// Where a program counter is, in a person's words: module, function, line.
#pragma once

#include "dtrace-lite/symbols/module_map.h"

#include <optional>
#include <string>

namespace ddbg::engine {

using dune::TargetAddr;
using dune::TargetRange;

// The modules of a live target, or the program alone at its link addresses.
using ModuleSpan = std::span<const symbols::LoadedModule>;
const symbols::LoadedModule* find_module(ModuleSpan modules, TargetAddr a);

struct SourceLine {
  const symbols::SourceFile* file = nullptr; // owned by the module
  unsigned line = 0;
  explicit operator bool() const { return file != nullptr && line != 0; }
  bool operator==(const SourceLine&) const = default;
};

// The innermost thing at a program counter; inlining is the matter of frames.h.
struct CodeLocation {
  TargetAddr pc;
  std::string module; // path as the target sees it; empty: in no module
  std::string function;
  uint64_t offset = 0; // pc - the function's entry
  SourceLine source;
  bool at_line_start = false; // else gdb shows the address before "in function ()"
};

CodeLocation locate(ModuleSpan modules, TargetAddr pc);

} // namespace ddbg::engine
