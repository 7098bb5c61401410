#include "dtrace-lite/ddbg/settings.h"

#include "dtrace-lite/ddbg/text.h"

#include <algorithm>
#include <array>

namespace ddbg::ui {

namespace {

using enum SettingKind;
using S = Setting;

constexpr SettingRow kRows[] = {
    {S::kArgs, "args", kText, "",
     "Argument list to give program being debugged when it is started is \"{}\".",
     "Argument list to give program being debugged when it is started.\n"
     "Follow this command with any number of args, to be passed to the program.",
     nullptr},
    {S::kBacktraceLimit, "backtrace limit", kCount, "unlimited",
     "An upper bound on the number of backtrace levels is {}.",
     "Upper bound on the number of stack frames in a backtrace.", nullptr},
    {S::kBacktracePastMain, "backtrace past-main", kFlag, "off",
     "Whether backtraces should continue past \"main\" is {}.",
     "Whether backtraces should continue past \"main\".", nullptr},
    {S::kBreakpointPending, "breakpoint pending", kAuto, "auto",
     "Debugger's behavior regarding pending breakpoints is {}.",
     "What to do when a breakpoint's location is not known yet: on creates a pending breakpoint,\n"
     "off refuses, auto asks.",
     nullptr},
    {S::kConfirm, "confirm", kFlag, "on",
     "Whether to confirm potentially dangerous operations is {}.",
     "Whether to confirm potentially dangerous operations.", nullptr},
    {S::kCwd, "cwd", kFilename, "",
     "Current working directory that will be used when starting the inferior is \"{}\".",
     "Working directory of the program when it is started; empty: ddbg's own.", nullptr},
    {S::kDebugFileDirectory, "debug-file-directory", kFilename, "/usr/lib/debug",
     "The directory where separate debug symbols are searched for is \"{}\".",
     "Directories where separate debug files are searched for, separated by colons.", nullptr},
    {S::kDirectories, "directories", kText, "$cdir:$cwd", "Source directories searched: {}",
     "Search path for source files, separated by colons.\n"
     "$cdir is the directory of compilation, $cwd the current one.",
     nullptr},
    {S::kDisableRandomization, "disable-randomization", kFlag, "on",
     "Disabling randomization of debuggee's virtual address space is {}.",
     "Whether the program starts without randomization of its address space.", nullptr},
    {S::kDisassembleNextLine, "disassemble-next-line", kAuto, "off",
     "Debugger's willingness to use disassemble-next-line is {}.",
     "Whether a stop shows the next instruction: always, never, or without source (auto).",
     nullptr},
    {S::kDisassemblyFlavor, "disassembly-flavor", kChoice, "att",
     "The disassembly flavor is \"{}\".", "The disassembly flavor: att or intel.", "att intel"},
    {S::kHeight, "height", kCount, "unlimited", "Number of lines ddbg thinks are in a page is {}.",
     "Number of lines in a page for the pagination of output; 0 or unlimited: no pagination.",
     nullptr},
    {S::kHistoryFilename, "history filename", kFilename, "",
     "The filename in which to record the command history is \"{}\".",
     "File in which the command history is recorded.\n"
     "From the environment variable DDBG_HISTFILE, else ~/.ddbg_history.",
     nullptr},
    {S::kHistorySave, "history save", kFlag, "on", "Saving of the history record on exit is {}.",
     "Whether the command history is saved on exit.", nullptr},
    {S::kHistorySize, "history size", kCount, "1024", "The size of the command history is {}.",
     "Number of commands kept in the history.", nullptr},
    {S::kInferiorTty, "inferior-tty", kFilename, "",
     "Terminal for future runs of program being debugged is \"{}\".",
     "Terminal for future runs of the program; empty: ddbg's own.", nullptr},
    {S::kListSize, "listsize", kCount, "10",
     "Number of source lines ddbg will list by default is {}.",
     "Number of source lines `list' shows.", nullptr},
    {S::kPagination, "pagination", kFlag, "on", "State of pagination is {}.",
     "Whether long output stops after each page.", nullptr},
    {S::kPrintAddress, "print address", kFlag, "on", "Printing of addresses is {}.",
     "Printing of addresses in stack traces, pointers and breakpoints.", nullptr},
    {S::kPrintElements, "print elements", kCount, "200",
     "Limit on string chars or array elements to print is {}.",
     "Limit on string chars or array elements to print.", nullptr},
    {S::kPrintFrameArguments, "print frame-arguments", kChoice, "scalars",
     "Printing of non-scalar frame arguments is \"{}\".",
     "Which arguments of frames are printed: all, scalars, none or presence.",
     "all scalars none presence"},
    {S::kPrintInferiorEvents, "print inferior-events", kFlag, "on",
     "Printing of inferior events is {}.", "Printing of the start and end of processes.", nullptr},
    {S::kPrintRepeats, "print repeats", kCount, "10",
     "Threshold for repeated print elements is {}.", "Threshold for repeated print elements.",
     nullptr},
    {S::kPrintThreadEvents, "print thread-events", kFlag, "on", "Printing of thread events is {}.",
     "Printing of thread events (such as thread start).", nullptr},
    {S::kPrompt, "prompt", kText, "(ddbg) ", "ddbg's prompt is \"{}\".", "The prompt.", nullptr},
    {S::kStartupWithShell, "startup-with-shell", kFlag, "on",
     "Use of shell to start subprocesses is {}.",
     "Whether $SHELL starts the program, so that its arguments may redirect and expand.", nullptr},
    {S::kStepMode, "step-mode", kFlag, "off", "Mode of the step operation is {}.",
     "Whether `step' stops in functions without line information.", nullptr},
    {S::kWidth, "width", kCount, "unlimited",
     "Number of characters ddbg thinks are in a line is {}.",
     "Number of characters in a line, for the pagination of output.", nullptr},
};

constexpr bool rows_in_order() {
  for (size_t i = 0; i < std::size(kRows); ++i)
    if (static_cast<size_t>(kRows[i].id) != i)
      return false;
  return std::size(kRows) == kSettingCount;
}
static_assert(rows_in_order(), "each Setting has its row, in the order of the enumeration");

constexpr uint64_t kAutoValue = 2;

// gdb takes any beginning that tells on, off, yes, no, enable, disable apart.
bool abbreviates(std::string_view typed, std::string_view word, size_t at_least) {
  return typed.size() >= at_least && word.starts_with(typed);
}

} // namespace

std::span<const SettingRow> setting_rows() { return kRows; }
const SettingRow& setting_row(Setting s) { return kRows[static_cast<size_t>(s)]; }

Checked<bool> parse_flag(std::string_view text) {
  if (text.empty() || abbreviates(text, "on", 2) || text == "1" || abbreviates(text, "yes", 1) ||
      abbreviates(text, "enable", 1))
    return true;
  if (abbreviates(text, "off", 2) || text == "0" || abbreviates(text, "no", 1) ||
      abbreviates(text, "disable", 1))
    return false;
  return Diagnostic{"\"on\" or \"off\" expected.", {}, {}};
}

Settings::Settings() : numbers_(kSettingCount), texts_(kSettingCount), hooks_(kSettingCount) {
  for (const SettingRow& row : kRows) {
    if (row.id == S::kPrompt) { // ends in a blank, which set() would keep but a person cannot see
      texts_[index(row.id)] = row.initial;
      continue;
    }
    auto done = set(row.id, row.initial);
    DUNE_ASSERT(done);
  }
}

Checked<void> Settings::set(Setting s, std::string_view value) {
  const SettingRow& row = setting_row(s);
  if (row.kind != kText)
    value = trim(value);
  uint64_t& number = numbers_[index(s)];
  switch (row.kind) {
  case kAuto:
    if (value == "auto" || value == "-1") {
      number = kAutoValue;
      break;
    }
    [[fallthrough]];
  case kFlag: {
    auto on = parse_flag(value);
    if (!on)
      return Diagnostic{
          row.kind == kAuto ? "\"on\", \"off\" or \"auto\" expected." : on.error().message, {}, {}};
    number = *on;
    break;
  }
  case kCount: {
    if (value.empty())
      return Diagnostic{"Argument required (integer to set it to, or \"unlimited\".).", {}, {}};
    if (abbreviates(value, "unlimited", 1)) {
      number = kUnlimited;
      break;
    }
    auto parsed = parse_integer(value);
    if (!parsed)
      return parsed.error();
    if (*parsed < -1 || *parsed > INT32_MAX)
      return Diagnostic{"integer " + std::string(value) + " out of range", {}, {}};
    number = *parsed <= 0 ? kUnlimited : static_cast<uint64_t>(*parsed);
    break;
  }
  case kChoice: {
    std::vector<std::string_view> fitting;
    for (std::string_view choice : split_blank(row.choices)) {
      if (choice == value)
        fitting.assign(1, choice);
      else if (choice.starts_with(value) && (fitting.empty() || fitting[0] != value))
        fitting.push_back(choice);
    }
    if (value.empty()) {
      std::string all;
      for (std::string_view choice : split_blank(row.choices))
        all += (all.empty() ? "" : ", ") + std::string(choice);
      return Diagnostic{"Requires an argument. Valid arguments are " + all + ".", {}, {}};
    }
    if (fitting.empty())
      return Diagnostic{"Undefined item: \"" + std::string(value) + "\".",
                        "Valid are: " + std::string(row.choices) + ".",
                        {}};
    if (fitting.size() > 1)
      return Diagnostic{"Ambiguous item \"" + std::string(value) + "\".", {}, {}};
    texts_[index(s)] = fitting[0];
    break;
  }
  case kText:
    texts_[index(s)] = value;
    break;
  case kFilename:
    texts_[index(s)] = expand_tilde(value);
    break;
  }
  if (hooks_[index(s)])
    hooks_[index(s)]();
  return {};
}

std::string Settings::value_text(Setting s) const {
  uint64_t number = numbers_[index(s)];
  switch (setting_row(s).kind) {
  case kAuto:
    if (number == kAutoValue)
      return "auto";
    [[fallthrough]];
  case kFlag:
    return number ? "on" : "off";
  case kCount:
    return number == kUnlimited ? "unlimited" : std::to_string(number);
  case kChoice:
  case kText:
  case kFilename:
    break;
  }
  return texts_[index(s)];
}

std::string Settings::show(Setting s) const {
  std::string_view format = setting_row(s).shown;
  if (s == S::kCwd && text(s).empty())
    return "You have not set the inferior's current working directory.\n"
           "The inferior will inherit ddbg's cwd.";
  size_t hole = format.find("{}");
  return std::string(format.substr(0, hole)) + value_text(s) + std::string(format.substr(hole + 2));
}

SettingMatch find_setting(std::string_view typed) {
  SettingMatch match;
  match.rest = trim(typed);
  std::string prefix; // "print " once that word is certain
  std::vector<const SettingRow*> candidates;
  for (const SettingRow& row : kRows)
    candidates.push_back(&row);
  for (;;) {
    size_t end = 0;
    while (end < match.rest.size() && (std::isalnum(static_cast<unsigned char>(match.rest[end])) ||
                                       match.rest[end] == '-' || match.rest[end] == '_'))
      ++end;
    std::string_view word = match.rest.substr(0, end);
    if (word.empty()) {
      match.candidates = candidates;
      return match;
    }
    // The distinct words that may stand here.
    std::vector<std::string_view> words;
    for (const SettingRow* row : candidates) {
      std::string_view next = std::string_view(row->name).substr(prefix.size());
      next = next.substr(0, next.find(' '));
      if (next.starts_with(word) && std::find(words.begin(), words.end(), next) == words.end())
        words.push_back(next);
    }
    if (prefix.empty() && (word == "p" || word == "pr")) // gdb's aliases of `set print`
      words.assign(1, "print");
    if (auto exact = std::find(words.begin(), words.end(), word); exact != words.end())
      words.assign(1, word);
    std::erase_if(candidates, [&](const SettingRow* row) {
      std::string_view next = std::string_view(row->name).substr(prefix.size());
      next = next.substr(0, next.find(' '));
      return std::find(words.begin(), words.end(), next) == words.end();
    });
    if (words.size() != 1) {
      match.candidates = candidates;
      match.failed_prefix = std::string(trim(prefix));
      match.failed_word = word;
      return match;
    }
    match.rest = match.rest.substr(end);
    if (candidates.size() == 1 && prefix + std::string(words[0]) == candidates[0]->name) {
      match.row = candidates[0];
      if (!match.rest.empty())
        match.rest.remove_prefix(1); // the one blank (or '=') between name and value
      return match;
    }
    prefix += std::string(words[0]) + " ";
    match.rest = trim(match.rest);
  }
}

} // namespace ddbg::ui
