// info breakpoints, info watchpoints: gdb's table, with where conditions are evaluated.
#include "dtrace-lite/ddbg/commands.h"
#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/text.h"

#include <algorithm>
#include <set>

namespace ddbg::ui::cmd {

namespace {

using engine::Breakpoint;
using engine::BreakpointInfo;
using engine::BreakpointLocation;

struct Columns {
  size_t type = 14;    // width
  size_t address = 10; // 18 once an address is shown, 0: no column
};

const char* disposition_text(engine::Disposition d) {
  switch (d) {
  case engine::Disposition::kKeep:
    return "keep";
  case engine::Disposition::kDelete:
    return "del";
  case engine::Disposition::kDisable:
    return "dis";
  }
  return "?";
}

std::string address_text(dune::TargetAddr a, const Columns& columns) {
  return columns.address
             ? fmt::format("{:<{}} ", fmt::format("0x{:016x}", a.value), columns.address)
             : std::string();
}

std::string place_text(Context& context, const BreakpointLocation& location) {
  const engine::ResolvedPlace& place = location.place;
  std::string text, name = place.function;
  uint64_t offset = 0;
  if (const symbols::LoadedModule* module = context.debugger.module_map().find(place.address)) {
    symbols::Functions& functions = module->module->functions();
    const dune::LinkAddr address = module->to_link(place.address);
    if (auto function = functions.at(address); function && !name.empty()) {
      name = functions.listed_name(*function);
      offset = address - function->entry;
    }
  }
  if (place.source) {
    if (!name.empty())
      text = "in " + name + " ";
    return text + fmt::format("at {}:{}", place.source.file->name, place.source.line);
  }
  return name.empty() ? text : "<" + name + (offset ? fmt::format("+{}>", offset) : ">");
}

std::string times(uint64_t n) { return fmt::format("{} time{}", n, n == 1 ? "" : "s"); }

void print_condition(Context& context, const BreakpointInfo& info) {
  const Breakpoint& b = info.breakpoint;
  if (b.condition.empty())
    return;
  context.out.print("\tstop only if {}\n", b.condition);
  // Not gdb's: where the work is done, and how often.
  std::string faults =
      info.total.faults ? fmt::format(", {} of them failed", info.total.faults) : std::string();
  switch (info.condition_place) {
  case engine::ConditionPlace::kNone:
    break;
  case engine::ConditionPlace::kInTarget:
    context.out.print("\tcondition evaluated in the target {}{}\n", times(info.total.evaluations),
                      faults);
    break;
  case engine::ConditionPlace::kInDdbg: {
    std::string why;
    for (const auto& location : b.locations)
      if (why.empty())
        why = location.why_not_compiled;
    context.out.print("\tcondition evaluated by ddbg {}{}{}{}\n", times(info.total.evaluations),
                      faults, why.empty() ? "" : ": ", why);
    break;
  }
  }
}

void print_one(Context& context, const BreakpointInfo& info, const Columns& columns) {
  const Breakpoint& b = info.breakpoint;
  context.out.print("{:<7} {:<{}} {:<4} {}   ", b.number, engine::type_name(b.type), columns.type,
                    disposition_text(b.disposition), b.enabled ? 'y' : 'n');
  std::string thread = b.thread ? fmt::format(" thread {}", *b.thread) : std::string();
  std::string blank = columns.address ? std::string(columns.address + 1, ' ') : std::string();
  // The parts of what is watched are nobody's business.
  bool table = !b.is_watch() &&
               (b.locations.size() > 1 || (b.locations.size() == 1 && !b.locations[0].enabled));
  auto word = [&](const char* text) {
    return columns.address ? fmt::format("{:<{}} ", text, columns.address) : std::string();
  };
  if (b.is_watch())
    context.out.print("{}{}{}\n", blank, b.watched(), thread);
  else if (b.pending || b.locations.empty())
    context.out.print("{}{}{}\n", word("<PENDING>"), b.spec, thread);
  else if (table)
    context.out.print("{}{}\n", word("<MULTIPLE>"), thread);
  else
    context.out.print("{}{}{}\n", address_text(b.locations[0].place.address, columns),
                      place_text(context, b.locations[0]), thread);
  print_condition(context, info);
  if (b.thread)
    context.out.print("\tstop only in thread {}\n", *b.thread);
  if (info.by_page)
    context.out.write("\tby page protection: each access to its page costs a fault\n");
  if (info.total.hits)
    context.out.print("\tbreakpoint already hit {}\n", times(info.total.hits));
  if (info.ignore_left)
    context.out.print("\tignore next {} hits\n", info.ignore_left);
  for (const std::string& line : b.commands)
    context.out.print("        {}\n", line);
  for (const auto& location : b.locations) {
    if (table)
      context.out.print("{:<7} {:<{}} {:<4} {}   {}{}\n",
                        fmt::format("{}.{}", b.number, location.number), "", columns.type, "",
                        location.enabled ? 'y' : 'n', address_text(location.place.address, columns),
                        place_text(context, location));
    if (!location.problem.empty())
      context.out.print("\tnot set: {}\n", location.problem);
  }
}

Checked<void> print_table(Context& context, std::string_view args, bool watches_only) {
  auto wanted = parse_number_list(args, "breakpoint number");
  if (!wanted)
    return wanted.error();
  std::set<int> numbers(wanted->begin(), wanted->end());
  std::vector<BreakpointInfo> rows;
  Columns columns;
  for (const auto& b : context.debugger.breakpoints()) {
    if (watches_only && !b->is_watch())
      continue;
    if (!numbers.empty() && !numbers.count(static_cast<int>(b->number)))
      continue;
    auto info = context.debugger.breakpoint_info(b->number);
    if (!info)
      return info.error();
    columns.type = std::max(columns.type, std::string_view(engine::type_name(b->type)).size());
    // To gdb a watchpoint has no place while nothing runs.
    if (b->is_watch() ? context.debugger.alive() : !b->locations.empty())
      columns.address = 18;
    rows.push_back(std::move(*info));
  }
  if (!context.settings.flag(Setting::kPrintAddress))
    columns.address = 0;
  if (rows.empty()) {
    const char* what = watches_only ? "watchpoint" : "breakpoint or watchpoint";
    if (args.empty())
      context.out.print("No {}s.\n", watches_only ? "watchpoint" : "breakpoints or watchpoint");
    else
      context.out.print("No {} matching '{}'.\n", what, args);
    return {};
  }
  context.out.print("Num     {:<{}} Disp Enb {}What\n", "Type", columns.type,
                    columns.address ? fmt::format("{:<{}} ", "Address", columns.address)
                                    : std::string());
  for (const BreakpointInfo& row : rows)
    print_one(context, row, columns);
  return {};
}

} // namespace

Checked<void> info_breakpoints(Context& context, std::string_view args) {
  return print_table(context, args, false);
}
Checked<void> info_watchpoints(Context& context, std::string_view args) {
  return print_table(context, args, true);
}

} // namespace ddbg::ui::cmd
