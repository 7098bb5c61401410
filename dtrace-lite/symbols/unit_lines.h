// One unit's line table in gdb's form: per source file a list of (address, line, statement?), built
// by gdb's rules for consecutive rows, file switches and sequence ends, because breakpoint
// addresses and step ranges follow from exactly that list. Internal to symbols/.
#pragma once

#include "dtrace-lite/symbols/line_program.h"
#include "dtrace-lite/symbols/lines.h"

namespace ddbg::symbols {

struct LineItem {
  LinkAddr pc;
  unsigned line; // 0: what follows belongs to no line of this file
  bool is_statement;
  bool prologue_end = false; // the compiler marked the end of a prologue here
};

struct UnitLines {
  struct PerFile {
    const SourceFile* file;
    std::vector<LineItem> items; // sorted by pc; line 0 first among equals
  };
  std::vector<const SourceFile*> file_table; // by number, null where the number means nothing
  std::vector<PerFile> files;

  // gdb's find_pc_sect_line.
  std::optional<LineSpan> find(LinkAddr pc) const;
  const PerFile* items_of(const SourceFile* file) const;
};

// `is_code` tells code from what the linker dropped. `file_table` is filled in already.
void build_unit_lines(const LineSections& sections, const LineHeader& header,
                      const std::function<bool(LinkAddr)>& is_code, UnitLines& result);

} // namespace ddbg::symbols
