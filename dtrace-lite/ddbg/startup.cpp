#include "dtrace-lite/ddbg/startup.h"

#include "dtrace-lite/ddbg/commands.h"
#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/line_reader.h"
#include "dtrace-lite/ddbg/options.h"
#include "dtrace-lite/ddbg/repl.h"
#include "dtrace-lite/ddbg/run_control.h"
#include "dtrace-lite/ddbg/text.h"
#include "dtrace-lite/engine/shell_words.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

namespace ddbg::ui {

namespace {

constexpr const char* kInitFile = ".ddbginit";
constexpr const char* kHistoryFile = ".ddbg_history";

std::string home() {
  const char* path = std::getenv("HOME");
  return path ? path : "";
}

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

bool report(Context& context, const Checked<void>& done) {
  if (!done)
    context.report_error(done.error());
  run_pending_commands(context);
  context.out.flush();
  return static_cast<bool>(done);
}

bool run_steps(Context& context, const std::vector<Options::Step>& steps, bool succeeded) {
  for (const Options::Step& step : steps) {
    if (context.leave)
      break;
    context.from_tty = !context.batch;
    context.out.pager().restart();
    succeeded = step.kind == Options::Step::Kind::kCommand
                    ? execute_reporting(context, step.text)
                    : report(context, context.interpreter.source_file(step.text));
  }
  return succeeded;
}

std::string shell_text(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words)
    text += (text.empty() ? "" : " ") + engine::shell_quoted(word);
  return text;
}

void set_up_history(Context& context, LineReader& reader) {
  const char* file = std::getenv("DDBG_HISTFILE");
  std::string path = file ? file : home().empty() ? "" : home() + "/" + kHistoryFile;
  if (context.settings.text(Setting::kHistoryFilename).empty() && !path.empty())
    static_cast<void>(context.settings.set(Setting::kHistoryFilename, path));
  reader.load_history();
}

bool runs(pid_t pid, const std::string& program) {
  std::error_code none;
  return std::filesystem::equivalent(fmt::format("/proc/{}/exe", pid), program, none);
}

bool load_program(Context& context, const Options& options) {
  if (!options.working_directory.empty() &&
      !report(context, cmd::cd(context, options.working_directory)))
    return false;
  for (const std::string& directory : options.source_directories)
    static_cast<void>(cmd::directory(context, directory));
  if (!options.terminal.empty())
    static_cast<void>(context.settings.set(Setting::kInferiorTty, options.terminal));
  if (options.program.empty())
    return true;
  if (!options.quiet || !context.batch)
    context.out.print("Reading symbols from {}...\n", options.program);
  context.out.flush();
  context.apply_settings();
  if (!report(context, context.debugger.set_program(expand_tilde(options.program))))
    return false;
  const symbols::LoadedModule* main = context.debugger.module_map().main();
  if (main && !main->module->has_debug_section() && !context.batch)
    context.out.print("(No debugging symbols found in {})\n", options.program);
  return true;
}

} // namespace

bool is_safe_init_file(const char* path) {
  struct stat info {};
  return ::lstat(path, &info) == 0 && S_ISREG(info.st_mode) && info.st_uid == ::geteuid() &&
         (info.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

bool start_up(Context& context, LineReader& reader, const Options& options) {
  context.debugger.settings().backend = options.backend;
  bool succeeded = run_steps(context, options.early, true);
  std::string home_init = home() + "/" + kInitFile;
  if (!options.no_init && !options.no_home_init && !home().empty() && exists(home_init))
    report(context, context.interpreter.source_file(home_init));
  set_up_history(context, reader);
  if (!context.leave)
    succeeded = load_program(context, options);
  std::optional<pid_t> pid = options.pid;
  if (options.pid_of_program && runs(*options.pid_of_program, context.debugger.program()))
    pid = options.pid_of_program;
  else if (options.have_arguments)
    static_cast<void>(context.settings.set(Setting::kArgs, shell_text(options.arguments)));
  if (!options.no_init && exists(kInitFile)) {
    char here[4096];
    bool is_home = ::getcwd(here, sizeof here) && home() == here;
    if (!is_home && is_safe_init_file(kInitFile))
      report(context, context.interpreter.source_file(kInitFile));
    else if (!is_home)
      context.warning("./.ddbginit is not read: it is not yours, or others can write it.");
  }
  if (pid && !context.leave) {
    context.from_tty = !context.batch;
    succeeded = report(context, cmd::attach(context, std::to_string(*pid)));
  }
  return run_steps(context, options.steps, succeeded);
}

void leave_target(Context& context) {
  if (!context.debugger.alive())
    return;
  if (context.debugger.attached()) {
    auto left = context.debugger.detach();
    if (!left)
      context.report_error(left.error());
    else
      for (const std::string& sentence : *left)
        context.warning(sentence);
  } else if (auto gone = context.debugger.kill(); !gone) {
    context.report_error(gone.error());
  }
  context.terminal.take_back();
}

} // namespace ddbg::ui
