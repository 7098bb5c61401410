// The kvm backend's guest, on stock /dev/kvm. Surprises that shaped it:
// - <linux/kvm.h> cannot be used from C++ for what ends in a flexible array (kvm_cpuid2, kvm_msrs,
//   kvm_xsave): there the empty structure before the array has a size, and with it the ioctl's
//   number and the entries' place come out wrong; the kernel answers EINVAL.
// - An `out` exit leaves rip at the instruction or behind it, depending on who emulated it. So the
//   port says which stub it was, and rip is never used to go on.
// - A ring 3 `out` is refused by the guest's own TSS (its I/O map), also where ring 0 is emulated.
// - What is set by sync_regs counts although the run ends at once with EINTR; what comes back is
//   complete then, too.
// - A VM belongs to the address space that made it: KVM_RUN answers EIO in a forked child. But the
//   page of registers is shared: what the child writes there before is the parent's.
#include "libdune/backend/guest_cpuid.h"
#include "libdune/backend/rows.h"

#include <asm/errno.h>
#include <linux/fcntl.h>
#include <linux/kvm.h>

namespace dune::backend {

namespace {

struct CpuidTable {
  uint32_t count;
  uint32_t padding;
  kvm_cpuid_entry2 entries[256]; // KVM_MAX_CPUID_ENTRIES
};
static_assert(sizeof(CpuidTable) <= sizeof(GuestMemory::scratch));
struct MsrTable {
  uint32_t count;
  uint32_t padding;
  kvm_msr_entry entries[3];
};
struct TableHead {
  uint32_t count, padding;
};
constexpr unsigned kGetSupportedCpuid = _IOWR(KVMIO, 0x05, TableHead);
constexpr unsigned kSetCpuid = _IOW(KVMIO, 0x90, TableHead);
constexpr unsigned kSetMsrs = _IOW(KVMIO, 0x89, TableHead);
using XsaveImage = uint8_t[4096]; // in the number only; an image may be larger
constexpr unsigned kGetXsave = _IOR(KVMIO, 0xa4, XsaveImage);
constexpr unsigned kSetXsave = _IOW(KVMIO, 0xa5, XsaveImage);
constexpr unsigned kGetXsave2 = _IOR(KVMIO, 0xcf, XsaveImage);

const kvm_cpuid_entry2* find_leaf(const CpuidTable& t, uint32_t leaf) {
  for (uint32_t i = 0; i < t.count; ++i)
    if (t.entries[i].function == leaf && t.entries[i].index == 0)
      return &t.entries[i];
  return nullptr;
}

CpuidTable& cpuid_of(const Guest& g) {
  return *reinterpret_cast<CpuidTable*>(
      reinterpret_cast<GuestMemory*>(g.memory.begin.value)->scratch);
}
// What the guest's CPUID lacks may not be switched on. (Software virtualisation denies both, and
// ring 3 has them nevertheless, for it runs under the host's own registers.)
bool has_xsave(const Guest& g) {
  const kvm_cpuid_entry2* features = find_leaf(cpuid_of(g), 1);
  return features && features->ecx >> 26 & 1;
}
bool has_fsgsbase(const Guest& g) {
  const kvm_cpuid_entry2* features = find_leaf(cpuid_of(g), 7);
  return features && features->ebx & 1;
}
kvm_run& run_of(const Cpu& c) { return *static_cast<kvm_run*>(c.shared); }

void close_kvm(Guest& g) {
  for (int* fd : {&g.vm, &g.device}) {
    if (*fd >= 0)
      syscall_of(__NR_close, *fd);
    *fd = -1;
  }
}

Status open_kvm(Guest& g) {
  g.vm = g.device = -1;
  static constexpr char kPath[] = "/dev/kvm";
  long fd = move_high(
      syscall_of(__NR_openat, AT_FDCWD, reinterpret_cast<uint64_t>(kPath), O_RDWR | O_CLOEXEC, 0));
  if (is_errno(fd))
    return refused("cannot open /dev/kvm", fd);
  g.device = static_cast<int>(fd);
  CpuidTable& cpuid = cpuid_of(g);
  cpuid.count = sizeof cpuid.entries / sizeof cpuid.entries[0];
  long result = control(g.device, kGetSupportedCpuid, &cpuid);
  const kvm_cpuid_entry2* widths = find_leaf(cpuid, 0x80000008);
  g.physical_bits = widths ? widths->eax & 0xff : 36; // what a processor has that does not say
  const kvm_cpuid_entry2* given = find_leaf(cpuid, 1);
  g.has_tags = given && given->ecx >> 17 & 1; // before it is as the processor has it
  if (!is_errno(result) &&
      g.placement == Placement::kRing0) // else ring 3 asks the processor itself
    cpuid.count = make_cpuid(cpuid.entries, cpuid.count, cpuid_of_processor);
  const kvm_cpuid_entry2* features = find_leaf(cpuid, kExtendedFeatures);
  g.highest_page = highest_page(features ? features->edx : 0);
  if (!is_errno(result)) {
    do // it ends so when a signal comes, which is handled by now
      result = control(g.device, KVM_CREATE_VM, 0);
    while (result == -EINTR);
    result = move_high(result);
  }
  if (is_errno(result)) {
    close_kvm(g);
    return refused("/dev/kvm does not make a virtual machine", result);
  }
  g.vm = static_cast<int>(result);
  return {};
}

// `size` 0: the slot goes.
Status set_slot(const Guest& g, uint32_t slot, GuestPhysAddr at, TargetAddr begin, uint64_t size) {
  kvm_userspace_memory_region region{};
  region.slot = slot;
  region.guest_phys_addr = at.value;
  region.userspace_addr = begin.value;
  region.memory_size = size;
  const long result = control(g.vm, KVM_SET_USER_MEMORY_REGION, &region);
  if (result == -kEnomem)
    return Error{Errc::kExhausted, "KVM has no room for more of the address space", slot};
  if (is_errno(result))
    return refused("KVM takes no more memory", result);
  return {};
}

Status show_chunk_kvm(Guest& g, uint32_t slot, GuestPhysAddr at, TargetAddr chunk) {
  const uint64_t end = chunk.value + kChunkSize;
  return set_slot(g, slot, at, chunk, (end < kUserEnd ? end : kUserEnd) - chunk.value);
}
Status hide_chunk_kvm(Guest& g, uint32_t slot, GuestPhysAddr at, TargetAddr chunk) {
  return set_slot(g, slot, at, chunk, 0);
}

// When a slot goes, whichever, KVM lets no thread use what it had made of the tables before: it
// waits for those that are about to look at them, drops every shadow of them, brings all processors
// out of the guest and has them flush their own caches (kvm_swap_active_memslots,
// kvm_mmu_zap_all_fast; documented as KVM_X86_QUIRK_SLOT_ZAP_ALL, which a VM has unless it is
// switched off). So one comes and goes at which nothing is.
Status forget_kvm(Guest& g) {
  const Status ok = set_slot(g, kMaxChunks, row_page(g), g.memory.begin, kPageSize);
  return ok ? set_slot(g, kMaxChunks, row_page(g), g.memory.begin, 0) : ok;
}

void write_call_kvm(uint8_t* at, uint8_t number) {
  at[0] = 0xe6; // out %al, $number
  at[1] = number;
}

kvm_segment code_segment(uint16_t selector) {
  kvm_segment s{};
  s.limit = 0xffffffff;
  s.selector = selector;
  s.type = 0xb;
  s.present = s.s = s.l = s.g = 1;
  s.dpl = selector & 3;
  return s;
}
kvm_segment data_segment(uint16_t selector) {
  kvm_segment s = code_segment(selector);
  s.type = 3;
  s.l = 0;
  s.db = 1;
  return s;
}
kvm_segment null_segment() {
  kvm_segment s{};
  s.unusable = 1;
  return s;
}

void set_control_state(kvm_sregs& s, const Cpu& c) {
  const Guest& g = *c.guest;
  auto* memory = reinterpret_cast<CpuMemory*>(c.memory.begin.value);
  s.cr0 = 0x80050033; // PG AM WP NE ET MP PE, as Linux has it
  s.cr3 = g.tables.root().value;
  s.cr4 = 1 << 5 | 1 << 9 | 1 << 10; // PAE OSFXSR OSXMMEXCPT
  s.cr4 |= has_fsgsbase(g) ? 1 << 16 : 0;
  s.cr4 |= has_xsave(g) ? 1 << 18 : 0;
  s.cr4 |= g.has_tags && g.system_call ? kCr4Tags : 0;
  s.efer = 0xd01; // NXE LMA LME SCE
  s.gdt.base = reinterpret_cast<uint64_t>(&memory->gdt);
  s.gdt.limit = sizeof(Gdt) - 1;
  s.idt.base = g.memory.begin.value + offsetof(GuestMemory, idt);
  s.idt.limit = kExceptionVectors * sizeof(Gate) - 1;
  s.tr = data_segment(kTaskSelector);
  s.tr.base = reinterpret_cast<uint64_t>(&memory->tss);
  s.tr.limit = sizeof(Tss) - 1;
  s.tr.type = 0xb;
  s.tr.s = s.tr.db = s.tr.g = 0;
  s.cs = code_segment(kUserCode);
  s.ss = data_segment(kUserData);
  s.ds = s.es = s.fs = s.gs = null_segment();
}

Status set_msrs(int fd, const Guest& g) {
  MsrTable msrs{};
  msrs.count = 3;
  msrs.entries[0].index = 0xc0000081; // STAR: selectors of syscall and sysret
  msrs.entries[0].data = uint64_t{kUserCode32} << 48 | uint64_t{kKernelCode} << 32;
  msrs.entries[1].index = 0xc0000082; // LSTAR
  msrs.entries[1].data =
      g.memory.begin.value + offsetof(GuestMemory, stubs) + kSystemCallStub * kStubSize;
  msrs.entries[2].index = 0xc0000084; // SFMASK: TF IF DF NT AC
  msrs.entries[2].data = 0x44700;
  if (long result = control(fd, kSetMsrs, &msrs); result != msrs.count)
    return refused("KVM refuses the system call entry", result);
  return {};
}

Status set_up(Cpu& c) {
  const Guest& g = *c.guest;
  CpuidTable& cpuid = cpuid_of(g);
  if (long result = control(c.fd, kSetCpuid, &cpuid); is_errno(result))
    return refused("KVM refuses its own CPUID", result);
  const kvm_cpuid_entry2* xsave = find_leaf(cpuid, 0xd);
  if (xsave && has_xsave(g)) {
    kvm_xcrs xcrs{};
    xcrs.nr_xcrs = 1;
    xcrs.xcrs[0].value = xsave->eax | uint64_t{xsave->edx} << 32;
    if (long result = control(c.fd, KVM_SET_XCRS, &xcrs); is_errno(result))
      return refused("KVM refuses the vector state", result);
  }
  kvm_run& run = run_of(c);
  kvm_sregs& sregs = run.s.regs.sregs;
  if (long result = control(c.fd, KVM_GET_SREGS, &sregs); is_errno(result))
    return refused("KVM does not tell the registers", result);
  set_control_state(sregs, c);
  run.kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
  run.kvm_dirty_regs = KVM_SYNC_X86_SREGS;
  // The same time stamps as outside: the vDSO's clock computes with the host's. Where the guest
  // reads the host's counter anyway there is nothing to set.
  uint64_t offset = 0;
  kvm_device_attr tsc{};
  tsc.group = KVM_VCPU_TSC_CTRL;
  tsc.attr = KVM_VCPU_TSC_OFFSET;
  tsc.addr = reinterpret_cast<uint64_t>(&offset);
  control(c.fd, KVM_SET_DEVICE_ATTR, &tsc);
  return set_msrs(c.fd, g);
}

long make_processor(const Guest& g) { return control(g.vm, KVM_CREATE_VCPU, g.cpu_count); }

Status add_cpu_kvm(Cpu& c) {
  const long size = control(c.guest->device, KVM_GET_VCPU_MMAP_SIZE, 0);
  if (auto ok = take_processor(c, make_processor, size); !ok)
    return ok;
  Status ok = set_up(c);
  if (!ok)
    close_processor(c);
  return ok;
}

// Here, because the address of a function elsewhere is one that nobody relocates.
void close_cpu_kvm(Cpu& c) { close_processor(c); }

struct RegisterPair {
  __u64 kvm_regs::*theirs;
  uint64_t Registers::*ours;
};
constexpr RegisterPair kRegisterPairs[] = {
    {&kvm_regs::rax, &Registers::rax}, {&kvm_regs::rbx, &Registers::rbx},
    {&kvm_regs::rcx, &Registers::rcx}, {&kvm_regs::rdx, &Registers::rdx},
    {&kvm_regs::rsi, &Registers::rsi}, {&kvm_regs::rdi, &Registers::rdi},
    {&kvm_regs::rbp, &Registers::rbp}, {&kvm_regs::rsp, &Registers::rsp},
    {&kvm_regs::r8, &Registers::r8},   {&kvm_regs::r9, &Registers::r9},
    {&kvm_regs::r10, &Registers::r10}, {&kvm_regs::r11, &Registers::r11},
    {&kvm_regs::r12, &Registers::r12}, {&kvm_regs::r13, &Registers::r13},
    {&kvm_regs::r14, &Registers::r14}, {&kvm_regs::r15, &Registers::r15},
    {&kvm_regs::rip, &Registers::rip}, {&kvm_regs::rflags, &Registers::eflags},
};

void load(kvm_run& run, const Registers& r) {
  kvm_regs& k = run.s.regs.regs;
  for (const RegisterPair& p : kRegisterPairs)
    k.*p.theirs = r.*p.ours;
  run.kvm_dirty_regs |= KVM_SYNC_X86_REGS;
  kvm_sregs& s = run.s.regs.sregs;
  if (s.cs.selector == r.cs && s.ss.selector == r.ss && s.fs.base == r.fs_base &&
      s.gs.base == r.gs_base)
    return;
  s.cs = code_segment(static_cast<uint16_t>(r.cs));
  s.ss = data_segment(static_cast<uint16_t>(r.ss));
  s.fs.base = r.fs_base;
  s.gs.base = r.gs_base;
  run.kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
}

void store(Registers& r, const kvm_run& run) {
  const kvm_regs& k = run.s.regs.regs;
  for (const RegisterPair& p : kRegisterPairs)
    r.*p.ours = k.*p.theirs;
  const kvm_sregs& s = run.s.regs.sregs;
  r.cs = s.cs.selector;
  r.ss = s.ss.selector;
  r.fs_base = s.fs.base;
  r.gs_base = s.gs.base;
}

// An exception on its way into the guest when the run was interrupted: KVM would deliver it with
// whatever registers the next run has. It is taken back, and told as one without a handler.
//
// Of int3 and into KVM does not say that it holds one; but then no interrupt could be delivered,
// though they are allowed. Where ring 0 is emulated, rip is behind the instruction already. Where
// it is hardware, rip is still at it, and it comes again.
bool take_held_exception(Cpu& c, Exit& e) {
  kvm_run& run = run_of(c);
  kvm_vcpu_events events{};
  if (run.ready_for_interrupt_injection || control(c.fd, KVM_GET_VCPU_EVENTS, &events) != 0)
    return false;
  const uint8_t vector = events.exception.nr;
  const bool soft = vector == kVectorBreakpoint || vector == kVectorOverflow;
  const bool silent = soft && (c.regs.eflags & kEflagsInterrupts) && !events.interrupt.shadow;
  if (!events.exception.injected && !silent)
    return false;
  const bool comes_again = silent && c.guest->placement == Placement::kRing0;
  if (!comes_again)
    e = {Why::kTrap, vector};
  if (events.exception.has_error_code)
    e.error = events.exception.error_code;
  if (vector == kVectorPageFault)
    e.address = run.s.regs.sregs.cr2;
  events.exception = {};
  events.flags = 0;
  return control(c.fd, KVM_SET_VCPU_EVENTS, &events) == 0 && !comes_again;
}

void interrupt_kvm(Cpu& c) { __atomic_store_n(&run_of(c).immediate_exit, 1, __ATOMIC_RELAXED); }

// Of a port by the program itself, where ring 3 may use one: KVM finishes it at the next run,
// whatever registers that has, and would go on behind the instruction. So it does that here, and
// its registers are not looked at.
void complete_access(Cpu& c) {
  interrupt_kvm(c); // the next run will say so, too, which does no harm
  control(c.fd, KVM_RUN, 0);
}

// For rdtscp and rdpid, too.
void show_processor_and_tsc_aux(Cpu& c) {
  if (!show_processor(c))
    return;
  MsrTable msrs{};
  msrs.count = 1;
  msrs.entries[0].index = 0xc0000103; // TSC_AUX
  msrs.entries[0].data = c.processor;
  control(c.fd, kSetMsrs, &msrs); // refused where the guest has neither
}

Exit run_once(Cpu& c) {
  kvm_run& run = run_of(c);
  if (c.guest->placement == Placement::kRing0)
    show_processor_and_tsc_aux(c);
  const bool of_program = c.regs.cs == kUserCode || c.guest->system_call;
  if (of_program && run.s.regs.sregs.cr3 != c.root.value)
    begin_switch(c);
  load(run, c.regs);
  const long result = control(c.fd, KVM_RUN, 0);
  run.kvm_dirty_regs = 0;
  store(c.regs, run);
  if (c.guest->system_call)
    c.root = GuestPhysAddr(run.s.regs.sregs.cr3);
  end_switch(c);
  if (result == -kEintr) {
    // On its way out with something else: that comes first, the interruption with the next run().
    Exit e{Why::kInterrupted};
    const bool leaving = is_leaving(*c.guest, c.regs.rip);
    const bool first = leaving || take_held_exception(c, e);
    __atomic_store_n(&run.immediate_exit, first, __ATOMIC_RELAXED);
    return leaving ? host_call(c, stub_number(*c.guest, c.regs.rip), run.s.regs.sregs.cr2) : e;
  }
  if (result == -kEfault) { // perhaps of a page that the delivery of an exception needs
    Exit e{Why::kUnbacked};
    take_held_exception(c, e);
    return e;
  }
  if (is_errno(result))
    return {Why::kBroken, 0, static_cast<uint64_t>(-result)};
  if (run.exit_reason == KVM_EXIT_IO) {
    if (!stubs_contain(*c.guest, c.regs.rip))
      complete_access(c);
    Exit e = host_call(c, static_cast<uint8_t>(run.io.port), run.s.regs.sregs.cr2);
    kvm_debugregs debug{};
    if (e.vector == kVectorDebug && c.watches && !control(c.fd, KVM_GET_DEBUGREGS, &debug)) {
      e.error = debug.dr6;
      debug.dr6 = kDr6Clear; // the processor only adds to it
      control(c.fd, KVM_SET_DEBUGREGS, &debug);
    }
    return e;
  }
  // Everything else is an exit that this guest has no way to cause while it is sound.
  return {Why::kBroken, 0, uint64_t{run.exit_reason} << 32};
}

Exit run_kvm(Cpu& c) {
  Exit e;
  do
    e = run_once(c);
  while (e.why == Why::kSystemCall && passes(c, c.regs));
  return e;
}

Status set_mask_kvm(Cpu& c, uint64_t blocked) {
  struct [[gnu::packed]] {
    uint32_t size;
    uint64_t blocked;
  } mask{sizeof blocked, blocked};
  constexpr unsigned kSetSignalMask = _IOW(KVMIO, 0x8b, uint32_t);
  if (long result = control(c.fd, kSetSignalMask, &mask); is_errno(result))
    return refused("KVM refuses the signal mask", result);
  return {};
}

Status set_debug_kvm(Cpu& c, const DebugRegisters& d) {
  if (d.status) // it has no word for it, and tells ring 0's, too
    return Error{Errc::kUnsupported, "KVM does not say what a debug exception is of", 0};
  kvm_debugregs debug{};
  for (int i = 0; i < 4; ++i)
    debug.db[i] = d.address[i];
  debug.dr6 = kDr6Clear;
  debug.dr7 = d.dr7;
  if (long result = control(c.fd, KVM_SET_DEBUGREGS, &debug); is_errno(result))
    return refused("KVM refuses the debug registers", result);
  c.watches = d.dr7 != 0;
  return {};
}

void deny_time_stamps_kvm(Cpu& c, bool denied) {
  constexpr __u64 kTsd = 1 << 2;
  kvm_run& run = run_of(c);
  __u64& cr4 = run.s.regs.sregs.cr4;
  if (bool(cr4 & kTsd) == denied)
    return;
  cr4 ^= kTsd;
  run.kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
}

Status load_vectors_kvm(Cpu& c, const void* image) {
  if (long result = control(c.fd, kSetXsave, image); is_errno(result))
    return refused("KVM refuses the vector state", result);
  return {};
}

Status store_vectors_kvm(Cpu& c, void* image, uint64_t size) {
  const long needed = control(c.guest->vm, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
  if (uint64_t(needed) > size || size < sizeof(XsaveImage))
    return Error{Errc::kInvalid, "too little room for the vector state", needed};
  const unsigned request = needed ? kGetXsave2 : kGetXsave;
  if (long result = control(c.fd, request, image); is_errno(result))
    return refused("KVM does not tell the vector state", result);
  return {};
}

} // namespace

GuestOps kvm_guest() {
  GuestOps o;
  o.open = open_kvm;
  o.close = close_kvm;
  o.show_chunk = show_chunk_kvm;
  o.hide_chunk = hide_chunk_kvm;
  o.forget = forget_kvm;
  o.write_call = write_call_kvm;
  o.add_cpu = add_cpu_kvm;
  o.close_cpu = close_cpu_kvm;
  o.run = run_kvm;
  o.interrupt = interrupt_kvm;
  o.set_mask = set_mask_kvm;
  o.set_debug = set_debug_kvm;
  o.deny_time_stamps = deny_time_stamps_kvm;
  o.load_vectors = load_vectors_kvm;
  o.store_vectors = store_vectors_kvm;
  return o;
}

} // namespace dune::backend
