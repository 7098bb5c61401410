// Values as gdb 13 prints them.
#pragma once

#include "dtrace-lite/expr/evaluate.h"

namespace ddbg::expr {

struct FormatOptions {
  char letter = 0;                // x d u o t c a f s z, or 0: by the type
  unsigned element_limit = 200;   // set print elements
  unsigned repeat_threshold = 10; // set print repeats
  bool summary = false;           // arguments in a backtrace: "..." for what is not a scalar
};

// What follows "$1 = ": "(int *) 0x7ffe...". Parts that cannot be read are said in place; an
// error is returned only when nothing can be shown.
Checked<std::string> format_value(const Value& value, Context& context,
                                  const FormatOptions& options = {});
// The same without the type in front of a pointer, as inside structures and in `info locals`.
Checked<std::string> format_plain(const Value& value, Context& context,
                                  const FormatOptions& options = {});

// "/16xb": count, letter, size. Letters left out stay as given in the argument.
struct ExamineFormat {
  uint64_t count = 1;
  char letter = 'x'; // also s and i
  char size = 'w';   // b h w g
};
// `text` without the slash. Errors in gdb's words.
Checked<ExamineFormat> parse_format(std::string_view text, ExamineFormat defaults);

// One decoded instruction: its text and length.
struct ShownInstruction {
  std::string text;
  unsigned length;
};
using Disassemble = std::function<std::optional<ShownInstruction>(TargetAddr at)>;
// The lines of `x/FMT ADDRESS`; `next` becomes the address after what was shown. When memory ends
// in the middle, what could be read is in `lines`, the last one unfinished, and the error is what
// gdb says in its place.
Checked<void*> examine(TargetAddr address, const ExamineFormat& format, Context& context,
                       const Disassemble& disassemble, std::vector<std::string>& lines,
                       TargetAddr& next);

// "0x401136 <main+4>" or "0x7ffe0010".
std::string format_address(TargetAddr address, Context& context);

// Scalars, for those who compose their own lines.
std::string format_float(std::span<const std::byte> bytes);
std::string quote_character(Wide character, char quote);

} // namespace ddbg::expr
