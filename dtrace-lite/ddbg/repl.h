// The conversation: prompt, Enter that repeats, the end of the input, the pager's question.
#pragma once

#include <string>

namespace ddbg::ui {

class Context;
class LineReader;

// Reads and executes commands until `quit` or the end of the input.
void converse(Context&, LineReader&);

// One line as if typed; what is wrong is reported. False: it failed.
bool execute_reporting(Context&, const std::string& line);

// Lets the pager and the questions use the terminal.
void set_up_terminal(Context&, LineReader&);

// What Enter does after `line`: the line to execute, empty for nothing.
std::string repeated_line(const std::string& line);

} // namespace ddbg::ui
