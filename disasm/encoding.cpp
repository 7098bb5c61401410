#include "disasm/encoding.h"

namespace dune::disasm {

namespace {

// 0 to 15 for a general register or any part of one, else kNoRegister.
uint8_t general_number(ZydisRegister reg) {
  ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
  if (ZydisRegisterGetClass(whole) != ZYDIS_REGCLASS_GPR64)
    return kNoRegister;
  return static_cast<uint8_t>(ZydisRegisterGetId(whole));
}

template <class Visit> void for_each_register(const ZydisInstruction& z, Visit&& visit) {
  for (const ZydisDecodedOperand& operand : z.all_operands()) {
    if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER) {
      visit(operand, operand.reg.value);
    } else if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY) {
      visit(operand, operand.mem.base);
      visit(operand, operand.mem.index);
    }
  }
}

void append(PlannedInstruction& p, uint8_t byte) { p.rewritten[p.rewritten_length++] = byte; }

// REX.B and its inverted brothers widen the base's number: the new base is among the first eight.
void clear_base_extension(const ZydisInstruction& z, std::array<uint8_t, 24>& bytes) {
  constexpr uint8_t kInvertedB = 0x20;
  const auto& raw = z.info.raw;
  switch (z.info.encoding) {
  case ZYDIS_INSTRUCTION_ENCODING_VEX:
    if (raw.vex.size == 3)
      bytes[raw.vex.offset + 1u] |= kInvertedB;
    break;
  case ZYDIS_INSTRUCTION_ENCODING_XOP:
    bytes[raw.xop.offset + 1u] |= kInvertedB;
    break;
  case ZYDIS_INSTRUCTION_ENCODING_EVEX:
    bytes[raw.evex.offset + 1u] |= kInvertedB;
    break;
  default:
    if (z.info.attributes & ZYDIS_ATTRIB_HAS_REX)
      bytes[raw.rex.offset] &= static_cast<uint8_t>(~1);
  }
}

// The byte that holds vvvv (inverted, bits 3 to 6); 0: the encoding has none.
size_t vvvv_offset(const ZydisInstruction& z) {
  const auto& raw = z.info.raw;
  switch (z.info.encoding) {
  case ZYDIS_INSTRUCTION_ENCODING_VEX:
    return raw.vex.offset + (raw.vex.size == 3 ? 2u : 1u);
  case ZYDIS_INSTRUCTION_ENCODING_XOP:
    return raw.xop.offset + 2u;
  case ZYDIS_INSTRUCTION_ENCODING_EVEX:
    return raw.evex.offset + 2u;
  default:
    return 0;
  }
}

// Puts `with` in place of rsp wherever the encoding names it.
bool replace_rsp_operands(const ZydisInstruction& z, std::array<uint8_t, 24>& bytes, uint8_t with) {
  for (const ZydisDecodedOperand& operand : z.all_operands()) {
    if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER ||
        general_number(operand.reg.value) != kRspNumber)
      continue;
    if (operand.encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG) {
      uint8_t& modrm = bytes[z.info.raw.modrm.offset];
      modrm = static_cast<uint8_t>((modrm & ~0x38) | with << 3);
    } else if (operand.encoding == ZYDIS_OPERAND_ENCODING_NDSNDD && vvvv_offset(z)) {
      uint8_t& byte = bytes[vvvv_offset(z)];
      byte = static_cast<uint8_t>((byte & ~0x78) | (~with & 0x0f) << 3);
    } else {
      return false;
    }
  }
  return true;
}

// The rewritten instruction must differ from the original in its base and in rsp only.
bool verify(const ZydisInstruction& z, const PlannedInstruction& p) {
  Result<ZydisInstruction> again = zydis_decode(p.rewritten_bytes());
  if (!again || again->info.length != p.rewritten_length ||
      again->info.mnemonic != z.info.mnemonic || again->info.operand_count != z.info.operand_count)
    return false;
  for (size_t i = 0; i < z.info.operand_count; ++i) {
    const ZydisDecodedOperand& was = z.operands[i];
    const ZydisDecodedOperand& is = again->operands[i];
    if (was.type != is.type || was.size != is.size)
      return false;
    if (was.type == ZYDIS_OPERAND_TYPE_REGISTER && was.reg.value != is.reg.value &&
        (general_number(was.reg.value) != kRspNumber || general_number(is.reg.value) != p.second))
      return false;
    if (was.type == ZYDIS_OPERAND_TYPE_MEMORY && was.mem.base == ZYDIS_REGISTER_RIP &&
        (general_number(is.mem.base) != p.scratch || is.mem.index != ZYDIS_REGISTER_NONE ||
         is.mem.disp.has_displacement))
      return false;
  }
  return true;
}

} // namespace

