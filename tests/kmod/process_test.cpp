// What happens to processes: filters, other processes' hands, a kill or an exec at any moment.
#include "tests/kmod/test_guest.h"
#include "tests/kmod/watchers.h"
#include "tests/open_under_signals.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <random>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace dune::test {
namespace {

extern "C" uint64_t kmod_process_call(uint64_t number); // in the guest; its result is in rdi then
asm(R"(
  .pushsection .text
  .globl kmod_process_call
kmod_process_call:
  mov %rdi, %rax
  syscall
  mov %rax, %rdi
  ret
  .popsection
)");

// The guest calls getppid, and the host makes the call: what came of it.
long getppid_of_guest(Vcpu& cpu) {
  cpu.prepare(Ring::k3, kmod_process_call, SYS_getppid);
  if (cpu.go() != DUNE_EXIT_SYSCALL || cpu.regs().cs != kKernelCode)
    _exit(100);
  dune_regs& r = cpu.regs();
  long result = SYS_getppid;
  asm volatile("syscall" : "+a"(result) : : "rcx", "r11", "memory");
  r.rax = uint64_t(result);
  r.rip = r.rcx;
  r.rflags = r.r11;
  r.cs = kUserCode;
  r.ss = kUserData;
  if (cpu.go() != DUNE_EXIT_SYSCALL)
    _exit(101);
  return long(r.rdi);
}

TEST(Confined, FilterRefusesTheGuestsCall) {
  const int status = status_of_child([] {
    Guest guest;
    Vcpu cpu(guest);
    if (getppid_of_guest(cpu) != getppid() || filter_getppid(SECCOMP_RET_ERRNO | 77) != 0)
      _exit(1);
    _exit(getppid_of_guest(cpu) == -77 ? 0 : 2);
  });
  EXPECT_EQ(status, 0) << WEXITSTATUS(status);
}

TEST(Confined, FilterKillsForTheGuestsCall) {
  const int status = status_of_child([] {
    Guest guest;
    Vcpu cpu(guest);
    filter_getppid(SECCOMP_RET_KILL_PROCESS);
    getppid_of_guest(cpu);
  });
  ASSERT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);
  EXPECT_EQ(WTERMSIG(status), SIGSYS);
}

TEST(Confined, SupervisorAnswersTheGuestsCall) {
  const int status = status_of_child([] {
    std::atomic<int> listener = -1;
    std::thread thread([&] {
      Guest guest;
      Vcpu cpu(guest);
      listener = filter_getppid(SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER);
      if (getppid_of_guest(cpu) != 4243)
        _exit(1);
    });
    while (listener < 0)
      usleep(1000);
    if (!answer_one(listener, 4243))
      _exit(2);
    thread.join();
  });
  EXPECT_EQ(status, 0) << WEXITSTATUS(status);
}

TEST(Confined, PortsOfTheHostsAreNotTheGuests) {
  const int status = status_of_child([] {
    if (ioperm(0x80, 1, 1) != 0)
      _exit(1);
    asm volatile("outb %%al, $0x80" : : "a"(0)); // here it may
    Pages code(kPage, 7);
    code.data()[0] = 0xe6; // out %al, $0x80
    code.data()[1] = 0x80;
    Guest guest;
    Vcpu cpu(guest);
    for (const Ring ring : {Ring::k0, Ring::k3}) {
      cpu.prepare(ring, code.at());
      if (cpu.go() != DUNE_EXIT_SYSCALL || guest.exception_at(cpu.regs().rip) != 13)
        _exit(2);
      cpu.prepare(ring, code.at());
      cpu.regs().rflags |= 0x3000; // IOPL
      if (cpu.go() != DUNE_EXIT_SYSCALL || guest.exception_at(cpu.regs().rip) != 13)
        _exit(3);
    }
  });
  EXPECT_EQ(status, 0) << WEXITSTATUS(status);
}

TEST(Processes, OpenOutlastsSignals) {
  expect_to_open_under_signals([] { return Descriptor(open_dune()).get() >= 0; });
}

