#include "dtrace-lite/ddbg/context.h"

#include "dtrace-lite/ddbg/text.h"

#include <algorithm>
#include <unistd.h>

namespace ddbg::ui {

Context::Context(Output& output) : out(output), interpreter(*this) {
  settings.on_change(Setting::kDirectories, [this] { add_source_directories(); });
  for (Setting s : {Setting::kHeight, Setting::kWidth})
    settings.on_change(s, [this] { screen_overridden = true; });
  interpreter.set_interrupted([] { return signals::take_interrupt(); });
  debugger.set_interrupt([] { return signals::take_interrupt(); });
  debugger.set_message_sink([this](const std::string& line) {
    bool about_threads = line.starts_with("[New Thread") || line.starts_with("[Thread ");
    if (about_threads && !settings.flag(Setting::kPrintThreadEvents))
      return;
    out.write(line + "\n");
    out.flush();
  });
}

Context::~Context() = default;

void Context::add_source_directories() {
  std::string_view list = settings.text(Setting::kDirectories);
  while (!list.empty()) {
    std::string_view one = list.substr(0, list.find(':'));
    if (!one.empty() && !one.starts_with('$'))
      debugger.sources().add_directory(std::string(one));
    list.remove_prefix(std::min(one.size() + 1, list.size()));
  }
}

void Context::apply_settings() {
  engine::Settings& s = debugger.settings();
  s.args = settings.text(Setting::kArgs);
  // The shell opens the terminal; `set startup-with-shell off' leaves ddbg's own.
  if (const std::string& tty = settings.text(Setting::kInferiorTty);
      !tty.empty() && settings.flag(Setting::kStartupWithShell))
    s.args += " < '" + tty + "' > '" + tty + "' 2>&1";
  s.cwd = settings.text(Setting::kCwd);
  s.disable_randomization = settings.flag(Setting::kDisableRandomization);
  s.startup_with_shell = settings.flag(Setting::kStartupWithShell);
  s.breakpoint_pending = settings.value_text(Setting::kBreakpointPending) == "on";
  s.step_stops_without_lines = settings.flag(Setting::kStepMode);
  s.past_main = settings.flag(Setting::kBacktracePastMain);
  std::vector<std::string> directories;
  std::string_view list = settings.text(Setting::kDebugFileDirectory);
  while (!list.empty()) {
    size_t colon = std::min(list.find(':'), list.size());
    if (colon > 0)
      directories.emplace_back(list.substr(0, colon));
    list.remove_prefix(std::min(colon + 1, list.size()));
  }
  s.debug_files.directories = std::move(directories);
}

void Context::warning(const std::string& text) { out.error_line("warning: " + text); }

void Context::report_error(const Diagnostic& error) {
  out.error_line(error.message);
  if (!error.hint.empty())
    out.error_line(error.hint);
}

bool Context::ask(const std::string& question) { return ask(question, "(y or n) ", true, {}); }

bool Context::ask_no(const std::string& question) {
  return ask(question, "(y or [n]) ", false, false);
}

bool Context::ask(const std::string& question, std::string_view choices, bool otherwise,
                  std::optional<bool> enter) {
  if (!read_answer || batch) {
    out.print("{}{}[answered {}; input not from terminal]\n", question, choices,
              otherwise ? 'Y' : 'N');
    return otherwise;
  }
  for (;;) {
    out.flush();
    auto answer = read_answer(question + std::string(choices));
    if (!answer) {
      out.print("EOF [assumed {}]\n", otherwise ? 'Y' : 'N');
      return otherwise;
    }
    const std::string_view word = trim(*answer);
    if (word.starts_with('y') || word.starts_with('Y'))
      return true;
    if (word.starts_with('n') || word.starts_with('N'))
      return false;
    if (word.empty() && enter)
      return *enter;
    out.print("Please answer {}.\n", choices.substr(1, choices.size() - 3));
  }
}

bool Context::confirm(const std::string& question) {
  return !settings.flag(Setting::kConfirm) || ask(question);
}

} // namespace ddbg::ui
