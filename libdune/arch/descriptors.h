// Segment, task and interrupt descriptors of 64-bit mode (AMD64 Architecture Programmer's Manual 2,
// "Segmented Virtual Memory", "Exceptions and Interrupts"), with Linux's selectors, so that a
// program sees the ones it knows. Freestanding-clean.
#pragma once

#include "libdune/base/types.h"

namespace dune {

inline constexpr uint16_t kKernelCode = 0x10, kKernelData = 0x18, kUserCode32 = 0x23,
                          kUserData = 0x2b, kUserCode = 0x33, kTaskSelector = 0x40,
                          kProcessorNumber = 0x7b; // whose limit it is

// Exceptions by vector.
inline constexpr uint32_t kVectorDebug = 1, kVectorBreakpoint = 3, kVectorOverflow = 4,
                          kVectorIllegal = 6, kVectorDoubleFault = 8, kVectorGeneralProtection = 13,
                          kVectorPageFault = 14, kVectorX87 = 16, kVectorSimd = 19;
// Of the reserved ones, ours: only by INT n in ring 0.
inline constexpr uint32_t kVectorRing3 = 24, // to ring 3
    kVectorRing3Call = 25,                   // a system call of ring 3
    kVectorAttention = 26;                   // the host side wants a thread out of ring 3
inline constexpr uint32_t kExceptionVectors = 32;
constexpr bool pushes_error_code(uint32_t vector) {
  constexpr uint32_t kWithCode = 1u << 8 | 0x1fu << 10 | 1u << 17 | 1u << 21 | 3u << 29;
  return vector < kExceptionVectors && (kWithCode >> vector & 1);
}

// What an exception pushes, below an error code if it has one.
struct TrapFrame {
  uint64_t rip, cs, eflags, rsp, ss;
};

struct [[gnu::packed]] Gate {
  uint16_t offset_low;
  uint16_t selector;
  uint8_t stack; // index into the TSS's IST, 0: none
  uint8_t type;
  uint16_t offset_middle;
  uint32_t offset_high;
  uint32_t reserved;
};

enum class GateType : uint8_t {
  kInterrupt = 0xe, // IF is 0 in the handler
  kTrap = 0xf,      // and there as it was
};
// `callable`: ring 3 may raise it by INT n, not only the processor.
constexpr Gate make_gate(GateType type, TargetAddr to, uint16_t selector, uint8_t stack,
                         bool callable) {
  return {static_cast<uint16_t>(to.value),
          selector,
          stack,
          static_cast<uint8_t>(0x80 | static_cast<uint8_t>(type) | (callable ? 0x60 : 0)),
          static_cast<uint16_t>(to.value >> 16),
          static_cast<uint32_t>(to.value >> 32),
          0};
}

struct Idt {
  Gate gates[256];
};
static_assert(sizeof(Idt) == kPageSize);

// Ports up to kPorts have a bit each; set: ring 3 may not.
inline constexpr uint32_t kPorts = 256;

struct [[gnu::packed]] Tss {
  uint32_t reserved0;
  uint64_t rsp[3];
  uint64_t reserved1;
  uint64_t ist[7]; // ist[0] is stack 1
  uint64_t reserved2;
  uint16_t reserved3;
  uint16_t io_map; // offset of io_forbidden
  uint8_t io_forbidden[kPorts / 8];
  uint8_t io_end; // all ones, required behind the map
};
static_assert(offsetof(Tss, io_forbidden) == 104);

struct Gdt {
  uint64_t entries[16]; // by selector / 8; the task's takes two

  void show_processor(uint32_t number) {
    constexpr uint64_t kReadOnlyData = 0x0000f50000000000;
    entries[kProcessorNumber / 8] =
        kReadOnlyData | (number & 0xffff) | uint64_t{number >> 16 & 0xf} << 48;
  }
};

// Accessed bits are set, and the task is busy: the processor has no reason to write here.
constexpr Gdt make_gdt(TargetAddr tss) {
  Gdt g{};
  g.entries[kKernelCode / 8] = 0x00af9b000000ffff;
  g.entries[kKernelData / 8] = 0x00cf93000000ffff;
  g.entries[kUserCode32 / 8] = 0x00cffb000000ffff;
  g.entries[kUserData / 8] = 0x00cff3000000ffff;
  g.entries[kUserCode / 8] = 0x00affb000000ffff;
  g.entries[kTaskSelector / 8] = (sizeof(Tss) - 1) | (tss.value & 0xffffff) << 16 | 0x8bull << 40 |
                                 (tss.value >> 24 & 0xff) << 56;
  g.entries[kTaskSelector / 8 + 1] = tss.value >> 32;
  return g;
}

} // namespace dune
