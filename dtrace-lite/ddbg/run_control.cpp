#include "dtrace-lite/ddbg/run_control.h"

#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/display.h"
#include "dtrace-lite/ddbg/evaluation.h"
#include "dtrace-lite/ddbg/frame_print.h"
#include "dtrace-lite/ddbg/text.h"

#include <algorithm>
#include <unistd.h>

namespace ddbg::ui {

namespace {

using engine::StopReport;
using engine::StopWhy;

// "Breakpoint 1, " begins a sentence of its own, but "Thread 2 "x" hit Breakpoint 1, " when there
// is or was more than one thread.
std::string who(Context& context, const StopReport& stop, std::string_view single) {
  if (context.most_threads < 2)
    return std::string(single);
  std::string name;
  for (const engine::ThreadInfo& thread : context.debugger.threads())
    if (thread.view.number == stop.thread)
      name = thread.view.name;
  return fmt::format("Thread {} \"{}\"", stop.thread, name);
}

void tell_exit(Context& context, const StopReport& stop) {
  using Kind = keeper::ExitStatus::Kind;
  std::string pid = std::to_string(stop.pid);
  switch (stop.status.kind) {
  case Kind::kExited:
    context.out.write(stop.status.value == 0
                          ? "[Inferior 1 (process " + pid + ") exited normally]\n"
                          : fmt::format("[Inferior 1 (process {}) exited with code 0{:o}]\n", pid,
                                        stop.status.value));
    break;
  case Kind::kSignaled:
    context.out.print("\nProgram terminated with signal {}, {}.\nThe program no longer exists.\n",
                      engine::signal_name(stop.status.value),
                      engine::signal_description(stop.status.value));
    break;
  case Kind::kUnknown:
    context.out.print("[Inferior 1 (process {}) exited, its status is not known]\n", pid);
    break;
  }
}

void tell_watch(Context& context, const StopReport& stop, const engine::WatchChange& watch) {
  using engine::BreakpointType;
  const char* kind = watch.type == BreakpointType::kReadWatch ? "Hardware read watchpoint"
                     : watch.type == BreakpointType::kAccessWatch
                         ? "Hardware access (read/write) watchpoint"
                         : "Hardware watchpoint";
  std::string subject = who(context, stop, "");
  context.out.print("\n{}{}{} {}: {}\n\n", subject, subject.empty() ? "" : " hit ", kind,
                    watch.number, watch.expression);
  if (watch.type != BreakpointType::kReadWatch && watch.changed)
    context.out.print("Old value = {}\nNew value = {}\n", watch.old_value, watch.new_value);
  else
    context.out.print("Value = {}\n", watch.new_value);
}

void tell_reason(Context& context, const StopReport& stop) {
  switch (stop.why) {
  case StopWhy::kBreakpoint: {
    if (stop.breakpoints.empty())
      return;
    unsigned number = stop.breakpoints.front();
    bool temporary = std::find(stop.temporary_deleted.begin(), stop.temporary_deleted.end(),
                               number) != stop.temporary_deleted.end();
    std::string subject = who(context, stop, "");
    context.out.print("\n{}{}{} {}, ", subject, subject.empty() ? "" : " hit ",
                      temporary ? "Temporary breakpoint" : "Breakpoint", number);
    return;
  }
  case StopWhy::kWatchpoint:
    for (const auto& watch : stop.watches)
      tell_watch(context, stop, watch);
    return;
  case StopWhy::kWatchScope:
    for (const auto& watch : stop.watches)
      context.out.print("\nWatchpoint {} deleted because the program has left the block in\n"
                        "which its expression is valid.\n",
                        watch.number);
    return;
  case StopWhy::kSignal:
    context.out.print("\n{} received signal {}, {}.\n", who(context, stop, "Program"),
                      engine::signal_name(stop.signal), engine::signal_description(stop.signal));
    return;
  case StopWhy::kInterrupted:
    context.out.print("\n{} received signal SIGINT, Interrupt.\n", who(context, stop, "Program"));
    return;
  case StopWhy::kStarted:
    context.out.print("\n{} stopped.\n", who(context, stop, "Program"));
    return;
  case StopWhy::kNone:
  case StopWhy::kStepDone:
  case StopWhy::kFinished:
  case StopWhy::kReached:
  case StopWhy::kExited:
  case StopWhy::kLost:
    return;
  }
}

void tell_place(Context& context, const StopReport& stop) {
  auto frame = context.debugger.selected_frame();
  if (!frame)
    return context.report_error(frame.error());
  if (stop.source_line_only && frame->source)
    print_source_line(context, frame->source, frame->pc, !stop.at_line_start);
  else
    print_frame(context, *frame, FrameStyle::kNoLevel);
}

} // namespace

void tell_stop(Context& context, const StopReport& stop) {
  for (const std::string& message : stop.messages)
    context.out.write(message + "\n");
  if (stop.target_gone()) {
    if (stop.why == StopWhy::kExited)
      tell_exit(context, stop);
    else
      context.report_error({stop.text, {}, {}});
    context.most_threads = 0;
    context.last_stop_breakpoint = 0;
    context.last_signal = 0;
    context.terminal.forget_target();
    return;
  }
  context.last_stop_breakpoint = stop.breakpoints.empty() ? 0 : stop.breakpoints.front();
  context.last_signal = stop.why == StopWhy::kSignal ? stop.signal : 0;
  for (const engine::ThreadInfo& thread : context.debugger.threads())
    context.most_threads = std::max(context.most_threads, thread.view.number);
  context.pending_commands = stop.commands;
  auto& commands = context.pending_commands;
  bool silent = !commands.empty() && trim(commands.front()) == "silent";
  if (silent) {
    commands.erase(commands.begin());
    return;
  }
  if (stop.thread_switched && context.most_threads > 1)
    for (const engine::ThreadInfo& thread : context.debugger.threads())
      if (thread.view.number == stop.thread)
        context.out.print("[Switching to {}]\n", thread_description(thread.view));
  tell_reason(context, stop);
  tell_place(context, stop);
  if (stop.returned)
    tell_returned(context, *stop.returned);
  show_displays(context);
}

Checked<void> run_target(Context& context, const std::function<Checked<engine::StopReport>()>& go) {
  ++context.resumes;
  context.out.flush();
  context.list_cursor = {};
  if (pid_t pid = context.debugger.pid(); pid > 0)
    context.terminal.give_to(getpgid(pid));
  auto stop = go();
  context.terminal.take_back();
  if (!stop)
    return stop.error();
  tell_stop(context, *stop);
  return {};
}

void run_pending_commands(Context& context) {
  // Commands may resume the target and so bring the next stop's commands, which come in their
  // place; hence a loop, not a recursion, and the rest of a list is dropped, as in gdb.
  while (!context.pending_commands.empty() && !context.leave) {
    auto lines = std::exchange(context.pending_commands, {});
    bool typed = std::exchange(context.from_tty, false);
    auto done = context.interpreter.execute_lines(lines);
    context.from_tty = typed;
    if (!done) {
      context.pending_commands.clear();
      context.report_error(done.error());
      return;
    }
  }
}

Checked<void> require_target(Context& context) {
  if (!context.debugger.alive())
    return Diagnostic{"The program is not being run.", {}, {}};
  return {};
}

} // namespace ddbg::ui
