#include "dtrace-lite/ddbg/interpreter.h"

#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/evaluation.h"
#include "dtrace-lite/ddbg/run_control.h"
#include "dtrace-lite/ddbg/text.h"

#include <cerrno>
#include <cstring>
#include <fstream>

namespace ddbg::ui {

namespace {

constexpr unsigned kMaxBlockDepth = 64; // nested if, while, commands in the source
constexpr unsigned kMaxCallDepth = 128; // user commands and scripts that call each other
constexpr size_t kMaxScriptSize = 16 << 20;

// A breakpoint command's or a user command's lines, read again as a source.
class NoLines : public LineSource {
public:
  std::optional<std::string> next(const std::string&) override { return std::nullopt; }
};

class FileLines : public LineSource {
public:
  explicit FileLines(std::string text) : text_(std::move(text)) {}
  std::optional<std::string> next(const std::string&) override {
    if (position_ >= text_.size())
      return std::nullopt;
    std::string line;
    // A backslash at the end of a line joins it with the next one.
    for (;;) {
      size_t end = std::min(text_.find('\n', position_), text_.size());
      line.append(text_, position_, end - position_);
      position_ = end + 1;
      ++line_number_;
      if (!line.ends_with('\\') || position_ >= text_.size())
        return line;
      line.pop_back();
    }
  }
  unsigned line_number() const { return line_number_; }

private:
  std::string text_;
  size_t position_ = 0;
  unsigned line_number_ = 0;
};

std::string_view first_word(std::string_view line) {
  line = trim(line);
  return line.substr(0, command_word_length(line));
}

enum class BlockKind { kNone, kIf, kWhile, kLines };

// Does this line begin a block? `is_known_body`: what find_command() says of kTakesBody.
BlockKind block_kind(std::string_view line) {
  std::string_view word = first_word(line);
  if (word == "if")
    return BlockKind::kIf;
  if (word == "while")
    return BlockKind::kWhile;
  CommandMatch match = find_command(line);
  if (match.command && match.problem == CommandMatch::Problem::kNone &&
      (match.command->flags & kTakesBody))
    return BlockKind::kLines;
  return BlockKind::kNone;
}

} // namespace

std::string block_text(const Block& block, unsigned indent) {
  std::string text;
  std::string margin(indent, ' ');
  for (const Statement& s : block) {
    text += margin + s.line + "\n";
    if (s.body.empty() && block_kind(s.line) == BlockKind::kNone)
      continue;
    text += block_text(s.body, indent + 2);
    if (!s.otherwise.empty())
      text += margin + "else\n" + block_text(s.otherwise, indent + 2);
    text += margin + "end\n";
  }
  return text;
}

Checked<void> Interpreter::read_body(LineSource& source, unsigned depth, bool raw, bool allow_else,
                                     Statement& into) {
  Block* block = &into.body;
  for (;;) {
    auto line = source.next(">");
    if (source.interrupted())
      return Diagnostic{"Quit", {}, {}};
    if (!line)
      return {}; // gdb takes the end of the input for the missing "end"
    std::string_view text = raw ? std::string_view(*line) : trim(*line);
    if (trim(text) == "end")
      return {};
    if (raw) {
      block->push_back({std::string(text), {}, {}});
      continue;
    }
    if (text.empty() || text.starts_with('#'))
      continue;
    if (text == "else") {
      if (!allow_else || block == &into.otherwise)
        return Diagnostic{"Unexpected \"else\".", "It belongs between \"if\" and \"end\".", {}};
      block = &into.otherwise;
      continue;
    }
    auto statement = read_statement(text, source, depth + 1);
    if (!statement)
      return statement.error();
    block->push_back(std::move(*statement));
  }
}

Checked<Statement> Interpreter::read_statement(std::string_view line, LineSource& source,
                                               unsigned depth) {
  Statement statement{std::string(trim(line)), {}, {}};
  BlockKind kind = block_kind(line);
  if (kind == BlockKind::kNone)
    return statement;
  if (depth > kMaxBlockDepth)
    return Diagnostic{"Control structures are nested too deeply.", {}, {}};
  if (context_.from_tty && context_.input_is_terminal && depth == 0)
    if (CommandMatch match = find_command(line); match.command) {
      std::string_view name = match.command->name;
      if (name == "commands")
        context_.out.write("Type commands for breakpoint(s) " +
                           (match.args.empty() ? std::to_string(context_.last_breakpoint)
                                               : std::string(match.args)) +
                           ", one per line.\nEnd with a line saying just \"end\".\n");
      else if (name == "define")
        context_.out.print("Type commands for definition of \"{}\".\n"
                           "End with a line saying just \"end\".\n",
                           match.args);
      else if (name == "document")
        context_.out.print("Type documentation for \"{}\".\n"
                           "End with a line saying just \"end\".\n",
                           match.args);
    }
  bool raw = first_word(line) == "document";
  if (auto read = read_body(source, depth, raw, kind == BlockKind::kIf, statement); !read)
    return read.error();
  return statement;
}

Checked<void> Interpreter::execute(std::string_view line, LineSource& source) {
  line = trim(line);
  if (line.empty() || line.starts_with('#'))
    return {};
  auto statement = read_statement(line, source, 0);
  if (!statement)
    return statement.error();
  return run(*statement);
}

Checked<void> Interpreter::execute(std::string_view line) {
  NoLines none;
  return execute(line, none);
}

Checked<void> Interpreter::execute_block(const Block& block) {
  for (const Statement& statement : block) {
    if (auto done = run(statement); !done)
      return done;
    if (jump_ != Jump::kNone || context_.leave)
      return {};
  }
  return {};
}

Checked<void> Interpreter::execute_lines(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines)
    text += line + "\n";
  FileLines source(std::move(text));
  uint64_t resumes = context_.resumes;
  while (auto line = source.next("")) {
    if (auto done = execute(*line, source); !done)
      return done;
    if (context_.leave || context_.resumes != resumes)
      return {};
  }
  return {};
}

