// Lines to commands: blocks (if, while, commands, define, document), user-defined commands,
// scripts.
#pragma once

#include "dtrace-lite/ddbg/command.h"

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace ddbg::ui {

// Where command lines come from: the terminal, a pipe, a file, the body of a user's command.
class LineSource {
public:
  virtual ~LineSource() = default;
  // Without the newline; nullopt at the end, or interrupted(). `prompt` is shown where somebody can
  // see it.
  virtual std::optional<std::string> next(const std::string& prompt) = 0;
  virtual bool interrupted() const { return false; } // Ctrl-C ended the last next()
};

// One command with the lines that belong to it.
struct Statement {
  std::string line;
  std::vector<Statement> body;
  std::vector<Statement> otherwise; // after "else"
  bool operator==(const Statement&) const = default;
};
using Block = std::vector<Statement>;
// As `info breakpoints` and `show user` print it: one line each, indented.
std::string block_text(const Block&, unsigned indent);

class Interpreter {
public:
  explicit Interpreter(Context& context) : context_(context) {}

  // One line from a source that can give the lines of its body.
  Checked<void> execute(std::string_view line, LineSource& source);
  // One line on its own (-ex).
  Checked<void> execute(std::string_view line);
  Checked<void> execute_block(const Block& block);
  // A breakpoint's commands. Ends early when one of them let the target run and it stopped with
  // commands of its own.
  Checked<void> execute_lines(const std::vector<std::string>& lines);
  // The file's commands; the first error ends it and is reported with file and line.
  Checked<void> source_file(const std::string& path);

  // Body of the command that is being run (kTakesBody).
  const Block& body() const { return *body_; }

  struct UserCommand {
    Block body;
    std::string documentation;
  };
  const std::map<std::string, UserCommand>& user_commands() const { return user_commands_; }
  Checked<void> define(std::string_view name, Block body);
  Checked<void> document(std::string_view name, const Block& body);

  // Bounds the statements that may still be executed (the fuzzer's loops must end).
  void set_budget(uint64_t statements) { budget_ = statements; }
  // Asked between statements: true ends what is running with "Quit".
  void set_interrupted(std::function<bool()> f) { interrupted_ = std::move(f); }

private:
  struct Nesting;
  Checked<Statement> read_statement(std::string_view line, LineSource& source, unsigned depth);
  Checked<void> read_body(LineSource& source, unsigned depth, bool raw, bool allow_else,
                          Statement& into);
  Checked<void> run(const Statement&);
  Checked<void> run_user(const std::string& name, const UserCommand&, std::string_view args);
  std::string substitute_arguments(std::string_view line) const;
  Checked<void> run_loop(const Statement&, bool is_while);

  Context& context_;
  std::map<std::string, UserCommand> user_commands_;
  std::vector<std::vector<std::string>> user_arguments_; // of the calls in progress
  const Block* body_ = nullptr;
  uint64_t budget_ = UINT64_MAX;
  unsigned depth_ = 0;
  enum class Jump { kNone, kBreak, kContinue } jump_ = Jump::kNone;
  std::function<bool()> interrupted_;
};

} // namespace ddbg::ui
