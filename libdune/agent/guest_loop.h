// The agent's half of Dune mode: docs/dune-mode.md. A thread in a guest is on the host side, in
// guest_loop.cpp, whenever anything but the monitor (monitor.cpp) has to see it.
#pragma once

#include "libdune/agent/agent.h"
#include "libdune/backend/guest.h"
#include "libdune/process/address_space.h"
#include "libdune/process/calls.h"
#include "libdune/process/unknown_calls.h"

#include <linux/filter.h>

namespace dune::agent {

// A watchpoint as the agent keeps it: what session::WatchPlace and its record say.
struct Watched {
  uint32_t record;
  uint32_t size;
  TargetAddr address;
  bool writes_only;
};

// What a thread slot has of the guest. Processors are kept for the slot's next thread.
struct alignas(kPageSize) GuestSlot {
  backend::CpuMemory memory;
  // The vector state as a signal frame has it, while the home's fpstate points here. The
  // processor has the true one except from fetch_vectors to the next entry.
  alignas(64) uint8_t vectors[16 * 1024];
  KernelUcontext first_home; // of a thread that was born in the guest
  backend::Cpu cpu;
  uint32_t has_cpu;
  uint32_t vectors_fetched;
  process::FaultHistory faults;
  uint64_t illegal_at;   // the last exit was for an illegal instruction there
  uint32_t in_monitor;   // cpu.regs are the monitor's, the program's lie on its stack
  SignalSet kernel_mask; // the thread's, less the kick's signal; ~0: not known
  // Watchpoints (guest_watch.cpp), by the index of GuestRoom::watched.
  int counters[session::kWatchPlaces];      // perf events of the thread's, 0: not open, -1: refused
  uint64_t accesses[session::kWatchPlaces]; // that a counter has shown so far
  // Of the last instruction that ran past watches.
  uint32_t watched_count;
  Watched watched[session::kWatchPlaces];
  uint64_t values[session::kWatchPlaces]; // before it
  uint32_t reached; // those of `watched` that it may access as far as faults tell, a bit each
  uint32_t counted; // whose counter was on
  uint32_t pages;   // that it accesses, by AddressSpace::watched_bit
  // What the processor's debug registers watch, as of this Header::watch_seq; 0: nothing.
  uint32_t armed_seq;
  uint32_t armed_count;
  Watched armed[session::kDebugRegisters];
  uint64_t debug_status; // bits of DR6, of the last debug exception that nobody has looked at
};

// The seccomp filters that the program's threads have installed, as the program gave them: a
// thread has one and what was there before it.
struct SeccompFilter {
  const SeccompFilter* older;
  uint32_t count;
  sock_filter lines[];
};
struct SeccompFilters {
  std::atomic<uint32_t> lock; // guards all, and the threads' `filters`
  uint32_t used;
  alignas(8) uint8_t room[2 << 20];
};

struct GuestRoom {
  backend::Guest guest;
  process::AddressSpace memory;
  process::UnknownCalls unknown_calls;
  // What is ours of the process's memory, by rising address.
  uint32_t own_count;
  TargetRange own[3];
  TargetRange copies[2]; // of it, the code that the program executes
  // As many as /proc/sys/vm/max_map_count lets a process have by default.
  process::Mapped known[65536];
  // Under the lock of `memory`; `watch_seq` says which Header::watch_seq it was made for.
  std::atomic<uint32_t> watch_seq;
  uint32_t watched_count, register_count;
  Watched watched[session::kWatchPlaces]; // by pages
  Watched registers[session::kDebugRegisters];
  SeccompFilters filters;
  GuestSlot slots[session::kThreadSlots];
};
static_assert(sizeof(GuestRoom) + 2 * kGuestTablesSize <= kGuestRoomSize);

// The guest's own memory in it, with the tables: aligned to its size.
inline TargetRange guest_tables() {
  const TargetAddr begin =
      TargetAddr(agent_config.guest + sizeof(GuestRoom)).align_up(kGuestTablesSize);
  return {begin, begin + kGuestTablesSize};
}
inline GuestRoom& guest_room() { return *reinterpret_cast<GuestRoom*>(agent_config.guest); }
inline GuestSlot& guest_slot(const ThreadBlock* t) { return guest_room().slots[t->slot]; }

template <class F> void each_slot_with_processor(F&& f) {
  GuestRoom& room = guest_room();
  uint32_t left = room.guest.cpu_count;
  for (uint32_t i = 0; i < session::kThreadSlots && left; ++i)
    if (room.slots[i].has_cpu) {
      f(room.slots[i]);
      --left;
    }
}

inline std::span<const TargetRange> own_memory() {
  return {guest_room().own, guest_room().own_count};
}
inline bool is_partly_ours(TargetRange range) {
  for (const TargetRange& own : own_memory())
    if (own.overlaps(range))
      return true;
  return false;
}
// The agent's memory is ring 0's, and the program cannot have the kernel touch it either.
inline bool is_protected() {
  return agent_config.guest && !agent_config.trap_stacks &&
         guest_room().guest.placement == backend::Placement::kRing0;
}

inline bool in_guest(const ThreadBlock* t) { return t && t->home; }
// It is, or will be when it goes on from the agent.
inline bool lives_in_guest(const ThreadBlock* t) {
  return in_guest(t) || (agent_config.guest && !agent_config.guest_closed);
}

// guest_loop.cpp
// At birth: the process's guest. AgentConfig::guest_refused says what came of it.
void open_process_guest();
// At the end: its descriptors. No thread is in it.
void close_process_guest();
void leave_forwarded_call(ThreadBlock*);
// At the end of every handler: the thread goes on in the guest, if it is to, and comes back when it
// leaves. uc is the program's context before and after.
void run_in_guest(ThreadBlock*, KernelUcontext*);
// A signal that found the thread on the host side: true, if it waits for the loop now.
bool record_signal(ThreadBlock*, const KernelSiginfo&, KernelUcontext* found);
// False: the backend has no more processors.
bool open_processor(ThreadBlock*);
// Whether the thread may read the counter in the guest, as the kernel has it (PR_SET_TSC).
void show_time_stamps(ThreadBlock*);
// No handler records a signal until the next entry.
void hold_signals(ThreadBlock*);
inline void set_kernel_mask(SignalSet mask) {
  constexpr long kSigSetmask = 2;
  syscall_of(__NR_rt_sigprocmask, kSigSetmask, reinterpret_cast<uint64_t>(&mask), 0, sizeof mask);
}
// Brings the vector state into the home's fpstate.
void fetch_vectors(ThreadBlock*);

// guest_faults.cpp
// The error code where an `int` is not callable.
constexpr uint64_t interrupt_error(uint8_t vector) {
  constexpr uint64_t kInTable = 2;
  return uint64_t{vector} << 3 | kInTable;
}
inline constexpr uint64_t kCallOf32Bits = interrupt_error(0x80);
// The exception that the same instruction raises without a guest; moves rip back to it.
backend::Exit as_without_guest(ThreadBlock*, const backend::Exit&, KernelSigcontext&);
// si_code; 0: there is no exception any more.
int floating_point_code(ThreadBlock*, uint32_t vector);
// Of a debug exception: no step, but the instruction that raises it.
bool is_icebp(ThreadBlock*, const KernelSigcontext&);
// True: the page fault was a call of the vsyscall page, which is done.
bool make_vsyscall(ThreadBlock*, const backend::Exit&, KernelSigcontext&);

// guest_own.cpp
// The guest's descriptors, by rising number. Returns how many.
uint32_t own_descriptors(process::DescriptorRange (&found)[8]);
// By such a descriptor our memory could be changed.
bool writes_our_memory(int fd);
// A getdents or getdents64 has answered with so many bytes: takes out what is ours. Returns how
// many are left.
long hide_ours(ThreadBlock*, const KernelSigcontext&, long size);

// guest_watch.cpp
// Before a thread enters the guest: what is watched by now.
void heed_watches();
// Behind that: the thread's debug registers.
void arm_watches(ThreadBlock*);
// Behind a debug exception: whether debug registers have seen something.
bool has_hits(const ThreadBlock*);
// Notes it, for stop_for_accesses. True: that was all, it was no step.
bool take_hits(ThreadBlock*);
// What both come to, in the guest. False: the host side has to do it, and nothing has been done
// yet.
bool pass_hits(ThreadBlock*, const Registers&);
// Its next instruction accesses a watched page, as the fault says: it runs with a trap behind it
// and that page as any other. (If it is a system call, it has been made.)
void run_access(ThreadBlock*, KernelUcontext*, const backend::Exit& fault);
// First in the handlers: what the instruction has accessed, and the program's own mask. True: it
// has been run. (In `info` is its trap then; another signal that has taken that one's place comes
// again.)
bool end_access(ThreadBlock*, KernelUcontext*, KernelSiginfo* info);
// It is put off; with its fault it begins anew.
void abandon_access(ThreadBlock*, KernelUcontext*);
// What end_access and stop_for_accesses come to, in the guest. False: it has to be done there, and
// nothing has been done yet.
bool pass_access(ThreadBlock*, const Registers&);
// Of the thread's tables, for what it runs next.
GuestPhysAddr root_of(const ThreadBlock*);
// Stops for what end_access and take_hits have found, at a place where the program's state can be
// named. True: it has stopped, and goes on from there.
bool stop_for_accesses(ThreadBlock*, KernelUcontext*);
void close_counters(GuestSlot&);

// guest_calls.cpp
// Which calls of a program in ring 0 are made without coming out of a run.
backend::PassCall* pass_call();
// The thread's `syscall` behind which it is.
void make_guest_call(ThreadBlock*, KernelUcontext*);
// The thread's int $0x80, at which it is.
void make_guest_call_32(ThreadBlock*, KernelUcontext*);

// calls_confine.cpp
// What the program gave, of the filter that prepare_confining has made of it.
std::span<const sock_filter> filter_being_installed(const ThreadBlock*);

// guest_confine.cpp
// What the program's seccomp filters say to its call, whose instruction is at uc's rip, and its
// arguments in `call`. True: that it is not made; the program goes on with what it is answered.
bool judge_call(ThreadBlock*, KernelUcontext*, const KernelSigcontext& call);
// A call that installs a filter, or any other of the same number.
long make_confining_call(ThreadBlock*, const KernelSigcontext&);
// A new thread has its parent's.
void inherit_filters(ThreadBlock* child, const ThreadBlock* parent);

// guest_entry.S
// Makes the call that m says, from where the program's filters judge it, or (_judged) where they
// let it pass. kNotMade: a signal came first. _32: by int $0x80, with its arguments where those of
// a native call are.
extern "C" long agent_forward(const KernelSigcontext* m, const ThreadBlock*);
extern "C" long agent_forward_judged(const KernelSigcontext* m, const ThreadBlock*);
extern "C" long agent_forward_32(const KernelSigcontext* m, const ThreadBlock*);
extern "C" long agent_forward_32_judged(const KernelSigcontext* m, const ThreadBlock*);
extern "C" char agent_forward_begin[], agent_forward_end[], agent_forward_judged_begin[],
    agent_forward_judged_end[], agent_forward_32_begin[], agent_forward_32_end[],
    agent_forward_32_judged_begin[], agent_forward_32_judged_end[];
inline long forward_call(const KernelSigcontext& m, const ThreadBlock* t) {
  if (t->call_32)
    return t->call_judged ? agent_forward_32_judged(&m, t) : agent_forward_32(&m, t);
  return t->call_judged ? agent_forward_judged(&m, t) : agent_forward(&m, t);
}
// Makes a thread whose stack is its block's; it begins in agent_in_guest_thread.
extern "C" long agent_forward_clone(const KernelSigcontext* m, ThreadBlock* child);
extern "C" long agent_forward_clone_judged(const KernelSigcontext* m, ThreadBlock* child);
// rt_sigreturn.
extern "C" [[noreturn]] void agent_resume(const KernelUcontext*);
extern "C" char agent_monitor_step[], agent_monitor_breakpoint[], agent_monitor_saved[],
    agent_monitor_commit[], agent_monitor_pass[], agent_monitor_attention[], agent_monitor_end[];

// The monitor's stack is the lower end of the slot's, and begins with this.
inline constexpr uint64_t kMonitorStackSize = 8 * 1024;
struct MonitorFrame {
  Registers regs;
  uint64_t vector;
  TrapFrame trap;
};
inline TargetAddr monitor_stack(const ThreadBlock* t) {
  return TargetAddr(agent_config.stacks + t->slot * session::kAgentStackSize + kMonitorStackSize);
}
inline MonitorFrame& monitor_frame(const ThreadBlock* t) {
  return *reinterpret_cast<MonitorFrame*>(monitor_stack(t).value - sizeof(MonitorFrame));
}

} // namespace dune::agent
