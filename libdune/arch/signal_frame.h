// The kernel's signal ABI on x86-64 (arch/x86/include/uapi/asm/{sigcontext,ucontext,siginfo}.h),
// with names of our own: libc's headers define other types under the same names, and the agent,
// the keeper and the engine must agree on one.
// Freestanding-clean.
#pragma once

#include "libdune/arch/registers.h"

#include <cstddef>
#include <cstdint>

namespace dune {

inline constexpr int kSigHup = 1, kSigInt = 2, kSigQuit = 3, kSigIll = 4, kSigTrap = 5,
                     kSigAbrt = 6, kSigBus = 7, kSigFpe = 8, kSigKill = 9, kSigSegv = 11,
                     kSigChld = 17, kSigCont = 18, kSigStop = 19, kSigTstp = 20, kSigTtin = 21,
                     kSigTtou = 22, kSigUrg = 23, kSigXcpu = 24, kSigXfsz = 25, kSigWinch = 28,
                     kSigSys = 31;
inline constexpr int kSignalCount = 64;

// Set of signals: bit (n - 1) is signal n.
using SignalSet = uint64_t;
constexpr SignalSet signal_bit(int n) { return SignalSet{1} << (n - 1); }
// Whose default action is to be ignored.
inline constexpr SignalSet kDefaultIgnored =
    signal_bit(kSigChld) | signal_bit(kSigCont) | signal_bit(kSigUrg) | signal_bit(kSigWinch);
// Whose default action is to die with a core.
inline constexpr SignalSet kDefaultDumps =
    signal_bit(kSigQuit) | signal_bit(kSigIll) | signal_bit(kSigTrap) | signal_bit(kSigAbrt) |
    signal_bit(kSigBus) | signal_bit(kSigFpe) | signal_bit(kSigSegv) | signal_bit(kSigXcpu) |
    signal_bit(kSigXfsz) | signal_bit(kSigSys);

struct KernelSigaction {
  uint64_t handler;
  uint64_t flags;
  uint64_t restorer;
  SignalSet mask;
};
inline constexpr uint64_t kSigDfl = 0, kSigIgn = 1;
inline constexpr uint64_t kSaNocldstop = 1, kSaNocldwait = 2, kSaSiginfo = 4,
                          kSaExposeTagbits = 0x800, kSaRestorer = 0x04000000,
                          kSaOnstack = 0x08000000, kSaRestart = 0x10000000, kSaNodefer = 0x40000000,
                          kSaResethand = 0x80000000;

struct KernelStack {
  uint64_t sp;
  uint32_t flags;
  uint32_t padding;
  uint64_t size;
};
inline constexpr uint32_t kSsOnstack = 1, kSsDisable = 2, kSsAutodisarm = 1u << 31;

struct KernelSigcontext {
  uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip,
      eflags;
  uint16_t cs, gs, fs, ss;
  uint64_t error, trap_number, old_mask, cr2;
  uint64_t fpstate; // address of the XSAVE image, 64-byte aligned; 0: initial state
  uint64_t reserved[8];
};

struct KernelUcontext {
  uint64_t flags; // kUc*
  uint64_t link;
  KernelStack stack; // the alternate stack to restore
  KernelSigcontext mcontext;
  SignalSet sigmask;
};
inline constexpr uint64_t kUcFpXstate = 1, kUcSigcontextSs = 2, kUcStrictRestoreSs = 4;

struct KernelSiginfo {
  int32_t signal;
  int32_t error;
  int32_t code;
  int32_t padding;
  union {
    uint64_t fields[14];
    uint64_t fault_address;
    struct {
      uint64_t address;
      uint64_t data; // perf_event_attr::sig_data
      uint32_t type;
      uint32_t flags;
    } perf;
    struct {
      int32_t pid;
      uint32_t uid;
      uint64_t value;
    } rt;
  };
};
static_assert(sizeof(KernelSiginfo) == 128);
static_assert(offsetof(KernelSiginfo, perf.data) == 24); // si_perf_data

// si_code values of SIGTRAP.
inline constexpr int kSiUser = 0, kSiQueue = -1, kSiTkill = -6, kSiKernel = 0x80;
inline constexpr uint32_t kTrapPerfAsync = 1; // in perf.flags: the signal was blocked
inline constexpr int kTrapBrkpt = 1, kTrapTrace = 2, kTrapHwbkpt = 4, kTrapPerf = 6;

struct KernelSigframe {
  uint64_t return_address; // the restorer
  KernelUcontext uc;
  KernelSiginfo info;
};

// In the legacy area of an XSAVE image in a signal frame (struct _fpx_sw_bytes).
inline constexpr uint32_t kFpXstateMagic1 = 0x46505853, kFpXstateMagic2 = 0x46505845;
inline constexpr size_t kFpSwReservedOffset = 464;
struct FpSoftwareBytes { // there: what makes the image that of a frame
  uint32_t magic1, extended_size;
  uint64_t features;
  uint32_t xstate_size;
} __attribute__((packed));
inline constexpr size_t kFpLegacySize = 512;

inline void registers_from(Registers& r, const KernelSigcontext& c) {
  r.rax = c.rax, r.rbx = c.rbx, r.rcx = c.rcx, r.rdx = c.rdx;
  r.rsi = c.rsi, r.rdi = c.rdi, r.rbp = c.rbp, r.rsp = c.rsp;
  r.r8 = c.r8, r.r9 = c.r9, r.r10 = c.r10, r.r11 = c.r11;
  r.r12 = c.r12, r.r13 = c.r13, r.r14 = c.r14, r.r15 = c.r15;
  r.rip = c.rip, r.eflags = c.eflags;
  r.cs = c.cs, r.ss = c.ss, r.fs = c.fs, r.gs = c.gs, r.ds = 0, r.es = 0;
}

// Segment registers and bases are not part of what a signal frame restores.
inline void registers_to(KernelSigcontext& c, const Registers& r) {
  c.rax = r.rax, c.rbx = r.rbx, c.rcx = r.rcx, c.rdx = r.rdx;
  c.rsi = r.rsi, c.rdi = r.rdi, c.rbp = r.rbp, c.rsp = r.rsp;
  c.r8 = r.r8, c.r9 = r.r9, c.r10 = r.r10, c.r11 = r.r11;
  c.r12 = r.r12, c.r13 = r.r13, c.r14 = r.r14, c.r15 = r.r15;
  c.rip = r.rip, c.eflags = r.eflags;
}

} // namespace dune
