#include "dtrace-lite/expr/evaluate.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace ddbg::expr {
namespace {

class Evaluator {
public:
  explicit Evaluator(Context& context) : context_(context) {}
  Checked<Value> value(const Expr& e); // may be lazy

private:
  Checked<Value> fetched(const Expr& e) {
    auto v = value(e);
    return v ? fetch(std::move(*v), context_) : v;
  }
  Checked<Value> operand(const Expr& e); // fetched, and all of it known
  Checked<Wide> number(const Expr& e) {
    auto v = operand(e);
    if (!v)
      return v.error();
    return number_of(*v);
  }
  Checked<bool> truth(const Expr& e);
  Checked<Value> address_of(const Expr& e);
  Checked<Value> convert(const Expr& e);
  Checked<Value> arithmetic(const Expr& e);
  Checked<Value> floating(const Expr& e, const Value& a, const Value& b);
  Checked<Value> pointer_arithmetic(const Expr& e);
  Checked<Value> repeat(const Expr& e);
  Checked<Value> assign(const Expr& e);
  Checked<void*> store(const Value& target, const Value& source);

  Context& context_;
};

Checked<Value> Evaluator::operand(const Expr& e) {
  auto v = fetched(e);
  if (v && v->is_synthetic_pointer)
    return Diagnostic{"The pointer has no value: what it points to was optimized into registers.",
                      "", e.column};
  if (v && !v->optimized_out.empty())
    return Diagnostic{"value has been optimized out", "", e.column};
  if (v && v->is_void())
    return Diagnostic{"Argument to arithmetic operation not a number or boolean.", "", e.column};
  return v;
}

Checked<bool> Evaluator::truth(const Expr& e) {
  auto v = operand(e);
  if (!v)
    return v.error();
  if (v->type->stripped()->kind() == TypeKind::kFloat)
    return floating_of(*v) != 0;
  return number_of(*v) != 0;
}

Checked<Value> Evaluator::value(const Expr& e) {
  switch (e.op) {
  case Op::kConstant:
    return e.constant;
  case Op::kVariable:
    return read_variable(e.symbol, e.type, context_);
  case Op::kAt:
    return Value::in_memory(e.type, e.symbol.address);
  case Op::kRegister: {
    auto whole = context_.read_register(dune::kRegisters[static_cast<size_t>(e.reg)].dwarf_number);
    Value v;
    v.type = e.type;
    v.place = Value::Place::kRegister;
    v.reg = e.reg;
    v.register_offset = e.register_offset;
    v.bytes.resize(e.type->size());
    if (whole) {
      uint64_t word = *whole >> (8 * e.register_offset);
      std::memcpy(v.bytes.data(), &word, v.bytes.size());
    } else {
      v.optimized_out.push_back({0, v.bytes.size() * 8});
    }
    return v;
  }
  case Op::kNamed: {
    auto v = context_.named_register(e.name);
    if (!v)
      return Diagnostic{"Register $" + e.name + " is not known here.", "", e.column};
    return std::move(*v);
  }
  case Op::kConvenience: {
    const Value* set = context_.convenience(e.name);
    Value v = set ? *set : Value::void_value();
    if (!v.is_lvalue() || !v.is_lazy) {
      v.place = Value::Place::kConvenience;
      v.name = e.name;
      v.register_offset = 0;
    }
    return v;
  }
  case Op::kDereference: {
    auto pointer = operand(*e.a);
    if (!pointer)
      return pointer;
    return Value::in_memory(e.type, TargetAddr(static_cast<uint64_t>(number_of(*pointer))));
  }
  case Op::kAddressOf:
    return address_of(e);
  case Op::kMember: {
    auto object = value(*e.a);
    return object ? member_of(*object, e.member, context_) : object;
  }
  case Op::kElement: {
    auto array = value(*e.a);
    if (!array)
      return array;
    auto i = number(*e.b);
    if (!i)
      return i.error();
    TypeRef type = array->type->stripped();
    bool in_bounds = *i >= 0 && type->count() && *i < static_cast<Wide>(*type->count());
    if (array->place != Value::Place::kMemory && !in_bounds)
      return Diagnostic{"no such vector element", "", e.column};
    return element_of(*array, static_cast<uint64_t>(*i));
  }
  case Op::kDecay: {
    auto array = value(*e.a);
    if (!array)
      return array;
    if (array->place != Value::Place::kMemory)
      return Diagnostic{"Attempt to take address of value not located in memory.", "", e.column};
    return Value::pointer(e.type, array->address);
  }
  case Op::kConvert:
    return convert(e);
  case Op::kReinterpret: {
    auto v = value(*e.a);
    if (!v)
      return v;
    if (v->place == Value::Place::kMemory && v->bit_size == 0)
      return Value::in_memory(e.type, v->address);
    v = fetch(std::move(*v), context_);
    if (!v)
      return v;
    if (v->bytes.size() != e.type->size())
      return Diagnostic{"Invalid cast.", "", e.column};
    return Value::of(e.type, std::move(v->bytes));
  }
  case Op::kRepeat:
    return repeat(e);
  case Op::kNot: {
    auto t = truth(*e.a);
    return t ? Checked<Value>(Value::integer(e.type, !*t)) : t.error();
  }
  case Op::kLogicalAnd:
  case Op::kLogicalOr: {
    auto a = truth(*e.a);
    if (!a)
      return a.error();
    if (*a == (e.op == Op::kLogicalOr))
      return Value::integer(e.type, *a);
    auto b = truth(*e.b);
    return b ? Checked<Value>(Value::integer(e.type, *b)) : b.error();
  }
  case Op::kConditional: {
    auto condition = truth(*e.a);
    if (!condition)
      return condition.error();
    return value(*condition ? *e.b : *e.c);
  }
  case Op::kComma: {
    auto first = fetched(*e.a);
    return first ? value(*e.b) : first;
  }
  case Op::kAssign:
  case Op::kPostAssign:
    return assign(e);
  case Op::kPointerAdd:
  case Op::kPointerSubtract:
  case Op::kPointerDifference:
    return pointer_arithmetic(e);
  default:
    return arithmetic(e);
  }
}

Checked<Value> Evaluator::address_of(const Expr& e) {
  // What a dereference points to need not be readable: &p->member of a null p is its offset.
  auto object = value(*e.a);
  if (!object)
    return object;
  if (e.a->op == Op::kAt && (object->type->stripped()->kind() == TypeKind::kFunction ||
                             object->type->stripped()->kind() == TypeKind::kNoDebugText))
    return Value::pointer(e.type, object->address);
  if (object->place != Value::Place::kMemory || object->bit_size) {
    if (e.a->op == Op::kVariable && object->place == Value::Place::kRegister)
      return Diagnostic{"Address requested for identifier \"" + e.a->symbol.name +
                            "\" which is in register $" +
                            dune::kRegisters[static_cast<size_t>(object->reg)].name,
                        "", e.column};
    if (e.a->op == Op::kVariable && object->is_wholly_optimized_out())
      return Diagnostic{"value has been optimized out", "", e.column};
    if (e.a->op == Op::kVariable)
      return Diagnostic{"Can't take address of \"" + e.a->symbol.name + "\" which isn't an lvalue.",
                        "", e.column};
    return Diagnostic{"Attempt to take address of value not located in memory.", "", e.column};
  }
  return Value::pointer(e.type, object->address);
}

Checked<Value> Evaluator::convert(const Expr& e) {
  TypeKind to = e.type->stripped()->kind();
  if (to == TypeKind::kVoid) {
    auto ignored = fetched(*e.a);
    return ignored ? Checked<Value>(Value::void_value()) : ignored;
  }
  auto v = operand(*e.a);
  if (!v)
    return v;
  bool from_float = v->type->stripped()->kind() == TypeKind::kFloat;
  if (to == TypeKind::kFloat)
    return Value::floating(
        e.type, from_float ? floating_of(*v)
                : v->type->stripped()->is_signed()
                    ? static_cast<long double>(number_of(*v))
                    : static_cast<long double>(static_cast<UnsignedWide>(number_of(*v))));
  if (to == TypeKind::kBool)
    return Value::integer(e.type, from_float ? floating_of(*v) != 0 : number_of(*v) != 0);
  if (!from_float)
    return Value::integer(e.type, number_of(*v));
  long double real = floating_of(*v);
  // Outside the range of the widest integer C++ leaves it open: give x86's "integer indefinite".
  constexpr long double kLimit = 1.0e38L;
  if (!(real > -kLimit && real < kLimit))
    return Value::integer(e.type, Wide{1} << (8 * e.type->size() - 1));
  return Value::integer(e.type, static_cast<Wide>(real));
}

Checked<Value> Evaluator::floating(const Expr& e, const Value& a, const Value& b) {
  bool single = a.bytes.size() == 4, twice = a.bytes.size() == 8;
  auto compute = [&](auto x, auto y) -> long double {
    switch (e.op) {
    case Op::kAdd:
      return x + y;
    case Op::kSubtract:
      return x - y;
    case Op::kMultiply:
      return x * y;
    default:
      return x / y;
    }
  };
  long double x = floating_of(a), y = floating_of(b);
  switch (e.op) {
  case Op::kEqual:
    return Value::integer(e.type, x == y);
  case Op::kNotEqual:
    return Value::integer(e.type, x != y);
  case Op::kLess:
    return Value::integer(e.type, x < y);
  case Op::kLessEqual:
    return Value::integer(e.type, x <= y);
  case Op::kGreater:
    return Value::integer(e.type, x > y);
  case Op::kGreaterEqual:
    return Value::integer(e.type, x >= y);
  default:
    return Value::floating(e.type, single  ? compute(static_cast<float>(x), static_cast<float>(y))
                                   : twice ? compute(static_cast<double>(x), static_cast<double>(y))
                                           : compute(x, y));
  }
}

Checked<Value> Evaluator::arithmetic(const Expr& e) {
  auto a = operand(*e.a);
  if (!a)
    return a;
  bool is_float = a->type->stripped()->kind() == TypeKind::kFloat;
  if (e.op == Op::kNegate)
    return is_float ? Value::floating(e.type, -floating_of(*a))
                    : Value::integer(e.type, 0 - static_cast<UnsignedWide>(number_of(*a)));
  if (e.op == Op::kComplement)
    return Value::integer(e.type, ~number_of(*a));
  auto b = operand(*e.b);
  if (!b)
    return b;
  if (is_float)
    return floating(e, *a, *b);
  Wide x = number_of(*a), y = number_of(*b);
  if (e.op >= Op::kEqual && e.op <= Op::kGreaterEqual)
    return Value::integer(e.type, compare(e.op, x, y));
  if (e.op == Op::kShiftLeft || e.op == Op::kShiftRight) {
    const char* side = e.op == Op::kShiftLeft ? "left" : "right";
    if (y < 0)
      context_.warn(std::string(side) + " shift count is negative");
    else if (y >= Wide{e.type->size()} * 8)
      context_.warn(std::string(side) + " shift count >= width of type");
  }
  auto result = integer_operation(e.op, e.type, x, y);
  if (!result)
    return Diagnostic{"Division by zero", "", e.column};
  return Value::integer(e.type, *result);
}

Checked<Value> Evaluator::pointer_arithmetic(const Expr& e) {
  auto pointer = operand(*e.a);
  if (!pointer)
    return pointer;
  auto other = number(*e.b);
  if (!other)
    return other.error();
  // void and functions count in bytes, as in GNU C.
  uint64_t size = std::max<uint64_t>(e.a->type->stripped()->target()->size(), 1);
  auto a = static_cast<uint64_t>(number_of(*pointer));
  auto b = static_cast<uint64_t>(*other);
  switch (e.op) {
  case Op::kPointerAdd:
    return Value::pointer(e.type, TargetAddr(a + b * size));
  case Op::kPointerSubtract:
    return Value::pointer(e.type, TargetAddr(a - b * size));
  default:
    return Value::integer(e.type, static_cast<int64_t>(a - b) / static_cast<int64_t>(size));
  }
}

Checked<Value> Evaluator::repeat(const Expr& e) {
  auto object = value(*e.a);
  if (!object)
    return object;
  auto count = number(*e.b);
  if (!count)
    return count.error();
  if (object->place != Value::Place::kMemory || object->bit_size)
    return Diagnostic{"Only values in memory can be extended with '@'.", "", e.column};
  if (*count < 1 || *count > INT32_MAX)
    return Diagnostic{"Invalid number " + std::to_string(static_cast<int64_t>(*count)) +
                          " of repetitions.",
                      "", e.column};
  return Value::in_memory(object->type->array(static_cast<uint64_t>(*count)), object->address);
}

Checked<Value> Evaluator::assign(const Expr& e) {
  if (e.a->op == Op::kConvenience) {
    auto old = fetched(*e.a);
    auto source = fetched(*e.b);
    if (!source || !old)
      return source ? old : source;
    Value stored = *source;
    stored.place = Value::Place::kNone;
    stored.bit_size = 0;
    if (source->bit_size)
      stored = Value::integer(source->type, number_of(*source));
    context_.set_convenience(e.a->name, stored);
    return e.op == Op::kPostAssign ? old : Checked<Value>(std::move(stored));
  }
  auto target = value(*e.a);
  if (!target)
    return target;
  if (!target->is_lvalue())
    return Diagnostic{"Left operand of assignment is not an lvalue.", "", e.column};
  auto source = operand(*e.b);
  if (!source)
    return source;
  Checked<Value> old = Value::void_value();
  if (e.op == Op::kPostAssign) {
    old = fetch(*target, context_);
    if (!old)
      return old;
    old->place = Value::Place::kNone;
  }
  if (auto stored = store(*target, *source); !stored)
    return stored.error();
  if (e.op == Op::kPostAssign)
    return old;
  // What it is now: a bit field keeps fewer bits, and memory may be a device's.
  if (target->place == Value::Place::kMemory) {
    target->is_lazy = true;
    return fetch(std::move(*target), context_);
  }
  return value(*e.a);
}

Checked<void*> Evaluator::store(const Value& target, const Value& source) {
  std::vector<std::byte> bytes = source.bytes;
  switch (target.place) {
  case Value::Place::kMemory: {
    if (target.bit_size) {
      uint64_t first = target.bit_offset / 8;
      uint64_t count = (target.bit_offset % 8 + target.bit_size + 7) / 8;
      std::vector<std::byte> old(count);
      TargetAddr at = target.address + first;
      if (!context_.read_memory(at, old))
        return cannot_access(at);
      UnsignedWide word = 0, mask = ((UnsignedWide{1} << target.bit_size) - 1)
                                    << (target.bit_offset % 8);
      std::memcpy(&word, old.data(), count);
      auto inserted = static_cast<UnsignedWide>(number_of(source)) << (target.bit_offset % 8);
      word = (word & ~mask) | (inserted & mask);
      std::memcpy(old.data(), &word, count);
      return context_.write_memory(at, old) ? Checked<void*>(nullptr) : cannot_access(at);
    }
    if (!context_.write_memory(target.address, bytes))
      return cannot_access(target.address);
    return nullptr;
  }
  case Value::Place::kRegister: {
    auto index = static_cast<size_t>(target.reg);
    uint64_t word = context_.read_register(dune::kRegisters[index].dwarf_number).value_or(0);
    std::memcpy(reinterpret_cast<char*>(&word) + target.register_offset, bytes.data(),
                std::min<size_t>(bytes.size(), 8 - target.register_offset));
    if (!context_.write_register(target.reg, word))
      return Diagnostic{
          std::string("Cannot write register $") + dune::kRegisters[index].name + ".", "", {}};
    return nullptr;
  }
  case Value::Place::kConvenience: {
    const Value* old = context_.convenience(target.name);
    if (!old || target.register_offset + bytes.size() > old->bytes.size() || target.bit_size)
      return Diagnostic{"Left operand of assignment is not an lvalue.", "", {}};
    Value changed = *old;
    std::copy(bytes.begin(), bytes.end(), changed.bytes.begin() + target.register_offset);
    context_.set_convenience(target.name, std::move(changed));
    return nullptr;
  }
  default:
    return Diagnostic{"Left operand of assignment is not an lvalue.", "", {}};
  }
}

} // namespace