struct Interpreter::Nesting {
  explicit Nesting(unsigned& depth) : depth_(depth) { ++depth_; }
  ~Nesting() { --depth_; }
  unsigned& depth_;
};

Checked<void> Interpreter::run_loop(const Statement& statement, bool is_while) {
  std::string condition(trim(std::string_view(statement.line).substr(is_while ? 5 : 2)));
  if (condition.empty())
    return Diagnostic{"if/while commands require arguments.", {}, {}};
  for (;;) {
    auto value = evaluate_condition(context_, substitute_arguments(condition));
    if (!value)
      return value.error();
    if (!*value)
      return is_while ? Checked<void>() : execute_block(statement.otherwise);
    if (auto done = execute_block(statement.body); !done)
      return done;
    if (!is_while || context_.leave)
      return {};
    Jump jump = std::exchange(jump_, Jump::kNone);
    if (jump == Jump::kBreak)
      return {};
    // An empty body must not make the loop deaf to Ctrl-C.
    if (budget_ == 0 || (interrupted_ && interrupted_()))
      return Diagnostic{"Quit", {}, {}};
    --budget_;
  }
}

Checked<void> Interpreter::run(const Statement& statement) {
  if (budget_ == 0 || (interrupted_ && interrupted_()))
    return Diagnostic{"Quit", {}, {}};
  --budget_;
  if (depth_ >= kMaxCallDepth)
    return Diagnostic{"Max user call depth exceeded -- command aborted.", {}, {}};
  Nesting nesting(depth_);

  std::string_view word = first_word(statement.line);
  if (word == "if" || word == "while")
    return run_loop(statement, word == "while");
  if (word == "loop_break" || word == "loop_continue") {
    jump_ = word == "loop_break" ? Jump::kBreak : Jump::kContinue;
    return {};
  }
  std::string line = substitute_arguments(statement.line);
  if (auto user = user_commands_.find(std::string(first_word(line))); user != user_commands_.end())
    return run_user(user->first, user->second,
                    trim(std::string_view(line).substr(command_word_length(line))));
  CommandMatch match = find_command(line);
  if (match.problem != CommandMatch::Problem::kNone)
    return explain(match);
  const Command& command = *match.command;
  if (context_.host_is_off_limits && (command.flags & kTouchesHost))
    return Diagnostic{"\"" + std::string(command.name) + "\" is not possible here.", {}, {}};
  const Block* outer = std::exchange(body_, &statement.body);
  Checked<void> done = command.run(context_, match.args);
  body_ = outer;
  return done;
}

// --- User-defined commands --------------------------------------------------------------------

