// Threads and processes that come and go, with sites in their way and stops in the middle.
#include "tests/unit/inferior/driver.h"

#include <fmt/format.h>

namespace ddbg::engine::test {
namespace {

constexpr RecordSpec kNever{.ignore_count = ~uint64_t{0}};

struct Sites {
  RecordId a, b, end;
};
Sites set_sites(Traced& traced) {
  return {traced.record("hit_a", kNever), traced.record("hit_b", kNever),
          traced.record("finish_line")};
}
void compare_counts(Traced& traced, const Sites& sites) {
  EXPECT_EQ(traced.hits(sites.a), static_cast<uint64_t>(traced.read_variable("counted_a")));
  EXPECT_EQ(traced.hits(sites.b), static_cast<uint64_t>(traced.read_variable("counted_b")));
}

class Processes : public testing::TestWithParam<const char*> {};

TEST_P(Processes, RunAsWithoutTheAgent) {
  const std::string command = target_path("processes") + " " + GetParam();
  const Outcome native = run_native(command);
  Traced traced(command);
  ASSERT_TRUE(traced.ok());
  const Sites sites = set_sites(traced);
  EXPECT_EQ(traced.run_to_end([&](const Event& e) {
    EXPECT_EQ(e.fired, std::vector<RecordId>{sites.end});
    compare_counts(traced, sites);
    return ResumePlan{};
  }),
            native);
  EXPECT_EQ(traced.hits(sites.end), 1u);
}
INSTANTIATE_TEST_SUITE_P(Programs, Processes,
                         testing::Values("churn", "forks", "spawns", "exec_fail", "clone_vm"),
                         [](const auto& info) { return std::string(info.param); });

// The same with all threads stopped and resumed all the time.
class StoppedProcesses : public testing::TestWithParam<const char*> {};

TEST_P(StoppedProcesses, RunAsWithoutTheAgent) {
  const std::string command = target_path("processes") + " " + GetParam();
  const Outcome native = run_native(command);
  Traced traced(command);
  ASSERT_TRUE(traced.ok());
  const Sites sites = set_sites(traced);
  auto last = Clock::now();
  traced.interrupt = [&] {
    const bool due = seconds_since(last) > 0.002;
    if (due)
      last = Clock::now();
    return due;
  };
  int requested = 0;
  EXPECT_EQ(traced.run_to_end([&](const Event& e) {
    if (e.reason == StopReason::kRequested)
      ++requested;
    else
      compare_counts(traced, sites);
    // Among threads that come and go within microseconds a stop may still miss one.
    for (const ThreadView& v : traced.inferior().threads())
      if (GetParam() != std::string("churn")) {
        EXPECT_NE(v.status, ThreadStatus::kRunning);
      }
    return ResumePlan{};
  }),
            native);
  EXPECT_GE(requested, 1);
  EXPECT_EQ(traced.hits(sites.end), 1u);
}
INSTANTIATE_TEST_SUITE_P(Programs, StoppedProcesses,
                         testing::Values("churn", "forks", "spawns", "exec_fail"),
                         [](const auto& info) { return std::string(info.param); });

class Execs : public testing::TestWithParam<const char*> {};

TEST_P(Execs, NewImageGetsItsBreakpoints) {
  const std::string command = target_path("processes") + " " + GetParam();
  const Outcome native = run_native(command);
  Traced traced(command);
  ASSERT_TRUE(traced.ok());
  Sites sites = set_sites(traced);
  int execs = 0;
  uint64_t hits_before = 0;
  const pid_t pid = traced.inferior().pid();
  traced.on_exec = [&] {
    ++execs;
    EXPECT_EQ(traced.inferior().pid(), pid);
    sites = set_sites(traced);
    hits_before = traced.hits(sites.a);
  };
  EXPECT_EQ(traced.run_to_end([&](const Event& e) {
    EXPECT_EQ(e.fired, std::vector<RecordId>{sites.end});
    compare_counts(traced, sites);
    EXPECT_EQ(traced.read_variable("counted_a"), 1);
    return ResumePlan{};
  }),
            native);
  EXPECT_EQ(execs, 1);
  EXPECT_EQ(hits_before, 0u);
  EXPECT_EQ(traced.stops, 1);
}
INSTANTIATE_TEST_SUITE_P(Programs, Execs, testing::Values("exec_main", "exec_thread"),
                         [](const auto& info) { return std::string(info.param); });

// The thread pool is smaller than the number of threads: the rest runs, uncounted.
TEST(Threads, MoreThanThePoolRun) {
  const std::string command = target_path("processes") + " many";
  const Outcome native = run_native(command);
  Traced traced(command);
  ASSERT_TRUE(traced.ok());
  const Sites sites = set_sites(traced);
  EXPECT_EQ(traced.run_to_end([&](const Event&) { return ResumePlan{}; }), native);
  EXPECT_GE(traced.hits(sites.a), dune::session::kThreadSlots - 1 + 10);
  EXPECT_LT(traced.hits(sites.a), 1110u);
  EXPECT_EQ(traced.hits(sites.end), 1u);
}

TEST(Threads, ExitGroupAfterTheMainThreadLeft) {
  const std::string command = target_path("processes") + " exit_in_thread";
  const Outcome native = run_native(command);
  Traced traced(command);
  ASSERT_TRUE(traced.ok());
  const Sites sites = set_sites(traced);
  EXPECT_EQ(traced.run_to_end(), native);
  EXPECT_EQ(traced.hits(sites.a), 21u);
}

} // namespace
} // namespace ddbg::engine::test
