// Every instruction of a file as `objdump -d` lists it.
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace dune::disasm::test {

struct Listed {
  uint64_t address;
  std::array<uint8_t, 32> storage;
  size_t length;
  std::string_view text; // "call   1136 <foo>", tabs and all

  std::span<const uint8_t> bytes() const { return {storage.data(), length}; }
};

inline int hex_digit(char c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// "  401136:\t48 89 e5             \tmov    %rsp,%rbp"
inline bool parse_listed(std::string_view line, Listed& out) {
  size_t colon = line.find(":\t");
  if (colon == std::string_view::npos || line.empty() || line[0] != ' ')
    return false;
  out.address = 0;
  for (char c : line.substr(0, colon)) {
    if (int digit = hex_digit(c); digit >= 0)
      out.address = out.address << 4 | static_cast<uint64_t>(digit);
  }
  size_t i = colon + 2;
  out.length = 0;
  while (i + 1 < line.size() && out.length < out.storage.size()) {
    int high = hex_digit(line[i]), low = hex_digit(line[i + 1]);
    if (high < 0 || low < 0)
      break;
    out.storage[out.length++] = static_cast<uint8_t>(high << 4 | low);
    i += 3;
  }
  size_t tab = line.find('\t', i < line.size() ? i - 1 : line.size());
  out.text = tab == std::string_view::npos ? std::string_view() : line.substr(tab + 1);
  while (!out.text.empty() && (out.text.back() == '\n' || out.text.back() == ' '))
    out.text.remove_suffix(1);
  return out.length > 0;
}

// visit(const Listed&) for each; how many there were, 0 when objdump could not be run.
template <class Visit>
size_t for_each_listed(const std::string& file, const char* options, Visit&& visit) {
  std::string command = "LC_ALL=C objdump -d -w " + std::string(options) + " " + file;
  auto close = [](FILE* f) { pclose(f); };
  std::unique_ptr<FILE, decltype(close)> pipe(popen(command.c_str(), "r"), close);
  if (!pipe)
    return 0;
  size_t count = 0;
  char line[1024];
  Listed listed;
  while (fgets(line, sizeof line, pipe.get())) {
    if (parse_listed(line, listed)) {
      visit(const_cast<const Listed&>(listed));
      ++count;
    }
  }
  return count;
}

} // namespace dune::disasm::test
