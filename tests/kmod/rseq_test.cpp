// Restartable sequences of code in the guest: one whose thread was preempted or interrupted is
// aborted before it goes on.
#include "tests/kmod/test_guest.h"

#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <cstddef>
#include <sched.h>
#include <sys/rseq.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace dune::test {
namespace {

extern "C" {
// Stores the section's address at rdi and stays in it until it is aborted.
void kmod_rseq_wait(uint64_t rseq_cs);
void kmod_rseq_step(uint64_t x);
extern const uint64_t kmod_rseq_section[4];
}
asm(R"(
  .pushsection .data.rel.ro, "aw"
  .balign 32
  .globl kmod_rseq_section
kmod_rseq_section:                # struct rseq_cs
  .long 0, 0
  .quad 2f, 3f - 2f, 4f
  .popsection
  .pushsection .text
  .globl kmod_rseq_wait, kmod_rseq_step
kmod_rseq_wait:
  lea kmod_rseq_section(%rip), %rax
  mov %rax, (%rdi)
2: pause
  jmp 2b
3: ud2
  .long 0x53053053                # RSEQ_SIG
4: mov $0xab0, %edi
  ret
kmod_rseq_step:
  inc %rdi
  ret
  .popsection
)");

constexpr uint64_t kAborted = 0xab0;

class Rseq : public testing::Test {
protected:
  void SetUp() override {
    if (__rseq_size == 0)
      GTEST_SKIP() << "the C library has registered no rseq";
    at_ = reinterpret_cast<uint64_t>(__builtin_thread_pointer()) + uint64_t(__rseq_offset) +
          offsetof(struct rseq, rseq_cs);
  }
  volatile uint64_t& field() { return *reinterpret_cast<volatile uint64_t*>(at_); }
  uint64_t at_ = 0; // rseq_cs of this thread
};

TEST_F(Rseq, PreemptedSectionIsAborted) {
  cpu_set_t before, first;
  sched_getaffinity(0, sizeof before, &before);
  CPU_ZERO(&first);
  CPU_SET(0, &first);
  sched_setaffinity(0, sizeof first, &first);
  Guest guest;
  Vcpu cpu(guest);
  std::atomic<bool> stop = false;
  std::thread other([&] { // on the same processor
    while (!stop)
      usleep(500);
  });
  for (int i = 0; i < 50; ++i) {
    cpu.prepare(Ring::k3, kmod_rseq_wait, at_);
    ASSERT_STREQ(name_of(cpu.go()), "SYSCALL");
    ASSERT_EQ(cpu.regs().rdi, kAborted);
    ASSERT_EQ(field(), 0u);
  }
  stop = true;
  other.join();
  sched_setaffinity(0, sizeof before, &before);
}

TEST_F(Rseq, SectionThatASignalInterruptsIsAborted) {
  static std::atomic<bool> came;
  came = false;
  Guest guest;
  Vcpu cpu(guest);
  signal(
      SIGALRM, +[](int) { came = true; });
  const itimerval soon{{}, {0, 20'000}};
  setitimer(ITIMER_REAL, &soon, nullptr);
  do { // preemption may end a section, too, before the signal comes
    cpu.prepare(Ring::k3, kmod_rseq_wait, at_);
    ASSERT_STREQ(name_of(cpu.go()), "SYSCALL");
    ASSERT_EQ(cpu.regs().rdi, kAborted);
  } while (!came);
}

TEST_F(Rseq, FlagOfTheHostsAbortsItToo) {
  Guest guest;
  Vcpu cpu(guest);
  cpu.prepare(Ring::k3, kmod_rseq_section[1]); // in it already
  field() = reinterpret_cast<uint64_t>(kmod_rseq_section);
  cpu.run().interrupt = 1;
  ASSERT_STREQ(name_of(cpu.go_once()), "INTR");
  EXPECT_EQ(cpu.regs().rip, kmod_rseq_section[3]);
  EXPECT_EQ(field(), 0u);
}

TEST_F(Rseq, CodeOutsideASectionIsLeftAlone) {
  Guest guest;
  Vcpu cpu(guest);
  cpu.prepare(Ring::k3, kmod_rseq_step, 6);
  field() = reinterpret_cast<uint64_t>(kmod_rseq_section); // as one that was left leaves it
  cpu.run().interrupt = 1;
  const uint64_t rip = cpu.regs().rip;
  ASSERT_STREQ(name_of(cpu.go_once()), "INTR");
  EXPECT_EQ(cpu.regs().rip, rip);
  ASSERT_STREQ(name_of(cpu.go()), "SYSCALL");
  EXPECT_EQ(cpu.regs().rdi, 7u);
  field() = 0;
}

} // namespace
} // namespace dune::test
