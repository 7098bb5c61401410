// Finds the `syscall` instructions of a module that the agent has to see: those that can start, end
// or change the signals of a thread or process (docs: who owns which signal). A site whose number
// is provably another one is left alone and costs nothing.
#pragma once

#include "dtrace-lite/engine/inferior.h"
#include "dtrace-lite/symbols/module.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace ddbg::engine {

struct SyscallSite {
  dune::LinkAddr address;         // of the `syscall` instruction
  std::optional<uint32_t> number; // nullopt: not in sight, the agent looks at rax
  // A jump can take the place of the instruction before, which control only leaves by falling into
  // the `syscall`.
  JumpKind jump = JumpKind::kNone;
  dune::LinkAddr before{};
};

// When the agent must see a system call.
dune::session::GateKind gate_of(uint32_t syscall_number);
inline bool agent_must_see(uint32_t syscall_number) {
  return gate_of(syscall_number) != dune::session::GateKind::kShut;
}

// The sites of a module, by rising address. Bytes come from the file.
std::vector<SyscallSite> find_syscall_sites(symbols::Module& module);

// The same over any code. `FunctionRange` says which function an address lies in (decoding from its
// beginning is in step), or nothing where that is not known.
struct CodeBytes {
  std::span<const uint8_t> bytes;
  dune::LinkAddr address;
};
using FunctionRange = std::function<std::optional<dune::LinkRange>(dune::LinkAddr)>;
std::vector<SyscallSite> find_syscall_sites(const CodeBytes& code,
                                            const FunctionRange& function_range);

} // namespace ddbg::engine
