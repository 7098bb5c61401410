// Making, changing and deleting breakpoints and watchpoints.
#include "dtrace-lite/ddbg/breakpoint_text.h"
#include "dtrace-lite/ddbg/commands.h"
#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/evaluation.h"
#include "dtrace-lite/ddbg/text.h"

#include <algorithm>
#include <charconv>

namespace ddbg::ui {

void mention_breakpoint(Context& context, unsigned number) {
  const engine::Breakpoint* b = context.debugger.breakpoint(number);
  if (!b)
    return;
  context.last_breakpoint = number;
  using engine::BreakpointType;
  switch (b->type) {
  case BreakpointType::kWatch:
    context.out.print("Hardware watchpoint {}: {}\n", number, b->watched());
    return;
  case BreakpointType::kReadWatch:
    context.out.print("Hardware read watchpoint {}: {}\n", number, b->watched());
    return;
  case BreakpointType::kAccessWatch:
    context.out.print("Hardware access (read/write) watchpoint {}: {}\n", number, b->watched());
    return;
  case BreakpointType::kBreakpoint:
    break;
  }
  const char* kind =
      b->disposition == engine::Disposition::kDelete ? "Temporary breakpoint" : "Breakpoint";
  if (b->pending || b->locations.empty()) {
    context.out.print("{} {} ({}{}) pending.\n", kind, number, b->spec,
                      b->condition.empty() ? "" : " if " + b->condition);
    return;
  }
  const engine::ResolvedPlace& place = b->locations[0].place;
  std::string text = fmt::format("{} {} at 0x{:x}", kind, number, place.address.value);
  if (b->locations.size() > 1)
    text += fmt::format(": {}. ({} locations)", b->spec, b->locations.size());
  else if (place.source)
    text += fmt::format(": file {}, line {}.", place.source.file->name, place.source.line);
  context.out.write(text + "\n");
  for (const auto& location : b->locations)
    if (!location.problem.empty())
      context.warning(fmt::format("Cannot insert breakpoint {}.\n{}", number, location.problem));
}

namespace cmd {

namespace {

Checked<void> make_breakpoint(Context& context, std::string_view args,
                              engine::Disposition disposition) {
  context.apply_settings();
  engine::AddBreakpoint request;
  request.arguments = args;
  request.disposition = disposition;
  request.allow_pending = context.settings.value_text(Setting::kBreakpointPending) == "on";
  auto number = context.debugger.add_breakpoint(request);
  bool may_wait = context.settings.value_text(Setting::kBreakpointPending) == "auto";
  if (!number && may_wait && context.debugger.last_error_may_be_pending()) {
    context.report_error(number.error());
    if (!context.ask_no("Make breakpoint pending on future shared library load? "))
      return {};
    request.allow_pending = true;
    number = context.debugger.add_breakpoint(request);
  }
  if (!number)
    return number.error();
  mention_breakpoint(context, *number);
  return {};
}

Checked<void> make_watchpoint(Context& context, std::string_view args,
                              engine::BreakpointType type) {
  if (args.empty())
    return Diagnostic{"Argument required (expression to compute).", {}, {}};
  engine::AddWatchpoint request;
  request.arguments = args;
  request.type = type;
  auto number = context.debugger.add_watchpoint(request);
  if (!number)
    return number.error();
  mention_breakpoint(context, *number);
  return {};
}

std::string no_such(unsigned number) { return fmt::format("No breakpoint number {}.", number); }

Checked<unsigned> existing_breakpoint(Context& context, std::string_view word) {
  auto number = parse_integer(word);
  if (!number || *number <= 0)
    return Diagnostic{"Bad breakpoint argument: '" + std::string(word) + "'", {}, {}};
  auto id = static_cast<unsigned>(*number);
  if (*number > INT32_MAX || !context.debugger.breakpoint(id))
    return Diagnostic{no_such(id), {}, {}};
  return id;
}

// Does `action` for each of the numbers, all of which are tried; a missing one is said and passed.
Checked<void> for_each_number(Context& context, std::string_view args,
                              const std::function<Checked<void>(unsigned)>& action) {
  auto numbers = parse_number_list(args, "breakpoint number");
  if (!numbers)
    return numbers.error();
  for (int number : *numbers) {
    if (number <= 0 || !context.debugger.breakpoint(static_cast<unsigned>(number))) {
      context.out.write(no_such(static_cast<unsigned>(number)) + "\n"); // to gdb, no error
      continue;
    }
    if (auto done = action(static_cast<unsigned>(number)); !done)
      return done;
  }
  return {};
}

std::vector<unsigned> all_numbers(Context& context) {
  std::vector<unsigned> numbers;
  for (const auto& b : context.debugger.breakpoints())
    numbers.push_back(b->number);
  return numbers;
}

// "3", "3.2", "1-4"
Checked<void> switch_breakpoints(Context& context, std::string_view args, bool on) {
  if (args.empty()) {
    for (unsigned number : all_numbers(context))
      if (auto done = context.debugger.enable_breakpoint(number, 0, on); !done)
        return done;
    return {};
  }
  for (std::string_view word : split_blank(args)) {
    size_t dot = word.find('.');
    if (dot == word.npos) {
      auto done = for_each_number(context, word, [&](unsigned number) {
        return context.debugger.enable_breakpoint(number, 0, on);
      });
      if (!done)
        return done;
      continue;
    }
    auto numbers = parse_number_list(word.substr(0, dot), "breakpoint number");
    auto locations = parse_number_list(word.substr(dot + 1), "breakpoint location number");
    if (!numbers || !locations || numbers->size() != 1)
      return Diagnostic{"Bad breakpoint location number '" + std::string(word) + "'",
                        "Give it as NUMBER.LOCATION, such as 1.2.",
                        {}};
    const engine::Breakpoint* b =
        context.debugger.breakpoint(static_cast<unsigned>(numbers->front()));
    for (int location : *locations) {
      if (!b || location <= 0 || static_cast<size_t>(location) > b->locations.size())
        return Diagnostic{b ? "Bad breakpoint location number '" + std::to_string(location) + "'"
                            : "Bad breakpoint number '" + std::string(word) + "'",
                          {},
                          {}};
      auto done =
          context.debugger.enable_breakpoint(b->number, static_cast<unsigned>(location), on);
      if (!done)
        return done;
    }
  }
  return {};
}

Checked<void> set_disposition(Context& context, std::string_view args,
                              engine::Disposition disposition) {
  auto action = [&](unsigned number) -> Checked<void> {
    if (auto done = context.debugger.enable_breakpoint(number, 0, true); !done)
      return done;
    return context.debugger.set_disposition(number, disposition);
  };
  if (!args.empty())
    return for_each_number(context, args, action);
  for (unsigned number : all_numbers(context))
    if (auto done = action(number); !done)
      return done;
  return {};
}

} // namespace

Checked<void> break_(Context& context, std::string_view args) {
  return make_breakpoint(context, args, engine::Disposition::kKeep);
}
Checked<void> tbreak(Context& context, std::string_view args) {
  return make_breakpoint(context, args, engine::Disposition::kDelete);
}
Checked<void> watch(Context& context, std::string_view args) {
  return make_watchpoint(context, args, engine::BreakpointType::kWatch);
}
Checked<void> rwatch(Context& context, std::string_view args) {
  return make_watchpoint(context, args, engine::BreakpointType::kReadWatch);
}
Checked<void> awatch(Context& context, std::string_view args) {
  return make_watchpoint(context, args, engine::BreakpointType::kAccessWatch);
}

Checked<void> delete_(Context& context, std::string_view args) {
  if (!args.empty())
    return for_each_number(
        context, args, [&](unsigned number) { return context.debugger.delete_breakpoint(number); });
  std::vector<unsigned> numbers = all_numbers(context);
  if (!numbers.empty() && context.from_tty && !context.confirm("Delete all breakpoints? "))
    return {};
  for (unsigned number : numbers)
    if (auto done = context.debugger.delete_breakpoint(number); !done)
      return done;
  return {};
}

Checked<void> clear(Context& context, std::string_view args) {
  std::vector<engine::ResolvedPlace> places;
  bool by_line = args.empty();
  if (args.empty()) {
    auto frame = context.debugger.selected_frame();
    if (!frame || !frame->source)
      return Diagnostic{"No source file specified.", {}, {}};
    engine::ResolvedPlace here;
    here.address = frame->pc;
    here.source = frame->source;
    places.push_back(here);
  } else {
    engine::Linespec linespec = context.debugger.resolve(std::string(args));
    if (linespec.places.empty())
      return linespec.problem;
    places = std::move(linespec.places);
    // A line names every breakpoint on it, a function or an address only the exact place.
    by_line = std::isdigit(static_cast<unsigned char>(args[0])) ||
              (args.find(':') != args.npos && args.find("::") == args.npos);
  }
  std::vector<unsigned> numbers;
  for (const auto& b : context.debugger.breakpoints()) {
    bool matches = std::any_of(b->locations.begin(), b->locations.end(), [&](const auto& l) {
      return std::any_of(places.begin(), places.end(), [&](const engine::ResolvedPlace& p) {
        return l.place.address == p.address || (by_line && p.source && l.place.source == p.source);
      });
    });
    if (!b->is_watch() && matches)
      numbers.push_back(b->number);
  }
  if (numbers.empty())
    return Diagnostic{args.empty() ? std::string("No breakpoint at this line.")
                                   : "No breakpoint at " + std::string(args) + ".",
                      {},
                      {}};
  if (context.from_tty) {
    context.out.write(numbers.size() == 1 ? "Deleted breakpoint " : "Deleted breakpoints ");
    for (unsigned number : numbers)
      context.out.print("{} ", number);
    context.out.write("\n");
  }
  for (unsigned number : numbers)
    if (auto done = context.debugger.delete_breakpoint(number); !done)
      return done;
  return {};
}

Checked<void> enable(Context& context, std::string_view args) {
  return switch_breakpoints(context, args, true);
}
Checked<void> disable(Context& context, std::string_view args) {
  return switch_breakpoints(context, args, false);
}
Checked<void> enable_once(Context& context, std::string_view args) {
  return set_disposition(context, args, engine::Disposition::kDisable);
}
Checked<void> enable_delete(Context& context, std::string_view args) {
  return set_disposition(context, args, engine::Disposition::kDelete);
}

Checked<void> condition(Context& context, std::string_view args) {
  if (args.empty())
    return Diagnostic{"Argument required (breakpoint number).", {}, {}};
  auto [word, expression] = split_first(args);
  auto id = existing_breakpoint(context, word);
  if (!id)
    return id.error();
  if (auto set = context.debugger.set_condition(*id, std::string(expression)); !set)
    return set;
  if (expression.empty() && context.from_tty)
    context.out.print("Breakpoint {} now unconditional.\n", *id);
  return {};
}

Checked<void> ignore(Context& context, std::string_view args) {
  if (args.empty())
    return Diagnostic{"Argument required (a breakpoint number).", {}, {}};
  auto [word, rest] = split_first(args);
  auto id = existing_breakpoint(context, word);
  if (!id)
    return id.error();
  if (rest.empty())
    return Diagnostic{"Second argument (specified ignore-count) is missing.", {}, {}};
  auto count = evaluate_integer(context, rest);
  if (!count)
    return count.error();
  uint64_t crossings = static_cast<int64_t>(*count) < 0 ? 0 : *count;
  if (auto set = context.debugger.set_ignore_count(*id, crossings); !set)
    return set;
  if (!context.from_tty)
    return {};
  if (crossings == 0)
    context.out.print("Will stop next time breakpoint {} is reached.\n", *id);
  else if (crossings == 1)
    context.out.print("Will ignore next crossing of breakpoint {}.\n", *id);
  else
    context.out.print("Will ignore next {} crossings of breakpoint {}.\n", crossings, *id);
  return {};
}

Checked<void> commands(Context& context, std::string_view args) {
  std::vector<std::string> lines;
  std::string text = block_text(context.interpreter.body(), 0);
  for (size_t begin = 0; begin < text.size();) {
    size_t end = text.find('\n', begin);
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  if (args.empty()) {
    if (!context.debugger.breakpoint(context.last_breakpoint))
      return Diagnostic{"No breakpoints specified.", "Set one, or give a number.", {}};
    return context.debugger.set_commands(context.last_breakpoint, std::move(lines));
  }
  return for_each_number(
      context, args, [&](unsigned number) { return context.debugger.set_commands(number, lines); });
}

// Takes effect as the first of a breakpoint's commands, see tell_stop(); later it says nothing.
Checked<void> silent(Context&, std::string_view) { return {}; }

} // namespace cmd
} // namespace ddbg::ui
