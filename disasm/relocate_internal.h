// Inside disasm/ only: what plan hands to commit, and the writer that commit emits with.
#pragma once

#include "disasm/relocate.h"

#include <array>
#include <cstring>
#include <initializer_list>

namespace dune::disasm {

inline constexpr int kRedZone = 128;

class CodeWriter;

struct PlannedInstruction {
  static constexpr uint8_t kExternal = 0xff;

  // Appends the displaced instruction. One function per strategy (relocate_emit.cpp).
  void (*emit)(CodeWriter&, const PlannedInstruction&) = nullptr;
  TargetAddr address;
  std::array<uint8_t, 15> bytes{}; // the original
  uint8_t length = 0;
  uint8_t disp_offset = 0; // of the rip-relative displacement in `bytes`
  TargetAddr target;       // of the branch, or the rip-relative operand's address

  // For a direct branch to another instruction of the same copy: its index.
  uint8_t internal_target = kExternal;
  uint8_t condition = 0;    // of jcc
  uint8_t prefix = 0;       // the one that has to be kept: hint, segment or address size; 0: none
  uint8_t operand_size = 8; // of push, pop and lea
  uint8_t constant_to = 0;  // lea's destination, a hardware register number
  uint8_t scratch = 0;      // hardware number of a register among the first eight
  uint8_t second = 0;       // another
  // The instruction with its operand (or opcode) rewritten, where a strategy needs one.
  std::array<uint8_t, 24> rewritten{};
  uint8_t rewritten_length = 0;

  TargetAddr end() const { return address + length; }
  std::span<const uint8_t> original() const { return {bytes.data(), length}; }
  std::span<const uint8_t> rewritten_bytes() const { return {rewritten.data(), rewritten_length}; }
};

// Strategies. "Near" and "far": does a 32-bit displacement reach from where the copy goes?
void emit_verbatim(CodeWriter&, const PlannedInstruction&);
void emit_rip_operand(CodeWriter&, const PlannedInstruction&);
void emit_rip_operand_with_rsp(CodeWriter&, const PlannedInstruction&);
void emit_lea(CodeWriter&, const PlannedInstruction&);
void emit_push(CodeWriter&, const PlannedInstruction&);
void emit_pop(CodeWriter&, const PlannedInstruction&);
void emit_jump(CodeWriter&, const PlannedInstruction&);
void emit_conditional_jump(CodeWriter&, const PlannedInstruction&);
void emit_loop(CodeWriter&, const PlannedInstruction&);
void emit_call(CodeWriter&, const PlannedInstruction&);
void emit_call_register(CodeWriter&, const PlannedInstruction&);
void emit_call_rsp(CodeWriter&, const PlannedInstruction&);
void emit_call_memory(CodeWriter&, const PlannedInstruction&);
void emit_call_rip(CodeWriter&, const PlannedInstruction&);
void emit_jump_rip(CodeWriter&, const PlannedInstruction&);
void emit_syscall(CodeWriter&, const PlannedInstruction&);

enum class Reach : uint8_t {
  kAsPlaced,
  kAlwaysFar, // as if nothing were near: for the size
};

class CodeWriter {
public:
  CodeWriter(TargetAddr destination, Reach reach) : destination_(destination), reach_(reach) {}

  // Boundaries: each is the state before the instruction that is written next.
  void exact(TargetAddr original);
  void undo(TargetAddr original, int rsp_add, std::initializer_list<SavedRegister> saved = {});
  void step_on(TargetAddr original);
  void begin_instruction(size_t index); // of the plan: where internal branches to it go
  void mark_syscall();

  void raw(std::span<const uint8_t> bytes);
  void raw(std::initializer_list<uint8_t> bytes) { raw({bytes.begin(), bytes.size()}); }
  void u32(uint32_t value);
  void u64(uint64_t value);

  // Does a 32-bit displacement, counted from `length` bytes behind here, reach `target`?
  bool reaches(TargetAddr target, size_t length) const;
  void rel32(TargetAddr target,
             size_t bytes_behind = 0); // bytes_behind: between here+4 and the end

  void jump(const PlannedInstruction& p); // to p's target, whatever its distance
  void jump(TargetAddr target);
  size_t jump_size(const PlannedInstruction& p) const;
  bool near_target(const PlannedInstruction& p, size_t length) const;
  void internal_rel32(size_t index);

  void lea_rsp(int displacement); // lea displacement(%rsp),%rsp: no flags
  void push(uint8_t reg) { raw({static_cast<uint8_t>(0x50 + reg)}); }
  void pop(uint8_t reg) { raw({static_cast<uint8_t>(0x58 + reg)}); }
  void load_constant(uint8_t reg, uint64_t value); // any of the sixteen
  // mov between a register (first eight) and disp32(%rsp), `size` 8 or 2 bytes.
  void load_stack(uint8_t reg, int displacement, int size);
  void store_stack(uint8_t reg, int displacement, int size);
  void lea_stack(uint8_t reg, int displacement);

  size_t size() const { return out_.bytes.size(); }
  Relocated finish(); // resolves internal branches

private:
  void add(const Boundary& boundary) { out_.boundaries.push_back(boundary); }
  void stack_operand(uint8_t opcode, uint8_t reg, int displacement, int size);

  struct Fixup {
    size_t at; // of the rel32
    size_t index;
  };
  TargetAddr destination_;
  Reach reach_;
  Relocated out_;
  std::vector<size_t> starts_;
  std::vector<Fixup> fixups_;
};

// The most that commit can need for these, wherever they go.
size_t copy_size_limit(const std::vector<PlannedInstruction>& instructions);

Reg reg_of(uint8_t hardware_number);

} // namespace dune::disasm
