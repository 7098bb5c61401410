// Inside disasm/ only: from AT&T text as the decoders write it to AT&T text as gdb writes it.
#pragma once

#include "disasm/zydis_decoder.h"

#include <string>

namespace dune::disasm {

struct AttText {
  std::string mnemonic;
  std::string operands;
};

// - No size suffix where a register operand says the size already: movq %rsp,%rbp is `mov`; call,
// ret,
//   push and their like have none.
// - No blank after commas; numbers in hexadecimal, negative immediates as their bits.
// - Memory as encoded: 0x0(%r13), (%rax,%rbx,1).
AttText as_gdb_writes(const AttText& text, const ZydisInstruction& z);

} // namespace dune::disasm
