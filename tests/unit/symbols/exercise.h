// Asks a module everything, for inputs that may be damaged. Shared by the test and the fuzzer.
#pragma once

#include "dtrace-lite/symbols/module.h"
#include "dtrace-lite/symbols/unwind_cfi.h"

namespace ddbg::symbols::test {

// True when the image was taken for a program.
inline bool exercise(std::vector<std::byte> image) {
  auto opened = Module::from_memory(std::move(image), "image");
  if (!opened)
    return false;
  Module& module = **opened;
  std::vector<LinkAddr> addresses{module.elf().entry(), LinkAddr(0)};
  for (const char* name : {"f", "main", "_start", "twice", "ns::f"}) {
    for (const CodePlace& p : module.functions().places(name))
      addresses.push_back(p.address);
    module.symbols().find_variables(name);
    module.symbols().find_plt(name);
  }
  module.symbols().complete("", 10);
  module.symbols().nearest_name("fg");
  for (const LinkRange& range : module.elf().text_ranges())
    for (unsigned i = 0; i < 8; i++)
      addresses.push_back(range.begin + i * 7);
  for (const SourceFile* file : module.lines().files())
    for (unsigned line : {1u, 5u})
      module.lines().places(file->name, line);
  for (LinkAddr a : addresses) {
    module.functions().at(a);
    module.functions().inlined_at(a);
    module.lines().find(a);
    module.lines().after_prologue(a);
    module.symbols().at(a);
    module.elf().fde_range(a);
    module.unwind_row_exists(a);
  }
  return true;
}

} // namespace ddbg::symbols::test
