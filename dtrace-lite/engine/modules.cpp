#include "dtrace-lite/engine/modules.h"

#include "dtrace-lite/engine/syscall_sites.h"

#include <algorithm>
#include <filesystem>

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
  if (path.empty()) {
    map_.clear();
    program_path_.clear();
    return {};
  }
  // What was read of a file that has not changed is kept.
  std::error_code ignored;
  const auto written = std::filesystem::last_write_time(path, ignored);
  if (path == program_path_ && written == program_written_ && map_.modules().size() == 1)
    return {};
  Checked<symbols::ModuleMap::Change> set = map_.set_program(path);
  if (!set)
    return set.error();
  program_path_ = path;
  program_written_ = written;
  return {};
}

void Modules::forget_target() {
  sites_done_.clear();
  linker_record_.reset();
  map_.clear();
  // A file that has become unreadable meanwhile leaves nothing to look names up in.
  if (!program_path_.empty())
    (void)map_.set_program(program_path_);
}

Checked<Modules::Change> Modules::start(Inferior& inferior, const std::string& program) {
  sites_done_.clear();
  linker_record_.reset();
  is_linked_ = false;
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
  if (const symbols::LoadedModule* main = map_.main())
    program_path_ = main->path;
  return as_change(std::move(*change));
}

Checked<Modules::Change> Modules::refresh(Inferior& inferior) {
  Checked<symbols::ModuleMap::Change> change =
      map_.refresh(inferior.pid(), memory_reader(inferior), {});
  if (!change)
    return change.error();
  if (change->any())
    std::erase_if(sites_done_, [&](uint64_t begin) {
      return std::none_of(map_.modules().begin(), map_.modules().end(),
                          [&](const auto& m) { return m.range.begin.value == begin; });
    });
  Checked<void> sites = set_syscall_sites(inferior);
  if (!sites)
    return sites.error();
  if (!linker_record_) {
    Checked<void> hook = set_linker_record(inferior);
    if (!hook)
      return hook.error();
  }
  return as_change(std::move(*change));
}

Checked<void> Modules::set_syscall_sites(Inferior& inferior) {
  std::vector<Inferior::SyscallSpot> spots;
  if (inferior.capabilities() & dune::session::kCapSystemCalls)
    return {};
  for (const symbols::LoadedModule& module : map_.modules()) {
    // The vDSO's system calls only read clocks.
    if (module.is_vdso || !sites_done_.insert(module.range.begin.value).second)
      continue;
    for (const SyscallSite& site : find_syscall_sites(*module.module))
      spots.push_back({module.to_target(site.address), module.to_target(site.before), site.jump});
    module.module->elf().forget_code();
  }
  if (!spots.empty()) {
    inferior.set_serving(false);
    if (auto ok = inferior.add_syscall_sites(spots); !ok)
      return ok;
  }
  if (!is_linked_) {
    const auto hook = map_.linker_hook(memory_reader(inferior));
    is_linked_ = !hook || !hook->is_changing;
  }
  inferior.set_serving(is_linked_);
  return {};
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
