// What all guests share: descriptor tables, the stubs through which exceptions and system calls
// reach the host side, and what a stub's call means. The rows' half is GuestOps.
// Freestanding-clean.
#pragma once

#include "libdune/backend/backend.h"

namespace dune::backend {

inline constexpr uint64_t kStubSize = 8;
inline constexpr uint8_t kSystemCallStub = 0x80; // below: exceptions, by vector
// Where the program is in ring 0: for its own system calls, while kSystemCallStub leads to
// Guest::system_call.
inline constexpr uint8_t kRing0CallStub = 0x81;

// Layout of Guest::memory. Everything here is the caller's memory, invisible to ring 3 code of the
// guest except the stub's page where ring 0 is emulated.
struct GuestMemory {
  Idt idt;
  union {
    struct {
      uint8_t stubs[256 * kStubSize];
      uint8_t switch_tables[8]; // see begin_switch
    };
    uint8_t stub_page[kPageSize];
  };
  uint8_t scratch[3 * kPageSize]; // the row's
  // Page tables from here to the end: one page for each 2 MiB of address space in use, and a few.
};
inline constexpr uint64_t kLeastGuestMemory = sizeof(GuestMemory) + 32 * kPageSize;

// The last page of guest-physical memory, which no part of the process is found at: the row's.
GuestPhysAddr row_page(const Guest&);

// Where the guest finds the address physically; its chunk has become part of the second level, if
// it was not yet. That does not change while the tables map a page of the chunk. kExhausted: too
// many chunks.
Result<GuestPhysAddr> cover(Guest&, TargetAddr);

// What of the process is there; null: nothing.
TargetAddr found_at(const Guest&, GuestPhysAddr);

// What the code takes that sets CR3 on the way into ring 3.
struct SwitchFrame {
  uint64_t rax;
  TrapFrame trap;
};

// Layout of Cpu::memory.
struct CpuMemory {
  union {
    struct {
      Gdt gdt;
      Tss tss;
    };
    uint8_t page[kPageSize];
  };
  // The processor's own frames, for exceptions that go to the host side; at its lower end the one
  // of a switch of tables.
  union {
    SwitchFrame switch_frame;
    uint8_t stack[kPageSize];
  };
  // Where a row maps what it shares with the kernel, so that it lies nowhere else in the process.
  uint8_t shared[4 * kPageSize];
};

// Makes the calling process's guest; `guest` is zeroed, `memory` zeroed pages of at least
// kLeastGuestMemory within one GiB of address space, neither to be moved.
// `system_call`, `pass_call`: see Guest.
Status open_guest(Guest& guest, const GuestOps&, TargetRange memory, Placement,
                  std::span<const Handler>, TargetAddr system_call = {},
                  PassCall* pass_call = nullptr);

// Makes a thread's processor. `cpu` is zeroed; `memory` holds a CpuMemory. Handlers run on the
// stack that ends at `handler_stack` (the page below it is part of it; more is the caller's to
// map).
Status open_cpu(Cpu& cpu, Guest&, TargetRange memory, TargetAddr handler_stack);

// What Guest::highest_page is, by the features of CPUID.
constexpr int highest_page(uint32_t edx_of_80000001) { return edx_of_80000001 >> 26 & 1 ? 2 : 1; }

// Where the processor finds the end of the stack for the next exception that has a handler.
TargetAddr handler_stack_entry(const Cpu&);

// Makes a page of the process visible to the guest, with rights that must not exceed those it has.
// kInvalid: no address of user space (the vsyscall page, for one).
Status map_page(Guest&, TargetAddr page, uint64_t rights);

// Makes room when the tables are full: forgets what they say of the program's pages, which page
// faults bring back.
Status renew_tables(Guest&);

// What map() makes of the tables, and again if there was no room.
// A program in ring 0 has what nobody could bring back in its tables.
template <class F> Status map_with_room(Guest& g, F&& map) {
  Status ok = map();
  if (ok || ok.error().code != Errc::kExhausted || g.system_call)
    return ok;
  ok = renew_tables(g);
  return ok ? map() : ok;
}

// Forgets what the tables say of the program's pages in the range. Comes before the host's munmap,
// mprotect, mremap or mmap over something: that call is what makes the processor forget them, too.
void unmap_pages(Guest&, TargetRange);

// Takes a descriptor (or an error, which comes back) out of the way of the program, whose next one
// is the lowest that is free. Closed by execve.
long move_high(long fd);

// While it lives, the program's RLIMIT_NOFILE leaves room for a few descriptors above `high`, as
// far as it may be raised.
class RaisedLimit {
public:
  explicit RaisedLimit(long high);
  ~RaisedLimit();
  RaisedLimit(const RaisedLimit&) = delete;
  RaisedLimit& operator=(const RaisedLimit&) = delete;

private:
  uint64_t soft_, hard_;
};

bool stubs_contain(const Guest&, uint64_t rip);
// In a stub that calls the host: nothing but that call is left to be done.
bool is_leaving(const Guest&, uint64_t rip);
TargetAddr stub(const Guest&, uint8_t number);
uint8_t stub_number(const Guest&, uint64_t rip); // Pre: stubs_contain

// For the rows, where ring 0 is real: how a thread comes to other tables. The guest itself loads
// CR3, which is cheap and makes the processor forget; told by the host, KVM may begin its second
// level anew. Before a run: cpu.regs become ring 0's, which sets CR3 and goes to where they were.
// Behind it: should it have come back on the way, the registers are what they were before.
void begin_switch(Cpu&);
void end_switch(Cpu&);

// For the rows: the thread has come out of a stub, or executed such an instruction by itself. `cpu`
// has the registers as they are, `fault_address` is CR2.
Exit host_call(Cpu& cpu, uint8_t number, uint64_t fault_address);

// For the rows: `regs` are those of a thread that has executed `syscall` in ring 0, with its flags
// in r11. True: the call has passed (Guest::pass_call), and its result is in rax.
template <class R> bool passes(Cpu& cpu, R& regs) {
  PassCall* const pass = cpu.guest->pass_call;
  if (!pass || regs.r11 & kEflagsTrap)
    return false;
  KernelSigcontext call;
  call.rax = regs.rax, call.rdi = regs.rdi, call.rsi = regs.rsi, call.rdx = regs.rdx;
  call.r10 = regs.r10, call.r8 = regs.r8, call.r9 = regs.r9;
  if (!pass(call))
    return false;
  regs.rax = call.rax;
  return true;
}

} // namespace dune::backend
