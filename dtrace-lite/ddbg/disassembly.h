// Instructions of the target, one at a time.
#pragma once

#include "dtrace-lite/symbols/diagnostic.h"
#include "libdune/base/types.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace ddbg::ui {

class Context;
struct ExamineCursor;

struct Instruction {
  dune::TargetAddr address;
  std::vector<uint8_t> bytes;
  std::string text;
};
Checked<Instruction> instruction_at(Context&, dune::TargetAddr);

// Of the selected frame; nullopt: none.
std::optional<dune::TargetAddr> current_pc(Context&);

// What the cursor says, printed; the cursor moves on.
Checked<void> examine_memory(Context&, ExamineCursor&);

} // namespace ddbg::ui
