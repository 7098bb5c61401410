#include "dtrace-lite/engine/location.h"

#include <algorithm>

namespace ddbg::engine {

const symbols::LoadedModule* find_module(ModuleSpan modules, TargetAddr a) {
  auto after = std::upper_bound(
      modules.begin(), modules.end(), a,
      [](TargetAddr x, const symbols::LoadedModule& m) { return x < m.range.begin; });
  if (after == modules.begin())
    return nullptr;
  const symbols::LoadedModule& candidate = *std::prev(after);
  return candidate.range.contains(a) ? &candidate : nullptr;
}

CodeLocation locate(ModuleSpan modules, TargetAddr pc) {
  CodeLocation location;
  location.pc = pc;
  const symbols::LoadedModule* module = find_module(modules, pc);
  if (!module)
    return location;
  location.module = module->path;
  const dune::LinkAddr link = module->to_link(pc);
  if (std::optional<symbols::Function> function = module->module->functions().at(link)) {
    location.function = function->name;
    location.offset = link - function->entry;
  }
  if (std::optional<symbols::LineSpan> span = module->module->lines().find(link)) {
    if (span->line != 0)
      location.source = {span->file, span->line};
    location.at_line_start = span->range.begin == link;
  }
  return location;
}

} // namespace ddbg::engine
