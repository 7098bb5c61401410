// One step up the stack: the caller's registers from the callee's, by CFI (.eh_frame,
// .debug_frame), without frame pointers; where there is no CFI, by gdb's amd64 prologue heuristics.
#pragma once

#include "dtrace-lite/symbols/memory.h"
#include "dtrace-lite/symbols/module_map.h"
#include "libdune/arch/registers.h"

#include <bitset>

namespace ddbg::symbols {

// Registers of which some are known: a thread blocked in the kernel shows a few, and a caller's
// scratch registers are lost.
class KnownRegisters {
public:
  KnownRegisters() = default;
  explicit KnownRegisters(const dune::Registers& all) : values_(all) { known_.set(); }

  bool known(dune::Reg r) const { return known_.test(static_cast<size_t>(r)); }
  std::optional<uint64_t> get(dune::Reg r) const {
    if (!known(r))
      return std::nullopt;
    return dune::register_at(values_, r);
  }
  void set(dune::Reg r, uint64_t value) {
    dune::register_at(values_, r) = value;
    known_.set(static_cast<size_t>(r));
  }
  void forget(dune::Reg r) { known_.reset(static_cast<size_t>(r)); }
  const dune::Registers& values() const { return values_; } // unknown ones are zero

private:
  dune::Registers values_{};
  std::bitset<dune::kRegisterCount> known_;
};

struct UnwindFrame {
  KnownRegisters registers;
  TargetAddr pc() const { return TargetAddr(registers.values().rip); }
  TargetAddr cfa; // set once the frame has been unwound; identifies it
  // True for the innermost frame and for one that a signal interrupted: pc is the instruction
  // itself. False for a caller: pc is a return address, and belongs to the call before it.
  bool pc_is_exact = true;
  bool is_signal_trampoline = false; // gdb shows "<signal handler called>"
  // The address to look symbols up with.
  TargetAddr lookup_pc() const { return pc_is_exact ? pc() : pc() - 1; }
};

enum class UnwindEnd {
  kNone,        // there is a caller
  kOutermost,   // CFI says so (return address undefined), or return address 0
  kUnreadable,  // the stack cannot be read
  kNoProgress,  // the caller would be the same frame, or lies below (corrupt stack)
  kUnknownCode, // pc is in no module and the heuristics found nothing
  kMissing,     // a register that is needed is not known
};
const char* describe(UnwindEnd); // as gdb says it: "Backtrace stopped: ..."; empty for kOutermost

class Unwinder {
public:
  Unwinder(ModuleMap& modules, MemoryReader read);
  ~Unwinder();

  struct Step {
    UnwindEnd end = UnwindEnd::kNone;
    UnwindFrame caller; // valid when end is kNone
  };
  // Fills in callee.cfa and callee.is_signal_trampoline.
  Step up(UnwindFrame& callee);
  // The innermost frame and its callers, at most `limit`; stops after main unless `past_main`.
  struct Trace {
    std::vector<UnwindFrame> frames;
    UnwindEnd end = UnwindEnd::kNone; // kNone: the limit or main was reached
  };
  Trace backtrace(const KnownRegisters& innermost, size_t limit, bool past_main = false);
  // After modules came or went, or code was written.
  void forget_cached();

private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

} // namespace ddbg::symbols
