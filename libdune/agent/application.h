// A program that has entered Dune mode by itself, and is in ring 0 there (docs/application.md).
#pragma once

#include "libdune/agent/guest_loop.h"

namespace dune::agent {

inline bool is_application() { return agent_config.trap_stacks; }
inline TrapStacks& stacks_of(const ThreadBlock* t) {
  return *reinterpret_cast<TrapStacks*>(agent_config.trap_stacks + t->slot * kTrapStacksSize);
}
// Its code, if it is a program in ring 0.
inline bool runs_in_ring0(const ThreadBlock* t) {
  return is_application() && !stacks_of(t).in_ring3;
}

// At birth: what its exceptions come to, and where its `syscall` goes.
inline constexpr uint32_t kMostHandlers = kExceptionVectors;
uint32_t application_handlers(backend::Handler (&handlers)[kMostHandlers]);
TargetAddr application_system_call();
// What the program needs of ours in ring 0, when it needs it: for the page fault that could bring
// it.
Status show_agent();

// The stacks of the slot's exceptions become part of the guest. False: no room. Pre: it has a
// processor; the lock of the address space is held.
bool open_trap_stacks(ThreadBlock*);
TargetAddr end_of_trap_stacks(const ThreadBlock*);

// cpu.regs, behind a run: from inside the entry or the end of an exception's handler, or of a
// system call, to where the program can be found. Returns what has come to the host side.
// Behind an interruption or a fault that has been served: what else it comes to there.
backend::Exit find_program(ThreadBlock*, const backend::Exit&);
// What the host side has got but a handler of the program's, or whoever runs ring 3, is to have.
// True: the thread is on its way there.
bool offer(ThreadBlock*, const backend::Exit&);
// Out of ring 3, for a signal's handler; comes back to it by itself.
void come_out_of_ring3(ThreadBlock*, KernelSigcontext&);

// A kApplicationCall.
long application_call(const KernelSigcontext&);

} // namespace dune::agent
