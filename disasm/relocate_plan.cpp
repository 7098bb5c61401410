// Plan: decodes what has to be covered and finds a strategy for each instruction, or the reason why
// there is none. All that can fail fails here.
#include "disasm/capstone.h"
#include "disasm/encoding.h"
#include "disasm/relocate_internal.h"
#include "disasm/zydis_decoder.h"

namespace dune::disasm {

namespace {

std::optional<Refusal> refuse_always(const ZydisInstruction& z, const Instruction& i) {
  if (i.flow == Flow::kFar)
    return Refusal::kFarBranch;
  if (i.flow == Flow::kTransaction)
    return Refusal::kTransaction;
  if (z.info.mnemonic == ZYDIS_MNEMONIC_SYSENTER || z.info.meta.category == ZYDIS_CATEGORY_SYSRET ||
      z.info.mnemonic == ZYDIS_MNEMONIC_SYSEXIT)
    return Refusal::kSystemEntry;
  if (const ZydisDecodedOperand* operand = z.rip_operand();
      operand && operand->mem.base == ZYDIS_REGISTER_EIP && !i.is_nop)
    return Refusal::kEipRelative;
  // Intel ignores the operand-size prefix of a near branch, AMD does not. REX.W overrides it on
  // both.
  bool narrow = z.has_prefix(0x66) && !z.rex_w();
  if (narrow && i.is_branch() && (i.target || i.flow == Flow::kIndirectCall))
    return Refusal::kNarrowBranch;
  return {};
}

// Capstone's length, and whether it is the same. Instructions of the one-byte map without prefixes
// but REX, and `syscall`, are not asked about: the two decoders agree on all of them (a test goes
// through every one), and most breakpoints stand on one, so that Capstone is seldom loaded at all.
bool decoders_agree(const ZydisInstruction& z, std::span<const uint8_t> bytes, TargetAddr address) {
  const unsigned rex = z.info.attributes & ZYDIS_ATTRIB_HAS_REX ? 1 : 0;
  if (z.info.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && z.info.raw.prefix_count == rex &&
      (z.info.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT || z.info.mnemonic == ZYDIS_MNEMONIC_SYSCALL))
    return true;
  const uint8_t other = capstone_length(bytes, address);
  return other == 0 || other == z.info.length;
}

std::optional<Refusal> plan_rip_operand(const ZydisInstruction& z, PlannedInstruction& p) {
  p.scratch = unused_register(z);
  if (p.scratch == kNoRegister)
    return Refusal::kNoScratch;
  switch (z.info.mnemonic) {
  case ZYDIS_MNEMONIC_LEA:
    p.emit = emit_lea;
    p.operand_size = static_cast<uint8_t>(z.operands[0].size / 8);
    p.constant_to = static_cast<uint8_t>(ZydisRegisterGetId(z.operands[0].reg.value));
    return {};
  case ZYDIS_MNEMONIC_PUSH:
  case ZYDIS_MNEMONIC_POP:
    p.emit = z.info.mnemonic == ZYDIS_MNEMONIC_PUSH ? emit_push : emit_pop;
    p.operand_size = static_cast<uint8_t>(z.rip_operand()->size / 8);
    p.prefix = z.segment_prefix();
    p.second = unused_register(z, p.scratch);
    return {};
  default:
    break;
  }
  bool rsp = uses_rsp(z);
  if (rsp) {
    p.second = unused_register(z, p.scratch);
    if (p.second == kNoRegister)
      return Refusal::kNoScratch;
  }
  p.emit = rsp ? emit_rip_operand_with_rsp : emit_rip_operand;
  if (!rewrite_operand(z, p, rsp))
    return rsp ? Refusal::kStackPointer : Refusal::kUnusualEncoding;
  return {};
}

// A call through the word where it puts its return address. It could be displaced, but not begun
// anew after a signal in the middle of the copy.
bool reads_call_slot(const ZydisDecodedOperandMem& mem) {
  return mem.base == ZYDIS_REGISTER_RSP && mem.index == ZYDIS_REGISTER_NONE &&
         mem.disp.value > -16 && mem.disp.value < 0;
}

std::optional<Refusal> plan_indirect_call(const ZydisInstruction& z, PlannedInstruction& p) {
  p.scratch = unused_register(z);
  if (p.scratch == kNoRegister)
    return Refusal::kNoScratch;
  const ZydisDecodedOperand& operand = z.operands[0];
  if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER) {
    if (operand.reg.value == ZYDIS_REGISTER_RSP) {
      p.emit = emit_call_rsp;
    } else {
      p.emit = emit_call_register;
      rewrite_call_as_jump(z, p);
    }
    return {};
  }
  if (z.rip_operand()) {
    p.emit = emit_call_rip;
    p.prefix = z.segment_prefix();
    return {};
  }
  if (operand.mem.base == ZYDIS_REGISTER_ESP || reads_call_slot(operand.mem))
    return Refusal::kStackPointer;
  p.emit = emit_call_memory;
  if (!rewrite_call_as_push(z, p, kRedZone + 8))
    return Refusal::kDisplacement;
  return {};
}

uint8_t branch_hint(const ZydisInstruction& z) {
  return z.has_prefix(0x2e) ? 0x2e : z.has_prefix(0x3e) ? 0x3e : 0;
}

std::optional<Refusal> choose_strategy(const ZydisInstruction& z, const Instruction& i,
                                       const RelocateOptions& options, PlannedInstruction& p) {
  switch (i.flow) {
  case Flow::kJump:
    p.emit = emit_jump;
    return {};
  case Flow::kConditionalJump:
    p.emit = emit_conditional_jump;
    p.condition = z.info.opcode & 0x0f;
    p.prefix = branch_hint(z);
    return {};
  case Flow::kLoop:
    p.emit = emit_loop;
    p.prefix = z.has_prefix(0x67) ? 0x67 : 0;
    return {};
  case Flow::kCall:
    p.emit = emit_call;
    return options.shadow_stack ? std::optional(Refusal::kShadowStack) : std::nullopt;
  case Flow::kIndirectCall:
    if (options.shadow_stack)
      return Refusal::kShadowStack;
    return plan_indirect_call(z, p);
  case Flow::kIndirectJump:
    if (!z.rip_operand())
      break;
    // Out of reach it ends in a ret, which a shadow stack would refuse; where the copy goes is not
    // known yet.
    if (options.shadow_stack)
      return Refusal::kShadowStack;
    p.emit = emit_jump_rip;
    p.prefix = z.segment_prefix();
    p.scratch = unused_register(z);
    return {};
  case Flow::kSyscall:
    p.emit = emit_syscall;
    return {};
  default:
    if (z.rip_operand() && !i.is_nop)
      return plan_rip_operand(z, p);
  }
  p.emit = emit_verbatim;
  return {};
}

// How many bytes of padding (nops, int3, and zeroes that some linkers leave) begin here, when they
// reach to `least`: the last nop may go on behind it. 0 when they do not.
size_t padding_length(std::span<const uint8_t> bytes, size_t least) {
  size_t length = 0;
  while (length < least) {
    if (length < bytes.size() && (bytes[length] == 0xcc || bytes[length] == 0x00)) {
      ++length;
      continue;
    }
    Result<Instruction> one = decode(bytes.subspan(length), TargetAddr(0));
    if (!one || !one->is_nop)
      return 0;
    length += one->length;
  }
  return length;
}

} // namespace