uint8_t unused_register(const ZydisInstruction& z, uint8_t other_than) {
  unsigned used = 1u << kRspNumber | 1u << 5;
  if (other_than != kNoRegister)
    used |= 1u << other_than;
  for_each_register(z, [&](const ZydisDecodedOperand&, ZydisRegister reg) {
    uint8_t number = general_number(reg);
    if (number != kNoRegister)
      used |= 1u << number;
  });
  for (uint8_t number = 0; number < 8; ++number) {
    if (!(used & 1u << number))
      return number;
  }
  return kNoRegister;
}

bool uses_rsp(const ZydisInstruction& z) {
  bool found = false;
  for_each_register(z, [&](const ZydisDecodedOperand&, ZydisRegister reg) {
    found |= general_number(reg) == kRspNumber;
  });
  return found;
}

bool rewrite_operand(const ZydisInstruction& z, PlannedInstruction& p, bool replace_rsp) {
  std::array<uint8_t, 24> bytes{};
  std::copy_n(p.bytes.begin(), p.length, bytes.begin());
  clear_base_extension(z, bytes);
  if (replace_rsp && !replace_rsp_operands(z, bytes, p.second))
    return false;
  uint8_t& modrm = bytes[z.info.raw.modrm.offset];
  modrm = static_cast<uint8_t>((modrm & 0x38) | p.scratch); // mod 0: no displacement
  for (size_t i = 0; i < p.length; ++i) {
    if (i < p.disp_offset || i >= p.disp_offset + 4u)
      append(p, bytes[i]);
  }
  return verify(z, p);
}

bool rewrite_call_as_push(const ZydisInstruction& z, PlannedInstruction& p, int rsp_moved) {
  const auto& raw = z.info.raw;
  // Each prefix once: the displacement grows, and repeated ones could make it more than 15 bytes.
  if (uint8_t segment = z.segment_prefix())
    append(p, segment);
  if (z.has_prefix(0x67))
    append(p, 0x67);
  if (z.info.attributes & ZYDIS_ATTRIB_HAS_REX)
    append(p, static_cast<uint8_t>(p.bytes[raw.rex.offset] & ~0x08)); // push needs no W
  append(p, 0xff);
  auto modrm = static_cast<uint8_t>((p.bytes[raw.modrm.offset] & ~0x38) | 6 << 3);
  const ZydisDecodedOperandMem& mem = z.operands[0].mem;
  if (mem.base != ZYDIS_REGISTER_RSP) {
    append(p, modrm);
    for (size_t i = raw.modrm.offset + 1u; i < p.length; ++i)
      append(p, p.bytes[i]);
    return true;
  }
  int64_t displacement = mem.disp.value + rsp_moved;
  if (displacement != static_cast<int32_t>(displacement))
    return false;
  append(p, static_cast<uint8_t>((modrm & 0x3f) | 0x80)); // disp32
  append(p, p.bytes[raw.sib.offset]);
  for (int i = 0; i < 4; ++i)
    append(p, static_cast<uint8_t>(static_cast<uint32_t>(displacement) >> 8 * i));
  return true;
}

void rewrite_call_as_jump(const ZydisInstruction& z, PlannedInstruction& p) {
  if (z.has_prefix(0x3e))
    append(p, 0x3e); // notrack
  uint8_t number = general_number(z.operands[0].reg.value);
  if (number & 8)
    append(p, 0x41);
  append(p, 0xff);
  append(p, static_cast<uint8_t>(0xe0 | (number & 7)));
}

} // namespace dune::disasm
