// SystemTap's static probes (.note.stapsdt): places that a library's authors named, with what they
// pass there. glibc, libgcc and libstdc++ mark longjmp and the unwinding of exceptions with them
// where the distribution builds them so. The note's format: sourceware.org/systemtap/wiki,
// "UserSpaceProbeImplementation"; the operands are the assembler's.
#pragma once

#include "dtrace-lite/symbols/elf_file.h"
#include "dtrace-lite/symbols/unwind_cfi.h"

namespace ddbg::symbols {

// "-4@%eax", "8@$24", "8@-16(%rbp,%rax,8)": where a value is, and how wide.
struct ProbeOperand {
  enum class Kind { kRegister, kConstant, kMemory } kind = Kind::kConstant;
  unsigned size = 8; // bytes: 1, 2, 4 or 8
  bool is_signed = false;
  std::optional<dune::Reg> base, index; // kRegister: base
  unsigned shift = 0;                   // kRegister: 8 for %ah and its like
  uint64_t scale = 1;
  int64_t constant = 0; // kMemory: the displacement

  // nullopt: a form that no x86-64 compiler writes, or a symbol's name in it.
  static std::optional<ProbeOperand> parse(std::string_view text);
  // Extended to 64 bits. nullopt: a register is not known, or memory cannot be read.
  std::optional<uint64_t> value(const KnownRegisters& registers, const MemoryReader& read) const;
};

struct Probe {
  std::string_view provider, name; // owned by the file
  std::string_view arguments;
  LinkAddr address;
  LinkAddr semaphore; // 0: always on

  // The `index`-th argument.
  std::optional<ProbeOperand> argument(unsigned index) const;
};

// In the file's order; none when it has no such section.
std::vector<Probe> read_probes(const ElfFile& file);

} // namespace ddbg::symbols
