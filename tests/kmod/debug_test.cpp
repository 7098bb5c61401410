// A guest's debug registers: what they trap on, who is told, and what of.
#include "tests/kmod/test_guest.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

namespace dune::test {
namespace {

extern "C" {
void kmod_test_handler(); // entry_test.cpp
void kmod_test_steps(uint64_t times);
void kmod_test_note(); // counts, and keeps what dune_debug.status says
extern uint64_t kmod_test_count;
extern uint64_t kmod_test_status, kmod_test_notes[16];
}
asm(R"(
  .pushsection .bss
  .balign 8
  .globl kmod_test_status, kmod_test_notes
kmod_test_status: .skip 8
kmod_test_notes: .skip 16 * 8
  .popsection
  .pushsection .text
  .globl kmod_test_note
kmod_test_note:
  push %rax
  push %rbx
  push %rcx
  lea kmod_test_notes(%rip), %rbx
  mov kmod_test_count(%rip), %rcx
  mov kmod_test_status(%rip), %rax
  and $15, %ecx
  mov %rax, (%rbx, %rcx, 8)
  incq kmod_test_count(%rip)
  pop %rcx
  pop %rbx
  pop %rax
  iretq
  .popsection
)");

uint64_t address_of(void (*f)()) { return reinterpret_cast<uint64_t>(f); }

#define ASSERT_ENDS_WITH(cpu, name) ASSERT_STREQ(name_of((cpu).go()), name)

uint64_t watched;
void write_watched(uint64_t x) { asm volatile("movq %1, %0\n nop" : "=m"(watched) : "r"(x)); }

dune_debug watch(const void* at, uint32_t flags = 0) {
  dune_debug d{};
  d.size = sizeof d;
  d.flags = flags;
  d.address[0] = reinterpret_cast<uint64_t>(at);
  d.dr7 = 1 | 0xd << 16; // 8 bytes are written... with 4 as length: its lower half
  return d;
}

class Debug : public testing::Test {
protected:
  void SetUp() override {
    if (emulator_ignores_debug_registers())
      GTEST_SKIP() << "QEMU's SVM ignores a guest's debug registers";
  }
};

TEST_F(Debug, WatchedWriteReachesTheGuestsHandler) {
  Guest guest;
  guest.set_gate(1, address_of(kmod_test_handler));
  Vcpu cpu(guest);
  dune_debug d = watch(&watched);
  ASSERT_EQ(call(cpu.fd(), DUNE_SET_DEBUG, &d), 0);
  kmod_test_count = 0;
  cpu.prepare(Ring::k3, write_watched, 5);
  ASSERT_ENDS_WITH(cpu, "SYSCALL");
  EXPECT_EQ(kmod_test_count, 1u);
  EXPECT_EQ(watched, 5u);
  EXPECT_EQ(cpu.regs().dr6 & 0xf, 1u);
  d.dr7 = 0;
  ASSERT_EQ(call(cpu.fd(), DUNE_SET_DEBUG, &d), 0);
  cpu.prepare(Ring::k3, write_watched, 6);
  ASSERT_ENDS_WITH(cpu, "SYSCALL");
  EXPECT_EQ(kmod_test_count, 1u);
}

TEST_F(Debug, WatchedWriteEndsTheRunIfAskedFor) {
  Guest guest;
  Vcpu cpu(guest);
  dune_debug d = watch(&watched, DUNE_DEBUG_EXIT);
  ASSERT_EQ(call(cpu.fd(), DUNE_SET_DEBUG, &d), 0);
  cpu.prepare(Ring::k3, write_watched, 7);
  ASSERT_ENDS_WITH(cpu, "DEBUG");
  EXPECT_EQ(cpu.regs().dr6 & 0xf, 1u);
  EXPECT_EQ(watched, 7u);
  ASSERT_ENDS_WITH(cpu, "SYSCALL");
}

constexpr uint64_t kDr6None = 0xffff0ff0, kStep = 1 << 14;
alignas(16) uint64_t two_words[2];

// Both words, the first as register 0, the second as register 2; `condition` 1: written, 3: used.
dune_debug watch_two(uint64_t condition, uint32_t flags) {
  dune_debug d = watch(two_words, flags);
  d.address[2] = reinterpret_cast<uint64_t>(&two_words[1]);
  d.dr7 = 1 << 0 | 1 << 4 | (condition | 8) << 16 | (condition | 8) << 24;
  d.status = reinterpret_cast<uint64_t>(&kmod_test_status);
  return d;
}

// Code with the words' address in rdi, whose #DBs are noted.
class NotedDebug : public Debug {
protected:
  void SetUp() override {
    Debug::SetUp();
    if (IsSkipped())
      return;
    guest_.set_gate(1, address_of(kmod_test_note));
    guest_.cover(code_.at());
    memset(two_words, 0, sizeof two_words);
  }
  std::vector<uint64_t> notes_of(Ring ring, std::vector<uint8_t> bytes, uint64_t flags = 0) {
    Vcpu cpu(guest_);
    EXPECT_EQ(call(cpu.fd(), DUNE_SET_DEBUG, &debug_), 0);
    bytes.push_back(0xc3); // ret
    memcpy(code_.data(), bytes.data(), bytes.size());
    kmod_test_count = 0;
    kmod_test_status = ~0ull;
    cpu.prepare(ring, code_.at(), reinterpret_cast<uint64_t>(two_words));
    cpu.regs().rflags |= flags;
    EXPECT_STREQ(name_of(cpu.go()), "SYSCALL");
    EXPECT_EQ(cpu.regs().dr6, kDr6None);
    EXPECT_LE(kmod_test_count, 16u);
    return {kmod_test_notes, kmod_test_notes + kmod_test_count};
  }

