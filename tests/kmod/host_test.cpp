// What a guest must not take from the host: its breakpoints, its time.
#include "tests/kmod/test_guest.h"

#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <future>
#include <linux/hw_breakpoint.h>
#include <linux/perf_event.h>
#include <string>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>

namespace dune::test {
namespace {

using namespace std::chrono_literals;

uint64_t twice(uint64_t x) { return 2 * x; }
[[gnu::noinline]] void called_at_the_end() { asm volatile(""); }

uint64_t address_of_kernel(const std::string& name) {
  std::ifstream symbols("/proc/kallsyms");
  for (std::string address, type, symbol, rest; symbols >> address >> type >> symbol;) {
    std::getline(symbols, rest);
    if (symbol == name)
      return std::stoull(address, nullptr, 16);
  }
  return 0;
}

// A breakpoint of the thread's own is on while the guest's addresses come into the registers.
TEST(Host, BreakpointIsNotMovedToAnAddressOfTheKernel) {
  const uint64_t address = address_of_kernel(is_intel() ? "vmx_enter" : "svm_enter");
  ASSERT_NE(address, 0u);
  perf_event_attr attributes{};
  attributes.size = sizeof attributes;
  attributes.type = PERF_TYPE_BREAKPOINT;
  attributes.bp_type = HW_BREAKPOINT_X;
  attributes.bp_addr = reinterpret_cast<uint64_t>(called_at_the_end);
  attributes.bp_len = sizeof(long);
  const Descriptor event(int(syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0)));
  ASSERT_GE(event.get(), 0);

  Guest guest;
  Vcpu cpu(guest);
  dune_debug debug{};
  debug.size = sizeof debug;
  for (auto& at : debug.address)
    at = address;
  debug.dr7 = 1; // one of them, to execute
  ASSERT_EQ(call(cpu.fd(), DUNE_SET_DEBUG, &debug), 0);
  const auto hits = [&] {
    uint64_t count = ~0ull;
    EXPECT_EQ(read(event.get(), &count, sizeof count), ssize_t(sizeof count));
    return count;
  };
  for (int i = 0; i < 3; ++i) {
    cpu.prepare(Ring::k3, twice, 1);
    ASSERT_STREQ(name_of(cpu.go()), "SYSCALL");
  }
  EXPECT_EQ(hits(), 0u);
  called_at_the_end();
  EXPECT_EQ(hits(), 1u); // and it is there again
}

// Ends the use of a function tracer, for which each task has to have been in user mode.
void trace_and_stop(const std::string& tracefs) {
  const std::string instance = tracefs + "/instances/kmod_test";
  mkdir(instance.c_str(), 0700);
  std::ofstream(instance + "/set_ftrace_filter") << "kernel_clone" << std::flush;
  std::ofstream(instance + "/current_tracer") << "function" << std::flush;
  std::ofstream(instance + "/current_tracer") << "nop" << std::flush;
  rmdir(instance.c_str());
}

std::atomic<uint64_t> g_computed;
uint64_t compute(uint64_t) {
  for (;;)
    g_computed.fetch_add(1, std::memory_order_relaxed);
}

// As no program does that computes: RCU takes what interrupts it for the quiet that it waits for.
TEST(Host, GuestThatComputesHoldsNobodyUp) {
  char folder[] = "/tmp/kmod_test_XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  ASSERT_EQ(mount("tracefs", folder, "tracefs", 0, nullptr), 0);
  Guest guest;
  Vcpu cpu(guest);
  cpu.prepare(Ring::k3, compute);
  std::promise<void> stopped;
  std::atomic<bool> ended = false;
  std::thread tracer([&] {
    while (!g_computed)
      usleep(1000);
    trace_and_stop(folder);
    stopped.set_value();
  });
  // Nobody wakes meanwhile: a run that ends for the scheduler's sake comes to user mode for a
  // moment.
  std::thread clock([&] {
    std::future<void> stop = stopped.get_future();
    const bool in_time = stop.wait_for(20s) == std::future_status::ready;
    EXPECT_TRUE(in_time);
    ended = true;
    do
      __atomic_store_n(&cpu.run().interrupt, 1, __ATOMIC_RELAXED);
    while (stop.wait_for(10ms) != std::future_status::ready);
  });
  while (!ended)
    EXPECT_STREQ(name_of(cpu.go_once()), "INTR");
  clock.join();
  tracer.join();
  umount(folder);
  rmdir(folder);
}

} // namespace
} // namespace dune::test
