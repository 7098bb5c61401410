// Into the guest and out again: exceptions that stay inside, and each way a run ends.
#include "tests/kmod/test_guest.h"

#include <gtest/gtest.h>

namespace dune::test {
namespace {

extern "C" {
// Handlers: count in r15, and go on.
void count_and_return();
void loop_of_int3();
void loop_of_steps();
extern uint64_t kmod_test_count;
}
asm(R"(
  .pushsection .bss
  .balign 8
  .globl kmod_test_count
kmod_test_count: .skip 8
  .popsection
  .pushsection .text
  .globl count_and_return, loop_of_int3, loop_of_steps
count_and_return:
  incq kmod_test_count(%rip)
  iretq
loop_of_int3:                     # rdi: how often
1: int3
  dec %rdi
  jnz 1b
  ret
loop_of_steps:                    # rdi: how often, with TF set by the caller
1: dec %rdi
  jnz 1b
  pushfq
  andq $~0x100, (%rsp)
  popfq
  ret
  .popsection
)");

uint64_t twice(uint64_t x) { return 2 * x; }

TEST(Entry, CodeRunsInRing3AndCallsTheHost) {
  Guest guest;
  Vcpu cpu(guest);
  cpu.prepare(Ring::k3, twice, 21);
  EXPECT_STREQ(name_of(cpu.go()), "SYSCALL");
  EXPECT_EQ(cpu.regs().rdi, 21u);
  EXPECT_EQ(cpu.regs().cs, kUserCode);
}

TEST(Entry, Int3GoesToTheGuestsHandlerWithoutAnExit) {
  Guest guest;
  guest.set_gate(3, reinterpret_cast<uint64_t>(count_and_return));
  Vcpu cpu(guest);
  for (const uint64_t times : {1'000, 100'000}) {
    kmod_test_count = 0;
    cpu.prepare(Ring::k3, loop_of_int3, times);
    const dune_run before = cpu.run();
    ASSERT_STREQ(name_of(cpu.go()), "SYSCALL");
    const dune_run& after = cpu.run();
    EXPECT_EQ(kmod_test_count, times);
    const uint64_t entries = after.entries - before.entries;
    const uint64_t ours = entries - (after.interrupts - before.interrupts) - (after.faults - before.faults);
    EXPECT_EQ(ours, 1u) << entries;
  }
}

} // namespace
} // namespace dune::test
