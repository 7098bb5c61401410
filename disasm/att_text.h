// Inside disasm/ only: from AT&T text as the decoders write it to AT&T text as gdb writes it.
#pragma once

#include "disasm/zydis_decoder.h"

#include <string>
#include <string_view>

namespace dune::disasm {

// Drops the size suffix where a register operand says the size already: movq %rsp,%rbp is `mov`,
// movq $1,(%rax) stays; call, ret, push and their like have none in 64-bit code.
std::string att_mnemonic(std::string_view mnemonic, const ZydisInstruction& z);

// No blank after commas, every number in hexadecimal but the scale: -0x8(%rbp,%rax,4).
std::string att_operands(std::string_view operands);

} // namespace dune::disasm
