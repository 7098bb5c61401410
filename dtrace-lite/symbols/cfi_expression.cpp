#include "dtrace-lite/symbols/cfi_expression.h"

#include <array>
#include <dwarf.h>

namespace ddbg::symbols {

std::optional<uint64_t> dwarf_register(const KnownRegisters& registers, uint64_t number) {
  for (size_t i = 0; i < dune::kRegisterCount; i++)
    if (dune::kRegisters[i].dwarf_number >= 0 &&
        static_cast<uint64_t>(dune::kRegisters[i].dwarf_number) == number)
      return registers.get(static_cast<dune::Reg>(i));
  return std::nullopt;
}

namespace {

class Evaluator {
public:
  Evaluator(const KnownRegisters& registers, const MemoryReader& read, std::optional<uint64_t> cfa)
      : registers_(registers), read_(read), cfa_(cfa) {}

  std::optional<ExpressionResult> run(std::span<const Dwarf_Op> operations) {
    constexpr unsigned kMaxSteps = 4096; // DW_OP_skip can go backwards
    unsigned steps = 0;
    for (size_t i = 0; i < operations.size(); i++) {
      const Dwarf_Op& op = operations[i];
      if (++steps > kMaxSteps)
        return std::nullopt;
      if (op.atom >= DW_OP_reg0 && op.atom <= DW_OP_reg31)
        return ExpressionResult{ExpressionResult::Kind::kRegister, op.atom - uint64_t{DW_OP_reg0}};
      if (op.atom == DW_OP_regx)
        return ExpressionResult{ExpressionResult::Kind::kRegister, op.number};
      if (op.atom == DW_OP_stack_value) {
        const uint64_t value = pop();
        return failed_ ? std::nullopt
                       : std::optional(ExpressionResult{ExpressionResult::Kind::kValue, value});
      }
      if (op.atom == DW_OP_skip || (op.atom == DW_OP_bra && pop() != 0)) {
        const uint64_t target = op.offset + 3 + op.number;
        size_t j = 0;
        while (j < operations.size() && operations[j].offset != target)
          j++;
        i = j - 1; // past the last one: the expression ends
        continue;
      }
      step(op);
      if (failed_)
        return std::nullopt;
    }
    const uint64_t address = pop();
    return failed_ ? std::nullopt
                   : std::optional(ExpressionResult{ExpressionResult::Kind::kAddress, address});
  }

private:
  void push(uint64_t v) {
    if (depth_ == stack_.size())
      failed_ = true;
    else
      stack_[depth_++] = v;
  }
  void push(std::optional<uint64_t> v) {
    failed_ |= !v;
    push(v.value_or(0));
  }
  uint64_t pop() {
    if (depth_ == 0) {
      failed_ = true;
      return 0;
    }
    return stack_[--depth_];
  }
  uint64_t peek(uint64_t from_top) {
    if (from_top >= depth_) {
      failed_ = true;
      return 0;
    }
    return stack_[depth_ - 1 - from_top];
  }
  void load(uint64_t size) {
    uint64_t value = 0;
    const uint64_t address = pop();
    if (failed_ || size > 8 ||
        !read_(dune::TargetAddr(address), std::as_writable_bytes(std::span(&value, 1)).first(size)))
      failed_ = true;
    push(value);
  }

  void step(const Dwarf_Op& op) {
    const auto number = static_cast<uint64_t>(op.number);
    if (op.atom >= DW_OP_lit0 && op.atom <= DW_OP_lit31)
      return push(uint64_t{op.atom} - DW_OP_lit0);
    if (op.atom >= DW_OP_breg0 && op.atom <= DW_OP_breg31) {
      const auto base = dwarf_register(registers_, op.atom - uint64_t{DW_OP_breg0});
      return push(base ? std::optional(*base + number) : std::nullopt);
    }
    switch (op.atom) {
    case DW_OP_bregx: {
      const auto base = dwarf_register(registers_, number);
      return push(base ? std::optional(*base + static_cast<uint64_t>(op.number2)) : std::nullopt);
    }
    case DW_OP_addr:
    case DW_OP_const1u:
    case DW_OP_const1s:
    case DW_OP_const2u:
    case DW_OP_const2s:
    case DW_OP_const4u:
    case DW_OP_const4s:
    case DW_OP_const8u:
    case DW_OP_const8s:
    case DW_OP_constu:
    case DW_OP_consts:
      return push(number);
    case DW_OP_call_frame_cfa:
      return push(cfa_);
    case DW_OP_dup:
      return push(peek(0));
    case DW_OP_over:
      return push(peek(1));
    case DW_OP_pick:
      return push(peek(number));
    case DW_OP_drop:
      pop();
      return;
    case DW_OP_swap: {
      const uint64_t a = pop(), b = pop();
      push(a);
      return push(b);
    }
    case DW_OP_rot: {
      const uint64_t a = pop(), b = pop(), c = pop();
      push(a);
      push(c);
      return push(b);
    }
    case DW_OP_deref:
      return load(8);
    case DW_OP_deref_size:
      return load(number);
    case DW_OP_plus_uconst:
      return push(pop() + number);
    case DW_OP_neg:
      return push(uint64_t{0} - pop());
    case DW_OP_not:
      return push(~pop());
    case DW_OP_abs: {
      const uint64_t a = pop();
      return push(static_cast<int64_t>(a) < 0 ? uint64_t{0} - a : a);
    }
    case DW_OP_nop:
      return;
    default:
      return binary(op.atom);
    }
  }

  void binary(uint8_t atom) {
    const uint64_t b = pop(), a = pop();
    const auto sa = static_cast<int64_t>(a), sb = static_cast<int64_t>(b);
    switch (atom) {
    case DW_OP_plus:
      return push(a + b);
    case DW_OP_minus:
      return push(a - b);
    case DW_OP_mul:
      return push(a * b);
    case DW_OP_and:
      return push(a & b);
    case DW_OP_or:
      return push(a | b);
    case DW_OP_xor:
      return push(a ^ b);
    case DW_OP_shl:
      return push(b < 64 ? a << b : 0);
    case DW_OP_shr:
      return push(b < 64 ? a >> b : 0);
    case DW_OP_shra:
      return push(static_cast<uint64_t>(sa >> (b < 64 ? b : 63)));
    case DW_OP_div:
      failed_ |= b == 0;
      // The quotient of the smallest number and -1 does not exist.
      return push(b == 0 ? 0 : sb == -1 ? uint64_t{0} - a : static_cast<uint64_t>(sa / sb));
    case DW_OP_mod:
      failed_ |= b == 0;
      return push(b == 0 ? 0 : a % b);
    case DW_OP_eq:
      return push(uint64_t{a == b});
    case DW_OP_ne:
      return push(uint64_t{a != b});
    case DW_OP_lt:
      return push(uint64_t{sa < sb});
    case DW_OP_le:
      return push(uint64_t{sa <= sb});
    case DW_OP_gt:
      return push(uint64_t{sa > sb});
    case DW_OP_ge:
      return push(uint64_t{sa >= sb});
    default:
      failed_ = true;
    }
  }

  const KnownRegisters& registers_;
  const MemoryReader& read_;
  std::optional<uint64_t> cfa_;
  std::array<uint64_t, 64> stack_{};
  size_t depth_ = 0;
  bool failed_ = false;
};

} // namespace

std::optional<ExpressionResult> evaluate_cfi(std::span<const Dwarf_Op> operations,
                                             const KnownRegisters& registers,
                                             const MemoryReader& read,
                                             std::optional<uint64_t> cfa) {
  return Evaluator(registers, read, cfa).run(operations);
}

} // namespace ddbg::symbols