// Replaces $argc, $argN and $arg* by the arguments of the user command that runs.
std::string Interpreter::substitute_arguments(std::string_view line) const {
  if (user_arguments_.empty() || line.find("$arg") == line.npos)
    return std::string(line);
  const auto& arguments = user_arguments_.back();
  std::string result;
  for (size_t i = 0; i < line.size();) {
    if (line.substr(i, 4) != "$arg") {
      result += line[i++];
      continue;
    }
    size_t end = i + 4;
    while (end < line.size() && (std::isalnum(static_cast<unsigned char>(line[end])) ||
                                 line[end] == '_' || (line[end] == '*' && end == i + 4)))
      ++end;
    std::string_view what = line.substr(i + 4, end - i - 4);
    auto index = parse_integer(what);
    if (what == "c") {
      result += std::to_string(arguments.size());
    } else if (what == "*") {
      for (size_t k = 0; k < arguments.size(); ++k)
        result += (k ? " " : "") + arguments[k];
    } else if (index && *index >= 0 && static_cast<size_t>(*index) < arguments.size()) {
      result += arguments[static_cast<size_t>(*index)];
    } else {
      result += line.substr(i, end - i);
    }
    i = end;
    if (result.size() > kMaxScriptSize)
      break; // arguments made of arguments grow without bound in a recursion
  }
  return result;
}

Checked<void> Interpreter::run_user(const std::string& name, const UserCommand& command,
                                    std::string_view args) {
  std::vector<std::string> words;
  for (std::string_view word : split_blank(args))
    words.emplace_back(word);
  // The body is copied: the command may redefine itself.
  Block body = command.body;
  user_arguments_.push_back(std::move(words));
  bool typed = std::exchange(context_.from_tty, false);
  Checked<void> done = execute_block(body);
  context_.from_tty = typed;
  user_arguments_.pop_back();
  jump_ = Jump::kNone;
  if (!done && depth_ == 1)
    return Diagnostic{done.error().message,
                      done.error().hint.empty() ? "In the user-defined command \"" + name + "\"."
                                                : done.error().hint,
                      {}};
  return done;
}

Checked<void> Interpreter::define(std::string_view name, Block body) {
  if (name.empty() || command_word_length(name) != name.size())
    return Diagnostic{"Junk in argument list: \"" + std::string(name) + "\"",
                      "A command's name is made of letters, digits, - and _.",
                      {}};
  CommandMatch match = find_command(name);
  if (match.problem == CommandMatch::Problem::kNone && match.command->name == name &&
      !context_.confirm("Really redefine built-in command \"" + std::string(name) + "\"? "))
    return Diagnostic{"Command \"" + std::string(name) + "\" not redefined.", {}, {}};
  user_commands_[std::string(name)].body = std::move(body);
  return {};
}

Checked<void> Interpreter::document(std::string_view name, const Block& body) {
  auto it = user_commands_.find(std::string(name));
  if (it == user_commands_.end())
    return Diagnostic{"Undefined command: \"" + std::string(name) + "\".  Try \"help\".",
                      "Only commands made with `define' can be documented.",
                      {}};
  it->second.documentation.clear();
  for (const Statement& line : body)
    it->second.documentation += line.line + "\n";
  return {};
}

// --- Scripts ----------------------------------------------------------------------------------

Checked<void> Interpreter::source_file(const std::string& path) {
  if (depth_ >= kMaxCallDepth)
    return Diagnostic{"Scripts are nested too deeply: " + path + " was not read.", {}, {}};
  Nesting nesting(depth_);
  std::string name = expand_tilde(path);
  errno = 0;
  std::ifstream file(name, std::ios::binary);
  std::string text(kMaxScriptSize + 1, '\0');
  if (!file)
    return Diagnostic{path + ": " + std::strerror(errno ? errno : ENOENT) + ".", {}, {}};
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxScriptSize)
    return Diagnostic{path + ": File too large to be a script.", {}, {}};
  if (text.find('\0') != text.npos)
    return Diagnostic{path + ": Not a text file.", {}, {}};

  FileLines lines(std::move(text));
  bool typed = std::exchange(context_.from_tty, false);
  Checked<void> result;
  while (!context_.leave) {
    auto line = lines.next("");
    if (!line)
      break;
    unsigned number = lines.line_number();
    auto done = execute(*line, lines);
    if (!done) {
      result = Diagnostic{path + ":" + std::to_string(number) +
                              ": Error in sourced command file:\n" + done.error().message,
                          done.error().hint,
                          {}};
      break;
    }
    run_pending_commands(context_);
  }
  context_.from_tty = typed;
  return result;
}

} // namespace ddbg::ui
