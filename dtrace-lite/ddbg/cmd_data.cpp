// Values: print, output, set variable, the history.
#include "dtrace-lite/ddbg/commands.h"
#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/display.h"
#include "dtrace-lite/ddbg/evaluation.h"
#include "dtrace-lite/ddbg/text.h"
#include "dtrace-lite/ddbg/type_text.h"
#include "dtrace-lite/engine/context.h"

#include <algorithm>

namespace ddbg::ui {

// "$1 = 5" of a value that is put in the history.
static Checked<void> print_value(Context& context, expr::Value value, char letter) {
  expr::Context& target = context.debugger.context();
  // What is shown is what is kept: the memory may change before $1 is used.
  auto fetched = expr::fetch(std::move(value), target);
  if (!fetched)
    return fetched.error();
  auto text = expr::format_value(*fetched, target, format_options(context, letter));
  if (!text)
    return text.error();
  context.out.print("${} = {}\n", remember(context, std::move(*fetched)), *text);
  return {};
}

void tell_returned(Context& context, const engine::ReturnedValue& returned) {
  context.out.print("Value returned is ${} = {}\n", remember(context, returned.history_value),
                    returned.value);
}

namespace cmd {

Checked<void> print(Context& context, std::string_view args) {
  auto spec = take_format(args, "print", false);
  if (!spec)
    return spec.error();
  if (starts_with_word(args, "--"))
    args = split_first(args).second;
  expr::Context& target = context.debugger.context();
  if (args.empty()) {
    auto last = target.history(0, true);
    if (!last)
      return Diagnostic{"The history is empty.", "Give an expression to print.", {}};
    return print_value(context, std::move(*last), spec->letter);
  }
  auto value = expr::evaluate(args, target);
  if (!value)
    return value.error();
  return print_value(context, std::move(*value), spec->letter);
}

Checked<void> call(Context& context, std::string_view args) {
  if (args.empty())
    return Diagnostic{"The history is empty.", "Give an expression.", {}};
  auto spec = take_format(args, "call", false);
  if (!spec)
    return spec.error();
  auto value = expr::evaluate(args, context.debugger.context());
  if (!value)
    return value.error();
  if (value->is_void())
    return {};
  return print_value(context, std::move(*value), spec->letter);
}

Checked<void> output(Context& context, std::string_view args) {
  auto spec = take_format(args, "output", false);
  if (!spec)
    return spec.error();
  if (args.empty())
    return Diagnostic{"Argument required (expression to compute).", {}, {}};
  expr::Context& target = context.debugger.context();
  auto value = expr::evaluate(args, target);
  if (!value)
    return value.error();
  auto text = expr::format_value(*value, target, format_options(context, spec->letter));
  if (!text)
    return text.error();
  context.out.write(*text);
  return {};
}

Checked<void> set_variable(Context& context, std::string_view args) {
  if (args.empty())
    return Diagnostic{"Argument required (expression to compute).", {}, {}};
  auto value = expr::evaluate(args, context.debugger.context());
  if (!value)
    return value.error();
  return {};
}

Checked<void> whatis(Context& context, std::string_view args) {
  expr::Context& target = context.debugger.context();
  if (args.empty()) {
    auto last = target.history(0, true);
    context.out.print("type = {}\n", last ? last->type->name() : "void");
    return {};
  }
  auto expression = expr::check(args, target);
  if (!expression)
    return expression.error();
  symbols::TypeRef type = expression->root->type;
  // As gdb: a typedef's name gives what it stands for, one level.
  if (expression->is_type && type->kind() == symbols::TypeKind::kTypedef)
    type = type->target();
  context.out.print("type = {}\n", type->name());
  return {};
}

Checked<void> ptype(Context& context, std::string_view args) {
  expr::Context& target = context.debugger.context();
  symbols::TypeRef type = nullptr;
  if (args.empty()) {
    auto last = target.history(0, true);
    if (!last)
      return Diagnostic{"The history is empty.", "Give a type or an expression.", {}};
    type = last->type;
  } else {
    auto expression = expr::check(args, target);
    if (!expression)
      return expression.error();
    type = expression->root->type;
  }
  context.out.print("type = {}\n", type_definition(type));
  return {};
}

Checked<void> show_values(Context& context, std::string_view args) {
  const auto& history = context.debugger.values().history;
  size_t last = history.size();
  size_t first = last > 10 ? last - 10 : 0;
  if (!args.empty()) {
    auto index = parse_integer(args);
    if (!index || *index < 1)
      return Diagnostic{"Give the number of a value.", {}, {}};
    size_t middle = static_cast<size_t>(*index);
    first = middle > 5 ? middle - 5 : 0;
    last = std::min(history.size(), first + 10);
  }
  expr::Context& target = context.debugger.context();
  for (size_t i = first; i < last; ++i) {
    auto text = expr::format_value(history[i], target, format_options(context));
    context.out.print("${} = {}\n", i + 1, text ? *text : "<error: " + text.error().message + ">");
  }
  return {};
}

Checked<void> show_convenience(Context& context, std::string_view) {
  const auto& variables = context.debugger.values().convenience;
  if (variables.empty())
    context.out.write("No debugger convenience variables now defined.\n"
                      "Convenience variables have prefix characters like \"$foo\".\n"
                      "Use \"set\" as in \"set $foo = 5\" to define them.\n");
  expr::Context& target = context.debugger.context();
  for (const auto& [name, value] : variables) {
    auto text = expr::format_value(value, target, format_options(context));
    context.out.print("${} = {}\n", name, text ? *text : "<error: " + text.error().message + ">");
  }
  return {};
}

} // namespace cmd
} // namespace ddbg::ui
