// One instruction as text, in gdb's manner: `call   0x401136 <foo>`, `mov    0x2ee2(%rip),%rax`.
// Capstone prints; where it does not know the instruction, or reads it as another than Zydis,
// the text is Zydis's.
#pragma once

#include "libdune/base/result.h"
#include "libdune/base/types.h"

#include <functional>
#include <span>
#include <string>

namespace dune::disasm {

enum class Syntax : uint8_t { kAtt, kIntel };

// "foo+4" for an address inside foo, empty when nothing is known of it.
using Symbolizer = std::function<std::string(TargetAddr)>;

struct Printed {
  std::string text;
  uint8_t length = 0;
};

// Bytes that are no instruction print as "(bad)" of length 1. `bytes` must not be empty.
Printed print(std::span<const uint8_t> bytes, TargetAddr address, Syntax syntax = Syntax::kAtt,
              const Symbolizer& symbolizer = {});

} // namespace dune::disasm
