// The event loop: lets the target run, decides of each stop whether it is the user's, and says why.
#include "dtrace-lite/engine/debugger_impl.h"
#include "dtrace-lite/expr/format.h"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fmt/format.h>

namespace ddbg::engine {

using dune::session::StopReason;

void Debugger::Impl::say(StopReport& report, std::string message) {
  if (sink)
    sink(message);
  else
    report.messages.push_back(std::move(message));
}

void Debugger::Impl::tell_confinement(StopReport& report) {
  using namespace dune::session;
  const uint32_t confinement = inferior->confinement();
  if (confinement & kConfinesAgent)
    say(report,
        "A seccomp filter has ended the program. It may have been for a call of ddbg's own: "
        "its agent\nworks inside the program, and needs rt_sigreturn, futex and others of "
        "signals and threads.\nStart the program without its sandbox, or use gdb.");
  else if (confinement & kConfinedStrictly)
    say(report, "Seccomp's strict mode has ended the program, without ddbg by SIGKILL.");
}

void Debugger::Impl::tell_suspension(StopReport& report) {
  if (inferior->was_suspended() && report.why != StopWhy::kSignal)
    say(report, fmt::format("Process {} had been stopped by a signal (SIGSTOP, or the terminal's): "
                            "resuming it lets it run, detaching leaves it stopped.",
                            inferior->pid()));
}

// Nobody looked up the thread's pointer, so it is gdb's wording for a thread without one.
void Debugger::Impl::tell(StopReport& report, const NoticeView& notice) {
  using dune::session::NoticeKind;
  switch (notice.kind) {
  case NoticeKind::kThreadBorn:
    return say(report, fmt::format("[New LWP {}]", notice.value));
  case NoticeKind::kThreadExited:
    return say(report, fmt::format("[LWP {} exited]", notice.value));
  case NoticeKind::kForked:
    return say(report, fmt::format("[Detaching after fork from child process {}]", notice.value));
  case NoticeKind::kSignal:
    if (notice.value < signals.size())
      say(report, fmt::format("\nProgram received signal {}, {}.",
                              signal_name(static_cast<int>(notice.value)),
                              signal_description(static_cast<int>(notice.value))));
    return;
  case NoticeKind::kNone:
  case NoticeKind::kExiting:
    return;
  }
}

Checked<StopReport> Debugger::resume(const ContinueOptions& options) {
  if (!impl_->inferior)
    return not_running();
  ResumePlan plan;
  if (options.signal) {
    plan.thread = impl_->thread;
    plan.deliver_signal = *options.signal;
    impl_->pending_signal = 0;
  }
  return impl_->run_until_stop(plan, nullptr);
}

Checked<StopReport> Debugger::step(const StepRequest& request) {
  if (!impl_->inferior)
    return not_running();
  auto hidden = impl_->hidden_inlined.find(impl_->thread);
  Checked<std::unique_ptr<Stepper>> stepper = Stepper::begin(
      {*impl_->inferior, impl_->modules, impl_->names, impl_->unwinder, impl_->escapes,
       impl_->settings.step_stops_without_lines},
      impl_->thread, request, hidden == impl_->hidden_inlined.end() ? 0 : hidden->second);
  if (!stepper)
    return stepper.error();
  return impl_->run_until_stop({}, std::move(*stepper));
}

Checked<StopReport> Debugger::advance(const std::string& location, ReachedIn where) {
  if (!impl_->inferior)
    return not_running();
  Linespec found = resolve(location);
  if (found.places.empty())
    return found.problem;
  StepRequest request;
  request.kind = StepKind::kAdvance;
  request.frame = impl_->level;
  request.only_in_frame = where == ReachedIn::kSelectedFrame;
  for (const ResolvedPlace& place : found.places)
    request.places.push_back(place.address);
  return step(request);
}

Checked<StopReport> Debugger::Impl::run_until_stop(ResumePlan first,
                                                   std::unique_ptr<Stepper> stepper) {
  StopReport report;
  report.pid = inferior->pid();
  const uint32_t before = thread;
  if (stepper && !stepper->message().empty())
    say(report, stepper->message());
  ResumePlan plan = stepper ? stepper->plan() : first;
  if (pending_signal != 0) {
    const int signal = std::exchange(pending_signal, 0);
    if (signals[static_cast<size_t>(signal)].pass && plan.deliver_signal == 0 &&
        (plan.thread == 0 || plan.thread == signal_thread)) {
      plan.thread = signal_thread;
      plan.deliver_signal = signal;
    }
  }

  uint32_t stopped = thread;
  while (!stepper || !stepper->done()) {
    forget_stop();
    Checked<void> resumed = inferior->resume(plan);
    if (!resumed)
      return resumed.error();
    Checked<Event> event =
        inferior->wait(interrupted, [&](const NoticeView& notice) { tell(report, notice); });
    if (!event)
      return event.error();
    forget_stop();
    stopped = event->thread;
    Checked<bool> users = handle(*event, stepper.get(), report);
    if (!users)
      return users.error();
    if (event->kind == Event::Kind::kExeced && stepper) {
      stepper->forget_records(); // what it stepped through is no more
      stepper.reset();
    }
    if (!*users && event->interrupted) {
      report.why = StopWhy::kInterrupted;
      users = true;
    }
    if (*users) {
      if (!report.target_gone()) {
        finish_report(report, stopped, nullptr);
        report.thread_switched = stopped != before && before != 0;
      } else if (stepper) {
        stepper.reset(); // its records went with the target
      }
      if (report.target_gone())
        target_gone();
      return report;
    }
    if (stepper && event->kind == Event::Kind::kStopped && event->thread == stepper->thread()) {
      Checked<void> decided = stepper->halted();
      if (!decided)
        return decided.error();
    }
    plan = stepper ? stepper->plan() : ResumePlan{};
    if (event->kind == Event::Kind::kExeced) {
      plan.thread = thread;
      plan.arrives = true;
    }
  }
  report.why = stepper->kind() == StepKind::kAdvance ? StopWhy::kReached : StopWhy::kStepDone;
  finish_report(report, stepper->thread(), stepper.get());
  return report;
}

Checked<bool> Debugger::Impl::handle(const Event& event, Stepper* stepper, StopReport& report) {
  switch (event.kind) {
  case Event::Kind::kExited: {
    report.why = StopWhy::kExited;
    report.status = event.status;
    if (event.status.kind == keeper::ExitStatus::Kind::kSignaled && event.status.value == SIGSYS)
      tell_confinement(report);
    if (event.status.kind == keeper::ExitStatus::Kind::kExited) {
      exit_code = event.status.value;
      values.convenience.insert_or_assign(
          "_exitcode",
          expr::Value::integer(symbols::BuiltinTypes::get().int_type, event.status.value));
    }
    return true;
  }
  case Event::Kind::kLost:
    report.why = StopWhy::kLost;
    report.text = event.text;
    return true;
  case Event::Kind::kExeced: {
    Checked<void> done = handle_exec(event, report);
    if (!done)
      return done.error();
    return false;
  }
  case Event::Kind::kStopped:
    return handle_stopped(event, stepper, report);
  }
  return false;
}

Checked<bool> Debugger::Impl::handle_stopped(const Event& event, Stepper* stepper,
                                             StopReport& report) {
  switch (event.reason) {
  case StopReason::kBreakpoint:
  case StopReason::kWatchpoint:
    return handle_records(event, report);
  case StopReason::kSignal:
    report.why = StopWhy::kSignal;
    report.signal = event.signal;
    pending_signal = event.signal;
    signal_thread = event.thread;
    return true;
  case StopReason::kRequested:
    report.why = event.signal ? StopWhy::kSignal : StopWhy::kInterrupted;
    report.signal = event.signal;
    return true;
  case StopReason::kStep:
    if (stepper)
      return false;
    report.why = StopWhy::kStepDone;
    return true;
  case StopReason::kNone:
  case StopReason::kExec:
  case StopReason::kExecFailed:
  case StopReason::kDying:
  case StopReason::kSyscall:
    return false;
  }
  return false;
}

// What one part of an object had before is not what the object had.
WatchChange Debugger::Impl::take_change(Breakpoint& b, const dune::session::WatchedValue& value) {
  WatchChange change{b.number, b.type, b.watched(), {}, {}, true};
  change.new_value = breakpoints.format_watched(b, value.after);
  const std::string last = std::exchange(b.watch_value, change.new_value);
  if (b.type == BreakpointType::kReadWatch)
    return change;
  change.old_value = b.locations.size() == 1 ? breakpoints.format_watched(b, value.before) : last;
  change.changed = b.type == BreakpointType::kWatch || change.old_value != change.new_value;
  return change;
}

// Which of the records that fired are the user's, and hold.
bool Debugger::Impl::handle_records(const Event& event, StopReport& report) {
  const uint32_t selected = std::exchange(thread, event.thread);
  const unsigned selected_level = std::exchange(level, 0);
  selection_changed();
  const auto context_of_thread = [this]() -> expr::Context& { return selected_context(); };

  bool users = false;
  std::vector<unsigned> seen;
  for (size_t i = 0; i < event.fired.size(); ++i) {
    const RecordId id = event.fired[i];
    if (modules.is_linker_record(id)) {
      handle_linker(report);
      continue;
    }
    if (Breakpoint* watch = breakpoints.find_scope_record(id)) {
      users |= handle_scope(*watch, report);
      continue;
    }
    std::optional<BreakpointTable::Hit> hit = breakpoints.find_record(id);
    if (!hit)
      continue;
    Breakpoint& b = *hit->breakpoint;
    if (std::find(seen.begin(), seen.end(), b.number) != seen.end()) {
      breakpoints.count_no_hit(*hit); // another part of what is watched, accessed with it
      continue;
    }
    seen.push_back(b.number);
    std::optional<WatchChange> change;
    if (b.is_watch())
      change = take_change(b, event.watched[i]); // seen by ddbg even if the user is not to
    if (!breakpoints.accept(*hit, context_of_thread))
      continue;
    users = true;
    if (report.why != StopWhy::kWatchScope)
      report.why = b.is_watch() ? StopWhy::kWatchpoint : StopWhy::kBreakpoint;
    report.breakpoints.push_back(b.number);
    if (change)
      report.watches.push_back(std::move(*change));
  }
  std::sort(report.breakpoints.begin(), report.breakpoints.end());
  std::sort(report.watches.begin(), report.watches.end(),
            [](const WatchChange& a, const WatchChange& b) { return a.number < b.number; });
  if (!users) {
    thread = selected;
    level = selected_level;
    selection_changed();
  }
  return users;
}

// The dynamic linker has changed its list: sites and breakpoints are set before the new code runs.
void Debugger::Impl::handle_linker(StopReport& report) {
  Checked<Modules::Change> change = modules.refresh(*inferior);
  if (!change) {
    say(report, "warning: " + change.error().message);
    return;
  }
  for (std::string& warning : change->warnings)
    say(report, "warning: " + warning);
  if (!change->any)
    return;
  unwinder.forget_cached();
  forget_stop();
  for (std::string& problem : breakpoints.reset())
    say(report, "warning: " + problem);
}

bool Debugger::Impl::handle_scope(Breakpoint& watch, StopReport& report) {
  report.why = StopWhy::kWatchScope;
  report.watches.push_back(
      {watch.number, watch.type, watch.watched(), watch.watch_value, {}, true});
  report.temporary_deleted.push_back(watch.number);
  return static_cast<bool>(breakpoints.remove(watch.number));
}

Checked<void> Debugger::Impl::handle_exec(const Event& event, StopReport& report) {
  breakpoints.target_execed(event.last_counts);
  hidden_inlined.clear();
  Checked<Modules::Change> started = modules.start(*inferior, {});
  if (!started)
    return started.error();
  program = modules.program_path();
  default_line = {};
  say(report,
      "process " + std::to_string(inferior->pid()) + " is executing new program: " + program);
  for (size_t i = 1; i < signals.size(); ++i)
    inferior->set_signal_policy(static_cast<int>(i), signals[i].policy());
  unwinder.forget_cached();
  forget_stop();
  for (std::string& problem : breakpoints.reset())
    say(report, std::move(problem));
  return {};
}

// Selection, and how much of the location is to be shown.
void Debugger::Impl::finish_report(StopReport& report, uint32_t stopped, Stepper* stepper) {
  tell_suspension(report);
  thread = stopped;
  level = 0;
  forget_stop();
  // Inlined bodies that begin here are not entered yet, unless the user asked for a stop in one.
  hidden_inlined.erase(stopped);
  Stack* stack = stack_of(stopped);
  if (stack) {
    unsigned hidden = stepper ? stepper->hidden_inlined() : stack->enterable_inlined();
    for (const unsigned number : report.breakpoints)
      if (const Breakpoint* b = breakpoints.find(number)) {
        if (!b->is_watch() && is_position(b->spec))
          hidden = 0; // as gdb: it was set in the innermost body
        const auto& bodies = stack->innermost_name().inlined;
        for (unsigned i = 0; i < hidden && i < bodies.size(); ++i)
          if (bodies[i].function == b->spec)
            hidden = i;
      }
    hidden_inlined[stopped] = hidden;
    stack->hide_inlined(hidden);
    if (const Frame* frame = stack->frame(0)) {
      report.at_line_start = !frame->show_address;
      if (frame->source)
        default_line = frame->source;
    }
  }
  if (stepper) {
    report.source_line_only = stepper->same_function();
    if (stepper->has_return_value()) {
      report.why = StopWhy::kFinished;
      report.returned = returned_value(stepper->finished_pc());
    }
  }
  report.thread = stopped;
  for (const unsigned number : report.breakpoints)
    if (Breakpoint* b = breakpoints.find(number)) {
      report.commands.insert(report.commands.end(), b->commands.begin(), b->commands.end());
      if (breakpoints.dispose(*b))
        report.temporary_deleted.push_back(number);
    }
}

// The System V ABI's registers for a return value: rax, rdx, xmm0, xmm1; a large object's address
// in rax.
std::optional<ReturnedValue> Debugger::Impl::returned_value(TargetAddr finished_pc) {
  const symbols::LoadedModule* module = modules.map().find(finished_pc);
  symbols::VariableTable* table = module ? tables.of(module->module) : nullptr;
  if (!table)
    return std::nullopt;
  const auto& scopes = table->frames_at(module->to_link(finished_pc));
  if (scopes.empty())
    return std::nullopt;
  const symbols::FunctionScope& function = scopes.back(); // the outermost is the real one
  const symbols::TypeRef type = table->types().type_of(function.die);
  const symbols::TypeRef plain = type->stripped();
  if (plain->kind() == symbols::TypeKind::kVoid)
    return std::nullopt;
  expr::FrameContext& frame = selected_context();
  constexpr int kRax = 0, kXmm0 = 17, kSt0 = 33; // DWARF numbers
  expr::Value value = expr::Value::void_value();
  const uint64_t size = plain->size();
  if (plain->is_record() || plain->kind() == symbols::TypeKind::kArray || size == 0) {
    // Classifying small records is the ABI's longest chapter; those in memory are plain.
    const std::optional<uint64_t> rax = frame.read_register(kRax);
    if (size <= 16 || !rax)
      return std::nullopt;
    value = expr::Value::in_memory(type, TargetAddr(*rax));
  } else {
    if (size > 16)
      return std::nullopt; // in no register
    std::vector<std::byte> bytes(size);
    bool known;
    if (plain->kind() == symbols::TypeKind::kFloat) {
      known = frame.read_wide_register(size > 8 ? kSt0 : kXmm0, bytes);
    } else if (size <= 8) {
      const std::optional<uint64_t> rax = frame.read_register(kRax);
      known = rax.has_value();
      if (known)
        std::memcpy(bytes.data(), &*rax, bytes.size());
    } else {
      known = false;
    }
    if (!known)
      return std::nullopt;
    value = expr::Value::of(type, std::move(bytes));
  }
  Checked<std::string> shown = expr::format_value(value, frame);
  if (!shown)
    return std::nullopt;
  ReturnedValue out{function.name, type->name(), *shown, {}, {}};
  for (const std::byte b : value.bytes)
    out.bytes.push_back(static_cast<uint8_t>(b));
  out.history_value = std::move(value);
  return out;
}

} // namespace ddbg::engine
