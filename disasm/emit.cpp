#include "disasm/emit.h"

#include <array>
#include <asmjit/core.h>
#include <asmjit/x86.h>
#include <cstring>

namespace dune::disasm {

namespace x86 = asmjit::x86;

struct Emitter::Impl : asmjit::ErrorHandler {
  TargetAddr address;
  asmjit::CodeHolder code;
  x86::Assembler assembler;
  const char* wrong = nullptr; // the first error
  size_t wrong_at = 0;

  explicit Impl(TargetAddr where) : address(where) {
    asmjit::Environment environment(asmjit::Arch::kX64);
    if (code.init(environment, where.value) != asmjit::kErrorOk) {
      fail("cannot set up the assembler");
      return;
    }
    code.setErrorHandler(this);
    code.attach(&assembler);
  }

  void handleError(asmjit::Error, const char* message, asmjit::BaseEmitter*) override {
    static_cast<void>(message); // not of static storage
    fail("the assembler refused an instruction");
  }

  void fail(const char* what) {
    if (wrong)
      return;
    wrong = what;
    wrong_at = code.isInitialized() ? assembler.offset() : 0;
  }

  x86::Gp reg(Reg which, Width width = Width::k64) {
    // By hardware number; the order of dune::Reg is that of DWARF.
    static constexpr std::array<uint8_t, 16> kNumber = {0, 2, 1,  3,  6,  7,  5,  4,
                                                        8, 9, 10, 11, 12, 13, 14, 15};
    auto index = static_cast<size_t>(which);
    if (index >= kNumber.size()) {
      fail("not a general register");
      index = 0;
    }
    uint32_t number = kNumber[index];
    switch (width) {
    case Width::k8:
      return x86::gpb_lo(number);
    case Width::k16:
      return x86::gpw(number);
    case Width::k32:
      return x86::gpd(number);
    default:
      return x86::gpq(number);
    }
  }

  x86::Mem memory(Reg base, int32_t displacement, Width width) {
    return x86::Mem(reg(base), displacement, static_cast<uint32_t>(width));
  }

  bool reaches(TargetAddr target, size_t length) const {
    auto distance = static_cast<int64_t>(target - (address + assembler.offset() + length));
    return distance == static_cast<int32_t>(distance);
  }

  void embed(std::span<const uint8_t> bytes) { assembler.embed(bytes.data(), bytes.size()); }

  // `opcode` rel32
  void relative(uint8_t opcode, TargetAddr target) {
    std::array<uint8_t, 5> bytes{opcode};
    auto distance = static_cast<uint32_t>(target - (address + assembler.offset() + bytes.size()));
    memcpy(&bytes[1], &distance, sizeof distance);
    embed(bytes);
  }

