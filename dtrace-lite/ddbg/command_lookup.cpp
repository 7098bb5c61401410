#include "dtrace-lite/ddbg/command.h"
#include "dtrace-lite/ddbg/text.h"

#include <algorithm>

namespace ddbg::ui {

namespace {

// "info registers" -> "info " and "registers"
std::pair<std::string_view, std::string_view> split_name(std::string_view name) {
  size_t space = name.rfind(' ');
  return space == name.npos ? std::pair(std::string_view(), name)
                            : std::pair(name.substr(0, space), name.substr(space + 1));
}

// Finds `word` among the subcommands of `prefix`.
void find_in(std::string_view prefix, std::string_view word, CommandMatch& match) {
  std::vector<const Command*> fitting;
  std::vector<std::string> names;
  for (const Command& command : commands()) {
    auto [parent, name] = split_name(command.name);
    if (parent != prefix)
      continue;
    auto consider = [&](std::string_view spelling) {
      if (!spelling.starts_with(word))
        return false;
      names.emplace_back(spelling);
      if (fitting.empty() || fitting.back() != &command)
        fitting.push_back(&command);
      return spelling == word;
    };
    bool exact = consider(name);
    for (std::string_view alias : split_blank(command.aliases))
      exact |= consider(alias);
    if (exact) {
      match.command = &command;
      return;
    }
  }
  if (fitting.size() == 1) {
    match.command = fitting[0];
    return;
  }
  match.word = word;
  match.problem =
      fitting.empty() ? CommandMatch::Problem::kUnknown : CommandMatch::Problem::kAmbiguous;
  std::sort(names.begin(), names.end());
  match.candidates = std::move(names);
}

} // namespace

std::string_view summary(const Command& command) {
  std::string_view help = command.help;
  return help.substr(0, help.find('\n'));
}

size_t command_word_length(std::string_view typed) {
  if (typed.starts_with('!'))
    return 1;
  size_t n = 0;
  while (n < typed.size() && (std::isalnum(static_cast<unsigned char>(typed[n])) ||
                              typed[n] == '-' || typed[n] == '_' || typed[n] == '.'))
    ++n;
  return n;
}

std::vector<const Command*> subcommands(std::string_view prefix) {
  std::vector<const Command*> found;
  for (const Command& command : commands())
    if (split_name(command.name).first == prefix)
      found.push_back(&command);
  return found;
}

CommandMatch find_command(std::string_view typed) {
  CommandMatch match;
  match.args = trim(typed);
  do {
    size_t length = command_word_length(match.args);
    std::string_view word = match.args.substr(0, length);
    const Command* outer = match.command;
    if (word.empty()) {
      if (!outer) {
        match.problem = CommandMatch::Problem::kUnknown;
        match.word = match.args;
      }
      return match;
    }
    find_in(outer ? outer->name : "", word, match);
    if (match.problem != CommandMatch::Problem::kNone) {
      if (outer && (outer->flags & kAllowUnknown)) {
        match.problem = CommandMatch::Problem::kNone;
        match.word = {};
        match.candidates.clear();
      }
      return match;
    }
    match.args = trim(match.args.substr(length));
  } while (match.command->flags & kPrefix);
  return match;
}

Diagnostic explain(const CommandMatch& match) {
  std::string within = match.command ? match.command->name : "";
  std::string word(match.word);
  if (match.problem == CommandMatch::Problem::kAmbiguous) {
    std::string list;
    for (const std::string& name : match.candidates)
      list += (list.empty() ? "" : ", ") + name;
    return {"Ambiguous " + (within.empty() ? "" : within + " ") + "command \"" +
                (within.empty() ? "" : within + " ") + word + "\": " + list + ".",
            {},
            {}};
  }
  std::string nearest;
  unsigned best = word.size() < 5 ? 2 : 3; // exclusive: one slip in a short word, two in a long one
  for (const Command* command : subcommands(within)) {
    std::string_view name = split_name(command->name).second;
    if (unsigned distance = edit_distance(word, name); distance < best) {
      best = distance;
      nearest = command->name;
    }
  }
  return {within.empty()
              ? "Undefined command: \"" + word + "\".  Try \"help\"."
              : "Undefined " + within + " command: \"" + word + "\".  Try \"help " + within + "\".",
          nearest.empty() ? "" : "Did you mean \"" + nearest + "\"?",
          {}};
}

} // namespace ddbg::ui
