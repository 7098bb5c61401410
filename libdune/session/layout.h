// The session: the one contract between the agent (in the target), the front end and the keeper.
//
// Two memfds, both created at birth, both sealed against resizing:
//
//   session  read-write in the target and in the front end; not inherited by fork
//            (MADV_DONTFORK). Header, thread slots, breakpoint records, notices.
//   code     read+execute in the target, read-write in the front end; inherited by fork, so that a
//            forked child can find and remove its sites. Site table, then the code arena:
//            displaced copies, compiled conditions, trampolines.
//
// Everything in the session memfd can be scribbled over by the target: the front end takes it
// through SessionReader (session/reader.h), which bounds-checks every index and never follows a
// pointer. The code memfd is written by the front end; a target that wants to can make its mapping
// writable, so the front end keeps an account of its own and reads nothing back.
//
// Each field names its writer: [F] front end, [K] keeper, [A] agent. A field with two writers says
// which protocol step hands it over. Changing anything here changes kSessionVersion.
//
// Freestanding-clean; fixed-width, no pointers.
#pragma once

#include "libdune/arch/registers.h"

#include <atomic>
#include <cstdint>

namespace dune::session {

inline constexpr uint64_t kSessionMagic = 0x31676264656e7564; // "dunedbg1"
inline constexpr uint32_t kSessionVersion = 8;

// Pools. What happens when one is full: threads: the thread runs without a slot, its stops are
// counted in Header::missed_stops; sites, records, arena: the front end refuses the breakpoint and
// says so; notices: counted in Header::lost_notices.
inline constexpr uint32_t kThreadSlots = 1024;
inline constexpr uint32_t kSites = 16384; // distinct addresses in the life of a target
inline constexpr uint32_t kSiteHashSize = 2 * kSites;
inline constexpr uint32_t kJumpSites = 1024;
inline constexpr uint32_t kRecords = 16384;
inline constexpr uint32_t kNotices = 1024;
inline constexpr uint32_t kSignals = 65;                 // index is the signal number; 0 is unused
inline constexpr uint64_t kAgentStackSize = 32 * 1024;   // per thread slot, a power of two
inline constexpr uint32_t kNone = 0xffffffff;            // no index
inline constexpr uint32_t kOwnedByFrontend = 0xffffffff; // Header::stop_owner

// ---------------------------------------------------------------------------------------------
// Sites: one patched instruction each. In the code memfd.

// A place inside a displaced copy that can be named as one of the original program: the machine's
// state is the one it has at `original`, once `saved` registers are read back from the stack (at
// rsp + at, rsp as found) and rsp_add is added to rsp; then rip becomes `original`. Every other
// instruction pointer inside a copy has to be stepped on. (disasm/relocate.h makes these.)
struct Boundary {
  uint64_t original;
  uint16_t copy_offset;
  int16_t rsp_add;
  uint16_t saved_count;
  uint16_t reserved;
  struct {
    uint16_t reg; // dune::Reg
    int16_t at;
  } saved[2];
};

enum SiteFlags : uint32_t {
  kSiteInstalled = 1, // an int3 is (about to be) in the text
  kSiteSyscall = 2,   // the instruction is `syscall`: the agent looks at the number in rax
  // A signal can find the instruction begun and not done (a system call, rep), for any length of
  // time.
  kSiteInterruptible = 4,
  // The instruction stands before a `syscall` that is a site, too. In the text it is a jmp (perhaps
  // with an int3 over its first byte) to a trampoline that spares most calls the trap.
  kSiteJump = 8,
};

inline constexpr uint32_t kJumpLength = 5; // e9 rel32
inline constexpr uint8_t kJumpOpcode = 0xe9;
inline constexpr uint8_t kInt3 = 0xcc;
inline constexpr uint64_t kSyscallLength = 2;

// Whether an instruction of this length before a `syscall` that is a site holds a jmp: alone, or
// together with the `syscall`, whose int3 is a byte of the jmp then.
constexpr bool holds_jump_alone(uint64_t length) { return length >= kJumpLength; }
constexpr bool holds_jump_with_call(uint64_t length) {
  return length + kSyscallLength == kJumpLength;
}

// Of a jump site. A thread at its first byte is before the instruction that the jmp replaces, one
// at or behind `behind` is behind the `syscall`, any other is between the two.
struct Trampoline {
  uint64_t address;
  uint16_t size;
  uint16_t behind; // an offset

