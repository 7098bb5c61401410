// The keeper process itself.
#pragma once

#include <sys/types.h>

namespace ddbg::keeper {

// Serves one front end on `socket` until it is gone and the target has been released. Returns the
// process's exit status.
int serve(int socket, pid_t frontend_pid);

} // namespace ddbg::keeper
