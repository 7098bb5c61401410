#include "dtrace-lite/engine/signals.h"

#include <charconv>
#include <csignal>
#include <cstring>

namespace ddbg::engine {

namespace {

struct Row {
  int number;
  const char* name;
  const char* description;
  SignalHandling handling;
};

constexpr SignalHandling kStopPass{true, true, true};
constexpr SignalHandling kQuiet{false, false, true};   // programs use these for their own work
constexpr SignalHandling kDebugger{true, true, false}; // the debugger's own, see `handle`

constexpr Row kRows[] = {
    {SIGHUP, "SIGHUP", "Hangup", kStopPass},
    {SIGINT, "SIGINT", "Interrupt", kDebugger},
    {SIGQUIT, "SIGQUIT", "Quit", kStopPass},
    {SIGILL, "SIGILL", "Illegal instruction", kStopPass},
    {SIGTRAP, "SIGTRAP", "Trace/breakpoint trap", kDebugger},
    {SIGABRT, "SIGABRT", "Aborted", kStopPass},
    {SIGBUS, "SIGBUS", "Bus error", kStopPass},
    {SIGFPE, "SIGFPE", "Arithmetic exception", kStopPass},
    {SIGKILL, "SIGKILL", "Killed", kStopPass},
    {SIGUSR1, "SIGUSR1", "User defined signal 1", kStopPass},
    {SIGSEGV, "SIGSEGV", "Segmentation fault", kStopPass},
    {SIGUSR2, "SIGUSR2", "User defined signal 2", kStopPass},
    {SIGPIPE, "SIGPIPE", "Broken pipe", kStopPass},
    {SIGALRM, "SIGALRM", "Alarm clock", kQuiet},
    {SIGTERM, "SIGTERM", "Terminated", kStopPass},
    {SIGSTKFLT, "SIGSTKFLT", "Stack fault", kStopPass},
    {SIGCHLD, "SIGCHLD", "Child status changed", kQuiet},
    {SIGCONT, "SIGCONT", "Continued", kStopPass},
    {SIGSTOP, "SIGSTOP", "Stopped (signal)", kStopPass},
    {SIGTSTP, "SIGTSTP", "Stopped (user)", kStopPass},
    {SIGTTIN, "SIGTTIN", "Stopped (tty input)", kStopPass},
    {SIGTTOU, "SIGTTOU", "Stopped (tty output)", kStopPass},
    {SIGURG, "SIGURG", "Urgent I/O condition", kQuiet},
    {SIGXCPU, "SIGXCPU", "CPU time limit exceeded", kStopPass},
    {SIGXFSZ, "SIGXFSZ", "File size limit exceeded", kStopPass},
    {SIGVTALRM, "SIGVTALRM", "Virtual timer expired", kQuiet},
    {SIGPROF, "SIGPROF", "Profiling timer expired", kQuiet},
    {SIGWINCH, "SIGWINCH", "Window size changed", kQuiet},
    {SIGIO, "SIGIO", "I/O possible", kQuiet},
    {SIGPWR, "SIGPWR", "Power fail/restart", kStopPass},
    {SIGSYS, "SIGSYS", "Bad system call", kStopPass},
};

const Row* row_of(int signal) {
  for (const Row& row : kRows)
    if (row.number == signal)
      return &row;
  return nullptr;
}

} // namespace

// gdb calls the kernel's real-time signals SIG32 to SIG64; 32 and 33, glibc's own, pass quietly.
std::string signal_name(int signal) {
  if (const Row* row = row_of(signal))
    return row->name;
  if (signal >= 32 && signal < static_cast<int>(dune::session::kSignals))
    return "SIG" + std::to_string(signal);
  return {};
}

std::string signal_description(int signal) {
  if (const Row* row = row_of(signal))
    return row->description;
  if (signal >= 32 && signal < static_cast<int>(dune::session::kSignals))
    return "Real-time event " + std::to_string(signal);
  return "Unknown signal " + std::to_string(signal);
}

std::optional<int> signal_number(std::string_view name) {
  for (const Row& row : kRows)
    if (name == row.name)
      return row.number;
  if (name == "SIGPOLL")
    return SIGIO;
  const bool realtime = name.starts_with("SIG");
  std::string_view digits = realtime ? name.substr(3) : name;
  int number = 0;
  auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size())
    return std::nullopt;
  const bool valid = realtime ? number >= 32 && number < static_cast<int>(dune::session::kSignals)
                              : number >= 1 && number <= 15;
  return valid ? std::optional(number) : std::nullopt;
}

SignalTable default_signal_table() {
  SignalTable table{};
  for (const Row& row : kRows)
    table[row.number] = row.handling;
  table[32] = table[33] = kQuiet;
  return table;
}

} // namespace ddbg::engine