struct Planner {
  std::span<const uint8_t> bytes;
  TargetAddr source;
  RelocateOptions options;
  RelocationPlan plan{};

  TargetRange patched() const { return {source, source + options.cover}; }

  std::optional<Refusal> add(std::span<const uint8_t> rest, TargetAddr address) {
    Result<ZydisInstruction> z = zydis_decode(rest);
    if (!z)
      return z.error().code == Errc::kExhausted ? Refusal::kTruncated : Refusal::kUndecodable;
    Instruction i = describe(*z, address);
    if (auto why = refuse_always(*z, i))
      return why;
    if (!decoders_agree(*z, rest, address))
      return Refusal::kDecodersDisagree;
    if (i.rip_operand && i.rip_operand_size &&
        patched().overlaps({*i.rip_operand, *i.rip_operand + i.rip_operand_size}))
      return Refusal::kReadsPatch;

    PlannedInstruction p;
    p.address = address;
    p.length = i.length;
    std::copy_n(rest.begin(), i.length, p.bytes.begin());
    p.disp_offset = z->info.raw.disp.offset;
    p.target = i.target ? *i.target : i.rip_operand ? *i.rip_operand : TargetAddr(0);
    if (auto why = choose_strategy(*z, i, options, p))
      return why;
    plan.instructions_.push_back(p);
    plan.source_length_ += i.length;
    plan.falls_through_ = i.falls_through && !i.is_call();
    plan.contains_syscall_ |= i.flow == Flow::kSyscall;
    plan.contains_call_ |= i.is_call();
    return {};
  }

  // A branch back to the source runs into the patch, as the original would into the site. One to a
  // later instruction of the source stays inside the copy.
  std::optional<Refusal> resolve_target(PlannedInstruction& p, bool is_branch) {
    if (!is_branch || p.target == source || !patched().contains(p.target))
      return {};
    for (size_t n = 0; n < plan.instructions_.size(); ++n) {
      if (plan.instructions_[n].address == p.target) {
        p.internal_target = static_cast<uint8_t>(n);
        return {};
      }
    }
    return Refusal::kIntoPatch;
  }

  Result<RelocationPlan, Refused> run() {
    plan.source_ = source;
    while (plan.source_length_ < options.cover) {
      size_t done = plan.source_length_;
      TargetAddr at = source + done;
      std::span<const uint8_t> rest = bytes.subspan(std::min(done, bytes.size()));
      if (done > 0 && !plan.falls_through_) {
        // Nothing of what follows is reached from here; a call would come back to it.
        size_t padding = padding_length(rest, options.cover - done);
        if (plan.contains_call_ || padding == 0)
          return Refused{Refusal::kRunsOff, at};
        plan.source_length_ += padding;
        break;
      }
      if (auto why = add(rest, at))
        return Refused{*why, at};
    }
    for (PlannedInstruction& p : plan.instructions_) {
      bool is_branch = p.emit == emit_jump || p.emit == emit_conditional_jump ||
                       p.emit == emit_loop || p.emit == emit_call;
      if (auto why = resolve_target(p, is_branch))
        return Refused{*why, p.address};
    }
    plan.max_size_ = copy_size_limit(plan.instructions_);
    return std::move(plan);
  }
};

Result<RelocationPlan, Refused> plan_relocation(std::span<const uint8_t> bytes, TargetAddr source,
                                                const RelocateOptions& options) {
  DUNE_ASSERT(options.cover >= 1 && options.cover <= 64);
  return Planner{bytes, source, options}.run();
}

} // namespace dune::disasm
