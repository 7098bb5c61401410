// A file as the debugger uses it: ELF, its debug file, symbols, lines, functions, CFI; each opened
// when first asked for. Link addresses throughout: where it is loaded is the module map's matter.
// Not thread-safe (libdw is not): one thread uses a module.
#pragma once

#include "dtrace-lite/symbols/debug_file.h"
#include "dtrace-lite/symbols/elf_symbols.h"
#include "dtrace-lite/symbols/functions.h"
#include "dtrace-lite/symbols/lines.h"

namespace ddbg::symbols {

class DebugInfo; // dwarf_internal.h
class CfiTable;  // cfi_table.h
class Mentions;  // mentions.h

// What has been read so far; shows that nothing is read that is not needed.
struct ReadCounters {
  size_t dwarf_opened = 0;  // handles made; libdw decompresses all of a file's DWARF then
  size_t units_opened = 0;  // compilation units whose top DIE was read
  size_t units_scanned = 0; // units whose functions were enumerated
  size_t line_programs = 0; // line programs decoded in full
  size_t line_headers = 0;  // line program headers read (file names only)
  size_t symbols_demangled = 0;
};

class Module {
public:
  static Checked<std::unique_ptr<Module>> open(const std::string& path,
                                               const DebugFileOptions& options = {});
  static Checked<std::unique_ptr<Module>> from_memory(std::vector<std::byte> image,
                                                      std::string name);
  ~Module();
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  const ElfFile& elf() const { return *elf_; }
  const std::string& path() const { return elf_->path(); }
  ElfSymbols& symbols();
  Lines& lines();
  Functions& functions();

  // Null when there is no DWARF for this file. Internal to symbols/: see dwarf_internal.h.
  DebugInfo* debug_info();
  Mentions& mentions();
  CfiTable& cfi();
  // CFI covers pc: a caller can be found from there without frame pointers.
  bool unwind_row_exists(LinkAddr pc);

  bool has_debug_info() { return debug_info() != nullptr; }
  // The file, or its separate one, has a section of that name: says nothing of its health, but
  // reads nothing either. Opening DWARF decompresses all of it (60 ms for the C library's).
  bool has_debug_section();
  const ElfFile* separate_debug_file(); // null when there is none
  ReadCounters& counters() { return counters_; }
  // Damage and mismatches met so far, each a sentence.
  std::vector<std::string>& warnings() { return warnings_; }

private:
  explicit Module(std::unique_ptr<ElfFile> elf, DebugFileOptions options);

  std::unique_ptr<ElfFile> elf_;
  DebugFileOptions options_;
  std::vector<std::string> warnings_;
  ReadCounters counters_;
  bool debug_file_sought_ = false;
  bool debug_info_sought_ = false;
  std::unique_ptr<ElfFile> debug_file_;
  // In this order: what is later uses what is before.
  std::unique_ptr<DebugInfo> debug_info_;
  std::unique_ptr<ElfSymbols> symbols_;
  std::unique_ptr<Lines> lines_;
  std::unique_ptr<Functions> functions_;
  std::unique_ptr<CfiTable> cfi_;
  std::unique_ptr<Mentions> mentions_;
};

} // namespace ddbg::symbols
