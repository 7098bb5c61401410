// What happens before the first prompt, and at the very end.
#pragma once

namespace ddbg::ui {

class Context;
class LineReader;
struct Options;

// Init files, the program, -ex and -x, as gdb orders them. False: the last step failed.
bool start_up(Context&, LineReader&, const Options&);

// Kills the target that was started, lets go the one that was attached to.
void leave_target(Context&);

// Whether ./.ddbginit may be read: a regular file of ours that nobody else can write.
bool is_safe_init_file(const char* path);

} // namespace ddbg::ui
