// A checked expression: every name resolved, every conversion explicit, every node with its type.
// evaluate() and compile() both work on this and nothing else, so they mean the same.
#pragma once

#include "dtrace-lite/expr/context.h"
#include "dtrace-lite/expr/syntax.h"

namespace ddbg::expr {

enum class Op : uint8_t {
  kConstant,    // constant
  kVariable,    // symbol
  kRegister,    // reg, register_offset, type's size
  kNamed,       // a register outside dune::Registers: name
  kConvenience, // name
  kAt,          // a lies at address (of `symbol`: functions, symbols without debug information)
  kDereference, // what pointer, integer or reference a points to
  kAddressOf,
  kMember,      // a.member
  kElement,     // a[b] of an array that is not in memory
  kDecay,       // array a as a pointer to its first element
  kConvert,     // a as `type`
  kReinterpret, // the bytes of a as `type`
  kRepeat,      // a @ b
  kNegate,
  kComplement,
  kNot,
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kModulo, // operands have the node's type
  kBitAnd,
  kBitOr,
  kBitXor,
  kShiftLeft,
  kShiftRight, // b keeps its own type
  kPointerAdd,
  kPointerSubtract, // b is an integer, counted in elements
  kPointerDifference,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual, // operands of one type
  kLogicalAnd,
  kLogicalOr,
  kConditional,
  kComma,
  kAssign,     // b converted to a's type (unless a is a convenience variable)
  kPostAssign, // the same; the result is what a was
};

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
  Op op;
  TypeRef type;
  size_t column = 0;
  ExprPtr a{}, b{}, c{};
  Value constant{};
  Symbol symbol{Symbol::Kind::kConstant};
  symbols::Member member{};
  std::string name{};
  dune::Reg reg{};
  uint8_t register_offset = 0;
};

struct Expression {
  ExprPtr root;
  std::string text;
  bool is_type = false; // the text is a type name; root->type is it
};

// Parses and checks. Nothing is evaluated but the length of variable-length arrays.
Checked<Expression> check(std::string_view text, Context& context);

// One operation on integers, exactly as evaluate() and compiled code do it: the operands are
// already of type `type` (for shifts: the left one), the result is wrapped to it. nullopt: division
// by zero. Shifts by the type's width or more, or by a negative count, give 0, or the sign of a >>
// (as gdb).
std::optional<Wide> integer_operation(Op op, TypeRef type, Wide a, Wide b);
bool compare(Op op, Wide a, Wide b);

} // namespace ddbg::expr
