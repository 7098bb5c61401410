// Addresses and source lines (DWARF 2 to 5). Answers are gdb's: the same address for `break f` and
// `break file:line`, the same line and range for a stop. A line program is decoded when the first
// address of its unit is asked for, or when its file table holds a file that is asked for.
#pragma once

#include "dtrace-lite/symbols/elf_file.h"

namespace ddbg::symbols {

class Module;
struct UnitLines; // unit_lines.h

struct SourceFile {
  std::string name;      // as gdb shows it: as given to the compiler
  std::string full_name; // with the compilation directory
};

// What one stretch of code belongs to.
struct LineSpan {
  const SourceFile* file = nullptr; // owned by the module, stable
  unsigned line = 0;                // 0: code that belongs to no line
  LinkRange range; // holds the address asked for; where `step` may stop next is end
  bool is_statement = true;
};

// Where a breakpoint goes.
struct CodePlace {
  LinkAddr address;
  const SourceFile* file = nullptr; // null without line information
  unsigned line = 0;
  bool is_ifunc = false;   // address is the resolver's entry: break where it leads to
  bool is_inlined = false; // an inlined copy of the function
};

class Lines {
public:
  explicit Lines(Module& module);
  ~Lines();

  bool available(); // the module has line tables at all
  std::optional<LineSpan> find(LinkAddr pc);
  // Where the body of the function that begins at `entry` begins, by gdb's rules for amd64.
  LinkAddr after_prologue(LinkAddr entry);
  // `break file:line`. `file` matches whole trailing components of a name. When the line has no
  // code the next line that has some is taken. Empty: no such file, or no code at or after the
  // line.
  std::vector<CodePlace> places(std::string_view file, unsigned line);
  // Every source file whose name ends in `file` (whole components); all of them for "".
  std::vector<const SourceFile*> files(std::string_view file = {});

  // For the rest of symbols/: a unit's table by an address, and what DW_AT_decl_file numbers mean
  // in the unit whose DIE is at `unit`. Null when there is none.
  const UnitLines* unit_lines_at(LinkAddr pc);
  const SourceFile* file_by_number(uint64_t unit, uint64_t number);

private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// True when `pattern` is `name` or a trailing part of it that begins after a '/'.
bool file_name_matches(std::string_view name, std::string_view pattern);

} // namespace ddbg::symbols
