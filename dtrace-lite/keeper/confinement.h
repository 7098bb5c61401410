// Whether a process that confines itself with seccomp leaves the agent the calls that it makes.
#pragma once

#include "dtrace-lite/keeper/inject.h"
#include "dtrace-lite/keeper/stopped_process.h"

namespace ddbg::keeper {

// A filter that kept the agent from going on would take the program with it, so this comes before
// anything is done in a thread's name. Filters that we are under ourselves (a container's) are no
// matter: what they forbid would have been forbidden to ddbg, too. Others have to be read, which
// the kernel lets nobody but root.
// `guest`: its threads are to run in one.
Checked<Filters> check_confinement(pid_t, const StoppedProcess&, bool guest);

// The same for the image that comes out of an execve, and inherits the filters of the one before:
// `before` was in that. Those that the agent put there let us pass where agent and detour come to
// the same places again, as they do for two dynamic programs without randomization.
Checked<Filters> check_new_image(const Injected& before, const Detour&);

// Of a thread: whether it has filters that we are not under ourselves.
bool has_more_filters(pid_t tid);

} // namespace ddbg::keeper
