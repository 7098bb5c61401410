// Arithmetic, control and locations in compiled expressions.
#include "dtrace-lite/expr/compiler.h"

#include <algorithm>

namespace ddbg::expr {

using dune::disasm::Binary;
using dune::disasm::Compare;
using dune::disasm::Extend;
using dune::disasm::Label;
using dune::disasm::Unary;
using dune::disasm::Width;
using symbols::LocationOp;

namespace {

struct ArithmeticRow {
  Op op;
  Binary binary;
};
constexpr ArithmeticRow kArithmetic[] = {
    {Op::kAdd, Binary::kAdd},    {Op::kSubtract, Binary::kSub}, {Op::kMultiply, Binary::kMul},
    {Op::kBitAnd, Binary::kAnd}, {Op::kBitOr, Binary::kOr},     {Op::kBitXor, Binary::kXor},
};

struct CompareRow {
  Op op;
  LocationOp location_op; // always signed
  Compare if_signed, if_unsigned;
};
constexpr CompareRow kCompare[] = {
    {Op::kEqual, LocationOp::kEqual, Compare::kEqual, Compare::kEqual},
    {Op::kNotEqual, LocationOp::kNotEqual, Compare::kNotEqual, Compare::kNotEqual},
    {Op::kLess, LocationOp::kLess, Compare::kLess, Compare::kBelow},
    {Op::kLessEqual, LocationOp::kLessEqual, Compare::kLessEqual, Compare::kBelowEqual},
    {Op::kGreater, LocationOp::kGreater, Compare::kGreater, Compare::kAbove},
    {Op::kGreaterEqual, LocationOp::kGreaterEqual, Compare::kGreaterEqual, Compare::kAboveEqual},
};

struct LocationRow {
  LocationOp op;
  Binary binary;
};
constexpr LocationRow kLocation[] = {
    {LocationOp::kAdd, Binary::kAdd},      {LocationOp::kSubtract, Binary::kSub},
    {LocationOp::kMultiply, Binary::kMul}, {LocationOp::kAnd, Binary::kAnd},
    {LocationOp::kOr, Binary::kOr},        {LocationOp::kXor, Binary::kXor},
};

bool is_integer(TypeRef type) {
  return (type->is_integral() || type->is_pointer()) && type->size() <= 8;
}

} // namespace

bool Compiler::arithmetic(const Expr& e) {
  for (const Expr* operand : {e.a.get(), e.b.get()})
    if (operand && !is_integer(operand->type))
      return fail(operand->type->stripped()->kind() == TypeKind::kFloat
                      ? "it uses floating point numbers"
                      : "it uses numbers of 128 bits");
  for (const CompareRow& row : kCompare)
    if (row.op == e.op) {
      if (!both(*e.a, *e.b))
        return false;
      emit_.compare(e.a->type->stripped()->is_signed() ? row.if_signed : row.if_unsigned, Reg::rax,
                    Reg::rcx);
      return true;
    }
  switch (e.op) {
  case Op::kNegate:
  case Op::kComplement:
    if (!value(*e.a))
      return false;
    emit_.unary(e.op == Op::kNegate ? Unary::kNegate : Unary::kNot, Reg::rax);
    narrow(e.type);
    return true;
  case Op::kShiftLeft:
  case Op::kShiftRight:
    return shift(e);
  case Op::kDivide:
  case Op::kModulo:
    return divide(e);
  default:
    break;
  }
  for (const ArithmeticRow& row : kArithmetic)
    if (row.op == e.op) {
      if (!both(*e.a, *e.b))
        return false;
      emit_.binary(row.binary, Reg::rax, Reg::rcx);
      narrow(e.type);
      return true;
    }
  return fail("it uses an operation that is not compiled");
}

bool Compiler::divide(const Expr& e) {
  if (!both(*e.a, *e.b))
    return false;
  bool is_signed = e.type->stripped()->is_signed(), is_quotient = e.op == Op::kDivide;
  Label done = emit_.label();
  if (is_signed && e.type->size() == 8) {
    // The least number by -1 raises #DE where C has no answer; here it wraps, and leaves 0.
    Label divide = emit_.label();
    emit_.load_immediate(Reg::rdx, ~uint64_t{0});
    emit_.jump_if(Compare::kNotEqual, Reg::rcx, Reg::rdx, divide);
    if (is_quotient)
      emit_.unary(Unary::kNegate, Reg::rax);
    else
      emit_.load_immediate(Reg::rax, 0);
    emit_.jump(done);
    emit_.bind(divide);
  }
  emit_.binary(is_quotient ? (is_signed ? Binary::kDivSigned : Binary::kDivUnsigned)
                           : (is_signed ? Binary::kModSigned : Binary::kModUnsigned),
               Reg::rax, Reg::rcx);
  emit_.bind(done);
  narrow(e.type);
  return true;
}

bool Compiler::shift(const Expr& e) {
  if (!both(*e.a, *e.b))
    return false;
  bool left = e.op == Op::kShiftLeft, is_signed = e.type->stripped()->is_signed();
  uint64_t width = e.type->size() * 8;
  Label done = emit_.label(), in_range = emit_.label();
  // A negative count is a huge one.
  emit_.load_immediate(Reg::rdx, width);
  emit_.jump_if(Compare::kBelow, Reg::rcx, Reg::rdx, in_range);
  if (!left && is_signed) {
    emit_.load_immediate(Reg::rcx, 63);
    emit_.binary(Binary::kShiftRightSigned, Reg::rax, Reg::rcx);
  } else {
    emit_.load_immediate(Reg::rax, 0);
  }
  emit_.jump(done);
  emit_.bind(in_range);
  emit_.binary(left        ? Binary::kShiftLeft
               : is_signed ? Binary::kShiftRightSigned
                           : Binary::kShiftRight,
               Reg::rax, Reg::rcx);
  emit_.bind(done);
  narrow(e.type);
  return true;
}

bool Compiler::pointer_arithmetic(const Expr& e) {
  if (!is_integer(e.b->type))
    return fail("it uses numbers of 128 bits");
  uint64_t size = std::max<uint64_t>(e.a->type->stripped()->target()->size(), 1);
  if (e.op == Op::kPointerDifference) {
    if (!both(*e.a, *e.b))
      return false;
    emit_.binary(Binary::kSub, Reg::rax, Reg::rcx);
    if (size > 1) {
      emit_.load_immediate(Reg::rcx, size);
      emit_.binary(Binary::kDivSigned, Reg::rax, Reg::rcx);
    }
    return true;
  }
  bool ok = operands([&] { return value(*e.a); },
                     [&] {
                       if (!value(*e.b))
                         return false;
                       multiply(size);
                       return true;
                     });
  if (!ok)
    return false;
  emit_.binary(e.op == Op::kPointerAdd ? Binary::kAdd : Binary::kSub, Reg::rax, Reg::rcx);
  return true;
}

bool Compiler::convert(const Expr& e) {
  if (e.type->stripped()->kind() == TypeKind::kVoid)
    return fail("it is void");
  if (!is_integer(e.type) || !is_integer(e.a->type))
    return fail(e.type->size() == 16 ? "it uses numbers of 128 bits"
                                     : "it uses floating point numbers");
  if (!value(*e.a))
    return false;
  narrow(e.type);
  return true;
}

bool Compiler::logical(const Expr& e) {
  Label other = emit_.label(), done = emit_.label();
  if (!truth(*e.a))
    return false;
  if (e.op == Op::kConditional) {
    emit_.jump_if_zero(Reg::rax, other);
    if (!value(*e.b))
      return false;
    emit_.jump(done);
    emit_.bind(other);
    if (!value(*e.c))
      return false;
  } else {
    if (e.op == Op::kLogicalAnd)
      emit_.jump_if_zero(Reg::rax, done);
    else
      emit_.jump_if_not_zero(Reg::rax, done);
    if (!truth(*e.b))
      return false;
    emit_.bind(other);
  }
  emit_.bind(done);
  return true;
}

// rax = a location's node, as evaluate_node() computes it.
bool Compiler::node(const symbols::LocationPlan& plan, int index, uint64_t bias) {
  if (++nodes_ > 4000)
    return fail("a variable's location is too long");
  const symbols::LocationNode& n = plan.nodes[static_cast<size_t>(index)];
  auto two = [&] {
    return operands([&] { return node(plan, n.a, bias); }, [&] { return node(plan, n.b, bias); });
  };
  for (const LocationRow& row : kLocation)
    if (row.op == n.op) {
      const symbols::LocationNode& second = plan.nodes[static_cast<size_t>(n.b)];
      if (n.op == LocationOp::kAdd && second.op == LocationOp::kConstant) {
        if (!node(plan, n.a, bias))
          return false;
        add_constant(second.value);
        return true;
      }
      if (!two())
        return false;
      emit_.binary(row.binary, Reg::rax, Reg::rcx);
      return true;
    }
  for (const CompareRow& row : kCompare)
    if (row.location_op == n.op) {
      if (!two())
        return false;
      emit_.compare(row.if_signed, Reg::rax, Reg::rcx);
      return true;
    }
  switch (n.op) {
  case LocationOp::kConstant:
    emit_.load_immediate(Reg::rax, n.value);
    return true;
  case LocationOp::kAddress:
    emit_.load_immediate(Reg::rax, n.value + bias);
    return true;
  case LocationOp::kRegister: {
    auto reg = register_by_dwarf(static_cast<int>(n.value));
    return reg ? register_part(*reg, 0, BuiltinTypes::get().unsigned_long)
               : fail("a variable's place depends on a vector register");
  }
  case LocationOp::kCfa:
    if (!options_.cfa)
      return fail("the frame's address is not register + offset here");
    emit_.load(Reg::rax, Reg::rdi, dune::kRegisters[static_cast<size_t>(options_.cfa->base)].offset,
               Width::k64, Extend::kZero);
    add_constant(static_cast<uint64_t>(options_.cfa->offset));
    return true;
  case LocationOp::kLoad:
    if (!node(plan, n.a, bias))
      return false;
    if (n.size != 1 && n.size != 2 && n.size != 4 && n.size != 8)
      return fail("a variable's place is read from an odd number of bytes");
    emit_.load(Reg::rax, Reg::rax, 0, static_cast<Width>(n.size),
               n.is_signed ? Extend::kSign : Extend::kZero);
    return true;
  case LocationOp::kConvert:
    if (!node(plan, n.a, bias))
      return false;
    if (n.size == 1 || n.size == 2 || n.size == 4)
      emit_.extend(Reg::rax, static_cast<Width>(n.size),
                   n.is_signed ? Extend::kSign : Extend::kZero);
    else if (n.size != 8)
      return fail("a variable's place is computed with an odd number of bytes");
    return true;
  case LocationOp::kNegate:
  case LocationOp::kNot:
    if (!node(plan, n.a, bias))
      return false;
    emit_.unary(n.op == LocationOp::kNegate ? Unary::kNegate : Unary::kNot, Reg::rax);
    return true;
  case LocationOp::kShiftLeft:
  case LocationOp::kShiftRight:
  case LocationOp::kShiftRightArithmetic: {
    const symbols::LocationNode& count = plan.nodes[static_cast<size_t>(n.b)];
    if (count.op != LocationOp::kConstant || count.value > 63)
      return fail("a variable's place is computed with a variable shift");
    if (!node(plan, n.a, bias))
      return false;
    emit_.load_immediate(Reg::rcx, count.value);
    emit_.binary(n.op == LocationOp::kShiftLeft    ? Binary::kShiftLeft
                 : n.op == LocationOp::kShiftRight ? Binary::kShiftRight
                                                   : Binary::kShiftRightSigned,
                 Reg::rax, Reg::rcx);
    return true;
  }
  case LocationOp::kTlsAddress:
    return fail("it uses a thread-local variable");
  case LocationOp::kEntryRegister:
    return fail("a variable is only known from its value at the function's entry");
  default:
    return fail("a variable's place is computed by division");
  }
}

} // namespace ddbg::expr
