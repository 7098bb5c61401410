#include "dtrace-lite/engine/environment.h"

#include <algorithm>
#include <sys/ioctl.h>
#include <unistd.h>

namespace ddbg::engine {

namespace {
bool names(std::string_view entry, std::string_view name) {
  return entry.size() > name.size() && entry.starts_with(name) && entry[name.size()] == '=';
}
} // namespace

Environment Environment::inherited() {
  Environment result;
  for (char** entry = environ; entry && *entry; ++entry)
    result.entries_.emplace_back(*entry);
  winsize size{};
  if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0 || size.ws_col == 0)
    size.ws_row = 24, size.ws_col = 80;
  result.set("LINES", std::to_string(size.ws_row));
  result.set("COLUMNS", std::to_string(size.ws_col));
  return result;
}

std::vector<std::string>::iterator Environment::position(std::string_view name) {
  return std::find_if(entries_.begin(), entries_.end(),
                      [&](const std::string& entry) { return names(entry, name); });
}

std::optional<std::string_view> Environment::find(std::string_view name) const {
  for (std::string_view entry : entries_)
    if (names(entry, name))
      return entry.substr(name.size() + 1);
  return std::nullopt;
}

void Environment::set(std::string_view name, std::string_view value) {
  std::string entry = std::string(name) + "=" + std::string(value);
  if (auto at = position(name); at != entries_.end())
    *at = std::move(entry);
  else
    entries_.push_back(std::move(entry));
}

void Environment::unset(std::string_view name) {
  if (auto at = position(name); at != entries_.end())
    entries_.erase(at);
}

} // namespace ddbg::engine
