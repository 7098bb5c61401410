// One function per way of displacing an instruction. Each writes a boundary before every machine
// instruction, which says how the program's state follows from the one found there.
//
// None of it may change a flag: lea, mov, push, pop, xchg, jmp, jcc, loop and ret do not.
// Whatever is saved lies below the red zone, which the kernel's signal frames leave alone as well;
// nothing is ever read back from below rsp minus 128.
#include "disasm/relocate_internal.h"

namespace dune::disasm {

namespace {

SavedRegister saved(uint8_t reg, int at) { return {reg_of(reg), static_cast<int16_t>(at)}; }

bool sign_extends(uint64_t value) {
  return static_cast<int64_t>(value) == static_cast<int32_t>(value);
}

// Pushes the program's own return address, in one or two instructions. The state before each of
// them, and before what follows, is the call's own less 8 bytes of stack.
void push_return_address(CodeWriter& w, const PlannedInstruction& p) {
  uint64_t value = p.end().value;
  w.exact(p.address);
  w.raw({0x68}); // push $imm32, sign-extended
  w.u32(static_cast<uint32_t>(value));
  if (!sign_extends(value)) {
    w.undo(p.address, 8);
    w.raw({0xc7, 0x44, 0x24, 0x04}); // movl $imm32,4(%rsp)
    w.u32(static_cast<uint32_t>(value >> 32));
  }
}

// The same by two stores at displacement(%rsp), with a boundary before each.
template <class Before>
void store_return_address(CodeWriter& w, const PlannedInstruction& p, int displacement,
                          Before&& before) {
  uint64_t value = p.end().value;
  for (int half = 0; half < 2; ++half) {
    before();
    w.raw({0xc7, 0x84, 0x24}); // movl $imm32,disp32(%rsp)
    w.u32(static_cast<uint32_t>(displacement + 4 * half));
    w.u32(static_cast<uint32_t>(value >> 32 * half));
  }
}

void optional_prefix(CodeWriter& w, uint8_t prefix) {
  if (prefix)
    w.raw({prefix});
}

// mov (reg),reg or back, of 8 or 2 bytes, with p's segment.
void load_indirect(CodeWriter& w, const PlannedInstruction& p, uint8_t to, uint8_t from) {
  optional_prefix(w, p.prefix);
  w.raw({static_cast<uint8_t>(p.operand_size == 2 ? 0x66 : 0x48), 0x8b,
         static_cast<uint8_t>(to << 3 | from)});
}

void store_indirect(CodeWriter& w, const PlannedInstruction& p, uint8_t value, uint8_t to) {
  optional_prefix(w, p.prefix);
  w.raw({static_cast<uint8_t>(p.operand_size == 2 ? 0x66 : 0x48), 0x89,
         static_cast<uint8_t>(value << 3 | to)});
}

void xchg_with_top(CodeWriter& w, uint8_t reg) {
  w.raw({0x48, 0x87, static_cast<uint8_t>(0x04 | reg << 3), 0x24});
}

// Pops the address to go on at, and drops the red zone's room with it: one instruction, so that the
// address never lies where a signal frame could be put over it.
void return_over_red_zone(CodeWriter& w) { w.raw({0xc2, kRedZone, 0x00}); }

void with_new_displacement(CodeWriter& w, const PlannedInstruction& p) {
  size_t behind = p.length - p.disp_offset - 4u;
  w.raw(p.original().first(p.disp_offset));
  w.rel32(p.target, behind);
  w.raw(p.original().last(behind));
}

} // namespace

void emit_verbatim(CodeWriter& w, const PlannedInstruction& p) {
  w.exact(p.address);
  w.raw(p.original());
}

void emit_rip_operand(CodeWriter& w, const PlannedInstruction& p) {
  w.exact(p.address);
  if (w.reaches(p.target, p.length))
    return with_new_displacement(w, p);
  constexpr int kPushed = kRedZone + 8;
  w.lea_rsp(-kRedZone);
  w.undo(p.address, kRedZone);
  w.push(p.scratch);
  w.undo(p.address, kPushed, {saved(p.scratch, 0)});
  w.load_constant(p.scratch, p.target.value);
  w.undo(p.address, kPushed, {saved(p.scratch, 0)});
  w.raw(p.rewritten_bytes());
  w.undo(p.end(), kPushed, {saved(p.scratch, 0)});
  w.pop(p.scratch);
  w.undo(p.end(), kRedZone);
  w.lea_rsp(kRedZone);
}

// The instruction names rsp as a register too, perhaps to load it. A second register plays rsp's
// part, and becomes it at the end.
void emit_rip_operand_with_rsp(CodeWriter& w, const PlannedInstruction& p) {
  w.exact(p.address);
  if (w.reaches(p.target, p.length))
    return with_new_displacement(w, p);
  constexpr int kPushed = kRedZone + 16;
  auto before = [&] { w.undo(p.address, kPushed, {saved(p.second, 0), saved(p.scratch, 8)}); };
  w.lea_rsp(-kRedZone);
  w.undo(p.address, kRedZone);
  w.push(p.scratch);
  w.undo(p.address, kRedZone + 8, {saved(p.scratch, 0)});
  w.push(p.second);
  before();
  w.lea_stack(p.second, kPushed);
  before();
  w.load_constant(p.scratch, p.target.value);
  before();
  w.raw(p.rewritten_bytes());
  w.step_on(p.end());
  w.load_stack(p.scratch, 8, 8);
  w.step_on(p.end());
  w.store_stack(p.second, 8, 8);
  w.step_on(p.end());
  w.pop(p.second);
  w.step_on(p.end());
  w.raw({0x5c}); // pop %rsp
}

void emit_lea(CodeWriter& w, const PlannedInstruction& p) {
  w.exact(p.address);
  uint8_t low = p.constant_to & 7;
  bool high = p.constant_to & 8;
  if (p.operand_size == 8) {
    constexpr size_t kLength = 7; // redundant prefixes are not kept
    if (!w.reaches(p.target, kLength))
      return w.load_constant(p.constant_to, p.target.value);
    w.raw({static_cast<uint8_t>(high ? 0x4c : 0x48), 0x8d, static_cast<uint8_t>(0x05 | low << 3)});
    return w.rel32(p.target);
  }
  if (p.operand_size == 2)
    w.raw({0x66});
  if (high)
    w.raw({0x41});
  w.raw({static_cast<uint8_t>(0xb8 + low)});
  if (p.operand_size == 2)
    w.raw({static_cast<uint8_t>(p.target.value), static_cast<uint8_t>(p.target.value >> 8)});
  else
    w.u32(static_cast<uint32_t>(p.target.value));
}

void emit_push(CodeWriter& w, const PlannedInstruction& p) {
  w.exact(p.address);
  if (w.reaches(p.target, p.length))
    return with_new_displacement(w, p);
  int size = p.operand_size;
  auto before = [&] { w.undo(p.address, kRedZone + size + 8, {saved(p.scratch, 0)}); };
  w.lea_rsp(-(kRedZone + size));
  w.undo(p.address, kRedZone + size);
  w.push(p.scratch);
  before();
  w.load_constant(p.scratch, p.target.value);
  before();
  load_indirect(w, p, p.scratch, p.scratch);
  before();
  w.store_stack(p.scratch, kRedZone + 8, size); // where push puts it: `size` below the old rsp
  w.undo(p.end(), kRedZone + 8, {saved(p.scratch, 0)});
  w.pop(p.scratch);
  w.undo(p.end(), kRedZone);
  w.lea_rsp(kRedZone);
}

void emit_pop(CodeWriter& w, const PlannedInstruction& p) {
  w.exact(p.address);
  if (w.reaches(p.target, p.length))
    return with_new_displacement(w, p);
  int size = p.operand_size;
  constexpr int kPushed = kRedZone + 16;
  auto before = [&] { w.undo(p.address, kPushed, {saved(p.second, 0), saved(p.scratch, 8)}); };
  w.lea_rsp(-kRedZone);
  w.undo(p.address, kRedZone);
  w.push(p.scratch);
  w.undo(p.address, kRedZone + 8, {saved(p.scratch, 0)});
  w.push(p.second);
  before();
  w.load_constant(p.scratch, p.target.value);
  before();
  w.load_stack(p.second, kPushed, size);
  before();
  store_indirect(w, p, p.second, p.scratch);
  w.undo(p.end(), kPushed + size, {saved(p.second, 0), saved(p.scratch, 8)});
  w.pop(p.second);
  w.undo(p.end(), kRedZone + 8 + size, {saved(p.scratch, 0)});
  w.pop(p.scratch);
  w.undo(p.end(), kRedZone + size);
  w.lea_rsp(kRedZone + size);
}

void emit_jump(CodeWriter& w, const PlannedInstruction& p) {
  w.exact(p.address);
  w.jump(p);
}

void emit_conditional_jump(CodeWriter& w, const PlannedInstruction& p) {
  w.exact(p.address);
  size_t length = p.prefix ? 7 : 6;
  if (w.near_target(p, length)) {
    optional_prefix(w, p.prefix); // a branch hint
    w.raw({0x0f, static_cast<uint8_t>(0x80 | p.condition)});
    if (p.internal_target != PlannedInstruction::kExternal)
      w.internal_rel32(p.internal_target);
    else
      w.rel32(p.target);
    return;
  }
  constexpr uint8_t kFarJump = 14;
  w.raw({static_cast<uint8_t>(0x70 | (p.condition ^ 1)), kFarJump});
  w.exact(p.target); // taken: nothing is left to do but go there
  w.raw({0xff, 0x25, 0, 0, 0, 0});
  w.u64(p.target.value);
}

void emit_loop(CodeWriter& w, const PlannedInstruction& p) {
  auto jump_size = static_cast<uint8_t>(w.jump_size(p));
  uint8_t opcode = p.bytes[p.length - 2u];
  w.exact(p.address);
  optional_prefix(w, p.prefix); // address size: counts in ecx
  w.raw({opcode, 0x02});
  w.exact(p.end()); // not taken; loop has counted
  w.raw({0xeb, jump_size});
  w.exact(p.target);
  size_t start = w.size();
  if (jump_size == 5) {
    w.jump(p);
  } else {
    w.raw({0xff, 0x25, 0, 0, 0, 0});
    w.u64(p.target.value);
  }
  DUNE_ASSERT(w.size() - start == jump_size);
}

void emit_call(CodeWriter& w, const PlannedInstruction& p) {
  push_return_address(w, p);
  w.exact(p.target); // the call has happened
  w.jump(p);
}

// The operand cannot be rsp here, so that pushing first does not change it.
void emit_call_register(CodeWriter& w, const PlannedInstruction& p) {
  push_return_address(w, p);
  w.undo(p.address, 8);
  w.raw(p.rewritten_bytes()); // jmp *reg
}

// Reads the operand before it writes the return address, as the processor does: pushed below the
// red zone, from where ret takes it. A signal between the store and ret undoes the call, which then
// reads its operand again: the same, unless another register than rsp pointed at the slot below it
// (an rbp-based call in a function without a frame, which no compiler makes).
void emit_call_memory(CodeWriter& w, const PlannedInstruction& p) {
  constexpr int kRoom = kRedZone + 8;
  w.exact(p.address);
  w.lea_rsp(-kRoom);
  w.undo(p.address, kRoom);
  w.raw(p.rewritten_bytes()); // push operand
  auto before = [&] { w.undo(p.address, kRoom + 8); };
  store_return_address(w, p, kRoom, before);
  before();
  return_over_red_zone(w);
}

namespace {

// A call through a scratch register that `load` fills (its boundaries with it), pushed at rsp.
template <class Load>
void call_through_scratch(CodeWriter& w, const PlannedInstruction& p, Load&& load) {
  constexpr int kRoom = kRedZone + 8;
  auto before = [&] { w.undo(p.address, kRoom + 8, {saved(p.scratch, 0)}); };
  w.exact(p.address);
  w.lea_rsp(-kRoom);
  w.undo(p.address, kRoom);
  w.push(p.scratch);
  load(before);
  store_return_address(w, p, kRoom, before);
  before();
  xchg_with_top(w, p.scratch);
  w.undo(p.address, kRoom + 8);
  return_over_red_zone(w);
}

} // namespace

void emit_call_rsp(CodeWriter& w, const PlannedInstruction& p) {
  call_through_scratch(w, p, [&](auto& before) {
    before();
    w.lea_stack(p.scratch, kRedZone + 16);
  });
}

// A word at a fixed distance from the code is taken not to be the stack slot below rsp, so that
// near calls (each one through the GOT) may push first and keep the branch predictor's jmp.
void emit_call_rip(CodeWriter& w, const PlannedInstruction& p) {
  size_t jump_length = p.prefix ? 7 : 6;
  constexpr size_t kPushLength = 13;
  if (w.reaches(p.target, jump_length) && w.reaches(p.target, jump_length + kPushLength)) {
    push_return_address(w, p);
    w.undo(p.address, 8);
    optional_prefix(w, p.prefix);
    w.raw({0xff, 0x25}); // jmp *disp(%rip)
    w.rel32(p.target);
    return;
  }
  call_through_scratch(w, p, [&](auto& before) {
    before();
    w.load_constant(p.scratch, p.target.value);
    before();
    load_indirect(w, p, p.scratch, p.scratch);
  });
}

void emit_jump_rip(CodeWriter& w, const PlannedInstruction& p) {
  w.exact(p.address);
  if (w.reaches(p.target, p.length))
    return with_new_displacement(w, p);
  auto before = [&] { w.undo(p.address, kRedZone + 8, {saved(p.scratch, 0)}); };
  w.lea_rsp(-kRedZone);
  w.undo(p.address, kRedZone);
  w.push(p.scratch);
  before();
  w.load_constant(p.scratch, p.target.value);
  before();
  load_indirect(w, p, p.scratch, p.scratch);
  before();
  xchg_with_top(w, p.scratch);
  w.undo(p.address, kRedZone + 8);
  return_over_red_zone(w);
}

void emit_syscall(CodeWriter& w, const PlannedInstruction& p) {
  w.exact(p.address);
  w.mark_syscall();
  w.raw(p.original());
  if (p.bytes[p.length - 2u] == 0x0f) { // int $0x80 does not touch rcx
    constexpr uint8_t kRcx = 1;
    w.exact(p.end());
    w.load_constant(kRcx, p.end().value);
  }
}

} // namespace dune::disasm
