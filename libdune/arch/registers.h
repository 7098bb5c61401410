// The general registers of x86-64: one row per register, from which every table follows.
// Freestanding-clean.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dune {

// X(name, DWARF number (System V psABI figure 3.36; -1: none))
// The order is the layout of struct Registers, and so part of the session's contract.
#define DUNE_REGISTERS(X)                                                                          \
  X(rax, 0)                                                                                        \
  X(rdx, 1)                                                                                        \
  X(rcx, 2)                                                                                        \
  X(rbx, 3)                                                                                        \
  X(rsi, 4)                                                                                        \
  X(rdi, 5)                                                                                        \
  X(rbp, 6)                                                                                        \
  X(rsp, 7)                                                                                        \
  X(r8, 8)                                                                                         \
  X(r9, 9)                                                                                         \
  X(r10, 10)                                                                                       \
  X(r11, 11)                                                                                       \
  X(r12, 12)                                                                                       \
  X(r13, 13)                                                                                       \
  X(r14, 14)                                                                                       \
  X(r15, 15)                                                                                       \
  X(rip, 16)                                                                                       \
  X(eflags, 49)                                                                                    \
  X(cs, 51)                                                                                        \
  X(ss, 52)                                                                                        \
  X(ds, 53)                                                                                        \
  X(es, 50)                                                                                        \
  X(fs, 54)                                                                                        \
  X(gs, 55)                                                                                        \
  X(fs_base, 58)                                                                                   \
  X(gs_base, 59)

struct Registers {
#define DUNE_X(name, dwarf) uint64_t name;
  DUNE_REGISTERS(DUNE_X)
#undef DUNE_X
};

enum class Reg : uint8_t {
#define DUNE_X(name, dwarf) name,
  DUNE_REGISTERS(DUNE_X)
#undef DUNE_X
};

struct RegisterInfo {
  const char* name;
  int dwarf_number;
  uint16_t offset; // in struct Registers; every register is 8 bytes there
};

inline constexpr RegisterInfo kRegisters[] = {
#define DUNE_X(name, dwarf) {#name, dwarf, offsetof(Registers, name)},
    DUNE_REGISTERS(DUNE_X)
#undef DUNE_X
};
inline constexpr size_t kRegisterCount = sizeof(kRegisters) / sizeof(kRegisters[0]);

inline constexpr uint64_t kEflagsTrap = 1u << 8;       // TF
inline constexpr uint64_t kEflagsInterrupts = 1u << 9; // IF

inline uint64_t& register_at(Registers& r, Reg which) {
  return reinterpret_cast<uint64_t*>(&r)[static_cast<size_t>(which)];
}
inline uint64_t register_at(const Registers& r, Reg which) {
  return reinterpret_cast<const uint64_t*>(&r)[static_cast<size_t>(which)];
}

} // namespace dune
