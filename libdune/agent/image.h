// What the keeper must know of the agent's image to load it, and of a thread's private block to
// bring a running thread under the agent. Shared by agent and keeper, which are always built
// together. Freestanding-clean.
#pragma once

#include "libdune/arch/descriptors.h"
#include "libdune/arch/signal_frame.h"
#include "libdune/session/layout.h"

#include <cstdint>

namespace dune {
struct Ring3; // include/dune/ring3.h
}

namespace dune::agent {

inline constexpr uint64_t kImageMagic = 0x746e656761646462; // "bddagent"

// At offset 0 of the flat image; all other fields are offsets from there.
struct ImageHeader {
  uint64_t magic;
  uint64_t text_size;    // bytes to map read+execute, page-rounded; the data part follows
  uint64_t image_size;   // bytes in the file; data beyond it is zero
  uint64_t total_size;   // text and data with zeroed part, page-rounded
  uint64_t config;       // AgentConfig, in the data part
  uint64_t run;          // where the keeper sends a thread to call one of the next three
  uint64_t take;         // once, before any thread enters: takes the signal handlers
  uint64_t leave;        // for every thread, at release: gives back what is the thread's
  uint64_t actions;      // once, behind that: gives back the dispositions
  uint64_t enter;        // entry for a thread brought in by the keeper, rsp = its KernelSigframe
  uint64_t enter_call;   // the same for one inside a system call, rsp = its ThreadBlock
  uint64_t restorer;     // rt_sigreturn stub
  uint64_t quick_call;   // where trampolines of jump sites lead
  uint64_t mask;         // SignalSet: what a thread blocks while it runs the agent
  uint64_t stepped_call; // `syscall; int3`: for a call of the program's that is to end in the agent
  uint64_t application;  // behind text that is the agent's only, not the program's
  uint64_t enter_application; // handler of a signal, see ApplicationEntry
  // Behind the instruction that makes a call for a thread in a guest, whose block has the rest: of
  // a call that the kernel judges by the program's filters, of one that has been judged.
  uint64_t forward_ends[2], forward_32_ends[2];
};

// The memory at AgentConfig::guest; guest_loop.h says what is in it. It holds the guest's tables,
// aligned to their own size: so no border of a backend::kChunkSize is in them.
inline constexpr uint64_t kGuestTablesSize = 64ull << 20;
inline constexpr uint64_t kGuestRoomSize = (64ull << 20) + 2 * kGuestTablesSize;

inline constexpr uint64_t kHwcap2Fsgsbase = 2; // in AT_HWCAP2

// What a thread gets back that the keeper has sent on an errand (keeper/detour.h).
struct Away {
  uint64_t registers[27]; // user_regs_struct, of a thread that is not in a system call any more
  SignalSet mask;
};

// A program that enters Dune mode by itself (libdune/application) goes on in ring 0. Its exceptions
// come to its handlers there, on stacks of ours, one for each exception within another
// (application.cpp).
inline constexpr uint64_t kTrapStackSize = 32 << 10, kTrapStacksSize = 256 << 10;

// All but NMI, double fault and machine check, which are the host side's.
constexpr bool comes_to_application(uint32_t vector) {
  constexpr uint32_t kOthers = 1u << 2 | 1u << kVectorDoubleFault | 1u << 18;
  return vector < kExceptionVectors && !(kOthers >> vector & 1);
}

// At the lower end of a thread's kTrapStacksSize, which are aligned to that.
struct TrapStacks {
  uint64_t stack_entry; // address of the word that says where the next exception's stack ends
  Ring3* ring3;         // what it runs there, or has come out of with an exception
  uint32_t in_ring3;    // the thread is, its bases in the processor
  uint32_t refused;     // a handler of the program's has: the process is to get the signal
};

// What the library gives its first thread on the way, by the value of a queued signal whose handler
// is ImageHeader::enter_application, on the slot's stack.
struct ApplicationEntry {
  KernelSigaction action; // the program's, of that signal
  SignalSet mask;
  KernelStack altstack;
  int64_t error; // what came of it: 0, or why it could not be (an error number)
  const char* text;
};

// What tells a `syscall` of ring 0 from one of ring 3: the program runs with these flags in ring 0,
// and ring 3, which has its flags without, cannot set them. (They mean nothing there: no guest has
// ports.)
inline constexpr uint64_t kIoPrivilege = 0x3000;
inline constexpr uint64_t kRing0Flags = kIoPrivilege | kEflagsInterrupts | 2;

// What a function may use below its stack pointer (System V ABI for AMD64).
inline constexpr uint64_t kRedZone = 128;

// System calls of a program in ring 0 to the agent: the number, and in rdi what.
inline constexpr uint64_t kApplicationCall = 0x656e7564;
enum class ApplicationCall : uint64_t {
  kOpenView,  // rsi, one of PageTables: what to set CR3 to
  kCloseView, // it shows what is for all again
  // Of the pages from rsi to rdx, in the view in r8: what r10 allows (page_policy.h).
  kPolicy, // ~0: none. In kAllViews, but those that have one of their own.
  kMap,    // and that it is the memory in r9; r10 may also have kSmallPagesOnly
  kForget, // on all processors what the tables do not say any more
};
inline constexpr uint64_t kAllViews = 64; // PageTables::kViews
inline constexpr uint64_t kSmallPagesOnly = 1;

// Filled in by the keeper before any thread enters, but for `leaving`, `sites_removed` and
// `confined`; first in the agent's data.
struct AgentConfig {
  session::Gates gates;
  uint64_t session;    // Session*
  uint64_t code_table; // SiteTable*, read only
  uint64_t stacks;
  uint64_t text_begin; // the agent's own text
  uint64_t text_end;
  uint64_t block_end; // of what begins with the text
  uint64_t code_near_libs;
  uint64_t code_near_main;
  uint64_t code_near_main_size;
  uint64_t detour_begin; // of the keeper's code in the vDSO (keeper/detour.h)
  uint64_t detour_end;
  uint32_t target_pid;   // in the target's own pid namespace
  uint32_t xstate_size;  // bytes of the XSAVE image in a signal frame, magic2 included
  uint32_t has_fsgsbase; // kHwcap2Fsgsbase
  uint32_t keeps_rseq;   // the program's threads may have registered theirs before
  uint32_t guest_closed; // no thread stays in the guest, or goes in again
  uint32_t leaving;      // all threads are on their way out: each is to go it to the end
  uint32_t sites_removed;
  uint32_t confined;        // by seccomp; the agent's to set, too
  uint32_t unknown_filters; // the agent does not know all that it has
  SignalSet owned; // the signals the agent keeps deliverable, whatever the program's mask says
  uint64_t guest;  // GuestRoom*, 0: threads run where the kernel runs them
  uint64_t guest_size;
  uint32_t guest_kind;        // backend::GuestKind
  uint32_t guest_placement;   // backend::Placement
  uint8_t xstate_features[8]; // XCR0 as a signal frame shows it
  uint32_t guest_refused; // the agent's to set: 0, or an error number, why it could not be opened
  // Of a program in ring 0; 0: it is not.
  uint64_t trap_stacks;                 // of all slots
  uint64_t tables;                      // the agent's to set: dune::PageTables*
  uint64_t handlers[kExceptionVectors]; // the program's, dune::TrapHandler
  uint32_t saves_vectors;               // for these: bit n, vector n
  // The agent's to count: each has a processor, which may have been another's. And how many there
  // were when all was last forgotten with only one left.
  uint32_t threads_begun, threads_forgotten;
  uint32_t has_tags; // the library's to set: translations of views are kept by tags (PCID)
};

// What entry.S keeps of a system call that came through a jump site, on the program's stack below
// the red zone; the thread goes on from it, whatever it says by then.
struct QuickFrame {
  Registers regs; // general registers, rip and eflags only
  SignalSet mask; // the kernel's, held back meanwhile
  SignalSet agent_mask;
  KernelStack stack; // what sigaltstack says: names the thread's block
};

// Frames that the program's signal handlers will return through and that stand at a site whose hit
// was already counted; see signals.cpp.
struct CountedFrame {
  uint64_t frame; // address of the KernelUcontext on the program's stack, 0: unused
  uint64_t site;
};
inline constexpr int kCountedFrames = 4;

// Whose the trap flag is that the processor has: the program's; ours, set to step; ours, clear for
// as long as the thread is in the agent's text.
enum class TrapFlag : uint32_t { kProgram, kStepping, kAway };
// What an instruction does with the trap flag.
enum class FlagsUse : uint32_t { kNone, kPush, kPop };

// A call that installs a filter of the agent's in place of the program's (calls_confine.cpp), whose
// arguments these are.
struct Confining {
  uint64_t filter; // memory of ours, 0: there is no such call
  uint64_t rdi, rsi, rdx;
};

enum class PendingCall : uint32_t { kNone, kThread, kFork, kVfork, kExec };

// Result of a forwarded call that a signal came before (guest_loop.h, agent_forward).
inline constexpr long kNotMade = -512;

// One per thread slot, at the top end of the slot's stack. Private memory: a forked child has its
// own, and the front end never reads it. The stack proper is everything below.
struct alignas(64) ThreadBlock {
  // What agent/entry.S saves and restores around a system call made on the program's behalf.
  Registers call_regs;
  uint64_t parent;     // ThreadBlock*: the thread that cloned this one
  uint64_t cloned;     // ThreadBlock*: the thread this one is about to clone, or null
  SignalSet call_mask; // kernel mask to restore afterwards

