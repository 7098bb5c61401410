// What one x86-64 instruction is to a debugger: its length, where control goes next, what it names
// in memory relative to rip. Measured by Zydis; nothing of Zydis shows here.
//
// Debian 12's Capstone only prints (print.h). Where the two decoders disagree on a length, decode()
// still says what Zydis says, for a listing; plan_relocation() refuses such an instruction, because
// a copy of a guess must not run.
#pragma once

#include "libdune/base/result.h"
#include "libdune/base/types.h"

#include <optional>
#include <span>
#include <vector>

namespace dune::disasm {

inline constexpr size_t kMaxInstructionLength = 15;

enum class Flow : uint8_t {
  kSequential,      // goes on at the next instruction
  kJump,            // direct jmp: `target`
  kConditionalJump, // jcc: `target` or next
  kLoop,            // loop, loope, loopne, jrcxz, jecxz: `target` or next, tests rcx or ecx
  kIndirectJump,    // jmp through a register or memory
  kCall,            // direct call: `target`, then next
  kIndirectCall,    // call through a register or memory
  kReturn,          // ret, lret, iret, uiret
  kSyscall,         // syscall, int $0x80, sysenter
  kTrap,            // int3, int1, int $n, ud0, ud1, ud2, hlt: the kernel hears of it
  kFar,             // jmp and call that load cs
  kTransaction,     // xbegin: `target` is the abort handler
};

struct Instruction {
  TargetAddr address;
  uint8_t length = 0;
  Flow flow = Flow::kSequential;
  bool falls_through = true; // may the next instruction in memory run after it (calls: on return)?
  bool is_endbr64 = false;
  bool repeats = false; // a string instruction under rep: interrupts come between its iterations
  bool is_nop = false;  // any nop, however long or prefixed (`xchg %ax,%ax` too), but not pause
  std::optional<TargetAddr> target;      // of a direct branch
  std::optional<TargetAddr> rip_operand; // address of the memory operand, when it is rip-relative
  uint16_t rip_operand_size = 0;        // in bytes; 0 when only the address is used (lea, prefetch)
  std::optional<uint32_t> eax_constant; // `mov $n,%eax` (or rax), `xor %eax,%eax`: finds
                                        // system-call numbers
  bool writes_rax = false; // al, ah, ax, eax or rax is an operand (hidden ones too) and may change;
                           // what a callee or the kernel does is not said

  TargetAddr end() const { return address + length; }
  bool is_branch() const { return flow != Flow::kSequential && flow != Flow::kTrap; }
  bool is_call() const { return flow == Flow::kCall || flow == Flow::kIndirectCall; }
};

// The instruction at the start of `bytes`, which lies at `address` in the target.
// Errors: kInvalid when the bytes are no instruction; kExhausted when they end before it does.
Result<Instruction> decode(std::span<const uint8_t> bytes, TargetAddr address);

// A linear decode of a range. `instructions` ends where the range does, or where `stopped` says why
// not (its detail is the offset into the range). An instruction never reaches beyond the range.
struct LinearDecode {
  std::vector<Instruction> instructions;
  std::optional<Error> stopped;
};
LinearDecode decode_range(std::span<const uint8_t> bytes, TargetAddr address);

// The same without keeping them: calls visit(const Instruction&) until it returns false.
// Success when the visitor stopped it or the range was decoded to its end.
template <class Visit>
Status for_each_instruction(std::span<const uint8_t> bytes, TargetAddr address, Visit&& visit) {
  for (size_t at = 0; at < bytes.size();) {
    Result<Instruction> one = decode(bytes.subspan(at), address + at);
    if (!one)
      return Error{one.error().code, one.error().text, static_cast<int64_t>(at)};
    if (!visit(*one))
      return {};
    at += one->length;
  }
  return {};
}

// How many bytes of nops begin at `bytes` (compilers' padding); int3 padding does not count.
size_t nop_padding(std::span<const uint8_t> bytes);

} // namespace dune::disasm
