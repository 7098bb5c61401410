// What a person typed wrong, or what a file the person named has wrong: said in a sentence, with
// the place and the way out. Machine failures are dune::Error; to_diagnostic() turns one into this.
#pragma once

#include "libdune/base/result.h"

#include <cstring>
#include <optional>
#include <string>
#include <utility>

namespace ddbg {

struct Diagnostic {
  std::string message;            // a full sentence in gdb's manner, without trailing newline
  std::string hint;               // what to do next; may be empty
  std::optional<size_t> column{}; // offset into the text that was typed, when that helps
};

template <class T> using Checked = dune::Result<T, Diagnostic>;

inline Diagnostic to_diagnostic(const dune::Error& e) {
  std::string message = e.text;
  if (e.code == dune::Errc::kSystem || (e.code == dune::Errc::kPermission && e.detail != 0))
    message += std::string(": ") + std::strerror(static_cast<int>(e.detail));
  return {std::move(message), {}, {}};
}

} // namespace ddbg