  void divide(Binary op, Reg to, Reg from);
  void shift(Binary op, Reg to, Reg from);
};

namespace {

// One row per Compare, in its order.
constexpr x86::CondCode kConditions[] = {
    x86::CondCode::kEqual,      x86::CondCode::kNotEqual,   x86::CondCode::kSignedLT,
    x86::CondCode::kSignedLE,   x86::CondCode::kSignedGT,   x86::CondCode::kSignedGE,
    x86::CondCode::kUnsignedLT, x86::CondCode::kUnsignedLE, x86::CondCode::kUnsignedGT,
    x86::CondCode::kUnsignedGE,
};

x86::CondCode condition(Compare op) { return kConditions[static_cast<size_t>(op)]; }

} // namespace

Emitter::Emitter(TargetAddr address) : impl_(std::make_unique<Impl>(address)) {}
Emitter::Emitter(Emitter&&) noexcept = default;
Emitter& Emitter::operator=(Emitter&&) noexcept = default;
Emitter::~Emitter() = default;

void Emitter::load_immediate(Reg to, uint64_t value) {
  // Not xor for zero: moves leave the flags alone.
  if (value <= UINT32_MAX)
    impl_->assembler.mov(impl_->reg(to, Width::k32), static_cast<uint32_t>(value));
  else
    impl_->assembler.mov(impl_->reg(to), value);
}

void Emitter::move(Reg to, Reg from) {
  if (to != from)
    impl_->assembler.mov(impl_->reg(to), impl_->reg(from));
}

void Emitter::load(Reg to, Reg base, int32_t displacement, Width width, Extend extend) {
  auto& a = impl_->assembler;
  x86::Mem from = impl_->memory(base, displacement, width);
  switch (width) {
  case Width::k64:
    a.mov(impl_->reg(to), from);
    break;
  case Width::k32:
    if (extend == Extend::kSign)
      a.movsxd(impl_->reg(to), from);
    else
      a.mov(impl_->reg(to, Width::k32), from);
    break;
  default:
    if (extend == Extend::kSign)
      a.movsx(impl_->reg(to), from);
    else
      a.movzx(impl_->reg(to, Width::k32), from);
  }
}

void Emitter::store(Reg base, int32_t displacement, Reg from, Width width) {
  impl_->assembler.mov(impl_->memory(base, displacement, width), impl_->reg(from, width));
}

void Emitter::load_address(Reg to, Reg base, int32_t displacement) {
  impl_->assembler.lea(impl_->reg(to), impl_->memory(base, displacement, Width::k64));
}

void Emitter::atomic_add(Reg base, int32_t displacement, Reg amount) {
  impl_->assembler.lock().add(impl_->memory(base, displacement, Width::k64), impl_->reg(amount));
}

void Emitter::Impl::divide(Binary op, Reg to, Reg from) {
  if (to != Reg::rax || from == Reg::rax || from == Reg::rdx)
    return fail("division takes rax and a register that is neither rax nor rdx");
  if (op == Binary::kDivSigned || op == Binary::kModSigned) {
    assembler.cqo();
    assembler.idiv(reg(from));
  } else {
    assembler.xor_(x86::edx, x86::edx);
    assembler.div(reg(from));
  }
  if (op == Binary::kModSigned || op == Binary::kModUnsigned)
    assembler.mov(x86::rax, x86::rdx);
}

void Emitter::Impl::shift(Binary op, Reg to, Reg from) {
  if (from != Reg::rcx || to == Reg::rcx)
    return fail("a shift takes its count in rcx and its operand elsewhere");
  if (op == Binary::kShiftLeft)
    assembler.shl(reg(to), x86::cl);
  else if (op == Binary::kShiftRight)
    assembler.shr(reg(to), x86::cl);
  else
    assembler.sar(reg(to), x86::cl);
}

void Emitter::binary(Binary op, Reg to, Reg from) {
  auto& a = impl_->assembler;
  switch (op) {
  case Binary::kAdd:
    a.add(impl_->reg(to), impl_->reg(from));
    break;
  case Binary::kSub:
    a.sub(impl_->reg(to), impl_->reg(from));
    break;
  case Binary::kMul:
    a.imul(impl_->reg(to), impl_->reg(from));
    break;
  case Binary::kAnd:
    a.and_(impl_->reg(to), impl_->reg(from));
    break;
  case Binary::kOr:
    a.or_(impl_->reg(to), impl_->reg(from));
    break;
  case Binary::kXor:
    a.xor_(impl_->reg(to), impl_->reg(from));
    break;
  case Binary::kDivSigned:
  case Binary::kDivUnsigned:
  case Binary::kModSigned:
  case Binary::kModUnsigned:
    impl_->divide(op, to, from);
    break;
  case Binary::kShiftLeft:
  case Binary::kShiftRight:
  case Binary::kShiftRightSigned:
    impl_->shift(op, to, from);
    break;
  }
}

void Emitter::unary(Unary op, Reg reg) {
  if (op == Unary::kNegate)
    impl_->assembler.neg(impl_->reg(reg));
  else
    impl_->assembler.not_(impl_->reg(reg));
}

void Emitter::extend(Reg reg, Width width, Extend extend) {
  auto& a = impl_->assembler;
  bool sign = extend == Extend::kSign;
  switch (width) {
  case Width::k64:
    break;
  case Width::k32:
    if (sign)
      a.movsxd(impl_->reg(reg), impl_->reg(reg, Width::k32));
    else
      a.mov(impl_->reg(reg, Width::k32), impl_->reg(reg, Width::k32));
    break;
  default:
    if (sign)
      a.movsx(impl_->reg(reg), impl_->reg(reg, width));
    else
      a.movzx(impl_->reg(reg, Width::k32), impl_->reg(reg, width));
  }
}

void Emitter::compare(Compare op, Reg to, Reg from) {
  impl_->assembler.cmp(impl_->reg(to), impl_->reg(from));
  impl_->assembler.set(condition(op), impl_->reg(to, Width::k8));
  extend(to, Width::k8, Extend::kZero);
}

void Emitter::compare_with_zero(Compare op, Reg reg) {
  impl_->assembler.cmp(impl_->reg(reg), 0);
  impl_->assembler.set(condition(op), impl_->reg(reg, Width::k8));
  extend(reg, Width::k8, Extend::kZero);
}

Label Emitter::label() { return {impl_->assembler.newLabel().id()}; }
void Emitter::bind(Label label) { impl_->assembler.bind(asmjit::Label(label.id)); }
void Emitter::jump(Label label) { impl_->assembler.jmp(asmjit::Label(label.id)); }

void Emitter::jump_if_zero(Reg reg, Label label) {
  impl_->assembler.test(impl_->reg(reg), impl_->reg(reg));
  impl_->assembler.jz(asmjit::Label(label.id));
}

void Emitter::jump_if_not_zero(Reg reg, Label label) {
  impl_->assembler.test(impl_->reg(reg), impl_->reg(reg));
  impl_->assembler.jnz(asmjit::Label(label.id));
}

void Emitter::jump_if(Compare op, Reg left, Reg right, Label label) {
  impl_->assembler.cmp(impl_->reg(left), impl_->reg(right));
  impl_->assembler.j(condition(op), asmjit::Label(label.id));
}

// Far targets are read from behind the instruction, so that no register is needed.
void Emitter::jump(TargetAddr target) {
  if (impl_->reaches(target, 5))
    return impl_->relative(0xe9, target);
  std::array<uint8_t, 14> bytes{0xff, 0x25}; // jmp *0(%rip)
  memcpy(&bytes[6], &target.value, sizeof target.value);
  impl_->embed(bytes);
}

void Emitter::call(TargetAddr target) {
  if (impl_->reaches(target, 5))
    return impl_->relative(0xe8, target);
  std::array<uint8_t, 16> bytes{0xff, 0x15, 2, 0, 0, 0, 0xeb, 8}; // call *2(%rip); jmp over it
  memcpy(&bytes[8], &target.value, sizeof target.value);
  impl_->embed(bytes);
}

void Emitter::push(Reg reg) { impl_->assembler.push(impl_->reg(reg)); }
void Emitter::pop(Reg reg) { impl_->assembler.pop(impl_->reg(reg)); }
void Emitter::push_flags() { impl_->assembler.pushfq(); }
void Emitter::pop_flags() { impl_->assembler.popfq(); }

void Emitter::prologue(uint32_t frame_bytes) {
  push(Reg::rbp);
  move(Reg::rbp, Reg::rsp);
  if (frame_bytes)
    load_address(Reg::rsp, Reg::rsp, -static_cast<int32_t>((frame_bytes + 15) / 16 * 16));
}

void Emitter::epilogue() {
  impl_->assembler.leave();
  ret();
}

void Emitter::ret() { impl_->assembler.ret(); }
void Emitter::trap() { impl_->assembler.ud2(); }
void Emitter::raw(std::span<const uint8_t> bytes) { impl_->embed(bytes); }
TargetAddr Emitter::address() const { return impl_->address; }
size_t Emitter::offset() const { return impl_->assembler.offset(); }

Result<std::vector<uint8_t>> Emitter::finish() {
  auto failed = [&]() -> Result<std::vector<uint8_t>> {
    return Error{Errc::kInvalid, impl_->wrong, static_cast<int64_t>(impl_->wrong_at)};
  };
  if (impl_->wrong)
    return failed();
  asmjit::CodeHolder& code = impl_->code;
  if (code.hasUnresolvedLinks())
    impl_->fail("a label was jumped to and never bound");
  else if (code.flatten() != asmjit::kErrorOk ||
           code.resolveUnresolvedLinks() != asmjit::kErrorOk ||
           code.relocateToBase(impl_->address.value) != asmjit::kErrorOk)
    impl_->fail("the assembler cannot lay the code out");
  std::vector<uint8_t> bytes(code.codeSize());
  if (!impl_->wrong && code.copyFlattenedData(bytes.data(), bytes.size()) != asmjit::kErrorOk)
    impl_->fail("the assembler cannot copy the code");
  if (impl_->wrong)
    return failed();
  return bytes;
}

} // namespace dune::disasm
