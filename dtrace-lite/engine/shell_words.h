// A program's name and arguments as a shell takes them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ddbg::engine {

// The absolute path of a program that is here, or, for a name without a slash, in $PATH; what it
// would be here if it is nowhere.
std::string find_program(const std::string& name);

// One word, so that a shell takes it as it is. Escaped as gdb does.
std::string shell_quoted(std::string_view word);

// Blank-separated words; quotes and backslashes group as in a shell and are removed.
std::vector<std::string> split_words(std::string_view text);

} // namespace ddbg::engine
