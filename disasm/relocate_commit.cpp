#include "disasm/relocate_internal.h"

#include <algorithm>

namespace dune::disasm {

Reg reg_of(uint8_t hardware_number) {
  static constexpr Reg kByNumber[] = {Reg::rax, Reg::rcx, Reg::rdx, Reg::rbx, Reg::rsp, Reg::rbp,
                                      Reg::rsi, Reg::rdi, Reg::r8,  Reg::r9,  Reg::r10, Reg::r11,
                                      Reg::r12, Reg::r13, Reg::r14, Reg::r15};
  return kByNumber[hardware_number & 15];
}

void CodeWriter::exact(TargetAddr original) {
  add({original, static_cast<uint16_t>(size()), BoundaryState::kExact, 0, 0, {}});
}

void CodeWriter::undo(TargetAddr original, int rsp_add,
                      std::initializer_list<SavedRegister> saved) {
  Boundary b{original, static_cast<uint16_t>(size()), BoundaryState::kUndo,
             0,        static_cast<int16_t>(rsp_add), {}};
  for (const SavedRegister& one : saved)
    b.saved[b.saved_count++] = one;
  add(b);
}

void CodeWriter::step_on(TargetAddr original) {
  add({original, static_cast<uint16_t>(size()), BoundaryState::kStepOn, 0, 0, {}});
}

void CodeWriter::begin_instruction(size_t index) {
  DUNE_ASSERT(index == starts_.size());
  starts_.push_back(size());
}

void CodeWriter::mark_syscall() {
  if (out_.syscall_offset == Relocated::kNone)
    out_.syscall_offset = static_cast<uint16_t>(size());
}

void CodeWriter::raw(std::span<const uint8_t> bytes) {
  out_.bytes.insert(out_.bytes.end(), bytes.begin(), bytes.end());
}

void CodeWriter::u32(uint32_t value) {
  uint8_t bytes[4];
  memcpy(bytes, &value, sizeof bytes);
  raw(std::span<const uint8_t>(bytes));
}

void CodeWriter::u64(uint64_t value) {
  uint8_t bytes[8];
  memcpy(bytes, &value, sizeof bytes);
  raw(std::span<const uint8_t>(bytes));
}

bool CodeWriter::reaches(TargetAddr target, size_t length) const {
  if (reach_ == Reach::kAlwaysFar)
    return false;
  auto distance = static_cast<int64_t>(target - (destination_ + size() + length));
  return distance == static_cast<int32_t>(distance);
}

void CodeWriter::rel32(TargetAddr target, size_t bytes_behind) {
  DUNE_ASSERT(reaches(target, 4 + bytes_behind));
  u32(static_cast<uint32_t>(target - (destination_ + size() + 4 + bytes_behind)));
}

void CodeWriter::internal_rel32(size_t index) {
  fixups_.push_back({size(), index});
  u32(0);
}

bool CodeWriter::near_target(const PlannedInstruction& p, size_t length) const {
  return p.internal_target != PlannedInstruction::kExternal || reaches(p.target, length);
}

size_t CodeWriter::jump_size(const PlannedInstruction& p) const {
  // Asked a few bytes before the jump; a target that only just reaches is called far.
  constexpr size_t kSlack = 16;
  return near_target(p, 0) && near_target(p, kSlack) ? 5 : 14;
}

void CodeWriter::jump(const PlannedInstruction& p) {
  if (p.internal_target == PlannedInstruction::kExternal)
    return jump(p.target);
  raw({0xe9});
  internal_rel32(p.internal_target);
}

void CodeWriter::jump(TargetAddr target) {
  if (reaches(target, 5)) {
    raw({0xe9});
    rel32(target);
  } else {
    raw({0xff, 0x25, 0, 0, 0, 0}); // jmp *0(%rip), the address follows
    u64(target.value);
  }
}

void CodeWriter::lea_rsp(int displacement) {
  if (displacement == static_cast<int8_t>(displacement)) {
    raw({0x48, 0x8d, 0x64, 0x24, static_cast<uint8_t>(displacement)});
  } else {
    raw({0x48, 0x8d, 0xa4, 0x24});
    u32(static_cast<uint32_t>(displacement));
  }
}

void CodeWriter::load_constant(uint8_t reg, uint64_t value) {
  auto low = static_cast<uint8_t>(0xb8 + (reg & 7));
  if (value <= UINT32_MAX && reach_ != Reach::kAlwaysFar) {
    if (reg & 8)
      raw({0x41});
    raw({low});
    u32(static_cast<uint32_t>(value));
  } else {
    raw({static_cast<uint8_t>(reg & 8 ? 0x49 : 0x48), low});
    u64(value);
  }
}

void CodeWriter::stack_operand(uint8_t opcode, uint8_t reg, int displacement, int size) {
  raw({static_cast<uint8_t>(size == 2 ? 0x66 : 0x48), opcode, static_cast<uint8_t>(0x84 | reg << 3),
       0x24});
  u32(static_cast<uint32_t>(displacement));
}

void CodeWriter::load_stack(uint8_t reg, int displacement, int size) {
  stack_operand(0x8b, reg, displacement, size);
}

void CodeWriter::store_stack(uint8_t reg, int displacement, int size) {
  stack_operand(0x89, reg, displacement, size);
}

void CodeWriter::lea_stack(uint8_t reg, int displacement) {
  stack_operand(0x8d, reg, displacement, 8);
}

Relocated CodeWriter::finish() {
  for (const Fixup& fixup : fixups_) {
    auto relative = static_cast<uint32_t>(starts_[fixup.index] - (fixup.at + 4));
    memcpy(&out_.bytes[fixup.at], &relative, sizeof relative);
  }
  return std::move(out_);
}

RelocationPlan::RelocationPlan() = default;
RelocationPlan::RelocationPlan(RelocationPlan&&) noexcept = default;
RelocationPlan& RelocationPlan::operator=(RelocationPlan&&) noexcept = default;
RelocationPlan::~RelocationPlan() = default;
size_t RelocationPlan::instruction_count() const { return instructions_.size(); }

static Relocated write_copy(const std::vector<PlannedInstruction>& instructions,
                            TargetAddr destination, Reach reach) {
  CodeWriter writer(destination, reach);
  for (size_t i = 0; i < instructions.size(); ++i) {
    writer.begin_instruction(i);
    instructions[i].emit(writer, instructions[i]);
  }
  return writer.finish();
}

constexpr size_t kFarJumpSize = 14;

size_t copy_size_limit(const std::vector<PlannedInstruction>& instructions) {
  return write_copy(instructions, TargetAddr(0), Reach::kAlwaysFar).bytes.size() + kFarJumpSize;
}

Relocated RelocationPlan::commit(TargetAddr destination, Tail tail) const {
  Relocated copy = write_copy(instructions_, destination, Reach::kAsPlaced);
  if (falls_through_) {
    copy.fallthrough_offset = static_cast<uint16_t>(copy.bytes.size());
    copy.boundaries.push_back(
        {source_end(), copy.fallthrough_offset, BoundaryState::kExact, 0, 0, {}});
    if (tail == Tail::kJumpBack) {
      CodeWriter back(destination + copy.bytes.size(), Reach::kAsPlaced);
      back.jump(source_end());
      Relocated jump = back.finish();
      copy.bytes.insert(copy.bytes.end(), jump.bytes.begin(), jump.bytes.end());
    }
  }
  DUNE_ASSERT(copy.bytes.size() <= max_size_);
  return copy;
}

const Boundary* Relocated::boundary_at(uint64_t offset) const {
  auto found = std::lower_bound(boundaries.begin(), boundaries.end(), offset,
                                [](const Boundary& b, uint64_t at) { return b.offset < at; });
  return found != boundaries.end() && found->offset == offset ? &*found : nullptr;
}

const char* refusal_name(Refusal why) {
  static constexpr const char* kNames[] = {
#define DUNE_X(name, text) #name,
      DUNE_DISASM_REFUSALS(DUNE_X)
#undef DUNE_X
  };
  return kNames[static_cast<size_t>(why)];
}

const char* refusal_text(Refusal why) {
  static constexpr const char* kTexts[] = {
#define DUNE_X(name, text) text,
      DUNE_DISASM_REFUSALS(DUNE_X)
#undef DUNE_X
  };
  return kTexts[static_cast<size_t>(why)];
}

} // namespace dune::disasm
