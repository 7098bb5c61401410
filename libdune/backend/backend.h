// Backends: how exceptions of the target reach the agent. This is the contract, one row per backend
// (table_hosted.cpp); nothing above the keeper knows which rows there are.
//
// There are two kinds of rows, and a row says which by `guest`:
//
//   none   The target's threads run where the kernel runs them. A trap reaches the agent as a
//   signal:
//          the kernel saves all registers in a frame on the agent's alternate stack, blocks signals
//          by the handler's mask, and rt_sigreturn is the way back. There is nothing to open, enter
//          or close, and no function of this contract is on the way of a trap or a system call.
//   a guest
//          The target's threads run in a guest that the agent enters from inside the target: a
//          Guest per process, a Cpu per thread, both in memory of the caller. The addresses of the
//          program are the guest's (GVA = HVA), so whatever comes back can be dealt with on the
//          program's own pointers. An exception for which the caller gave a Handler stays in the
//          guest: the handler gets a TrapFrame on its own stack, saves what it uses, and goes back
//          with iretq; no signal mask changes and nobody is told. Every other exception, and every
//          system call, comes out of run().
//
// What a target is told of its backend are capabilities and costs in the session, never the name.
//
// Freestanding-clean, and so is a row's guest: it runs in the target, without libc, and from an
// image that nobody relocates. Probes are hosted; the keeper runs them.
#pragma once

#include "libdune/arch/descriptors.h"
#include "libdune/arch/paging.h"
#include "libdune/arch/registers.h"
#include "libdune/arch/signal_frame.h"
#include "libdune/base/result.h"
#include "libdune/base/types.h"

#include <span>

namespace dune::backend {

// ---------------------------------------------------------------------------------------------
// Probing

// What was found on this machine, as this user. Costs are medians, in nanoseconds.
struct Probe {
  uint32_t capabilities = 0; // session::Capability bits
  uint32_t trap_ns = 0;      // an int3 up to the handler and back
  uint32_t syscall_ns = 0;   // a system call that does nothing
};

// ---------------------------------------------------------------------------------------------
// Running in a guest

// Why a thread came back to the host side. Each says in what state Cpu::regs are; in all of them
// calling run() again, perhaps with changed registers, is how the thread goes on.
enum class Why : uint32_t {
  // The thread has executed `syscall`: regs as that instruction leaves them (rip behind it, also in
  // rcx; eflags in r11), the number in rax. The caller makes the call and puts the result in rax.
  kSystemCall,
  // Exception `vector` that has no handler, or one that has and that an interruption came before:
  // regs as it found them, in whichever ring that was. (One exception: if a program executes the
  // very `out` of a kRing3 stub, rip may be behind it.)
  kTrap,
  // A signal is pending for the host's thread, or interrupt() was called. Nothing is lost: regs are
  // between two instructions. They may be inside a handler of the caller's.
  kInterrupted,
  // The thread used a page that the guest's tables map and the host's mappings refuse: gone, beyond
  // the end of a file, or with fewer rights than the tables say. Which page is not known, KVM does
  // not tell. The caller clears the tables' entries and runs the thread again: it faults once more,
  // as kTrap with an address, if it still means to.
  kUnbacked,
  // The guest cannot go on: a triple fault, a refused entry. `error` says what, in the row's words.
  kBroken,
};

struct Exit {
  Why why;
  uint32_t vector = 0;  // kTrap
  uint64_t error = 0;   // kTrap: the error code, or DR6, or 0; kBroken: the row's own number
  uint64_t address = 0; // kTrap with kVectorPageFault: the address that faulted
};

// Where handlers run. Ring 0 is real on hardware. Where it is emulated an instruction at a time,
// handlers are ring 3 code, and the exception takes them there without a single instruction in
// ring 0: a gate may name a ring 3 segment, and its IST stack protects the program's red zone.
enum class Placement : uint32_t { kRing0, kRing3 };

struct Handler {
  uint32_t vector;
  TargetAddr entry;
};

struct DebugRegisters {
  uint64_t address[4];
  uint64_t dr7;
  // Not null: what ring 3 accesses is told, and nothing of ring 0's; and before each kVectorDebug,
  // also one that a handler takes, this gets the bits of DR6 that it is of, those alone. Process
  // memory, valid until the next set_debug or close_cpu.
  uint64_t* status = nullptr;
};

struct Guest;
struct Cpu;

// A row's half. Calls for one Guest are serialised by the caller, except run and interrupt. Called
// through guest.h, which has what all guests share.
// A forked child inherits descriptors and a copy of the tables, but no guest: it may only
// close_cpu() and close() what it has, and makes its own, in the same memory if it likes.
struct GuestOps {
  // Takes a VM for the calling process. Pre: guest.memory holds zeroed pages of the caller's.
  // The descriptors it opens lie high, where the program does not expect its own, and are closed by
  // execve; keeping the program from closing them is the caller's.
  Status (*open)(Guest&);
  // After every Cpu's close_cpu. No thread is in run().
  void (*close)(Guest&);
  // The guest finds the chunk of the process's memory, whether anything is mapped there or not, at
  // the guest-physical address; or not any more. It ends with user space. `slot` is the chunk's
  // number below kMaxChunks. kExhausted: there is no room.
  Status (*show_chunk)(Guest&, uint32_t slot, GuestPhysAddr, TargetAddr chunk);
  Status (*hide_chunk)(Guest&, uint32_t slot, GuestPhysAddr, TargetAddr chunk);
  // Makes all processors forget what the tables do not say any more, of the tables themselves, too.
  // Threads may be in run() meanwhile.
  Status (*forget)(Guest&);
  // Writes the instruction by which stub `number` calls the host: at most kStubSize bytes.
  void (*write_call)(uint8_t* at, uint8_t number);
  // Pre: guest and memory are set. Gives it the tables, the descriptors and no vector state. Cpus
  // are dear and a guest may not get rid of one: keep them for the next thread.
  Status (*add_cpu)(Cpu&);
  void (*close_cpu)(Cpu&);
  // Runs the thread with cpu.regs until something needs the host side, and leaves its registers
  // there. Any thread of the process may call it, one at a time. Of the segments only cs (kUserCode
  // or kKernelCode), ss, fs_base and gs_base count.
  Exit (*run)(Cpu&);
  // The run in progress, or else the next one, ends with kInterrupted. Async-signal-safe: called by
  // the handler of a signal that was sent to the running thread, so that it works in the instant
  // between a look at pending signals and the entry, too.
  void (*interrupt)(Cpu&);
  // The signals (bit n - 1: signal n) that the host's thread blocks while it is in run(), whatever
  // it blocks otherwise. Without it: the thread's own mask.
  Status (*set_mask)(Cpu&, uint64_t blocked);
  // Debug registers 0 to 3 and 7, for this thread. Without kCapHardwareWatch they are taken and
  // have no effect. A hit is kVectorDebug, behind the access, with DR6 as its error code if there
  // is no `status`. kUnsupported: the row has none.
  Status (*set_debug)(Cpu&, const DebugRegisters&);
  // Whether rdtsc and rdtscp fault (kVectorGeneralProtection; where the host's thread may not read
  // the counter either, kVectorIllegal is possible).
  void (*deny_time_stamps)(Cpu&, bool);
  // Vector state, in the standard format of XSAVE, as a signal frame has it. It may be the calling
  // thread's own: who loads it uses no vector register until the run, nor behind one until it is
  // stored or the next run.
  Status (*load_vectors)(Cpu&, const void* image);
  Status (*store_vectors)(Cpu&, void* image, uint64_t size);
};

// A call of a program in ring 0, of which nothing but its number and arguments are in `call`: made,
// with the result in rax there, if nobody has to look at it; the thread runs on without coming out
// of run(). False: nothing has been done, and it comes out.
using PassCall = bool(KernelSigcontext& call);

// The piece of address space in which the second level is extended; contiguous physically.
inline constexpr uint64_t kChunkSize = 1ull << 30;
inline constexpr uint32_t kMaxChunks = 512;
inline constexpr uint32_t kNoChunk = ~0u;

// A process's guest. The caller provides it, zeroed, and the memory; open_guest() fills it in.
struct Guest {
  GuestOps ops;
  TargetRange memory;
  Placement placement;
  // Not null: the program itself is in ring 0, and this is where a `syscall` goes, whosever it is.
  // From there that of ring 0 comes to the host side by system_call_stub().
  TargetAddr system_call;
  PassCall* pass_call; // of such a program; null: each of its calls comes out of run()
  PageTables tables; // whoever changes the process's mappings changes these, see PageTables::clear