  Guest guest_;
  Pages code_{kPage, 7};
  dune_debug debug_ = watch_two(1, DUNE_DEBUG_RING3);
};
using Notes = std::vector<uint64_t>;
const std::vector<uint8_t> kWriteFirst{0x48, 0xff, 0x07}; // incq (%rdi)

TEST_F(NotedDebug, StatusIsOfThisOneOnly) {
  // incq (%rdi); nop; incq 8(%rdi); mov (%rdi), %rax
  const std::vector<uint8_t> code{0x48, 0xff, 0x07, 0x90, 0x48, 0xff, 0x47, 0x08, 0x48, 0x8b, 0x07};
  EXPECT_EQ(notes_of(Ring::k3, code), Notes({1, 4}));
  Notes stepped = notes_of(Ring::k3, code, 0x100);
  ASSERT_GE(stepped.size(), 5u); // and the return, and the move before the call
  stepped.resize(5);
  EXPECT_EQ(stepped, Notes({kStep | 1, kStep, kStep | 4, kStep, kStep}));
  EXPECT_EQ(two_words[0], 2u);
}

TEST_F(NotedDebug, BothWordsOfOneInstruction) {
  const std::vector<uint8_t> write_both{0x0f, 0x11, 0x07}; // movups %xmm0, (%rdi)
  EXPECT_EQ(notes_of(Ring::k3, write_both), Notes({5}));
}

TEST_F(NotedDebug, Ring0IsNotTold) {
  debug_ = watch_two(3, DUNE_DEBUG_RING3);
  EXPECT_EQ(notes_of(Ring::k0, kWriteFirst), Notes());
  EXPECT_EQ(two_words[0], 1u);
  EXPECT_EQ(notes_of(Ring::k3, kWriteFirst), Notes({1}));
  // The handler's own use of what is watched would come to the same stack.
  debug_.address[2] = reinterpret_cast<uint64_t>(&kmod_test_status);
  EXPECT_EQ(notes_of(Ring::k3, kWriteFirst), Notes({1}));
  debug_ = watch_two(3, 0);
  EXPECT_EQ(notes_of(Ring::k0, kWriteFirst), Notes({1}));
}

TEST_F(NotedDebug, StepInRing0IsToldWithoutWhatItAccesses) {
  const Notes stepped = notes_of(Ring::k0, kWriteFirst, 0x100);
  ASSERT_GE(stepped.size(), 1u);
  EXPECT_EQ(stepped[0], kStep);
}

TEST_F(NotedDebug, RepeatedInstructionTrapsBehindItsAccess) {
  // mov $2, %ecx; xor %eax, %eax; rep stosq
  EXPECT_EQ(notes_of(Ring::k3, {0xb9, 2, 0, 0, 0, 0x31, 0xc0, 0xf3, 0x48, 0xab}), Notes({1, 4}));
}

TEST_F(NotedDebug, InstructionThatRaisesItIsDone) {
  EXPECT_EQ(notes_of(Ring::k3, {0xf1, 0x90}), Notes({0})); // int1; nop
}

TEST_F(NotedDebug, StatusThatCannotBeWrittenWaits) {
  Pages status(kPage);
  Vcpu cpu(guest_);
  debug_.status = status.at();
  ASSERT_EQ(call(cpu.fd(), DUNE_SET_DEBUG, &debug_), 0);
  mprotect(status.data(), kPage, PROT_READ);
  memcpy(code_.data(), kWriteFirst.data(), kWriteFirst.size());
  code_.data()[kWriteFirst.size()] = 0xc3;
  kmod_test_count = 0;
  cpu.prepare(Ring::k3, code_.at(), reinterpret_cast<uint64_t>(two_words));
  ASSERT_ENDS_WITH(cpu, "FAULT");
  EXPECT_EQ(cpu.run().exit.fault.hva, status.at());
  EXPECT_EQ(cpu.run().exit.fault.error, uint32_t(EFAULT));
  EXPECT_EQ(cpu.run().event.vector, 1);
  EXPECT_EQ(cpu.run().event.flags, DUNE_EVENT_VALID);
  ASSERT_ENDS_WITH(cpu, "SYSCALL");
  EXPECT_EQ(kmod_test_count, 1u);
  EXPECT_EQ(two_words[0], 1u);
}

// What emulators without a guest's breakpoints have of it, too.
TEST(DebugStatus, StepsAreTold) {
  Guest guest;
  guest.set_gate(1, address_of(kmod_test_note));
  Vcpu cpu(guest);
  dune_debug d = watch_two(1, DUNE_DEBUG_RING3);
  ASSERT_EQ(call(cpu.fd(), DUNE_SET_DEBUG, &d), 0);
  Pages code(kPage, 7);
  guest.cover(code.at());
  const uint8_t bytes[] = {0x90, 0x0f, 0xa2, 0x90, 0xc3}; // nop; cpuid; nop; ret
  memcpy(code.data(), bytes, sizeof bytes);
  kmod_test_count = 0;
  kmod_test_status = ~0ull;
  cpu.prepare(Ring::k3, code.at());
  cpu.regs().rflags |= 0x100;
  ASSERT_ENDS_WITH(cpu, "SYSCALL");
  ASSERT_GE(kmod_test_count, 4u);
  for (uint64_t i = 0; i < 4; ++i)
    EXPECT_EQ(kmod_test_notes[i], kStep) << i;
  EXPECT_EQ(cpu.regs().dr6, kDr6None);
}

// Nothing is armed, so this is of every processor.
TEST(DebugRegisters, GuestReadsItsOwnAndWritesNone) {
  Guest guest;
  Vcpu cpu(guest);
  dune_debug d{sizeof d, 0, {0x1000, 0x2000, 0x3000, 0x4000}, 0, 0, {}};
  ASSERT_EQ(call(cpu.fd(), DUNE_SET_DEBUG, &d), 0);
  Pages code(kPage, 7);
  guest.cover(code.at());
  for (const uint64_t number : {0, 1, 2, 3, 6, 7}) {
    // mov %drN, %r9; mov %r9, %rdi; ret
    const uint8_t bytes[] = {0x41, 0x0f, 0x21, uint8_t(0xc1 | number << 3), 0x4c, 0x89, 0xcf, 0xc3};
    memcpy(code.data(), bytes, sizeof bytes);
    cpu.prepare(Ring::k0, code.at());
    ASSERT_ENDS_WITH(cpu, "SYSCALL") << number;
    const uint64_t expected = number == 6 ? 0xffff0ff0 : number == 7 ? 0x400 : d.address[number];
    EXPECT_EQ(cpu.regs().rdi, expected) << number;
    cpu.prepare(Ring::k3, code.at());
    ASSERT_ENDS_WITH(cpu, "SYSCALL") << number;
    EXPECT_EQ(guest.exception_at(cpu.regs().rip), 13) << number;
  }
}

// A breakpoint on the very stack that #DB is delivered on: by itself a processor would never come
// out of it.
TEST_F(Debug, BreakpointOnItsOwnStackHoldsNoProcessor) {
  const int status = status_of_child(
      [] {
        Guest guest;
        Vcpu cpu(guest);
        guest.set_gate(1, address_of(kmod_test_handler));
        const dune_state state = cpu.state();
        const auto* tss = reinterpret_cast<const Tss*>(state.task.base);
        dune_debug d = watch(reinterpret_cast<void*>(tss->ist[0] - 8));
        d.dr7 |= 0x1 << 16; // the frame's last word
        if (call(cpu.fd(), DUNE_SET_DEBUG, &d) != 0)
          _exit(3);
        cpu.prepare(Ring::k3, kmod_test_steps, 1'000'000'000'000);
        cpu.regs().rflags |= 0x100;
        cpu.go();
      },
      1500);
  EXPECT_TRUE(WIFSIGNALED(status)) << status; // it was killed, and here we are
}

} // namespace
} // namespace dune::test
