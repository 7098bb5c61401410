#include "libdune/backend/guest.h"

#include "libdune/arch/syscall.h"

#include <linux/fcntl.h>
#include <linux/mman.h>
#include <linux/resource.h>

namespace dune::backend {

namespace {

uint32_t chunk_of(TargetAddr a) { return static_cast<uint32_t>(a.value / kChunkSize); }
TargetAddr begin_of(uint32_t chunk) { return TargetAddr(chunk * kChunkSize); }

// The address itself where that fits, else the place in the order of first use.
GuestPhysAddr place_of(const Guest& g, uint32_t chunk, uint32_t slot) {
  return GuestPhysAddr(kChunkSize * (g.physical_bits >= 47 ? chunk : slot));
}

// Of which the tables map nothing.
void uncover_unused_chunks(Guest& g) {
  uint64_t used[kMaxChunks / 64] = {};
  g.tables.each([&](TargetAddr page) {
    for (uint32_t slot = 0; slot < g.chunk_count; ++slot)
      if (g.chunks[slot] == chunk_of(page))
        used[slot / 64] |= uint64_t{1} << slot % 64;
  });
  for (uint32_t slot = 0; slot < g.chunk_count; ++slot)
    if (g.chunks[slot] != kNoChunk && !(used[slot / 64] >> slot % 64 & 1) &&
        g.ops.hide_chunk(g, slot, place_of(g, g.chunks[slot], slot), begin_of(g.chunks[slot])))
      g.chunks[slot] = kNoChunk;
}

} // namespace

GuestPhysAddr row_page(const Guest& g) {
  return GuestPhysAddr((1ull << (g.physical_bits < 47 ? g.physical_bits : 47)) - kPageSize);
}

// One slot per chunk that is in use: with shadow paging a slot's bookkeeping takes 1/256 of its
// size, whether anything is mapped there or not.
Result<GuestPhysAddr> cover(Guest& g, TargetAddr a) {
  const uint32_t chunk = chunk_of(a);
  uint32_t slot = 0, unused = g.chunk_count;
  for (; slot < g.chunk_count && g.chunks[slot] != chunk; ++slot)
    if (g.chunks[slot] == kNoChunk)
      unused = slot;
  const bool covered = slot < g.chunk_count;
  if (!covered)
    slot = unused;
  const GuestPhysAddr at = place_of(g, chunk, slot);
  if (!covered) {
    const uint64_t size = begin_of(chunk) + kChunkSize < TargetAddr(kUserEnd)
                              ? kChunkSize
                              : TargetAddr(kUserEnd) - begin_of(chunk);
    if (slot == kMaxChunks || at + size > row_page(g))
      return Error{Errc::kExhausted, "the process uses too many gigabytes of address space", slot};
    if (auto ok = g.ops.show_chunk(g, slot, at, begin_of(chunk)); !ok)
      return ok.error();
    g.chunks[slot] = chunk;
    g.chunk_count += slot == g.chunk_count;
  }
  return at + a.value % kChunkSize;
}

TargetAddr found_at(const Guest& g, GuestPhysAddr a) {
  for (uint32_t slot = 0; slot < g.chunk_count; ++slot)
    if (g.chunks[slot] != kNoChunk && place_of(g, g.chunks[slot], slot) == a.align_down(kChunkSize))
      return begin_of(g.chunks[slot]) + a.value % kChunkSize;
  return {};
}

namespace {

enum Stack : uint8_t { kHostCallStack = 1, kHandlerStack = 2 }; // in the TSS's IST

template <class T> T& at(TargetAddr address) { return *reinterpret_cast<T*>(address.value); }
GuestMemory& memory_of(const Guest& g) { return at<GuestMemory>(g.memory.begin); }
TargetAddr address_of(const void* p) { return TargetAddr(reinterpret_cast<uint64_t>(p)); }

Status map_own(Guest& g, const void* page, uint64_t rights) {
  return map_page(g, address_of(page).align_down(kPageSize), rights | kPageOwn);
}

// The ring in which stubs of system calls and handlers run.
uint64_t user_if_ring3(const Guest& g) {
  return g.placement == Placement::kRing3 ? uint64_t{kPageUser} : 0;
}

Status protect_stubs(const GuestMemory& m, long protection) {
  const long result = syscall_of(__NR_mprotect, reinterpret_cast<uint64_t>(m.stub_page),
                                 sizeof m.stub_page, protection);
  if (is_errno(result))
    return Error{Errc::kSystem, "cannot make code for the guest", -result};
  return {};
}

void write_jump(uint8_t* at, TargetAddr to) {
  constexpr uint64_t kLength = 5;
  const auto distance = static_cast<int32_t>(to - (address_of(at) + kLength));
  at[0] = 0xe9;
  __builtin_memcpy(at + 1, &distance, sizeof distance);
}

Status build_tables(Guest& g, std::span<const Handler> handlers) {
  const TargetRange pool{g.memory.begin + sizeof(GuestMemory), g.memory.end};
  auto pool_at = cover(g, pool.begin);
  if (!pool_at)
    return pool_at.error();
  g.tables = PageTables(pool, *pool_at);

  GuestMemory& m = memory_of(g);
  if (auto ok = protect_stubs(m, PROT_READ | PROT_WRITE); !ok) // a forked child has its parent's
    return ok;
  for (uint32_t v = 0; v < kExceptionVectors; ++v) {
    uint8_t* stub = m.stubs + v * kStubSize;
    g.ops.write_call(stub, static_cast<uint8_t>(v));
    const bool callable = v == kVectorBreakpoint || v == kVectorOverflow;
    m.idt.gates[v] =
        make_gate(GateType::kInterrupt, address_of(stub), kKernelCode, kHostCallStack, callable);
  }
  uint8_t* system_call = m.stubs + kSystemCallStub * kStubSize;
  if (g.system_call) {
    write_jump(system_call, g.system_call);
    g.ops.write_call(m.stubs + kRing0CallStub * kStubSize, kRing0CallStub);
  } else {
    g.ops.write_call(system_call, kSystemCallStub);
  }
  constexpr uint8_t kSwitchTables[] = {0x0f, 0x22, 0xd8, // mov %rax, %cr3
                                       0x58,             // pop %rax
                                       0x48, 0xcf};      // iretq
  __builtin_memcpy(m.switch_tables, kSwitchTables, sizeof kSwitchTables);
  // In ring 3 an iretq leaves IF as it is: the program would go on with interrupts off, and then
  // nobody could tell that an exception is held by that none can be delivered (kvm.cpp).
  const bool in_ring3 = g.placement == Placement::kRing3;
  for (const Handler& h : handlers)
    m.idt.gates[h.vector] =
        make_gate(in_ring3 ? GateType::kTrap : GateType::kInterrupt, h.entry,
                  in_ring3 ? kUserCode : kKernelCode, kHandlerStack, h.vector == kVectorBreakpoint);

  // The second level may know what the process may execute.
  if (auto ok = protect_stubs(m, PROT_READ | PROT_EXEC); !ok)
    return ok;

  if (auto ok = map_own(g, &m.idt, kPageRead); !ok)
    return ok;
  return map_own(g, m.stubs, kPageRead | kPageExecute | user_if_ring3(g));
}

} // namespace

Status open_guest(Guest& g, const GuestOps& ops, TargetRange memory, Placement placement,
                  std::span<const Handler> handlers, TargetAddr system_call, PassCall* pass_call) {
  const bool crosses =
      memory.begin.align_down(kChunkSize) != (memory.end - 1).align_down(kChunkSize);
  const bool too_large = memory.size() > sizeof(GuestMemory) + PageTables::kLargestPool;
  if (memory.size() < kLeastGuestMemory || too_large || crosses)
    return Error{Errc::kInvalid, "memory that cannot be a guest's", int64_t(memory.size())};
  g.ops = ops;
  g.memory = memory;
  g.placement = placement;
  g.system_call = system_call;
  g.pass_call = pass_call;
  if (auto ok = ops.open(g); !ok)
    return ok;
  Status ok = build_tables(g, handlers);
  if (!ok)
    ops.close(g);
  return ok;
}

Status open_cpu(Cpu& cpu, Guest& g, TargetRange memory, TargetAddr handler_stack) {
  if (memory.size() < sizeof(CpuMemory))
    return Error{Errc::kInvalid, "too little memory for a processor", int64_t(memory.size())};
  cpu.guest = &g;
  cpu.memory = memory;
  cpu.root = g.tables.root();
  CpuMemory& m = at<CpuMemory>(memory.begin);
  m.gdt = make_gdt(address_of(&m.tss));
  m.tss = {};
  m.tss.ist[kHostCallStack - 1] = address_of(m.stack + sizeof m.stack).value;
  m.tss.ist[kHandlerStack - 1] = handler_stack.value;
  m.tss.io_map = offsetof(Tss, io_forbidden);
  __builtin_memset(m.tss.io_forbidden, 0xff, sizeof m.tss.io_forbidden + sizeof m.tss.io_end);
  if (g.placement == Placement::kRing3) // its stub calls the host by this port from ring 3
    m.tss.io_forbidden[kSystemCallStub / 8] &= static_cast<uint8_t>(~(1u << kSystemCallStub % 8));
  const uint64_t rights = kPageRead | kPageWrite | kPageOwn;
  if (auto ok = map_own(g, &m.gdt, rights); !ok)
    return ok;
  if (auto ok = map_own(g, m.stack, rights); !ok)
    return ok;
  if (handler_stack)
    if (auto ok = map_page(g, (handler_stack - 1).align_down(kPageSize), rights | user_if_ring3(g));
        !ok)
      return ok;
  return g.ops.add_cpu(cpu);
}

TargetAddr handler_stack_entry(const Cpu& cpu) {
  const Tss& tss = at<CpuMemory>(cpu.memory.begin).tss;
  return address_of(&tss) + offsetof(Tss, ist) + (kHandlerStack - 1) * sizeof tss.ist[0];
}

Status map_page(Guest& g, TargetAddr page, uint64_t rights) {
  if (page >= TargetAddr(kUserEnd))
    return Error{Errc::kInvalid, "not an address of user space", int64_t(page.value)};
  return map_with_room(g, [&]() -> Status {
    auto physical = cover(g, page);
    if (!physical)
      return physical.error();
    return g.tables.map(page, *physical, rights);
  });
}

// The order makes it safe while threads run. First nothing leads to a table any more; then whoever
// has walked there before forgets what it found; only then the page becomes another table.
Status renew_tables(Guest& g) {
  g.tables.prune();
  if (auto ok = g.ops.forget(g); !ok)
    return ok;
  uncover_unused_chunks(g);
  g.tables.reuse();
  return {};
}

void unmap_pages(Guest& g, TargetRange range) { g.tables.clear(range); }

bool stubs_contain(const Guest& g, uint64_t rip) {
  return rip - address_of(memory_of(g).stubs).value < sizeof(GuestMemory::stubs);
}

long move_high(long fd) {
  if (is_errno(fd))
    return fd;
  rlimit64 limit{};
  syscall_of(__NR_prlimit64, 0, RLIMIT_NOFILE, 0, reinterpret_cast<uint64_t>(&limit));
  const uint64_t highest = limit.rlim_cur < (1 << 20) ? limit.rlim_cur : 1 << 20;
  const long high = syscall_of(__NR_fcntl, fd, F_DUPFD_CLOEXEC, highest - highest / 4);
  syscall_of(__NR_close, fd);
  return high;
}

namespace {
long change_limit(uint64_t soft, uint64_t hard) {
  const rlimit64 limit{soft, hard};
  return syscall_of(__NR_prlimit64, 0, RLIMIT_NOFILE, reinterpret_cast<uint64_t>(&limit), 0);
}
} // namespace

RaisedLimit::RaisedLimit(long high) {
  rlimit64 limit{};
  syscall_of(__NR_prlimit64, 0, RLIMIT_NOFILE, 0, reinterpret_cast<uint64_t>(&limit));
  soft_ = limit.rlim_cur;
  hard_ = limit.rlim_max;
  constexpr uint64_t kRoom = 1024;
  const auto least = static_cast<uint64_t>(high);
  const uint64_t wanted = (soft_ > least ? soft_ : least) + kRoom;
  if (is_errno(change_limit(wanted, hard_ > wanted ? hard_ : wanted)))
    change_limit(hard_, hard_);
}

RaisedLimit::~RaisedLimit() { change_limit(soft_, hard_); }

void begin_switch(Cpu& cpu) {
  Registers& r = cpu.regs;
  SwitchFrame& frame = at<CpuMemory>(cpu.memory.begin).switch_frame;
  frame = {r.rax, {r.rip, r.cs, r.eflags, r.rsp, r.ss}};
  r.rax = cpu.root.value;
  r.rip = address_of(memory_of(*cpu.guest).switch_tables).value;
  r.rsp = address_of(&frame).value;
  r.eflags = kEflagsInterrupts;
  r.cs = kKernelCode;
  r.ss = kKernelData;
}

void end_switch(Cpu& cpu) {
  Registers& r = cpu.regs;
  constexpr uint64_t kSize = sizeof(GuestMemory::switch_tables);
  if (r.rip - address_of(memory_of(*cpu.guest).switch_tables).value >= kSize)
    return;
  const SwitchFrame& frame = at<CpuMemory>(cpu.memory.begin).switch_frame;
  r.rax = frame.rax;
  r.rip = frame.trap.rip;
  r.cs = frame.trap.cs;
  r.eflags = frame.trap.eflags;
  r.rsp = frame.trap.rsp;
  r.ss = frame.trap.ss;
}

bool is_leaving(const Guest& g, uint64_t rip) {
  const bool is_jump = g.system_call && rip == stub(g, kSystemCallStub).value;
  return stubs_contain(g, rip) && !is_jump;
}

TargetAddr stub(const Guest& g, uint8_t number) {
  return address_of(memory_of(g).stubs + number * kStubSize);
}

uint8_t stub_number(const Guest& g, uint64_t rip) {
  return static_cast<uint8_t>((rip - address_of(memory_of(g).stubs).value) / kStubSize);
}

Exit host_call(Cpu& cpu, uint8_t number, uint64_t fault_address) {
  Registers& r = cpu.regs;
  // The program may execute the instruction of a stub, where ring 3 may use its port.
  if (!stubs_contain(*cpu.guest, r.rip))
    return {Why::kTrap, kVectorGeneralProtection};
  if (number == kSystemCallStub || number == kRing0CallStub) {
    const bool ring0 = number == kRing0CallStub;
    r.rip = r.rcx;
    r.eflags = r.r11;
    r.cs = ring0 ? kKernelCode : kUserCode;
    r.ss = ring0 ? kKernelData : kUserData;
    return {Why::kSystemCall};
  }
  const uint64_t* stack = reinterpret_cast<const uint64_t*>(r.rsp);
  Exit e{Why::kTrap, number};
  if (pushes_error_code(number))
    e.error = *stack++;
  if (number == kVectorPageFault)
    e.address = fault_address;
  const TrapFrame& f = *reinterpret_cast<const TrapFrame*>(stack);
  r.rip = f.rip;
  r.cs = f.cs;
  r.eflags = f.eflags;
  r.rsp = f.rsp;
  r.ss = f.ss;
  end_switch(cpu); // whose iretq was refused
  return e;
}

} // namespace dune::backend
