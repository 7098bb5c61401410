// A program without libc, linked as the agent is, that goes on in a guest: what the agent's image
// will do with libdune/backend. Exits from there with 0; 77: there is no guest here.
#include "libdune/arch/syscall.h"
#include "libdune/process/address_space.h"

namespace dune::backend {

namespace {

alignas(kPageSize) uint8_t guest_memory[kLeastGuestMemory];
alignas(kPageSize) uint8_t cpu_memory[sizeof(CpuMemory)];
constinit Guest guest{};
constinit Cpu cpu{};
constinit process::Mapped known[64]{};
constinit process::AddressSpace memory;

TargetRange range_of(uint8_t* p, uint64_t size) {
  const TargetAddr begin(reinterpret_cast<uint64_t>(p));
  return {begin, begin + size};
}

[[noreturn]] void leave(int status) {
  for (;;)
    syscall_of(__NR_exit_group, status);
}

bool open(Placement placement) {
  guest = {};
  cpu = {};
  __builtin_memset(guest_memory, 0, sizeof guest_memory);
  const TargetRange for_guest = range_of(guest_memory, sizeof guest_memory);
  const TargetRange for_cpu = range_of(cpu_memory, sizeof cpu_memory);
  return open_guest(guest, guest_ops(GuestKind::kKvm), for_guest, placement, {}) &&
         open_cpu(cpu, guest, for_cpu, TargetAddr()) && memory.open(guest, known, {});
}

template <size_t n> void say(const char (&line)[n]) {
  syscall_of(__NR_write, 1, reinterpret_cast<uint64_t>(line), n - 1);
}

void in_guest() {
  say("in a guest\n");
  leave(0);
}

[[noreturn]] void host_loop(uint64_t stack) {
  cpu.regs.rip = reinterpret_cast<uint64_t>(in_guest);
  cpu.regs.rsp = stack;
  cpu.regs.cs = kUserCode;
  cpu.regs.ss = kUserData;
  cpu.regs.eflags = 1 << 9;
  Registers& r = cpu.regs;
  process::FaultHistory history{};
  for (;;) {
    const Exit e = guest.ops.run(cpu);
    if (e.why == Why::kSystemCall)
      r.rax = static_cast<uint64_t>(syscall_raw(r.rax, r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9));
    else if (e.why != Why::kTrap || e.vector != kVectorPageFault ||
             memory.serve(TargetAddr(e.address), e.error, history) != process::Outcome::kServed)
      leave(static_cast<int>(e.why) + 1);
  }
}

extern "C" [[noreturn, gnu::used]] void bare_main() {
  alignas(16) static uint8_t stack[2 * kPageSize];
  if (!open(Placement::kRing3)) {
    say("kvm is not there\n");
    leave(77);
  }
  host_loop(reinterpret_cast<uint64_t>(stack + sizeof stack) - 8);
}

} // namespace

} // namespace dune::backend

extern "C" void dune_assert_failed(const char*, const char*, int) { __builtin_trap(); }
extern "C" void* memset(void* to, int value, __SIZE_TYPE__ n) {
  asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(value) : "memory");
  return to;
}
extern "C" void* memcpy(void* to, const void* from, __SIZE_TYPE__ n) {
  void* start = to;
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
  return start;
}
asm(".section .header, \"ax\"\n .quad 0\n .text\n .globl _start\n"
    "_start: and $-16, %rsp; call bare_main\n");
