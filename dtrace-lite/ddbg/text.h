// Words, numbers and lists as a person types them at the prompt.
#pragma once

#include "dtrace-lite/symbols/diagnostic.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ddbg::ui {

std::string_view trim(std::string_view text);
// The first blank-separated word, and what follows it without leading blanks.
std::pair<std::string_view, std::string_view> split_first(std::string_view text);
// Blank-separated words, kept as typed.
std::vector<std::string_view> split_blank(std::string_view text);
// True when `text` starts with the word `word` (followed by a blank or nothing).
bool starts_with_word(std::string_view text, std::string_view word);

// Decimal, or 0x hexadecimal, with an optional minus; the whole text.
Checked<int64_t> parse_integer(std::string_view text);

// "3", "2-5", "1 4-6,8" -> numbers, as `delete` and `thread apply` take them. At most 65536 of
// them. `what` names the things in messages: "breakpoint".
Checked<std::vector<int>> parse_number_list(std::string_view text, std::string_view what);

// Number of insertions, deletions, replacements and swaps between two words.
unsigned edit_distance(std::string_view a, std::string_view b);

std::string expand_tilde(std::string_view path);

} // namespace ddbg::ui
