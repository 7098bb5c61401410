#include "dtrace-lite/ddbg/repl.h"

#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/line_reader.h"
#include "dtrace-lite/ddbg/run_control.h"
#include "dtrace-lite/ddbg/text.h"

#include <unistd.h>

namespace ddbg::ui {

std::string repeated_line(const std::string& line) {
  CommandMatch match = find_command(line);
  if (match.problem != CommandMatch::Problem::kNone)
    return line; // a user's command, or a mistake to be told again
  switch (match.command->repeat) {
  case Repeat::kSame:
    return line;
  case Repeat::kNever:
    return {};
  case Repeat::kWithoutArguments:
    // `list -` goes on backwards.
    return std::string(match.command->name) + (match.args == "-" ? " -" : "");
  }
  return {};
}

namespace {

bool report(Context& context, const Checked<void>& done) {
  if (!done)
    context.report_error(done.error());
  run_pending_commands(context);
  context.out.flush();
  return static_cast<bool>(done);
}

} // namespace

bool execute_reporting(Context& context, const std::string& line) {
  signals::take_interrupt(); // an old Ctrl-C is not about this command
  context.out.pager().restart();
  return report(context, context.interpreter.execute(line));
}

void set_up_terminal(Context& context, LineReader& reader) {
  if (!context.input_is_terminal)
    return;
  context.read_answer = [&context, &reader](const std::string& prompt) {
    auto answer = reader.read_plain(prompt);
    if (!reader.interrupted())
      return answer;
    context.out.write("\n");
    return std::optional<std::string>("n"); // Ctrl-C agrees to nothing
  };
  if (!isatty(1) || context.batch)
    return;
  context.out.set_pager_question([&context, &reader] {
    if (!context.settings.flag(Setting::kPagination))
      return Pager::Answer::kWithoutPaging;
    auto answer =
        reader.read_plain("--Type <RET> for more, q to quit, c to continue without paging--");
    return answer ? Pager::parse_answer(*answer) : Pager::Answer::kQuit;
  });
}

namespace {

// `set height` and `set width` rule where they were set; the rest is the screen's.
void follow_screen(Context& context) {
  unsigned columns = 0, rows = 0;
  Terminal::size(columns, rows);
  auto limit = [&](Setting s, unsigned screen) {
    uint64_t set = context.settings.count(s);
    return set == Settings::kUnlimited && !context.screen_overridden ? screen
           : set == Settings::kUnlimited                             ? 0u
                                                                     : static_cast<unsigned>(set);
  };
  context.out.pager().set_size(limit(Setting::kWidth, columns), limit(Setting::kHeight, rows));
}

} // namespace

void converse(Context& context, LineReader& reader) {
  std::string last;
  while (!context.leave) {
    follow_screen(context);
    auto line = reader.next(context.settings.text(Setting::kPrompt));
    if (reader.interrupted()) {
      context.out.write("Quit\n"); // the line is forgotten
      continue;
    }
    context.from_tty = true;
    context.out.pager().restart();
    if (!line) {
      if (context.input_is_terminal)
        context.out.write("quit\n");
      if (!execute_reporting(context, "quit") && !context.input_is_terminal)
        context.leave = 1; // nobody can answer; there is nothing more to read
      continue;
    }
    bool repeating = trim(*line).empty();
    std::string text = repeating ? last : std::string(trim(*line));
    if (text.empty())
      continue;
    if (!repeating) {
      reader.remember(text);
      last = text.starts_with('#') ? last : text;
    }
    signals::take_interrupt();
    context.repeating = repeating;
    report(context, context.interpreter.execute(text, reader));
    context.repeating = false;
    last = repeated_line(last);
  }
}

} // namespace ddbg::ui
