// Births: a program launched (through a shell, as gdb does), a running process attached to, a new
// image after execve. Each ends with an agent in the process and ptrace gone.
#pragma once

#include "dtrace-lite/keeper/client.h"
#include "dtrace-lite/keeper/inject.h"

namespace ddbg::keeper {

Checked<Injected> launch(const LaunchOptions&, pid_t frontend_pid, const dune::backend::Choice&);
Checked<Injected> attach(pid_t, const dune::backend::Choice&);

// Seizes a thread of the process that is about to call execve, so that the new image can be caught.
// The number comes from the session: another process's is refused.
Checked<void> seize_for_exec(pid_t pid, pid_t tid);
// The thread is in PTRACE_EVENT_EXEC: lets the call finish and injects. `before`: in the image that
// called it.
Checked<Injected> inject_after_exec(const Injected& before, const dune::backend::Choice&);
void let_go(pid_t tid);

} // namespace ddbg::keeper
