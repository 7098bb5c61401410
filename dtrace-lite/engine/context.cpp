#include "dtrace-lite/engine/context.h"

#include <algorithm>
#include <charconv>
#include <cstring>

namespace ddbg::engine {

namespace {

// DWARF register numbers (System V psABI figure 3.36).
constexpr int kDwarfRip = 16, kDwarfXmm0 = 17, kDwarfXmm15 = 32, kDwarfSt0 = 33, kDwarfSt7 = 40;
// The legacy area of an XSAVE image (Intel SDM volume 1, "Legacy Region of an XSAVE Area").
constexpr size_t kLegacySt0 = 32, kLegacyXmm0 = 160, kLegacyStride = 16;

// The modules that the dynamic linker knows, by bias, in load order: thread-local blocks are
// numbered by it.
std::vector<uint64_t> biases_in_load_order(const Modules& modules, Inferior& inferior) {
  std::vector<uint64_t> biases;
  const symbols::MemoryReader read = memory_reader(inferior);
  std::optional<symbols::LinkerHook> hook = modules.map().linker_hook(read);
  if (!hook || !hook->r_debug)
    return biases;
  constexpr uint64_t kMapOfRDebug = 8, kNextOfLinkMap = 24; // <link.h>
  constexpr size_t kMostModules = 10000;                    // a damaged list may be a loop
  std::optional<uint64_t> at = symbols::read_value<uint64_t>(read, hook->r_debug + kMapOfRDebug);
  while (at && *at && biases.size() < kMostModules) {
    std::optional<uint64_t> bias = symbols::read_value<uint64_t>(read, TargetAddr(*at));
    if (!bias)
      break;
    biases.push_back(*bias);
    at = symbols::read_value<uint64_t>(read, TargetAddr(*at) + kNextOfLinkMap);
  }
  return biases;
}

} // namespace

symbols::VariableTable* VariableTables::of(const std::shared_ptr<symbols::Module>& module) {
  auto [at, is_new] = entries_.try_emplace(module.get());
  if (is_new) {
    at->second.module = module;
    at->second.table = symbols::VariableTable::open(*module);
  }
  return at->second.table.get();
}

std::vector<expr::ModuleScope> module_scopes(const Modules& modules, VariableTables& tables,
                                             Inferior* inferior) {
  std::vector<expr::ModuleScope> scopes;
  bool any_tls = false;
  for (const symbols::LoadedModule& module : modules.view()) {
    expr::ModuleScope scope{module.module.get(), expr::LazyTable([&tables, of = module.module] {
                              return tables.of(of);
                            })};
    scope.bias = module.bias;
    scope.range = module.range;
    any_tls |= module.module->elf().tls().has_value();
    if (module.is_main) {
      scope.program_tls = expr::program_tls(module.module->elf());
      scope.tls_module_id = scope.program_tls ? 1 : 0;
      scopes.insert(scopes.begin(), scope); // the program's own names first
    } else {
      scopes.push_back(scope);
    }
  }
  if (!inferior || !any_tls)
    return scopes;
  unsigned id = 0;
  for (const uint64_t bias : biases_in_load_order(modules, *inferior)) {
    for (expr::ModuleScope& scope : scopes)
      if (scope.bias == bias && scope.module->elf().tls())
        scope.tls_module_id = ++id;
  }
  return scopes;
}

TargetContext::TargetContext(const Modules& modules, std::vector<expr::ModuleScope> scopes,
                             ValueStore& values, Inferior* inferior, const ThreadView* thread,
                             const Frame* frame)
    : FrameContext(std::move(scopes),
                   frame ? std::optional(frame->lookup_pc) : std::optional<TargetAddr>(),
                   frame ? frame->inline_index : 0),
      modules_(modules), values_(values), inferior_(inferior) {
  if (frame)
    frame_ = *frame;
  if (thread) {
    thread_ = thread->number;
    is_innermost_ =
        frame && thread->status == ThreadStatus::kParked && frame->is_innermost_physical;
  }
}

bool TargetContext::read_memory(TargetAddr from, std::span<std::byte> to) {
  if (inferior_)
    return static_cast<bool>(
        inferior_->read_memory(from, {reinterpret_cast<uint8_t*>(to.data()), to.size()}));
  // Before the program runs: its initialised data, as the file has it.
  const symbols::LoadedModule* module = find_module(modules_.view(), from);
  if (!module)
    return false;
  const symbols::Bytes bytes = module->module->elf().bytes_at(module->to_link(from), to.size());
  if (bytes.size() == to.size()) {
    std::copy(bytes.begin(), bytes.end(), to.begin());
    return true;
  }
  // .bss is all zeros.
  const dune::LinkAddr link = module->to_link(from);
  for (const symbols::Segment& segment : module->module->elf().segments()) {
    if (!segment.range.contains(link) || segment.range.end - link < to.size())
      continue;
    std::fill(to.begin(), to.end(), std::byte{0});
    std::copy(bytes.begin(), bytes.end(), to.begin());
    return true;
  }
  return false;
}

bool TargetContext::write_memory(TargetAddr to, std::span<const std::byte> from) {
  return inferior_ &&
         inferior_->write_memory(to, {reinterpret_cast<const uint8_t*>(from.data()), from.size()});
}

std::optional<uint64_t> TargetContext::read_register(int dwarf_register) {
  if (!frame_)
    return std::nullopt;
  if (dwarf_register == kDwarfRip)
    return frame_->pc.value;
  for (size_t i = 0; i < dune::kRegisterCount; ++i)
    if (dune::kRegisters[i].dwarf_number == dwarf_register)
      return frame_->registers.get(static_cast<dune::Reg>(i));
  uint64_t low = 0;
  if (read_wide_register(dwarf_register, std::as_writable_bytes(std::span(&low, 1))))
    return low;
  return std::nullopt;
}

// Vector and x87 registers of outer frames are not known: all are scratch for a callee.
bool TargetContext::read_wide_register(int dwarf_register, std::span<std::byte> to) {
  if (!inferior_ || !is_innermost_ || to.size() > kLegacyStride)
    return false;
  size_t offset;
  if (dwarf_register >= kDwarfXmm0 && dwarf_register <= kDwarfXmm15)
    offset = kLegacyXmm0 + kLegacyStride * static_cast<size_t>(dwarf_register - kDwarfXmm0);
  else if (dwarf_register >= kDwarfSt0 && dwarf_register <= kDwarfSt7)
    offset = kLegacySt0 + kLegacyStride * static_cast<size_t>(dwarf_register - kDwarfSt0);
  else
    return false;
  if (!fpstate_) {
    Checked<std::vector<uint8_t>> image = inferior_->read_fpstate(thread_);
    fpstate_ = image ? std::move(*image) : std::vector<uint8_t>();
  }
  if (fpstate_->size() < offset + kLegacyStride)
    return false;
  std::memcpy(to.data(), fpstate_->data() + offset, to.size());
  return true;
}

bool TargetContext::write_register(dune::Reg reg, uint64_t value) {
  if (!inferior_ || !is_innermost_ || !inferior_->write_register(thread_, reg, value))
    return false;
  frame_->registers.set(reg, value);
  return true;
}

std::optional<TargetAddr> TargetContext::cfa() {
  return frame_ && frame_->id.cfa ? std::optional(frame_->id.cfa) : std::nullopt;
}

std::optional<expr::Value> TargetContext::named_register(std::string_view name) {
  const bool is_xmm = name.starts_with("xmm");
  if (!is_xmm && !name.starts_with("st"))
    return std::nullopt;
  const std::string_view digits = name.substr(is_xmm ? 3 : 2);
  int number = 0;
  auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size() ||
      number > (is_xmm ? 15 : 7))
    return std::nullopt;
  const auto& types = symbols::BuiltinTypes::get();
  const symbols::TypeRef type = is_xmm ? types.uint128 : types.long_double;
  std::vector<std::byte> bytes(type->size());
  if (!read_wide_register((is_xmm ? kDwarfXmm0 : kDwarfSt0) + number,
                          std::span(bytes).first(std::min(bytes.size(), kLegacyStride))))
    return std::nullopt;
  return expr::Value::of(type, std::move(bytes));
}

const expr::Value* TargetContext::convenience(const std::string& name) {
  if (name == "_thread")
    values_.convenience.insert_or_assign(
        name, expr::Value::integer(symbols::BuiltinTypes::get().int_type, thread_));
  auto at = values_.convenience.find(name);
  return at == values_.convenience.end() ? nullptr : &at->second;
}

void TargetContext::set_convenience(const std::string& name, expr::Value value) {
  values_.convenience.insert_or_assign(name, std::move(value));
}

std::optional<expr::Value> TargetContext::history(int64_t index, bool from_end) {
  const auto size = static_cast<int64_t>(values_.history.size());
  const int64_t at = from_end ? size - 1 - index : index - 1;
  if (at < 0 || at >= size)
    return std::nullopt;
  return values_.history[static_cast<size_t>(at)];
}

} // namespace ddbg::engine
