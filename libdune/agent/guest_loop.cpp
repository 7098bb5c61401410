// Dune mode: a thread's life in the guest. docs/dune-mode.md has the picture.
//
// The host loop runs on the slot's stack, below the frame by which the thread came into the agent;
// that frame's context is the thread's home. Agent code that the loop calls sees the home as it
// would see the context of a signal, and everything it does to it takes effect at the next entry.
#include "libdune/agent/application.h"

#include <asm/prctl.h>
#include <linux/fcntl.h>
#include <linux/prctl.h>
#include <new>

namespace dune::agent {

using namespace session;
using backend::Exit;
using backend::Why;

namespace {

// Nobody kicks a program that has entered by itself.
SignalSet kick() { return is_application() ? 0 : signal_bit(kKickSignal); }

KernelUcontext* home_of(const ThreadBlock* t) { return reinterpret_cast<KernelUcontext*>(t->home); }

// --- Vector state --------------------------------------------------------------------------------

void load_vectors(ThreadBlock* t) {
  GuestSlot& g = guest_slot(t);
  KernelSigcontext& m = home_of(t)->mcontext;
  if (m.fpstate == address_of(g.vectors) && !g.vectors_fetched)
    return;
  if (!m.fpstate) {
    memset(g.vectors, 0, kFpLegacySize + 64);
    constexpr uint16_t kControlWord = 0x37f;
    constexpr uint32_t kMxcsr = 0x1f80;
    memcpy(g.vectors, &kControlWord, sizeof kControlWord);
    memcpy(g.vectors + 24, &kMxcsr, sizeof kMxcsr);
  } else if (m.fpstate != address_of(g.vectors)) {
    memset(g.vectors, 0, agent_config.xstate_size);
    read_user(t, g.vectors, m.fpstate, agent_config.xstate_size);
  }
  if (!g.cpu.guest->ops.load_vectors(g.cpu, g.vectors)) {
    // What only the kernel's frames know, or nonsense of the program's: without the extended part.
    memset(g.vectors + kFpLegacySize, 0, 64);
    constexpr uint64_t kLegacy = 3;
    memcpy(g.vectors + kFpLegacySize, &kLegacy, sizeof kLegacy);
    (void)!g.cpu.guest->ops.load_vectors(g.cpu, g.vectors);
  }
  m.fpstate = address_of(g.vectors);
  g.vectors_fetched = 0;
}

// --- In and out ----------------------------------------------------------------------------------

uint64_t read_base(int code) {
  uint64_t base = 0;
  syscall_of(__NR_arch_prctl, code, address_of(&base));
  return base;
}

// The thread's mask in the kernel is the program's, unless a signal waits for the loop already. The
// kick's signal comes in the guest only: no system call is interrupted by it.
void show_mask(ThreadBlock* t) {
  GuestSlot& g = guest_slot(t);
  const SignalSet wanted = (t->has_signal ? agent_mask() : home_of(t)->sigmask) & ~kick();
  if (g.kernel_mask == wanted)
    return;
  if (kick()) // else it is the same in there
    (void)!g.cpu.guest->ops.set_mask(g.cpu, wanted);
  g.kernel_mask = wanted;
  set_kernel_mask(wanted | kick());
}

void move_in(ThreadBlock* t, KernelUcontext* uc) {
  GuestSlot& g = guest_slot(t);
  g.in_monitor = 0;
  g.kernel_mask = ~SignalSet{0};
  g.vectors_fetched = 1;
  t->attention = t->leaves_guest = 0;
  t->recorded_count = t->held_count = t->has_signal = 0;
  __atomic_store_n(&t->home, address_of(uc), __ATOMIC_SEQ_CST);
  show_time_stamps(t);
}

} // namespace

void show_time_stamps(ThreadBlock* t) {
  int mode = PR_TSC_ENABLE;
  syscall_of(__NR_prctl, PR_GET_TSC, address_of(&mode), 0, 0, 0);
  backend::Cpu& cpu = guest_slot(t).cpu;
  cpu.guest->ops.deny_time_stamps(cpu, mode == PR_TSC_SIGSEGV);
}

namespace {

// What came since the last look comes again, and finds the program.
void send_recorded(ThreadBlock* t) {
  for (uint32_t i = 0; i < t->recorded_count; ++i)
    send_to_self(t->recorded[i]);
  t->recorded_count = t->held_count = t->has_signal = 0;
}

// Behind it the kernel's context of the thread is the program's, but for what uc says.
void move_out(ThreadBlock* t) {
  GuestSlot& g = guest_slot(t);
  hold_back(agent_mask());
  fetch_vectors(t);
  syscall_of(__NR_arch_prctl, ARCH_SET_FS, g.cpu.regs.fs_base);
  syscall_of(__NR_arch_prctl, ARCH_SET_GS, g.cpu.regs.gs_base);
  __atomic_store_n(&t->home, 0, __ATOMIC_SEQ_CST);
  send_recorded(t);
}

// --- Signals -------------------------------------------------------------------------------------

void deliver_signal(ThreadBlock* t, KernelSiginfo* info) {
  const int signal = info->signal;
  if (signal == kSigTrap)
    agent_on_trap(signal, info, home_of(t));
  else
    agent_on_signal(signal, info, home_of(t));
}

// Those that a handler blocks which is about to run wait here, as they would in the kernel. (A
// second one is here because the mask was opened in the moment in which the first one came.)
void deliver_recorded(ThreadBlock* t) {
  if (!t->recorded_count)
    return;
  hold_signals(t);
  bool delivered = false;
  for (uint32_t i = 0; i < t->recorded_count;) {
    KernelSiginfo info = t->recorded[i];
    const bool held = i < t->held_count || delivered;
    if (held && (home_of(t)->sigmask & signal_bit(info.signal))) {
      ++i;
      continue;
    }
    for (uint32_t next = i + 1; next < t->recorded_count; ++next)
      t->recorded[next - 1] = t->recorded[next];
    --t->recorded_count;
    t->held_count -= i < t->held_count;
    deliver_signal(t, &info);
    delivered = true;
  }
  t->held_count = t->recorded_count;
  t->has_signal = 0;
}

constexpr uint32_t kMostRecorded = sizeof(ThreadBlock::recorded) / sizeof(KernelSiginfo);

// A kick, or a signal of that number that is not one: they wait in the kernel, and no run begins
// while they do.
void take_kicks(ThreadBlock* t) {
  constexpr uint64_t kNoTime[2] = {};
  const SignalSet set = kick();
  if (!set)
    return;
  KernelSiginfo info;
  while (t->recorded_count < kMostRecorded &&
         !is_errno(syscall_of(__NR_rt_sigtimedwait, address_of(&set), address_of(&info),
                              address_of(&kNoTime), sizeof set))) {
    if (is_queued_kick(info))
      continue;
    hold_signals(t);
    t->recorded[t->recorded_count++] = info;
    t->has_signal = 1;
  }
}

[[noreturn]] void broken(const Exit& e, const Registers& r) {
  static constexpr char kText[] = "ddbg: the guest cannot go on\n",
                        kOfApplication[] = "dune: the guest cannot go on\n";
  static_assert(sizeof kText == sizeof kOfApplication);
  syscall_of(__NR_write, 2, address_of(is_application() ? kOfApplication : kText),
             sizeof kText - 1);
  uint64_t words[8] = {uint64_t(e.why), e.vector, e.error, e.address, r.rip, r.rsp, r.cs, r.eflags};
  char line[20];
  for (uint64_t w : words) {
    for (int i = 0; i < 16; ++i)
      line[i] = "0123456789abcdef"[w >> (60 - 4 * i) & 15];
    line[16] = '\n';
    syscall_of(__NR_write, 2, address_of(line), 17);
  }
  for (;;)
    syscall_of(__NR_exit_group, 126);
}

// --- Exceptions ----------------------------------------------------------------------------------

KernelSiginfo fault(int signal, int code, uint64_t address) {
  KernelSiginfo info{};
  info.signal = signal;
  info.code = code;
  info.fault_address = address;
  return info;
}

// As arch/x86/kernel/traps.c has it.
KernelSiginfo signal_of(ThreadBlock* t, const Exit& e) {
  constexpr int kIllOpn = 2, kFpeIntDiv = 1, kBusAdrAln = 1;
  const KernelSigcontext& m = home_of(t)->mcontext;
  const uint64_t rip = m.rip;
  switch (e.vector) {
  case 0:
    return fault(kSigFpe, kFpeIntDiv, rip);
  case kVectorDebug:
    if (take_hits(t))
      return fault(kSigTrap, kTrapHwbkpt, rip);
    return fault(kSigTrap, is_icebp(t, m) ? kTrapBrkpt : kTrapTrace, rip);
  case kVectorBreakpoint:
    return fault(kSigTrap, kSiKernel, 0);
  case kVectorIllegal:
    return fault(kSigIll, kIllOpn, rip);
  case kVectorX87:
  case kVectorSimd:
    return fault(kSigFpe, floating_point_code(t, e.vector), rip);
  case 11:
  case 12:
    return fault(kSigBus, kSiKernel, 0);
  case 17:
    return fault(kSigBus, kBusAdrAln, 0);
  default:
    return fault(kSigSegv, kSiKernel, 0);
  }
}

void on_exception(ThreadBlock* t, const Exit& found) {
  KernelSigcontext& m = home_of(t)->mcontext;
  const Exit e = as_without_guest(t, found, m);
  if (e.vector == kVectorGeneralProtection && e.error == kCallOf32Bits) {
    take_trap_flag(t, home_of(t));
    make_guest_call_32(t, home_of(t));
    return set_trap_flag(t, home_of(t));
  }
  KernelSiginfo info = signal_of(t, e);
  if (info.signal == kSigFpe && !info.code)
    return; // gone meanwhile; the instruction again
  m.trap_number = e.vector;
  m.error = pushes_error_code(e.vector) ? e.error : 0;
  deliver_signal(t, &info);
}

// Of the program's that could not be served.
void on_page_fault(ThreadBlock* t, const Exit& e, process::Outcome result) {
  using process::Outcome;
  constexpr int kMapErr = 1, kAccErr = 2, kBusAdrErr = 2;
  GuestSlot& g = guest_slot(t);
  if (result == Outcome::kOutOfMemory)
    broken(e, g.cpu.regs);
  KernelSigcontext& m = home_of(t)->mcontext;
  if (make_vsyscall(t, e, m))
    return;
  m.trap_number = kVectorPageFault;
  m.error = process::error_in_kernel(TargetAddr(e.address), e.error, result) |
            process::kFaultUser; // of a program in ring 0, too
  m.cr2 = e.address;
  KernelSiginfo info =
      result == Outcome::kNoPage
          ? fault(kSigBus, kBusAdrErr, e.address)
          : fault(kSigSegv, result == Outcome::kNoRights ? kAccErr : kMapErr, e.address);
  deliver_signal(t, &info);
}

// A page that the host refuses; one that is none to KVM, time after time, is lost.
void on_unbacked(ThreadBlock* t) {
  constexpr int kBusAdrErr = 2;
  const TargetAddr page = guest_room().memory.unbacked(guest_slot(t).faults);
  if (!page)
    return;
  KernelSiginfo info = fault(kSigBus, kBusAdrErr, page.value);
  deliver_signal(t, &info);
}

// --- The monitor ---------------------------------------------------------------------------------

enum class Left { kNo, kUntouched, kDone };

// What the program had at its int3 becomes `regs`; but for a few, which the monitor does not
// change, the frame has it.
void take_monitor_frame(const MonitorFrame& frame, Registers& regs) {
  const Registers now = regs;
  regs = frame.regs;
  regs.fs_base = now.fs_base;
  regs.gs_base = now.gs_base;
}

void leave_by_trap_frame(const MonitorFrame& frame, Registers& regs) {
  regs.rip = frame.trap.rip;
  regs.rsp = frame.trap.rsp;
  regs.eflags = frame.trap.eflags;
  regs.cs = kUserCode;
  regs.ss = kUserData;
}

// Which exception it has come for.
uint32_t monitor_vector(const ThreadBlock* t, uint64_t rip) {
  if (rip == address_of(agent_monitor_step))
    return kVectorDebug;
  if (rip == address_of(agent_monitor_breakpoint))
    return kVectorBreakpoint;
  return static_cast<uint32_t>(monitor_frame(t).vector);
}

// Out of the monitor, where that is possible: `regs` become the program's. kUntouched: the trap has
// not been dealt with, and rip is behind the int3.
Left leave_monitor(const ThreadBlock* t, Registers& regs) {
  const MonitorFrame& frame = monitor_frame(t);
  const uint64_t rip = regs.rip;
  Left left = Left::kNo;
  if (between(rip, agent_monitor_step, agent_monitor_saved)) {
    left = Left::kUntouched; // nothing but rsp is changed yet
  } else if (rip == address_of(agent_monitor_pass) || rip == address_of(agent_monitor_attention) ||
             between(rip, agent_monitor_commit, agent_monitor_end)) {
    left = rip == address_of(agent_monitor_pass) ? Left::kUntouched : Left::kDone;
    take_monitor_frame(frame, regs);
  }
  if (left != Left::kNo)
    leave_by_trap_frame(frame, regs);
  return left;
}

// A condition reads what is watched: the host side, which can, has to compute it. Nothing has been
// counted yet.
Left abandon_monitor(ThreadBlock* t, Registers& regs) {
  t->guard_rip = 0;
  take_monitor_frame(monitor_frame(t), regs);
  leave_by_trap_frame(monitor_frame(t), regs);
  return Left::kUntouched;
}

bool is_in_monitor(const ThreadBlock* t, const Registers& regs) {
  if (is_application())
    return false;
  if (is_protected())
    return regs.cs == kKernelCode;
  return in_agent_text(regs.rip) || monitor_stack(t).value - regs.rsp < kMonitorStackSize;
}

// Behind a call that was made from a displaced copy: in the program, for of the copy's jump there
// one more trap would come to a program that has set the trap flag.
void leave_copy_of_call(ThreadBlock* t, KernelUcontext* uc) {
  const KernelSigcontext before = uc->mcontext;
  uint64_t counted = 0;
  if (in_arena(before.rip) && (to_program(t, uc, &counted) == Place::kUnclear || counted))
    uc->mcontext = before;
}

// One stay in the guest, and what it ended with.
void run_once(ThreadBlock* t) {
  GuestSlot& g = guest_slot(t);
  KernelUcontext* uc = home_of(t);
  if (!g.in_monitor) {
    load_vectors(t);
    const uint64_t fs = g.cpu.regs.fs_base, gs = g.cpu.regs.gs_base;
    registers_from(g.cpu.regs, uc->mcontext);
    g.cpu.regs.fs_base = fs;
    g.cpu.regs.gs_base = gs;
    const bool in_ring0 = runs_in_ring0(t);
    g.cpu.regs.cs = in_ring0 ? kKernelCode : kUserCode;
    g.cpu.regs.ss = in_ring0 ? kKernelData : kUserData;
    g.cpu.regs.eflags |= in_ring0 ? kRing0Flags : kEflagsInterrupts;
    if (!is_application())
      g.cpu.root = root_of(t);
  }
  Exit e = g.cpu.guest->ops.run(g.cpu);
  if (e.why == Why::kBroken)
    broken(e, g.cpu.regs);
  g.in_monitor = is_in_monitor(t, g.cpu.regs);
  using process::Outcome;
  const bool page_fault = e.why == Why::kTrap && e.vector == kVectorPageFault;
  const Outcome outcome =
      page_fault ? guest_room().memory.serve(TargetAddr(e.address), e.error, g.faults,
                                             is_application() ? g.cpu.root : GuestPhysAddr())
                 : Outcome::kServed;
  if (is_application() &&
      (e.why == Why::kInterrupted || (page_fault && outcome == Outcome::kServed)))
    e = find_program(t, e);
  if (g.in_monitor) {
    // Before anything else, also at its first instruction: a page that only the host side has seen
    // the need of would never come, and every trap would end there.
    if (page_fault && outcome == Outcome::kServed)
      return;
    const uint32_t vector = monitor_vector(t, g.cpu.regs.rip);
    switch (outcome == Outcome::kWatched ? abandon_monitor(t, g.cpu.regs)
                                         : leave_monitor(t, g.cpu.regs)) {
    case Left::kUntouched:
      e = {Why::kTrap, vector};
      g.in_monitor = 0;
      break;
    case Left::kDone:
      e = {Why::kInterrupted};
      g.in_monitor = 0;
      break;
    case Left::kNo:
      break;
    }
  }
  if (e.why == Why::kInterrupted) {
    __atomic_store_n(&t->attention, 1, __ATOMIC_SEQ_CST);
    take_kicks(t);
  }
  if (g.in_monitor) {
    if (e.why == Why::kUnbacked)
      (void)!guest_room().memory.unbacked(g.faults);
    if (e.why == Why::kTrap && !take_guard(t, g.cpu.regs))
      broken(e, g.cpu.regs);
    return;
  }
  const bool is_served = page_fault && outcome == Outcome::kServed;
  if (is_application() && !is_served && offer(t, e))
    return registers_to(uc->mcontext, g.cpu.regs);
  registers_to(uc->mcontext, g.cpu.regs);
  // KVM says so of any instruction that it fails to emulate, at a time when it could as well have
  // mapped the page. One that is illegal is so twice.
  if (e.why == Why::kTrap && e.vector == kVectorIllegal && g.illegal_at != g.cpu.regs.rip) {
    g.illegal_at = g.cpu.regs.rip;
    return;
  }
  g.illegal_at = 0;
  switch (e.why) {
  case Why::kSystemCall:
    take_trap_flag(t, uc);
    make_guest_call(t, uc);
    leave_copy_of_call(t, uc);
    set_trap_flag(t, uc);
    return;
  case Why::kTrap:
    if (e.vector != kVectorPageFault)
      return on_exception(t, e);
    if (outcome == Outcome::kWatched)
      run_access(t, uc, e);
    else if (outcome != Outcome::kServed)
      on_page_fault(t, e, outcome);
    return;
  case Why::kUnbacked:
    return on_unbacked(t);
  default:
    return;
  }
}

bool is_at_door(const ThreadBlock* t, const KernelUcontext* uc) {
  return agent_config.guest && t && !t->home && !process.detached &&
         (takes_part(t) || t->passthrough) && !in_agent_text(uc->mcontext.rip) && !runs_agent(uc);
}

// Out of a forwarded call, if it was in one. True: whoever wants a stop may have seen it there
// still.
bool leave_call(ThreadBlock* t) {
  std::atomic<uint32_t>& state = slot_of(t).state;
  if (state.load() != static_cast<uint32_t>(ThreadState::kInCall))
    return false;
  state.store(static_cast<uint32_t>(ThreadState::kRunning));
  return true;
}

// What is at hand before the thread may go in (again).
void settle(ThreadBlock* t) {
  if (is_application() && !runs_in_ring0(t) && t->recorded_count)
    come_out_of_ring3(t, home_of(t)->mcontext);
  deliver_recorded(t);
  t->attention = 0;
  do {
    if (stop_wanted(t)) {
      KernelUcontext* uc = home_of(t);
      abandon_access(t, uc);
      take_trap_flag(t, uc);
      on_kick(t, uc, KickedBy::kPerfEvent);
      set_trap_flag(t, uc);
    }
  } while (leave_call(t));
}

void stay(ThreadBlock* t) {
  while (!process.detached) {
    if (!guest_slot(t).in_monitor) { // whose state is half the monitor's
      settle(t);
      if (t->leaves_guest || agent_config.guest_closed)
        break;
    }
    heed_watches();
    if (!guest_slot(t).in_monitor)
      arm_watches(t);
    show_mask(t);
    run_once(t);
    if (t->past_watches && !is_protected())
      break;
  }
  move_out(t);
}

} // namespace

void hold_signals(ThreadBlock* t) {
  hold_back(agent_mask() | kick());
  guest_slot(t).kernel_mask = ~SignalSet{0};
}

namespace {

// Not in a table of descriptors that was copied before the processor was made.
bool is_open(int fd) { return !is_errno(syscall_of(__NR_fcntl, fd, F_GETFD)); }

} // namespace

bool open_processor(ThreadBlock* t) {
  GuestSlot& g = guest_slot(t);
  const bool has_one = g.has_cpu && is_open(g.cpu.fd);
  if (has_one && !is_application())
    return true;
  process::Holder hold(guest_room().memory.mutex());
  if (has_one)
    return open_trap_stacks(t);
  const TargetAddr memory(address_of(&g.memory));
  memset(&g.cpu, 0, sizeof g.cpu);
  g.armed_seq = g.armed_count = 0;
  const TargetAddr stack = is_application() ? end_of_trap_stacks(t) : monitor_stack(t);
  g.has_cpu =
      bool(backend::open_cpu(g.cpu, guest_room().guest, {memory, memory + sizeof g.memory}, stack));
  return g.has_cpu && (!is_application() || open_trap_stacks(t));
}

namespace {

void store_vectors(GuestSlot& g) {
  if (g.vectors_fetched)
    return;
  if (!g.cpu.guest->ops.store_vectors(g.cpu, g.vectors, sizeof g.vectors))
    return;
  uint64_t features;
  memcpy(&features, agent_config.xstate_features, sizeof features);
  const uint32_t size = agent_config.xstate_size - 4;
  const FpSoftwareBytes software{kFpXstateMagic1, agent_config.xstate_size, features, size};
  memcpy(g.vectors + kFpSwReservedOffset, &software, sizeof software);
  memcpy(g.vectors + size, &kFpXstateMagic2, 4);
  g.vectors_fetched = 1;
}

} // namespace

void fetch_vectors(ThreadBlock* t) {
  GuestSlot& g = guest_slot(t);
  if (home_of(t)->mcontext.fpstate == address_of(g.vectors))
    store_vectors(g);
}

bool record_signal(ThreadBlock* t, const KernelSiginfo& info, KernelUcontext* found) {
  if (!in_guest(t) || !runs_agent(found))
    return false;
  KernelSigcontext& m = found->mcontext;
  if (t->recorded_count < kMostRecorded) // those that are open here merge, as in the kernel
    t->recorded[t->recorded_count++] = info;
  t->has_signal = 1;
  found->sigmask |= agent_mask() | kick();
  guest_slot(t).kernel_mask = ~SignalSet{0};
  t->attention = 1;
  const auto take_back = [&](const char* begin, const char* end) {
    if (!between(m.rip, begin, end))
      return false;
    m.rip = address_of(end);
    m.rax = static_cast<uint64_t>(kNotMade);
    return true;
  };
  const bool taken_back = take_back(agent_forward_begin, agent_forward_end) ||
                          take_back(agent_forward_judged_begin, agent_forward_judged_end) ||
                          take_back(agent_forward_32_begin, agent_forward_32_end) ||
                          take_back(agent_forward_32_judged_begin, agent_forward_32_judged_end);
  if (!taken_back && info.signal == kSigSys && info.code > 0 && info.fault_address == m.rip) {
    constexpr long kEnosys = -38; // si_call_addr: to who has made the call it has failed
    m.rax = static_cast<uint64_t>(kEnosys);
    t->call_refused = 1;
  }
  GuestSlot& g = guest_slot(t);
  g.cpu.guest->ops.interrupt(g.cpu);
  return true;
}

namespace {

// Outside, without sites, the agent does not see a thread's calls: it must not need to, should the
// keeper die now.
void give_back_if_closed(ThreadBlock* t, KernelUcontext* uc) {
  if (!agent_config.guest_closed || !takes_part(t) || t->step_out || t->past_watches)
    return;
  take_trap_flag(t, uc);
  t->action = Action::kRun;
  if (in_arena(uc->mcontext.rip))
    step_out(t, uc); // and comes here again
  else
    give_back(t, uc);
  set_trap_flag(t, uc);
}

void enter_guest(ThreadBlock* t, KernelUcontext* uc) {
  GuestSlot& g = guest_slot(t);
  g.cpu.regs.fs_base = read_base(ARCH_GET_FS);
  g.cpu.regs.gs_base = read_base(ARCH_GET_GS);
  move_in(t, uc);
  // A frame's image is the thread's own.
  if (const uint64_t image = uc->mcontext.fpstate) {
    memset(g.vectors, 0, agent_config.xstate_size);
    memcpy(g.vectors, reinterpret_cast<const void*>(image), agent_config.xstate_size);
    uc->mcontext.fpstate = address_of(g.vectors);
  }
  stay(t);
}

} // namespace

void run_in_guest(ThreadBlock* t, KernelUcontext* uc) {
  if (!is_at_door(t, uc))
    return;
  if (!agent_config.guest_closed && open_processor(t))
    enter_guest(t, uc);
  give_back_if_closed(t, uc);
}

// A thread that was born in the guest, on its own stack, all signals blocked. Its first home and
// its processor are the parent's doing: a process of its own in shared
// memory has descriptors of its own, too.
extern "C" [[noreturn]] void agent_in_guest_thread(ThreadBlock* t) {
  agent_in_new_thread(t);
  GuestSlot& g = guest_slot(t);
  move_in(t, &g.first_home);
  stay(t);
  give_back_if_closed(t, &g.first_home);
  agent_resume(&g.first_home);
}

// On its way out of the agent from inside a forwarded call: what its registers do not say. Its home
// may be overwritten by now.
void leave_forwarded_call(ThreadBlock* t) {
  if (!in_guest(t))
    return;
  GuestSlot& g = guest_slot(t);
  store_vectors(g);
  constexpr uint32_t kAll = ~0u;
  asm volatile("xrstor64 (%0)" ::"r"(g.vectors), "a"(kAll), "d"(kAll) : "memory");
  t->home = 0;
  send_recorded(t);
}

void close_process_guest() {
  if (!agent_config.guest)
    return;
  GuestRoom& room = guest_room();
  each_slot_with_processor([&](GuestSlot& slot) {
    close_counters(slot);
    room.guest.ops.close_cpu(slot.cpu);
  });
  room.memory.close();
  room.guest.ops.close(room.guest);
}

namespace {

void find_own_memory(GuestRoom& room) {
  const TargetAddr near_libs(agent_config.code_near_libs), near_main(agent_config.code_near_main);
  room.copies[0] = {near_libs, near_libs + kCodeNearLibsSize};
  room.copies[1] = {near_main, near_main + agent_config.code_near_main_size};
  const TargetRange ranges[] = {
      room.copies[1],
      {TargetAddr(agent_config.guest), TargetAddr(agent_config.guest + agent_config.guest_size)},
      {TargetAddr(agent_config.text_begin), TargetAddr(agent_config.block_end)},
  };
  room.own_count = 0;
  for (const TargetRange& range : ranges) {
    if (range.empty())
      continue;
    uint32_t at = room.own_count++;
    for (; at > 0 && range.begin < room.own[at - 1].begin; --at)
      room.own[at] = room.own[at - 1];
    room.own[at] = range;
  }
}

} // namespace

// Once, at birth, by the keeper's errand: the process's guest.
void open_process_guest() {
  if (!agent_config.guest)
    return;
  GuestRoom& room = guest_room();
  backend::Handler handlers[kMostHandlers] = {
      {kVectorBreakpoint, TargetAddr(address_of(agent_monitor_breakpoint))},
      {kVectorDebug, TargetAddr(address_of(agent_monitor_step))},
  };
  const uint32_t count = is_application() ? application_handlers(handlers) : 2;
  Status ok = backend::open_guest(
      room.guest, backend::guest_ops(static_cast<backend::GuestKind>(agent_config.guest_kind)),
      guest_tables(), static_cast<backend::Placement>(agent_config.guest_placement),
      std::span(handlers, count), is_application() ? application_system_call() : TargetAddr(),
      is_application() ? pass_call() : nullptr);
  new (&room.memory) process::AddressSpace;
  find_own_memory(room);
  if (ok)
    ok = room.memory.open(room.guest, room.known, own_memory(), room.copies);
  if (ok && is_application())
    ok = show_agent();
  agent_config.guest_refused =
      ok ? 0 : static_cast<uint32_t>(ok.error().detail ? ok.error().detail : 22);
}

} // namespace dune::agent
