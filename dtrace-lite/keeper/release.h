// Taking the agent out of a process again.
#pragma once

#include "dtrace-lite/keeper/inject.h"

namespace ddbg::keeper {

// Nobody will stop this target any more: every parked thread runs on, every site leaves the text.
// Works on shared memory and /proc/PID/mem alone, so it is quick and needs no thread to cooperate.
void abandon(Injected&);

// abandon(), then every thread is brought out of the agent, and masks, dispositions, alternate
// stacks and mappings are put back. Returns what could not be put back, a sentence each.
std::vector<std::string> release(Injected&);

} // namespace ddbg::keeper
