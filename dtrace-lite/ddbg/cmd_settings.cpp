// set and show, environment.
#include "dtrace-lite/ddbg/commands.h"
#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/evaluation.h"
#include "dtrace-lite/ddbg/options.h"
#include "dtrace-lite/ddbg/text.h"

#include <algorithm>

namespace ddbg::ui::cmd {

// What `set` gets is none of its subcommands: a setting, or an expression with side effects.
Checked<void> set(Context& context, std::string_view args) {
  if (args.empty())
    return Diagnostic{"Argument required (expression to compute or setting to change).",
                      "\"show\" lists the settings.",
                      {}};
  SettingMatch match = find_setting(args);
  if (match.row) {
    // `set width = 5` and `set listsize==3` are about variables of the target.
    std::string_view value = trim(match.rest);
    bool is_assignment = value.starts_with('=') && match.row->kind != SettingKind::kText;
    if (!is_assignment)
      return context.settings.set(match.row->id,
                                  match.row->kind == SettingKind::kText ? match.rest : value);
  }
  size_t word = command_word_length(args);
  bool is_expression =
      !trim(args.substr(word)).empty() &&
      std::string_view("=+-*/%&|^<[.(").find(trim(args.substr(word))[0]) != std::string_view::npos;
  if (!match.row && !is_expression && match.candidates.size() > 1 && match.failed_prefix.empty() &&
      !match.failed_word.empty()) {
    std::string names;
    for (const SettingRow* row : match.candidates)
      names += (names.empty() ? "" : ", ") + std::string(row->name);
    return Diagnostic{
        "Ambiguous set command \"set " + std::string(args) + "\": " + names + ".", {}, {}};
  }
  if (!match.row && !match.failed_prefix.empty() && !is_expression)
    return Diagnostic{"Undefined set " + match.failed_prefix + " command: \"" +
                          std::string(match.failed_word) + "\".  Try \"help set " +
                          match.failed_prefix + "\".",
                      {},
                      {}};
  return set_variable(context, args);
}

Checked<void> show(Context& context, std::string_view args) {
  SettingMatch match = find_setting(args);
  if (match.row && trim(match.rest).empty()) {
    context.out.write(context.settings.show(match.row->id) + "\n");
    return {};
  }
  if (!match.failed_word.empty()) {
    std::string within = match.failed_prefix.empty() ? "show" : "show " + match.failed_prefix;
    if (match.candidates.empty())
      return Diagnostic{"Undefined " + within + " command: \"" + std::string(match.failed_word) +
                            "\".  Try \"help " + within + "\".",
                        {},
                        {}};
    std::string names;
    for (const SettingRow* row : match.candidates)
      names += (names.empty() ? "" : ", ") + std::string(row->name);
    return Diagnostic{
        "Ambiguous " + within + " command \"" + std::string(args) + "\": " + names + ".", {}, {}};
  }
  // Nothing, or a group such as "print": all of them.
  for (const SettingRow* row : match.candidates)
    context.out.print("{}:  {}\n", row->name, context.settings.show(row->id));
  return {};
}

Checked<void> set_environment(Context& context, std::string_view args) {
  size_t end = std::min(args.find_first_of("= \t"), args.size());
  std::string name(args.substr(0, end));
  if (name.empty())
    return Diagnostic{args.empty() ? "Argument required (environment variable and value)."
                                   : "Argument required (environment variable to set).",
                      {},
                      {}};
  std::string_view value = trim(args.substr(end));
  if (value.starts_with('='))
    value = trim(value.substr(1));
  if (value.empty() && context.from_tty)
    context.out.print("Setting environment variable \"{}\" to null value.\n", name);
  context.debugger.settings().environment.set(name, value);
  return {};
}

Checked<void> unset(Context&, std::string_view) {
  return Diagnostic{"\"unset\" must be followed by the name of an unset subcommand.",
                    "\"unset environment VAR\" is the one there is.",
                    {}};
}

Checked<void> unset_environment(Context& context, std::string_view args) {
  auto& environment = context.debugger.settings().environment;
  if (!args.empty()) {
    environment.unset(args);
    return {};
  }
  if (context.from_tty && !context.confirm("Delete all environment variables? "))
    return {};
  environment.clear();
  return {};
}

Checked<void> show_environment(Context& context, std::string_view args) {
  const auto& environment = context.debugger.settings().environment;
  if (args.empty()) {
    for (const std::string& entry : environment.entries())
      context.out.print("{}\n", entry);
    return {};
  }
  if (auto value = environment.find(args))
    context.out.print("{} = {}\n", args, *value);
  else
    context.out.print("Environment variable \"{}\" not defined.\n", args);
  return {};
}

Checked<void> show_version(Context& context, std::string_view) {
  context.out.write(version_text());
  return {};
}

Checked<void> show_user(Context& context, std::string_view args) {
  const auto& users = context.interpreter.user_commands();
  auto one = [&](const std::string& name, const Interpreter::UserCommand& command) {
    context.out.print("User command \"{}\":\n{}\n", name, block_text(command.body, 2));
  };
  if (args.empty()) {
    for (const auto& [name, command] : users)
      one(name, command);
    return {};
  }
  auto it = users.find(std::string(args));
  if (it == users.end())
    return Diagnostic{"Not a user command.", {}, {}};
  one(it->first, it->second);
  return {};
}

} // namespace ddbg::ui::cmd