Diagnostic too_large(uint64_t size) {
  return {"value requires " + std::to_string(size) + " bytes, which is more than max-value-size",
          "",
          {}};
}

Diagnostic cannot_access(TargetAddr address) {
  char text[64];
  snprintf(text, sizeof text, "Cannot access memory at address 0x%llx",
           static_cast<unsigned long long>(address.value));
  return {text, "", {}};
}

Checked<Value> evaluate(const Expression& expression, Context& context) {
  if (expression.is_type)
    return Diagnostic{"Attempt to use a type name as an expression", "", 0};
  return Evaluator(context).value(*expression.root);
}

Checked<Value> evaluate(std::string_view text, Context& context) {
  auto expression = check(text, context);
  if (!expression)
    return expression.error();
  return evaluate(*expression, context);
}

Checked<bool> evaluate_condition(const Expression& expression, Context& context) {
  auto value = evaluate(expression, context);
  if (!value)
    return value.error();
  value = fetch(std::move(*value), context);
  if (!value)
    return value.error();
  if (!value->optimized_out.empty())
    return Diagnostic{"value has been optimized out", "", {}};
  if (value->type->stripped()->kind() == TypeKind::kFloat)
    return floating_of(*value) != 0;
  if (value->type->is_scalar())
    return number_of(*value) != 0;
  if (value->type->stripped()->kind() == TypeKind::kArray && value->place == Value::Place::kMemory)
    return true;
  return Diagnostic{"The condition is neither a number nor a pointer.", "", {}};
}

