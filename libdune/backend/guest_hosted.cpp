// Probes what has a guest by going in: a few instructions of this very process run there, take
// traps and make system calls.
#include "libdune/arch/debug_registers.h"
#include "libdune/arch/syscall.h"
#include "libdune/backend/measure_hosted.h"
#include "libdune/backend/owned_guest_hosted.h"
#include "libdune/session/layout.h"

#include <array>

namespace dune::backend {

namespace {

constexpr uint64_t kTraps = 16;
constexpr size_t kRounds = 7;

// What the guest runs: rbx traps, then a system call; a write to the address in rsp, then a system
// call. The handler counts in r15. Within one page.
extern "C" const char dune_probe_traps[], dune_probe_watched[], dune_probe_handler[];
asm(R"(
    .pushsection .text
    .balign 64
dune_probe_traps:
    test %rbx, %rbx
    jz 2f
1:  int3
    dec %rbx
    jnz 1b
2:  syscall
    ud2
dune_probe_watched:
    mov %rbx, (%rsp)
    syscall
    ud2
dune_probe_handler:
    inc %r15
    iretq
    .popsection
)");

TargetAddr address_of(const void* p) { return TargetAddr(reinterpret_cast<uint64_t>(p)); }

using Trial = std::unique_ptr<OwnedGuest>;

Result<Trial> open_trial(const GuestOps& ops, Placement placement) {
  const std::array handlers{Handler{kVectorBreakpoint, address_of(dune_probe_handler)}};
  auto trial = OwnedGuest::open(ops, placement, handlers, 32);
  if (!trial)
    return trial;
  const uint64_t rights = kPageRead | kPageExecute | kPageUser;
  const TargetAddr code = address_of(dune_probe_traps).align_down(kPageSize);
  if (auto ok = map_page((*trial)->guest, code, rights); !ok)
    return ok.error();
  Registers& r = (*trial)->cpu.regs;
  r.cs = kUserCode;
  r.ss = kUserData;
  r.eflags = 1 << 9;
  return trial;
}

Exit run_on(OwnedGuest& trial) {
  Exit e = trial.run();
  while (e.why == Why::kInterrupted)
    e = trial.run();
  return e;
}

Exit take_traps(OwnedGuest& trial, uint64_t count) {
  Registers& r = trial.cpu.regs;
  r.rip = address_of(dune_probe_traps).value;
  r.rax = __NR_getppid;
  r.rbx = count;
  r.r15 = 0;
  return run_on(trial);
}

// True if one instruction, run with these flags and debug registers, ends in a debug exception.
bool traps_behind(OwnedGuest& trial, uint64_t flags, uint64_t dr7) {
  alignas(8) static uint64_t word;
  const TargetAddr at = address_of(&word);
  Registers& r = trial.cpu.regs;
  if (!map_page(trial.guest, at.align_down(kPageSize), kPageRead | kPageWrite | kPageUser) ||
      !trial.guest.ops.set_debug(trial.cpu, {{at.value}, dr7}))
    return false;
  r.rip = address_of(dune_probe_watched).value;
  r.rsp = at.value;
  r.eflags |= flags;
  const Exit e = run_on(trial);
  r.eflags &= ~flags;
  const Status disarmed = trial.guest.ops.set_debug(trial.cpu, {});
  return disarmed && e.why == Why::kTrap && e.vector == kVectorDebug;
}

// One write, in that ring, to what is watched. What the row says of the exception behind it; 0: the
// write is done, and there was none. ~0: neither.
uint64_t told_of_write(OwnedGuest& trial, bool in_ring0) {
  alignas(8) static uint64_t word, status;
  const TargetAddr at = address_of(&word);
  const DebugRegisters watching{{at.value}, dr7_watching(0, sizeof word, true), &status};
  Registers& r = trial.cpu.regs;
  if (!map_page(trial.guest, at.align_down(kPageSize), kPageRead | kPageWrite | kPageUser) ||
      !trial.guest.ops.set_debug(trial.cpu, watching))
    return ~uint64_t{0};
  const uint64_t written = word + 1;
  r.cs = in_ring0 ? kKernelCode : kUserCode;
  r.ss = in_ring0 ? kKernelData : kUserData;
  r.rip = address_of(dune_probe_watched).value;
  r.rsp = at.value;
  r.rbx = written;
  status = 0;
  const Exit e = run_on(trial);
  const Status disarmed = trial.guest.ops.set_debug(trial.cpu, {});
  r.cs = kUserCode;
  r.ss = kUserData;
  if (!disarmed || __atomic_load_n(&word, __ATOMIC_RELAXED) != written)
    return ~uint64_t{0};
  const bool trapped = e.why == Why::kTrap && e.vector == kVectorDebug;
  const uint64_t told = __atomic_load_n(&status, __ATOMIC_RELAXED);
  return trapped == (told != 0) && (trapped || e.why == Why::kSystemCall) ? told : ~uint64_t{0};
}

// Where ring 0 is emulated a system call does not get there, but to its stub in ring 3, which must
// then be a page of ring 3's.
Result<Trial> open_suitable(const GuestOps& ops) {
  auto trial = open_trial(ops, Placement::kRing0);
  if (!trial)
    return trial;
  const Exit e = take_traps(**trial, 0);
  if (e.why == Why::kTrap && stubs_contain((*trial)->guest, (*trial)->cpu.regs.rip))
    return open_trial(ops, Placement::kRing3);
  return trial;
}

} // namespace

Result<Probe> probe_guest(const GuestOps& ops) {
  auto opened = open_suitable(ops);
  if (!opened)
    return opened.error();
  OwnedGuest& trial = **opened;
  const Exit first = take_traps(trial, kTraps);
  if (first.why != Why::kSystemCall || trial.cpu.regs.r15 != kTraps)
    return Error{Errc::kUnsupported, "a trap in its guest does not reach its handler"};

  Probe p;
  p.syscall_ns = median_ns<kRounds>([&] {
    take_traps(trial, 0);
    trial.cpu.regs.rax = static_cast<uint64_t>(syscall_of(__NR_getppid));
  });
  const uint32_t with_traps = median_ns<kRounds>([&] { take_traps(trial, kTraps); });
  p.trap_ns = with_traps > p.syscall_ns ? (with_traps - p.syscall_ns) / uint32_t{kTraps} : 0;
  constexpr uint64_t kWatchWrites = dr7_watching(0, 8, true);
  if (trial.guest.placement == Placement::kRing0)
    p.capabilities |= session::kCapRing0;
  if (traps_behind(trial, kEflagsTrap, 0))
    p.capabilities |= session::kCapStep;
  if (traps_behind(trial, 0, kWatchWrites)) // some hypervisors take the registers and ignore them
    p.capabilities |= session::kCapHardwareWatch;
  if (trial.guest.placement == Placement::kRing0 && told_of_write(trial, false) == 1 &&
      told_of_write(trial, true) == 0)
    p.capabilities |= session::kCapDebugRegisters;
  return p;
}

} // namespace dune::backend
