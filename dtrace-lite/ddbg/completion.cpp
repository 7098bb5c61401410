#include "dtrace-lite/ddbg/completion.h"

#include "dtrace-lite/ddbg/command.h"
#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/text.h"
#include "libdune/arch/registers.h"

#include <algorithm>

namespace ddbg::ui {

namespace {

constexpr size_t kMostSymbols = 2000; // as gdb's max-completions, with room for several modules

// Names that may stand after `prefix` ("", "info"): primary ones, aliases only when exact.
void add_commands(std::string_view prefix, std::string_view word, Completions& c) {
  for (const Command* command : subcommands(prefix)) {
    std::string_view name = command->name;
    name.remove_prefix(prefix.empty() ? 0 : prefix.size() + 1);
    if (name.starts_with(word))
      c.words.emplace_back(name);
  }
}

void add_symbols(Context& context, std::string_view word, bool functions_only, Completions& c) {
  for (const symbols::LoadedModule& loaded : context.debugger.module_map().modules())
    for (std::string& name : loaded.module->symbols().complete(word, kMostSymbols)) {
      // A location is not typed with parameters; the name alone means all overloads.
      if (functions_only)
        if (size_t open = name.find('('); open != name.npos && open > 0)
          name.resize(open);
      c.words.push_back(std::move(name));
      if (c.words.size() >= kMostSymbols)
        return;
    }
}

void add_source_files(Context& context, std::string_view word, Completions& c) {
  for (const symbols::LoadedModule& loaded : context.debugger.module_map().modules())
    if (loaded.is_main) // a library's thousands of files would bury the program's own
      for (const symbols::SourceFile* file : loaded.module->lines().files()) {
        std::string_view name = file->name;
        if (size_t slash = name.rfind('/'); slash != name.npos)
          name.remove_prefix(slash + 1);
        if (name.starts_with(word))
          c.words.push_back(std::string(name) + ":");
      }
}

void add_registers(std::string_view word, Completions& c) {
  auto add = [&](std::string_view name) {
    if (std::string full = "$" + std::string(name); full.starts_with(word))
      c.words.push_back(std::move(full));
  };
  for (const dune::RegisterInfo& info : dune::kRegisters)
    add(info.name);
  for (const char* name : {"pc", "sp", "fp", "_exitcode", "_"})
    add(name);
}

void add_settings(std::string_view line, size_t offset, Completions& c) {
  // Settings have names of one or two words; complete the word that the line ends in.
  SettingMatch match = find_setting(line);
  if (match.row && !match.rest.empty()) { // the value
    std::string_view word = trim(match.rest);
    c.begin = offset + static_cast<size_t>(word.data() - line.data());
    const char* choices = "";
    if (match.row->kind == SettingKind::kFlag)
      choices = "on off";
    else if (match.row->kind == SettingKind::kAuto)
      choices = "on off auto";
    else if (match.row->kind == SettingKind::kChoice)
      choices = match.row->choices;
    else if (match.row->kind == SettingKind::kCount)
      choices = "unlimited";
    else
      c.files = match.row->kind == SettingKind::kFilename;
    for (std::string_view choice : split_blank(choices))
      if (choice.starts_with(word))
        c.words.emplace_back(choice);
    return;
  }
  size_t word_begin = line.find_last_of(" \t") == line.npos ? 0 : line.find_last_of(" \t") + 1;
  std::string before;
  for (std::string_view w : split_blank(line.substr(0, word_begin)))
    before += std::string(w) + " ";
  std::string_view word = line.substr(word_begin);
  c.begin = offset + word_begin;
  for (const SettingRow& row : setting_rows()) {
    std::string_view name = row.name;
    if (!name.starts_with(before))
      continue;
    name.remove_prefix(before.size());
    name = name.substr(0, name.find(' '));
    if (name.starts_with(word))
      c.words.emplace_back(name);
  }
}

// Where the word at the end of `args` begins: locations and expressions end words at more than
// blanks.
size_t word_start(std::string_view args, std::string_view delimiters) {
  size_t at = args.find_last_of(delimiters);
  return at == args.npos ? 0 : at + 1;
}

void add_argument(Context& context, const Command& command, std::string_view args, size_t offset,
                  Completions& c) {
  constexpr std::string_view kBlanks = " \t";
  auto set_word = [&](std::string_view delimiters) {
    size_t start = word_start(args, delimiters);
    c.begin = offset + start;
    return args.substr(start);
  };
  switch (command.argument) {
  case Argument::kNone:
  case Argument::kSubcommand:
    return;
  case Argument::kLocation: {
    size_t condition = args.find(" if ");
    std::string_view word =
        condition == args.npos ? set_word(" \t*&") : set_word(" \t*&()+-/%<>=!|,[]");
    add_symbols(context, word, condition == args.npos, c);
    if (condition == args.npos)
      add_source_files(context, word, c);
    return;
  }
  case Argument::kExpression: {
    std::string_view word = set_word(" \t*&()+-/%<>=!|,[]{}");
    if (word.starts_with('$'))
      add_registers(word, c);
    else if (word.size() >= 1)
      add_symbols(context, word, false, c);
    return;
  }
  case Argument::kFile:
    set_word(kBlanks);
    c.files = true;
    return;
  case Argument::kSetting:
    add_settings(args, offset, c);
    return;
  case Argument::kCommand: {
    Completions inner = complete(context, args);
    c = std::move(inner);
    c.begin += offset;
    return;
  }
  case Argument::kSignal: {
    std::string_view word = set_word(kBlanks);
    for (int s = 1; s < static_cast<int>(dune::session::kSignals); ++s)
      if (std::string name = engine::signal_name(s); !name.empty() && name.starts_with(word))
        c.words.push_back(std::move(name));
    for (const char* action :
         {"stop", "nostop", "print", "noprint", "pass", "nopass", "ignore", "noignore"})
      if (std::string_view(command.name) == "handle" && std::string_view(action).starts_with(word))
        c.words.emplace_back(action);
    return;
  }
  }
}

} // namespace

Completions complete(Context& context, std::string_view line) {
  Completions c;
  size_t start = std::min(line.find_first_not_of(" \t"), line.size());
  const Command* prefix = nullptr;
  size_t at = start;
  for (;;) {
    size_t length = command_word_length(line.substr(at));
    if (at + length == line.size()) { // the cursor is still in the command's (or subcommand's) name
      c.begin = at;
      std::string_view word = line.substr(at);
      add_commands(prefix ? prefix->name : "", word, c);
      if (!prefix)
        for (const auto& [name, user] : context.interpreter.user_commands())
          if (name.starts_with(word))
            c.words.push_back(name);
      if (prefix && prefix->argument != Argument::kSubcommand) {
        Completions more;
        add_argument(context, *prefix, line.substr(at), at, more);
        if (more.begin == c.begin)
          c.words.insert(c.words.end(), more.words.begin(), more.words.end());
      }
      break;
    }
    CommandMatch match = find_command((prefix ? std::string(prefix->name) + " " : std::string()) +
                                      std::string(line.substr(at, length)));
    bool found = match.problem == CommandMatch::Problem::kNone && match.command != prefix &&
                 match.args.empty() && length > 0;
    if (!found) { // not a subcommand: an argument of the prefix itself
      if (prefix)
        add_argument(context, *prefix, line.substr(at), at, c);
      break;
    }
    at += length;
    size_t blanks = line.substr(at).find_first_not_of(" \t");
    size_t next = blanks == line.npos ? line.size() : at + blanks;
    if (!(match.command->flags & kPrefix)) {
      add_argument(context, *match.command, line.substr(next), next, c);
      break;
    }
    prefix = match.command;
    at = next;
  }
  std::sort(c.words.begin(), c.words.end());
  c.words.erase(std::unique(c.words.begin(), c.words.end()), c.words.end());
  return c;
}

} // namespace ddbg::ui
