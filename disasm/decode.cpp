#include "disasm/decode.h"

#include "disasm/zydis_decoder.h"

namespace dune::disasm {

namespace {

const ZydisDecoder& decoder() {
  static const ZydisDecoder instance = [] {
    ZydisDecoder made;
    DUNE_ASSERT(
        ZYAN_SUCCESS(ZydisDecoderInit(&made, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64)));
    return made;
  }();
  return instance;
}

bool is_direct(const ZydisInstruction& z) {
  return z.info.operand_count_visible > 0 && z.operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
         z.operands[0].imm.is_relative;
}

Flow branch_flow(const ZydisInstruction& z, Flow direct, Flow indirect) {
  if (z.info.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
    return Flow::kFar;
  return is_direct(z) ? direct : indirect;
}

Flow flow_of(const ZydisInstruction& z) {
  switch (z.info.mnemonic) {
  case ZYDIS_MNEMONIC_LOOP:
  case ZYDIS_MNEMONIC_LOOPE:
  case ZYDIS_MNEMONIC_LOOPNE:
  case ZYDIS_MNEMONIC_JRCXZ:
  case ZYDIS_MNEMONIC_JECXZ:
  case ZYDIS_MNEMONIC_JCXZ:
    return Flow::kLoop;
  case ZYDIS_MNEMONIC_JMP:
    return branch_flow(z, Flow::kJump, Flow::kIndirectJump);
  case ZYDIS_MNEMONIC_CALL:
    return branch_flow(z, Flow::kCall, Flow::kIndirectCall);
  case ZYDIS_MNEMONIC_RET:
  case ZYDIS_MNEMONIC_IRET:
  case ZYDIS_MNEMONIC_IRETD:
  case ZYDIS_MNEMONIC_IRETQ:
  case ZYDIS_MNEMONIC_UIRET:
    return Flow::kReturn;
  case ZYDIS_MNEMONIC_SYSCALL:
  case ZYDIS_MNEMONIC_SYSENTER:
    return Flow::kSyscall;
  case ZYDIS_MNEMONIC_INT:
    return z.operands[0].imm.value.u == 0x80 ? Flow::kSyscall : Flow::kTrap;
  case ZYDIS_MNEMONIC_INT1:
  case ZYDIS_MNEMONIC_INT3:
  case ZYDIS_MNEMONIC_HLT:
  case ZYDIS_MNEMONIC_UD0:
  case ZYDIS_MNEMONIC_UD1:
  case ZYDIS_MNEMONIC_UD2:
    return Flow::kTrap;
  case ZYDIS_MNEMONIC_XBEGIN:
    return Flow::kTransaction;
  default:
    // xend is in the category too.
    return z.info.meta.category == ZYDIS_CATEGORY_COND_BR && is_direct(z) ? Flow::kConditionalJump
                                                                          : Flow::kSequential;
  }
}

bool falls_through(const ZydisInstruction& z, Flow flow) {
  switch (flow) {
  case Flow::kJump:
  case Flow::kIndirectJump:
  case Flow::kReturn:
    return false;
  case Flow::kFar:
    return z.info.mnemonic == ZYDIS_MNEMONIC_CALL;
  case Flow::kTrap:
    return z.info.mnemonic != ZYDIS_MNEMONIC_UD0 && z.info.mnemonic != ZYDIS_MNEMONIC_UD1 &&
           z.info.mnemonic != ZYDIS_MNEMONIC_UD2;
  case Flow::kSequential:
    return z.info.meta.category != ZYDIS_CATEGORY_SYSRET;
  default:
    return true;
  }
}

bool is_nop(const ZydisInstruction& z) { return z.info.mnemonic == ZYDIS_MNEMONIC_NOP; }

bool is_rax_part(ZydisRegister reg) {
  return ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg) == ZYDIS_REGISTER_RAX;
}

bool writes_rax(const ZydisInstruction& z) {
  for (const ZydisDecodedOperand& operand : z.all_operands()) {
    if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER &&
        (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) && is_rax_part(operand.reg.value))
      return true;
  }
  return false;
}

std::optional<uint32_t> eax_constant(const ZydisInstruction& z) {
  if (z.info.mnemonic == ZYDIS_MNEMONIC_XOR && z.operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
      z.operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
      z.operands[0].reg.value == z.operands[1].reg.value && z.operands[0].size >= 32 &&
      is_rax_part(z.operands[0].reg.value))
    return 0;
  if (z.info.mnemonic != ZYDIS_MNEMONIC_MOV || z.operands[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
      z.operands[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
    return {};
  ZydisRegister to = z.operands[0].reg.value;
  if (to != ZYDIS_REGISTER_EAX && to != ZYDIS_REGISTER_RAX)
    return {};
  return static_cast<uint32_t>(z.operands[1].imm.value.u);
}

} // namespace

uint8_t ZydisInstruction::segment_prefix() const {
  uint8_t found = 0;
  for (size_t i = 0; i < info.raw.prefix_count; ++i) {
    uint8_t value = info.raw.prefixes[i].value;
    if (value == 0x64 || value == 0x65)
      found = value;
  }
  return found;
}

const ZydisDecodedOperand* ZydisInstruction::rip_operand() const {
  for (const ZydisDecodedOperand& operand : all_operands()) {
    if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY &&
        (operand.mem.base == ZYDIS_REGISTER_RIP || operand.mem.base == ZYDIS_REGISTER_EIP))
      return &operand;
  }
  return nullptr;
}

Result<ZydisInstruction> zydis_decode(std::span<const uint8_t> bytes) {
  constexpr Error kTooShort{Errc::kExhausted, "the bytes end inside an instruction"};
  if (bytes.empty()) // a null pointer perhaps, which Zydis takes for a wrong argument
    return kTooShort;
  ZydisInstruction z;
  ZyanStatus status =
      ZydisDecoderDecodeFull(&decoder(), bytes.data(), bytes.size(), &z.info, z.operands);
  if (ZYAN_SUCCESS(status))
    return z;
  if (status == ZYDIS_STATUS_NO_MORE_DATA)
    return kTooShort;
  return Error{Errc::kInvalid, "no valid instruction"};
}

Instruction describe(const ZydisInstruction& z, TargetAddr address) {
  Instruction i;
  i.address = address;
  i.length = z.info.length;
  i.flow = flow_of(z);
  i.falls_through = falls_through(z, i.flow);
  i.is_endbr64 = z.info.mnemonic == ZYDIS_MNEMONIC_ENDBR64;
  i.repeats = (z.info.attributes &
               (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) != 0;
  i.is_nop = is_nop(z);
  i.eax_constant = eax_constant(z);
  i.writes_rax = writes_rax(z);
  if (is_direct(z))
    i.target = i.end() + static_cast<uint64_t>(z.operands[0].imm.value.s);
  if (const ZydisDecodedOperand* operand = z.rip_operand()) {
    uint64_t value = i.end().value + static_cast<uint64_t>(operand->mem.disp.value);
    if (operand->mem.base == ZYDIS_REGISTER_EIP)
      value = static_cast<uint32_t>(value);
    i.rip_operand = TargetAddr(value);
    if (operand->mem.type != ZYDIS_MEMOP_TYPE_AGEN && !i.is_nop)
      i.rip_operand_size = static_cast<uint16_t>(operand->size / 8);
  }
  return i;
}

Result<Instruction> decode(std::span<const uint8_t> bytes, TargetAddr address) {
  Result<ZydisInstruction> z = zydis_decode(bytes);
  if (!z)
    return z.error();
  return describe(*z, address);
}

LinearDecode decode_range(std::span<const uint8_t> bytes, TargetAddr address) {
  LinearDecode out;
  out.instructions.reserve(bytes.size() / 4);
  Status status = for_each_instruction(bytes, address, [&](const Instruction& i) {
    out.instructions.push_back(i);
    return true;
  });
  if (!status)
    out.stopped = status.error();
  return out;
}

size_t nop_padding(std::span<const uint8_t> bytes) {
  size_t length = 0;
  while (length < bytes.size()) {
    Result<Instruction> one = decode(bytes.subspan(length), TargetAddr(0));
    if (!one || !one->is_nop)
      break;
    length += one->length;
  }
  return length;
}

} // namespace dune::disasm
