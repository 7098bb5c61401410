// Inside disasm/ only: the full Zydis picture of an instruction.
#pragma once

#include "disasm/decode.h"

#include <Zydis/Zydis.h>

#include <algorithm>
#include <iterator>

namespace dune::disasm {

struct ZydisInstruction {
  ZydisDecodedInstruction info;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];

  std::span<const ZydisDecodedOperand> all_operands() const {
    return {operands, info.operand_count};
  }
  bool has_prefix(uint8_t value) const {
    auto first = std::begin(info.raw.prefixes), last = first + info.raw.prefix_count;
    return std::any_of(first, last, [=](const auto& prefix) { return prefix.value == value; });
  }
  // The fs or gs prefix that counts, the last one; 0 when there is none.
  uint8_t segment_prefix() const;
  bool rex_w() const {
    return info.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && info.raw.rex.W;
  }
  // The operand addressed relative to rip (or eip), if there is one.
  const ZydisDecodedOperand* rip_operand() const;
};

Result<ZydisInstruction> zydis_decode(std::span<const uint8_t> bytes);

// What decode() makes of it.
Instruction describe(const ZydisInstruction& z, TargetAddr address);

} // namespace dune::disasm
