// Names, members and the structure of expressions; arithmetic is in check_arithmetic.cpp.
#include "dtrace-lite/expr/checker.h"

#include "dtrace-lite/symbols/elf_symbols.h"

#include <cstring>

namespace ddbg::expr {

Checked<Expression> check(std::string_view text, Context& context) {
  auto tree = parse(text, context);
  if (!tree)
    return tree.error();
  Expression expression;
  expression.text = text;
  expression.is_type = (*tree)->kind == Syntax::kType;
  auto root = Checker(context).run(**tree);
  if (!root)
    return root.error();
  expression.root = std::move(*root);
  return expression;
}

Checked<ExprPtr> Checker::run(const Node& root) {
  if (root.kind == Syntax::kType)
    return make(Op::kConstant, root.type, root.column);
  ExprPtr expr = visit(root);
  if (!expr)
    return *problem_;
  if (expr->type->kind() == TypeKind::kNoDebugData)
    return Diagnostic{"'" + expr->symbol.name + "' has unknown type; cast it to its declared type",
                      "", root.column};
  return expr;
}

ExprPtr Checker::make(Op op, TypeRef type, size_t column, ExprPtr a, ExprPtr b, ExprPtr c) {
  auto expr = std::make_unique<Expr>(Expr{.op = op, .type = type, .column = column});
  expr->a = std::move(a);
  expr->b = std::move(b);
  expr->c = std::move(c);
  return expr;
}

ExprPtr Checker::constant(Value value, size_t column) {
  ExprPtr expr = make(Op::kConstant, value.type, column);
  expr->constant = std::move(value);
  return expr;
}

ExprPtr Checker::visit(const Node& node) {
  // `a += b` and `a++` check `a` twice, so nested ones double: bound the work, not the nesting.
  constexpr int kMaxVisits = 5000;
  if (++visits_ > kMaxVisits)
    return fail("The expression is too complex.", node.column);
  switch (node.kind) {
  case Syntax::kInteger:
  case Syntax::kCharacter:
    return constant(Value::integer(node.type, static_cast<Wide>(node.number)), node.column);
  case Syntax::kFloat:
    return constant(Value::floating(node.type, node.real), node.column);
  case Syntax::kString:
    return string(node);
  case Syntax::kName:
    return name(node);
  case Syntax::kDollarName:
    return dollar(node);
  case Syntax::kHistory: {
    auto value = context_.history(static_cast<int64_t>(node.number), node.from_end);
    if (!value)
      return fail("History has not yet reached $" + std::to_string(node.number) + ".", node.column);
    return constant(std::move(*value), node.column);
  }
  case Syntax::kType:
    return fail("Attempt to use a type name as an expression", node.column);
  case Syntax::kUnary:
    return unary(node);
  case Syntax::kBinary:
    return binary(node);
  case Syntax::kLogical: {
    ExprPtr a = visit(*node.a);
    ExprPtr b = a ? visit(*node.b) : nullptr;
    a = b ? truth(std::move(a)) : nullptr;
    b = a ? truth(std::move(b)) : nullptr;
    if (!b)
      return nullptr;
    return make(node.op == Token::kAndAnd ? Op::kLogicalAnd : Op::kLogicalOr, truth_type(),
                node.column, std::move(a), std::move(b));
  }
  case Syntax::kAssign:
    return assign(node);
  case Syntax::kIncrement:
    return increment(node);
  case Syntax::kConditional:
    return conditional(node);
  case Syntax::kCast:
    return cast(node);
  case Syntax::kMemoryAs: {
    ExprPtr a = visit(*node.a);
    a = a ? rvalue(std::move(a)) : nullptr;
    a = a ? convert(std::move(a), node.type->pointer(), node.column) : nullptr;
    return a ? make(Op::kDereference, node.type, node.column, std::move(a)) : nullptr;
  }
  case Syntax::kSizeof:
    return sizeof_(node);
  case Syntax::kMember:
  case Syntax::kArrow:
    return member(node);
  case Syntax::kIndex:
    return index(node);
  case Syntax::kRepeat:
    return repeat(node);
  case Syntax::kComma: {
    ExprPtr a = visit(*node.a);
    ExprPtr b = a ? visit(*node.b) : nullptr;
    if (!b)
      return nullptr;
    TypeRef type = b->type;
    return make(Op::kComma, type, node.column, std::move(a), std::move(b));
  }
  case Syntax::kCall:
    return fail("Cannot call functions of the program from an expression.", node.column,
                "Evaluate what the function would return from the variables it reads.");
  }
  return fail("Unknown syntax.", node.column);
}

ExprPtr Checker::string(const Node& node) {
  std::vector<std::byte> bytes(node.text.size() + 1);
  std::memcpy(bytes.data(), node.text.data(), node.text.size());
  TypeRef type = node.type->array(bytes.size());
  return constant(Value::of(type, std::move(bytes)), node.column);
}

ExprPtr Checker::name(const Node& node) {
  if (!node.file.empty()) {
    auto found = context_.lookup_in_file(node.file, node.text);
    if (!found)
      return fail(found.error().message, node.column, found.error().hint);
    if (!*found)
      return fail("No symbol \"" + node.text + "\" in specified context.", node.column);
    return symbol(std::move(**found), node.column);
  }
  auto found = context_.lookup(node.text);
  bool is_minimal = found && (found->kind == Symbol::Kind::kMinimalData ||
                              found->kind == Symbol::Kind::kMinimalText);
  if (!found || is_minimal) {
    // A member of the object whose function this is, before a symbol without debug information.
    if (auto self = context_.lookup("this"); self && self->kind == Symbol::Kind::kVariable)
      if (TypeRef type = self->type->stripped();
          type->kind() == TypeKind::kPointer && type->target()->is_record()) {
        ExprPtr object = variable(std::move(*self), node.column);
        object = object ? dereference(std::move(object), node.column) : nullptr;
        object = object ? find_member(std::move(object), node.text, node.column, 0) : nullptr;
        if (object)
          return object;
        problem_.reset();
      }
  }
  if (found)
    return symbol(std::move(*found), node.column);
  Diagnostic unknown = no_symbol(node.text, node.column, context_);
  return fail(unknown.message, node.column, unknown.hint);
}

ExprPtr Checker::symbol(Symbol s, size_t column) {
  switch (s.kind) {
  case Symbol::Kind::kVariable:
    return variable(std::move(s), column);
  case Symbol::Kind::kConstant:
    return constant(Value::integer(s.type, s.value), column);
  case Symbol::Kind::kType:
    return fail("Attempt to use a type name as an expression", column);
  default: {
    ExprPtr expr = make(Op::kAt, s.type, column);
    expr->symbol = std::move(s);
    return expr;
  }
  }
}

ExprPtr Checker::variable(Symbol s, size_t column) {
  TypeRef type = s.type;
  // A variable-length array gets the length it has now.
  if (TypeRef array = type->stripped();
      array->kind() == TypeKind::kArray && array->count_die() && s.table) {
    auto bound = s.table->plan_count(*array, s.pc, s.variable.function);
    if (!bound)
      return fail(bound.error().message, column);
    auto place = symbols::evaluate_location(bound->plan, context_, s.bias);
    if (!place)
      return fail(place.error().message, column);
    const symbols::LocatedPiece& piece = place->pieces[0];
    if (bound->type && bound->type->size() > sizeof(uint64_t))
      return fail("The length of the array is not a number.", column);
    std::vector<std::byte> bytes(bound->type ? bound->type->size() : 8);
    bool known = false;
    if (piece.kind == symbols::LocatedPiece::Kind::kMemory)
      known = context_.read_memory(piece.address, bytes);
    else if (piece.kind == symbols::LocatedPiece::Kind::kBytes &&
             piece.bytes.size() >= bytes.size())
      known = (bytes.assign(piece.bytes.begin(),
                            piece.bytes.begin() + static_cast<ptrdiff_t>(bytes.size())),
               true);
    else if (piece.kind == symbols::LocatedPiece::Kind::kRegister)
      if (auto word = context_.read_register(piece.dwarf_register)) {
        std::memcpy(bytes.data(), &*word, std::min<size_t>(bytes.size(), 8));
        known = true;
      }
    if (known) {
      auto count =
          static_cast<uint64_t>(read_integer(bytes, true)) + (bound->bound_is_upper ? 1 : 0);
      type = array->target()->array(count);
    }
  }
  ExprPtr expr = make(Op::kVariable, type, column);
  expr->symbol = std::move(s);
  return expr;
}

ExprPtr Checker::dollar(const Node& node) {
  if (auto reg = register_by_name(node.text)) {
    if (!context_.has_registers())
      return fail("No registers.", node.column);
    ExprPtr expr = make(Op::kRegister, reg->type, node.column);
    expr->reg = reg->reg;
    expr->register_offset = reg->offset;
    expr->name = node.text;
    return expr;
  }
  if (auto value = context_.named_register(node.text)) {
    ExprPtr expr = make(Op::kNamed, value->type, node.column);
    expr->name = node.text;
    return expr;
  }
  TypeRef type = t_.void_type;
  if (auto it = assigned_.find(node.text); it != assigned_.end())
    type = it->second;
  else if (const Value* value = context_.convenience(node.text))
    type = value->type;
  ExprPtr expr = make(Op::kConvenience, type, node.column);
  expr->name = node.text;
  return expr;
}

ExprPtr Checker::assign(const Node& node) {
  ExprPtr target = visit(*node.a);
  if (!target)
    return nullptr;
  ExprPtr value = visit(*node.b);
  if (!value)
    return nullptr;
  if (node.op != Token::kEqual) {
    ExprPtr old = visit(*node.a);
    value = old ? binary_of(node.op, node.column, std::move(old), std::move(value)) : nullptr;
    if (!value)
      return nullptr;
  }
  if (target->op == Op::kConvenience) {
    value = rvalue(std::move(value));
    if (!value)
      return nullptr;
    assigned_[target->name] = value->type;
    target->type = value->type;
  } else {
    target = unreference(std::move(target));
    if (!target)
      return nullptr;
    if (target->type->kind() == TypeKind::kNoDebugData)
      return fail("'" + target->symbol.name + "' has unknown type; cast it to its declared type",
                  node.column);
    if (!(target->type->is_record() && value->type->stripped() == target->type->stripped()))
      value = convert(rvalue(std::move(value)), target->type, node.column);
    if (!value)
      return nullptr;
  }
  TypeRef type = target->type;
  return make(Op::kAssign, type, node.column, std::move(target), std::move(value));
}

ExprPtr Checker::increment(const Node& node) {
  ExprPtr target = visit(*node.a);
  ExprPtr old = target ? visit(*node.a) : nullptr;
  if (!old)
    return nullptr;
  ExprPtr one = constant(Value::integer(t_.int_type, 1), node.column);
  ExprPtr value = binary_of(node.op == Token::kPlusPlus ? Token::kPlus : Token::kMinus, node.column,
                            std::move(old), std::move(one));
  if (!value)
    return nullptr;
  target = unreference(std::move(target));
  if (!target)
    return nullptr;
  if (target->op != Op::kConvenience)
    value = convert(std::move(value), target->type, node.column);
  if (!value)
    return nullptr;
  TypeRef type = target->type;
  return make(node.from_end ? Op::kPostAssign : Op::kAssign, type, node.column, std::move(target),
              std::move(value));
}

ExprPtr Checker::cast(const Node& node) {
  ExprPtr value = visit(*node.a);
  if (!value)
    return nullptr;
  // A symbol without debug information is what the cast says it is.
  if (value->type->kind() == TypeKind::kNoDebugData) {
    value->type = node.type;
    return value;
  }
  if (node.type->is_reference())
    return fail("Invalid cast.", node.column, "Cast a pointer and dereference it.");
  value = unreference(std::move(value));
  if (!value)
    return nullptr;
  if (node.type->is_scalar() || node.type->stripped()->kind() == TypeKind::kVoid)
    return convert(rvalue(std::move(value)), node.type, node.column);
  if (value->type->stripped() == node.type->stripped() ||
      (node.type->is_record() && value->type->is_record() &&
       node.type->stripped()->own_name() == value->type->stripped()->own_name()))
    return value;
  return make(Op::kReinterpret, node.type, node.column, std::move(value));
}

ExprPtr Checker::sizeof_(const Node& node) {
  TypeRef type = node.type, result = t_.int_type; // gdb's: int for a type, size_t for a value
  if (!type) {
    result = t_.unsigned_long;
    ExprPtr operand = visit(*node.a);
    if (!operand)
      return nullptr;
    type = operand->type;
    if (type->kind() == TypeKind::kNoDebugData)
      return fail("'" + operand->symbol.name + "' has unknown type; cast it to its declared type",
                  node.column);
  }
  if (type->is_reference())
    type = type->stripped()->target();
  return constant(Value::integer(result, static_cast<Wide>(type->size())), node.column);
}

ExprPtr Checker::find_member(ExprPtr object, const std::string& name, size_t column, int depth) {
  TypeRef type = object->type->stripped();
  if (depth > 64)
    return nullptr;
  // Direct members first: they hide those of bases.
  for (const symbols::Member& m : type->members()) {
    if (m.name != name || m.is_base)
      continue;
    if (m.is_static) {
      auto found = context_.lookup(type->own_name() + "::" + name);
      if (!found || found->kind != Symbol::Kind::kVariable)
        return fail("static field " + name + " has been optimized out", column);
      return symbol(std::move(*found), column);
    }
    ExprPtr expr = make(Op::kMember, m.type, column, std::move(object));
    expr->member = m;
    return expr;
  }
  for (const symbols::Member& m : type->members()) {
    bool is_transparent = m.is_base || (m.name.empty() && m.type->is_record());
    if (!is_transparent)
      continue;
    // `object` is needed again when the search in this part fails, so search types first.
    std::function<bool(TypeRef, int)> has = [&](TypeRef t, int d) {
      if (d > 64)
        return false;
      for (const symbols::Member& inner : t->stripped()->members()) {
        if (!inner.is_base && inner.name == name)
          return true;
        if ((inner.is_base || (inner.name.empty() && inner.type->is_record())) &&
            has(inner.type, d + 1))
          return true;
      }
      return false;
    };
    if (m.is_base && m.name == name) { // p object.Base
      ExprPtr expr = make(Op::kMember, m.type, column, std::move(object));
      expr->member = m;
      return expr;
    }
    if (!has(m.type, 0))
      continue;
    ExprPtr part = make(Op::kMember, m.type, column, std::move(object));
    part->member = m;
    return find_member(std::move(part), name, column, depth + 1);
  }
  return nullptr;
}

ExprPtr Checker::member_of(ExprPtr object, const std::string& name, size_t column) {
  TypeRef type = object->type->stripped();
  bool incomplete = type->is_incomplete();
  std::string nearest;
  unsigned best = 3;
  for (const symbols::Member& m : type->members())
    if (unsigned d = symbols::edit_distance(name, m.name, best - 1); d < best && !m.name.empty()) {
      best = d;
      nearest = m.name;
    }
  ExprPtr found = find_member(std::move(object), name, column, 0);
  if (found || problem_)
    return found;
  if (incomplete)
    return fail("incomplete type \"" + type->name() + "\"", column);
  const char* what = type->language() == Language::kCpp ? "member or method" : "member";
  return fail(std::string("There is no ") + what + " named " + name + ".", column,
              nearest.empty() ? "" : "Did you mean \"" + nearest + "\"?");
}

ExprPtr Checker::member(const Node& node) {
  ExprPtr object = visit(*node.a);
  object = object ? unreference(std::move(object)) : nullptr;
  if (!object)
    return nullptr;
  // As gdb: `.` on a pointer and `->` on a struct do what was meant.
  if (object->type->is_pointer() && object->type->stripped()->target()->is_record()) {
    object = dereference(std::move(object), node.column);
    if (!object)
      return nullptr;
  }
  if (!object->type->is_record() && !(object->type->stripped()->kind() == TypeKind::kUnsupported))
    return fail(std::string("Attempt to extract a component of a value that is not a structure") +
                    (node.kind == Syntax::kArrow ? " pointer." : "."),
                node.column);
  return member_of(std::move(object), node.text, node.column);
}

ExprPtr Checker::index(const Node& node) {
  ExprPtr object = visit(*node.a);
  object = object ? unreference(std::move(object)) : nullptr;
  ExprPtr subscript = object ? visit(*node.b) : nullptr;
  subscript = subscript ? rvalue(std::move(subscript)) : nullptr;
  if (!subscript)
    return nullptr;
  TypeRef type = object->type->stripped();
  if (type->kind() != TypeKind::kArray && type->kind() != TypeKind::kPointer)
    return fail("cannot subscript something of type `" + object->type->name() + "'", node.column);
  if (!subscript->type->is_integral())
    return fail("Argument to arithmetic operation not a number or boolean.", node.column);
  if (type->kind() == TypeKind::kArray)
    return make(Op::kElement, type->target(), node.column, std::move(object), std::move(subscript));
  ExprPtr sum = additive(Op::kAdd, node.column, std::move(object), std::move(subscript));
  return sum ? dereference(std::move(sum), node.column) : nullptr;
}

ExprPtr Checker::repeat(const Node& node) {
  ExprPtr object = visit(*node.a);
  object = object ? unreference(std::move(object)) : nullptr;
  ExprPtr count = object ? visit(*node.b) : nullptr;
  count = count ? rvalue(std::move(count)) : nullptr;
  if (!count)
    return nullptr;
  if (!count->type->is_integral())
    return fail("Invalid number of repetitions.", node.column);
  // The length is a value; the type without it is what can be said now.
  TypeRef type = object->type->array(0);
  return make(Op::kRepeat, type, node.column, std::move(object), std::move(count));
}

} // namespace ddbg::expr
