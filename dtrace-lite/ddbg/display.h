// Auto-display expressions, and values with the numbers of the value history.
#pragma once

#include "dtrace-lite/engine/stop_report.h"

namespace ddbg::ui {

class Context;
struct Display;

// After a stop: every enabled one whose expression can be evaluated.
void show_displays(Context&);
// Errors: the expression's.
Checked<void> show_display(Context&, Display&);
// "Value returned is $1 = 3"
void tell_returned(Context&, const engine::ReturnedValue&);

} // namespace ddbg::ui