  uint32_t slot;
  PendingCall pending_call;
  uint32_t parent_pending; // the cloner has not yet returned through this slot's trampoline
  uint32_t passthrough;    // a process of its own in shared memory: sites continue, nothing stops
  uint32_t in_vfork;       // the thread sleeps in vfork; whoever traps here is the child
  uint32_t child_pid;      // passthrough slots: the process that owns them

  // The program's view where it differs from the kernel's.
  SignalSet blocked; // of the signals the agent keeps deliverable: blocked by the program
  SignalSet pending; // of those: arrived while blocked
  KernelSiginfo pending_info[5];
  uint64_t ended_wait; // behind a waiting call that a pending signal has ended, and its mask
  SignalSet ended_mask;
  SignalSet waits_for;     // of the same: let in by the sigsuspend or sigtimedwait it is in
  KernelStack altstack;    // the program's sigaltstack
  SignalSet vfork_blocked; // saved across vfork, whose child may change it
  KernelStack vfork_altstack;

  uint64_t stop_rip;     // where the last stop of its own was reported, 0: none
  uint64_t copy_site;    // Site* whose copy the thread was last sent into
  uint64_t restored_rip; // where the program's last sigreturn went
  CountedFrame counted[kCountedFrames];

  // A fault inside a compiled condition resumes here.
  uint64_t guard_rip;
  uint64_t guard_rsp;
  uint64_t guard_rbp;

