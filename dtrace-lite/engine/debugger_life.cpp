// Birth and end of a target, as the debugger sees them.
#include "dtrace-lite/engine/debugger_impl.h"
#include "dtrace-lite/engine/shell_words.h"

#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>

namespace ddbg::engine {

namespace {

// The kernel gives a traced program no rights that its tracer has not.
bool loses_rights(const std::string& path) {
  struct stat info {};
  return ::geteuid() != 0 && ::stat(path.c_str(), &info) == 0 &&
         (((info.st_mode & S_ISUID) && info.st_uid != ::geteuid()) ||
          ((info.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) &&
           info.st_gid != ::getegid()));
}

} // namespace

Checked<void> Debugger::set_program(const std::string& name) {
  const std::string path = name.empty() ? std::string() : find_program(name);
  if (!path.empty() && !std::filesystem::exists(path))
    return Diagnostic{name + ": No such file or directory.", {}, {}};
  if (!impl_->inferior) {
    impl_->modules.map().set_debug_directories(impl_->settings.debug_files.directories);
    Checked<void> loaded = impl_->modules.load_program(path);
    if (!loaded)
      return loaded;
    impl_->default_line = {};
  }
  impl_->program = path;
  impl_->forget_stop();
  for (const std::string& problem : impl_->breakpoints.reset())
    if (impl_->sink)
      impl_->sink(problem);
  return {};
}

bool Debugger::alive() const { return impl_->inferior != nullptr; }
pid_t Debugger::pid() const { return impl_->inferior ? impl_->inferior->pid() : 0; }
bool Debugger::attached() const { return impl_->inferior && impl_->inferior->attached(); }
std::optional<int> Debugger::exit_code() const { return impl_->exit_code; }

Checked<void> Debugger::Impl::start_keeper() {
  if (keeper)
    return {};
  Checked<std::unique_ptr<keeper::Client>> client = keeper::Client::start();
  if (!client)
    return client.error();
  keeper = std::move(*client);
  return {};
}

keeper::LaunchOptions Debugger::Impl::launch_options() const {
  keeper::LaunchOptions options;
  options.program = program;
  if (settings.startup_with_shell) {
    options.shell_command = shell_quoted(program);
    if (!settings.args.empty())
      options.shell_command += " " + settings.args;
  } else {
    options.arguments = split_words(settings.args);
    options.arguments.insert(options.arguments.begin(), program);
  }
  options.environment = settings.environment.entries();
  options.working_directory = settings.cwd;
  options.disable_randomization = settings.disable_randomization;
  options.backend = settings.backend;
  options.own_terminal_group = settings.own_terminal_group;
  options.signals = settings.signals;
  return options;
}

// A new target with its threads parked: everything that must be in place before it runs.
Checked<void> Debugger::Impl::adopt(std::unique_ptr<Inferior> born, const std::string& program_path,
                                    StopReport& report) {
  inferior = std::move(born);
  forget_stop();
  hidden_inlined.clear();
  pending_signal = 0;
  breakpoints.set_inferior(inferior.get());
  for (size_t i = 1; i < signals.size(); ++i)
    inferior->set_signal_policy(static_cast<int>(i), signals[i].policy());
  Checked<Modules::Change> started = modules.start(*inferior, program_path);
  if (!started)
    return started.error();
  for (std::string& warning : started->warnings)
    say(report, "warning: " + warning);
  unwinder.forget_cached();
  for (std::string& problem : breakpoints.reset())
    say(report, std::move(problem));
  const std::vector<ThreadView>& threads = inferior->threads();
  thread = threads.empty() ? 0 : threads.front().number;
  level = 0;
  return {};
}

void Debugger::Impl::target_gone() {
  breakpoints.target_gone(false);
  breakpoints.set_inferior(nullptr);
  inferior.reset();
  forget_stop();
  hidden_inlined.clear();
  thread = 0;
  level = 0;
  pending_signal = 0;
  default_line = {};
  modules.forget_target();
  unwinder.forget_cached();
  (void)breakpoints.reset(); // back to what the program's file says
}

Checked<StopReport> Debugger::run(RunMode mode) {
  if (impl_->program.empty())
    return Diagnostic{
        "No executable file specified.", "Use the \"file\" or \"exec-file\" command.", {}};
  if (impl_->inferior) {
    Checked<void> killed = kill();
    if (!killed)
      return killed.error();
  }
  // The file may have been built anew since.
  Checked<void> loaded = impl_->modules.load_program(impl_->program);
  if (!loaded)
    return loaded.error();
  impl_->default_line = {};
  Checked<void> ready = impl_->start_keeper();
  if (!ready)
    return ready.error();
  Checked<std::unique_ptr<Inferior>> born =
      Inferior::launch(*impl_->keeper, impl_->launch_options());
  if (!born)
    return born.error();
  impl_->breakpoints.clear_counts();
  StopReport report;
  if (loses_rights(impl_->program))
    impl_->say(report, "warning: " + impl_->program +
                           " runs with your rights: under a debugger its set-user-ID and "
                           "set-group-ID bits have no effect. Attach to it as root instead.");
  Checked<void> adopted = impl_->adopt(std::move(*born), impl_->program, report);
  if (!adopted) {
    (void)kill();
    return adopted.error();
  }
  if (mode == RunMode::kStarti) {
    report.why = StopWhy::kStarted;
    impl_->finish_report(report, impl_->thread, nullptr);
    return report;
  }
  ResumePlan from_entry;
  from_entry.thread = impl_->thread;
  from_entry.arrives = true;
  Checked<StopReport> stopped = impl_->run_until_stop(from_entry, nullptr);
  if (stopped)
    stopped->messages.insert(stopped->messages.begin(), report.messages.begin(),
                             report.messages.end());
  return stopped;
}

Checked<StopReport> Debugger::attach(pid_t pid) {
  if (impl_->inferior)
    return Diagnostic{
        "A program is being debugged already.", "Kill it or detach from it first.", {}};
  Checked<void> ready = impl_->start_keeper();
  if (!ready)
    return ready.error();
  Checked<std::unique_ptr<Inferior>> born =
      Inferior::attach(*impl_->keeper, pid, impl_->settings.backend, impl_->interrupted);
  if (!born)
    return born.error();
  StopReport report;
  Checked<void> adopted = impl_->adopt(std::move(*born), {}, report);
  if (!adopted) {
    (void)detach();
    return adopted.error();
  }
  if (impl_->program.empty())
    impl_->program = impl_->modules.program_path();
  impl_->finish_report(report, impl_->thread, nullptr);
  return report;
}

Checked<std::vector<std::string>> Debugger::detach() {
  if (!impl_->inferior)
    return not_running();
  Checked<std::vector<std::string>> left = impl_->inferior->detach();
  impl_->target_gone();
  return left;
}

Checked<void> Debugger::kill() {
  if (!impl_->inferior)
    return not_running();
  Checked<void> killed = impl_->inferior->kill();
  if (!killed) {
    impl_->target_gone();
    return killed;
  }
  // Until its end has been seen, its pid and the keeper are not free for the next one.
  for (;;) {
    Checked<Event> event = impl_->inferior->wait();
    if (!event || event->kind == Event::Kind::kExited || event->kind == Event::Kind::kLost)
      break;
  }
  impl_->target_gone();
  return {};
}

} // namespace ddbg::engine
