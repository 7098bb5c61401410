// Commands that let the target run, and what is told when it stops.
#pragma once

#include "dtrace-lite/engine/debugger.h"

#include <functional>

namespace ddbg::ui {

class Context;

// Runs `go` with the terminal handed to the target, tells the stop.
Checked<void> run_target(Context&, const std::function<Checked<engine::StopReport>()>& go);
void tell_stop(Context&, const engine::StopReport&);

// After a command: the commands of the breakpoints that stopped the target.
void run_pending_commands(Context&);

// "The program is not being run."
Checked<void> require_target(Context&);

} // namespace ddbg::ui
