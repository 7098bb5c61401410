#include "dtrace-lite/ddbg/evaluation.h"

#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/engine/context.h"

#include <algorithm>

namespace ddbg::ui {

namespace {

constexpr int kMostReferences = 8; // a reference to a reference ... in damaged debug information

// A number, or the address of what has one.
Checked<uint64_t> to_integer(expr::Value value, expr::Context& target, bool address_of_memory) {
  for (int i = 0; i < kMostReferences && value.type->is_reference(); ++i) {
    auto fetched = expr::fetch(std::move(value), target);
    if (!fetched)
      return fetched.error();
    auto referred = expr::dereference(*fetched, target);
    if (!referred)
      return referred.error();
    value = std::move(*referred);
  }
  using symbols::TypeKind;
  TypeKind kind = value.type->stripped()->kind();
  bool by_place =
      kind == TypeKind::kFunction || kind == TypeKind::kNoDebugText || kind == TypeKind::kArray ||
      (address_of_memory &&
       (value.type->is_record() || kind == TypeKind::kNoDebugData || kind == TypeKind::kFloat));
  if (by_place && value.place == expr::Value::Place::kMemory)
    return value.address.value;
  auto fetched = expr::fetch(std::move(value), target);
  if (!fetched)
    return fetched.error();
  if (fetched->is_wholly_optimized_out())
    return Diagnostic{"value has been optimized out", {}, {}};
  if (kind == TypeKind::kFloat)
    return static_cast<uint64_t>(static_cast<int64_t>(expr::floating_of(*fetched)));
  if (!fetched->type->is_integral() && !fetched->type->is_pointer())
    return Diagnostic{"Value can't be converted to integer.", {}, {}};
  return static_cast<uint64_t>(expr::number_of(*fetched));
}

// "name = value" lines.
void add_line(Context& context, const expr::Symbol& symbol, expr::Context& target,
              std::string& text) {
  auto value = expr::read_variable(symbol, symbol.type, target);
  Checked<std::string> shown = value ? expr::format_plain(*value, target, format_options(context))
                                     : Checked<std::string>(value.error());
  if (shown)
    text += symbol.name + " = " + *shown + "\n";
  else
    text += symbol.name + " = <error reading variable " + symbol.name + " (" +
            shown.error().message + ")>\n";
}

} // namespace

expr::FormatOptions format_options(Context& context, char letter) {
  auto limited = [&](Setting s) {
    return static_cast<unsigned>(std::min<uint64_t>(context.settings.count(s), UINT32_MAX));
  };
  expr::FormatOptions options;
  options.letter = letter;
  options.element_limit = limited(Setting::kPrintElements);
  options.repeat_threshold = limited(Setting::kPrintRepeats);
  return options;
}

Checked<bool> evaluate_condition(Context& context, std::string_view expression) {
  expr::Context& target = context.debugger.context();
  auto checked = expr::check(expression, target);
  if (!checked)
    return checked.error();
  return expr::evaluate_condition(*checked, target);
}

Checked<uint64_t> evaluate_integer(Context& context, std::string_view expression) {
  expr::Context& target = context.debugger.context();
  auto value = expr::evaluate(expression, target);
  if (!value)
    return value.error();
  return to_integer(std::move(*value), target, false);
}

Checked<uint64_t> evaluate_address(Context& context, std::string_view expression) {
  expr::Context& target = context.debugger.context();
  auto value = expr::evaluate(expression, target);
  if (!value)
    return value.error();
  return to_integer(std::move(*value), target, true);
}

void set_convenience_integer(Context& context, const std::string& name, int64_t value) {
  const auto& builtin = symbols::BuiltinTypes::get();
  context.debugger.context().set_convenience(
      name,
      expr::Value::integer(
          value >= INT32_MIN && value <= INT32_MAX ? builtin.int_type : builtin.long_type, value));
}

size_t remember(Context& context, expr::Value value) {
  auto& history = context.debugger.values().history;
  history.push_back(std::move(value));
  return history.size();
}

std::string frame_arguments(Context& context) {
  expr::FrameContext& target = context.debugger.context();
  const std::string& mode = context.settings.text(Setting::kPrintFrameArguments);
  std::vector<expr::Symbol> arguments = target.arguments();
  if (mode == "presence")
    return arguments.empty() ? "" : "...";
  expr::FormatOptions options = format_options(context);
  options.summary = mode == "scalars";
  std::string text;
  for (const expr::Symbol& symbol : arguments) {
    text += text.empty() ? symbol.name : ", " + symbol.name;
    if (mode == "none") {
      text += "=...";
      continue;
    }
    auto value = expr::read_variable(symbol, symbol.type, target);
    Checked<std::string> shown =
        value ? expr::format_plain(*value, target, options) : Checked<std::string>(value.error());
    text += "=" + (shown ? *shown : "<error reading variable: " + shown.error().message + ">");
  }
  return text;
}

std::string frame_argument_lines(Context& context) {
  std::string text;
  expr::FrameContext& target = context.debugger.context();
  for (const expr::Symbol& symbol : target.arguments())
    add_line(context, symbol, target, text);
  return text;
}

std::string frame_locals(Context& context) {
  std::string text;
  expr::FrameContext& target = context.debugger.context();
  for (const auto& block : target.locals())
    for (const expr::Symbol& symbol : block)
      add_line(context, symbol, target, text);
  return text;
}

} // namespace ddbg::ui
