// display and its kin.
#include "dtrace-lite/ddbg/code_lookup.h"
#include "dtrace-lite/ddbg/commands.h"
#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/disassembly.h"
#include "dtrace-lite/ddbg/display.h"
#include "dtrace-lite/ddbg/evaluation.h"
#include "dtrace-lite/ddbg/text.h"

#include <algorithm>

namespace ddbg::ui {

namespace {

// i and s, and whatever has a count or a size, show memory as x does.
bool examines_memory(const Display& d) {
  if (d.format.empty())
    return false;
  return d.format.find_first_of("is0123456789bhwg") != d.format.npos;
}

} // namespace

Checked<void> show_display(Context& context, Display& d) {
  if (examines_memory(d)) {
    auto format = expr::parse_format(d.format.substr(1), {1, 'x', 'w'});
    if (!format)
      return format.error();
    auto address = evaluate_address(context, d.expression);
    if (!address)
      return address.error();
    context.out.print("{}: x{} {}\n", d.number, d.format, d.expression);
    ExamineCursor cursor;
    cursor.next = dune::TargetAddr(*address);
    cursor.count = format->count;
    cursor.format = format->letter;
    cursor.size = format->size;
    return examine_memory(context, cursor);
  }
  expr::Context& target = context.debugger.context();
  auto value = expr::evaluate(d.expression, target);
  if (!value)
    return value.error();
  char letter = d.format.size() > 1 ? d.format[1] : '\0';
  auto text = expr::format_value(*value, target, format_options(context, letter));
  if (!text)
    return text.error();
  context.out.print("{}: {}{}{} = {}\n", d.number, d.format, d.format.empty() ? "" : " ",
                    d.expression, *text);
  return {};
}

void show_displays(Context& context) {
  for (Display& d : context.displays)
    if (d.enabled)
      if (auto shown = show_display(context, d); !shown) {
        // Out of its block it is not shown; gdb disables only what fails in other ways, and says
        // so.
        if (shown.error().message.starts_with("No symbol"))
          continue;
        context.out.print("{}: {}{}{} = <error: {}>\n", d.number, d.format,
                          d.format.empty() ? "" : " ", d.expression, shown.error().message);
      }
}

namespace cmd {

namespace {

Checked<void> change_displays(Context& context, std::string_view args,
                              const std::function<void(Display&)>& change) {
  auto numbers = parse_number_list(args, "display number");
  if (!numbers)
    return numbers.error();
  if (numbers->empty())
    for (Display& d : context.displays)
      change(d);
  for (int number : *numbers) {
    auto it = std::find_if(context.displays.begin(), context.displays.end(),
                           [&](const Display& d) { return d.number == number; });
    if (it == context.displays.end())
      context.out.print("No display number {}.\n", number);
    else
      change(*it);
  }
  return {};
}

} // namespace

Checked<void> display(Context& context, std::string_view args) {
  if (args.empty()) {
    show_displays(context);
    return {};
  }
  Display d;
  if (args.starts_with('/')) {
    d.format = args.substr(0, args.find_first_of(" \t"));
    if (auto format = expr::parse_format(std::string_view(d.format).substr(1), {1, 'x', 'w'});
        !format)
      return format.error();
    args = trim(args.substr(d.format.size()));
  }
  if (args.empty())
    return Diagnostic{"Argument required (expression to compute).", {}, {}};
  d.expression = args;
  if (auto checked = expr::check(args, context.debugger.context()); !checked)
    return checked.error();
  d.number = context.next_display++;
  context.displays.push_back(d);
  if (!context.from_tty)
    return {};
  return show_display(context, context.displays.back());
}

Checked<void> undisplay(Context& context, std::string_view args) {
  if (args.empty()) {
    if (context.confirm("Delete all auto-display expressions? "))
      context.displays.clear();
    return {};
  }
  std::vector<int> gone;
  auto marked = change_displays(context, args, [&](Display& d) { gone.push_back(d.number); });
  std::erase_if(context.displays, [&](const Display& d) {
    return std::find(gone.begin(), gone.end(), d.number) != gone.end();
  });
  return marked;
}

Checked<void> enable_display(Context& context, std::string_view args) {
  return change_displays(context, args, [](Display& d) { d.enabled = true; });
}
Checked<void> disable_display(Context& context, std::string_view args) {
  return change_displays(context, args, [](Display& d) { d.enabled = false; });
}

Checked<void> info_display(Context& context, std::string_view) {
  if (context.displays.empty()) {
    context.out.write("There are no auto-display expressions now.\n");
    return {};
  }
  context.out.write("Auto-display expressions now in effect:\nNum Enb Expression\n");
  for (const Display& d : context.displays)
    context.out.print("{}:   {}  {}{}{}\n", d.number, d.enabled ? 'y' : 'n', d.format,
                      d.format.empty() ? "" : " ", d.expression);
  return {};
}

} // namespace cmd
} // namespace ddbg::ui
