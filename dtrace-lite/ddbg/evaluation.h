// Expressions as commands use them: evaluated over the selected frame, formatted by the settings.
#pragma once

#include "dtrace-lite/expr/format.h"
#include "dtrace-lite/symbols/diagnostic.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace ddbg::ui {

class Context;

// `if`, `while`: is it non-zero?
Checked<bool> evaluate_condition(Context&, std::string_view expression);
// An address or a count: integers, pointers, functions, arrays.
Checked<uint64_t> evaluate_integer(Context&, std::string_view expression);
// For `x`: what is no number is where it lies.
Checked<uint64_t> evaluate_address(Context&, std::string_view expression);
// $name
void set_convenience_integer(Context&, const std::string& name, int64_t value);

// Of the selected frame; empty when there are none, or none are known.
std::string frame_arguments(Context&);      // "argc=1, argv=0x7ffe...", by print frame-arguments
std::string frame_argument_lines(Context&); // "argc = 1\nargv = ...\n"
std::string frame_locals(Context&);

// Puts a value in the history; its number.
size_t remember(Context&, expr::Value);
expr::FormatOptions format_options(Context&, char letter = 0);

// FMT of `print/FMT`, `x/FMT`, `display/FMT`, `output/FMT`: "16xb".
struct FormatSpec {
  uint64_t count = 1;
  char letter = 0; // x d u o t a c f s i z; 0: not given
  char size = 0;   // b h w g; 0: not given
  bool has_count = false;
  bool backwards = false; // a negative count of `x`
  bool raw = false;       // /r
};
// Takes "/FMT" off the front of `args`. `counted`: the command examines memory, so a count and a
// size make sense. Errors as gdb words them.
Checked<FormatSpec> take_format(std::string_view& args, std::string_view command, bool counted);

} // namespace ddbg::ui
