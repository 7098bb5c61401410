// How many bytes an instruction accesses at the address that it names (AMD64 Architecture
// Programmer's Manual 3, "Instruction Encoding", opcode maps): for the instructions that programs
// move their data with, not for all. Freestanding-clean.
#pragma once

#include "libdune/arch/prefixes.h"

#include <cstdint>
#include <span>

namespace dune {

namespace access_size_detail {

struct Opcode {
  uint8_t code = 0;
  uint8_t modrm = 0;
  bool w = false;
  uint8_t mandatory = 0; // 0x66, 0xf2, 0xf3; 0: none
  bool has_66 = false;
  uint32_t vector = 16;
};

constexpr uint32_t operand_size(const Opcode& o) { return o.w ? 8 : o.has_66 ? 2 : 4; }

// Opcodes of one byte. Of a push or pop it is the stack's, too.
constexpr uint32_t of_one_byte(const Opcode& o) {
  const uint8_t c = o.code;
  const uint32_t by_lowest_bit = c & 1 ? operand_size(o) : 1;
  const uint32_t extension = o.modrm >> 3 & 7;
  if (c < 0x40)
    return (c & 7) < 4 ? by_lowest_bit : 0;
  if (c >= 0x50 && c < 0x60)
    return o.has_66 ? 2 : 8;
  switch (c) {
  case 0x69:
  case 0x6b:
  case 0x81:
  case 0x83:
    return operand_size(o);
  case 0x63:
    return o.has_66 && !o.w ? 2 : 4;
  case 0x80:
  case 0x84:
  case 0x85:
  case 0x86:
  case 0x87:
  case 0x88:
  case 0x89:
  case 0x8a:
  case 0x8b:
  case 0xa4: // movs
  case 0xa5:
  case 0xa6: // cmps
  case 0xa7:
  case 0xaa: // stos
  case 0xab:
  case 0xac: // lods
  case 0xad:
  case 0xae: // scas
  case 0xaf:
  case 0xc0:
  case 0xc1:
  case 0xc6:
  case 0xc7:
  case 0xd0:
  case 0xd1:
  case 0xd2:
  case 0xd3:
  case 0xf6:
  case 0xf7:
  case 0xfe:
    return by_lowest_bit;
  case 0xff:
    if (extension < 2)
      return operand_size(o);
    return extension % 2 == 0 && !o.has_66 ? 8 : 0; // call, jmp, push
  default:
    return 0;
  }
}

// Of a whole register, or the part of it that a scalar is.
constexpr uint32_t of_move(const Opcode& o) {
  return o.mandatory == 0xf3 ? 4 : o.mandatory == 0xf2 ? 8 : o.vector;
}

// Behind 0x0f. `is_vector`: by a VEX prefix.
constexpr uint32_t of_two_bytes(const Opcode& o, bool is_vector) {
  const uint8_t c = o.code;
  switch (c) {
  case 0x10: // movups, movupd, movss, movsd
  case 0x11:
    return of_move(o);
  case 0x28: // movaps, movapd
  case 0x29:
  case 0x2b:
    return o.mandatory == 0 || o.mandatory == 0x66 ? o.vector : 0;
  case 0x6f: // movdqa, movdqu
  case 0x7f:
    return o.mandatory == 0x66 || o.mandatory == 0xf3 ? o.vector : 0;
  case 0xe7: // movntdq
    return o.mandatory == 0x66 ? o.vector : 0;
  case 0x6e: // movd, movq
    return o.mandatory == 0x66 ? (o.w ? 8 : 4) : 0;
  case 0x7e:
    return o.mandatory == 0x66 ? (o.w ? 8 : 4) : o.mandatory == 0xf3 ? 8 : 0;
  case 0xd6:
    return o.mandatory == 0x66 ? 8 : 0;
  case 0x16: // movhps, movlps
  case 0x17:
  case 0x13:
    return o.mandatory == 0 || o.mandatory == 0x66 ? 8 : 0;
  }
  if (is_vector)
    return 0;
  if (c >= 0x40 && c < 0x50) // cmov
    return operand_size(o);
  if (c >= 0x90 && c < 0xa0) // set
    return 1;
  switch (c) {
  case 0xab: // bts, btr, btc
  case 0xb3:
  case 0xbb:
  case 0xba:
  case 0xaf: // imul
  case 0xb1: // cmpxchg
  case 0xc1: // xadd
  case 0xbc: // bsf, bsr
  case 0xbd:
    return operand_size(o);
  case 0xb0:
  case 0xc0:
  case 0xb6: // movzx, movsx
  case 0xbe:
    return 1;
  case 0xb7:
  case 0xbf:
    return 2;
  case 0xc3: // movnti
    return o.mandatory == 0 ? operand_size(o) : 0;
  case 0xc7: // cmpxchg8b, cmpxchg16b
    return (o.modrm >> 3 & 7) == 1 ? (o.w ? 16 : 8) : 0;
  default:
    return 0;
  }
}

} // namespace access_size_detail

// Of the instruction that `code` begins with. 0: not known. If it accesses two places it is so many
// bytes at either.
constexpr uint32_t access_size(std::span<const uint8_t> code) {
  using namespace access_size_detail;
  Opcode o;
  uint64_t at = 0;
  const auto left = [&](uint64_t n) { return code.size() - at >= n; };
  for (; left(1) && (is_legacy_prefix(code[at]) || code[at] == kPrefixLock); ++at) {
    if (code[at] == kPrefixRepne || code[at] == kPrefixRep)
      o.mandatory = code[at];
    if (code[at] != kPrefixOperandSize)
      continue;
    o.has_66 = true;
    if (!o.mandatory)
      o.mandatory = kPrefixOperandSize;
  }
  constexpr uint8_t kMandatory[] = {0, 0x66, 0xf3, 0xf2};
  if (left(4) && code[at] == 0xc5) { // VEX of two bytes
    o.vector = code[at + 1] & 4 ? 32 : 16;
    o.mandatory = kMandatory[code[at + 1] & 3];
    o.code = code[at + 2];
    return of_two_bytes(o, true);
  }
  if (left(5) && code[at] == 0xc4) { // of three
    o.w = code[at + 2] & 0x80;
    o.vector = code[at + 2] & 4 ? 32 : 16;
    o.mandatory = kMandatory[code[at + 2] & 3];
    o.code = code[at + 3];
    return (code[at + 1] & 0x1f) == 1 ? of_two_bytes(o, true) : 0;
  }
  if (left(1) && is_rex(code[at])) {
    o.w = code[at] & 8;
    ++at;
  }
  const bool is_two = left(2) && code[at] == 0x0f;
  at += is_two;
  if (!left(1))
    return 0;
  o.code = code[at];
  o.modrm = left(2) ? code[at + 1] : 0;
  return is_two ? of_two_bytes(o, false) : of_one_byte(o);
}

} // namespace dune
