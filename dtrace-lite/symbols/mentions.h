// Whether the DWARF of a file can have something of a name, before the DWARF is opened: opening it
// decompresses all of it (10 MB for the C library's), and looking through it visits every unit, for
// names that most modules do not have. This reads the strings, once for each name, and keeps
// nothing. "Yes" may be wrong; "no" is not.
#pragma once

#include "dtrace-lite/symbols/elf_file.h"

#include <map>

namespace ddbg::symbols {

class Module;

class Mentions {
public:
  explicit Mentions(Module& module) : module_(module) {}

  // A function, variable, type, namespace or enumerator. `component`: one name, without scope; what
  // DWARF has after it in angle brackets does not count.
  bool name(std::string_view component);
  // A source file, by its last component.
  bool file(std::string_view base_name);

private:
  using Known = std::map<std::string, bool, std::less<>>;
  bool search(Known& known, std::string_view text, std::span<const std::string_view> sections);

  Module& module_;
  Known names_, files_;
};

// "f" of "ns::S<int>::f<char>(int)"; of an operator the whole.
std::string_view last_component(std::string_view typed);
// "max<int>" -> "max"; operators keep their angles.
std::string_view without_template_arguments(std::string_view name);

} // namespace ddbg::symbols
