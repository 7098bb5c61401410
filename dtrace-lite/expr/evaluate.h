// Expressions to values, by the front end, over a stopped frame.
#pragma once

#include "dtrace-lite/expr/expression.h"

namespace ddbg::expr {

// The result may be lazy (its memory not read yet). Assignments write through the context.
Checked<Value> evaluate(const Expression& expression, Context& context);
// check() and evaluate() in one.
Checked<Value> evaluate(std::string_view text, Context& context);
// The truth of a condition: zero or not. Error: neither number nor pointer.
Checked<bool> evaluate_condition(const Expression& expression, Context& context);

// A symbol's current value.
Checked<Value> read_variable(const Symbol& symbol, TypeRef type, Context& context);

// With its bytes.
Checked<Value> fetch(Value value, Context& context);
// Parts of a value, lazy when the whole is.
Checked<Value> member_of(const Value& object, const symbols::Member& member, Context& context);
Value element_of(const Value& array, uint64_t index);
// What a reference refers to, or a pointer points to (the value itself fetched).
Checked<Value> dereference(const Value& pointer, Context& context);

Diagnostic cannot_access(TargetAddr address);
// gdb's max-value-size: a value larger than this is a mistyped length or damage, not data.
inline constexpr uint64_t kMaxValueSize = 65536;
Diagnostic too_large(uint64_t size);

} // namespace ddbg::expr
