// Whether a process that confines itself with seccomp leaves the agent the calls that it makes.
#pragma once

#include "dtrace-lite/keeper/stopped_process.h"

namespace ddbg::keeper {

// A filter that kept the agent from going on would take the program with it, so this comes before
// anything is done in a thread's name. Filters that we are under ourselves (a container's) are no
// matter: what they forbid would have been forbidden to ddbg, too. Others have to be read, which
// the kernel lets nobody but root.
Checked<void> check_confinement(pid_t, const StoppedProcess&);

} // namespace ddbg::keeper
