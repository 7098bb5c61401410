// libdw's handles, for files inside symbols/ only: never include this from another folder.
#pragma once

#include "dtrace-lite/symbols/module.h"

#include <elfutils/libdw.h>
#include <map>

namespace ddbg::symbols {

// One compilation unit. Link addresses are the same in a file and in its separate debug file.
struct Unit {
  Dwarf_Die die;
  Dwarf_Off offset; // of the unit's DIE
};

// What the children of one unit's DIE are: its functions by address, the scopes that give names
// their prefix, and the functions that exist to be inlined.
class UnitIndex {
public:
  explicit UnitIndex(const Unit& unit);

  struct FunctionRange {
    LinkRange range;
    Dwarf_Off die;
  };
  const std::vector<FunctionRange>& functions() const { return functions_; } // sorted by begin
  std::optional<Dwarf_Off> function_at(LinkAddr pc) const;
  // "ns::Class" for a DIE that lies in them; empty at the top.
  std::string scope_of(Dwarf_Off die) const;
  // Abstract instances (DW_AT_inline says inlined), with their plain names.
  struct Inlinable {
    std::string_view name;
    Dwarf_Off die;
  };
  const std::vector<Inlinable>& inlinable() const { return inlinable_; }

private:
  void walk(Dwarf_Die first, int parent, Dwarf_Off end, int depth);

  struct Scope { // a namespace or class: the DIEs in [begin, end)
    Dwarf_Off begin, end;
    std::string_view name;
    int parent;
  };
  std::vector<FunctionRange> functions_;
  std::vector<Scope> scopes_; // in order of begin
  std::vector<Inlinable> inlinable_;
};

// The Dwarf handle of a module and its units.
class DebugInfo {
public:
  // Null when `file` has no .debug_info. Both files must outlive this.
  static std::unique_ptr<DebugInfo> open(const ElfFile& file, const DebugFileOptions& options,
                                         ReadCounters& counters,
                                         std::vector<std::string>& warnings);
  ~DebugInfo();
  DebugInfo(const DebugInfo&) = delete;
  DebugInfo& operator=(const DebugInfo&) = delete;

  Dwarf* dwarf() const { return dwarf_; }
  Elf* elf() const { return elf_; }
  const ElfFile& file() const { return file_; }
  ReadCounters& counters() { return counters_; }

  // All compilation units in file order (partial and type units left out). Reads the top DIE of
  // each.
  const std::vector<Unit>& units();
  // The unit whose code holds pc: by .debug_aranges, else by the units' own ranges.
  const Unit* unit_at(LinkAddr pc);
  const UnitIndex& index_of(const Unit& unit);
  // The unit that a DIE belongs to; null for a DIE of a partial or type unit, or of the dwz file.
  const Unit* unit_of(Dwarf_Die* die);
  // A section's content, decompressed; empty when absent.
  Bytes section(std::string_view name);

private:
  DebugInfo(const ElfFile& file, ReadCounters& counters) : file_(file), counters_(counters) {}
  const Unit* unit_by_offset(Dwarf_Off die_offset);
  void terminate_texts(Elf* elf);
  void read_aranges();
  void read_unit_ranges();

  const ElfFile& file_;
  ReadCounters& counters_;
  Elf* elf_ = nullptr;
  Dwarf* dwarf_ = nullptr;
  std::unique_ptr<ElfFile> alternate_;
  Elf* alternate_elf_ = nullptr;
  Dwarf* alternate_dwarf_ = nullptr;
  bool units_read_ = false;
  std::vector<Unit> units_;
  std::map<Dwarf_Off, Unit> opened_units_; // by aranges, before units() was needed
  struct UnitRange {
    LinkRange range;
    Dwarf_Off unit;
  };
  bool aranges_read_ = false;
  bool ranges_read_ = false;
  std::vector<UnitRange> aranges_;     // sorted; from .debug_aranges
  std::vector<UnitRange> unit_ranges_; // sorted; of the units that .debug_aranges does not list
  std::map<Dwarf_Off, std::unique_ptr<UnitIndex>> indexes_;
  std::map<std::string, Bytes, std::less<>> sections_;
  std::vector<std::vector<char>> terminated_; // copies of sections, see terminate_texts
};

// Address ranges of a DIE (low/high or DW_AT_ranges), unsorted; empty when it has none.
std::vector<LinkRange> die_ranges(Dwarf_Die* die);
// Follows abstract_origin and specification.
std::string die_name(Dwarf_Die* die);
std::string die_linkage_name(Dwarf_Die* die);
// The name of a function with its namespaces and classes, as gdb prints it.
std::string qualified_name(Module& module, Dwarf_Die* function);
// The function DIE (DW_TAG_subprogram, concrete) that covers pc.
bool function_die_at(Module& module, LinkAddr pc, Dwarf_Die* result);
// From the function's DIE to the innermost DIE that covers pc: subprogram, lexical blocks and
// inlined subroutines. Empty when there is no DWARF for pc.
std::vector<Dwarf_Die> scopes_at(Module& module, LinkAddr pc);
// The file that a DW_AT_decl_file or DW_AT_call_file of `die` names; null when it is not known.
const SourceFile* file_of(Module& module, Dwarf_Die* die, unsigned attribute);

} // namespace ddbg::symbols
