// What is said of a breakpoint when it is made, and the table of them.
#pragma once

#include <string>

namespace ddbg::ui {

class Context;

// "Breakpoint 1 at 0x1139: file f.c, line 3."
void mention_breakpoint(Context&, unsigned number);

} // namespace ddbg::ui
