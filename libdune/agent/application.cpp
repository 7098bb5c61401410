// A program in ring 0: what it gets its exceptions by, how it comes to ring 3 and back, and what
// the host side does for it. docs/application.md has the picture.
//
// The first half runs in the guest, in ring 0, on the stack of an exception or the program's own; a
// signal may come at any of its instructions, as it may to the program.
#include "libdune/agent/application.h"
#include "libdune/arch/vector_state.h"
#include "libdune/include/dune/enter.h"
#include "libdune/include/dune/ring3.h"

#include <asm/errno.h>
#include <cstddef>

namespace dune::agent {

using backend::Exit;
using backend::Why;

extern "C" char agent_application[], agent_application_trap_end[], agent_application_exceptions[],
    agent_application_ring3_call[], agent_application_save[], agent_application_stored[],
    agent_application_saved[], agent_application_shifted[], agent_application_bases_in[],
    agent_application_of_ring0[], agent_application_entered[], agent_application_returning[],
    agent_application_bases_out[], agent_application_leaving[], agent_application_refusing[],
    agent_application_passing[], agent_application_end[], agent_application_call[],
    agent_application_call_end[];

extern "C" {
extern const char agent_text_size[], agent_total_size[];
[[gnu::visibility("hidden"), gnu::used]] uint64_t agent_ring0_call; // its stub
}

namespace {

constexpr uint64_t kExceptionEntrySize = 16;
constexpr uint64_t kVectorStateSize = kTrapStackSize / 2; // tiles have 11 KiB, the most there is
// Those that ring 3 may have: ID AC OF DF TF SF ZF AF PF CF.
constexpr uint64_t kRing3Flags = 0x244dd5;
constexpr uint64_t kAlways = kEflagsInterrupts | 2;
constexpr uint64_t kUpperHalf = 0xffff800000000000;

// In Trap::looked_at: the host side has, and made it; the program's handler has begun; it is the
// host side's to deal with, and this is the vector.
constexpr uint64_t kLookedAt = 1, kHandling = 0x200, kPassedOn = 0x100;

// --- In the guest
// --------------------------------------------------------------------------------

// All that it needs of other files is inline: their code is the agent's text, where no signal finds
// the program.
#define DUNE_OF_APPLICATION [[gnu::section(".application.trap"), gnu::flatten]]
#define DUNE_INLINE [[gnu::always_inline]] inline

DUNE_INLINE TrapStacks& stacks_of(const Trap* trap) {
  return *reinterpret_cast<TrapStacks*>(reinterpret_cast<uint64_t>(trap) & ~(kTrapStacksSize - 1));
}
DUNE_INLINE uint64_t address_of_stacks(const TrapStacks& s) {
  return reinterpret_cast<uint64_t>(&s);
}

// Whatever the program has made of it.
DUNE_INLINE void keep_in_ring3(Trap& trap) {
  trap.cs = kUserCode;
  trap.ss = kUserData;
  trap.eflags = (trap.eflags & kRing3Flags) | kAlways;
  // The iretq itself would fault at an address that is none, in ring 0. There is nothing at these.
  if (trap.rip >= kUserEnd)
    trap.rip |= kUpperHalf;
}

// From here on the exception cannot be undone any more (is_undone): a store that stays where it is.
DUNE_INLINE void begin_handling(Trap& trap) {
  *static_cast<volatile uint64_t*>(&trap.looked_at) = trap.looked_at | kHandling;
}

// All that the program goes on with; what exception it is stays said.
DUNE_INLINE void take_state(Trap& to, const Trap& from) {
  const auto copy = [](void* at, const void* what, uint64_t words) {
    asm volatile("rep movsq" : "+D"(at), "+S"(what), "+c"(words) : : "memory");
  };
  constexpr uint64_t kRegisters = offsetof(Trap, rax), kVector = offsetof(Trap, vector),
                     kBehind = offsetof(Trap, error);
  copy(&to.rax, &from.rax, (kVector - kRegisters) / 8);
  copy(&to.error, &from.error, (sizeof(Trap) - kBehind) / 8);
}

DUNE_INLINE void enter_ring3(TrapStacks& s, Trap& trap) {
  begin_handling(trap);
  Ring3& r = *reinterpret_cast<Ring3*>(trap.rdi);
  r.caller.trap = trap;
  r.caller.outer = s.ring3;
  s.ring3 = &r;
  take_state(trap, r.trap);
  keep_in_ring3(trap);
}
DUNE_INLINE void leave_ring3(TrapStacks& s, Trap& trap) {
  begin_handling(trap);
  Ring3& r = *s.ring3;
  r.trap = trap;
  take_state(trap, r.caller.trap);
  s.ring3 = r.caller.outer;
}

// Not the handler's business: the guest has not seen the page yet, and the host side will bring it.
DUNE_INLINE bool is_only_missing(const Trap& trap) {
  if (trap.looked_at)
    return false;
  const TargetAddr page = TargetAddr(trap.address).align_down(kPageSize);
  if (page >= TargetAddr(kUserEnd))
    return false;
  uint64_t root;
  asm volatile("mov %%cr3, %0" : "=r"(root));
  const PageEntry* e = reinterpret_cast<PageTables*>(agent_config.tables)
                           ->find_leaf(GuestPhysAddr(root & kEntryAddress), page)
                           .entry;
  return !policy_refuses(e ? *e : 0, trap.error);
}

// A function of its own: others need not make room for the image.
[[gnu::section(".application.trap"), gnu::noinline, gnu::noclone]] bool
call_with_vectors(bool (*call)(Trap&), Trap& trap) {
  const bool extended = agent_config.xstate_size > kFpLegacySize;
  alignas(64) uint8_t image[kVectorStateSize];
  if (extended) // what XSAVE leaves of it, XRSTOR would find
    for (uint64_t at = kFpLegacySize; at < kFpLegacySize + 64; at += 8)
      *reinterpret_cast<volatile uint64_t*>(image + at) = 0;
  store_vector_state(image, extended);
  const bool handled = call(trap);
  load_vector_state(image, extended);
  return handled;
}

DUNE_INLINE bool call_handler(uint64_t handler, Trap& trap) {
  const auto call = reinterpret_cast<bool (*)(Trap&)>(handler);
  begin_handling(trap);
  return agent_config.saves_vectors >> trap.vector & 1 ? call_with_vectors(call, trap) : call(trap);
}

// What the entry is to go on with: 0, the program; else where the stub's address lies (see there).
DUNE_INLINE uint64_t pass_on(Trap& trap) {
  uint64_t* at =
      &(pushes_error_code(static_cast<uint32_t>(trap.vector)) ? trap.vector : trap.error);
  trap.looked_at = kPassedOn | trap.vector;
  if (trap.vector == kVectorPageFault) // which another may have changed since
    asm volatile("mov %0, %%cr2" : : "r"(trap.address));
  *at = agent_ring0_call - (backend::kRing0CallStub - trap.vector) * backend::kStubSize;
  return reinterpret_cast<uint64_t>(at);
}

} // namespace

extern "C" DUNE_OF_APPLICATION [[gnu::visibility("hidden"), gnu::used]] uint64_t
agent_on_application_trap(Trap* trap) {
  TrapStacks& s = stacks_of(trap);
  // The last stack is for what comes to no handler: pages that are only missing, and the end.
  const bool is_last = address_of_stacks(s) + kTrapStackSize > reinterpret_cast<uint64_t>(trap);
  constexpr uint64_t kSpecial =
      1 << kVectorRing3Call | 1 << kVectorRing3 | 1 << kVectorPageFault | 1 << kVectorAttention;
  const bool of_ring3 = trap->from_ring3();
  if (kSpecial >> trap->vector & 1) {
    if (!inside()) // a signal's handler has come before us, and forked: agent_on_return_in_child
      return 0;
    if (trap->vector == kVectorRing3Call && !of_ring3) { // of ring 0, whose flags were lost
      trap->rip = agent_ring0_call;
      trap->ss = kKernelData;
      return 0;
    }
    if (trap->vector == kVectorRing3 && !is_last) { // so there is one for what ring 3 does
      enter_ring3(s, *trap);
      return 0;
    }
    if (trap->vector == kVectorPageFault && is_only_missing(*trap))
      return pass_on(*trap);
    if (trap->vector == kVectorAttention) {
      if (of_ring3)
        keep_in_ring3(*trap);
      return 0;
    }
  }
  if (is_last) {
    trap->vector = kVectorDoubleFault;
    trap->error = 0;
    s.refused = 1;
    return pass_on(*trap);
  }
  const uint64_t handler = agent_config.handlers[trap->vector];
  const bool handled = handler && call_handler(handler, *trap);
  if (of_ring3) {
    if (handled)
      keep_in_ring3(*trap);
    else
      leave_ring3(s, *trap);
    return 0;
  }
  if (handled)
    return 0;
  s.refused = handler != 0;
  return pass_on(*trap);
}

// In a child that a handler has forked. What the handler has dealt with the program goes on with;
// anything else it does once more, to whatever becomes of it in an ordinary process. There is no
// ring 3 there: who runs it finds that it has come back.
extern "C" DUNE_OF_APPLICATION [[gnu::visibility("hidden"), gnu::used]] void
agent_on_return_in_child(Trap* trap, uint64_t passed_on) {
  const bool handled = !passed_on && (trap->looked_at & kHandling);
  const uint64_t vector = passed_on ? trap->looked_at & 0xff : trap->vector;
  if (trap->from_ring3())
    leave_ring3(stacks_of(trap), *trap);
  else if (!handled && vector == kVectorBreakpoint)
    trap->rip -= 1; // int3
  else if (!handled && (vector == kVectorRing3 || vector == kVectorRing3Call))
    trap->rip -= 2; // int n, syscall
  trap->rsp -= kRedZone + sizeof trap->rip;
  *reinterpret_cast<uint64_t*>(trap->rsp) = trap->rip;
}

// --- On the host side
// ----------------------------------------------------------------------------

namespace {

uint64_t begin_of_trap_stacks(const ThreadBlock* t) { return address_of(&stacks_of(t)); }
bool in_ring3(const ThreadBlock* t) { return stacks_of(t).in_ring3; }
// The lowest page of each stack is nobody's, so that a handler that needs more than it has does not
// take it from the next one's. No handler runs on the last.
bool is_guard(const ThreadBlock* t, TargetAddr address) {
  const uint64_t offset = address.value - begin_of_trap_stacks(t);
  return offset >= kTrapStackSize && offset < kTrapStacksSize &&
         offset % kTrapStackSize < kPageSize;
}
uint64_t& next_stack(const ThreadBlock* t) {
  return *reinterpret_cast<uint64_t*>(stacks_of(t).stack_entry);
}
// The one in which rsp is.
Trap& trap_at(uint64_t rsp) {
  const uint64_t end = (rsp + kTrapStackSize - 1) & ~(kTrapStackSize - 1);
  return *reinterpret_cast<Trap*>(end - sizeof(Trap));
}

// Registers, or the context of a signal: what the assembly has at agent_application_entered.
template <class R> void begin_handler(const ThreadBlock* t, R& r, Trap& trap) {
  r.rsp = address_of(&trap);
  r.rbx = stacks_of(t).stack_entry;
  r.rip = address_of(agent_application_entered);
  r.eflags = kRing0Flags;
}

template <class R> void save(Trap& trap, const R& r) {
  trap.rax = r.rax, trap.rdx = r.rdx, trap.rcx = r.rcx, trap.rbx = r.rbx;
  trap.rsi = r.rsi, trap.rdi = r.rdi, trap.rbp = r.rbp;
  trap.r8 = r.r8, trap.r9 = r.r9, trap.r10 = r.r10, trap.r11 = r.r11;
  trap.r12 = r.r12, trap.r13 = r.r13, trap.r14 = r.r14, trap.r15 = r.r15;
}
void load(Registers& r, const Trap& trap) {
  r.rax = trap.rax, r.rdx = trap.rdx, r.rcx = trap.rcx, r.rbx = trap.rbx;
  r.rsi = trap.rsi, r.rdi = trap.rdi, r.rbp = trap.rbp;
  r.r8 = trap.r8, r.r9 = trap.r9, r.r10 = trap.r10, r.r11 = trap.r11;
  r.r12 = trap.r12, r.r13 = trap.r13, r.r14 = trap.r14, r.r15 = trap.r15;
  r.rip = trap.rip, r.cs = trap.cs, r.eflags = trap.eflags, r.rsp = trap.rsp, r.ss = trap.ss;
}

// Between ring 3 and its caller. `half_way`: the program's side has begun with it, and what was in
// the processor is where it belongs.
void show_bases_of_caller(ThreadBlock* t, bool half_way) {
  TrapStacks& s = stacks_of(t);
  if (!s.in_ring3)
    return;
  Ring3& r = *s.ring3;
  Registers& now = guest_slot(t).cpu.regs;
  if (!half_way) {
    r.fs_base = now.fs_base;
    r.gs_base = now.gs_base;
  }
  now.fs_base = r.caller.fs_base;
  now.gs_base = r.caller.gs_base;
  s.in_ring3 = 0;
}
void show_bases_of_ring3(ThreadBlock* t, bool half_way) {
  TrapStacks& s = stacks_of(t);
  Ring3& r = *s.ring3;
  Registers& now = guest_slot(t).cpu.regs;
  if (!half_way) {
    r.caller.fs_base = now.fs_base;
    r.caller.gs_base = now.gs_base;
  }
  now.fs_base = r.fs_base;
  now.gs_base = r.gs_base;
  s.in_ring3 = 1;
}

// The exception, as if the processor had raised it at these registers. False: it is within too
// many, which those of ring 3 never are (agent_on_application_trap).
template <class R> [[nodiscard]] bool raise(ThreadBlock* t, R& r, const Exit& e) {
  const bool of_ring3 = in_ring3(t);
  if (next_stack(t) <= begin_of_trap_stacks(t) + kTrapStackSize)
    return false;
  Trap& trap = trap_at(next_stack(t));
  next_stack(t) -= kTrapStackSize;
  save(trap, r);
  trap.looked_at = kLookedAt;
  trap.address = e.address;
  trap.vector = e.vector;
  trap.error = e.error;
  trap.rip = r.rip;
  trap.cs = of_ring3 ? kUserCode : kKernelCode;
  trap.ss = of_ring3 ? kUserData : kKernelData;
  trap.eflags = r.eflags;
  trap.rsp = r.rsp;
  show_bases_of_caller(t, false);
  begin_handler(t, r, trap);
  return true;
}

// From the entry, at whatever instruction, to its end.
void end_entry(ThreadBlock* t, Registers& r) {
  Trap& trap = trap_at(r.rsp);
  if (between(r.rip, agent_application_exceptions, agent_application_saved)) {
    uint64_t vector = trap.vector;
    if (between(r.rip, agent_application_exceptions, agent_application_ring3_call))
      vector = (r.rip - address_of(agent_application_exceptions)) / kExceptionEntrySize;
    if (between(r.rip, agent_application_ring3_call, agent_application_save)) {
      vector = kVectorRing3Call;
      trap.rip = r.rcx, trap.cs = kUserCode, trap.eflags = r.r11, trap.ss = kUserData;
    }
    if (!pushes_error_code(static_cast<uint32_t>(vector)))
      trap.error = 0;
    trap.vector = vector;
    trap.looked_at = 0;
    if (!between(r.rip, agent_application_stored, agent_application_saved))
      save(trap, r);
    if (vector == kVectorPageFault) // whose address is lost to us
      return load(r, trap);
  }
  if (between(r.rip, agent_application_exceptions, agent_application_shifted))
    next_stack(t) -= kTrapStackSize;
  // As the entry itself says of a system call that is not ring 3's; but it may have said already
  // that the thread is not in ring 3 any more.
  if (!in_ring3(t) && !between(r.rip, agent_application_bases_in, agent_application_of_ring0))
    trap.cs = kKernelCode;
  show_bases_of_caller(t, between(r.rip, agent_application_bases_in, agent_application_entered));
  begin_handler(t, r, trap);
}

constexpr bool comes_again(uint64_t vector) { // when the same instruction is executed
  constexpr uint64_t kOthers = 1 << kVectorDebug | 1 << kVectorBreakpoint | 1 << kVectorRing3 |
                               1 << kVectorRing3Call | 1 << kVectorAttention;
  return !(kOthers >> vector & 1);
}

// In agent_on_application_trap, or at its door, with what the program has not seen anything of yet:
// as good as not begun. (The program may leave a signal's handler by siglongjmp, and then the
// exception's stack would never be given back.)
bool is_undone(const Registers& r) {
  if (!between(r.rip, agent_application, agent_application_trap_end) &&
      !between(r.rip, agent_application_entered, agent_application_returning))
    return false;
  const Trap& trap = trap_at(r.rsp);
  const bool passed_on = trap.looked_at & kPassedOn;
  return !(trap.looked_at & kHandling) &&
         comes_again(passed_on ? trap.looked_at & ~kPassedOn : trap.vector);
}

// From behind a handler, at whatever instruction, to where the program goes on; what it has passed
// on has come to the host side.
Exit end_handler(ThreadBlock* t, Registers& r, const Exit& found) {
  Exit e = found;
  const Trap& trap = trap_at(r.rsp);
  const bool has_given_back =
      between(r.rip, agent_application_leaving, agent_application_refusing) ||
      between(r.rip, agent_application_passing, agent_application_end);
  if (!has_given_back)
    next_stack(t) += kTrapStackSize;
  if (trap.from_ring3())
    show_bases_of_ring3(t,
                        !between(r.rip, agent_application_returning, agent_application_bases_out));
  if (trap.looked_at & kPassedOn) {
    const uint64_t vector = trap.looked_at & ~kPassedOn;
    if (comes_again(vector))
      stacks_of(t).refused = 0;
    else
      e = {Why::kTrap, static_cast<uint32_t>(vector)};
  }
  load(r, trap);
  return e;
}

// At a system call of whosever, which has not been made.
Exit begin_call(ThreadBlock* t, Registers& r, const Exit& found) {
  r.rip = r.rcx;
  r.eflags = r.r11;
  if (!in_ring3(t))
    return {Why::kSystemCall};
  const bool raised = raise(t, r, {Why::kTrap, kVectorRing3Call});
  DUNE_ASSERT(raised);
  r.cs = kKernelCode;
  return found;
}

} // namespace

Exit find_program(ThreadBlock* t, const Exit& found) {
  Registers& r = guest_slot(t).cpu.regs;
  if (r.cs != kKernelCode)
    return found;
  const uint64_t call = backend::stub(guest_room().guest, backend::kSystemCallStub).value;
  if (r.rip == call || between(r.rip, agent_application_call, agent_application_call_end))
    return begin_call(t, r, found);
  if (between(r.rip, agent_application_returning, agent_application_end) || is_undone(r))
    return end_handler(t, r, found);
  if (between(r.rip, agent_application_exceptions, agent_application_entered))
    end_entry(t, r);
  return found;
}

namespace {
template <size_t kSize> void say(const char (&text)[kSize]) {
  syscall_of(__NR_write, 2, address_of(text), kSize - 1);
}
constexpr char kTooDeep[] =
    "dune: an exception within seven others, which is as many as there are stacks for; the "
    "handlers of exceptions must raise fewer\n";
constexpr char kOverflow[] =
    "dune: the handler of an exception has used up its stack of 28 KiB, or 12 where the vector "
    "registers are saved\n";
} // namespace

bool offer(ThreadBlock* t, const Exit& e) {
  if (e.why != Why::kTrap || e.vector >= kMostHandlers)
    return false;
  Registers& r = guest_slot(t).cpu.regs;
  TrapStacks& s = stacks_of(t);
  const bool refused = s.refused;
  s.refused = 0;
  const bool is_call = e.vector == kVectorGeneralProtection && e.error == kCallOf32Bits;
  const bool wanted = in_ring3(t) || !(refused || is_call || !agent_config.handlers[e.vector]);
  const bool raised = wanted && raise(t, r, e);
  if (wanted ? !raised : refused && e.vector == kVectorDoubleFault)
    say(kTooDeep);
  else if (!raised && e.vector == kVectorPageFault && is_guard(t, TargetAddr(e.address)))
    say(kOverflow);
  return raised;
}

void come_out_of_ring3(ThreadBlock* t, KernelSigcontext& m) {
  const bool raised = raise(t, m, {Why::kTrap, kVectorAttention});
  DUNE_ASSERT(raised);
}

uint32_t application_handlers(backend::Handler (&handlers)[kMostHandlers]) {
  uint32_t count = 0;
  for (uint32_t v = 0; v < kMostHandlers; ++v)
    if (comes_to_application(v))
      handlers[count++] = {
          v, v == kVectorRing3Call
                 ? TargetAddr(address_of(agent_application_ring3_call))
                 : TargetAddr(address_of(agent_application_exceptions) + v * kExceptionEntrySize)};
  return count;
}

TargetAddr application_system_call() { return TargetAddr(address_of(agent_application_call)); }

Status show_agent() {
  backend::Guest& g = guest_room().guest;
  const auto show = [&g](TargetRange range, uint64_t rights) {
    Status ok;
    for (TargetAddr page = range.begin; page < range.end && ok; page += kPageSize)
      ok = backend::map_page(g, page, rights | kPageRead | kPageOwn);
    return ok;
  };
  const TargetAddr text(agent_config.text_begin), data(address_of(agent_text_size)),
      end(address_of(agent_total_size)), room(agent_config.guest);
  Status ok = show({text, data}, kPageExecute);
  if (ok)
    ok = show({data, end}, kPageWrite);
  if (ok)
    ok = show({room, (room + sizeof(backend::Guest)).align_up(kPageSize)}, kPageWrite);
  const TargetRange tables = guest_tables();
  auto at = backend::cover(g, tables.begin);
  if (!at)
    return at.error();
  constexpr uint64_t kLarge = PageTables::kLargePage;
  if (ok) // among them the stubs, which have rights of their own
    ok = show({tables.begin + sizeof(backend::GuestMemory), tables.begin + kLarge}, kPageWrite);
  for (uint64_t n = kLarge; n < tables.size() && ok; n += kLarge)
    ok = g.tables.map_large(tables.begin + n, *at + n, kPageRead | kPageWrite | kPageOwn);
  return ok;
}

TargetAddr end_of_trap_stacks(const ThreadBlock* t) {
  return TargetAddr(begin_of_trap_stacks(t) + kTrapStacksSize);
}

// No exception's stack may be missing when it comes.
bool open_trap_stacks(ThreadBlock* t) {
  TrapStacks& s = stacks_of(t);
  s = {};
  ++agent_config.threads_begun;
  guest_slot(t).cpu.root = guest_room().guest.tables.root();
  s.stack_entry = backend::handler_stack_entry(guest_slot(t).cpu).value;
  next_stack(t) = end_of_trap_stacks(t).value;
  backend::Guest& g = guest_room().guest;
  const TargetAddr begin(begin_of_trap_stacks(t));
  if (g.tables.mapped(begin))
    return true; // the slot has had a thread
  Status ok;
  for (TargetAddr page = end_of_trap_stacks(t); page > begin && ok;) {
    page -= kPageSize;
    ok = is_guard(t, page)
             ? g.tables.change_entry(page, [](PageEntry) { return with_policy(0, 0); })
             : backend::map_page(g, page, kPageRead | kPageWrite | kPageOwn);
  }
  return bool(ok);
}

namespace {

constexpr uint64_t kNoPolicy = ~uint64_t{0};

bool is_the_programs(TargetRange range) {
  return range.begin <= range.end && range.end <= TargetAddr(kUserEnd) && !is_partly_ours(range);
}

long set_policy_of_all(TargetRange range, uint64_t allowed) {
  PageTables& tables = guest_room().guest.tables;
  const bool has_none = allowed == kNoPolicy;
  for (TargetAddr page = range.begin; page < range.end; page += kPageSize) {
    if (!tables.find_entry(page)) {
      if (has_none)
        continue;
      if (tables.is_nearly_full())
        return -ENOMEM;
    }
    const Status ok = tables.change_entry(page, [=](PageEntry e) {
      return has_none ? without_policy(e) : with_policy(without_age(e), allowed);
    });
    if (!ok)
      return -ENOMEM;
  }
  return 0;
}

long set_policy_in(uint32_t view, TargetRange range, uint64_t allowed) {
  PageTables& tables = guest_room().guest.tables;
  for (TargetAddr page = range.begin; page < range.end;) {
    const PageTables::Leaf leaf = tables.find_leaf(tables.root(view), page);
    const TargetRange all{page.align_down(leaf.size()), page.align_down(leaf.size()) + leaf.size()};
    const bool is_own = *leaf.entry & kEntryOfView;
    const bool is_whole = is_own && all.begin == page && all.end <= range.end;
    if (allowed != kNoPolicy || (is_own && !is_whole)) {
      if (!is_whole && tables.is_nearly_full())
        return -ENOMEM;
      const auto now = [=](PageEntry e) {
        return allowed == kNoPolicy ? e : with_policy(without_age(e), allowed) | kEntryOfView;
      };
      if (!tables.change_entry_in(view, page, now, is_whole ? leaf.level : 0))
        return -ENOMEM;
      if (allowed == kNoPolicy)
        continue; // it is small now
    } else if (is_own) {
      tables.follow_in(view, page, leaf.level);
    }
    page = is_whole || allowed == kNoPolicy ? all.end : page + kPageSize;
  }
  return 0;
}

long set_policy(TargetRange range, uint64_t allowed, uint64_t view) {
  GuestRoom& room = guest_room();
  if ((allowed != kNoPolicy && (allowed & ~kEntryAllowed)) || view > PageTables::kViews ||
      !is_the_programs(range))
    return -EINVAL;
  const process::Holder hold(room.memory.mutex());
  return view == kAllViews ? set_policy_of_all(range, allowed)
                           : set_policy_in(static_cast<uint32_t>(view), range, allowed);
}

// In the view, what is `behind`, in pages as large as `most_level`.
long map_elsewhere(TargetRange range, uint64_t allowed, uint64_t view, TargetAddr behind,
                   int most_level) {
  GuestRoom& room = guest_room();
  PageTables& tables = room.guest.tables;
  const TargetRange memory{behind, behind + range.size()};
  if (view >= PageTables::kViews || (allowed & ~kEntryAllowed) || !is_the_programs(memory) ||
      !is_the_programs(range))
    return -EINVAL;
  const process::Holder hold(room.memory.mutex());
  const auto number = static_cast<uint32_t>(view);
  for (TargetAddr page = range.begin; page < range.end;) {
    const TargetAddr from = behind + (page - range.begin);
    const auto fits = [&](int level) {
      const uint64_t size = PageTables::size_of(level);
      return (page.value | from.value) % size == 0 && range.end - page >= size &&
             tables.has_room_in(number, page, level);
    };
    int level = most_level;
    while (level > 0 && !fits(level))
      --level;
    auto at = backend::cover(room.guest, from);
    if (!at || tables.is_nearly_full())
      return -ENOMEM;
    const PageEntry e = with_policy(kEntryPolicy | at->value, allowed) | kEntryOfView |
                        kEntryElsewhere | (level > 0 ? kEntryLarge : 0);
    if (!tables.change_entry_in(
            number, page, [=](PageEntry) { return e; }, level))
      return -ENOMEM;
    page += PageTables::size_of(level);
  }
  return 0;
}

long open_view(uint64_t view) {
  GuestRoom& room = guest_room();
  if (view >= PageTables::kViews)
    return -EINVAL;
  const process::Holder hold(room.memory.mutex());
  PageTables& tables = room.guest.tables;
  if (tables.is_nearly_full() || !tables.open_view(static_cast<uint32_t>(view)))
    return -ENOMEM;
  return static_cast<long>(tables.root(static_cast<uint32_t>(view)).value);
}

long close_view(uint64_t view) {
  GuestRoom& room = guest_room();
  if (view >= PageTables::kViews)
    return -EINVAL;
  const process::Holder hold(room.memory.mutex());
  room.guest.tables.close_view(static_cast<uint32_t>(view));
  // Without tags whoever used it has loaded another root since, which has made it forget.
  if (!agent_config.has_tags || room.guest.ops.forget(room.guest))
    room.guest.tables.reuse_closed();
  return 0;
}

long forget() {
  GuestRoom& room = guest_room();
  const process::Holder hold(room.memory.mutex());
  return room.guest.ops.forget(room.guest) ? 0 : -EIO;
}

} // namespace

long application_call(const KernelSigcontext& m) {
  const TargetAddr page = TargetAddr(m.rsi).align_down(kPageSize);
  switch (static_cast<ApplicationCall>(m.rdi)) {
  case ApplicationCall::kPolicy:
    return set_policy({page, TargetAddr(m.rdx)}, m.r10, m.r8);
  case ApplicationCall::kMap:
    return map_elsewhere({page, TargetAddr(m.rdx)}, m.r10 & ~kSmallPagesOnly, m.r8,
                         TargetAddr(m.r9).align_down(kPageSize),
                         m.r10 & kSmallPagesOnly ? 0 : guest_room().guest.highest_page);
  case ApplicationCall::kOpenView:
    return open_view(m.rsi);
  case ApplicationCall::kCloseView:
    return close_view(m.rsi);
  case ApplicationCall::kForget:
    return forget();
  }
  return -ENOSYS;
}

// --- Birth
// ----------------------------------------------------------------------------------------

namespace {

// What the kernel's frames have of vector state.
void take_vector_format(const KernelUcontext& uc) {
  FpSoftwareBytes software;
  memcpy(&software, reinterpret_cast<const char*>(uc.mcontext.fpstate) + kFpSwReservedOffset,
         sizeof software);
  const bool extended = software.magic1 == kFpXstateMagic1;
  agent_config.xstate_size = extended ? software.extended_size : kFpLegacySize;
  memcpy(agent_config.xstate_features, &software.features, extended ? sizeof software.features : 0);
}

} // namespace

// The program's first thread, in the handler of a signal that it has sent to itself.
extern "C" [[gnu::visibility("hidden")]] void
agent_on_enter_application(int signal, KernelSiginfo* info, KernelUcontext* uc) {
  auto* entry = reinterpret_cast<ApplicationEntry*>(info->rt.value);
  ThreadBlock* t = current();
  set_kernel_action(signal, entry->action);
  take_actions();
  take_vector_format(*uc);
  open_process_guest();
  const auto refuse = [&](int64_t error, const char* text) {
    give_back_actions();
    close_process_guest();
    entry->error = error;
    entry->text = text;
  };
  if (agent_config.xstate_size > kVectorStateSize)
    return refuse(E2BIG, "the processor has more vector state than fits an exception's stack");
  if (agent_config.guest_refused)
    return refuse(agent_config.guest_refused, "the process cannot have a guest");
  agent_ring0_call = backend::stub(guest_room().guest, backend::kRing0CallStub).value;
  agent_config.tables = address_of(&guest_room().guest.tables);
  t->altstack = entry->altstack;
  session::ThreadSlot& slot = slot_of(t);
  slot.tid = static_cast<uint32_t>(syscall_of(__NR_gettid));
  slot.state.store(static_cast<uint32_t>(session::ThreadState::kRunning));
  header().live_threads = header().slots_in_use = 1;
  uc->sigmask = entry->mask;
  if (!open_processor(t))
    return refuse(ENOMEM, "the backend has no processor");
  entry->error = 0;
  run_in_guest(t, uc);
}

} // namespace dune::agent
