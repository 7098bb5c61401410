// What every command works on: the debugger, the settings, the output, and who is at the other end.
#pragma once

#include "dtrace-lite/ddbg/interpreter.h"
#include "dtrace-lite/ddbg/output.h"
#include "dtrace-lite/ddbg/settings.h"
#include "dtrace-lite/ddbg/terminal.h"
#include "dtrace-lite/engine/debugger.h"

#include <map>
#include <string>
#include <vector>

namespace ddbg::ui {

struct Display {
  int number;
  std::string format; // "/x" or empty
  std::string expression;
  bool enabled = true;
};

// Where `list` and `x` go on when they are repeated.
struct ListCursor {
  const symbols::SourceFile* file = nullptr;
  unsigned first = 0, last = 0; // of the lines shown last; 0: none yet
  bool centre_default = true;   // the next bare `list` centres on the default line
};
struct ExamineCursor {
  dune::TargetAddr next{};
  bool started = false; // `next` is meant
  char format = 'x';
  char size = 'w';
  uint64_t count = 1;
};

class Context {
public:
  explicit Context(Output& output);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  Output& out;
  Settings settings;
  engine::Debugger debugger;
  Interpreter interpreter;
  Terminal terminal;

  // The command was typed (or piped in, or given by -ex without -batch): it says more about what it
  // does than the same command in a script.
  bool from_tty = false;
  bool batch = false;
  bool input_is_terminal = false;
  // Commands with kTouchesHost are refused.
  bool host_is_off_limits = false;
  // Enter alone repeats the last command: `x' goes on with its count.
  bool repeating = false;
  // `set height' or `set width' was given: unlimited means that, not the screen's size.
  bool screen_overridden = false;
  // `quit`: the front end leaves after this command.
  std::optional<int> leave;
  // Commands of the breakpoints that the target stopped at, to be run after the present command.
  std::vector<std::string> pending_commands;

  ListCursor list_cursor;
  ExamineCursor examine_cursor;
  std::vector<Display> displays;
  int next_display = 1;
  const symbols::SourceFile* source_that_failed = nullptr; // said once, then only named
  uint32_t most_threads = 0;                               // highest number of a thread in this run
  unsigned last_stop_breakpoint = 0;                       // that the target stands at; 0: none
  int last_signal = 0;
  uint64_t resumes = 0; // counts commands that let the target run
  // Number of the last breakpoint made: what a bare `commands` is about.
  unsigned last_breakpoint = 0;

  // Asks "QUESTION(y or n) ". True without asking in batch mode or with `set confirm off`.
  bool confirm(const std::string& question);
  // The same, asked whatever `confirm` says. True when nobody can answer.
  bool ask(const std::string& question);
  // Asks "QUESTION(y or [n]) ": no is the answer to an empty line and when nobody can answer.
  bool ask_no(const std::string& question);
  // Reads one line of an answer; set by the REPL. Null: input is not from a terminal.
  std::function<std::optional<std::string>(const std::string& prompt)> read_answer;

  void warning(const std::string& text);
  void report_error(const Diagnostic& error);

  // The user's `set args` etc. as the engine takes them.
  void apply_settings();

private:
  bool ask(const std::string& question, std::string_view choices, bool otherwise,
           std::optional<bool> enter);
  void add_source_directories();
};

} // namespace ddbg::ui