Checked<Value> fetch(Value value, Context& context) {
  if (!value.is_lazy)
    return value;
  uint64_t size = value.type->size();
  if (size > kMaxValueSize)
    return too_large(size);
  value.bytes.resize(size);
  value.is_lazy = false;
  TypeKind kind = value.type->stripped()->kind();
  if (kind == TypeKind::kFunction || kind == TypeKind::kNoDebugText || size == 0)
    return value; // the address is all there is to it
  if (value.bit_size) {
    // Only the bytes that hold the field: the rest of the declared type may lie beyond the object.
    uint64_t first = value.bit_offset / 8;
    uint64_t count = (value.bit_offset % 8 + value.bit_size + 7) / 8;
    if (first + count > kMaxValueSize)
      return too_large(first + count);
    value.bytes.resize(std::max(size, first + count));
    auto part = std::span(value.bytes).subspan(first, count);
    if (!context.read_memory(value.address + first, part))
      return cannot_access(value.address + first);
    return value;
  }
  if (!context.read_memory(value.address, value.bytes))
    return cannot_access(value.address);
  return value;
}

Checked<Value> member_of(const Value& object, const symbols::Member& member, Context& context) {
  Value part;
  part.type = member.type;
  part.place = object.place;
  part.name = object.name;
  part.reg = object.reg;
  uint64_t byte = member.bit_offset / 8;
  if (member.is_virtual) {
    if (object.place != Value::Place::kMemory)
      return Diagnostic{"A virtual base is only found in memory.", "", {}};
    auto plan = symbols::VariableTable::plan_member(member);
    if (!plan)
      return plan.error();
    auto place = symbols::evaluate_location(*plan, context, 0, object.address.value);
    if (!place)
      return place.error();
    if (place->pieces[0].kind != symbols::LocatedPiece::Kind::kMemory)
      return Diagnostic{"The virtual base cannot be found.", "", {}};
    return Value::in_memory(member.type, place->pieces[0].address);
  }
  if (member.bit_size) {
    // The field's storage, in units of its declared type as far as they fit.
    uint64_t unit = std::max<uint64_t>(member.type->size(), 1);
    byte = byte / unit * unit;
    part.bit_offset = static_cast<uint32_t>(member.bit_offset - byte * 8);
    part.bit_size = member.bit_size;
  }
  part.address = object.address + byte;
  part.register_offset = object.register_offset + static_cast<uint32_t>(byte);
  if (object.is_lazy) {
    part.is_lazy = true;
    return part;
  }
  uint64_t size = member.type->size();
  if (part.bit_size)
    size = std::max<uint64_t>(size, (part.bit_offset + part.bit_size + 7) / 8);
  if (byte > object.bytes.size() || size > object.bytes.size() - byte) {
    // A bit field whose declared type is longer than the object's end.
    if (byte > object.bytes.size() || !part.bit_size)
      return Diagnostic{"The member lies outside its structure.", "", {}};
    size = object.bytes.size() - byte;
  }
  auto begin = object.bytes.begin() + static_cast<ptrdiff_t>(byte);
  part.bytes.assign(begin, begin + static_cast<ptrdiff_t>(size));
  uint64_t first = member.bit_offset, last = first + (member.bit_size ? member.bit_size : size * 8);
  for (const BitRange& range : object.optimized_out)
    if (range.begin < last && first < range.end)
      part.optimized_out.push_back(
          {std::max(range.begin, first) - byte * 8, std::min(range.end, last) - byte * 8});
  return part;
}

