#include "dtrace-lite/expr/compile.h"

#include "dtrace-lite/expr/compiler.h"

#include <bit>

namespace ddbg::expr {
namespace {

using dune::disasm::Binary;
using dune::disasm::Compare;
using dune::disasm::Extend;
using dune::disasm::Width;

constexpr Reg kKept[] = {Reg::rsi, Reg::r8, Reg::r9, Reg::r10, Reg::r11};
// More code than this is not a condition; DWARF can describe trees that share nodes, which are
// expanded here.
constexpr size_t kMaxNodes = 4000;

Extend extend_of(TypeRef type) {
  return type->stripped()->is_signed() ? Extend::kSign : Extend::kZero;
}

Checked<std::vector<uint8_t>> compile(const Expression& expression, const CompileOptions& options,
                                      bool (Compiler::*what)(const Expr&)) {
  Compiler compiler(options);
  if (expression.is_type)
    return Diagnostic{"it is a type", "", {}};
  if (!(compiler.*what)(*expression.root))
    return Diagnostic{compiler.problem(), "", {}};
  compiler.emitter().ret();
  auto code = compiler.emitter().finish();
  if (!code)
    return to_diagnostic(code.error());
  return std::move(*code);
}

} // namespace

Checked<std::vector<uint8_t>> compile_value(const Expression& expression,
                                            const CompileOptions& options) {
  return compile(expression, options, &Compiler::value);
}

Checked<std::vector<uint8_t>> compile_predicate(const Expression& expression,
                                                const CompileOptions& options) {
  return compile(expression, options, &Compiler::truth);
}

void Compiler::keep() {
  if (kept_ < std::size(kKept))
    emit_.move(kKept[kept_], Reg::rax);
  else
    emit_.push(Reg::rax);
  kept_++;
}

void Compiler::take_back() {
  kept_--;
  if (kept_ < std::size(kKept))
    emit_.move(Reg::rax, kKept[kept_]);
  else
    emit_.pop(Reg::rax);
}

void Compiler::add_constant(uint64_t n) {
  if (n == 0)
    return;
  auto displacement = static_cast<int64_t>(n);
  if (displacement == static_cast<int32_t>(displacement)) {
    emit_.load_address(Reg::rax, Reg::rax, static_cast<int32_t>(displacement));
  } else {
    emit_.load_immediate(Reg::rcx, n);
    emit_.binary(Binary::kAdd, Reg::rax, Reg::rcx);
  }
}

void Compiler::multiply(uint64_t n) {
  if (n == 1)
    return;
  emit_.load_immediate(Reg::rcx,
                       std::has_single_bit(n) ? static_cast<uint64_t>(std::countr_zero(n)) : n);
  emit_.binary(std::has_single_bit(n) ? Binary::kShiftLeft : Binary::kMul, Reg::rax, Reg::rcx);
}

// Brings a 64-bit result back into its type.
void Compiler::narrow(TypeRef type) {
  if (type->stripped()->kind() == TypeKind::kBool)
    emit_.compare_with_zero(Compare::kNotEqual, Reg::rax);
  else if (type->size() < 8)
    emit_.extend(Reg::rax, static_cast<Width>(type->size()), extend_of(type));
}

bool Compiler::load(TypeRef type) {
  uint64_t size = type->size();
  if (type->stripped()->kind() == TypeKind::kFloat)
    return fail("it uses floating point numbers");
  if (!type->is_scalar() || !std::has_single_bit(size) || size > 8)
    return fail("it uses a value of type " + type->name() + " as a whole");
  emit_.load(Reg::rax, Reg::rax, 0, static_cast<Width>(size), extend_of(type));
  return true;
}

bool Compiler::register_part(Reg reg, unsigned offset, TypeRef type) {
  uint64_t size = type->size();
  if (type->stripped()->kind() == TypeKind::kFloat)
    return fail("it uses floating point numbers");
  if (!type->is_scalar() || !std::has_single_bit(size) || size > 8)
    return fail("it uses a value of type " + type->name() + " as a whole");
  unsigned at = dune::kRegisters[static_cast<size_t>(reg)].offset + offset;
  emit_.load(Reg::rax, Reg::rdi, static_cast<int32_t>(at), static_cast<Width>(size),
             extend_of(type));
  return true;
}

bool Compiler::constant(const Value& value) {
  TypeRef type = value.type->stripped();
  if (type->kind() == TypeKind::kFloat)
    return fail("it uses floating point numbers");
  if (!type->is_scalar() || type->size() > 8 || value.is_lazy)
    return fail("it uses a value of type " + value.type->name() + " as a whole");
  if (!value.optimized_out.empty() || value.is_synthetic_pointer)
    return fail("it uses a value that is optimized out");
  emit_.load_immediate(Reg::rax, static_cast<uint64_t>(number_of(value)));
  return true;
}

bool Compiler::value(const Expr& e) {
  if (++nodes_ > kMaxNodes)
    return fail("it is too long");
  switch (e.op) {
  case Op::kConstant:
    return constant(e.constant);
  case Op::kRegister:
    return register_part(e.reg, e.register_offset, e.type);
  case Op::kNamed:
    return fail("it uses the register $" + e.name);
  case Op::kConvenience:
    return fail("it uses the convenience variable $" + e.name);
  case Op::kVariable:
    return variable(e);
  case Op::kDecay:
  case Op::kAddressOf:
    return address(*e.a);
  case Op::kMember:
    if (e.member.bit_size)
      return address(*e.a) && bit_field(e.member);
    return address(e) && load(e.type);
  case Op::kAt:
  case Op::kDereference:
  case Op::kElement:
  case Op::kReinterpret:
    return address(e) && load(e.type);
  case Op::kConvert:
    return convert(e);
  case Op::kNot:
    if (!truth(*e.a))
      return false;
    emit_.compare_with_zero(Compare::kEqual, Reg::rax);
    return true;
  case Op::kLogicalAnd:
  case Op::kLogicalOr:
  case Op::kConditional:
    return logical(e);
  case Op::kComma:
    return value(*e.a) && value(*e.b);
  case Op::kRepeat:
    return fail("it uses an array made by @");
  case Op::kAssign:
  case Op::kPostAssign:
    return fail("it assigns");
  case Op::kPointerAdd:
  case Op::kPointerSubtract:
  case Op::kPointerDifference:
    return pointer_arithmetic(e);
  default:
    return arithmetic(e);
  }
}

bool Compiler::truth(const Expr& e) {
  if (e.type->stripped()->kind() == TypeKind::kArray) // its address, which is not 0
    return address(e) && (emit_.compare_with_zero(Compare::kNotEqual, Reg::rax), true);
  if (!value(e))
    return false;
  emit_.compare_with_zero(Compare::kNotEqual, Reg::rax);
  return true;
}

bool Compiler::address(const Expr& e) {
  if (++nodes_ > kMaxNodes)
    return fail("it is too long");
  switch (e.op) {
  case Op::kAt:
    emit_.load_immediate(Reg::rax, e.symbol.address.value);
    return true;
  case Op::kDereference:
    return value(*e.a);
  case Op::kReinterpret:
    return address(*e.a);
  case Op::kRepeat:
    return fail("it uses an array made by @");
  case Op::kMember:
    if (e.member.is_virtual)
      return fail("it uses a virtual base class");
    if (e.member.bit_size)
      return fail("it takes the address of a bit field");
    if (!address(*e.a))
      return false;
    add_constant(e.member.bit_offset / 8);
    return true;
  case Op::kElement: {
    uint64_t size = e.type->size();
    return operands([&] { return address(*e.a); },
                    [&] {
                      if (!value(*e.b))
                        return false;
                      multiply(size);
                      return true;
                    }) &&
           (emit_.binary(Binary::kAdd, Reg::rax, Reg::rcx), true);
  }
  case Op::kVariable: {
    auto plan = e.symbol.table->plan(e.symbol.variable, e.symbol.pc);
    if (!plan)
      return fail(plan.error().message);
    if (plan->memory_node() < 0)
      return fail("\"" + e.symbol.name + "\" is not in memory here");
    return node(*plan, plan->memory_node(), e.symbol.bias);
  }
  case Op::kConstant:
    if (e.constant.place == Value::Place::kMemory && !e.constant.bit_size) {
      emit_.load_immediate(Reg::rax, e.constant.address.value);
      return true;
    }
    return fail("it uses a value that is not in memory");
  default:
    return fail("it uses a value that is not in memory");
  }
}

bool Compiler::variable(const Expr& e) {
  auto plan = e.symbol.table->plan(e.symbol.variable, e.symbol.pc);
  if (!plan)
    return fail(plan.error().message);
  if (plan->is_optimized_out())
    return fail("\"" + e.symbol.name + "\" is optimized out here");
  if (plan->pieces.size() != 1)
    return fail("\"" + e.symbol.name + "\" is in several pieces here");
  const symbols::PlannedPiece& piece = plan->pieces[0];
  switch (piece.kind) {
  case symbols::PlannedPiece::Kind::kMemory:
    return node(*plan, piece.node, e.symbol.bias) && load(e.type);
  case symbols::PlannedPiece::Kind::kRegister: {
    auto reg = register_by_dwarf(piece.dwarf_register);
    if (!reg)
      return fail("\"" + e.symbol.name + "\" is in a vector register here");
    return register_part(*reg, 0, e.type);
  }
  case symbols::PlannedPiece::Kind::kValue:
    if (!e.type->is_integral() && !e.type->is_pointer())
      return fail("\"" + e.symbol.name + "\" is not in memory here");
    if (!node(*plan, piece.node, e.symbol.bias))
      return false;
    if (e.type->size() < 8)
      emit_.extend(Reg::rax, static_cast<Width>(e.type->size()), extend_of(e.type));
    return true;
  case symbols::PlannedPiece::Kind::kBytes: {
    uint64_t size = e.type->size();
    if (!e.type->is_scalar() || size > 8 || piece.bytes.size() < size ||
        e.type->stripped()->kind() == TypeKind::kFloat)
      return fail("\"" + e.symbol.name + "\" is a constant that is not an integer");
    Wide number = read_integer(std::span(piece.bytes).first(size), e.type->stripped()->is_signed());
    emit_.load_immediate(Reg::rax, static_cast<uint64_t>(number));
    return true;
  }
  default:
    return fail("\"" + e.symbol.name + "\" is optimized out here");
  }
}

// rax: the enclosing object. Reads only the bytes that hold the field.
bool Compiler::bit_field(const symbols::Member& member) {
  uint64_t first = member.bit_offset / 8, shift = member.bit_offset % 8;
  uint64_t count = (shift + member.bit_size + 7) / 8;
  if (count > 8)
    return fail("it uses a bit field that spans nine bytes");
  emit_.move(Reg::rdx, Reg::rax);
  emit_.load_immediate(Reg::rax, 0);
  for (uint64_t done = 0; done < count;) {
    uint64_t width = std::bit_floor(count - done);
    // From the last part to the first, each pushing the ones after it up.
    uint64_t at = count - done - width;
    emit_.load_immediate(Reg::rcx, width * 8 % 64);
    if (done)
      emit_.binary(Binary::kShiftLeft, Reg::rax, Reg::rcx);
    emit_.load(Reg::rcx, Reg::rdx, static_cast<int32_t>(first + at), static_cast<Width>(width),
               Extend::kZero);
    emit_.binary(Binary::kOr, Reg::rax, Reg::rcx);
    done += width;
  }
  emit_.load_immediate(Reg::rcx, 64 - shift - member.bit_size);
  emit_.binary(Binary::kShiftLeft, Reg::rax, Reg::rcx);
  emit_.load_immediate(Reg::rcx, 64 - member.bit_size);
  emit_.binary(member.type->stripped()->is_signed() ? Binary::kShiftRightSigned
                                                    : Binary::kShiftRight,
               Reg::rax, Reg::rcx);
  return true;
}

} // namespace ddbg::expr
