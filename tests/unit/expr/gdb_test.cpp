// What we print against what gdb prints, for the same stop of the same program.
#include "dtrace-lite/expr/format.h"
#include "tests/unit/expr/core_context.h"

#include <fstream>
#include <gtest/gtest.h>

namespace ddbg::expr {
namespace {

// Our answer to "p EXPR", "p/F EXPR", "output"-less "x/FMT EXPR", "whatis EXPR".
std::string answer(const std::string& command, Context& context) {
  size_t space = command.find(' ');
  std::string verb = command.substr(0, space), text = command.substr(space + 1), format;
  if (size_t slash = verb.find('/'); slash != std::string::npos) {
    format = verb.substr(slash + 1);
    verb.resize(slash);
  }
  if (verb == "whatis") {
    auto expression = check(text, context);
    if (!expression)
      return expression.error().message;
    return "type = " + expression->root->type->name();
  }
  auto value = evaluate(text, context);
  if (!value)
    return value.error().message;
  if (verb == "x") {
    auto spec = parse_format(format, {});
    if (!spec)
      return spec.error().message;
    auto at = fetch(*value, context);
    if (!at)
      return at.error().message;
    TargetAddr address = at->type->stripped()->kind() == TypeKind::kArray
                             ? at->address
                             : TargetAddr(static_cast<uint64_t>(number_of(*at)));
    std::vector<std::string> lines;
    TargetAddr next{};
    auto done = examine(address, *spec, context, nullptr, lines, next);
    std::string out;
    for (const std::string& line : lines)
      out += (out.empty() ? "" : "\n") + line;
    if (!done)
      out += done.error().message;
    return out;
  }
  FormatOptions options;
  if (!format.empty())
    options.letter = format[0];
  auto shown = format_value(*value, context, options);
  return shown ? *shown : shown.error().message;
}

std::string without_history_number(std::string text) {
  size_t dollar = text.starts_with("warning: ") ? text.find('\n') + 1 : 0;
  if (text.compare(dollar, 1, "$") == 0)
    if (size_t equals = text.find(" = "); equals != std::string::npos)
      return text.substr(0, dollar) + text.substr(equals + 3);
  return text;
}

std::vector<std::string> commands_in(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> commands;
  for (std::string line; std::getline(file, line);)
    if (!line.empty() && line[0] != '#')
      commands.push_back(line);
  return commands;
}

void compare_with_gdb(const std::string& program, const std::string& list, size_t at_least) {
  std::vector<std::string> commands = commands_in(list), expected;
  ASSERT_GE(commands.size(), at_least);
  std::string core = ::testing::TempDir() + "expr_" + std::to_string(getpid()) + ".core";
  ASSERT_TRUE(CoreContext::run_gdb(program, core, commands, expected))
      << "gdb could not run " << program;
  auto context = CoreContext::open(program, core);
  unlink(core.c_str());
  ASSERT_TRUE(context);
  for (size_t i = 0; i < commands.size(); i++)
    EXPECT_EQ(context->take_warnings_before(answer(commands[i], *context)),
              without_history_number(expected[i]))
        << "command: " << commands[i];
}

TEST(ExpressionsAgainstGdb, CProgramDwarf5) {
  compare_with_gdb(STATE_C_DWARF5, STATE_C_COMMANDS, 250);
}
TEST(ExpressionsAgainstGdb, CProgramDwarf4) {
  compare_with_gdb(STATE_C_DWARF4, STATE_C_COMMANDS, 250);
}
TEST(ExpressionsAgainstGdb, CppProgram) { compare_with_gdb(STATE_CPP, STATE_CPP_COMMANDS, 60); }

} // namespace
} // namespace ddbg::expr
