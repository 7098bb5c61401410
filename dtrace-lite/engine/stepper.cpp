#include "dtrace-lite/engine/stepper.h"

#include <algorithm>
#include <utility>

namespace ddbg::engine {

using dune::session::Action;

Stepper::Stepper(StepEnvironment environment, uint32_t thread, const StepRequest& request,
                 unsigned hidden_inlined)
    : env_(environment), thread_(thread), tid_(view().tid), request_(request), left_(request.count),
      hidden_(hidden_inlined) {}

Stepper::~Stepper() {
  drop_waits();
  drop_landing();
  drop_return_records();
  std::vector<RecordId> records;
  for (const Escape& escape : escapes_)
    records.push_back(escape.record);
  if (!records.empty())
    (void)env_.inferior.remove_records(records);
}

void Stepper::forget_records() {
  waits_.clear();
  landing_.reset();
  return_records_.clear();
  escapes_.clear();
}

Checked<std::unique_ptr<Stepper>> Stepper::begin(StepEnvironment environment, uint32_t thread,
                                                 const StepRequest& request,
                                                 unsigned hidden_inlined) {
  std::unique_ptr<Stepper> stepper(new Stepper(environment, thread, request, hidden_inlined));
  const ThreadView* view = environment.inferior.thread(thread);
  if (!view)
    return Diagnostic{"No thread selected.", {}, {}};
  Checked<void> prepared = stepper->prepare();
  if (!prepared)
    return prepared.error();
  return stepper;
}

bool Stepper::over_calls() const {
  return request_.kind != StepKind::kStep && request_.kind != StepKind::kStepi;
}

const ThreadView& Stepper::view() {
  static const ThreadView none;
  const ThreadView* thread = env_.inferior.thread(thread_);
  return thread ? *thread : none;
}
TargetAddr Stepper::pc() { return TargetAddr(view().registers.rip); }
uint64_t Stepper::sp() { return view().registers.rsp; }

Stack Stepper::make_stack() {
  return Stack(env_.names, env_.unwinder, known_registers(view()), true);
}

std::optional<symbols::LineSpan> Stepper::line_at(TargetAddr a, TargetRange* range) {
  const symbols::LoadedModule* module = env_.modules.map().find(a);
  if (!module)
    return std::nullopt;
  std::optional<symbols::LineSpan> span = module->module->lines().find(module->to_link(a));
  if (!span || span->line == 0)
    return std::nullopt;
  *range = {module->to_target(span->range.begin), module->to_target(span->range.end)};
  return span;
}

Checked<void> Stepper::prepare() {
  start_function_ = make_stack().innermost_name().function_entry;
  switch (request_.kind) {
  case StepKind::kStepi:
  case StepKind::kNexti:
    return prepare_instruction();
  case StepKind::kFinish:
    return prepare_finish();
  case StepKind::kAdvance:
    return prepare_advance();
  case StepKind::kStep:
  case StepKind::kNext:
  case StepKind::kUntil:
    return prepare_line();
  }
  return {};
}

// After these gdb shows the innermost body, wherever it begins, so nothing is hidden any more.
Checked<void> Stepper::prepare_instruction() {
  Stack stack = make_stack();
  stack.hide_inlined(std::exchange(hidden_, 0));
  const Frame* frame = stack.frame(0);
  origin_.frame = frame ? frame->id : FrameId();
  origin_.physical = stack.physical_id();
  if (request_.kind == StepKind::kNexti)
    return go_next_instruction();
  // The last instruction is a step of its own: whether it entered or left a function is asked.
  return go_steps(left_ > 1 ? left_ - 1 : 1);
}

Checked<void> Stepper::prepare_line() {
  // To step at the beginning of an inlined body is to go down into it, as far as anyone can see.
  while (request_.kind == StepKind::kStep && hidden_ > 0) {
    --hidden_;
    if (--left_ == 0) {
      origin_ = {};
      done_ = true;
      return {};
    }
  }
  Stack stack = make_stack();
  stack.hide_inlined(hidden_);
  const Frame* frame = stack.frame(0);
  if (!frame)
    return Diagnostic{"The program is not being run.", {}, {}};
  origin_.frame = frame->id;
  origin_.physical = stack.physical_id();
  origin_.line = frame->source;
  if (line_at(pc(), &origin_.range)) {
    if (request_.kind == StepKind::kUntil && stack.innermost_name().function_entry &&
        stack.innermost_name().function_entry < origin_.range.begin)
      origin_.range.begin = stack.innermost_name().function_entry;
    return go_range(origin_.range);
  }
  if (env_.stop_without_lines && request_.kind == StepKind::kStep) {
    origin_.range = {};
    return go_steps(1);
  }
  const symbols::LoadedModule* module = env_.modules.map().find(pc());
  std::optional<symbols::Function> function =
      module ? module->module->functions().at(module->to_link(pc())) : std::nullopt;
  if (!function || function->name.empty()) // known from its unwinding alone
    return Diagnostic{"Cannot find bounds of current function", "Try stepi.", {}};
  origin_.range = {module->to_target(function->entry), pc() + 1};
  for (const dune::LinkRange& range : function->ranges)
    if (range.contains(module->to_link(pc())))
      origin_.range = {module->to_target(range.begin), module->to_target(range.end)};
  origin_.line = {};
  message_ = "Single stepping until exit from function " + function->name +
             ",\nwhich has no line number information.";
  return go_range(origin_.range);
}

unsigned Stepper::physical_index(Stack& stack, unsigned level) {
  unsigned index = 0;
  for (unsigned inner = 0; inner < level; ++inner)
    if (const Frame* frame = stack.frame(inner))
      index += !frame->is_inlined;
  return index;
}

Checked<void> Stepper::prepare_finish() {
  Stack stack = make_stack();
  stack.hide_inlined(hidden_);
  const Frame* selected = stack.frame(request_.frame);
  if (!selected || !stack.frame(request_.frame + 1))
    return Diagnostic{"\"finish\" not meaningful in the outermost frame.", {}, {}};
  const Frame frame = *stack.frame(request_.frame);
  const unsigned index = physical_index(stack, request_.frame);
  finished_pc_ = frame.lookup_pc;
  if (frame.is_inlined) {
    const FrameNames::Name& name = env_.names.at(frame.lookup_pc);
    for (const FrameNames::Name::Inlined& body : name.inlined)
      if (body.entry == frame.id.function)
        finish_ranges_ = body.ranges;
    origin_.physical = {frame.id.cfa, name.function_entry, 0};
    if (index == 0)
      return decide_inlined_finish();
    return wait_at(frame.pc, stack.physical(index - 1)->cfa.value, false);
  }
  has_return_value_ = true;
  home_ = stack.physical_id(index + 1);
  return wait_at(stack.physical(index + 1)->pc(), stack.physical(index)->cfa.value, true);
}

Checked<void> Stepper::prepare_advance() {
  Stack stack = make_stack();
  stack.hide_inlined(hidden_);
  const unsigned index = physical_index(stack, request_.frame);
  home_ = stack.physical_id(index); // as gdb: a jump back into the frame itself ends it
  for (const TargetAddr place : request_.places) {
    Checked<void> set = wait_at(place, 0, true);
    if (!set)
      return set;
    if (request_.only_in_frame)
      waits_.back().frame = stack.physical_id(index);
  }
  if (const symbols::UnwindFrame* caller = stack.physical(index + 1))
    return wait_at(caller->pc(), stack.physical(index)->cfa.value, true);
  return {};
}

Checked<void> Stepper::halted() {
  if (done_)
    return {};
  if (std::optional<Checked<void>> decided = halted_at_escape())
    return std::move(*decided);
  if (!waits_.empty()) {
    auto arrived = std::find_if(waits_.begin(), waits_.end(), [&](const Wait& wait) {
      return wait.address == pc() && sp() >= wait.min_sp &&
             (!wait.frame || make_stack().physical_id() == *wait.frame);
    });
    if (arrived == waits_.end())
      return {}; // halted for something else on the way: run on
    const bool ends_step = arrived->ends_step;
    drop_waits();
    drop_landing();
    if (ends_step)
      return one_done();
  }
  return decide();
}

Checked<void> Stepper::decide() {
  switch (request_.kind) {
  case StepKind::kStepi:
  case StepKind::kNexti:
    return decide_instructions();
  case StepKind::kFinish:
    return decide_inlined_finish();
  default:
    break;
  }
  if (origin_.range.empty()) // step-mode: one instruction outside of known lines
    return one_done();
  Stack stack = make_stack();
  const symbols::UnwindFrame* innermost = stack.physical(0);
  if (!innermost)
    return one_done();
  const bool same_frame = stack.physical_id() == origin_.physical;
  if (origin_.range.contains(pc()) && same_frame)
    return go_range(plan_.action == Action::kRange && plan_.range.contains(pc()) ? plan_.range
                                                                                 : origin_.range);
  if (innermost->is_signal_trampoline)
    return go_steps(1); // on its way back to where the signal came
  if (!same_frame) {
    if (std::optional<Checked<void>> decided = decide_subroutine(stack))
      return std::move(*decided);
  }
  return decide_line(stack);
}

Checked<void> Stepper::decide_instructions() {
  if (request_.kind == StepKind::kStepi) {
    left_ -= std::min(left_, view().steps_taken);
    if (left_ > 0)
      return prepare();
    left_ = 1;
    return one_done();
  }
  // A halt in the middle of a step over a call has left waits; here the instruction is done.
  if (plan_.action == Action::kStep && view().steps_taken == 0)
    return {};
  return one_done();
}

// A call, or a handler of a signal, has begun since the last halt. Without unwinding where the
// return address on the stack says it: at a function's first instruction it always does.
std::optional<Checked<void>> Stepper::decide_subroutine(Stack& stack) {
  const symbols::UnwindFrame* caller = stack.physical(1);
  TargetAddr back;
  uint64_t back_sp = 0;
  bool handler = false;
  bool halted_within = false; // deep in the call, for something that did not end the step
  uint64_t top = 0;
  const bool have_top = static_cast<bool>(env_.inferior.read_memory(
      TargetAddr(sp()), std::span(reinterpret_cast<uint8_t*>(&top), sizeof top)));
  if (have_top && sp() < origin_.physical.cfa.value && TargetAddr(top) > origin_.range.begin &&
      TargetAddr(top) <= origin_.range.end) {
    back = TargetAddr(top);
    back_sp = sp() + 8;
  } else if (caller && caller->is_signal_trampoline && stack.physical(2) &&
             stack.physical(2)->cfa == origin_.physical.cfa) {
    back = caller->pc();
    back_sp = stack.physical(0)->cfa.value;
    handler = true;
  } else if (std::optional<unsigned> index = sp() < origin_.physical.cfa.value
                                                 ? stack.find_physical(origin_.physical)
                                                 : std::nullopt;
             index && *index > 0) {
    back = stack.physical(*index)->pc();
    back_sp = stack.physical(*index - 1)->cfa.value;
    halted_within = *index > 1;
  } else {
    return std::nullopt;
  }

  if (halted_within || (over_calls() && !handler))
    return wait_at(back, back_sp, false);
  TargetAddr entry = pc();
  if (std::optional<TargetAddr> target = plt_target(pc()))
    entry = *target;
  return enter_function(entry, back, back_sp);
}

Checked<void> Stepper::enter_function(TargetAddr entry, TargetAddr back, uint64_t back_sp) {
  const symbols::LoadedModule* module = env_.modules.map().find(entry);
  TargetRange range;
  if (module && line_at(entry, &range)) {
    const std::optional<symbols::Function> function =
        module->module->functions().at(module->to_link(entry));
    const dune::LinkAddr begin = function ? function->entry : module->to_link(entry);
    const TargetAddr body = module->to_target(module->module->lines().after_prologue(begin));
    if (body == pc())
      return one_done();
    return wait_at(body, 0, true);
  }
  if (env_.stop_without_lines && request_.kind == StepKind::kStep)
    return one_done();
  return wait_at(back, back_sp, false);
}

// The rules of gdb for bodies that were inlined into the function that is being stepped.
std::optional<Checked<void>> Stepper::decide_inlined(Stack& stack) {
  if (stack.physical_id() != origin_.physical)
    return std::nullopt;
  const unsigned enterable = stack.enterable_inlined();
  TargetRange here;
  if (!line_at(pc(), &here))
    return std::nullopt;
  if (enterable > 0) {
    Stack outside = make_stack();
    outside.hide_inlined(enterable);
    const Frame* frame = outside.frame(0);
    if (frame && frame->id == origin_.frame) {
      const bool same_line = frame->source == origin_.line;
      if (request_.kind == StepKind::kStep)
        return one_done(same_line ? 1 : 0);
      return same_line ? go_range(here) : one_done();
    }
  }
  const Frame* frame = stack.frame(0);
  if (!frame || frame->id == origin_.frame || !frame->is_inlined)
    return std::nullopt;
  // Inside a body that was inlined into the one where the step began?
  bool within = false;
  for (unsigned level = 1; const Frame* outer = stack.frame(level); ++level) {
    within |= outer->id == origin_.frame;
    if (within || !outer->is_inlined)
      break;
  }
  if (!within)
    return std::nullopt;
  if (over_calls())
    return go_range(here);
  return one_done();
}

Checked<void> Stepper::decide_line(Stack& stack) {
  if (std::optional<Checked<void>> decided = decide_inlined(stack))
    return std::move(*decided);
  TargetRange range;
  std::optional<symbols::LineSpan> span = line_at(pc(), &range);
  if (!span)
    return one_done();
  const SourceLine line{span->file, span->line};
  const Frame* frame = stack.frame(0);
  if (pc() == range.begin && line != origin_.line) {
    if (span->is_statement)
      return one_done();
    if (frame && frame->id == origin_.frame)
      return go_range(
          range); // not a place to stop; the line being left stays the one compared with
  }
  // In the middle of a line, most often back from a call: go on to the beginning of one.
  if (frame)
    origin_.frame = frame->id;
  origin_.physical = stack.physical_id();
  origin_.line = line;
  origin_.range = range;
  return go_range(range);
}

// Steps over the calls of an inlined body until the thread is outside of it.
Checked<void> Stepper::decide_inlined_finish() {
  Stack stack = make_stack();
  if (stack.physical_id() != origin_.physical) {
    const symbols::UnwindFrame* caller = stack.physical(1);
    if (caller && caller->cfa == origin_.physical.cfa)
      return wait_at(caller->pc(), stack.physical(0)->cfa.value, false);
    return one_done(); // left by a return or an exception
  }
  for (const TargetRange& range : finish_ranges_)
    if (range.contains(pc()))
      return go_range(range);
  return one_done();
}

// As gdb: the thread stands before the bodies that begin here, except after steps of instructions.
Checked<void> Stepper::one_done(unsigned bodies_entered) {
  drop_waits();
  const bool by_instruction =
      request_.kind == StepKind::kStepi || request_.kind == StepKind::kNexti;
  hidden_ = by_instruction ? 0 : make_stack().enterable_inlined() - bodies_entered;
  if (--left_ > 0 && request_.kind != StepKind::kFinish && request_.kind != StepKind::kAdvance)
    return prepare();
  drop_return_records();
  done_ = true;
  return {};
}

bool Stepper::same_function() {
  if (request_.kind == StepKind::kFinish || request_.kind == StepKind::kAdvance)
    return false;
  Stack stack = make_stack();
  if (stack.innermost_name().function_entry != start_function_)
    return false;
  stack.hide_inlined(hidden_);
  const Frame* frame = stack.frame(0);
  return frame && frame->id == origin_.frame;
}

} // namespace ddbg::engine
