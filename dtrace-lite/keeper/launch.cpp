#include "dtrace-lite/keeper/birth.h"

#include "dtrace-lite/keeper/confinement.h"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>

namespace ddbg::keeper {

namespace {

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> result;
  result.reserve(strings.size() + 1);
  for (auto& s : strings)
    result.push_back(s.data());
  result.push_back(nullptr);
  return result;
}

struct Pipe {
  dune::Fd read_end, write_end;
};

Checked<Pipe> make_pipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0)
    return to_diagnostic(dune::system_error("cannot start the program"));
  return Pipe{dune::Fd(ends[0]), dune::Fd(ends[1])};
}

// A process group of its own and, if the front end has it, the terminal: a program that reads or
// sets the terminal before its first stop must not be a background process. (The keeper's ignored
// SIGTTOU is still in force here: without it, tcsetpgrp would stop us.)
void take_terminal(pid_t frontend_pid) {
  setpgid(0, 0);
  dune::Fd terminal(open("/dev/tty", O_RDWR | O_CLOEXEC));
  if (terminal && tcgetpgrp(terminal.get()) == getpgid(frontend_pid))
    tcsetpgrp(terminal.get(), getpid());
}

// The execve of a traced process is an event, then: untraced it is nothing at all. (That of one
// that asked for it by PTRACE_TRACEME is a SIGTRAP, of which it would die if the keeper did just
// then.)
constexpr int kExecOptions = PTRACE_O_TRACEEXEC | PTRACE_O_TRACESYSGOOD;

// In the forked child: never returns. It begins when it is traced, which `traced` says by a byte,
// or ends with the keeper. What fails is written to `report`.
[[noreturn]] void become_target(const LaunchOptions& options, pid_t frontend_pid, int traced,
                                int report) {
  char byte;
  if (read(traced, &byte, 1) != 1)
    _exit(127);
  auto fail = [&] [[noreturn]] (const char* what) {
    const int error = errno;
    const std::string text = fmt::format("{}: {}", what, strerror(error));
    (void)!write(report, text.data(), text.size());
    _exit(127);
  };
  if (options.own_terminal_group)
    take_terminal(frontend_pid);
  // ddbg and the keeper ignore and block signals for their own sake; the program must inherit what
  // ddbg did (nohup, a shell's background job).
  sigset_t blocked;
  sigemptyset(&blocked);
  for (int signal = 1; signal < NSIG; ++signal) {
    const uint64_t bit = uint64_t{1} << (signal - 1);
    if (signal != SIGKILL && signal != SIGSTOP)
      ::signal(signal, options.signals.ignored & bit ? SIG_IGN : SIG_DFL);
    if (options.signals.blocked & bit)
      sigaddset(&blocked, signal);
  }
  sigprocmask(SIG_SETMASK, &blocked, nullptr);
  if (!options.working_directory.empty() && chdir(options.working_directory.c_str()) != 0)
    fail("Cannot change to the working directory");
  if (options.disable_randomization) {
    const int now = personality(0xffffffff);
    if (now != -1)
      personality(static_cast<unsigned long>(now) | ADDR_NO_RANDOMIZE);
  }
  LaunchOptions mutable_options = options;
  auto environment = pointers(mutable_options.environment);
  if (options.shell_command.empty()) {
    auto arguments = pointers(mutable_options.arguments);
    execve(options.program.c_str(), arguments.data(), environment.data());
    fail("Cannot execute the program");
  }
  std::string shell = "/bin/sh";
  for (const auto& variable : options.environment)
    if (variable.compare(0, 6, "SHELL=") == 0 && variable.size() > 6)
      shell = variable.substr(6);
  std::string command = "exec " + options.shell_command, flag = "-c";
  char* arguments[] = {shell.data(), flag.data(), command.data(), nullptr};
  execve(shell.c_str(), arguments, environment.data());
  fail("Cannot execute the shell");
}

// Waits for an execve. Errors say how the start-up went wrong.
Checked<void> wait_for_exec(pid_t pid, int report) {
  for (;;) {
    int status;
    if (waitpid(pid, &status, 0) < 0)
      return to_diagnostic(dune::system_error("cannot wait for the program"));
    if (WIFSTOPPED(status)) {
      const Stop stop = Tracee(pid).stop_of(status);
      if (stop.kind == Stop::Kind::kExec)
        return {};
      const int its_own = stop.kind == Stop::Kind::kSignal ? stop.signal : 0;
      ptrace(PTRACE_CONT, pid, nullptr, its_own);
      continue;
    }
    char text[512];
    const ssize_t n = read(report, text, sizeof text);
    if (n > 0)
      return Diagnostic{std::string(text, static_cast<size_t>(n)) + ".", {}, {}};
    if (WIFEXITED(status))
      return Diagnostic{
          fmt::format("During startup program exited with code {}.", WEXITSTATUS(status)), {}, {}};
    return Diagnostic{fmt::format("During startup program terminated with signal {}.",
                                  sigabbrev_np(WTERMSIG(status))),
                      {},
                      {}};
  }
}

