// Inside disasm/ only: new encodings of decoded instructions, byte by byte.
#pragma once

#include "disasm/relocate_internal.h"
#include "disasm/zydis_decoder.h"

namespace dune::disasm {

inline constexpr uint8_t kRspNumber = 4;
inline constexpr uint8_t kNoRegister = 0xff;

// A register among the first eight that the instruction neither uses nor changes, rsp and rbp apart
// (as bases they need other encodings). kNoRegister when there is none.
uint8_t unused_register(const ZydisInstruction& z, uint8_t other_than = kNoRegister);

// Does it name rsp (or a part of it) as a register in its encoding, or use it implicitly?
bool uses_rsp(const ZydisInstruction& z);

// Writes into p.rewritten: the same instruction, its rip-relative operand addressed by p.scratch
// instead, and where `replace_rsp` its rsp operands replaced by p.second. False when that is not
// possible; what is written has been decoded again and compared.
bool rewrite_operand(const ZydisInstruction& z, PlannedInstruction& p, bool replace_rsp);

// Writes into p.rewritten the push of the memory operand that the call in p reads, for a stack
// pointer that has gone down by `rsp_moved`. False: displacement out of range.
bool rewrite_call_as_push(const ZydisInstruction& z, PlannedInstruction& p, int rsp_moved);

// Writes into p.rewritten `jmp *reg` for `call *reg`.
void rewrite_call_as_jump(const ZydisInstruction& z, PlannedInstruction& p);

} // namespace dune::disasm
