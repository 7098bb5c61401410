// Emission of x86-64 code that will lie at a known address: conditions, trace actions, trampolines.
// asmjit behind it, which does not show. General registers only, no relocations, no calls but those
// asked for; the code runs wherever its bytes are put at its address, without a libc.
//
//   Emitter e(address);
//   e.prologue(0);                                  // uint64_t condition(const Registers* rdi)
//   e.load(Reg::rax, Reg::rdi, offsetof(Registers, rsi), Width::k64, Extend::kZero);
//   e.load_immediate(Reg::rcx, 7);
//   e.compare(Compare::kEqual, Reg::rax, Reg::rcx); // rax = rax == rcx
//   e.epilogue();
//   auto bytes = e.finish();
//
// Registers. Arguments come in rdi, rsi, rdx, rcx and the result goes out in rax, as in the psABI;
// rbx, rbp, rsp, r12 to r15 are to be kept by whoever uses them (prologue keeps rbp). The emitter
// touches nothing but what a call names, except: division takes and leaves its operand in rax and
// clobbers rdx; a shift takes its count in rcx. Operations are 64 bits wide: extend() brings a
// narrower type's result back into its range. Flags are clobbered by everything but moves, loads
// and stores.
//
// An error (a wrong operand, an unbound label) is kept and told by finish(): no call needs
// checking.
#pragma once

#include "libdune/arch/registers.h"
#include "libdune/base/result.h"
#include "libdune/base/types.h"

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace dune::disasm {

enum class Width : uint8_t { k8 = 1, k16 = 2, k32 = 4, k64 = 8 }; // bytes
enum class Extend : uint8_t { kZero, kSign }; // of what is narrower than 64 bits

enum class Binary : uint8_t {
  kAdd,
  kSub,
  kMul, // the low 64 bits: signed and unsigned alike
  kAnd,
  kOr,
  kXor,
  // to: rax; from: neither rax nor rdx; rdx is clobbered. Division by zero, and of the least number
  // by -1, raise #DE: the runner counts it as a fault, or the compiler tests before.
  kDivSigned,
  kDivUnsigned,
  kModSigned,
  kModUnsigned,
  // from: rcx, of which the processor takes the low six bits; to: not rcx.
  kShiftLeft,
  kShiftRight,
  kShiftRightSigned,
};

enum class Unary : uint8_t { kNegate, kNot };

enum class Compare : uint8_t {
  kEqual,
  kNotEqual,
  kLess, // signed
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kBelow, // unsigned
  kBelowEqual,
  kAbove,
  kAboveEqual,
};

struct Label {
  uint32_t id;
};

class Emitter {
public:
  explicit Emitter(TargetAddr address);
  Emitter(Emitter&&) noexcept;
  Emitter& operator=(Emitter&&) noexcept;
  ~Emitter();

  // Moves and memory. The address is base + displacement.
  void load_immediate(Reg to, uint64_t value);
  void move(Reg to, Reg from);
  void load(Reg to, Reg base, int32_t displacement, Width width, Extend extend);
  void store(Reg base, int32_t displacement, Reg from, Width width);
  void load_address(Reg to, Reg base, int32_t displacement); // lea: no flags
  // 64-bit `lock add`, for counters that several threads count in.
  void atomic_add(Reg base, int32_t displacement, Reg amount);

  // Arithmetic: to = to op from.
  void binary(Binary op, Reg to, Reg from);
  void unary(Unary op, Reg reg);
  void extend(Reg reg, Width width, Extend extend);
  // to = (to op from) ? 1 : 0
  void compare(Compare op, Reg to, Reg from);
  void compare_with_zero(Compare op, Reg reg);

  // Control.
  Label label();
  void bind(Label label);
  void jump(Label label);
  void jump_if_zero(Reg reg, Label label);
  void jump_if_not_zero(Reg reg, Label label);
  void jump_if(Compare op, Reg left, Reg right, Label label);
  // To places outside the code, however far; no register is used.
  void jump(TargetAddr target);
  void call(TargetAddr target);

  // Stack. The red zone is the caller's own to skip: load_address(rsp, rsp, -128).
  void push(Reg reg);
  void pop(Reg reg);
  void push_flags();
  void pop_flags();
  // push %rbp; mov %rsp,%rbp; room for `frame_bytes` (rounded up to 16) below rbp.
  void prologue(uint32_t frame_bytes);
  void epilogue(); // leave; ret: with what is in rax
  void ret();
  void trap(); // ud2: must not be reached

  // Bytes as they are, for displaced copies: commit them for address() + offset().
  void raw(std::span<const uint8_t> bytes);
  TargetAddr address() const;
  size_t offset() const; // bytes so far

  // The code, or the first thing that was wrong with it (kInvalid). Once.
  Result<std::vector<uint8_t>> finish();

private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

} // namespace dune::disasm
