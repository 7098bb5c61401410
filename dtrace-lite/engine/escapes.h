// Where a thread leaves functions without returning from them: longjmp, and the end of unwinding an
// exception. What waits for such a function's return has to look here too. As gdb does it: by the
// probes of libc and libgcc, and by the functions' names where a module has no probes; but here the
// names suffice for glibc's mangled jump buffers and a libgcc without symbols.
#pragma once

#include "dtrace-lite/symbols/module_map.h"
#include "dtrace-lite/symbols/probes.h"

namespace ddbg::engine {

using dune::TargetAddr;

struct EscapeSite {
  TargetAddr address;
  symbols::ProbeOperand landing; // where control goes on, once the thread stands here
  bool is_jmp_buf = false;       // `landing` is read as it was saved: see Escapes::in_jmp_buf
};

class Escapes {
public:
  explicit Escapes(const symbols::ModuleMap& modules) : modules_(modules) {}

  // Of the modules that are loaded now. They are looked up when they are first asked for.
  const std::vector<EscapeSite>& sites();
  // nullopt: memory that cannot be read, or no code there.
  std::optional<TargetAddr> landing(const EscapeSite& site,
                                    const symbols::KnownRegisters& registers,
                                    const symbols::MemoryReader& read) const;

private:
  std::optional<TargetAddr> in_jmp_buf(uint64_t saved, const symbols::KnownRegisters& registers,
                                       const symbols::MemoryReader& read) const;

  const symbols::ModuleMap& modules_;
  std::optional<uint64_t> generation_; // of the map that sites_ is of
  std::vector<EscapeSite> sites_;
};

} // namespace ddbg::engine
