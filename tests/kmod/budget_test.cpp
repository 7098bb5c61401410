// What an event takes, in instructions, where the machine's clock counts them (scripts/vm qemu
// --icount): budgets against getting slower, no claims about hardware, whose exits are what costs
// there.
#include "tests/kmod/test_guest.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdio>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace dune::test {
namespace {

extern "C" {
void kmod_budget_handler();
void kmod_budget_int3s(uint64_t times);
void kmod_budget_calls(uint64_t times);
void kmod_budget_touch(uint64_t at);
}
asm(R"(
  .pushsection .text
  .globl kmod_budget_handler, kmod_budget_int3s, kmod_budget_calls, kmod_budget_touch
kmod_budget_handler:
  iretq
kmod_budget_int3s:
  int3
  dec %rdi
  jnz kmod_budget_int3s
  ret
kmod_budget_calls:                # getppid
  mov $110, %eax
  syscall
  dec %rdi
  jnz kmod_budget_calls
  ret
kmod_budget_touch:                # 256 pages
  mov $256, %ecx
1: movq $1, (%rdi)
  add $4096, %rdi
  dec %ecx
  jnz 1b
  ret
  .popsection
)");

uint64_t now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return uint64_t(t.tv_sec) * 1'000'000'000 + uint64_t(t.tv_nsec);
}

long raw(long number, long a = 0, long b = 0) {
  long result = number;
  asm volatile("syscall" : "+a"(result) : "D"(a), "S"(b), "d"(0) : "rcx", "r11", "memory");
  return result;
}

constexpr uint64_t kTimes = 20'000;

class Budget : public testing::Test {
protected:
  void SetUp() override {
    if (!getenv("KMOD_TEST_BUDGET"))
      GTEST_SKIP() << "the clock counts no instructions here";
  }
  template <class F> uint64_t each(uint64_t times, F&& f) {
    f(); // once to have everything in place
    const uint64_t begin = now();
    f();
    return (now() - begin) / times;
  }
  void tell(const char* what, uint64_t value) {
    printf("budget %s %lu\n", what, static_cast<unsigned long>(value));
  }
};

TEST_F(Budget, OfEvents) {
  Guest guest;
  guest.set_gate(3, reinterpret_cast<uint64_t>(kmod_budget_handler));
  Vcpu cpu(guest);

  const uint64_t trap = each(kTimes, [&] {
    cpu.prepare(Ring::k3, kmod_budget_int3s, kTimes);
    EXPECT_STREQ(name_of(cpu.go()), "SYSCALL");
  });
  const uint64_t native = each(kTimes, [] {
    for (uint64_t i = 0; i < kTimes; ++i)
      raw(SYS_getppid);
  });
  const uint64_t bounced = each(kTimes, [&] {
    cpu.prepare(Ring::k3, kmod_budget_calls, kTimes);
    dune_regs& r = cpu.regs();
    // Without the framework's assertions, which are as long as some of what is measured.
    for (uint64_t i = 0; i < kTimes;) {
      if (raw(SYS_ioctl, cpu.fd(), DUNE_RUN) != 0)
        FAIL() << "DUNE_RUN";
      if (cpu.run().exit_reason == DUNE_EXIT_INTR)
        continue;
      if (cpu.run().exit_reason != DUNE_EXIT_SYSCALL || r.rdi != kTimes - i)
        FAIL() << name_of(cpu.run().exit_reason) << " in call " << i;
      r.rax = uint64_t(raw(SYS_getppid));
      r.rip = r.rcx;
      r.rflags = r.r11;
      r.cs = kUserCode;
      r.ss = kUserData;
      ++i;
    }
  });
  // Behind this hypercall the guest goes on, with the call made by the module.
  Pages stub(kPage, 7);
  const uint8_t code[] = {0x0f, 0x01, uint8_t(is_intel() ? 0xc1 : 0xd9),
                          0x48, 0x0f, 0x07}; // sysretq
  memcpy(stub.data(), code, sizeof code);
  guest.cover(stub.at());
  dune_state state = cpu.state();
  state.lstar = stub.at();
  ASSERT_EQ(call(cpu.fd(), DUNE_SET_STATE, &state), 0);
  dune_dispatch dispatch{};
  dispatch.size = sizeof dispatch;
  dispatch.rip = stub.at(3);
  dispatch.calls[SYS_getppid / 64] = 1ull << SYS_getppid % 64;
  ASSERT_EQ(call(cpu.fd(), DUNE_SET_DISPATCH, &dispatch), 0);
  const uint64_t dispatched = each(kTimes, [&] {
    cpu.prepare(Ring::k3, kmod_budget_calls, kTimes);
    EXPECT_STREQ(name_of(cpu.go()), "SYSCALL");
    EXPECT_EQ(cpu.regs().rdi, 0u);
  });
  Pages pages(256 * kPage);
  madvise(pages.data(), pages.size(), MADV_NOHUGEPAGE);
  guest.cover_everything();
  const auto populated = [&] {
    madvise(pages.data(), pages.size(), MADV_DONTNEED);
    memset(pages.data(), 1, pages.size());
    cpu.prepare(Ring::k3, kmod_budget_touch, pages.at());
  };
  populated();
  uint64_t begin = now();
  EXPECT_STREQ(name_of(cpu.go()), "SYSCALL");
  const uint64_t fault = (now() - begin) / 256;
  populated();
  madvise(pages.data(), pages.size(), MADV_DONTNEED);
  begin = now();
  EXPECT_STREQ(name_of(cpu.go()), "SYSCALL");
  const uint64_t touch = (now() - begin) / 256;

  tell("int3", trap);
  tell("getppid", native);
  tell("bounced getppid", bounced);
  tell("getppid in the kernel", dispatched);
  tell("page that the host has", fault);
  tell("page that nobody has", touch);
  EXPECT_LE(trap, 10u);
  EXPECT_LE(10 * bounced, 49 * native);
  EXPECT_LE(dispatched, 2 * native);
  EXPECT_LE(fault, 2000u);
}

} // namespace
} // namespace dune::test
