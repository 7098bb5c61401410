#include "dtrace-lite/engine/frames.h"

namespace ddbg::engine {

const FrameNames::Name& FrameNames::at(TargetAddr lookup_pc) {
  if (generation_ != modules_.generation()) {
    names_.clear();
    generation_ = modules_.generation();
  }
  auto [slot, is_new] = names_.try_emplace(lookup_pc.value);
  Name& name = slot->second;
  if (!is_new)
    return name;
  const symbols::LoadedModule* module = modules_.find(lookup_pc);
  if (!module)
    return name;
  const dune::LinkAddr link = module->to_link(lookup_pc);
  name.module = module->path;
  if (std::optional<symbols::Function> function = module->module->functions().at(link)) {
    name.function = function->name;
    name.function_entry = module->to_target(function->entry);
    name.die = function->die;
  }
  if (std::optional<symbols::LineSpan> span = module->module->lines().find(link);
      span && span->line != 0) {
    name.source = {span->file, span->line};
    if (span->is_statement)
      name.line_begin = module->to_target(span->range.begin);
  }
  for (const symbols::InlinedCall& call : module->module->functions().inlined_at(link)) {
    Name::Inlined inlined{call.function,
                          call.die,
                          {call.call_file, call.call_line},
                          module->to_target(call.entry),
                          {}};
    for (const dune::LinkRange& range : call.ranges)
      inlined.ranges.push_back({module->to_target(range.begin), module->to_target(range.end)});
    name.inlined.push_back(std::move(inlined));
  }
  return name;
}

symbols::KnownRegisters known_registers(const ThreadView& thread) {
  symbols::KnownRegisters known;
  for (size_t i = 0; i < dune::kRegisterCount; ++i) {
    const auto reg = static_cast<dune::Reg>(i);
    if (thread.status == ThreadStatus::kParked || (thread.known & (1u << i)))
      known.set(reg, dune::register_at(thread.registers, reg));
  }
  return known;
}

Stack::Stack(FrameNames& names, symbols::Unwinder& unwinder,
             const symbols::KnownRegisters& innermost, bool past_main)
    : names_(names), unwinder_(unwinder), past_main_(past_main) {
  symbols::UnwindFrame first;
  first.registers = innermost;
  physical_.push_back(first);
  // A thread that runs and could not be asked has no stack at all.
  complete_ = !innermost.known(dune::Reg::rip);
  if (complete_)
    physical_.clear();
}

// One more physical frame. False: there is none.
bool Stack::extend() {
  if (complete_)
    return false;
  symbols::Unwinder::Step step = unwinder_.up(physical_.back());
  end_ = step.end;
  if (step.end != symbols::UnwindEnd::kNone) {
    complete_ = true;
    return false;
  }
  physical_.push_back(step.caller);
  return true;
}

const symbols::UnwindFrame* Stack::physical(unsigned index) {
  // A frame's cfa is known once its caller has been asked for.
  while (physical_.size() <= index + 1 && extend()) {
  }
  return index < physical_.size() ? &physical_[index] : nullptr;
}

const FrameNames::Name& Stack::innermost_name() {
  return names_.at(physical_.empty() ? TargetAddr() : physical_[0].lookup_pc());
}

FrameId Stack::physical_id(unsigned index) {
  const symbols::UnwindFrame* frame = physical(index);
  if (!frame)
    return {};
  return {frame->cfa, names_.at(frame->lookup_pc()).function_entry, 0};
}

std::optional<unsigned> Stack::find_physical(const FrameId& id) {
  for (unsigned index = 0; const symbols::UnwindFrame* frame = physical(index); ++index)
    if (frame->cfa == id.cfa && physical_id(index) == id)
      return index;
  return std::nullopt;
}

// Turns the next physical frame into one frame for each inlined body and one for the function.
void Stack::name_next() {
  const unsigned index = static_cast<unsigned>(named_++);
  const symbols::UnwindFrame& physical = physical_[index];
  const FrameNames::Name& name = names_.at(physical.lookup_pc());
  const size_t bodies = name.inlined.size();
  SourceLine line = name.source;
  for (size_t i = 0; i <= bodies; ++i) {
    Frame frame;
    frame.pc = physical.pc();
    frame.lookup_pc = physical.lookup_pc();
    frame.registers = physical.registers;
    frame.pc_is_exact = physical.pc_is_exact;
    frame.is_signal_trampoline = physical.is_signal_trampoline;
    frame.module = name.module;
    frame.source = line;
    frame.is_inlined = i < bodies;
    frame.inline_index = static_cast<unsigned>(i);
    frame.is_innermost_physical = index == 0;
    frame.id.cfa = physical.cfa;
    frame.id.inline_depth = static_cast<unsigned>(bodies - i);
    if (frame.is_inlined) {
      const FrameNames::Name::Inlined& body = name.inlined[i];
      frame.function = body.function;
      frame.function_entry = frame.id.function = body.entry;
      frame.die = body.die;
      line = body.call;
    } else {
      frame.function = name.function;
      frame.function_entry = frame.id.function = name.function_entry;
      frame.die = name.die;
    }
    // As gdb: no address for the caller of an inlined body, else unless at the line's beginning.
    frame.show_address =
        i == 0 ? !frame.source || !physical.pc_is_exact || name.line_begin != physical.pc() : false;
    if (index == 0 && i < hidden_)
      continue;
    frame.level = static_cast<unsigned>(frames_.size());
    frames_.push_back(std::move(frame));
  }
  reached_main_ = !past_main_ && (name.function == "main" || name.function == "main.main");
}

const Frame* Stack::frame(unsigned level) {
  while (frames_.size() <= level) {
    if (reached_main_ || !physical(static_cast<unsigned>(named_)))
      return nullptr;
    name_next();
  }
  return &frames_[level];
}

std::vector<const Frame*> Stack::frames(unsigned limit) {
  unsigned count = 0;
  while (count < limit && frame(count))
    ++count;
  std::vector<const Frame*> all;
  for (unsigned i = 0; i < count; ++i)
    all.push_back(&frames_[i]);
  return all;
}

std::string Stack::why_it_ended() const {
  return !reached_main_ && complete_ && named_ >= physical_.size() ? symbols::describe(end_)
                                                                   : std::string();
}

void Stack::hide_inlined(unsigned count) {
  hidden_ = count;
  frames_.clear();
  named_ = 0;
  reached_main_ = false;
}

unsigned Stack::enterable_inlined() {
  if (physical_.empty() || !physical_[0].pc_is_exact)
    return 0;
  const TargetAddr pc = physical_[0].pc();
  unsigned count = 0;
  for (const FrameNames::Name::Inlined& body : innermost_name().inlined) {
    bool begins = body.entry == pc;
    for (const TargetRange& range : body.ranges)
      begins |= range.begin == pc;
    if (!begins)
      break;
    ++count;
  }
  return count;
}

} // namespace ddbg::engine
