// help, apropos, scripts, shell, quit.
#include "dtrace-lite/ddbg/commands.h"
#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/evaluation.h"
#include "dtrace-lite/ddbg/text.h"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <sys/wait.h>
#include <unistd.h>

namespace ddbg::ui::cmd {

namespace {

constexpr const char* kHelpFooter =
    "Type \"apropos word\" to search for commands related to \"word\".\n"
    "Command name abbreviations are allowed if unambiguous.\n";

// "break, br, b": the name and its aliases with what comes before the last word.
std::string names_of(const Command& command) {
  std::string name = command.name;
  std::string prefix = name.substr(0, name.rfind(' ') == name.npos ? 0 : name.rfind(' ') + 1);
  std::string text = name;
  for (std::string_view alias : split_blank(command.aliases))
    text += ", " + prefix + std::string(alias);
  return text;
}

void summary_line(Context& context, const Command& command) {
  context.out.print("{} -- {}\n", names_of(command), summary(command));
}

std::string setting_summary(const SettingRow& row) {
  std::string_view help = row.help;
  return std::string(help.substr(0, help.find('\n')));
}

void settings_under(Context& context, const char* verb, const std::string& group) {
  for (const SettingRow& row : setting_rows())
    if (group.empty() || std::string_view(row.name).starts_with(group + " "))
      context.out.print("{} {} -- {}\n", verb, row.name, setting_summary(row));
}

void help_prefix(Context& context, const Command& command) {
  context.out.print("\nList of {} subcommands:\n\n", command.name);
  for (const Command* sub : subcommands(command.name))
    summary_line(context, *sub);
  std::string_view name = command.name;
  if (name == "set" || name == "show")
    settings_under(context, command.name, "");
  context.out.print("\nType \"help {}\" followed by {} subcommand name for full documentation.\n{}",
                    command.name, command.name, kHelpFooter);
}

void help_topic(Context& context, const TopicInfo& topic) {
  context.out.print("{}\n\nList of commands:\n\n", topic.summary);
  for (const Command& command : ui::commands())
    if (command.topic == topic.id)
      summary_line(context, command);
  context.out.print("\nType \"help\" followed by command name for full documentation.\n{}",
                    kHelpFooter);
}

Checked<void> help_setting(Context& context, const char* verb, std::string_view args) {
  SettingMatch match = find_setting(args);
  if (match.row) {
    context.out.print("{} {}\n{}\n", verb, match.row->name, match.row->help);
    if (match.row->choices)
      context.out.print("Values: {}\n", match.row->choices);
    return {};
  }
  if (match.failed_word.empty() && !match.candidates.empty()) {
    for (const SettingRow* row : match.candidates)
      context.out.print("{} {} -- {}\n", verb, row->name, setting_summary(*row));
    return {};
  }
  return Diagnostic{"Undefined " + std::string(verb) + " command: \"" + std::string(args) +
                        "\".  Try \"help " + verb + "\".",
                    {},
                    {}};
}

} // namespace

Checked<void> help(Context& context, std::string_view args) {
  if (args.empty()) {
    context.out.write("List of classes of commands:\n\n");
    for (const TopicInfo& topic : topics())
      context.out.print("{} -- {}\n", topic.name, topic.summary);
    if (!context.interpreter.user_commands().empty())
      context.out.write("user-defined -- User-defined commands.\n");
    context.out.print("\nType \"help\" followed by a class name for a list of commands in that "
                      "class.\nType \"help all\" for the list of all commands.\n"
                      "Type \"help\" followed by command name for full documentation.\n{}",
                      kHelpFooter);
    return {};
  }
  if (args == "all") {
    for (const TopicInfo& topic : topics()) {
      context.out.print("\nCommand class: {}\n\n", topic.name);
      for (const Command& command : ui::commands())
        if (command.topic == topic.id)
          summary_line(context, command);
    }
    return {};
  }
  const auto& users = context.interpreter.user_commands();
  if (auto user = users.find(std::string(args)); user != users.end()) {
    context.out.write(user->second.documentation.empty() ? "User-defined.\n"
                                                         : user->second.documentation);
    return {};
  }
  if (args == "user-defined") {
    for (const auto& [name, command] : users)
      context.out.print("{} -- {}\n", name,
                        command.documentation.empty()
                            ? "User-defined."
                            : command.documentation.substr(0, command.documentation.find('\n')));
    return {};
  }
  CommandMatch match = find_command(args);
  bool exact = match.problem == CommandMatch::Problem::kNone && match.command->name == args;
  if (!exact)
    for (const TopicInfo& topic : topics())
      if (topic.name == args) {
        help_topic(context, topic);
        return {};
      }
  if (match.command && !match.args.empty()) {
    std::string_view name = match.command->name;
    if (name == "set" || name == "show")
      return help_setting(context, match.command->name, match.args);
    if (match.problem == CommandMatch::Problem::kNone && (match.command->flags & kPrefix)) {
      match.problem = CommandMatch::Problem::kUnknown;
      match.word = split_first(match.args).first;
    }
  }
  if (match.problem != CommandMatch::Problem::kNone)
    return explain(match);
  context.out.print("{}\n{}\n", names_of(*match.command), match.command->help);
  if (match.command->flags & kPrefix)
    help_prefix(context, *match.command);
  return {};
}

Checked<void> apropos(Context& context, std::string_view args) {
  bool verbose = starts_with_word(args, "-v");
  if (verbose)
    args = split_first(args).second;
  if (args.empty())
    return Diagnostic{"REGEXP string is empty", "Give a word to look for.", {}};
  std::string wanted(args);
  auto lower = [](std::string text) {
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    return text;
  };
  wanted = lower(wanted);
  auto contains = [&](const std::string& text) { return lower(text).find(wanted) != text.npos; };
  for (const Command& command : ui::commands()) {
    if (!contains(names_of(command)) && !contains(command.help))
      continue;
    if (verbose)
      context.out.print("{}\n{}\n\n", names_of(command), command.help);
    else
      summary_line(context, command);
  }
  for (const SettingRow& row : setting_rows())
    if (contains(row.name) || contains(row.help))
      context.out.print("set {}, show {} -- {}\n", row.name, row.name, setting_summary(row));
  return {};
}

Checked<void> info(Context& context, std::string_view) {
  CommandMatch match = find_command("info");
  DUNE_ASSERT(match.command);
  context.out.print("List of {} subcommands:\n\n", match.command->name);
  for (const Command* sub : subcommands(match.command->name))
    summary_line(context, *sub);
  context.out.print("\nType \"help info\" followed by info subcommand name for full "
                    "documentation.\n{}",
                    kHelpFooter);
  return {};
}

Checked<void> source(Context& context, std::string_view args) {
  if (starts_with_word(args, "-v"))
    args = split_first(args).second;
  if (args.empty())
    return Diagnostic{"source command requires file name of file to source.", {}, {}};
  return context.interpreter.source_file(std::string(args));
}

Checked<void> shell(Context& context, std::string_view args) {
  context.out.flush();
  const char* name = std::getenv("SHELL");
  std::string program = name && *name ? name : "/bin/sh";
  std::string command(args);
  pid_t child = fork();
  if (child < 0)
    return Diagnostic{"Fork failed.", "The system is short of processes or memory.", {}};
  if (child == 0) {
    std::signal(SIGINT, SIG_DFL);
    std::signal(SIGPIPE, SIG_DFL);
    if (command.empty())
      execl(program.c_str(), program.c_str(), nullptr);
    else
      execl(program.c_str(), program.c_str(), "-c", command.c_str(), nullptr);
    _exit(127);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR)
    ;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
    return Diagnostic{"Cannot execute " + program + ".", "Set SHELL to a shell.", {}};
  set_convenience_integer(context, "_shell_exitcode", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
  return {};
}

Checked<void> quit(Context& context, std::string_view args) {
  int status = 0;
  if (!args.empty()) {
    auto value = evaluate_integer(context, args);
    if (!value)
      return value.error();
    status = static_cast<int>(*value & 0xff);
  }
  if (context.debugger.alive()) {
    std::string question = fmt::format(
        "A debugging session is active.\n\n\tInferior 1 [process {}] will be {}.\n\nQuit anyway? ",
        context.debugger.pid(), context.debugger.attached() ? "detached" : "killed");
    if (!context.confirm(question))
      return Diagnostic{"Not confirmed.", {}, {}};
  }
  context.leave = status;
  return {};
}

Checked<void> define(Context& context, std::string_view args) {
  if (args.empty())
    return Diagnostic{"Argument required (name of command to define).", {}, {}};
  return context.interpreter.define(args, context.interpreter.body());
}

Checked<void> document(Context& context, std::string_view args) {
  if (args.empty())
    return Diagnostic{"Argument required (name of command to document).", {}, {}};
  return context.interpreter.document(args, context.interpreter.body());
}

Checked<void> unsupported_jump(Context&, std::string_view) {
  return Diagnostic{"\"jump\" is not supported yet.",
                    "`set var $pc = ADDRESS' and then `continue' does the same.",
                    {}};
}

Checked<void> unsupported_return(Context&, std::string_view) {
  return Diagnostic{
      "\"return\" is not supported yet.", "`finish' runs the function to its end.", {}};
}

} // namespace ddbg::ui::cmd