  // Stepping.
  session::Action action;
  uint32_t stepping_over_call; // range step: runs freely until rsp > call_rsp at range_return
  uint64_t steps_left;
  uint64_t steps_taken;
  uint64_t call_rsp;
  uint64_t last_rsp;
  uint64_t last_rip;
  uint64_t stepped_call; // address of the `syscall` that agent_stepped_call makes, 0: none
  // Where the program's handler that a step waits for will have its sigreturn, 0: none. `landing`:
  // the step itself is done, and counts then.
  uint64_t step_frame;
  uint32_t landing;
  // While the processor's trap flag is not the program's (trap.cpp): the program's own, and the
  // instruction that runs with ours.
  TrapFlag trap_flag;
  uint64_t program_trap_flag;
  uint64_t armed_at;
  FlagsUse armed_use;
  uint32_t program_stepped; // the trap in hand is, or may be, that of the program's own flag
  // The rest of a call that a kick cut short is made there, too: what was done, and the arguments
  // as the program gave them.
  uint64_t partial_done, partial_rsi, partial_rdx;
  Confining confining; // is made there
  uint32_t strict;     // seccomp's strict mode, by a filter

  // In a guest: what it is confined by (guest_confine.cpp).
  uint64_t filters;         // SeccompFilter*, the youngest
  uint32_t unknown_filters; // there are others, for which was no room
  uint32_t call_judged;     // they let pass the call in hand
  uint32_t call_refused;    // the kernel has answered it by SIGSYS
  uint32_t call_32;         // it is an int $0x80, which leaves rcx and r11 alone

  // In a guest (guest_loop.cpp). While `home` is set the thread is in the host loop, and the
  // program's registers are there.
  uint64_t home; // KernelUcontext*
  uint64_t call_number;
  uint32_t call_in_parts; // a forwarded call is not all, or not the last, of what it is made for
  uint32_t attention;     // the monitor is not to go back to the program
  uint32_t leaves_guest;
  // Signals that came while it was in the host loop, oldest first; the loop has looked at the first
  // `held_count`, which the program blocks.
  uint32_t recorded_count, held_count;
  uint32_t has_signal; // one that it has not looked at
  KernelSiginfo recorded[4];

  // One instruction runs past the watches on its pages (guest_watch.cpp).
  uint32_t past_watches;
  // What it has accessed, and nobody has looked yet: GuestSlot::watched, a bit each, and from bit
  // kWatchPlaces on GuestSlot::armed.
  uint32_t accessed;
  SignalSet past_watches_mask; // afterwards

  // A signal that arrived where the program's state cannot be named; delivered a few steps later.
  uint32_t deferred;
  uint32_t step_out; // stepping only to reach a nameable place
  SignalSet deferred_mask;
  KernelSiginfo deferred_info;
};

constexpr uint64_t block_of_slot(uint64_t stacks, uint64_t slot) {
  return stacks + (slot + 1) * session::kAgentStackSize - sizeof(ThreadBlock);
}
constexpr KernelStack stack_of_slot(uint64_t stacks, uint64_t slot) {
  return {stacks + slot * session::kAgentStackSize, 0, 0,
          session::kAgentStackSize - sizeof(ThreadBlock)};
}

// What AgentConfig::owned can hold. The kick's signal is the program's own where kicks come as perf
// events.
using session::kKickSignal;
inline constexpr int kOwnedSignals[] = {kSigTrap, kSigSegv, kSigBus, kSigFpe, kKickSignal};
constexpr SignalSet owned_signals(bool precise_kick) {
  return signal_bit(kSigTrap) | signal_bit(kSigSegv) | signal_bit(kSigBus) | signal_bit(kSigFpe) |
         (precise_kick ? 0 : signal_bit(kKickSignal));
}

} // namespace dune::agent