TEST(Processes, DescriptorsOfAnotherDoNothing) {
  Pages shared(kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  auto* fds = reinterpret_cast<volatile int*>(shared.data());
  const pid_t child = fork();
  if (child == 0) {
    Guest guest;
    Vcpu cpu(guest);
    fds[1] = cpu.fd();
    fds[0] = guest.fd();
    for (;;)
      pause();
  }
  while (fds[0] == 0)
    usleep(1000);
  {
    Descriptor pidfd(int(syscall(SYS_pidfd_open, child, 0)));
    Descriptor vm(int(syscall(SYS_pidfd_getfd, pidfd.get(), fds[0], 0)));
    Descriptor cpu(int(syscall(SYS_pidfd_getfd, pidfd.get(), fds[1], 0)));
    ASSERT_GE(cpu.get(), 0);
    for (const bool alive : {true, false}) {
      dune_info info{};
      info.size = sizeof info;
      EXPECT_EQ(call(vm.get(), DUNE_GET_INFO, &info), -EXDEV);
      EXPECT_EQ(call(vm.get(), DUNE_SET_PRIVATE, &info), -EXDEV);
      EXPECT_EQ(call(vm.get(), DUNE_FORGET), -EXDEV);
      EXPECT_EQ(call(vm.get(), DUNE_CREATE_VCPU, &info), -EXDEV);
      EXPECT_EQ(call(cpu.get(), DUNE_RUN), -EXDEV);
      EXPECT_EQ(call(cpu.get(), DUNE_SET_STATE, &info), -EXDEV);
      EXPECT_EQ(mmap(nullptr, kPage, PROT_READ, MAP_SHARED, cpu.get(), 0), MAP_FAILED);
      if (alive) { // and when their process is gone
        kill(child, SIGKILL);
        waitpid(child, nullptr, 0);
      }
    }
  }
}

// All that a process can be about when it is killed: in the guest, in faults, making and dropping
// vCPUs and private pages.
[[noreturn]] void busy_process(uint64_t seed) {
  Guest guest;
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&, t] {
      std::mt19937_64 random(seed * 4 + uint64_t(t));
      Pages pages(64 * kPage);
      guest.cover(pages.at());
      dune_private_range range{};
      range.size = sizeof range;
      range.gpa = (1ull << info_of(guest.fd()).gpa_bits) - kGigabyte + uint64_t(t) * 1024 * kPage;
      range.length = (1 + random() % 64) * kPage;
      for (;;) {
        Vcpu cpu(guest);
        for (int i = 0; i < 20; ++i) {
          cpu.prepare(
              Ring::k3, +[](uint64_t at) { *reinterpret_cast<volatile uint64_t*>(at) = at; },
              pages.at(random() % 64 * kPage));
          cpu.go();
          if (random() % 4 == 0)
            madvise(pages.data(), pages.size(), MADV_DONTNEED);
          if (random() % 8 == 0)
            call(guest.fd(), DUNE_FORGET);
          range.flags = random() % 2 ? uint32_t{DUNE_PRIVATE_REMOVE} : 0;
          call(guest.fd(), DUNE_SET_PRIVATE, &range);
        }
      }
    });
  for (;;)
    pause();
}

TEST(Processes, KillAtAnyMomentLeavesNothing) {
  const int rounds = getenv("KMOD_TEST_KILLS") ? atoi(getenv("KMOD_TEST_KILLS")) : 10;
  std::mt19937_64 random(7);
  for (int i = 0; i < rounds; ++i) {
    const int status = status_of_child([&] { busy_process(uint64_t(i)); }, int(random() % 60));
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
  }
  Guest guest;
  Vcpu cpu(guest);
  EXPECT_EQ(getppid_of_guest(cpu), getppid());
}

TEST(Processes, ExecWhileThreadsAreInTheGuest) {
  for (int i = 0; i < 5; ++i) {
    const int status = status_of_child([&] {
      static Guest guest;
      for (int t = 0; t < 3; ++t)
        std::thread([] {
          Vcpu cpu(guest);
          cpu.prepare(
              Ring::k3, +[](uint64_t) {
                for (;;)
                  asm volatile("pause");
              });
          cpu.go();
        }).detach();
      usleep(useconds_t(5000 * i));
      execl("/bin/true", "true", nullptr);
      _exit(1);
    });
    EXPECT_EQ(status, 0);
  }
}

} // namespace
} // namespace dune::test