  bool contains(uint64_t rip) const { return rip - address < size; }
  // The program's address for one of ours; `syscall` is that of the call.
  uint64_t original(uint64_t rip, uint64_t jump, uint64_t syscall) const {
    return rip == address ? jump : rip - address < behind ? syscall : syscall + kSyscallLength;
  }
};

inline constexpr uint32_t kMaxBoundaries = 8;

struct Site {
  uint64_t address;                   // [F] 0: entry unused
  uint64_t copy;                      // [F] target address of the displaced copy
  std::atomic<uint32_t> flags;        // [F] SiteFlags
  std::atomic<uint32_t> first_record; // [F] index of the first breakpoint record, or kNone
  uint32_t copy_size;                 // [F] bytes, whole copy
  Trampoline trampoline;              // [F] kSiteJump
  uint8_t original_length;            // [F] bytes of the displaced instruction(s)
  uint8_t original[kJumpLength];      // [F] what the int3 (the first) or the jmp (all) replaced
  uint8_t boundary_count;             // [F]
  uint8_t reserved;
  Boundary boundaries[kMaxBoundaries]; // [F] sorted by copy_offset
};

// The site table stands at offset 0 of the code memfd. Entries are never removed, only disabled:
// a thread that executed an int3 just before it was removed must still be recognised.
struct SiteTable {
  std::atomic<uint32_t> count;      // [F] entries [0, count) are valid
  std::atomic<uint32_t> jump_count; // [F] of jumps
  uint32_t reserved[14];
  uint32_t jumps[kJumpSites];                // [F] indices of the sites that have a trampoline
  std::atomic<uint32_t> hash[kSiteHashSize]; // [F] index + 1, 0 is empty; open addressing, linear
  Site sites[kSites];
};

// The program's address for one in a jump site's trampoline; `rip` itself elsewhere.
inline uint64_t out_of_trampoline(const SiteTable& table, uint64_t rip) {
  const uint32_t count = table.jump_count.load(std::memory_order_acquire);
  for (uint32_t i = 0; i < count && i < kJumpSites; ++i)
    if (const uint32_t index = table.jumps[i]; index < kSites)
      if (const Site& s = table.sites[index]; s.trampoline.contains(rip))
        return s.trampoline.original(rip, s.address, s.address + s.original_length);
  return rip;
}

constexpr uint32_t site_hash(uint64_t address) {
  return static_cast<uint32_t>((address * 0x9e3779b97f4a7c15u) >> 40) % kSiteHashSize;
}

// ---------------------------------------------------------------------------------------------
// Breakpoint records: what to do when a site (or a watchpoint) is hit. In the session memfd.

enum RecordFlags : uint32_t {
  kRecordEnabled = 1,
  kRecordInternal = 2, // the front end's own (dlopen notification, finish): no user-visible count
  kRecordParkOnly = 4, // parks the thread if a stop is in progress, otherwise does nothing
  // Value watches only: the value is compared with the last one seen (`watch`); without it every
  // access counts (`awatch`).
  kRecordCompareValue = 8,
  // `rwatch`: the processor cannot tell reads alone, but what changed the value was a write.
  kRecordUnchangedOnly = 16,
};

struct alignas(64) Record {
  std::atomic<uint32_t> flags; // [F] RecordFlags
  std::atomic<uint32_t> next;  // [F] next record of the same site, or kNone
  uint64_t condition;          // [F] compiled condition in the arena, 0: always true.
                               //     uint64_t condition(const Registers*), System V ABI
  uint32_t only_tid;           // [F] 0: any thread
  uint32_t reserved;
  uint64_t min_stack_pointer;         // [F] hit only if rsp >= this (recursion-safe finish); 0: any
  std::atomic<uint64_t> ignore_count; // [F] sets, [A] counts down: hits to let pass
  std::atomic<uint64_t> hits;         // [A] condition true
  std::atomic<uint64_t> evaluations;  // [A] condition evaluated
  std::atomic<uint64_t> faults;       // [A] condition faulted; counted as true, as gdb does
  // Watchpoints. Without a guest: perf_event sigtrap, the event's sig_data is the record's index.
  uint64_t watch_address; // [F]
  uint32_t watch_size;    // [F] 1, 2, 4 or 8; 0: not a watchpoint
  uint32_t reserved2;
  std::atomic<uint64_t> watch_value; // [F] at creation, [A] afterwards: last value seen
};

// What the agent has to know of a watchpoint: in a guest all of it, for it is the agent that arms
// it; else who else watches what a perf event tells of. In a guest the first have a debug register
// each where those work (kCapDebugRegisters); all others are their pages'.
inline constexpr uint32_t kDebugRegisters = 4;
inline constexpr uint32_t kWatchPlaces = 16;
struct WatchPlace {
  std::atomic<uint32_t> record;      // [K] its index + 1, 0: none
  std::atomic<uint32_t> writes_only; // [K] else reads, too
  std::atomic<uint32_t> by_register; // [K] of at most kDebugRegisters
};

// ---------------------------------------------------------------------------------------------
// Thread slots. In the session memfd.

// kFree -> kStarting: [A] by the thread that is about to make this one; its tid is not known yet.
// kStarting -> kRunning: [A] by the new thread, before its first instruction of the program.
// kFree -> kRunning: [K] at birth and attach.
// kRunning -> kParked: [A] at a stop. The registers are the front end's from here on.
// kParked -> kRunning: [F] before it changes `resume`; [A] when it saw stop_request cleared.
// kRunning -> kLeaving: [A] at the thread's exit, while it still runs on the slot's stack.
// kLeaving -> kFree -> kRunning: [A] once the kernel no longer knows the thread.
// kRunning -> kInCall: [A] for a system call of a thread in a guest. The registers are complete
// meanwhile, and it looks at stop_request before and after it says that it runs the program again:
// for a stop it is as good as parked. -> kParked: it has found one. -> kRunning: none.
enum class ThreadState : uint32_t { kFree, kRunning, kParked, kLeaving, kStarting, kInCall };

enum class StopReason : uint32_t {
  kNone,
  kRequested,  // somebody else's stop, or the front end's request
  kBreakpoint, // fired[] lists the records
  kStep,       // the step or range step is done
  kWatchpoint, // fired[] lists the records, watched[] has their values
  kSignal,     // siginfo; the front end says in `signal` whether it is to be delivered
  kExec,       // about to call execve: the keeper has to be told first
  kExecFailed, // the execve returned with an error: the keeper can let go
  kDying,      // about to die of a signal: the keeper sees to what the core shows
  kSyscall,    // reserved for catchpoints
};

enum class Action : uint32_t {
  kRun,
  kStep,  // step_count instructions
  kRange, // single-step until the instruction pointer leaves [range_begin, range_end)
};

enum RangeFlags : uint32_t {
  // A call out of the range runs at full speed to a site that the front end has put at its return.
  kRangeStepOverCalls = 1,
};

// Watchpoints that one access is of are one stop, so there is room for all.
inline constexpr uint32_t kMaxFired = kWatchPlaces;
struct WatchedValue {
  uint64_t before, after; // the access
};

struct alignas(64) ThreadSlot {
  std::atomic<uint32_t> state;  // ThreadState; see above
  std::atomic<uint32_t> resume; // [F] bumped to let a parked thread go; futex
  uint32_t tid;                 // [A]/[K] in the target's own pid namespace
  std::atomic<uint32_t> asleep; // [A] 1: waits in the futex, not spinning

