// The agent's inside. Everything here runs in the target, in a signal handler on the agent's own
// stack, with all signals blocked but the synchronous ones: no libc, no heap, no thread-local
// storage, no vector registers, and no lock that is held across anything that can wait.
//
// Reading order: trap.cpp (what happens at an int3 or a step), sites.cpp (what a site means),
// stop.cpp (how a thread waits for the front end), kick.cpp (how a running one is brought there),
// signals.cpp (how the program gets its signals), pending.cpp (those that it blocks),
// calls_signal.cpp, calls_process.cpp and calls_confine.cpp (system calls the agent has to see).
#pragma once

#include "libdune/agent/image.h"
#include "libdune/arch/signal_frame.h"
#include "libdune/arch/syscall.h"
#include "libdune/base/assert.h"
#include "libdune/session/layout.h"

namespace dune::agent {

extern "C" AgentConfig agent_config;

// What the monitor (monitor.cpp) runs for a breakpoint lies together, on a page: every trap goes
// that way.
#define DUNE_OF_MONITOR [[gnu::section(".text.monitor")]]

// A signal that waits for a thread of this slot, or, with kNone, for any.
struct Waiting {
  KernelSiginfo info;
  uint32_t slot;
  uint32_t reserved;
};
inline constexpr uint32_t kMostWaiting = 64;

// State of the process, private memory (a forked child gets its own copy).
struct Process {
  KernelSigaction actions[kSignalCount + 1]; // what the program asked for
  SignalSet mask;                            // blocked while the agent runs, see agent_mask()
  std::atomic<uint32_t> lock;                // guards actions, mask, waiting and slot allocation
  uint32_t detached;   // a forked child: the session is gone, nothing is traced
  uint32_t policy_seq; // Header::policy_seq the kernel's dispositions were made for
  // pending.cpp, oldest first; `shared`: the signals of those for any thread.
  std::atomic<SignalSet> shared;
  uint32_t waiting_count;
  Waiting waiting[kMostWaiting];
};
extern Process process asm("agent_process");
static_assert(offsetof(AgentConfig, gates) == 0);
static_assert(offsetof(Process, actions) == 0);                     // the keeper reads them
static_assert(offsetof(Process, mask) == sizeof(Process::actions)); // in entry.S

// The signals the agent keeps deliverable, whatever the program's mask says.
inline SignalSet owned() { return agent_config.owned; }
inline constexpr SignalSet kSynchronous =
    signal_bit(kSigIll) | signal_bit(kSigBus) | signal_bit(kSigFpe) | signal_bit(kSigSegv);

inline uint64_t address_of(const void* p) { return reinterpret_cast<uint64_t>(p); }
inline bool between(uint64_t address, const char* begin, const char* end) {
  return address >= address_of(begin) && address < address_of(end);
}

inline bool in_agent_text(uint64_t address) {
  return address - agent_config.text_begin < agent_config.text_end - agent_config.text_begin;
}

// In the copies and the other code made for sites.
inline bool in_arena(uint64_t address) {
  return address - agent_config.code_near_libs < session::kCodeNearLibsSize ||
         address - agent_config.code_near_main < agent_config.code_near_main_size;
}

inline bool runs_agent(const KernelUcontext* uc) {
  return in_agent_text(uc->mcontext.rip) ||
         uc->mcontext.rsp - agent_config.stacks < session::kThreadSlots * session::kAgentStackSize;
}

inline session::Session& the_session() {
  return *reinterpret_cast<session::Session*>(agent_config.session);
}
inline session::Header& header() { return the_session().header; }
inline session::SiteTable& site_table() {
  return *reinterpret_cast<session::SiteTable*>(agent_config.code_table);
}
inline session::Site* find_site(uint64_t address) {
  session::SiteTable& table = site_table();
  for (uint32_t i = session::site_hash(address), n = 0; n < session::kSiteHashSize;
       i = (i + 1) % session::kSiteHashSize, ++n) {
    uint32_t entry = table.hash[i].load(std::memory_order_acquire);
    if (entry == 0 || entry > session::kSites)
      return nullptr;
    if (table.sites[entry - 1].address == address)
      return &table.sites[entry - 1];
  }
  return nullptr;
}
inline ThreadBlock* block_at(uint32_t slot) {
  return reinterpret_cast<ThreadBlock*>(block_of_slot(agent_config.stacks, slot));
}
inline session::ThreadSlot& slot_of(const ThreadBlock* t) { return the_session().threads[t->slot]; }

// The calling thread's block, from the stack it runs on; null for a thread without a slot.
inline ThreadBlock* current() {
  uint64_t here = reinterpret_cast<uint64_t>(__builtin_frame_address(0)) - agent_config.stacks;
  if (here >= session::kThreadSlots * session::kAgentStackSize)
    return nullptr;
  return block_at(static_cast<uint32_t>(here / session::kAgentStackSize));
}

// True when this thread takes part in stops and counts: it has a slot, is no vfork child and no
// fork child.
inline bool takes_part(const ThreadBlock* t) {
  return t && !process.detached && !t->passthrough && !t->in_vfork;
}

// Single steps are wanted, now: not while a call runs at full speed, nor a handler of the
// program's.
inline bool steps(const ThreadBlock* t) {
  return takes_part(t) && t->action != session::Action::kRun && !t->stepping_over_call &&
         !t->step_frame;
}

class SpinLock {
public:
  explicit SpinLock(std::atomic<uint32_t>& word) : word_(word) {
    while (word_.exchange(1, std::memory_order_acquire))
      while (word_.load(std::memory_order_relaxed))
        __builtin_ia32_pause();
  }
  ~SpinLock() { word_.store(0, std::memory_order_release); }
  SpinLock(const SpinLock&) = delete;
  SpinLock& operator=(const SpinLock&) = delete;

private:
  std::atomic<uint32_t>& word_;
};

struct Guarded {
  uint64_t value;
  uint64_t faulted;
};
// Calls function(argument). A fault in it arrives at 1:, with the stack as it was (take_guard) and
// nothing else. Inline, because the monitor computes each condition so: what the caller does not
// need is not saved for it.
inline Guarded guarded_call(uint64_t function, const void* argument, ThreadBlock* t) {
  uint64_t faulted;
  ThreadBlock* block = t;
  asm volatile(
      "lea 1f(%%rip), %%rdx\n\t"
      "mov %%rdx, %c[rip](%%rbx)\n\t"
      "mov %%rsp, %c[rsp](%%rbx)\n\t"
      "mov %%rbp, %c[rbp](%%rbx)\n\t"
      "lea -128(%%rsp), %%rsp\n\t" // below the red zone
      "and $-16, %%rsp\n\t"
      "call *%%rax\n\t"
      "mov %c[rsp](%%rbx), %%rsp\n\t"
      "xor %%edx, %%edx\n\t"
      "jmp 2f\n"
      "1:\n\t"
      "mov $1, %%edx\n"
      "2:"
      : "+a"(function), "=&d"(faulted), "+b"(block), "+D"(argument)
      : [rip] "i"(offsetof(ThreadBlock, guard_rip)), [rsp] "i"(offsetof(ThreadBlock, guard_rsp)),
        [rbp] "i"(offsetof(ThreadBlock, guard_rbp))
      : "rcx", "rsi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
  t->guard_rip = 0;
  return {function, faulted};
}
// Whether a guarded call has faulted; `to`, of KernelSigcontext or Registers, goes on behind it.
bool take_guard(ThreadBlock* t, auto& to) {
  if (!t || !t->guard_rip)
    return false;
  to.rip = t->guard_rip;
  to.rsp = t->guard_rsp;
  to.rbp = t->guard_rbp;
  t->guard_rip = 0;
  return true;
}

// entry.S
// Hidden, here and at the handlers: the address of a function that could be elsewhere is read
// through the GOT, and in this image the linker would make that an absolute address.
extern "C" [[gnu::visibility("hidden")]] void agent_restorer();
// sigaltstack, made with another stack pointer: the call is refused on the very stack.
extern "C" long agent_set_altstack(const KernelStack*, KernelStack* before);
// One per slot, kTrampolineSize each: for calls of the slot's own thread, and for the call that
// makes the slot's thread.
extern "C" char agent_own_trampolines[], agent_child_trampolines[];
extern "C" char agent_restore_begin[], agent_restore_end[];
// The parts of agent_quick_call, by where the program's registers are meanwhile.
extern "C" char agent_quick_call[], agent_quick_saved[], agent_quick_blocked[],
    agent_quick_leaving[], agent_quick_end[];
// `syscall; int3`: see step_system_call in trap.cpp.
extern "C" char agent_stepped_call[];
// From here to the end of the text are the calls that the agent makes for the program.
extern "C" char agent_program_calls[];
inline constexpr uint64_t kTrampolineSize = 16;
inline uint64_t own_trampoline(const ThreadBlock* t) {
  return reinterpret_cast<uint64_t>(agent_own_trampolines) + t->slot * kTrampolineSize;
}

// memory.cpp
extern "C" void* memcpy(void* to, const void* from, __SIZE_TYPE__ n);
extern "C" void* memset(void* to, int value, __SIZE_TYPE__ n);
bool read_user(ThreadBlock*, void* to, uint64_t from, uint64_t size);
bool write_user(ThreadBlock*, uint64_t to, const void* from, uint64_t size);

// sites.cpp
enum class Place {
  kProgram, // outside our code, or translated to the program's own address
  kUnclear, // inside a copy or the agent, where the program's state cannot be named
};
// Translates an instruction pointer inside a copy (or the agent's call path) to the program's.
// `counted` gets the site's address when the displaced instruction has not run yet although its
// hit was handled.
Place to_program(ThreadBlock*, KernelUcontext*, uint64_t* counted);
// From agent_stepped_call, before or after its call, back to the program.
void leave_stepped_call(ThreadBlock*, KernelUcontext*);
// Evaluates the records of the site; if one wants to stop and the stop could be claimed, fills the
// slot's fired list and returns kStop. kBusy: another stop came first; nothing was counted.
enum class Verdict { kPass, kStop, kBusy };
Verdict run_records(ThreadBlock*, session::Site*, const KernelUcontext*);
// A watchpoint's record behind an access of the thread's.
struct WatchedAccess {
  uint32_t record;
  bool is_certain;        // else it was one of this watchpoint only if the value has changed
  const uint64_t* before; // the value that the thread has seen just before it; null: not known
};
// Evaluates them; those that want to stop are in the slot's fired list, their hits not yet counted.
// False: none does.
bool run_watches(ThreadBlock*, const WatchedAccess*, uint32_t count, const KernelUcontext*);
// Without a guest: the kernel sends one SIGTRAP for all watchpoints that one access was of, and
// this is the record that it tells of. Returns how many it may have been, at most kWatchPlaces.
uint32_t seen_by(uint32_t record, WatchedAccess*);
// As far as the record wants nothing of the access. False: it may, and nothing has been counted.
bool pass_watch(ThreadBlock*, uint32_t record, const Registers&, const uint64_t* before);

// The handlers; from the host loop, too.
extern "C" [[gnu::visibility("hidden")]] void agent_on_signal(int signal, KernelSiginfo*,
                                                              KernelUcontext*);
extern "C" [[gnu::visibility("hidden")]] void agent_on_trap(int signal, KernelSiginfo*,
                                                            KernelUcontext*);

// trap.cpp
// Goes on from uc->rip as the program; `counted`: a site at that address was already dealt with.
void go_on(ThreadBlock*, KernelUcontext*, uint64_t counted);
// The same after a stop: first the signal that the user asked for, if any (`signal N`).
void go_on_after_stop(ThreadBlock*, KernelUcontext*, uint64_t counted);
// The thread has arrived at uc->rip by a step (or an emulated instruction): stop, or step on.
void step_landed(ThreadBlock*, KernelUcontext*);
// First and last in every handler. In between uc has the trap flag that the program has set.
void take_trap_flag(ThreadBlock*, KernelUcontext*);
void set_trap_flag(ThreadBlock*, KernelUcontext*);
// What the instruction there does to the trap flag, besides being stepped.
FlagsUse flags_use(ThreadBlock*, uint64_t rip);
// Of the `syscall` at this address, with whatever prefixes; 0: it is another instruction.
uint64_t behind_system_call(ThreadBlock*, uint64_t rip);
// Sends the thread to make the call whose `syscall` is at this address from agent_stepped_call.
void call_from_agent(ThreadBlock*, KernelUcontext*, uint64_t syscall);
// Steps the thread on, all else held back, to the next place where the program's state can be
// named; there it parks if a stop is on, or gets the signal.
void step_out(ThreadBlock*, KernelUcontext*);
void step_out_with(ThreadBlock*, KernelUcontext*, const KernelSiginfo&);
void end_step_out(ThreadBlock*, KernelUcontext*);

// enter.cpp
// What the program has set up so far (at birth: what it inherited); then the handlers are ours.
void take_actions();
// The dispositions that are still ours: a program that the agent could not serve may have made
// others.
void give_back_actions();
bool cannot_serve();
// The thread goes on without us. The handlers stay ours; to them it has no slot from now on.
void give_back(ThreadBlock*, KernelUcontext*, const KernelSiginfo* undelivered = nullptr);

// stop.cpp
bool claim_stop(ThreadBlock*);
inline bool
stop_wanted(const ThreadBlock* t) { // somebody's stop is on, and this thread has to park
  return takes_part(t) && header().stop_request.load() && !slot_of(t).exempt.load() &&
         !header().abandoned.load(std::memory_order_relaxed);
}
// Parks until the front end lets go; registers go to the session and come back. Afterwards the
// slot's action has been taken over into the block.
// False: the stop was over before it was told to go on, and it goes on with what it was doing.
bool park(ThreadBlock*, KernelUcontext*, session::StopReason);
void post_event();
void notice(session::NoticeKind, uint32_t tid, uint32_t value);
uint32_t allocate_slot();
void free_slot(uint32_t slot);

// kick.cpp
enum class KickedBy { kPerfEvent, kSignal };
bool is_queued_kick(const KernelSiginfo&);
KernelSiginfo kick_by(int signal);
void kick_self(); // arrives when the agent lets signals in again
void on_kick(ThreadBlock*, KernelUcontext*, KickedBy);

// The call that a signal has ended with EINTR, if it is told by a `mov $nr,%eax` before it.
inline constexpr uint32_t kNoCall = ~0u;
uint32_t interrupted_call(ThreadBlock*, const KernelUcontext*);
// The same call, ended by a signal that is not to be seen, is made again.
void repair_interrupted_call(ThreadBlock*, KernelUcontext*);

// signals.cpp
// Blocked while the agent runs: all but faults, and but what the kernel drops anyway. Blocked, such
// a signal would be kept, and interrupt the system call of a thread that does not block it.
inline SignalSet agent_mask() { return process.mask; }
// Beside what is blocked already: the kernel would drop a signal that the program blocks and that
// is ignored by default (SIGCHLD, SIGURG) at the moment at which nobody blocked it.
inline void hold_back(SignalSet signals) {
  constexpr long kSigBlock = 0;
  syscall_of(__NR_rt_sigprocmask, kSigBlock, reinterpret_cast<uint64_t>(&signals), 0,
             sizeof signals);
}
inline void set_kernel_action(int signal, const KernelSigaction& action) {
  syscall_of(__NR_rt_sigaction, signal, reinterpret_cast<uint64_t>(&action), 0, 8);
}
KernelSigaction kick_action();   // handled by us, whatever the program has for it
void install_action(int signal); // the kernel's disposition from the program's and the policy
void refresh_policy();
// What the front end has a thread resumed with; 0: nothing, also if the program has written there.
uint32_t signal_to_deliver(const ThreadBlock*);
KernelSiginfo chosen_signal(uint32_t signal);
// Runs the program's handler, or does what the default is. uc is the program's context.
void deliver(ThreadBlock*, KernelUcontext*, KernelSiginfo*, uint64_t counted);
void deliver_pending(ThreadBlock*, KernelUcontext*);
// What a call with a mask of its own, which holds while it waits, blocks then.
bool wait_mask(ThreadBlock*, uint64_t number, const KernelSigcontext&, SignalSet* mask);
// Everything that a signal means at a place where the program's state is known.
void on_asynchronous_signal(ThreadBlock*, KernelUcontext*, KernelSiginfo*);
// To the calling thread, which gets it when the mask lets it through.
void send_to_self(const KernelSiginfo&);
// The signal's default action, as the kernel itself does it: from the program's context, with the
// original siginfo, so that exit status and core are right.
void default_action(ThreadBlock*, KernelUcontext*, const KernelSiginfo*);
void signal_at_program(ThreadBlock*, KernelUcontext*, KernelSiginfo*, uint64_t counted);
// The same for what has been accessed. True: the thread has stopped for it.
bool stop_for_watches(ThreadBlock*, KernelUcontext*, const WatchedAccess*, uint32_t count);
SignalSet program_mask(const ThreadBlock*, SignalSet kernel_mask);
void set_program_mask(ThreadBlock*, KernelUcontext*, SignalSet);

// pending.cpp
void keep_pending(ThreadBlock*, const KernelSiginfo&); // the program blocks it
void undo_passing_on(KernelSiginfo*); // as it was sent, where one thread had it from another
SignalSet pending_signals(const ThreadBlock*);
// The first of these signals.
bool take_pending(ThreadBlock*, SignalSet signals, KernelSiginfo*);
inline void open_gate_of_waits() {
  constexpr auto kWaits = static_cast<int>(session::GateKind::kWaits);
  __atomic_store_n(&agent_config.gates.open[kWaits], 1, __ATOMIC_SEQ_CST);
}
void drop_pending(uint32_t slot); // of a thread that is no more

// calls_*.cpp: the instruction at uc->rip is a `syscall` that the agent wants to see.
void handle_syscall(ThreadBlock*, session::Site*, KernelUcontext*);
bool signal_call(ThreadBlock*, KernelUcontext*, long* result); // true: done, result in *result
bool process_call(ThreadBlock*, KernelUcontext*);              // true: uc->rip was set
// Behind its call, and what the program's signals that wait do there.
void answer(ThreadBlock*, KernelUcontext*, long result, KernelSiginfo* first = nullptr);
// Calls about signals; true: dealt with.
bool answer_signal_call(ThreadBlock*, KernelUcontext*);
// It has waited for a signal of ours (ThreadBlock::waits_for), if it was such a call.
void end_wait(ThreadBlock*, const KernelSigcontext&, long result);
// What has to be done before a call that makes, replaces or ends something; behind it:
// agent_after_call, where `call` is not kNone. `child`: the block of the thread to be made; none in
// a guest: there is no slot for one.
struct ProcessCall {
  PendingCall call;
  ThreadBlock* child;
};
ProcessCall begin_process_call(ThreadBlock*, KernelUcontext*);
extern "C" void agent_in_new_thread(ThreadBlock*);
extern "C" void agent_after_call(ThreadBlock*);
// From behind a trampoline whose call was answered by SIGSYS, back to the program.
void leave_refused_call(ThreadBlock*, KernelUcontext*);
enum class Confinement { kNone, kNoMemory, kOnItsWay };
// Of the thread by seccomp, if that is the call whose `syscall` is at this address.
Confinement confine(ThreadBlock*, KernelUcontext*, uint64_t syscall);
// Of that call: puts our filter in place of the program's.
Confinement prepare_confining(ThreadBlock*, KernelSigcontext&);
// Its end, or its being put off: the program's arguments.
void end_confining(ThreadBlock*, KernelSigcontext*, bool made);
void drop_confining(ThreadBlock*);
// Seccomp's strict mode kills for any other.
bool is_strictly_allowed(uint64_t syscall_number);
// Removes every site from this process's text. False: some could not be removed.
bool remove_sites(ThreadBlock*);

} // namespace dune::agent
