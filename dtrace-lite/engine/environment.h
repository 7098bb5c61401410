// The environment a program is given: ordered, as execve takes it. The order is the program's to
// see (and part of the addresses on its stack), so what is inherited keeps it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ddbg::engine {

class Environment {
public:
  // ddbg's own, with LINES and COLUMNS set to the screen's size as gdb does: under both debuggers
  // the program's stack then lies at the same addresses.
  static Environment inherited();

  std::optional<std::string_view> find(std::string_view name) const;
  void set(std::string_view name, std::string_view value); // in place, or at the end
  void unset(std::string_view name);
  void clear() { entries_.clear(); }
  const std::vector<std::string>& entries() const { return entries_; } // NAME=value

private:
  std::vector<std::string>::iterator position(std::string_view name);
  std::vector<std::string> entries_;
};

} // namespace ddbg::engine
