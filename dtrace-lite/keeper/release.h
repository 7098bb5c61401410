// Taking the agent out of a process again.
#pragma once

#include "dtrace-lite/keeper/inject.h"
#include "dtrace-lite/keeper/stopped_process.h"

#include <optional>

namespace ddbg::keeper {

// Nobody will stop this target any more: every parked thread runs on, every breakpoint leaves the
// text. Works on shared memory and /proc/PID/mem alone, so it is quick and needs no thread to
// cooperate. The system calls that the agent has to see stay its own for as long as it is there: it
// alone knows the program's masks.
void abandon(Injected&);

// After abandon(): every thread is brought out of the agent, and masks, dispositions, alternate
// stacks and mappings are put back. Returns why that could not be done, a sentence each; then the
// agent stays, and the program runs on with it.
std::vector<std::string> take_out(Injected&, StoppedProcess&, Detour&);

// Both, for a process that runs. One that was suspended is stopped again.
std::vector<std::string> release(Injected&);

// For one that is about to die, parked in `tid` before it sends itself the signal: all of its
// threads are the program's again, and stay stopped; let_die() ends it with a core that shows them
// so. What cannot be brought out is shown in the agent. Nothing, if there will be no core.
std::optional<StoppedProcess> release_dying(Injected&, pid_t tid);

} // namespace ddbg::keeper
