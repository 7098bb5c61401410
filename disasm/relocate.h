// Displaced instructions: what a patch overwrites, made to run elsewhere with the same effect.
// Two steps, so that whatever cannot be done is refused before anything is written:
//
//   auto plan = plan_relocation(bytes, source, {.cover = 5});
//   if (!plan) tell the user refusal_text(plan.error().why);
//   reserve plan->max_size() bytes at some address;
//   Relocated copy = plan->commit(destination);            // cannot fail
//
// The copy keeps every register, every flag, the red zone, and what a call leaves on the stack (the
// program's own return address, never ours). It uses no memory but the target's stack, further down
// than the red zone. What a program could still tell, and is not hidden: how long it takes; the rip
// that fnstenv, fsave and fxsave report; rcx between a displaced syscall and the instruction after
// it (see Relocated::syscall_offset); the word below rsp in the handler of a fault that an indirect
// call raised, because its return address may have been written there already.
//
// A caller may put code of its own before the copy (commit at the address behind it) and after it
// (Tail::kNone, then its code begins at copy.bytes.size(), if plan.falls_through()).
#pragma once

#include "libdune/arch/registers.h"
#include "libdune/base/result.h"
#include "libdune/base/types.h"

#include <cstdint>
#include <span>
#include <vector>

namespace dune::disasm {

// X(name, text): why an instruction cannot be relocated. The text completes "cannot patch here: ".
#define DUNE_DISASM_REFUSALS(X)                                                                    \
  X(kUndecodable, "these bytes are no instruction that the decoder knows")                         \
  X(kTruncated, "the readable bytes end inside the instruction")                                   \
  X(kDecodersDisagree, "two decoders disagree on the instruction's length")                        \
  X(kRunsOff, "control leaves before enough bytes for the patch are covered")                      \
  X(kFarBranch, "a far jump or call names its own code segment and position")                      \
  X(kTransaction, "xbegin starts a transaction, which a copy would abort")                         \
  X(kSystemEntry, "sysenter and sysret resume at an address of their own")                         \
  X(kEipRelative, "a 32-bit instruction-pointer-relative operand cannot be rewritten")             \
  X(kNarrowBranch, "a 16-bit branch means different things on Intel and AMD processors")           \
  X(kIntoPatch, "it branches into the middle of the bytes to be overwritten")                      \
  X(kReadsPatch, "it reads or writes the bytes to be overwritten")                                 \
  X(kShadowStack, "a displaced call would not match the thread's shadow stack")                    \
  X(kStackPointer, "it uses the stack in a way that a copy cannot repeat")                         \
  X(kNoScratch, "it leaves no register free to address its operand")                               \
  X(kUnusualEncoding, "its encoding is one that the relocator does not rewrite")                   \
  X(kDisplacement, "its displacement leaves no room for an adjusted stack pointer")

enum class Refusal : uint8_t {
#define DUNE_X(name, text) name,
  DUNE_DISASM_REFUSALS(DUNE_X)
#undef DUNE_X
};
const char* refusal_name(Refusal why); // "kFarBranch"
const char* refusal_text(Refusal why);

struct Refused {
  Refusal why;
  TargetAddr at; // the instruction
};

// What a signal or a step that finds the instruction pointer inside a copy does with it.
enum class BoundaryState : uint8_t {
  kExact,  // the machine is where the program would be at `original`: only rip differs
  kUndo,   // it is, once `rsp_add` and `saved` below are applied: nothing else has happened yet
  kStepOn, // run on to the next boundary first (a handful of instructions that cannot fault)
};

struct SavedRegister {
  Reg reg;
  int16_t at; // the value lies in memory at rsp + at, rsp as found
};

struct Boundary {
  TargetAddr original;
  uint16_t offset; // in the copy: the instruction pointer is at destination + offset
  BoundaryState state;
  uint8_t saved_count;
  int16_t rsp_add; // the program's rsp is the rsp found plus this
  SavedRegister saved[2];
};

// Puts registers found at a boundary into the state the program would have at `original`.
// read(uint64_t address) -> uint64_t reads the target's stack. Not for kStepOn.
template <class Read> void apply_boundary(const Boundary& b, Registers& r, Read&& read) {
  for (unsigned i = 0; i < b.saved_count; ++i)
    register_at(r, b.saved[i].reg) = read(r.rsp + static_cast<int64_t>(b.saved[i].at));
  r.rsp += static_cast<int64_t>(b.rsp_add);
  r.rip = b.original.value;
}

struct Relocated {
  static constexpr uint16_t kNone = 0xffff;

  std::vector<uint8_t> bytes;
  // One per instruction of the copy, by rising offset; complete: no rip inside the copy can be
  // elsewhere. With Tail::kJumpBack the last one is the jump back, if control can get there: exact,
  // original = the instruction after the source. With Tail::kNone it is the end of `bytes`.
  std::vector<Boundary> boundaries;
  uint16_t fallthrough_offset =
      kNone; // of that last boundary; kNone if control cannot fall through
  // The first `syscall` (or int $0x80) of the copy. The kernel leaves its return address in rcx;
  // the copy puts the program's own there in the next instruction, so rcx is ours for that one
  // boundary, which is called exact all the same: system calls clobber rcx, and a thread that is
  // blocked or restarted there must be recognised as being at the original's next instruction.
  uint16_t syscall_offset = kNone;

  // nullptr when `offset` is inside an instruction or outside the copy.
  const Boundary* boundary_at(uint64_t offset) const;
};

enum class Tail : uint8_t {
  kJumpBack, // jmp to the original's next instruction (absolute when rel32 does not reach)
  kNone,     // the caller appends what follows
};

struct RelocateOptions {
  size_t cover = 1;          // how many bytes the patch overwrites: 1 trap site, 5 jump site
  bool shadow_stack = false; // the target runs with ARCH_SHSTK: calls cannot be displaced
};

struct PlannedInstruction; // relocate_internal.h

class RelocationPlan {
public:
  RelocationPlan(RelocationPlan&&) noexcept;
  RelocationPlan& operator=(RelocationPlan&&) noexcept;
  ~RelocationPlan();

  TargetAddr source() const { return source_; }
  // Bytes of whole instructions covered: at least options.cover.
  size_t source_length() const { return source_length_; }
  TargetAddr source_end() const { return source_ + source_length_; }
  size_t instruction_count() const;
  // Can control reach the end of the copy (not after jmp, ret, ud2, ...)? Calls return to the
  // original, so a call as the last instruction does not fall through either.
  bool falls_through() const { return falls_through_; }
  bool contains_syscall() const { return contains_syscall_; }
  bool contains_call() const { return contains_call_; }
  // Enough for any destination and either tail.
  size_t max_size() const { return max_size_; }

  Relocated commit(TargetAddr destination, Tail tail = Tail::kJumpBack) const;

private:
  friend struct Planner;
  RelocationPlan();
  TargetAddr source_;
  size_t source_length_ = 0;
  size_t max_size_ = 0;
  bool falls_through_ = true;
  bool contains_syscall_ = false;
  bool contains_call_ = false;
  std::vector<PlannedInstruction> instructions_;
};

// `bytes` are the original ones (sites of ours already taken out) and may go on beyond what is
// needed.
Result<RelocationPlan, Refused> plan_relocation(std::span<const uint8_t> bytes, TargetAddr source,
                                                const RelocateOptions& options = {});

} // namespace dune::disasm
