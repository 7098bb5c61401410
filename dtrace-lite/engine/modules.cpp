#include "dtrace-lite/engine/modules.h"

#include "dtrace-lite/engine/syscall_sites.h"

#include <algorithm>

namespace ddbg::engine {

symbols::MemoryReader memory_reader(Inferior& inferior) {
  return [&inferior](TargetAddr from, std::span<std::byte> to) {
    return static_cast<bool>(
        inferior.read_memory(from, std::span(reinterpret_cast<uint8_t*>(to.data()), to.size())));
  };
}

namespace {

Modules::Change as_change(symbols::ModuleMap::Change&& change) {
  return {.any = change.any(),
          .added = std::move(change.added),
          .removed = std::move(change.removed),
          .warnings = std::move(change.warnings)};
}

} // namespace

Checked<void> Modules::load_program(const std::string& path) {
  Checked<std::unique_ptr<symbols::Module>> module = symbols::Module::open(path, options_);
  if (!module)
    return module.error();
  program_ = std::move(*module);
  program_path_ = path;
  symbols::LoadedModule unloaded;
  unloaded.module = program_;
  const dune::LinkRange range = program_->elf().load_range();
  unloaded.range = {TargetAddr(range.begin.value), TargetAddr(range.end.value)};
  unloaded.path = path;
  unloaded.is_main = true;
  unloaded_.assign(1, std::move(unloaded));
  return {};
}

void Modules::forget_target() {
  map_.clear();
  sites_done_.clear();
  linker_record_.reset();
  live_ = false;
}

ModuleSpan Modules::view() const {
  if (live_)
    return map_.modules();
  return unloaded_;
}

Checked<Modules::Change> Modules::start(Inferior& inferior, const std::string& program) {
  forget_target();
  live_ = true;
  Checked<symbols::ModuleMap::Change> change =
      map_.refresh(inferior.pid(), memory_reader(inferior), program);
  if (!change)
    return change.error();
  Checked<void> sites = set_syscall_sites(inferior);
  if (!sites)
    return sites.error();
  Checked<void> hook = set_linker_record(inferior);
  if (!hook)
    return hook.error();
  if (const symbols::LoadedModule* main = map_.main()) {
    if (!program_ || program_path_ != main->path) {
      program_ = main->module;
      program_path_ = main->path;
    }
  }
  return as_change(std::move(*change));
}

Checked<Modules::Change> Modules::refresh(Inferior& inferior) {
  Checked<symbols::ModuleMap::Change> change =
      map_.refresh(inferior.pid(), memory_reader(inferior), {});
  if (!change)
    return change.error();
  if (change->any()) {
    std::erase_if(sites_done_, [&](uint64_t begin) {
      return std::none_of(map_.modules().begin(), map_.modules().end(),
                          [&](const auto& m) { return m.range.begin.value == begin; });
    });
    Checked<void> sites = set_syscall_sites(inferior);
    if (!sites)
      return sites.error();
  }
  if (!linker_record_) {
    Checked<void> hook = set_linker_record(inferior);
    if (!hook)
      return hook.error();
  }
  return as_change(std::move(*change));
}

Checked<void> Modules::set_syscall_sites(Inferior& inferior) {
  std::vector<TargetAddr> addresses;
  for (const symbols::LoadedModule& module : map_.modules()) {
    // The vDSO's system calls only read clocks.
    if (module.is_vdso || !sites_done_.insert(module.range.begin.value).second)
      continue;
    for (const SyscallSite& site : find_syscall_sites(*module.module))
      addresses.push_back(module.to_target(site.address));
  }
  if (addresses.empty())
    return {};
  return inferior.add_syscall_sites(addresses);
}

Checked<void> Modules::set_linker_record(Inferior& inferior) {
  std::optional<symbols::LinkerHook> hook = map_.linker_hook(memory_reader(inferior));
  if (!hook || !hook->breakpoint)
    return {}; // static: nothing will be loaded
  Checked<RecordId> record = inferior.add_record(hook->breakpoint, {.internal = true});
  if (!record)
    return record.error();
  linker_record_ = *record;
  return {};
}

} // namespace ddbg::engine
