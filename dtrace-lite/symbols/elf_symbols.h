// The symbols of one module: .symtab of the file or of its separate debug file, .dynsym, and the
// names of PLT entries. Indexes are built when a question first needs them; looking up one name
// reads each symbol once and demangles only those that can match.
#pragma once

#include "dtrace-lite/symbols/elf_file.h"

#include <functional>

namespace ddbg::symbols {

enum class SymbolType { kFunction, kObject, kTls, kNone };
enum class SymbolBinding { kLocal, kGlobal, kWeak };

struct Symbol {
  std::string_view linkage_name; // without @VERSION; owned by the file
  LinkAddr address;              // for kTls: offset in the TLS block
  uint64_t size = 0;             // 0 when the file does not say
  SymbolType type = SymbolType::kNone;
  SymbolBinding binding = SymbolBinding::kLocal;
  bool is_ifunc = false; // address is that of the resolver
  bool is_plt = false;   // linkage_name's PLT entry in this module
  bool is_code = false;  // lies in an executable section

  std::string name() const; // demangled; "printf@plt" for a PLT entry
};

class ElfSymbols {
public:
  // `debug` may be null. Both files must outlive this. `demangled` counts the names demangled.
  ElfSymbols(const ElfFile& file, const ElfFile* debug, size_t* demangled = nullptr);
  ~ElfSymbols();
  ElfSymbols(ElfSymbols&&) noexcept;

  bool empty() const;          // neither table has a defined symbol
  bool has_full_table() const; // .symtab, not just .dynsym

  // Symbols whose linkage name is exactly `name` (PLT entries not included), one per address.
  std::vector<Symbol> find(std::string_view linkage_name) const;
  // Code symbols that a person means by `typed`: see NameQuery. PLT entries are not among them.
  // kInclude: also what the compiler made of the function (f.constprop.0, f.isra.0, f.part.0),
  // which gdb takes for the function where DWARF says so.
  enum class Clones { kExclude, kInclude };
  std::vector<Symbol> find_functions(std::string_view typed,
                                     Clones clones = Clones::kExclude) const;
  // Data symbols by linkage name or demangled name.
  std::vector<Symbol> find_variables(std::string_view typed) const;
  std::optional<Symbol> find_plt(std::string_view name) const;
  // Where the module itself keeps what the resolver of an ifunc has answered; nullopt: nowhere.
  std::optional<LinkAddr> ifunc_slot(LinkAddr resolver) const;

  // The symbol that an address belongs to, by gdb's preference: the last one at or below; among
  // those at one address a global function first; not one whose size says that it ended before,
  // unless nothing better is there. Sections do not mix.
  std::optional<Symbol> at(LinkAddr address) const;
  // The same over code symbols only, PLT entries included.
  std::optional<Symbol> function_at(LinkAddr pc) const;
  // Where the next code symbol after pc begins, the end of a function that has no size.
  std::optional<LinkAddr> next_function(LinkAddr pc) const;

  // Names for Tab, demangled, sorted, at most `limit`.
  std::vector<std::string> complete(std::string_view prefix, size_t limit) const;
  // The name nearest to a mistyped one; empty when nothing is near.
  std::string nearest_name(std::string_view typed) const;

  void for_each(const std::function<void(const Symbol&)>& f) const;

private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Number of edits (insert, delete, replace, swap) between two words, for suggestions; gives up
// above `limit` and returns limit + 1.
unsigned edit_distance(std::string_view a, std::string_view b, unsigned limit);

} // namespace ddbg::symbols
