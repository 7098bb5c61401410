// Into the guest and out again: exceptions that stay inside, and each way a run ends.
#include "tests/kmod/test_guest.h"

#include <gtest/gtest.h>

#include <asm/ldt.h>
#include <atomic>
#include <csignal>
#include <pthread.h>
#include <string_view>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace dune::test {
namespace {

extern "C" {
void kmod_test_handler();      // counts, and goes on
void kmod_test_handler_code(); // the same for an exception with an error code, past an instruction
                               // of 3 bytes
void kmod_test_int3s(uint64_t times);
void kmod_test_steps(uint64_t times);
void kmod_test_spin();
void kmod_test_spin_cli();
uint64_t kmod_test_syscall(uint64_t number);
uint64_t kmod_test_xmm(uint64_t x);
void kmod_test_bases(uint64_t base);
void kmod_test_misaligned(uint64_t address);
void kmod_test_again(); // of an exception with a code: executes it once more
extern uint64_t kmod_test_count;
}
asm(R"(
  .pushsection .bss
  .balign 8
  .globl kmod_test_count
kmod_test_count: .skip 8
  .popsection
  .pushsection .text
  .globl kmod_test_handler, kmod_test_handler_code, kmod_test_int3s, kmod_test_steps
  .globl kmod_test_spin, kmod_test_spin_cli, kmod_test_syscall, kmod_test_xmm, kmod_test_bases
  .globl kmod_test_misaligned, kmod_test_again
kmod_test_handler:
  incq kmod_test_count(%rip)
  iretq
kmod_test_handler_code:
  incq kmod_test_count(%rip)
  add $8, %rsp
  addq $3, (%rsp)
  iretq
kmod_test_int3s:
  int3
  dec %rdi
  jnz kmod_test_int3s
  ret
kmod_test_steps:                  # with TF set by the caller; two instructions a round
  dec %rdi
  jnz kmod_test_steps
  ret
kmod_test_spin:
  pause
  jmp kmod_test_spin
kmod_test_spin_cli:
  cli
  jmp kmod_test_spin
kmod_test_syscall:
  mov %rdi, %rax
  syscall
  ret
kmod_test_xmm:
  movq %xmm7, %rax
  add %rdi, %rax
  movq %rax, %xmm7
  ret
kmod_test_bases:
  wrfsbase %rdi
  add $0x1000, %rdi
  wrgsbase %rdi
  swapgs
  add $0x1000, %rdi
  wrgsbase %rdi
  ret
kmod_test_again:
  add $8, %rsp
  iretq
kmod_test_misaligned:
  mov 1(%rdi), %rax
  ret
  .popsection
)");

uint64_t address_of(void (*f)()) { return reinterpret_cast<uint64_t>(f); }
uint64_t twice(uint64_t x) { return 2 * x; }

#define ASSERT_ENDS_WITH(cpu, name) ASSERT_STREQ(name_of((cpu).go()), name)

// What a run cost beyond its one way in and out.
uint64_t extra_exits(const dune_run& before, const dune_run& after) {
  const auto ours = [](const dune_run& r) { return r.entries - r.interrupts - r.faults; };
  return ours(after) - ours(before) - 1;
}

TEST(Entry, CodeRunsInRing3AndCallsTheHost) {
  Guest guest;
  Vcpu cpu(guest);
  cpu.prepare(Ring::k3, twice, 21);
  ASSERT_ENDS_WITH(cpu, "SYSCALL");
  EXPECT_EQ(cpu.regs().rdi, 21u);
  EXPECT_EQ(cpu.regs().cs, kUserCode);
  EXPECT_EQ(cpu.regs().ss, kUserData);
}

TEST(Entry, CodeRunsInRing0) {
  Guest guest;
  Vcpu cpu(guest);
  cpu.prepare(
      Ring::k0, +[](uint64_t) {
        uint64_t cr3;
        asm volatile("mov %%cr3, %0; mov %0, %%cr3; mov %0, %%rdi" : "=r"(cr3) : : "rdi", "memory");
      });
  ASSERT_ENDS_WITH(cpu, "SYSCALL");
  EXPECT_EQ(cpu.regs().cs, kKernelCode);
  EXPECT_EQ(cpu.regs().cr3, guest.cr3());
}

TEST(Entry, Int3GoesToTheGuestsHandlerWithoutAnExit) {
  Guest guest;
  guest.set_gate(3, address_of(kmod_test_handler));
  Vcpu cpu(guest);
  for (const uint64_t times : {1'000, 100'000}) {
    kmod_test_count = 0;
    cpu.prepare(Ring::k3, kmod_test_int3s, times);
    const dune_run before = cpu.run();
    ASSERT_ENDS_WITH(cpu, "SYSCALL");
    EXPECT_EQ(kmod_test_count, times);
    EXPECT_EQ(extra_exits(before, cpu.run()), 0u);
  }
}

TEST(Entry, StepGoesToTheGuestsHandlerWithoutAnExit) {
  Guest guest;
  guest.set_gate(1, address_of(kmod_test_handler));
  Vcpu cpu(guest);
  kmod_test_count = 0;
  cpu.prepare(Ring::k3, kmod_test_steps, 50'000);
  cpu.regs().rflags |= 0x100;
  const dune_run before = cpu.run();
  ASSERT_ENDS_WITH(cpu, "SYSCALL");
  // Two a round, the return, and the move before the call; the call itself is none.
  constexpr uint64_t kSteps = 2 * 50'000 + 2;
  // Bochs traps once more at an entry with TF set, before the first instruction.
  const uint64_t entries = cpu.run().entries - before.entries;
  EXPECT_GE(kmod_test_count, kSteps);
  EXPECT_LE(kmod_test_count, kSteps + (is_intel() ? entries : 0)) << entries << " entries";
  EXPECT_EQ(extra_exits(before, cpu.run()), 0u);
}

TEST(Entry, ExceptionWithACodeReachesItsHandler) {
  Guest guest;
  guest.set_gate(14, address_of(kmod_test_handler_code));
  Vcpu cpu(guest);
  kmod_test_count = 0;
  // No tables map the first gigabyte (the program is no ancient one).
  cpu.prepare(
      Ring::k3, +[](uint64_t at) { asm volatile("mov (%0), %%rax"
                                                :
                                                : "r"(at)
                                                : "rax"); }, 0x1230);
  ASSERT_ENDS_WITH(cpu, "SYSCALL");
  EXPECT_EQ(kmod_test_count, 1u);
  EXPECT_EQ(cpu.regs().cr2, 0x1230u);
}

TEST(Entry, ExceptionWithoutAHandlerCallsTheHostFromItsGate) {
  Guest guest;
  Vcpu cpu(guest);
  cpu.prepare(
      Ring::k3, +[](uint64_t) { asm volatile("ud2"); });
  ASSERT_ENDS_WITH(cpu, "SYSCALL");
  EXPECT_EQ(guest.exception_at(cpu.regs().rip), 6);
  EXPECT_EQ(cpu.regs().cs, kKernelCode);
}

TEST(Entry, ExceptionThatIsAskedForEndsTheRun) {
  Guest guest;
  Vcpu cpu(guest);
  dune_state state = cpu.state();
  state.exceptions = 1 << 6 | 1 << 13 | 1 << 3;
  ASSERT_EQ(call(cpu.fd(), DUNE_SET_STATE, &state), 0);
  cpu.prepare(
      Ring::k3, +[](uint64_t) { asm volatile("ud2"); });
  const uint64_t entry = cpu.regs().rip;
  ASSERT_ENDS_WITH(cpu, "EXCEPTION");
  EXPECT_EQ(cpu.run().exit.exception.vector, 6u);
  EXPECT_EQ(cpu.regs().cs, kUserCode);
  EXPECT_GE(cpu.regs().rip, entry);
  cpu.prepare(
      Ring::k3, +[](uint64_t) {
        asm volatile("mov %0, %%fs" : : "r"(0x1230));
      });
  ASSERT_ENDS_WITH(cpu, "EXCEPTION");
  EXPECT_EQ(cpu.run().exit.exception.vector, 13u);
  EXPECT_EQ(cpu.run().exit.exception.error_code, 0x1230u);
}

TEST(Entry, SystemCallOfRing3IsMadeByTheHost) {
  Guest guest;
  Vcpu cpu(guest);
  cpu.prepare(Ring::k3, kmod_test_syscall, 39);
  const uint64_t behind = cpu.regs().rip + 5;
  ASSERT_ENDS_WITH(cpu, "SYSCALL");
  dune_regs& r = cpu.regs();
  ASSERT_EQ(r.cs, kKernelCode); // LSTAR's stub
  EXPECT_EQ(r.rcx, behind);
  EXPECT_EQ(r.r11 & 0x202, 0x202u);
  EXPECT_EQ(r.rflags & 0x44700, 0u);
  EXPECT_EQ(r.rdi, 39u);
  r.rax = uint64_t(syscall(long(r.rdi)));
  r.rip = r.rcx;
  r.rflags = r.r11;
  r.cs = kUserCode;
  r.ss = kUserData;
  r.rdi = 0x1234;
  ASSERT_ENDS_WITH(cpu, "SYSCALL"); // it has returned, into the host's call
  EXPECT_EQ(cpu.regs().cs, kUserCode);
  EXPECT_EQ(cpu.regs().rdi, 0x1234u);
}

TEST(Entry, VectorRegistersAreTheThreads) {
  Guest guest;
  Vcpu cpu(guest);
  const int fd = cpu.fd();
  uint64_t out = 0;
  long result = 0;
  // From the start again if it is interrupted: the library behind that may use them.
  do {
    cpu.prepare(Ring::k3, kmod_test_xmm, 5);
    asm volatile("movq %[in], %%xmm7\n syscall\n movq %%xmm7, %[out]"
                 : [out] "=r"(out), "=a"(result)
                 : [in] "r"(uint64_t{1000}), "a"(16), "D"(fd), "S"(DUNE_RUN), "d"(0)
                 : "rcx", "r11", "xmm7", "memory");
    ASSERT_EQ(result, 0);
  } while (cpu.run().exit_reason == DUNE_EXIT_INTR);
  EXPECT_EQ(out, 1005u);
}

TEST(Entry, SegmentBasesAreTheGuests) {
  Guest guest;
  Vcpu cpu(guest);
  static thread_local int of_thread = 77;
  cpu.prepare(Ring::k0, kmod_test_bases, 0x12345678000);
  ASSERT_ENDS_WITH(cpu, "SYSCALL");
  EXPECT_EQ(cpu.regs().fs_base, 0x12345678000u);
  EXPECT_EQ(cpu.regs().kernel_gs_base, 0x12345679000u);
  EXPECT_EQ(cpu.regs().gs_base, 0x1234567a000u);
  EXPECT_EQ(of_thread, 77);
  // They are the registers', not the state's.
  dune_state state = cpu.state();
  ASSERT_EQ(call(cpu.fd(), DUNE_SET_STATE, &state), 0);
  cpu.prepare(Ring::k0, kmod_test_xmm, 1);
  cpu.regs().fs_base = 0x12345678000;
  cpu.regs().gs_base = 0x1234567a000;
  ASSERT_ENDS_WITH(cpu, "SYSCALL");
  EXPECT_EQ(cpu.regs().fs_base, 0x12345678000u);
  EXPECT_EQ(cpu.regs().gs_base, 0x1234567a000u);
  uint64_t gs = 1;
  asm volatile("rdgsbase %0" : "=r"(gs));
  EXPECT_EQ(gs, 0u);
}

// An exit takes them away on Intel, and a base goes with its selector.
struct Segments {
  uint16_t ds, es, fs, gs;
  uint64_t fs_base, gs_base;
  bool operator==(const Segments&) const = default;
};
Segments segments() {
  Segments s;
  asm volatile("mov %%ds, %0\n mov %%es, %1\n mov %%fs, %2\n mov %%gs, %3\n"
               "rdfsbase %4\n rdgsbase %5"
               : "=r"(s.ds), "=r"(s.es), "=r"(s.fs), "=r"(s.gs), "=r"(s.fs_base), "=r"(s.gs_base));
  return s;
}
void set_segments(const Segments& s) {
  asm volatile("mov %0, %%ds\n mov %1, %%es\n mov %2, %%fs\n mov %3, %%gs\n"
               "wrfsbase %4\n wrgsbase %5"
               :
               : "r"(s.ds), "r"(s.es), "r"(s.fs), "r"(s.gs), "r"(s.fs_base), "r"(s.gs_base)
               : "memory");
}

TEST(Entry, SegmentsOfTheThreadStay) {
  user_desc entry{};
  entry.limit = 0xfffff;
  entry.seg_32bit = entry.limit_in_pages = entry.useable = 1;
  ASSERT_EQ(syscall(SYS_modify_ldt, 0x11, &entry, sizeof entry), 0);
  const Segments usual = segments();
  for (const uint16_t selector : {0x2b, 7}) { // of the GDT and of the LDT
    Guest guest;
    Vcpu cpu(guest);
    cpu.prepare(Ring::k3, twice, 4);
    const uint64_t entries = cpu.run().entries;
    const Segments wanted{selector, selector, selector, selector, usual.fs_base, 0x7654321000};
    set_segments(wanted);
    const char* reason = name_of(cpu.go());
    const Segments found = segments();
    set_segments(usual);
    EXPECT_STREQ(reason, "SYSCALL");
    EXPECT_GT(cpu.run().entries - entries, 1u); // pages came
    EXPECT_EQ(found, wanted) << selector;
  }
}

// --- interruption
// ---------------------------------------------------------------------------------

std::atomic<int> signals;
void count_signal(int) { ++signals; }

void every(int milliseconds) {
  const itimerval t{{0, milliseconds * 1000}, {0, milliseconds * 1000}};
  signal(SIGALRM, count_signal);
  setitimer(ITIMER_REAL, &t, nullptr);
}

TEST(Interruption, SignalEndsARun) {
  Guest guest;
  Vcpu cpu(guest);
  for (const uint64_t entry : {address_of(kmod_test_spin), address_of(kmod_test_spin_cli)}) {
    signals = 0;
    cpu.prepare(Ring::k0, entry);
    every(20);
    // By itself it would not end even once.
    while (signals < 3)
      ASSERT_STREQ(name_of(cpu.go_once()), "INTR");
    every(0);
    EXPECT_EQ(cpu.run().event.flags, 0u);
  }
}

TEST(Interruption, NothingIsLostByIt) {
  Guest guest;
  guest.set_gate(3, address_of(kmod_test_handler));
  Vcpu cpu(guest);
  signals = 0;
  kmod_test_count = 0;
  cpu.prepare(Ring::k3, kmod_test_int3s, 1'000'000);
  every(2);
  ASSERT_ENDS_WITH(cpu, "SYSCALL");
  every(0);
  EXPECT_EQ(kmod_test_count, 1'000'000u);
  EXPECT_GT(signals, 3);
}

TEST(Interruption, FlagEndsTheNextRunAtOnce) {
  Guest guest;
  Vcpu cpu(guest);
  cpu.prepare(Ring::k3, twice, 4);
  cpu.run().interrupt = 1;
  const uint64_t entries = cpu.run().entries;
  EXPECT_STREQ(name_of(cpu.go_once()), "INTR");
  EXPECT_EQ(cpu.run().entries, entries);
  EXPECT_EQ(cpu.run().interrupt, 0u);
  ASSERT_ENDS_WITH(cpu, "SYSCALL");
}

TEST(Interruption, BeforeTheEntryLosesNoSegment) {
  Guest guest;
  Vcpu cpu(guest);
  cpu.prepare(Ring::k0, twice, 4);
  ASSERT_ENDS_WITH(cpu, "SYSCALL");
  cpu.prepare(Ring::k3, twice, 5);
  cpu.run().interrupt = 1;
  ASSERT_STREQ(name_of(cpu.go_once()), "INTR");
  ASSERT_ENDS_WITH(cpu, "SYSCALL");
  EXPECT_EQ(cpu.regs().cs, kUserCode);
  EXPECT_EQ(cpu.regs().ss, kUserData);
}

TEST(Interruption, FlagEndsARunInProgress) {
  Guest guest;
  Vcpu cpu(guest);
  cpu.prepare(Ring::k3, address_of(kmod_test_spin));
  std::atomic<bool> ended = false;
  std::thread other([&] { // again and again, for a run may not have begun
    for (; !ended; usleep(1000))
      __atomic_store_n(&cpu.run().interrupt, 1, __ATOMIC_RELAXED);
  });
  while (cpu.regs().rip && __atomic_load_n(&cpu.run().entries, __ATOMIC_RELAXED) < 1'000'000) {
    ASSERT_STREQ(name_of(cpu.go_once()), "INTR");
    if (cpu.run().interrupts)
      break;
  }
  ended = true;
  other.join();
}

// As of any program: what the guest takes is user time.
TEST(Interruption, VirtualTimersCountTheGuestsTime) {
  const int status = status_of_child([] {
    Guest guest;
    Vcpu cpu(guest);
    cpu.prepare(Ring::k3, address_of(kmod_test_spin));
    signal(SIGVTALRM, count_signal);
    const itimerval once{{0, 0}, {0, 100'000}};
    if (setitimer(ITIMER_VIRTUAL, &once, nullptr) != 0)
      _exit(2);
    for (const int before = signals; signals == before;)
      if (std::string_view(name_of(cpu.go_once())) != "INTR")
        _exit(3);
    rusage used{};
    getrusage(RUSAGE_SELF, &used);
    _exit(used.ru_utime.tv_sec || used.ru_utime.tv_usec >= 80'000 ? 0 : 4);
  });
  EXPECT_EQ(status, 0) << (WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
}

TEST(Interruption, MaskCountsDuringARunOnly) {
  Guest guest;
  Vcpu cpu(guest);
  sigset_t usr1, before, pending;
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  signal(SIGUSR1, count_signal);
  pthread_sigmask(SIG_BLOCK, &usr1, &before);
  signals = 0;

  dune_signal_mask mask{sizeof mask, DUNE_SIGNAL_MASK_USE, 0};
  ASSERT_EQ(call(cpu.fd(), DUNE_SET_SIGNAL_MASK, &mask), 0);
  cpu.prepare(Ring::k3, address_of(kmod_test_spin));
  pthread_kill(pthread_self(), SIGUSR1);
  EXPECT_STREQ(name_of(cpu.go_once()), "INTR");
  EXPECT_EQ(signals, 0); // it is blocked here
  sigpending(&pending);
  EXPECT_TRUE(sigismember(&pending, SIGUSR1));

  mask.blocked = 1ull << (SIGUSR1 - 1);
  ASSERT_EQ(call(cpu.fd(), DUNE_SET_SIGNAL_MASK, &mask), 0);
  cpu.prepare(Ring::k3, twice, 1);
  EXPECT_STREQ(name_of(cpu.go()), "SYSCALL");
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  EXPECT_EQ(signals, 1);
}

TEST(Interruption, KilledProcessGoes) {
  for (const uint64_t entry : {address_of(kmod_test_spin), address_of(kmod_test_spin_cli)}) {
    const int status = status_of_child(
        [&] {
          Guest guest;
          Vcpu cpu(guest);
          cpu.prepare(Ring::k0, entry);
          cpu.go();
        },
        700);
    EXPECT_TRUE(WIFSIGNALED(status)) << status;
  }
}

// --- steps, alignment
// ------------------------------------------------------------------------------

// The processor has not executed these itself, and so has not trapped.
TEST(Steps, OverAHypercallIsLeftForTheNextRun) {
  Guest guest;
  guest.set_gate(1, address_of(kmod_test_handler));
  Vcpu cpu(guest);
  kmod_test_count = 0;
  cpu.prepare(Ring::k3, guest.hypercall());
  cpu.regs().rflags |= 0x100;
  ASSERT_ENDS_WITH(cpu, "SYSCALL");
  const uint64_t before = kmod_test_count;
  EXPECT_GE(before, 1u); // the move before it
  EXPECT_EQ(cpu.run().event.vector, 1);
  EXPECT_EQ(cpu.run().event.flags, DUNE_EVENT_VALID);
  EXPECT_TRUE(cpu.regs().dr6 & 1 << 14);
  ASSERT_ENDS_WITH(cpu, "SYSCALL");
  // That step, the return, and the move before the next one.
  EXPECT_GE(kmod_test_count - before, 3u);
  EXPECT_LE(kmod_test_count - before, is_intel() ? 4u : 3u);
}

TEST(Steps, EachInstructionAlsoThoseThatTheModuleExecutes) {
  Guest guest;
  guest.set_gate(1, address_of(kmod_test_handler));
  Vcpu cpu(guest);
  Pages code(kPage, 7);
  guest.cover(code.at());
  const uint8_t bytes[] = {0x0f, 0xa2, 0x90, 0x0f, 0xa2, 0xc3}; // cpuid; nop; cpuid; ret
  memcpy(code.data(), bytes, sizeof bytes);
  kmod_test_count = 0;
  cpu.prepare(Ring::k3, code.at());
  cpu.regs().rflags |= 0x100;
  const uint64_t entries = cpu.run().entries;
  ASSERT_ENDS_WITH(cpu, "SYSCALL");
  EXPECT_GE(kmod_test_count, 5u); // four, and the move before the call
  EXPECT_LE(kmod_test_count, 5u + (is_intel() ? cpu.run().entries - entries : 0));
}

bool checks_alignment() {
  static uint64_t words[2];
  const int natively = status_of_child([] {
    asm volatile("pushfq; orq $0x40000, (%%rsp); popfq; mov 1(%0), %%rax" : : "r"(words) : "rax");
    _exit(0);
  });
  return !WIFEXITED(natively);
}

TEST(AlignmentCheck, GoesThroughToTheGuest) {
  static uint64_t words[2];
  if (!checks_alignment())
    GTEST_SKIP() << "this processor (QEMU) checks no alignment";
  Guest guest;
  Vcpu cpu(guest);
  cpu.prepare(Ring::k3, kmod_test_misaligned, reinterpret_cast<uint64_t>(words));
  cpu.regs().rflags |= 1 << 18;
  ASSERT_ENDS_WITH(cpu, "SYSCALL");
  EXPECT_EQ(guest.exception_at(cpu.regs().rip), 17);
}

// A handler that goes back to what has trapped: each goes through the module, and a kill comes in
// between.
TEST(AlignmentCheck, LoopOfThemHoldsNoProcessor) {
  static uint64_t words[2];
  if (!checks_alignment())
    GTEST_SKIP() << "this processor (QEMU) checks no alignment";
  const int status = status_of_child(
      [] {
        Guest guest;
        guest.set_gate(17, address_of(kmod_test_again));
        Vcpu cpu(guest);
        cpu.prepare(Ring::k3, kmod_test_misaligned, reinterpret_cast<uint64_t>(words));
        cpu.regs().rflags |= 1 << 18;
        cpu.go();
      },
      700);
  EXPECT_TRUE(WIFSIGNALED(status)) << status;
}

// --- entries that are refused, and ends of a guest
// ------------------------------------------------

struct BadEntry {
  const char* name;
  uint32_t code;
  void (*spoil)(dune_run&);
};
constexpr BadEntry kBadEntries[] = {
    {"rip", DUNE_FAIL_RIP, [](dune_run& r) { r.regs.rip = 1ull << 47; }},
    {"rip beyond five levels", DUNE_FAIL_RIP, [](dune_run& r) { r.regs.rip = 1ull << 60; }},
    {"virtual 8086", DUNE_FAIL_RFLAGS, [](dune_run& r) { r.regs.rflags |= 1 << 17; }},
    {"reserved flag", DUNE_FAIL_RFLAGS, [](dune_run& r) { r.regs.rflags |= 1 << 3; }},
    {"ring 1", DUNE_FAIL_SEGMENT, [](dune_run& r) { r.regs.cs = 0x11; }},
    {"null code", DUNE_FAIL_SEGMENT, [](dune_run& r) { r.regs.cs = 3; }},
    {"large selector", DUNE_FAIL_SEGMENT, [](dune_run& r) { r.regs.cs = 0x10033; }},
    {"rings differ", DUNE_FAIL_SEGMENT, [](dune_run& r) { r.regs.ss = 0x18; }},
    {"fs base", DUNE_FAIL_BASE, [](dune_run& r) { r.regs.fs_base = 1ull << 50; }},
    {"kernel gs base", DUNE_FAIL_BASE, [](dune_run& r) { r.regs.kernel_gs_base = 1ull << 63; }},
    {"cr3 too wide", DUNE_FAIL_CR3, [](dune_run& r) { r.regs.cr3 = 1ull << 52; }},
    {"nmi", DUNE_FAIL_EVENT,
     [](dune_run& r) {
       r.event = {2, DUNE_EVENT_VALID, 0, 0};
     }},
    {"int3 as an event", DUNE_FAIL_EVENT,
     [](dune_run& r) {
       r.event = {3, DUNE_EVENT_VALID, 0, 0};
     }},
    {"machine check", DUNE_FAIL_EVENT,
     [](dune_run& r) {
       r.event = {18, DUNE_EVENT_VALID, 0, 0};
     }},
    {"interrupt", DUNE_FAIL_EVENT,
     [](dune_run& r) {
       r.event = {0x80, DUNE_EVENT_VALID, 0, 0};
     }},
    {"no error code", DUNE_FAIL_EVENT,
     [](dune_run& r) {
       r.event = {14, DUNE_EVENT_VALID, 0, 0};
     }},
    {"error code", DUNE_FAIL_EVENT,
     [](dune_run& r) {
       r.event = {6, DUNE_EVENT_VALID | DUNE_EVENT_ERROR_CODE, 0, 0};
     }},
    {"unknown event flag", DUNE_FAIL_EVENT, [](dune_run& r) { r.event.flags = 4; }},
    {"reserved", DUNE_FAIL_RESERVED, [](dune_run& r) { r.reserved1[7] = 1; }},
    {"reserved", DUNE_FAIL_RESERVED, [](dune_run& r) { r.reserved0 = 1; }},
};

TEST(BadState, IsRefusedWithTheReasonAndDoesNoHarm) {
  Guest guest;
  Vcpu cpu(guest);
  for (const BadEntry& bad : kBadEntries) {
    cpu.prepare(Ring::k3, twice, 1);
    bad.spoil(cpu.run());
    const uint64_t entries = cpu.run().entries;
    EXPECT_STREQ(name_of(cpu.go_once()), "FAIL_ENTRY") << bad.name;
    EXPECT_EQ(cpu.run().exit.fail.code, bad.code) << bad.name;
    EXPECT_EQ(cpu.run().entries, entries) << bad.name;
    memset(cpu.run().reserved1, 0, sizeof cpu.run().reserved1);
    cpu.run().reserved0 = 0;
    cpu.prepare(Ring::k3, twice, 1);
    ASSERT_ENDS_WITH(cpu, "SYSCALL") << bad.name;
  }
}

TEST(BadState, TripleFaultIsAShutdownOfThisGuestOnly) {
  Guest guest;
  Vcpu cpu(guest);
  dune_state state = cpu.state(), none = state;
  none.idt.limit = 0;
  ASSERT_EQ(call(cpu.fd(), DUNE_SET_STATE, &none), 0);
  cpu.prepare(Ring::k3, kmod_test_int3s, 1);
  ASSERT_ENDS_WITH(cpu, "SHUTDOWN");
  cpu.prepare(Ring::k3, twice, 1);
  ASSERT_ENDS_WITH(cpu, "FAIL_ENTRY");
  EXPECT_EQ(cpu.run().exit.fail.code, DUNE_FAIL_NO_STATE);
  ASSERT_EQ(call(cpu.fd(), DUNE_SET_STATE, &state), 0);
  cpu.prepare(Ring::k3, twice, 1);
  ASSERT_ENDS_WITH(cpu, "SYSCALL");
}

TEST(BadState, EventOfTheCallersIsDelivered) {
  Guest guest;
  Vcpu cpu(guest);
  cpu.prepare(Ring::k3, twice, 1);
  cpu.run().event = {14, DUNE_EVENT_VALID | DUNE_EVENT_ERROR_CODE, 0, 0x15};
  cpu.regs().cr2 = 0x4444;
  ASSERT_ENDS_WITH(cpu, "SYSCALL");
  EXPECT_EQ(guest.exception_at(cpu.regs().rip), 14);
  EXPECT_EQ(*reinterpret_cast<uint64_t*>(cpu.regs().rsp), 0x15u);
  EXPECT_EQ(cpu.regs().cr2, 0x4444u);
  EXPECT_EQ(cpu.run().event.flags, 0u);
}

// An exception whose stack the second level does not have yet comes once, with its code.
TEST(BadState, FaultWhileAnExceptionIsDeliveredLosesNothing) {
  Guest guest;
  Vcpu cpu(guest);
  const dune_state state = cpu.state();
  const auto* tss = reinterpret_cast<const Tss*>(state.task.base);
  auto* stack_page = reinterpret_cast<void*>(tss->ist[0] - kPage);
  guest.set_gate(3, address_of(kmod_test_handler));
  for (int i = 0; i < 50; ++i) {
    kmod_test_count = 0;
    cpu.prepare(Ring::k3, kmod_test_int3s, 1);
    // The page is the GDT's and TSS's neighbour, not theirs.
    ASSERT_EQ(madvise(stack_page, kPage, MADV_DONTNEED), 0);
    ASSERT_ENDS_WITH(cpu, "SYSCALL");
    EXPECT_EQ(kmod_test_count, 1u);
    cpu.prepare(
        Ring::k3,
        +[](uint64_t at) {
          asm volatile("mov (%0), %%rax" : : "r"(at) : "rax");
        },
        0x1000);
    ASSERT_EQ(madvise(stack_page, kPage, MADV_DONTNEED), 0);
    ASSERT_ENDS_WITH(cpu, "SYSCALL");
    EXPECT_EQ(guest.exception_at(cpu.regs().rip), 14);
    EXPECT_EQ(*reinterpret_cast<uint64_t*>(cpu.regs().rsp) & 0x15, 4u);
  }
}

} // namespace
} // namespace dune::test
