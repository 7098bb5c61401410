// The precise kick: a perf event on another thread that raises SIGTRAP there, with
// session::kKickValue as its data, as soon as the thread runs in user mode. It never fires inside a
// system call, so it interrupts none.
#pragma once

#include <sys/types.h>

namespace dune::backend {

// Armed for one SIGTRAP; closing the descriptor disarms it. `tid` 0: the calling thread.
// -1 and errno: ESRCH, EACCES (another user's thread, or perf_event_paranoid above 2), EMFILE.
int open_kick(pid_t tid);

} // namespace dune::backend
