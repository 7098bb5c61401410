// Functions by address and by name, and what was inlined into them. From DWARF where there is some,
// else from ELF symbols, else from .eh_frame.
#pragma once

#include "dtrace-lite/symbols/lines.h"

namespace ddbg::symbols {

struct Function {
  enum class Source { kDwarf, kSymbol, kFrameTable };
  Source source = Source::kSymbol;
  std::string name; // as gdb prints it in a backtrace; empty for kFrameTable
  std::string linkage_name;
  LinkAddr entry;
  std::vector<LinkRange> ranges; // the first holds entry; more when the compiler split it (.cold)
  const SourceFile* file = nullptr; // of the declaration; null when unknown
  unsigned line = 0;
  bool is_ifunc = false;
  uint64_t die = 0; // section offset of its DIE (kDwarf), for the types and variables

  LinkRange range() const { return ranges.empty() ? LinkRange{entry, entry + 1} : ranges.front(); }
};

// One inlined call that covers an address.
struct InlinedCall {
  std::string function;                  // what was inlined
  const SourceFile* call_file = nullptr; // where it was called from
  unsigned call_line = 0;
  std::vector<LinkRange> ranges;
  LinkAddr entry;
  uint64_t die = 0;
};

class Functions {
public:
  explicit Functions(Module& module);
  ~Functions();

  std::optional<Function> at(LinkAddr pc);
  // Innermost first; empty when nothing is inlined at pc.
  std::vector<InlinedCall> inlined_at(LinkAddr pc);
  // `break NAME`: every instance that a person means, past the prologue; inlined copies included.
  std::vector<CodePlace> places(std::string_view typed);
  // Entry points only, for `tbreak *f`, `disassemble f`, `print f`. PLT entries are not found here:
  // ElfSymbols::find_plt has them, for a function that no module defines yet.
  std::vector<Function> find(std::string_view typed);
  // As gdb lists it: with its parameters, where the language has overloads.
  std::string listed_name(const Function& function);

private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

} // namespace ddbg::symbols
