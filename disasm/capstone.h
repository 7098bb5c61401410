// Inside disasm/ only: the second decoder. It prints, and is asked for a second opinion on lengths.
#pragma once

#include "disasm/print.h"

#include <optional>

namespace dune::disasm {

struct CapstoneText {
  uint8_t length;
  const char* name; // of the instruction, without suffix and prefix, nearly always Zydis's name
  std::string mnemonic;
  std::string operands;
};

// Length as Capstone reads it; 0 when it does not know the instruction, which says nothing: 4.0.2
// is older than many instructions that libc uses.
uint8_t capstone_length(std::span<const uint8_t> bytes, TargetAddr address);

std::optional<CapstoneText> capstone_print(std::span<const uint8_t> bytes, TargetAddr address,
                                           Syntax syntax);

} // namespace dune::disasm