  // The row's own.
  int device;
  int vm;
  uint32_t cpu_count;
  uint32_t physical_bits; // of a guest-physical address
  int highest_page;       // the level of the largest pages that the guest's tables may have
  bool has_tags;          // processors keep translations by tags (PCID), for a program in ring 0
  // What the second level covers, in order of first use: addresses / kChunkSize, or kNoChunk.
  uint32_t chunk_count;
  uint32_t chunks[kMaxChunks];
};

// A thread in the guest.
struct Cpu {
  Guest* guest;
  TargetRange memory;
  Registers regs; // the thread's; the caller's between runs
  // Of the tables with which the thread runs in ring 3, where ring 0 is real; the guest's unless
  // the caller chooses one of their views. (A handler may change CR3 itself.) Of a program in ring
  // 0: CR3, as any other register.
  GuestPhysAddr root;

  // The row's own.
  int fd;
  void* shared;
  uint64_t shared_size;
  uint32_t watches;   // debug registers are in use
  uint32_t processor; // as the guest has been told
  uint32_t denies_time_stamps;
};

// ---------------------------------------------------------------------------------------------

// The guests there are, by number: the agent's image has no table of functions, whose addresses
// nobody would relocate.
enum class GuestKind : uint32_t { kNone, kKmod, kKvm };
GuestOps guest_ops(GuestKind); // Pre: not kNone

struct Backend {
  const char* name;
  // Takes milliseconds; has no lasting effect. Claims nothing that it has not seen happen. Null: as
  // for all guests (guest_hosted.cpp).
  Result<Probe> (*probe)();
  GuestKind guest; // kNone: threads run where the kernel runs them
  // What it needs is on a machine for nothing else: who has loaded it, and let this user have it,
  // wants it used (choose_among).
  bool is_dedicated = false;
};

} // namespace dune::backend
