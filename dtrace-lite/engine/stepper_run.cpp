// How a stepper makes its thread move: ranges and steps in the agent, records to run to.
#include "disasm/decode.h"
#include "dtrace-lite/engine/stepper.h"

namespace ddbg::engine {

using dune::session::Action;

namespace {

// The calls of a longer range are found by halting at each callee.
constexpr uint64_t kMaxDecodedRange = 4096;

} // namespace

Checked<void> Stepper::go_range(TargetRange range) {
  plan_ = {};
  plan_.thread = thread_;
  plan_.action = Action::kRange;
  plan_.range = range;
  plan_.step_over_calls = over_calls();
  return plan_.step_over_calls ? set_return_records(range) : Checked<void>();
}

Checked<void> Stepper::go_steps(uint64_t count) {
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
  RecordSpec spec;
  spec.internal = true;
  spec.only_tid = static_cast<uint32_t>(view().tid);
  spec.min_stack_pointer = min_sp;
  Checked<RecordId> record = env_.inferior.add_record(address, spec);
  if (!record)
    return record.error();
  waits_.push_back({*record, address, min_sp, ends_step});
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
  RecordSpec spec;
  spec.internal = true;
  spec.park_only = true;
  spec.only_tid = static_cast<uint32_t>(view().tid);
  std::vector<std::pair<TargetAddr, RecordSpec>> wanted;
  for (const auto& i : dune::disasm::decode_range(code, range.begin).instructions)
    if (i.is_call())
      wanted.emplace_back(i.end(), spec);
  if (wanted.empty())
    return {};
  Checked<std::vector<RecordId>> records = env_.inferior.add_records(wanted);
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

void Stepper::drop_return_records() {
  if (!return_records_.empty())
    (void)env_.inferior.remove_records(return_records_);
  return_records_.clear();
  return_range_ = {};
}

// Where a PLT entry leads, by its name: the dynamic linker's resolver need not be followed.
std::optional<TargetAddr> Stepper::plt_target(TargetAddr a) {
  const symbols::LoadedModule* module = env_.modules.map().find(a);
  if (!module)
    return std::nullopt;
  std::optional<symbols::Symbol> symbol = module->module->symbols().function_at(module->to_link(a));
  if (!symbol || !symbol->is_plt)
    return std::nullopt;
  for (const symbols::LoadedModule& other : env_.modules.map().modules())
    for (const symbols::Symbol& found : other.module->symbols().find(symbol->linkage_name))
      if (found.is_code && !found.is_ifunc)
        return other.to_target(found.address);
  return std::nullopt;
}

} // namespace ddbg::engine
