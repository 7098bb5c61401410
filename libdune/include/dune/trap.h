// Exceptions of a program in Dune mode: they come to a handler of the program's in ring 0, without
// the kernel. Each runs on a stack of its own, so the red zone of what it has interrupted is safe.
// The stack has 28 KiB, or 12 beside the vector registers unless they are kUntouched; behind it is
// a page that faults. Seven can be under way within one another. An eighth ends the program, as
// SIGSEGV that says so.
#pragma once

#include <dune/base/result.h>

#include <cstdint>

namespace dune {

// What a handler finds; what it changes, the program goes on with.
struct Trap {
  uint64_t looked_at; // ours
  uint64_t rax, rdx, rcx, rbx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15;
  uint64_t address; // of a page fault: what was accessed
  uint64_t vector;
  uint64_t error; // the processor's error code, 0 where there is none
  uint64_t rip, cs, eflags, rsp, ss;

  bool from_ring3() const { return cs & 3; }
};

namespace vector {
inline constexpr uint32_t kDivide = 0, kDebug = 1, kBreakpoint = 3, kIllegalInstruction = 6,
                          kGeneralProtection = 13, kPageFault = 14, kFloatingPoint = 16,
                          kAlignment = 17, kSimd = 19;
inline constexpr uint32_t kRing3SystemCall = 25; // `syscall` in ring 3; its number is in rax
} // namespace vector

// Error code of a page fault.
enum PageFaultError : uint64_t {
  kFaultWasPresent = 1,
  kFaultWasWrite = 2,
  kFaultWasInRing3 = 4,
  kFaultWasFetch = 16,
};

// True: dealt with, go on with `trap`. False: as if there were no handler. Then the process gets
// the signal that the exception would be without Dune mode; what ring 3 did comes out of
// run_ring3().
//
// It may do what a signal's handler may, with any function that takes no lock which the interrupted
// code may hold, and raise exceptions. It may not leave by longjmp or an exception of C++.
// In a child that it forks it goes on to its end, and the program behind it, outside of Dune mode.
using TrapHandler = bool (*)(Trap& trap);

enum class VectorRegisters {
  kSaved,
  kUntouched, // the handler uses none (-mgeneral-regs-only): it costs less
};

// The handler for an exception, of all threads; null: none.
// A page fault comes to it when the access is one that protect() refuses, or when the process has
// no such page. Not when the page is the process's and has just not been seen by the guest yet.
// kInvalid: no exception that a program can have a handler for.
Status set_trap_handler(uint32_t vector, TrapHandler, VectorRegisters = VectorRegisters::kSaved);

} // namespace dune
