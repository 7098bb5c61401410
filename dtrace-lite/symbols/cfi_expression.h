// DWARF expressions as CFI uses them, evaluated over a frame's registers and the target's memory.
// Internal to symbols/.
#pragma once

#include "dtrace-lite/symbols/memory.h"
#include "dtrace-lite/symbols/unwind_cfi.h"

#include <elfutils/libdw.h>

namespace ddbg::symbols {

struct ExpressionResult {
  enum class Kind {
    kAddress,  // the value lies at this address
    kValue,    // this is the value (DW_OP_stack_value)
    kRegister, // the value is in the register of this DWARF number
  };
  Kind kind;
  uint64_t value;
};

// The register with a DWARF number, when it is one of ours and known.
std::optional<uint64_t> dwarf_register(const KnownRegisters& registers, uint64_t number);

// `cfa` serves DW_OP_call_frame_cfa. Nothing when a register or memory is missing, or the
// expression is damaged.
std::optional<ExpressionResult> evaluate_cfi(std::span<const Dwarf_Op> operations,
                                             const KnownRegisters& registers,
                                             const MemoryReader& read, std::optional<uint64_t> cfa);

} // namespace ddbg::symbols
