// What Tab offers, as a function of the line: knows nothing of readline.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ddbg::ui {

class Context;

struct Completions {
  size_t begin = 0;               // of the word that they replace
  std::vector<std::string> words; // sorted, without duplicates
  bool files = false;             // complete with file names (too)
};
// `line` up to the cursor.
Completions complete(Context&, std::string_view line);

} // namespace ddbg::ui
