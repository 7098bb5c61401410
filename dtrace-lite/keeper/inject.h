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

using dune::session::MemoryMap;

// The seccomp filters of a process. kKnown: besides those that we are under ourselves it has only
// what the agent puts there, with its own calls and ours let pass.
enum class Filters { kKnown, kOthers };

// What stays of a birth: the keeper's view of a process with an agent.
struct Injected {
  pid_t pid = 0;
  MemoryMap map{};
  dune::agent::AgentConfig config{};
  dune::agent::ImageHeader image{};
  uint32_t capabilities = 0;  // session::Capability bits
  bool was_suspended = false; // see Client::lift_suspension
  Filters filters = Filters::kKnown;
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

// Where the agent's block goes in a process without one.
Checked<MemoryMap> plan_addresses(pid_t, bool with_guest);

// A process at its beginning, or one that has run already.
enum class Age { kNewImage, kRunning };

// `thread` is stopped and makes the calls. Afterwards the agent is mapped and initialised, but no
// thread has entered it; after an error nothing of it is left.
Checked<Injected> inject_agent(pid_t pid, const Tracee& thread, Detour&,
                               const dune::backend::Choice&, Filters, Age);

// Gives the stopped thread a slot and makes it run the agent when it is resumed: it parks there
// with its present registers as the program's. Errors: pool full, ptrace.
Checked<void> enter_agent(Injected&, const Tracee&, uint32_t slot);

// The same for a thread inside a system call, which goes on undisturbed: the thread passes through
// the agent on its way back into it, and comes there to stay at its end, before anything of the
// program.
Checked<void> enter_agent_after_call(Injected&, const Tracee&, uint32_t slot);

// For the thread that has this slot, on the slot's stack.
Errand errand_of(const Injected&, uint32_t slot, uint64_t function);

// The registers that ptrace's, sigcontext's and the session's form have in common.
template <class To, class From> void copy_registers(To& to, const From& r) {
  to.r8 = r.r8, to.r9 = r.r9, to.r10 = r.r10, to.r11 = r.r11, to.r12 = r.r12, to.r13 = r.r13;
  to.r14 = r.r14, to.r15 = r.r15, to.rdi = r.rdi, to.rsi = r.rsi, to.rbp = r.rbp, to.rbx = r.rbx;
  to.rdx = r.rdx, to.rax = r.rax, to.rcx = r.rcx, to.rsp = r.rsp, to.rip = r.rip;
  to.eflags = r.eflags;
}

// The agent's memory; nobody may be in there any more.
void unmap_agent(const Injected&, const Tracee&, Detour&);

} // namespace ddbg::keeper
