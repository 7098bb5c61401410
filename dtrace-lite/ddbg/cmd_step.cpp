// step, next, finish and their kin.
#include "dtrace-lite/ddbg/commands.h"
#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/evaluation.h"
#include "dtrace-lite/ddbg/frame_print.h"
#include "dtrace-lite/ddbg/run_control.h"

namespace ddbg::ui::cmd {

namespace {

Checked<void> step_by(Context& context, std::string_view args, engine::StepKind kind) {
  if (auto there = require_target(context); !there)
    return there;
  engine::StepRequest request;
  request.kind = kind;
  if (!args.empty()) {
    auto count = evaluate_integer(context, args);
    if (!count)
      return count.error();
    request.count = *count;
    if (*count == 0 || static_cast<int64_t>(*count) < 0)
      return {}; // as gdb: nothing to do
  }
  return run_target(context, [&] { return context.debugger.step(request); });
}

Checked<void> advance_in(Context& context, std::string_view location,
                         engine::Debugger::ReachedIn where) {
  return run_target(context,
                    [&] { return context.debugger.advance(std::string(location), where); });
}

} // namespace

Checked<void> step(Context& context, std::string_view args) {
  return step_by(context, args, engine::StepKind::kStep);
}
Checked<void> next(Context& context, std::string_view args) {
  return step_by(context, args, engine::StepKind::kNext);
}
Checked<void> stepi(Context& context, std::string_view args) {
  return step_by(context, args, engine::StepKind::kStepi);
}
Checked<void> nexti(Context& context, std::string_view args) {
  return step_by(context, args, engine::StepKind::kNexti);
}

Checked<void> finish(Context& context, std::string_view args) {
  if (auto there = require_target(context); !there)
    return there;
  if (!args.empty())
    return Diagnostic{"The \"finish\" command does not take any arguments.", {}, {}};
  auto frame = context.debugger.selected_frame();
  if (!frame)
    return frame.error();
  unsigned level = frame->level;
  if (auto caller = context.debugger.frame_of(context.debugger.selected_thread(), level + 1);
      !caller)
    return Diagnostic{"\"finish\" not meaningful in the outermost frame.", {}, {}};
  if (context.from_tty)
    context.out.write("Run till exit from " + frame_line(context, *frame, FrameStyle::kLevel));
  engine::StepRequest request;
  request.kind = engine::StepKind::kFinish;
  request.frame = level;
  return run_target(context, [&] { return context.debugger.step(request); });
}

Checked<void> until(Context& context, std::string_view args) {
  if (auto there = require_target(context); !there)
    return there;
  if (!args.empty())
    return advance_in(context, args, engine::Debugger::ReachedIn::kSelectedFrame);
  engine::StepRequest request;
  request.kind = engine::StepKind::kUntil;
  return run_target(context, [&] { return context.debugger.step(request); });
}

Checked<void> advance(Context& context, std::string_view args) {
  if (auto there = require_target(context); !there)
    return there;
  if (args.empty())
    return Diagnostic{"Argument required (a location).", {}, {}};
  return advance_in(context, args, engine::Debugger::ReachedIn::kAnyFrame);
}

} // namespace ddbg::ui::cmd
