// Starting, resuming, attaching to, leaving the target.
#include "dtrace-lite/ddbg/breakpoint_text.h"
#include "dtrace-lite/ddbg/commands.h"
#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/evaluation.h"
#include "dtrace-lite/ddbg/frame_print.h"
#include "dtrace-lite/ddbg/run_control.h"
#include "dtrace-lite/ddbg/text.h"

#include <unistd.h>

namespace ddbg::ui::cmd {

namespace {

// Before there is another: the terminal goes from ddbg to a target's group, not from one to the
// next.
Checked<void> end_running(Context& context, const std::string& question, const char* refusal) {
  if (!context.debugger.alive())
    return {};
  if (!context.ask(question))
    return Diagnostic{refusal, {}, {}};
  return context.debugger.kill();
}

Checked<void> launch(Context& context, std::string_view args, engine::RunMode mode) {
  if (context.debugger.program().empty())
    return Diagnostic{
        "No executable file specified.", "Use the \"file\" or \"exec-file\" command.", {}};
  if (auto ended = end_running(context,
                               "The program being debugged has been started already.\n"
                               "Start it from the beginning? ",
                               "Program not restarted.");
      !ended)
    return ended;
  // As gdb: without arguments, those of the last time.
  if (!args.empty())
    if (auto set = context.settings.set(Setting::kArgs, args); !set)
      return set.error();
  context.apply_settings();
  if (mode == engine::RunMode::kStart) {
    engine::AddBreakpoint request;
    request.arguments = "main";
    request.disposition = engine::Disposition::kDelete;
    auto number = context.debugger.add_breakpoint(request);
    if (!number)
      return number.error();
    mention_breakpoint(context, *number);
    mode = engine::RunMode::kRun;
  }
  if (context.from_tty)
    context.out.print("Starting program: {} {}\n", context.debugger.program(),
                      context.settings.text(Setting::kArgs));
  context.most_threads = 0;
  context.terminal.forget_target();
  return run_target(context, [&] { return context.debugger.run(mode); });
}

} // namespace

Checked<void> run(Context& context, std::string_view args) {
  return launch(context, args, engine::RunMode::kRun);
}
Checked<void> start(Context& context, std::string_view args) {
  return launch(context, args, engine::RunMode::kStart);
}
Checked<void> starti(Context& context, std::string_view args) {
  return launch(context, args, engine::RunMode::kStarti);
}

Checked<void> continue_(Context& context, std::string_view args) {
  if (auto there = require_target(context); !there)
    return there;
  if (args == "-a" || args == "&")
    return Diagnostic{"Asynchronous execution is not supported.", {}, {}};
  if (!args.empty()) {
    auto crossings = evaluate_integer(context, args);
    if (!crossings)
      return crossings.error();
    if (context.last_stop_breakpoint == 0 ||
        !context.debugger.breakpoint(context.last_stop_breakpoint)) {
      if (context.from_tty)
        context.out.write("Not stopped at any breakpoint; argument ignored.\n");
    } else {
      uint64_t ignore = *crossings > 0 ? *crossings - 1 : 0;
      auto set = context.debugger.set_ignore_count(context.last_stop_breakpoint, ignore);
      if (!set)
        return set;
      context.out.print("Will ignore next {} crossings of breakpoint {}.  ", ignore,
                        context.last_stop_breakpoint);
      // gdb goes on in the same line also when it does not say "Continuing.".
      if (!context.from_tty)
        context.out.write("\n");
    }
  }
  if (context.from_tty)
    context.out.write("Continuing.\n");
  return run_target(context, [&] { return context.debugger.resume(); });
}

Checked<void> signal_(Context& context, std::string_view args) {
  if (auto there = require_target(context); !there)
    return there;
  if (args.empty())
    return Diagnostic{"Argument required (signal number).", {}, {}};
  engine::ContinueOptions options;
  auto number = engine::signal_number(args);
  if (args == "0")
    options.signal = 0;
  else if (number)
    options.signal = *number;
  else
    return Diagnostic{"Only signals 1-15 are valid as numeric signals.",
                      "Use \"info signals\" for a list of symbolic signals.",
                      {}};
  if (context.from_tty)
    context.out.write(*options.signal == 0 ? std::string("Continuing with no signal.\n")
                                           : "Continuing with signal " +
                                                 engine::signal_name(*options.signal) + ".\n");
  return run_target(context, [&] { return context.debugger.resume(options); });
}

Checked<void> attach(Context& context, std::string_view args) {
  if (args.empty())
    return Diagnostic{"Argument required (process-id to attach).", {}, {}};
  auto pid = parse_integer(args);
  if (!pid || *pid <= 0 || *pid > INT32_MAX)
    return Diagnostic{"Illegal process-id: " + std::string(args) + ".", {}, {}};
  if (*pid == getpid())
    return Diagnostic{"I refuse to debug myself!", {}, {}};
  if (auto ended =
          end_running(context, "A program is being debugged already.  Kill it? ", "Not killed.");
      !ended)
    return ended;
  context.apply_settings();
  if (context.from_tty)
    context.out.print("Attaching to process {}\n", *pid);
  context.most_threads = 0;
  context.terminal.forget_target();
  context.terminal.set_attached(true);
  return run_target(context, [&] { return context.debugger.attach(static_cast<pid_t>(*pid)); });
}

Checked<void> detach(Context& context, std::string_view) {
  if (auto there = require_target(context); !there)
    return there;
  pid_t pid = context.debugger.pid();
  if (context.from_tty)
    context.out.print("Detaching from program: {}, process {}\n", context.debugger.program(), pid);
  context.out.flush();
  auto left = context.debugger.detach();
  if (!left)
    return left.error();
  for (const std::string& sentence : *left)
    context.warning(sentence);
  context.terminal.forget_target();
  context.out.print("[Inferior 1 (process {}) detached]\n", pid);
  return {};
}

Checked<void> kill(Context& context, std::string_view) {
  if (auto there = require_target(context); !there)
    return there;
  if (!context.confirm("Kill the program being debugged? "))
    return Diagnostic{"Not confirmed.", {}, {}};
  pid_t pid = context.debugger.pid();
  if (auto gone = context.debugger.kill(); !gone)
    return gone;
  context.terminal.take_back();
  context.terminal.forget_target();
  context.out.print("[Inferior 1 (process {}) killed]\n", pid);
  return {};
}

Checked<void> info_program(Context& context, std::string_view) {
  if (!context.debugger.alive()) {
    context.out.write("The program being debugged is not being run.\n");
    return {};
  }
  for (const engine::ThreadInfo& thread : context.debugger.threads())
    if (thread.selected) {
      context.out.print("\tUsing the running image of {} {}.\n",
                        context.debugger.attached() ? "attached" : "child",
                        thread_description(thread.view));
      context.out.print("Program stopped at 0x{:x}.\n", thread.view.registers.rip);
    }
  if (context.last_stop_breakpoint != 0 &&
      context.debugger.breakpoint(context.last_stop_breakpoint))
    context.out.print("It stopped at breakpoint {}.\n", context.last_stop_breakpoint);
  else if (context.last_stop_breakpoint != 0)
    context.out.write("It stopped at a breakpoint that has since been deleted.\n");
  else if (context.last_signal != 0)
    context.out.print("It stopped at signal {}, {}.\n", engine::signal_name(context.last_signal),
                      engine::signal_description(context.last_signal));
  else
    context.out.write("It stopped after being stepped.\n");
  return {};
}

Checked<void> info_inferiors(Context& context, std::string_view) {
  std::string what = context.debugger.alive() ? fmt::format("process {}", context.debugger.pid())
                                              : std::string("<null>");
  context.out.print("  Num  Description       Executable        \n"
                    "* 1    {:<17} {:<17} \n",
                    what, context.debugger.program());
  return {};
}

} // namespace ddbg::ui::cmd