// Why this file cannot be debugged, before anything is started.
Checked<void> check_program(const LaunchOptions& options) {
  struct stat info {};
  const char* path = options.program.c_str();
  if (stat(path, &info) != 0)
    return Diagnostic{fmt::format("{}: {}.", path, strerror(errno)), {}, {}};
  if (S_ISDIR(info.st_mode))
    return Diagnostic{fmt::format("{}: is a directory.", path), {}, {}};
  if (access(path, X_OK) != 0)
    return Diagnostic{fmt::format("{}: cannot be executed: {}.", path, strerror(errno)),
                      "Set its execute permission (chmod +x).",
                      {}};
  if (access(path, R_OK) != 0)
    return Diagnostic{
        fmt::format("{}: can be executed but not read, so it cannot be debugged.", path),
        "The kernel protects the memory of such a program; make it readable, or debug "
        "as its owner or root.",
        {}};
  return {};
}

// System calls fail at PTRACE_EVENT_EXEC itself: goes on to the end of the execve.
Checked<void> finish_exec(const Tracee& thread) {
  if (!thread.run_until(PTRACE_SYSCALL,
                        [](const Stop& stop) { return stop.kind == Stop::Kind::kSystemCall; }))
    return Diagnostic{"The program was gone after its execve.", {}, {}};
  return {};
}

// The agent into a process that has just come out of execve, perhaps one of `before`'s: it has one
// thread, which enters.
Checked<Injected> inject_first_thread(pid_t pid, const Injected* before,
                                      const dune::backend::Choice& choice) {
  auto detour = Detour::build(pid);
  if (!detour)
    return to_diagnostic(detour.error());
  auto filters = before ? check_new_image(*before, *detour) : Checked<Filters>(Filters::kKnown);
  if (!filters)
    return filters.error();
  const Tracee thread(pid);
  auto injected = inject_agent(pid, thread, *detour, choice, *filters, Age::kNewImage);
  if (injected)
    if (auto ok = enter_agent(*injected, thread, 0); !ok) {
      unmap_agent(*injected, thread, *detour);
      return ok.error();
    }
  return injected;
}

} // namespace

Checked<Injected> launch(const LaunchOptions& options, pid_t frontend_pid,
                         const dune::backend::Choice& choice) {
  if (auto ok = check_program(options); !ok)
    return ok.error();
  auto report = make_pipe(), traced = make_pipe();
  if (!report || !traced)
    return report ? traced.error() : report.error();
  const pid_t pid = fork();
  if (pid < 0)
    return to_diagnostic(dune::system_error("cannot start the program"));
  if (pid == 0) {
    traced->write_end.reset();
    become_target(options, frontend_pid, traced->read_end.get(), report->write_end.get());
  }
  report->write_end.reset();
  if (options.own_terminal_group)
    setpgid(pid, pid); // in both processes: neither has to wait for the other
  auto give_up = [&](Diagnostic d) -> Checked<Injected> {
    ::kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    return d;
  };
  const Tracee thread(pid);

  if (ptrace(PTRACE_SEIZE, pid, nullptr, PTRACE_O_EXITKILL | kExecOptions) != 0)
    return give_up(to_diagnostic(
        dune::system_error("cannot trace the program (ptrace is not permitted here)")));
  if (write(traced->write_end.get(), "", 1) != 1)
    return give_up(to_diagnostic(dune::system_error("cannot start the program")));
  const int execs = options.shell_command.empty() ? 1 : 2;
  for (int i = 0; i < execs; ++i) {
    if (i > 0 && ptrace(PTRACE_CONT, pid, nullptr, nullptr) != 0)
      return give_up(to_diagnostic(dune::system_error("cannot start the program")));
    if (auto ok = wait_for_exec(pid, report->read_end.get()); !ok)
      return ok.error(); // it is gone already
  }
  ptrace(PTRACE_SETOPTIONS, pid, nullptr, PTRACE_O_EXITKILL | kTraceOptions);
  if (auto ok = finish_exec(thread); !ok)
    return give_up(ok.error());
  auto injected = inject_first_thread(pid, nullptr, choice);
  if (!injected)
    return give_up(injected.error());
  if (auto ok = thread.detach(); !ok)
    return give_up(to_diagnostic(ok.error()));
  return injected;
}

Checked<void> seize_for_exec(pid_t pid, pid_t tid) {
  const std::vector<pid_t> tasks = read_tasks(pid);
  if (std::find(tasks.begin(), tasks.end(), tid) == tasks.end())
    return Diagnostic{"A thread that is not the program's cannot be followed.", {}, {}};
  if (ptrace(PTRACE_SEIZE, tid, nullptr, kExecOptions) != 0)
    return to_diagnostic(dune::system_error("cannot follow the execve"));
  return {};
}

void let_go(pid_t tid) {
  // A seized, running thread can only be let go from a stop.
  if (ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr) != 0)
    return;
  if (auto status = wait_for(tid); status && WIFSTOPPED(*status))
    ptrace(PTRACE_DETACH, tid, nullptr, *status >> 16 ? 0 : WSTOPSIG(*status));
}

Checked<Injected> inject_after_exec(const Injected& before, const dune::backend::Choice& choice) {
  const Tracee thread(before.pid);
  if (auto ok = finish_exec(thread); !ok)
    return ok.error();
  auto injected = inject_first_thread(before.pid, &before, choice);
  (void)!thread.detach(); // it may have been killed meanwhile: then its exit is the news
  return injected;
}

} // namespace ddbg::keeper