  // Written by [A] before kParked, read and changed by [F] while kParked.
  Registers regs;
  uint64_t fpstate;          // [A] target address of the XSAVE image (signal frame), 0: none
  uint32_t fpstate_size;     // [A]
  StopReason reason;         // [A]
  uint32_t signal;           // [A] the signal of a kSignal stop; [F] the one to deliver, 0: none
  uint32_t fired_count;      // [A]
  uint32_t fired[kMaxFired]; // [A] record indices
  uint8_t siginfo[128];      // [A] kernel siginfo_t of a kSignal stop
  WatchedValue watched[kMaxFired]; // [A]
  uint64_t steps_taken;            // [A] instructions stepped by the last kStep or kRange

  // Written by [F] while kParked, consumed by [A] at resume.
  Action action;
  uint32_t range_flags;
  // Runs although stop_request is set (the other threads stay parked); cleared by [A] when it
  // parks, or by [F] before a kick.
  std::atomic<uint32_t> exempt;
  uint32_t arrives; // 1: nobody has been shown the thread here yet, so a site here is ahead of it
  uint64_t step_count;
  uint64_t range_begin;
  uint64_t range_end;

  // Statistics, [A].
  uint64_t traps;
  uint64_t kicks;
};

// ---------------------------------------------------------------------------------------------
// Notices: things worth telling that stop nobody. Many writers [A], one reader [F].

enum class NoticeKind : uint32_t {
  kNone,
  kSignal,       // value: signal number (`handle SIG nostop print`)
  kForked,       // value: pid of the child
  kThreadBorn,   // value: tid
  kThreadExited, // value: tid
  kExiting,      // value: exit status given to exit_group
};

struct Notice {
  std::atomic<uint32_t> sequence; // [A] ticket + 1 when the entry is complete
  NoticeKind kind;
  uint32_t tid;
  uint32_t value;
};

// ---------------------------------------------------------------------------------------------
// Signals

// What the trampolines of system calls ask, by GateKind: nonzero leads to the agent. Private
// memory, which a forked child has, too.
enum class GateKind : uint8_t { kShut, kAlways, kWaits };
struct Gates {
  // [A] kWaits: a call that changes the mask while it waits. Opens for good once a signal waits
  // that only the agent knows of.
  uint8_t open[8] = {0, 1};
};

// What makes a running thread park. With kCapPreciseKick a perf event of the front end's that fires
// in user mode only: a SIGTRAP with this value as its data. Else a queued signal with this value
// (so that one of the program's own is told apart), and never SIGTRAP, which would merge with an
// int3's.
inline constexpr int kKickSignal = 62;
inline constexpr uint64_t kKickValue = 0x6b63696b64646267;

enum SignalPolicy : uint8_t { kSignalStop = 1, kSignalPrint = 2, kSignalPass = 4 };

// ---------------------------------------------------------------------------------------------

enum Capability : uint32_t {
  kCapHardwareWatch = 1, // the processor says what was accessed, by way of perf_event
  kCapStep = 2,
  kCapRing0 = 4, // traps are handled in guest ring 0
  kCapProtectedAgent = 8,
  // Running threads are stopped in user mode only: no system call of theirs is interrupted.
  kCapPreciseKick = 16,
  // The agent sees every system call; none needs a site.
  kCapSystemCalls = 32,
  // A guest's debug registers tell what ring 3 accesses, and nothing else.
  kCapDebugRegisters = 64,
};

// Where things are in the target; chosen by the keeper at birth, constant afterwards.
struct MemoryMap {
  uint64_t agent_text;     // agent image, read+execute
  uint64_t agent_data;     // private, read-write; Gates stand at its beginning
  uint64_t agent_stacks;   // kThreadSlots * kAgentStackSize, aligned to kAgentStackSize
  uint64_t session;        // this memfd
  uint64_t code_table;     // the code memfd's offset 0, read only
  uint64_t code_near_libs; // a window of the arena close to the shared libraries, read+execute
  uint64_t code_near_main; // a window close to the main program; 0: the same as near_libs
  uint64_t code_near_main_size;
  uint64_t agent_end;  // end of the block that starts at agent_text
  uint64_t quick_call; // in agent_text: where the trampolines of jump sites lead
  uint64_t guest;      // the agent's GuestRoom, 0: the target does not run in a guest
  uint64_t guest_size;
};

// A word with the thread id of a process in it, which the kernel itself changes when that process
// dies in whatever way: it is registered as a robust futex (keeper/life.h). So the agent sees a
// death from any pid namespace, and that of a process nobody has waited for.
constexpr bool is_alive(uint32_t life_word) {
  constexpr uint32_t kOwnerDied = 0x40000000;
  return life_word != 0 && !(life_word & kOwnerDied);
}

// What a seccomp filter's kill may have been, besides the program's own doing.
enum ConfinementFlags : uint32_t {
  kConfinesAgent = 1,    // a filter judges the agent's calls as it does the program's
  kConfinedStrictly = 2, // strict mode, of which the agent makes a filter: it kills by SIGKILL
};

// Which backend serves this target, and what its probe measured.
struct BackendInfo {
  char name[16];        // zero-terminated
  char why_chosen[192]; // zero-terminated
  uint32_t trap_ns;     // an int3 to the handler and back
  uint32_t syscall_ns;  // a system call that does nothing
};

struct Header {
  uint64_t magic;        // [K]
  uint32_t version;      // [K]
  uint32_t header_size;  // [K] sizeof(Header)
  uint64_t total_size;   // [K] of the memfd
  uint32_t target_pid;   // [K] in the target's own pid namespace
  uint32_t capabilities; // [K]
  MemoryMap map;         // [K]
  BackendInfo backend;   // [K]

