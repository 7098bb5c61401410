// CFI of one module, by libdw: rows of the unwind table by link address, cached. Internal to
// symbols/.
#pragma once

#include "dtrace-lite/symbols/dwarf_internal.h"

#include <unordered_map>

namespace ddbg::symbols {

class CfiTable {
public:
  explicit CfiTable(Module& module);
  ~CfiTable();
  CfiTable(const CfiTable&) = delete;
  CfiTable& operator=(const CfiTable&) = delete;

  // The row for pc; null when no FDE covers it or its instructions are damaged. Owned by the table.
  Dwarf_Frame* row(LinkAddr pc);
  void clear();

private:
  Module& module_;
  bool opened_ = false;
  bool debug_sought_ = false;
  Elf* elf_ = nullptr;
  Dwarf_CFI* eh_ = nullptr;    // owned by elf's handle: ended explicitly
  Dwarf_CFI* debug_ = nullptr; // owned by the Dwarf
  std::unordered_map<uint64_t, Dwarf_Frame*> rows_;
};

} // namespace ddbg::symbols
