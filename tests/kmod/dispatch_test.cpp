// System calls that the module makes itself (dispatch=1), and that whoever watches a thread sees
// them all the same. Where the module is loaded without it, that it makes none.
#include "tests/kmod/test_guest.h"
#include "tests/kmod/watchers.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <thread>
#include <time.h>
#include <unistd.h>

namespace dune::test {
namespace {

extern "C" {
void kmod_dispatch_calls(uint64_t times); // of getppid; rdi counts down, rsi adds the results up
void kmod_dispatch_one(uint64_t number);  // its result is in rdi then
void kmod_dispatch_two(uint64_t address); // clock_gettime there, and the result
void kmod_dispatch_for_ever(uint64_t address); // counts the calls there
void kmod_dispatch_flags(); // rdi: those behind a call in front of which CF, DF and AC were set
}
asm(R"(
  .pushsection .text
  .globl kmod_dispatch_calls, kmod_dispatch_one, kmod_dispatch_two, kmod_dispatch_for_ever
  .globl kmod_dispatch_flags
kmod_dispatch_calls:
  xor %esi, %esi
1: mov $110, %eax                 # getppid
  syscall
  add %rax, %rsi
  dec %rdi
  jnz 1b
  ret
kmod_dispatch_one:
  mov %rdi, %rax
  syscall
  mov %rax, %rdi
  ret
kmod_dispatch_two:
  mov %rdi, %rsi
  mov $1, %edi                    # CLOCK_MONOTONIC
  mov $228, %eax
  syscall
  mov %rax, %rdi
  ret
kmod_dispatch_for_ever:
  mov $110, %eax
  syscall
  incq (%rdi)
  jmp kmod_dispatch_for_ever
kmod_dispatch_flags:
  pushfq
  orq $0x40401, (%rsp)
  popfq
  mov $110, %eax
  syscall
  pushfq
  pop %rdi
  pushq $2
  popfq
  ret
  .popsection
)");

constexpr uint64_t kAll = ~uint64_t{0};

volatile uint64_t calls_made; // by kmod_dispatch_for_ever in this process
uint64_t for_calls_made() { return reinterpret_cast<uint64_t>(&calls_made); }

// A guest whose SYSCALL goes to a hypercall, and back.
class CallingGuest {
public:
  CallingGuest() : stub_(kPage, 7), cpu_(guest_) {
    const uint8_t code[] = {0x0f, 0x01, uint8_t(is_intel() ? 0xc1 : 0xd9),
                            0x48, 0x0f, 0x07}; // sysretq
    memcpy(stub_.data(), code, sizeof code);
    memcpy(stub_.data() + 16, code, sizeof code);
    guest_.cover(stub_.at());
    dune_state state = cpu_.state();
    state.lstar = stub_.at();
    if (call(cpu_.fd(), DUNE_SET_STATE, &state) != 0)
      _exit(9);
  }
  long allow(uint64_t calls) { return allow(calls, stub_.at(3)); }
  long allow(uint64_t calls, uint64_t rip, uint32_t flags = 0) {
    dune_dispatch d{};
    d.size = sizeof d;
    d.flags = flags;
    d.rip = rip;
    for (__u64& word : d.calls)
      word = calls;
    return call(cpu_.fd(), DUNE_SET_DISPATCH, &d);
  }
  uint64_t stub(uint64_t offset) const { return stub_.at(offset); }
  Guest& guest() { return guest_; }
  Vcpu& cpu() { return cpu_; }
  dune_regs& regs() { return cpu_.regs(); }
  // Is it behind the hypercall, so that the host is to make a call?
  bool calls_the_host() { return regs().rip == stub_.at(3); }
  // Makes the call that the guest has bounced, as it goes on.
  void make_the_call() {
    long result = long(regs().rax);
    asm volatile("syscall"
                 : "+a"(result)
                 : "D"(regs().rdi), "S"(regs().rsi), "d"(regs().rdx)
                 : "rcx", "r11", "memory");
    regs().rax = uint64_t(result);
  }

private:
  Pages stub_;
  Guest guest_;
  Vcpu cpu_;
};

class Dispatch : public testing::Test {
protected:
  void SetUp() override {
    Descriptor vm(open_dune());
    ASSERT_GE(vm.get(), 0);
    if (!(info_of(vm.get()).capabilities & DUNE_CAP_DISPATCH))
      GTEST_SKIP() << "the module is loaded without dispatch=1";
  }
};

TEST(DispatchIsOff, AndNothingSwitchesItOn) {
  CallingGuest g;
  if (info_of(g.guest().fd()).capabilities & DUNE_CAP_DISPATCH)
    GTEST_SKIP() << "the module is loaded with dispatch=1";
  EXPECT_EQ(g.allow(kAll), -EOPNOTSUPP);
  g.cpu().prepare(Ring::k3, kmod_dispatch_one, SYS_getppid);
  ASSERT_STREQ(name_of(g.cpu().go()), "SYSCALL");
  EXPECT_TRUE(g.calls_the_host());
  EXPECT_EQ(g.cpu().run().dispatched, 0u);
}

TEST_F(Dispatch, CallsAreMadeWithoutLeavingTheRun) {
  CallingGuest g;
  ASSERT_EQ(g.allow(kAll), 0);
  constexpr uint64_t kTimes = 1000;
  g.cpu().prepare(Ring::k3, kmod_dispatch_calls, kTimes);
  ASSERT_STREQ(name_of(g.cpu().go()), "SYSCALL");
  EXPECT_FALSE(g.calls_the_host()); // it has returned
  EXPECT_EQ(g.regs().rdi, 0u);
  EXPECT_EQ(g.regs().rsi, kTimes * uint64_t(getppid()));
  EXPECT_EQ(g.cpu().run().dispatched, kTimes);
}

TEST_F(Dispatch, EachCallOfTheListGivesWhatTheKernelGives) {
  CallingGuest g;
  ASSERT_EQ(g.allow(kAll), 0);
  // Without arguments, or whose arguments are zero.
  const int numbers[] = {SYS_getpid,  SYS_getuid,  SYS_getgid, SYS_geteuid,    SYS_getegid,
                         SYS_getppid, SYS_getpgrp, SYS_gettid, SYS_sched_yield};
  uint64_t made = 0;
  for (const int number : numbers) {
    g.cpu().prepare(Ring::k3, kmod_dispatch_one, uint64_t(number));
    ASSERT_STREQ(name_of(g.cpu().go()), "SYSCALL");
    EXPECT_FALSE(g.calls_the_host()) << number;
    EXPECT_EQ(long(g.regs().rdi), syscall(number)) << number;
    EXPECT_EQ(g.cpu().run().dispatched, ++made) << number;
  }
  // One that writes to the process's memory, and one that it cannot write to.
  static timespec t, before, after;
  clock_gettime(CLOCK_MONOTONIC, &before);
  g.cpu().prepare(Ring::k3, kmod_dispatch_two, reinterpret_cast<uint64_t>(&t));
  ASSERT_STREQ(name_of(g.cpu().go()), "SYSCALL");
  clock_gettime(CLOCK_MONOTONIC, &after);
  EXPECT_EQ(g.regs().rdi, 0u);
  EXPECT_GE(t.tv_sec, before.tv_sec);
  EXPECT_LE(t.tv_sec, after.tv_sec);
  g.cpu().prepare(Ring::k3, kmod_dispatch_two, 0xffffffff81000000);
  ASSERT_STREQ(name_of(g.cpu().go()), "SYSCALL");
  EXPECT_EQ(long(g.regs().rdi), -EFAULT);
  EXPECT_EQ(g.cpu().run().dispatched, made + 2);
}

TEST_F(Dispatch, WhatIsNotAllowedIsBounced) {
  CallingGuest g;
  const auto bounces = [&](uint64_t number) {
    g.cpu().prepare(Ring::k3, kmod_dispatch_one, number);
    EXPECT_STREQ(name_of(g.cpu().go()), "SYSCALL");
    EXPECT_EQ(g.regs().rax, g.calls_the_host() ? number : g.regs().rax);
    return g.calls_the_host();
  };
  EXPECT_TRUE(bounces(SYS_getppid)); // nothing is set yet
  ASSERT_EQ(g.allow(0), 0);
  EXPECT_TRUE(bounces(SYS_getppid));
  ASSERT_EQ(g.allow(kAll), 0);
  EXPECT_FALSE(bounces(SYS_getppid));
  // The user allows them, the module does not have them.
  for (const uint64_t number :
       {SYS_read, SYS_write, SYS_fork, SYS_execve, SYS_exit, SYS_rt_sigreturn, SYS_ioctl,
        SYS_nanosleep, SYS_futex, SYS_seccomp, 511, 512})
    EXPECT_TRUE(bounces(number)) << number;
  EXPECT_TRUE(bounces(~uint64_t{0}));
  EXPECT_TRUE(bounces(uint64_t{1} << 32 | SYS_getppid));
  // Another hypercall is none of these, and none of ring 3 is.
  ASSERT_EQ(g.allow(kAll, g.stub(16 + 3)), 0);
  EXPECT_TRUE(bounces(SYS_getppid));
  ASSERT_EQ(g.allow(kAll), 0);
  g.cpu().prepare(Ring::k3, g.stub(0));
  g.regs().rax = SYS_getppid;
  ASSERT_STREQ(name_of(g.cpu().go()), "SYSCALL");
  EXPECT_TRUE(g.calls_the_host());
  EXPECT_EQ(g.regs().rax, uint64_t{SYS_getppid});
}

// The stub's sysretq, which would lead to ring 3, is not reached.
TEST_F(Dispatch, ReturnsToRing0WithTheFlagsThatItHad) {
  CallingGuest g;
  ASSERT_EQ(g.allow(kAll, g.stub(3), DUNE_DISPATCH_RETURN), 0);
  constexpr uint64_t kTimes = 1000;
  g.cpu().prepare(Ring::k0, kmod_dispatch_calls, kTimes);
  ASSERT_STREQ(name_of(g.cpu().go()), "SYSCALL");
  EXPECT_FALSE(g.calls_the_host());
  EXPECT_EQ(g.regs().rsi, kTimes * uint64_t(getppid()));
  EXPECT_EQ(g.cpu().run().dispatched, kTimes);
  EXPECT_EQ(g.regs().cs & 3, 0u);
  g.cpu().prepare(Ring::k0, kmod_dispatch_flags);
  ASSERT_STREQ(name_of(g.cpu().go()), "SYSCALL");
  EXPECT_EQ(g.regs().rdi & 0x40401, 0x40401u);
  EXPECT_EQ(g.cpu().run().dispatched, kTimes + 1);
}

TEST_F(Dispatch, ReturnsOnlyToWhereAGuestMayBe) {
  CallingGuest g;
  ASSERT_EQ(g.allow(kAll, g.stub(3), DUNE_DISPATCH_RETURN), 0);
  struct {
    uint64_t rcx, r11;
  } const wrong[] = {{uint64_t{1} << 63, 2},
                     {uint64_t{1} << 47, 2},
                     {g.stub(0), 1 << 17}, // VM
                     {g.stub(0), 1 << 15},
                     {g.stub(0), uint64_t{1} << 32}};
  for (const auto& w : wrong) {
    g.cpu().prepare(Ring::k0, g.stub(0));
    g.regs().rax = SYS_getppid;
    g.regs().rcx = w.rcx;
    g.regs().r11 = w.r11;
    ASSERT_STREQ(name_of(g.cpu().go()), "SYSCALL");
    EXPECT_TRUE(g.calls_the_host()) << std::hex << w.rcx << ' ' << w.r11;
    EXPECT_EQ(g.regs().rax, uint64_t{SYS_getppid}); // it has not been made
  }
  EXPECT_EQ(g.cpu().run().dispatched, 0u);
}

// As behind SYSRET: the instruction behind the call is the first that the flag traps.
TEST_F(Dispatch, ReturnsIntoASingleStep) {
  CallingGuest g;
  ASSERT_EQ(g.allow(kAll, g.stub(3), DUNE_DISPATCH_RETURN), 0);
  dune_state state = g.cpu().state();
  state.lstar = g.stub(0);
  state.exceptions = 1 << 1;
  ASSERT_EQ(call(g.cpu().fd(), DUNE_SET_STATE, &state), 0);
  g.cpu().prepare(Ring::k0, g.stub(0));
  g.regs().rax = SYS_getppid;
  g.regs().rcx = reinterpret_cast<uint64_t>(kmod_dispatch_one); // mov %rdi, %rax
  g.regs().r11 = 0x102;
  ASSERT_STREQ(name_of(g.cpu().go()), "EXCEPTION");
  EXPECT_EQ(g.regs().rip, reinterpret_cast<uint64_t>(kmod_dispatch_one) + 3);
  EXPECT_EQ(g.cpu().run().dispatched, 1u);
}

TEST_F(Dispatch, ArgumentsAreChecked) {
  CallingGuest g;
  dune_dispatch d{};
  d.size = sizeof d;
  d.flags = 2;
  EXPECT_EQ(call(g.cpu().fd(), DUNE_SET_DISPATCH, &d), -EINVAL);
  d.flags = 0;
  d.reserved[3] = 1;
  EXPECT_EQ(call(g.cpu().fd(), DUNE_SET_DISPATCH, &d), -EINVAL);
  d.size = 8;
  EXPECT_EQ(call(g.cpu().fd(), DUNE_SET_DISPATCH, &d), -EINVAL);
  EXPECT_EQ(call(g.cpu().fd(), DUNE_SET_DISPATCH, nullptr), -EFAULT);
}

TEST_F(Dispatch, SignalEndsARunThatOnlyCalls) {
  const int status = status_of_child(
      [] {
        CallingGuest g;
        g.allow(kAll);
        g.cpu().prepare(Ring::k3, kmod_dispatch_for_ever, for_calls_made());
        g.cpu().go();
      },
      300);
  EXPECT_TRUE(WIFSIGNALED(status)) << status;
}

// --- who watches
// ----------------------------------------------------------------------------------

TEST_F(Dispatch, FilterThatIsInstalledMidwayRefuses) {
  const int status = status_of_child([] {
    CallingGuest g;
    g.allow(kAll);
    const auto one = [&] {
      g.cpu().prepare(Ring::k3, kmod_dispatch_one, SYS_getppid);
      if (g.cpu().go() != DUNE_EXIT_SYSCALL)
        _exit(2);
      const bool bounced = g.calls_the_host();
      if (bounced) {
        g.make_the_call();
        if (g.cpu().go() != DUNE_EXIT_SYSCALL)
          _exit(3);
      }
      return bounced;
    };
    if (one() || long(g.regs().rdi) != getppid())
      _exit(4);
    if (filter_getppid(SECCOMP_RET_ERRNO | 77) != 0)
      _exit(5);
    if (!one() || long(g.regs().rdi) != -77 || g.cpu().run().dispatched != 1)
      _exit(6);
  });
  EXPECT_EQ(status, 0) << WEXITSTATUS(status);
}

TEST_F(Dispatch, FilterThatIsInstalledMidwayKills) {
  const int status = status_of_child([] {
    CallingGuest g;
    g.allow(kAll);
    g.cpu().prepare(Ring::k3, kmod_dispatch_calls, 10);
    if (g.cpu().go() != DUNE_EXIT_SYSCALL || g.calls_the_host())
      _exit(2);
    filter_getppid(SECCOMP_RET_KILL_PROCESS);
    g.cpu().prepare(Ring::k3, kmod_dispatch_calls, 10);
    if (g.cpu().go() != DUNE_EXIT_SYSCALL || !g.calls_the_host())
      _exit(3);
    g.make_the_call();
  });
  ASSERT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);
  EXPECT_EQ(WTERMSIG(status), SIGSYS);
}

TEST_F(Dispatch, FilterThatIsInstalledMidwayAsks) {
  const int status = status_of_child([] {
    std::atomic<int> listener = -1;
    std::thread guest([&] {
      CallingGuest g;
      g.allow(kAll);
      g.cpu().prepare(Ring::k3, kmod_dispatch_one, SYS_getppid);
      if (g.cpu().go() != DUNE_EXIT_SYSCALL || g.calls_the_host())
        _exit(2);
      listener = filter_getppid(SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER);
      g.cpu().prepare(Ring::k3, kmod_dispatch_one, SYS_getppid);
      if (g.cpu().go() != DUNE_EXIT_SYSCALL || !g.calls_the_host())
        _exit(3);
      g.make_the_call();
      if (g.cpu().go() != DUNE_EXIT_SYSCALL || g.regs().rdi != 4242)
        _exit(4);
    });
    while (listener < 0)
      usleep(1000);
    if (!answer_one(listener, 4242))
      _exit(5);
    guest.join();
  });
  EXPECT_EQ(status, 0) << WEXITSTATUS(status);
}

// By another thread, while this one never leaves the kernel and its guest.
TEST_F(Dispatch, FilterForAllThreadsReachesOneThatOnlyCalls) {
  const int status = status_of_child([] {
    std::atomic<bool> bounced = false;
    std::thread guest([&] {
      CallingGuest g;
      g.allow(kAll);
      g.cpu().prepare(Ring::k3, kmod_dispatch_for_ever, for_calls_made());
      bounced =
          g.cpu().go() == DUNE_EXIT_SYSCALL && g.calls_the_host() && g.cpu().run().dispatched > 0;
    });
    while (calls_made < 10)
      usleep(1000);
    if (bounced || filter_getppid(SECCOMP_RET_ALLOW, SECCOMP_FILTER_FLAG_TSYNC) != 0)
      _exit(2);
    guest.join();
    _exit(bounced ? 0 : 3);
  });
  EXPECT_EQ(status, 0) << WEXITSTATUS(status);
}

TEST_F(Dispatch, TracerThatIsAttachedMidwaySeesEachCall) {
  Pages shared(kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  volatile uint64_t& made = *shared.words();
  const pid_t child = fork();
  if (child == 0) {
    CallingGuest g;
    g.allow(kAll);
    g.guest().cover(shared.at());
    g.cpu().prepare(Ring::k3, kmod_dispatch_for_ever, shared.at());
    for (;;)
      if (g.cpu().go() == DUNE_EXIT_SYSCALL && g.calls_the_host())
        g.make_the_call();
  }
  while (made < 100) // nobody has seen them
    usleep(1000);
  ASSERT_EQ(ptrace(PTRACE_SEIZE, child, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL), 0);
  ASSERT_EQ(ptrace(PTRACE_INTERRUPT, child, 0, 0), 0);
  int status = 0, calls = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  for (int stops = 0; stops < 40; ++stops) {
    ASSERT_EQ(ptrace(PTRACE_SYSCALL, child, 0, 0), 0);
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSTOPPED(status));
    user_regs_struct regs;
    ASSERT_EQ(ptrace(PTRACE_GETREGS, child, 0, &regs), 0);
    calls += WSTOPSIG(status) == (SIGTRAP | 0x80) && regs.orig_rax == SYS_getppid;
  }
  EXPECT_GE(calls, 10); // entry and exit of each, and between them those of DUNE_RUN
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
}

TEST_F(Dispatch, TracepointSeesEachCall) {
  const char* folder = "/tmp/tracefs";
  mkdir(folder, 0700);
  ASSERT_EQ(mount("tracefs", folder, "tracefs", 0, nullptr), 0);
  const std::string enable = std::string(folder) + "/events/syscalls/sys_enter_getppid/enable";
  CallingGuest g;
  ASSERT_EQ(g.allow(kAll), 0);
  const auto bounces = [&] {
    g.cpu().prepare(Ring::k3, kmod_dispatch_one, SYS_getppid);
    EXPECT_STREQ(name_of(g.cpu().go()), "SYSCALL");
    return g.calls_the_host();
  };
  EXPECT_FALSE(bounces());
  std::ofstream(enable) << 1 << std::flush;
  EXPECT_TRUE(bounces());
  std::ofstream(enable) << 0 << std::flush;
  EXPECT_FALSE(bounces());
  umount(folder);
}

} // namespace
} // namespace dune::test