Value element_of(const Value& array, uint64_t index) {
  TypeRef element = array.type->stripped()->target();
  uint64_t size = element->size(), byte = index * size;
  Value part;
  part.type = element;
  part.place = array.place;
  part.name = array.name;
  part.reg = array.reg;
  part.address = array.address + byte;
  part.register_offset = array.register_offset + static_cast<uint32_t>(byte);
  if (array.is_lazy || byte > array.bytes.size() || size > array.bytes.size() - byte) {
    part.is_lazy = true;
    return part;
  }
  auto begin = array.bytes.begin() + static_cast<ptrdiff_t>(byte);
  part.bytes.assign(begin, begin + static_cast<ptrdiff_t>(size));
  for (const BitRange& range : array.optimized_out)
    if (range.begin < (byte + size) * 8 && byte * 8 < range.end)
      part.optimized_out.push_back({std::max(range.begin, byte * 8) - byte * 8,
                                    std::min(range.end, (byte + size) * 8) - byte * 8});
  return part;
}

Checked<Value> dereference(const Value& pointer, Context& context) {
  auto v = fetch(pointer, context);
  if (!v)
    return v;
  TypeRef target = v->type->stripped()->target();
  return Value::in_memory(target, TargetAddr(static_cast<uint64_t>(number_of(*v))));
}

} // namespace ddbg::expr
