#include "dtrace-lite/symbols/cfi_table.h"

#include <cstdlib>

namespace ddbg::symbols {

CfiTable::CfiTable(Module& module) : module_(module) {}

CfiTable::~CfiTable() {
  clear();
  if (eh_)
    dwarf_cfi_end(eh_);
  if (elf_)
    elf_end(elf_);
}

void CfiTable::clear() {
  for (const auto& [pc, frame] : rows_)
    std::free(frame); // libdw's contract: one malloc'd block
  rows_.clear();
}

Dwarf_Frame* CfiTable::row(LinkAddr pc) {
  const auto [it, fresh] = rows_.try_emplace(pc.value, nullptr);
  if (!fresh)
    return it->second;
  if (!opened_) {
    opened_ = true;
    elf_version(EV_CURRENT);
    const Bytes image = module_.elf().image();
    elf_ = elf_memory(const_cast<char*>(reinterpret_cast<const char*>(image.data())), image.size());
    if (elf_)
      eh_ = dwarf_getcfi_elf(elf_);
  }
  Dwarf_Frame* frame = nullptr;
  if (eh_ && dwarf_cfi_addrframe(eh_, pc.value, &frame) == 0)
    return it->second = frame;
  // .debug_frame is read only where .eh_frame has nothing: it takes the debug file.
  if (!debug_sought_) {
    debug_sought_ = true;
    DebugInfo* info = module_.debug_info();
    if (info && !info->section(".debug_frame").empty())
      debug_ = dwarf_getcfi(info->dwarf());
  }
  if (debug_ && dwarf_cfi_addrframe(debug_, pc.value, &frame) == 0)
    it->second = frame;
  return it->second;
}

} // namespace ddbg::symbols
