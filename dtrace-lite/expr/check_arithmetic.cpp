// The types of arithmetic, comparison, pointers and conversions, by gdb's rules for C and C++.
#include "dtrace-lite/expr/checker.h"

namespace ddbg::expr {
namespace {

struct OperatorOp {
  Token token;
  Op op;
};
constexpr OperatorOp kOperators[] = {
    {Token::kPlus, Op::kAdd},
    {Token::kMinus, Op::kSubtract},
    {Token::kStar, Op::kMultiply},
    {Token::kSlash, Op::kDivide},
    {Token::kPercent, Op::kModulo},
    {Token::kAmpersand, Op::kBitAnd},
    {Token::kBar, Op::kBitOr},
    {Token::kCaret, Op::kBitXor},
    {Token::kShiftLeft, Op::kShiftLeft},
    {Token::kShiftRight, Op::kShiftRight},
    {Token::kEqualEqual, Op::kEqual},
    {Token::kBangEqual, Op::kNotEqual},
    {Token::kLess, Op::kLess},
    {Token::kLessEqual, Op::kLessEqual},
    {Token::kGreater, Op::kGreater},
    {Token::kGreaterEqual, Op::kGreaterEqual},
};

Op op_of(Token token) {
  for (const OperatorOp& row : kOperators)
    if (row.token == token)
      return row.op;
  DUNE_ASSERT(false);
  return Op::kAdd;
}

bool is_float(TypeRef type) { return type->stripped()->kind() == TypeKind::kFloat; }

constexpr const char* kNotANumber = "Argument to arithmetic operation not a number or boolean.";

} // namespace

TypeRef Checker::promoted(TypeRef type) {
  TypeRef plain = type->stripped();
  if (is_float(type))
    return type;
  uint64_t size = plain->size();
  if (size < 4)
    return t_.int_type;
  bool is_signed = plain->is_signed();
  if (size == 4)
    return is_signed ? t_.int_type : t_.unsigned_int;
  if (size == 16)
    return is_signed ? t_.int128 : t_.uint128;
  return is_signed ? t_.long_type : t_.unsigned_long;
}

ExprPtr Checker::unreference(ExprPtr value) {
  if (!value || !value->type->is_reference())
    return value;
  TypeRef target = value->type->stripped()->target();
  size_t column = value->column;
  return make(Op::kDereference, target, column, std::move(value));
}

ExprPtr Checker::rvalue(ExprPtr value) {
  value = unreference(std::move(value));
  if (!value)
    return nullptr;
  size_t column = value->column;
  TypeRef type = value->type->stripped();
  switch (type->kind()) {
  case TypeKind::kNoDebugData:
    return fail("'" + value->symbol.name + "' has unknown type; cast it to its declared type",
                column);
  case TypeKind::kFunction:
  case TypeKind::kNoDebugText:
    return address_of(std::move(value), column);
  case TypeKind::kArray:
    if (type->is_vector())
      return value;
    return make(Op::kDecay, type->target()->pointer(), column, std::move(value));
  default:
    return value;
  }
}

ExprPtr Checker::truth(ExprPtr value) {
  value = rvalue(std::move(value));
  if (!value)
    return nullptr;
  if (!value->type->is_scalar())
    return fail("Attempt to take truth value of something that is not a number or pointer.",
                value->column);
  return value;
}

bool Checker::balance(ExprPtr& a, ExprPtr& b, size_t column) {
  if (!is_number(a->type) || !is_number(b->type)) {
    fail(kNotANumber, column);
    return false;
  }
  TypeRef type;
  if (is_float(a->type) || is_float(b->type)) {
    if (is_float(a->type) && is_float(b->type))
      type = a->type->size() >= b->type->size() ? a->type : b->type;
    else
      type = is_float(a->type) ? a->type : b->type;
  } else {
    TypeRef x = promoted(a->type), y = promoted(b->type);
    if (x->size() != y->size())
      type = x->size() > y->size() ? x : y;
    else
      type = x->is_signed() ? y : x;
  }
  a = convert(std::move(a), type, column);
  b = convert(std::move(b), type, column);
  return a && b;
}

ExprPtr Checker::convert(ExprPtr value, TypeRef type, size_t column) {
  if (!value)
    return nullptr;
  TypeRef from = value->type->stripped(), to = type->stripped();
  if (from == to && value->type == type)
    return value;
  if (to->kind() == TypeKind::kVoid)
    return make(Op::kConvert, type, column, std::move(value));
  bool from_ok = value->type->is_scalar(), to_ok = type->is_scalar();
  bool pointer_and_float = (from->kind() == TypeKind::kPointer && to->kind() == TypeKind::kFloat) ||
                           (from->kind() == TypeKind::kFloat && to->kind() == TypeKind::kPointer);
  if (!from_ok || !to_ok || pointer_and_float) {
    if (from == to)
      return value;
    return fail("Invalid cast.", column);
  }
  // A pointer to a derived object as one to its (first found, non-virtual) base.
  if (from->kind() == TypeKind::kPointer && to->kind() == TypeKind::kPointer) {
    TypeRef derived = from->target()->stripped(), base = to->target()->stripped();
    if (derived->is_record() && base->is_record() && derived != base)
      for (const symbols::Member& m : derived->members())
        if (m.is_base && !m.is_virtual && m.type->stripped() == base && m.bit_offset != 0) {
          ExprPtr part = make(Op::kMember, m.type, column, dereference(std::move(value), column));
          part->member = m;
          ExprPtr pointer = make(Op::kAddressOf, type, column, std::move(part));
          return pointer;
        }
  }
  return make(Op::kConvert, type, column, std::move(value));
}

ExprPtr Checker::dereference(ExprPtr pointer, size_t column) {
  TypeRef type = pointer->type->stripped();
  if (type->kind() == TypeKind::kInt) // gdb: an integer is taken as the address of a long
    return make(Op::kDereference, t_.long_type, column,
                convert(std::move(pointer), t_.long_type->pointer(), column));
  if (type->kind() != TypeKind::kPointer)
    return fail("Attempt to take contents of a non-pointer value.", column);
  TypeKind target = type->target()->stripped()->kind();
  if (target == TypeKind::kVoid)
    return fail("Attempt to dereference a generic pointer.", column);
  return make(Op::kDereference, type->target(), column, std::move(pointer));
}

ExprPtr Checker::address_of(ExprPtr object, size_t column) {
  if (object->type->is_reference()) { // the address of what it refers to
    object = unreference(std::move(object));
    if (!object)
      return nullptr;
  }
  switch (object->op) {
  case Op::kDereference:
  case Op::kVariable:
  case Op::kAt:
  case Op::kMember:
  case Op::kElement:
  case Op::kConstant: // a history value may be in memory
  case Op::kRepeat:
  case Op::kReinterpret:
  case Op::kConvenience:
    break;
  default:
    return fail("Attempt to take address of value not located in memory.", column);
  }
  if (object->op == Op::kMember && object->member.bit_size)
    return fail("Attempt to take address of value not located in memory.", column);
  TypeRef type = object->type->pointer();
  return make(Op::kAddressOf, type, column, std::move(object));
}

ExprPtr Checker::unary(const Node& node) {
  ExprPtr a = visit(*node.a);
  if (!a)
    return nullptr;
  size_t column = node.column;
  switch (node.op) {
  case Token::kAmpersand:
    return address_of(std::move(a), column);
  case Token::kStar: {
    a = unreference(std::move(a));
    if (!a)
      return nullptr;
    if (a->type->stripped()->kind() == TypeKind::kFunction ||
        a->type->stripped()->kind() == TypeKind::kNoDebugText)
      return a;
    a = rvalue(std::move(a));
    return a ? dereference(std::move(a), column) : nullptr;
  }
  case Token::kBang: {
    a = truth(std::move(a));
    return a ? make(Op::kNot, truth_type(), column, std::move(a)) : nullptr;
  }
  default:
    break;
  }
  a = rvalue(std::move(a));
  if (!a)
    return nullptr;
  if (node.op == Token::kTilde) {
    if (!a->type->is_integral())
      return fail("Argument to complement operation not an integer, boolean.", column);
  } else if (!is_number(a->type)) {
    return fail(node.op == Token::kMinus
                    ? "Argument to arithmetic operation not a number or boolean."
                    : "Argument to positive operation not a number.",
                column);
  }
  TypeRef type = promoted(a->type);
  a = convert(std::move(a), type, column);
  if (!a || node.op == Token::kPlus)
    return a;
  return make(node.op == Token::kMinus ? Op::kNegate : Op::kComplement, type, column, std::move(a));
}

ExprPtr Checker::binary(const Node& node) {
  ExprPtr a = visit(*node.a);
  ExprPtr b = a ? visit(*node.b) : nullptr;
  return b ? binary_of(node.op, node.column, std::move(a), std::move(b)) : nullptr;
}

ExprPtr Checker::binary_of(Token token, size_t column, ExprPtr a, ExprPtr b) {
  a = rvalue(std::move(a));
  b = a ? rvalue(std::move(b)) : nullptr;
  if (!b)
    return nullptr;
  Op op = op_of(token);
  switch (op) {
  case Op::kAdd:
  case Op::kSubtract:
    return additive(op, column, std::move(a), std::move(b));
  case Op::kEqual:
  case Op::kNotEqual:
  case Op::kLess:
  case Op::kLessEqual:
  case Op::kGreater:
  case Op::kGreaterEqual:
    return comparison(op, column, std::move(a), std::move(b));
  case Op::kMultiply:
  case Op::kDivide: {
    if (!balance(a, b, column))
      return nullptr;
    TypeRef type = a->type;
    return make(op, type, column, std::move(a), std::move(b));
  }
  default:
    break;
  }
  if (is_number(a->type) && is_number(b->type) && (is_float(a->type) || is_float(b->type)))
    return fail("Integer-only operation on floating point number.", column);
  if (op == Op::kShiftLeft || op == Op::kShiftRight) {
    if (!a->type->is_integral() || !b->type->is_integral())
      return fail(kNotANumber, column);
    TypeRef type = promoted(a->type);
    a = convert(std::move(a), type, column);
    return make(op, type, column, std::move(a), std::move(b));
  }
  if (!balance(a, b, column))
    return nullptr;
  TypeRef type = a->type;
  return make(op, type, column, std::move(a), std::move(b));
}

ExprPtr Checker::additive(Op op, size_t column, ExprPtr a, ExprPtr b) {
  a = rvalue(std::move(a));
  if (!a)
    return nullptr;
  bool a_points = a->type->is_pointer(), b_points = b->type->is_pointer();
  if (!a_points && !b_points) {
    if (!balance(a, b, column))
      return nullptr;
    TypeRef type = a->type;
    return make(op, type, column, std::move(a), std::move(b));
  }
  if (a_points && b_points) {
    if (op == Op::kAdd)
      return fail(kNotANumber, column);
    uint64_t size_a = a->type->stripped()->target()->size();
    if (size_a != b->type->stripped()->target()->size())
      return fail("First argument of `-' is a pointer and second argument is neither\n"
                  "an integer nor a pointer of the same type.",
                  column);
    return make(Op::kPointerDifference, t_.long_type, column, std::move(a), std::move(b));
  }
  if (b_points) {
    if (op == Op::kSubtract)
      return fail(kNotANumber, column);
    std::swap(a, b);
  }
  if (!b->type->is_integral())
    return fail(kNotANumber, column);
  TypeRef type = a->type;
  return make(op == Op::kAdd ? Op::kPointerAdd : Op::kPointerSubtract, type, column, std::move(a),
              std::move(b));
}

ExprPtr Checker::comparison(Op op, size_t column, ExprPtr a, ExprPtr b) {
  bool a_points = a->type->is_pointer(), b_points = b->type->is_pointer();
  if (a_points || b_points) {
    if ((!a_points && !a->type->is_integral()) || (!b_points && !b->type->is_integral()))
      return fail("Argument to comparison operation not integer, boolean, pointer or reference.",
                  column);
    // Addresses compare unsigned; an integer beside one is cut or extended to an address.
    a = convert(std::move(a), t_.unsigned_long, column);
    b = convert(std::move(b), t_.unsigned_long, column);
  } else if (!balance(a, b, column)) {
    return nullptr;
  }
  if (!a || !b)
    return nullptr;
  return make(op, truth_type(), column, std::move(a), std::move(b));
}

ExprPtr Checker::conditional(const Node& node) {
  ExprPtr condition = visit(*node.a);
  condition = condition ? truth(std::move(condition)) : nullptr;
  ExprPtr b = condition ? visit(*node.b) : nullptr;
  ExprPtr c = b ? visit(*node.c) : nullptr;
  if (!c)
    return nullptr;
  if (b->type->stripped() != c->type->stripped()) {
    b = rvalue(std::move(b));
    c = b ? rvalue(std::move(c)) : nullptr;
    if (!c)
      return nullptr;
    if (is_number(b->type) && is_number(c->type)) {
      if (!balance(b, c, node.column))
        return nullptr;
    } else if (b->type->is_pointer()) {
      c = convert(std::move(c), b->type, node.column);
    } else if (c->type->is_pointer()) {
      b = convert(std::move(b), c->type, node.column);
    } else {
      return fail("The two branches of ?: have different types.", node.column);
    }
  }
  if (!b || !c)
    return nullptr;
  TypeRef type = b->type;
  return make(Op::kConditional, type, node.column, std::move(condition), std::move(b),
              std::move(c));
}

std::optional<Wide> integer_operation(Op op, TypeRef type, Wide a, Wide b) {
  // Two's complement without overflow traps: compute unsigned, then wrap.
  auto ua = static_cast<UnsignedWide>(a), ub = static_cast<UnsignedWide>(b);
  bool is_signed = type->stripped()->is_signed();
  auto width = Wide{type->size()} * 8;
  auto result = [&](UnsignedWide value) { return wrap(type, static_cast<Wide>(value)); };
  switch (op) {
  case Op::kAdd:
    return result(ua + ub);
  case Op::kSubtract:
    return result(ua - ub);
  case Op::kMultiply:
    return result(ua * ub);
  case Op::kDivide:
    if (b == 0)
      return std::nullopt;
    if (is_signed && b == -1)
      return result(0 - ua);
    return result(is_signed ? static_cast<UnsignedWide>(a / b) : ua / ub);
  case Op::kModulo:
    if (b == 0)
      return std::nullopt;
    if (is_signed && b == -1)
      return 0;
    return result(is_signed ? static_cast<UnsignedWide>(a % b) : ua % ub);
  case Op::kBitAnd:
    return result(ua & ub);
  case Op::kBitOr:
    return result(ua | ub);
  case Op::kBitXor:
    return result(ua ^ ub);
  case Op::kShiftLeft:
    return b < 0 || b >= width ? 0 : result(ua << static_cast<unsigned>(b));
  case Op::kShiftRight:
    if (b < 0 || b >= width)
      return is_signed && a < 0 ? wrap(type, -1) : 0;
    return result(is_signed ? static_cast<UnsignedWide>(a >> static_cast<unsigned>(b))
                            : ua >> static_cast<unsigned>(b));
  default:
    DUNE_ASSERT(false);
    return std::nullopt;
  }
}

bool compare(Op op, Wide a, Wide b) {
  switch (op) {
  case Op::kEqual:
    return a == b;
  case Op::kNotEqual:
    return a != b;
  case Op::kLess:
    return a < b;
  case Op::kLessEqual:
    return a <= b;
  case Op::kGreater:
    return a > b;
  default:
    return a >= b;
  }
}

} // namespace ddbg::expr
