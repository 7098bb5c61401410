// Watchpoints in Dune mode. Those that have a debug register (session::WatchPlace) come to each
// thread's processor when it enters the guest; what they see is a debug exception behind the
// instruction, which says which it was of.
//
// Of the others the page is withheld from the guest (process::AddressSpace). A thread that accesses
// it executes that one instruction past the watch, where it has the page as the
// process has it, with the trap flag set. So no access of another thread is missed meanwhile, and
// the kernel's own (system calls) are not hindered. There are two ways:
//
// Where ring 0 is real, in the guest, with a view of the tables: so our own memory stays protected
// from that instruction, too. A signal that comes before it puts it off.
//
// Else outside the guest, with every signal blocked but SIGTRAP and faults: what the host's mapping
// does not change, KVM's shadow of the tables would not see.
//
// Which of the page's bytes it was, the page fault says. Outside, a perf event can, too, which
// counts accesses of this thread and is on for just that instruction. It sends no signal: that
// would be lost beside the trap flag's.
#include "libdune/agent/guest_loop.h"
#include "libdune/arch/access_size.h"
#include "libdune/arch/debug_registers.h"

#include <linux/hw_breakpoint.h>
#include <linux/perf_event.h>

namespace dune::agent {

using namespace session;
using backend::Exit;

static_assert(kWatchPlaces <= process::AddressSpace::kMostWatched);
static_assert(kWatchPlaces + kDebugRegisters <= 32); // ThreadBlock::accessed

namespace {

constexpr uint64_t kWidestAccess = 64; // of an instruction that does not repeat

// QEMU's own processor (TCG, 7.2) never comes out of the kernel's #DB where a data breakpoint and
// the trap flag are due at the same instruction.
bool confuses_traps() {
  constexpr uint32_t kHypervisorLeaf = 0x40000000;
  uint32_t eax = kHypervisorLeaf, ebx, ecx = 0, edx;
  asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
  uint32_t tcg;
  memcpy(&tcg, "TCGT", sizeof tcg); // TCGTCGTCGTCG
  return ebx == tcg;
}

int open_counter(const Watched& w) {
  if (confuses_traps())
    return -1;
  perf_event_attr attr;
  memset(&attr, 0, sizeof attr);
  attr.size = sizeof attr;
  attr.type = PERF_TYPE_BREAKPOINT;
  attr.bp_type = w.writes_only ? HW_BREAKPOINT_W : HW_BREAKPOINT_RW;
  attr.bp_addr = w.address.value;
  attr.bp_len = w.size;
  attr.disabled = 1;
  attr.exclude_kernel = 1;
  attr.exclude_hv = 1;
  constexpr int kThisThread = 0, kAnyProcessor = -1, kNoGroup = -1;
  const long fd =
      backend::move_high(syscall_of(__NR_perf_event_open, reinterpret_cast<uint64_t>(&attr),
                                    kThisThread, kAnyProcessor, kNoGroup, PERF_FLAG_FD_CLOEXEC));
  return is_errno(fd) ? -1 : static_cast<int>(fd);
}

void control(int counter, unsigned request) { syscall_of(__NR_ioctl, counter, request, 0); }

uint64_t count_of(int counter) {
  uint64_t count = 0;
  syscall_of(__NR_read, counter, reinterpret_cast<uint64_t>(&count), sizeof count);
  return count;
}

// Of the session's records, which the program can have scribbled over.
void read_watches(GuestRoom& room) {
  room.watched_count = room.register_count = 0;
  for (const WatchPlace& w : header().watch_places) {
    const uint32_t record = w.record.load() - 1;
    if (record >= kRecords)
      continue;
    const Record& r = the_session().records[record];
    const bool sound =
        (r.watch_size == 1 || r.watch_size == 2 || r.watch_size == 4 || r.watch_size == 8) &&
        r.watch_address % r.watch_size == 0;
    if (!sound)
      continue;
    const Watched watched{record, r.watch_size, TargetAddr(r.watch_address),
                          w.writes_only.load() != 0};
    if (!w.by_register.load())
      room.watched[room.watched_count++] = watched;
    else if (room.register_count < kDebugRegisters &&
             !is_partly_ours({watched.address, watched.address + watched.size}))
      room.registers[room.register_count++] = watched;
  }
}

bool contains(const Watched& w, TargetAddr address) { return address - w.address < w.size; }

// The fault names the first byte that the instruction could not have. What else it accesses, and
// whether it writes what it has read, remains open.
bool tells_enough(const Exit& fault, const Watched& w) {
  return contains(w, TargetAddr(fault.address)) && !(fault.error & process::kFaultFetch) &&
         (!w.writes_only || fault.error & process::kFaultWrite);
}

uint32_t access_size_at(ThreadBlock* t, uint64_t rip) {
  constexpr uint64_t kMostInstruction = 15;
  uint8_t code[kMostInstruction];
  const uint64_t in_page = kPageSize - rip % kPageSize;
  if (read_user(t, code, rip, sizeof code))
    return access_size(code);
  const bool is_short = in_page < sizeof code && read_user(t, code, rip, in_page);
  return is_short ? access_size({code, in_page}) : 0;
}

// What can be told without a counter, of an access of `size` bytes, 0: not known.
bool may_reach(const Exit& fault, uint32_t size, const Watched& w) {
  const TargetAddr first(fault.address);
  if (first >= w.address)
    return contains(w, first);
  if (size)
    return w.address - first < size;
  // A write that changes nothing is none in the end.
  return w.writes_only && w.address - first < kWidestAccess;
}

void note_access(ThreadBlock* t, const KernelUcontext* uc, const Exit& fault) {
  GuestSlot& g = guest_slot(t);
  g.pages |= guest_room().memory.watched_bit(TargetAddr(fault.address).align_down(kPageSize));
  const bool is_fetch = fault.error & process::kFaultFetch;
  const uint32_t size = is_fetch ? 0 : access_size_at(t, uc->mcontext.rip);
  for (uint32_t i = 0; i < g.watched_count; ++i)
    if (may_reach(fault, size, g.watched[i]))
      g.reached |= 1u << i;
}

void remember_values(ThreadBlock* t) {
  const GuestRoom& room = guest_room();
  GuestSlot& g = guest_slot(t);
  g.watched_count = takes_part(t) ? room.watched_count : 0; // a process of its own
  for (uint32_t i = 0; i < g.watched_count; ++i) {
    const Watched& w = g.watched[i] = room.watched[i];
    read_user(t, &(g.values[i] = 0), w.address.value, w.size);
  }
}

// Turns the counters on, as the last thing: what the agent itself reads is not to be counted.
void begin_counting(GuestSlot& g, const Exit& fault) {
  for (uint32_t i = 0; i < g.watched_count; ++i) {
    const Watched& w = g.watched[i];
    if (tells_enough(fault, w))
      continue;
    if (!g.counters[i]) {
      g.counters[i] = open_counter(w);
      g.accesses[i] = 0;
    }
    if (g.counters[i] > 0)
      g.counted |= 1u << i;
  }
  for (uint32_t i = 0; i < g.watched_count; ++i)
    if (g.counted & 1u << i)
      control(g.counters[i], PERF_EVENT_IOC_ENABLE);
}

void end_counting(ThreadBlock* t, bool was_run) {
  GuestSlot& g = guest_slot(t);
  // Whoever heeds a change of what is watched closes them, meanwhile too.
  const auto counter_of = [&g](uint32_t i) {
    return g.counted & 1u << i ? __atomic_load_n(&g.counters[i], __ATOMIC_RELAXED) : 0;
  };
  for (uint32_t i = 0; i < g.watched_count; ++i)
    if (const int counter = counter_of(i); counter > 0)
      control(counter, PERF_EVENT_IOC_DISABLE);
  for (uint32_t i = 0; i < g.watched_count; ++i) {
    bool accessed;
    if (const int counter = counter_of(i); counter > 0) {
      const uint64_t count = count_of(counter);
      accessed = count > g.accesses[i];
      g.accesses[i] = count;
    } else {
      accessed = was_run && (g.reached & 1u << i);
    }
    if (accessed)
      t->accessed |= 1u << i;
  }
}

} // namespace

void close_counters(GuestSlot& g) {
  for (int& counter : g.counters) {
    if (counter > 0)
      syscall_of(__NR_close, counter);
    counter = 0;
  }
}

void heed_watches() {
  GuestRoom& room = guest_room();
  if (room.watch_seq.load() == header().watch_seq.load())
    return;
  const process::Holder hold(room.memory.mutex());
  const uint32_t seq = header().watch_seq.load();
  if (room.watch_seq.load() == seq)
    return;
  read_watches(room);
  // All threads': whoever takes part in stops is parked, or waits here.
  each_slot_with_processor(close_counters);
  process::WatchedPage pages[kWatchPlaces];
  for (uint32_t i = 0; i < room.watched_count; ++i)
    pages[i] = {room.watched[i].address.align_down(kPageSize), room.watched[i].writes_only};
  room.memory.watch_locked({pages, room.watched_count});
  room.watch_seq.store(seq);
}

// Of a slot the processor stays, with what was armed in it.
void arm_watches(ThreadBlock* t) {
  GuestRoom& room = guest_room();
  GuestSlot& g = guest_slot(t);
  const auto wanted = [&] { return takes_part(t) ? room.watch_seq.load() : 0; };
  if (g.armed_seq == wanted())
    return;
  const process::Holder hold(room.memory.mutex());
  const uint32_t seq = wanted();
  const uint32_t count = seq ? room.register_count : 0;
  if (count || g.armed_count) {
    backend::DebugRegisters d{};
    for (uint32_t i = 0; i < count; ++i) {
      const Watched& w = g.armed[i] = room.registers[i];
      d.address[i] = w.address.value;
      d.dr7 |= dr7_watching(i, w.size, w.writes_only);
    }
    d.status = &g.debug_status;
    g.debug_status = kDr6Step;
    const Status armed = g.cpu.guest->ops.set_debug(g.cpu, d);
    DUNE_ASSERT(armed);
  }
  g.armed_count = count;
  g.armed_seq = seq;
}

namespace {

uint32_t hits_of(const GuestSlot& g) {
  return static_cast<uint32_t>(g.debug_status) & ((1u << g.armed_count) - 1);
}

// What comes without going by the module's interception, as one from before they were armed, is a
// step.
void forget_hits(GuestSlot& g) { g.debug_status = kDr6Step; }

} // namespace

bool has_hits(const ThreadBlock* t) { return hits_of(guest_slot(t)) != 0; }

bool take_hits(ThreadBlock* t) {
  GuestSlot& g = guest_slot(t);
  const uint32_t hits = hits_of(g);
  const bool stepped = g.debug_status & kDr6Step;
  t->accessed |= hits << kWatchPlaces;
  forget_hits(g);
  return hits && !stepped;
}

bool pass_hits(ThreadBlock* t, const Registers& r) {
  GuestSlot& g = guest_slot(t);
  const uint32_t hits = hits_of(g);
  if (hits & (hits - 1)) // of several none may have been counted if one wants something
    return false;
  const Watched& w = g.armed[__builtin_ctz(hits)];
  if (in_arena(r.rip) || !pass_watch(t, w.record, r, nullptr))
    return false;
  forget_hits(g);
  return true;
}

void run_access(ThreadBlock* t, KernelUcontext* uc, const Exit& fault) {
  KernelSigcontext& m = uc->mcontext;
  GuestSlot& g = guest_slot(t);
  if (t->past_watches) // another page of the same instruction's
    return note_access(t, uc, fault);
  take_trap_flag(t, uc);
  if (const uint64_t behind = behind_system_call(t, m.rip)) { // fetched from such a page
    m.rip = m.rcx = behind;
    m.r11 = m.eflags;
    make_guest_call(t, uc);
    return set_trap_flag(t, uc);
  }
  t->past_watches = 1;
  t->past_watches_mask = uc->sigmask;
  if (!is_protected())
    uc->sigmask = (uc->sigmask | agent_mask()) & ~signal_bit(kSigTrap);
  set_trap_flag(t, uc);
  g.counted = g.reached = g.pages = 0;
  remember_values(t);
  note_access(t, uc, fault);
  if (!is_protected())
    begin_counting(g, fault);
}

bool end_access(ThreadBlock* t, KernelUcontext* uc, KernelSiginfo* info) {
  if (!t || !t->past_watches || runs_agent(uc))
    return false;
  const bool trapped =
      info->signal == kSigTrap && (info->code == kTrapTrace || info->code == kTrapBrkpt);
  const bool fault = info->code > 0 && !trapped; // int3 is one, too
  const bool was_run = trapped || (!fault && uc->mcontext.rip != t->armed_at);
  end_counting(t, was_run);
  abandon_access(t, uc);
  if (was_run && !trapped) {
    send_to_self(*info);
    *info = {};
    info->signal = kSigTrap;
    info->code = kTrapTrace;
  }
  return was_run;
}

void abandon_access(ThreadBlock* t, KernelUcontext* uc) {
  if (!t->past_watches)
    return;
  t->past_watches = 0;
  uc->sigmask = t->past_watches_mask;
}

bool pass_access(ThreadBlock* t, const Registers& r) {
  const GuestSlot& g = guest_slot(t);
  const uint32_t reached = g.reached;
  if (reached & (reached - 1)) // of several none may have been counted if one wants something
    return false;
  if (reached) {
    const int i = __builtin_ctz(reached);
    if (in_arena(r.rip) || !pass_watch(t, g.watched[i].record, r, &g.values[i]))
      return false;
  }
  t->past_watches = 0;
  asm volatile("mov %0, %%cr3" ::"r"(root_of(t).value) : "memory");
  return true;
}

GuestPhysAddr root_of(const ThreadBlock* t) {
  return guest_room().memory.root_for(t->past_watches ? guest_slot(t).pages : 0);
}

bool stop_for_accesses(ThreadBlock* t, KernelUcontext* uc) {
  const GuestSlot& g = guest_slot(t);
  WatchedAccess accesses[kWatchPlaces + kDebugRegisters];
  uint32_t count = 0;
  for (uint32_t left = std::exchange(t->accessed, 0); left; left &= left - 1) {
    const auto i = static_cast<uint32_t>(__builtin_ctz(left));
    accesses[count++] = i < kWatchPlaces
                            ? WatchedAccess{g.watched[i].record, true, &g.values[i]}
                            : WatchedAccess{g.armed[i - kWatchPlaces].record, true, nullptr};
  }
  return stop_for_watches(t, uc, accesses, count);
}

} // namespace dune::agent
