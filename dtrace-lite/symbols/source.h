// Source text for `list` and stops.
#pragma once

#include "dtrace-lite/symbols/lines.h"

#include <map>

namespace ddbg::symbols {

class SourceCache {
public:
  // `directory DIR` and `set substitute-path FROM TO`.
  void add_directory(std::string directory) { directories_.push_back(std::move(directory)); }
  void substitute(std::string from, std::string to) {
    substitutions_.emplace_back(std::move(from), std::move(to));
  }
  // Errors: no such file (with the places that were tried), no permission, not text.
  Checked<size_t> line_count(const SourceFile& file);
  // 1-based; the text without newline. Errors: as above, or past the end.
  Checked<std::string_view> line(const SourceFile& file, unsigned number);
  // Empty, or a warning that the source is newer than the program it is shown for.
  std::string staleness(const SourceFile& file, const std::string& program_path);
  void clear() { texts_.clear(); }

private:
  struct Text {
    std::string path;
    std::string content;
    std::vector<size_t> starts;
    std::optional<Diagnostic> problem;
  };
  const Text& load(const SourceFile& file);

  std::vector<std::string> directories_;
  std::vector<std::pair<std::string, std::string>> substitutions_;
  std::map<std::string, Text> texts_;
};

} // namespace ddbg::symbols
