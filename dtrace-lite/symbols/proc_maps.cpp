// /proc/PID/maps.
#include "dtrace-lite/symbols/module_map.h"

#include <cerrno>
#include <charconv>
#include <cstring>
#include <fcntl.h>

namespace ddbg::symbols {
namespace {

// Takes a number off the front of `text`, and the separator after it.
bool take(std::string_view& text, uint64_t& value, int base, char separator) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc())
    return false;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  if (text.empty() || text[0] != separator)
    return false;
  text.remove_prefix(1);
  return true;
}

} // namespace

std::vector<MapsLine> parse_maps(std::string_view text) {
  std::vector<MapsLine> lines;
  while (!text.empty()) {
    const size_t newline = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, newline);
    text.remove_prefix(std::min(newline + 1, text.size()));
    MapsLine m{};
    uint64_t begin = 0, end = 0, major = 0, minor = 0;
    if (!take(line, begin, 16, '-') || !take(line, end, 16, ' ') || line.size() < 5)
      continue;
    m.range = {TargetAddr(begin), TargetAddr(end)};
    m.readable = line[0] == 'r';
    m.writable = line[1] == 'w';
    m.executable = line[2] == 'x';
    m.shared = line[3] == 's';
    line.remove_prefix(5);
    if (!take(line, m.offset, 16, ' ') || !take(line, major, 16, ':') ||
        !take(line, minor, 16, ' '))
      continue;
    m.device = major << 32 | minor;
    const auto [rest, error] = std::from_chars(line.data(), line.data() + line.size(), m.inode);
    if (error != std::errc())
      continue;
    line.remove_prefix(static_cast<size_t>(rest - line.data()));
    const size_t path = line.find_first_not_of(' ');
    if (path != std::string_view::npos)
      m.path = line.substr(path);
    lines.push_back(std::move(m));
  }
  return lines;
}

Checked<std::vector<MapsLine>> read_maps(int pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/maps";
  const dune::Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd)
    return Diagnostic{path + ": " + std::strerror(errno) + ".",
                      errno == ENOENT ? "The process is gone." : ""};
  std::string text;
  char buffer[65536];
  for (;;) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return Diagnostic{path + ": " + std::strerror(errno) + ".", ""};
    if (n == 0)
      break;
    text.append(buffer, static_cast<size_t>(n));
  }
  return parse_maps(text);
}

} // namespace ddbg::symbols
