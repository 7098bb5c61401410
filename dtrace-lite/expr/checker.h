// Internal to expr/: syntax trees to checked expressions.
#pragma once

#include "dtrace-lite/expr/expression.h"

namespace ddbg::expr {

class Checker {
public:
  explicit Checker(Context& context) : context_(context), t_(BuiltinTypes::get()) {}
  Checked<ExprPtr> run(const Node& root);

private:
  ExprPtr visit(const Node& node);
  ExprPtr name(const Node& node);
  ExprPtr symbol(Symbol symbol, size_t column);
  ExprPtr variable(Symbol symbol, size_t column);
  ExprPtr dollar(const Node& node);
  ExprPtr unary(const Node& node);
  ExprPtr binary(const Node& node);
  ExprPtr binary_of(Token op, size_t column, ExprPtr a, ExprPtr b);
  ExprPtr additive(Op op, size_t column, ExprPtr a, ExprPtr b);
  ExprPtr comparison(Op op, size_t column, ExprPtr a, ExprPtr b);
  ExprPtr assign(const Node& node);
  ExprPtr increment(const Node& node);
  ExprPtr conditional(const Node& node);
  ExprPtr cast(const Node& node);
  ExprPtr sizeof_(const Node& node);
  ExprPtr member(const Node& node);
  ExprPtr index(const Node& node);
  ExprPtr repeat(const Node& node);
  ExprPtr string(const Node& node);

  ExprPtr find_member(ExprPtr object, const std::string& name, size_t column, int depth);
  ExprPtr member_of(ExprPtr object, const std::string& name, size_t column);
  ExprPtr dereference(ExprPtr pointer, size_t column);
  ExprPtr address_of(ExprPtr object, size_t column);
  ExprPtr convert(ExprPtr value, TypeRef type, size_t column);
  // As an operand: references followed, arrays and functions decayed. Null with an error when its
  // type is not known.
  ExprPtr rvalue(ExprPtr value);
  ExprPtr unreference(ExprPtr value);
  ExprPtr truth(ExprPtr value); // something that can be compared with zero
  // Both to the type that arithmetic on them has; false: not numbers.
  bool balance(ExprPtr& a, ExprPtr& b, size_t column);
  TypeRef promoted(TypeRef type);
  TypeRef truth_type() const {
    return context_.language() == Language::kCpp ? t_.c_bool : t_.int_type;
  }

  ExprPtr make(Op op, TypeRef type, size_t column, ExprPtr a = {}, ExprPtr b = {}, ExprPtr c = {});
  ExprPtr constant(Value value, size_t column);
  std::nullptr_t fail(std::string message, size_t column, std::string hint = "") {
    if (!problem_)
      problem_ = Diagnostic{std::move(message), std::move(hint), column};
    return nullptr;
  }

  Context& context_;
  const BuiltinTypes& t_;
  std::optional<Diagnostic> problem_;
  int visits_ = 0;
  std::map<std::string, TypeRef> assigned_; // convenience variables that this expression sets
};

inline bool is_number(TypeRef type) {
  return type->is_integral() || type->stripped()->kind() == TypeKind::kFloat;
}

} // namespace ddbg::expr
