// How a stepper makes its thread move: ranges and steps in the agent, records to run to.
#include "disasm/decode.h"
#include "dtrace-lite/engine/stepper.h"

namespace ddbg::engine {

using dune::session::Action;

namespace {

// The calls of a longer range are found by halting at each callee.
constexpr uint64_t kMaxDecodedRange = 4096;

} // namespace

// As gdb: a step that finds its thread in a system call goes on where that returns, and for stepi
// the return is a step of its own.
bool Stepper::is_in_call() { return view().status == ThreadStatus::kBlocked; }

Checked<void> Stepper::go_range(TargetRange range) {
  if (is_in_call())
    return wait_at(pc(), sp(), false);
  plan_ = {};
  plan_.thread = thread_;
  plan_.action = Action::kRange;
  plan_.range = range;
  plan_.step_over_calls = over_calls();
  return plan_.step_over_calls ? set_return_records(range) : Checked<void>();
}

Checked<void> Stepper::go_steps(uint64_t count) {
  if (is_in_call())
    return wait_at(pc(), sp(),
                   request_.kind == StepKind::kStepi || request_.kind == StepKind::kNexti);
  plan_ = {};
  plan_.thread = thread_;
  plan_.action = Action::kStep;
  plan_.step_count = count;
  return {};
}

Checked<void> Stepper::go_next_instruction() {
  std::array<uint8_t, dune::disasm::kMaxInstructionLength> bytes{};
  size_t length = bytes.size();
  // The last instruction of a mapping has fewer bytes behind it.
  while (length > 0 && !env_.inferior.read_memory(pc(), std::span(bytes.data(), length)))
    --length;
  auto instruction = dune::disasm::decode(std::span(bytes.data(), length), pc());
  if (instruction && instruction->is_call())
    return wait_at(instruction->end(), sp(), true);
  return go_steps(1);
}

Checked<void> Stepper::wait_at(TargetAddr address, uint64_t min_sp, bool ends_step) {
  RecordSpec spec = own_record();
  spec.min_stack_pointer = min_sp;
  Checked<std::vector<RecordId>> records = add_with_escapes({{address, spec}});
  if (!records)
    return records.error();
  waits_.push_back({records->front(), address, min_sp, ends_step});
  run();
  return {};
}

void Stepper::run() {
  plan_ = {};
  plan_.thread = thread_;
}

// Sites where the calls of the range return, so that the agent can run each at full speed. They do
// nothing by themselves.
Checked<void> Stepper::set_return_records(TargetRange range) {
  if (return_range_ == range)
    return {};
  drop_return_records();
  if (range.size() > kMaxDecodedRange)
    return {};
  std::vector<uint8_t> code(range.size());
  if (!env_.inferior.read_memory(range.begin, code))
    return {};
  RecordSpec spec = own_record();
  spec.park_only = true;
  std::vector<std::pair<TargetAddr, RecordSpec>> wanted;
  for (const auto& i : dune::disasm::decode_range(code, range.begin).instructions)
    if (i.is_call())
      wanted.emplace_back(i.end(), spec);
  if (wanted.empty())
    return {};
  Checked<std::vector<RecordId>> records = add_with_escapes(std::move(wanted));
  if (!records)
    return {}; // only slower: each call halts at its first instruction
  return_records_ = std::move(*records);
  return_range_ = range;
  return {};
}

void Stepper::drop_waits() {
  for (const Wait& wait : waits_)
    (void)env_.inferior.remove_record(wait.record);
  waits_.clear();
}

void Stepper::drop_landing() {
  if (landing_)
    (void)env_.inferior.remove_record(landing_->record);
  landing_.reset();
}

RecordSpec Stepper::own_record() const {
  RecordSpec spec;
  spec.internal = true;
  spec.only_tid = tid_;
  return spec;
}

void Stepper::drop_return_records() {
  if (!return_records_.empty())
    (void)env_.inferior.remove_records(return_records_);
  return_records_.clear();
  return_range_ = {};
}

// Where a PLT entry leads: what the dynamic linker has put into its slot, or will put there once
// the entry is used for the first time. The linker's resolver need not be followed.
std::optional<TargetAddr> Stepper::plt_target(TargetAddr a) {
  const symbols::ModuleMap& map = env_.modules.map();
  const auto in_plt = [](const symbols::LoadedModule* module, TargetAddr at) {
    const symbols::Section* section =
        module ? module->module->elf().section_at(module->to_link(at)) : nullptr;
    return section && section->name.starts_with(".plt");
  };
  const symbols::LoadedModule* module = map.find(a);
  if (!in_plt(module, a))
    return std::nullopt;
  const auto content = [&](TargetAddr slot) {
    return symbols::read_value<TargetAddr>(memory_reader(env_.inferior), slot);
  };
  std::array<uint8_t, 16> entry; // the size of one, perhaps with an endbr64 before its jump
  if (!env_.inferior.read_memory(a, entry))
    return std::nullopt;
  for (const auto& i : dune::disasm::decode_range(entry, a).instructions)
    if (i.flow == dune::disasm::Flow::kIndirectJump && i.rip_operand) {
      const std::optional<TargetAddr> bound = content(*i.rip_operand);
      if (bound && *bound && !in_plt(map.find(*bound), *bound)) // else it leads back: not bound yet
        return bound;
      break;
    }
  std::optional<symbols::Symbol> symbol = module->module->symbols().function_at(module->to_link(a));
  if (!symbol || !symbol->is_plt)
    return std::nullopt;
  for (const symbols::LoadedModule& other : map.modules()) {
    if (other.is_linker) // it has copies of some of the C library's functions, for itself
      continue;
    for (const symbols::Symbol& found : other.module->symbols().find(symbol->linkage_name)) {
      if (!found.is_code)
        continue;
      if (!found.is_ifunc)
        return other.to_target(found.address);
      if (std::optional<dune::LinkAddr> slot = other.module->symbols().ifunc_slot(found.address))
        return content(other.to_target(*slot));
    }
  }
  return std::nullopt;
}

} // namespace ddbg::engine