  // The stop protocol; docs/stop-protocol.md has the state machine.
  alignas(64) std::atomic<uint32_t> stop_request; // [A],[F] set 1; [F] clears: threads must park
  // 0 -> slot + 1 (CAS) claims the stop: [A]; 0 -> kOwnedByFrontend: [F]; [F] clears at resume.
  std::atomic<uint32_t> stop_owner;
  alignas(64) std::atomic<uint32_t> event_seq;    // [A],[K],[F] bumped when there is news; futex
  std::atomic<uint32_t> frontend_waits;           // [F] 1: sleeps in the futex, wake it
  alignas(64) std::atomic<uint32_t> live_threads; // [A],[K] slots not kFree
  std::atomic<uint32_t> slots_in_use;             // [A],[K] high-water mark: scan [0, this)
  std::atomic<uint64_t> missed_stops;             // [A] hits that should have stopped but could not
  std::atomic<uint32_t> abandoned;   // [K],[F],[A] nobody is there any more: nothing stops, ever
  std::atomic<uint32_t> frontend;    // [F] a LifeWord, 0 before it has come
  std::atomic<uint32_t> keeper;      // [K] a LifeWord
  std::atomic<uint32_t> serving;     // [K],[F] 1: the agent sees all of the program's system calls
  std::atomic<uint32_t> spin_limit;  // [F] spins of a parked thread before the futex
  std::atomic<uint32_t> confinement; // [K],[A] ConfinementFlags

