// info registers, info all-registers.
#include "dtrace-lite/ddbg/code_lookup.h"
#include "dtrace-lite/ddbg/commands.h"
#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/evaluation.h"
#include "dtrace-lite/ddbg/text.h"

#include <optional>

namespace ddbg::ui::cmd {

namespace {

// The order in which gdb shows them, which is not that of the DWARF numbers.
constexpr dune::Reg kShown[] = {
    dune::Reg::rax,     dune::Reg::rbx, dune::Reg::rcx,    dune::Reg::rdx, dune::Reg::rsi,
    dune::Reg::rdi,     dune::Reg::rbp, dune::Reg::rsp,    dune::Reg::r8,  dune::Reg::r9,
    dune::Reg::r10,     dune::Reg::r11, dune::Reg::r12,    dune::Reg::r13, dune::Reg::r14,
    dune::Reg::r15,     dune::Reg::rip, dune::Reg::eflags, dune::Reg::cs,  dune::Reg::ss,
    dune::Reg::ds,      dune::Reg::es,  dune::Reg::fs,     dune::Reg::gs,  dune::Reg::fs_base,
    dune::Reg::gs_base,
};

const char* name_of(dune::Reg reg) { return dune::kRegisters[static_cast<size_t>(reg)].name; }

// How `natural` shows it: pointers with their symbol, flags by name, the rest as decimal.
void print_register(Context& context, std::string_view name, const expr::Value& value) {
  expr::Context& target = context.debugger.context();
  auto number = static_cast<uint64_t>(expr::number_of(value));
  std::string natural;
  if (value.type->is_pointer()) {
    natural = expr::format_address(dune::TargetAddr(number), target);
  } else if (auto text = expr::format_value(value, target, format_options(context)); text) {
    natural = *text;
  }
  context.out.print("{:<14} {:<19} {}\n", name, fmt::format("0x{:x}", number), natural);
}

Checked<expr::Value> read_register(Context& context, std::string_view name) {
  expr::Context& target = context.debugger.context();
  auto value = expr::evaluate("$" + std::string(name), target);
  return value ? expr::fetch(std::move(*value), target) : std::move(value);
}

Checked<void> require_registers(Context& context) {
  if (!context.debugger.alive())
    return Diagnostic{"The program has no registers now.", {}, {}};
  return {};
}

void print_general(Context& context) {
  for (dune::Reg reg : kShown) {
    auto value = read_register(context, name_of(reg));
    if (value && !value->is_void() && !value->is_wholly_optimized_out())
      print_register(context, name_of(reg), *value);
    else
      context.out.print("{:<14} <not saved>\n", name_of(reg));
  }
}

// x87 and vector registers, by the value's own formatting.
bool print_wide(Context& context, std::string_view name) {
  expr::Context& target = context.debugger.context();
  auto value = target.named_register(name);
  if (!value)
    return false;
  auto text = expr::format_value(*value, target, format_options(context));
  context.out.print("{:<14} {}\n", name, text ? *text : "<unavailable>");
  return true;
}

} // namespace

Checked<void> info_registers(Context& context, std::string_view args) {
  if (auto there = require_registers(context); !there)
    return there;
  if (args.empty()) {
    print_general(context);
    return {};
  }
  for (std::string_view word : split_blank(args)) {
    std::string_view name = word.starts_with('$') ? word.substr(1) : word;
    if (name == "general" || name == "all") {
      print_general(context);
      continue;
    }
    if (expr::register_by_name(name)) {
      auto value = read_register(context, name);
      if (value && !value->is_wholly_optimized_out())
        print_register(context, name, *value);
      else
        context.out.print("{:<14} <not saved>\n", name);
    } else if (!print_wide(context, name)) {
      return Diagnostic{
          "Invalid register `" + std::string(name) + "'", "\"info all-registers\" lists them.", {}};
    }
  }
  return {};
}

Checked<void> info_all_registers(Context& context, std::string_view args) {
  if (!args.empty())
    return info_registers(context, args);
  if (auto there = require_registers(context); !there)
    return there;
  print_general(context);
  for (int i = 0; i < 8; ++i)
    print_wide(context, "st" + std::to_string(i));
  for (const char* name : {"fctrl", "fstat", "ftag", "mxcsr"})
    print_wide(context, name);
  for (int i = 0; i < 32; ++i)
    if (!print_wide(context, "xmm" + std::to_string(i)))
      break;
  return {};
}

} // namespace ddbg::ui::cmd
