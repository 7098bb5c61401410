// A debugger command is one row: its names, what its argument is, what Enter does after it, its
// help and its function. The rows are in command_table.cpp, the functions in cmd_*.cpp;
// docs/adding-a-command.md walks through adding one.
#pragma once

#include "dtrace-lite/symbols/diagnostic.h"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ddbg::ui {

class Context;

enum class Topic : uint8_t {
  kBreakpoints,
  kData,
  kFiles,
  kObscure,
  kRunning,
  kStack,
  kStatus,
  kSupport,
};
struct TopicInfo {
  Topic id;
  const char* name;
  const char* summary;
};
std::span<const TopicInfo> topics();

// What Tab completes the argument with.
enum class Argument : uint8_t {
  kNone,
  kLocation,   // functions and source files
  kExpression, // symbols, registers after $
  kFile,
  kSetting,
  kCommand,
  kSignal,
  kSubcommand, // of this command, and nothing else
};

enum class Repeat : uint8_t {
  kSame,             // Enter does the command again
  kWithoutArguments, // Enter goes on where it ended: list, x
  kNever,            // Enter does nothing: run, delete ...
};

enum CommandFlags : uint8_t {
  kPrefix = 1,       // "info": the next word is a subcommand
  kAllowUnknown = 2, // "thread 3": what is no subcommand is this one's argument
  kTakesBody = 4,    // lines up to "end" belong to it
  kTouchesHost = 8,  // starts or signals processes, writes files: not for the fuzzer
  kResumes = 16,     // lets the target run
};

// `args` is what follows the name, without blanks at its ends; "/x" stays in front.
// Never throws, never ends the process: a Diagnostic is printed and the prompt comes back.
using CommandFunction = Checked<void> (*)(Context&, std::string_view args);

struct Command {
  const char* name;    // "info registers"
  const char* aliases; // blank-separated, of the last word: "r"; may be empty
  Topic topic;
  Argument argument;
  Repeat repeat;
  uint8_t flags;
  CommandFunction run;
  const char* help; // the first line is the summary and ends in a full stop
};

std::span<const Command> commands(); // sorted by name

std::string_view summary(const Command&);

// Resolves what was typed to a command by gdb's rules: an exact name or alias, else a beginning
// that fits one command only.
struct CommandMatch {
  const Command* command = nullptr; // the longest that was found: "info" for "info foo"
  std::string_view args;            // what follows it
  enum class Problem { kNone, kUnknown, kAmbiguous } problem = Problem::kNone;
  std::string_view word;               // what is unknown or ambiguous
  std::vector<std::string> candidates; // names and aliases that an ambiguous word may mean
};
CommandMatch find_command(std::string_view typed);
// What is wrong with a match, as gdb words it, with the nearest name as the hint.
Diagnostic explain(const CommandMatch&);

// Subcommands of "info" (or all top-level ones for ""), in the order of their names.
std::vector<const Command*> subcommands(std::string_view prefix);

// A command's first word ends before anything that no command name holds: "x/4i", "p$rip".
size_t command_word_length(std::string_view typed);

} // namespace ddbg::ui
