// The kmod backend's guest, on our own module (kmod/uapi/dune.h, docs/kmod.md). Its vector state is
// the host thread's, whom the kernel keeps it for, like any thread's.
#include "kmod/uapi/dune.h"
#include "libdune/arch/vector_state.h"
#include "libdune/backend/guest_cpuid.h"
#include "libdune/backend/rows.h"

#include <linux/fcntl.h>
#include <utility>

namespace dune::backend {

namespace {

constexpr uint64_t kTsd = 1 << 2;

dune_run& run_of(const Cpu& c) { return *static_cast<dune_run*>(c.shared); }

void close_kmod(Guest& g) {
  if (g.device >= 0)
    syscall_of(__NR_close, g.device);
  g.device = -1;
}

// What the module said of itself when the guest was opened.
dune_info& info_of(const Guest& g) {
  static_assert(sizeof(dune_info) <= sizeof(GuestMemory::scratch));
  return *reinterpret_cast<dune_info*>(
      reinterpret_cast<GuestMemory*>(g.memory.begin.value)->scratch);
}

Status ask_for_info(const Guest& g) {
  dune_info& info = info_of(g);
  info = {};
  info.size = sizeof info;
  if (long result = control(g.device, DUNE_GET_INFO, &info); is_errno(result))
    return refused("dune.ko does not say what it is", result);
  if (info.version != DUNE_ABI_VERSION)
    return Error{Errc::kUnsupported, "dune.ko is of another version", info.version};
  return {};
}

Status open_kmod(Guest& g) {
  g.vm = g.device = -1;
  static constexpr char kPath[] = "/dev/dune";
  const long fd = move_high(
      syscall_of(__NR_openat, AT_FDCWD, reinterpret_cast<uint64_t>(kPath), O_RDWR | O_CLOEXEC, 0));
  if (is_errno(fd))
    return refused("cannot open /dev/dune", fd);
  g.device = static_cast<int>(fd);
  Status ok = ask_for_info(g);
  if (!ok)
    close_kmod(g);
  g.physical_bits = info_of(g).gpa_bits;
  g.has_tags = info_of(g).cr4_allowed & kCr4Tags;
  g.highest_page = highest_page(cpuid_of_processor(kExtendedFeatures, 0).edx);
  return ok;
}

Status set_region(const Guest& g, uint32_t flags, GuestPhysAddr at, TargetAddr chunk) {
  dune_region region{};
  region.size = sizeof region;
  region.flags = flags;
  region.gpa = at.value;
  region.hva = chunk.value;
  region.length = kChunkSize;
  const long result = control(g.device, DUNE_SET_REGION, &region);
  if (result == -kEnomem || result == -kEnospc)
    return Error{Errc::kExhausted, "dune.ko has no room for more of the address space", -result};
  if (is_errno(result))
    return refused("dune.ko takes no more memory", result);
  return {};
}

Status show_chunk_kmod(Guest& g, uint32_t, GuestPhysAddr at, TargetAddr chunk) {
  return set_region(g, 0, at, chunk);
}
Status hide_chunk_kmod(Guest& g, uint32_t, GuestPhysAddr at, TargetAddr chunk) {
  return set_region(g, DUNE_REGION_REMOVE, at, chunk);
}

Status forget_kmod(Guest& g) {
  if (long result = control(g.device, DUNE_FORGET, 0); is_errno(result))
    return refused("dune.ko does not forget the tables", result);
  return {};
}

// Which of the two there is: the other is illegal.
bool is_amd() {
  constexpr uint32_t kSvm = 1 << 2;
  return cpuid_of_processor(kExtendedFeatures, 0).ecx & kSvm;
}

constexpr uint64_t kCallLength = 3;

void write_call_kmod(uint8_t* at, uint8_t) {
  const uint8_t vmcall[kCallLength] = {0x0f, 0x01, 0xc1}, vmmcall[] = {0x0f, 0x01, 0xd9};
  __builtin_memcpy(at, is_amd() ? vmmcall : vmcall, sizeof vmcall);
}

uint64_t behind_ring0_call(const Guest& g) { return stub(g, kRing0CallStub).value + kCallLength; }

// Of SYSCALL: that of Linux, whose MSR dune.ko then need not write at each entry and exit.
constexpr uint64_t kFlagMask = 0x257fd5; // CF PF AF ZF SF TF IF DF OF IOPL NT RF AC ID

Status set_state(const Cpu& c, bool denies_time_stamps) {
  constexpr uint64_t kNeeded = 1 << 5 | 1 << 9 | 1 << 10; // PAE OSFXSR OSXMMEXCPT
  constexpr uint64_t kWanted = 1 << 16 | 1 << 18;         // FSGSBASE OSXSAVE
  const auto* memory = reinterpret_cast<const CpuMemory*>(c.memory.begin.value);
  const uint64_t shared = c.guest->memory.begin.value;
  const uint64_t wanted = kWanted | (c.guest->system_call ? kCr4Tags : 0);
  dune_state state{};
  state.size = sizeof state;
  state.cr4 = kNeeded | (wanted & info_of(*c.guest).cr4_allowed) | (denies_time_stamps ? kTsd : 0);
  state.gdt = {reinterpret_cast<uint64_t>(&memory->gdt), sizeof(Gdt) - 1, 0};
  state.idt = {shared + offsetof(GuestMemory, idt), kExceptionVectors * sizeof(Gate) - 1, 0};
  state.task = {reinterpret_cast<uint64_t>(&memory->tss), sizeof(Tss) - 1, 0};
  state.task_selector = kTaskSelector;
  state.star = uint64_t{kUserCode32} << 48 | uint64_t{kKernelCode} << 32;
  state.lstar = shared + offsetof(GuestMemory, stubs) + kSystemCallStub * kStubSize;
  state.sfmask = kFlagMask;
  if (long result = control(c.fd, DUNE_SET_STATE, &state); is_errno(result))
    return refused("dune.ko refuses the processor's state", result);
  return {};
}

// A program's own, where it is in ring 0: those that the module makes itself, if it was loaded so
// that it does. Who watches the thread's calls sees them all the same.
Status set_dispatch(const Cpu& c) {
  if (!c.guest->system_call || !(info_of(*c.guest).capabilities & DUNE_CAP_DISPATCH))
    return {};
  dune_dispatch dispatch{};
  dispatch.size = sizeof dispatch;
  dispatch.flags = DUNE_DISPATCH_RETURN;
  dispatch.rip = behind_ring0_call(*c.guest);
  __builtin_memset(dispatch.calls, 0xff, sizeof dispatch.calls);
  if (long result = control(c.fd, DUNE_SET_DISPATCH, &dispatch); is_errno(result))
    return refused("dune.ko makes no calls itself", result);
  return {};
}

long make_processor(const Guest& g) {
  dune_create_vcpu create{};
  create.size = sizeof create;
  return control(g.device, DUNE_CREATE_VCPU, &create);
}

Status add_cpu_kmod(Cpu& c) {
  if (auto ok = take_processor(c, make_processor, info_of(*c.guest).run_size); !ok)
    return ok.error().detail == kEbusy
               ? refused("KVM or another hypervisor has the processor (docs/kmod.md)", -kEbusy)
               : ok;
  run_of(c).regs.cr3 = c.root.value;
  Status ok = set_state(c, false);
  if (ok)
    ok = set_dispatch(c);
  if (!ok)
    close_processor(c);
  return ok;
}

// Here, because the address of a function elsewhere is one that nobody relocates.
void close_cpu_kmod(Cpu& c) { close_processor(c); }

struct RegisterPair {
  __u64 dune_regs::*theirs;
  uint64_t Registers::*ours;
};
constexpr RegisterPair kRegisterPairs[] = {
#define PAIR(name)                                                                                 \
  { &dune_regs::name, &Registers::name }
    PAIR(rax),     PAIR(rbx),     PAIR(rcx), PAIR(rdx), PAIR(rsi),
    PAIR(rdi),     PAIR(rbp),     PAIR(rsp), PAIR(r8),  PAIR(r9),
    PAIR(r10),     PAIR(r11),     PAIR(r12), PAIR(r13), PAIR(r14),
    PAIR(r15),     PAIR(rip),     PAIR(cs),  PAIR(ss),  {&dune_regs::rflags, &Registers::eflags},
    PAIR(fs_base), PAIR(gs_base),
#undef PAIR
};
// Moves with addresses known beforehand, not a loop: on the way of every system call.
constexpr auto kEachPair =
    std::make_index_sequence<sizeof kRegisterPairs / sizeof *kRegisterPairs>();
template <size_t... kPair>
void give_registers(dune_regs& to, const Registers& from, std::index_sequence<kPair...>) {
  ((to.*kRegisterPairs[kPair].theirs = from.*kRegisterPairs[kPair].ours), ...);
}
template <size_t... kPair>
void take_registers(Registers& to, const dune_regs& from, std::index_sequence<kPair...>) {
  ((to.*kRegisterPairs[kPair].ours = from.*kRegisterPairs[kPair].theirs), ...);
}

void interrupt_kmod(Cpu& c) { __atomic_store_n(&run_of(c).interrupt, 1, __ATOMIC_RELAXED); }

// An exception on its way into the guest when the run ended: the next run would deliver it with
// whatever registers that has. It is taken back, and told as one without a handler.
bool take_held_exception(Cpu& c, Exit& e) {
  dune_event& held = run_of(c).event;
  if (!(held.flags & DUNE_EVENT_VALID))
    return false;
  e = {Why::kTrap, held.vector};
  if (held.flags & DUNE_EVENT_ERROR_CODE)
    e.error = held.error_code;
  if (held.vector == kVectorPageFault)
    e.address = run_of(c).regs.cr2;
  held = {};
  return true;
}

// From a stub, which is known by its place: rip is at its only instruction or behind it.
Exit called(Cpu& c) {
  dune_regs& regs = run_of(c).regs;
  const bool in_stub = stubs_contain(*c.guest, c.regs.rip);
  Exit e = host_call(c, in_stub ? stub_number(*c.guest, c.regs.rip) : 0, regs.cr2);
  if (e.why == Why::kTrap && e.vector == kVectorDebug && c.watches) {
    e.error = regs.dr6;
    regs.dr6 = kDr6Clear; // the processor only adds to it
  }
  return e;
}

Exit why_it_ended(Cpu& c) {
  dune_run& run = run_of(c);
  const auto broken = [&](uint32_t what) {
    return Exit{Why::kBroken, 0, uint64_t{run.exit_reason} << 32 | what};
  };
  switch (run.exit_reason) {
  case DUNE_EXIT_SYSCALL:
    return called(c);
  case DUNE_EXIT_INTR: {
    // On its way out with something else: that comes first, the interruption with the next run().
    Exit e{Why::kInterrupted};
    const bool leaving = is_leaving(*c.guest, c.regs.rip);
    if (leaving || take_held_exception(c, e))
      interrupt_kmod(c);
    return leaving ? called(c) : e;
  }
  case DUNE_EXIT_FAULT: {
    if (run.exit.fault.error == kEnomem || run.exit.fault.error == kEnoent)
      return broken(run.exit.fault.error);
    Exit e{Why::kUnbacked};
    take_held_exception(c, e); // of whose delivery the page was
    return e;
  }
  case DUNE_EXIT_FAIL_ENTRY:
    if (run.exit.fail.code == DUNE_FAIL_OFF) // the kernel moves the thread to another processor
      return {Why::kInterrupted};
    return broken(run.exit.fail.code);
  default:
    return broken(0);
  }
}

// Behind a run. True: with the registers as they are here the thread runs on. Without a look at the
// others, for which copying them is most of what a call costs outside of the kernel.
bool goes_on(Cpu& c) {
  dune_run& run = run_of(c);
  dune_regs& regs = run.regs;
  if (run.exit_reason == DUNE_EXIT_INTR)
    return !run.exit.intr.by;
  if (run.exit_reason != DUNE_EXIT_SYSCALL || run.event.flags & DUNE_EVENT_VALID ||
      regs.rip != behind_ring0_call(*c.guest) || !passes(c, regs))
    return false;
  regs.rip = regs.rcx;
  regs.rflags = regs.r11 | kEflagsInterrupts;
  return true;
}

Exit run_kmod(Cpu& c) {
  dune_regs& regs = run_of(c).regs;
  if (c.regs.cs == kUserCode || c.guest->system_call)
    regs.cr3 = c.root.value;
  give_registers(regs, c.regs, kEachPair);
  do {
    show_processor(c);
    if (const long result = control(c.fd, DUNE_RUN, 0); is_errno(result))
      return {Why::kBroken, 0, static_cast<uint64_t>(-result)};
  } while (goes_on(c));
  take_registers(c.regs, regs, kEachPair);
  if (c.guest->system_call)
    c.root = GuestPhysAddr(regs.cr3);
  return why_it_ended(c);
}

Status set_mask_kmod(Cpu& c, uint64_t blocked) {
  dune_signal_mask mask{};
  mask.size = sizeof mask;
  mask.flags = DUNE_SIGNAL_MASK_USE;
  mask.blocked = blocked;
  if (long result = control(c.fd, DUNE_SET_SIGNAL_MASK, &mask); is_errno(result))
    return refused("dune.ko refuses the signal mask", result);
  return {};
}

Status set_debug_kmod(Cpu& c, const DebugRegisters& d) {
  dune_debug debug{};
  debug.size = sizeof debug;
  for (int i = 0; i < 4; ++i)
    debug.address[i] = d.address[i];
  debug.dr7 = d.dr7;
  debug.status = reinterpret_cast<uint64_t>(d.status);
  debug.flags = d.status ? DUNE_DEBUG_RING3 : 0;
  if (long result = control(c.fd, DUNE_SET_DEBUG, &debug); is_errno(result))
    return refused("dune.ko refuses the debug registers", result);
  c.watches = d.dr7 != 0;
  return {};
}

void deny_time_stamps_kmod(Cpu& c, bool denied) {
  if (c.denies_time_stamps == denied)
    return;
  if (set_state(c, denied))
    c.denies_time_stamps = denied;
}

bool has_xsave() {
  uint32_t a = 1, b, c = 0, d;
  asm("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  return c >> 27 & 1; // OSXSAVE
}

Status load_vectors_kmod(Cpu&, const void* image) {
  load_vector_state(image, has_xsave());
  return {};
}

Status store_vectors_kmod(Cpu&, void* image, uint64_t size) {
  const bool extended = has_xsave();
  uint32_t a = 0xd, b = 512, c = 0, d;
  if (extended)
    asm("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  if (b > size) // for what is on
    return Error{Errc::kInvalid, "too little room for the vector state", b};
  store_vector_state(image, extended);
  return {};
}

} // namespace

GuestOps kmod_guest() {
  GuestOps o;
  o.open = open_kmod;
  o.close = close_kmod;
  o.show_chunk = show_chunk_kmod;
  o.hide_chunk = hide_chunk_kmod;
  o.forget = forget_kmod;
  o.write_call = write_call_kmod;
  o.add_cpu = add_cpu_kmod;
  o.close_cpu = close_cpu_kmod;
  o.run = run_kmod;
  o.interrupt = interrupt_kmod;
  o.set_mask = set_mask_kmod;
  o.set_debug = set_debug_kmod;
  o.deny_time_stamps = deny_time_stamps_kmod;
  o.load_vectors = load_vectors_kmod;
  o.store_vectors = store_vectors_kmod;
  return o;
}

} // namespace dune::backend