  std::atomic<uint32_t> notice_tail;  // [A] next ticket
  std::atomic<uint32_t> notice_head;  // [F] next to read
  std::atomic<uint64_t> lost_notices; // [A]

  std::atomic<uint32_t> policy_seq;             // [F] bumped after a change of signal_policy
  std::atomic<uint8_t> signal_policy[kSignals]; // [F] SignalPolicy

  std::atomic<uint32_t> watch_seq; // [K] bumped after a change of watch_places
  WatchPlace watch_places[kWatchPlaces];
};

struct Session {
  Header header;
  Notice notices[kNotices];
  ThreadSlot threads[kThreadSlots];
  Record records[kRecords];
};

inline constexpr uint64_t page_round(uint64_t n) { return (n + 4095) & ~uint64_t{4095}; }
inline constexpr uint64_t kSessionSize = page_round(sizeof(Session));
inline constexpr uint64_t kCodeTableSize = page_round(sizeof(SiteTable));
// More than 16 MiB hold a place for a jump that has to have a certain byte in its displacement,
// wherever it comes from. The window near the program is as large as that where there is room:
// below a non-PIE one are 4 MiB.
inline constexpr uint64_t kCodeNearLibsSize = 17ull << 20;
inline constexpr uint64_t kCodeNearMainSize = 17ull << 20;
inline constexpr uint64_t kCodeNearLibsOffset = kCodeTableSize;
inline constexpr uint64_t kCodeNearMainOffset = kCodeNearLibsOffset + kCodeNearLibsSize;
inline constexpr uint64_t kCodeSize = kCodeNearMainOffset + kCodeNearMainSize;

static_assert(std::atomic<uint64_t>::is_always_lock_free);
static_assert(sizeof(Boundary) == 24);

} // namespace dune::session
