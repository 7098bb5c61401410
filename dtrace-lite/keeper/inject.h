// Bringing the agent into a process that is under ptrace: address plan, mappings, memfds, and the
// first thread's entry.
#pragma once

#include "dtrace-lite/keeper/tracee.h"
#include "dtrace-lite/symbols/diagnostic.h"
#include "libdune/agent/image.h"
#include "libdune/backend/probe_hosted.h"
#include "libdune/session/layout.h"

#include <optional>

namespace ddbg::keeper {

// What stays of a birth: the keeper's view of a process with an agent.
struct Injected {
  pid_t pid = 0;
  dune::session::MemoryMap map{};
  dune::agent::AgentConfig config{};
  dune::agent::ImageHeader image{};
  uint32_t capabilities = 0; // session::Capability bits
  dune::Fd session_fd, code_fd;
  dune::Mapping session_mapping, code_mapping;
  std::optional<Memory> memory;

  dune::session::Session& session() const {
    return *reinterpret_cast<dune::session::Session*>(session_mapping.data());
  }
  dune::session::SiteTable& sites() const {
    return *reinterpret_cast<dune::session::SiteTable*>(code_mapping.data());
  }
};

// `thread` is stopped in user mode (or in a system call stop) and runs the calls. Afterwards the
// agent is mapped and initialised, but no thread has entered it.
Checked<Injected> inject_agent(pid_t pid, const Tracee& thread, pid_t frontend_pid,
                               const dune::backend::Choice&);

// Gives the stopped thread a slot and makes it run the agent when it is resumed: it parks there
// with `regs` as the program's registers. Errors: pool full, ptrace.
Checked<uint32_t> enter_agent(Injected&, const Tracee&, uint32_t slot);

// Gives the stopped thread a slot without making it enter: for one that is blocked in the kernel,
// whose system call goes on undisturbed.
Checked<uint32_t> adopt_blocked(Injected&, const Tracee&, uint32_t slot,
                                TargetAddr syscall_instruction);

} // namespace ddbg::keeper
