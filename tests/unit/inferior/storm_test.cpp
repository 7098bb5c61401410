// Everything at once: DDBG_TEST_STORM_SECONDS=600 by hand for the long one.
#include "tests/unit/inferior/driver.h"

#include <fmt/format.h>
#include <random>

namespace ddbg::engine::test {
namespace {

TEST(Storm, ThreadsSignalsForksExecAndChangingBreakpoints) {
  const char* given = getenv("DDBG_TEST_STORM_SECONDS");
  const double seconds = given ? atof(given) : 15;
  const std::string command = fmt::format("{} {}", target_path("storm"), seconds);
  Traced traced(command);
  ASSERT_TRUE(traced.ok());
  traced.give_up = seconds * 2 + 60;
  const RecordSpec never{.ignore_count = ~uint64_t{0}};
  RecordId a = traced.record("hit_a", never), b = traced.record("hit_b", never);
  RecordId end = traced.record("finish_line");
  std::mt19937 random(std::random_device{}());
  std::vector<RecordId> changing;
  int changes = 0, requested = 0, breakpoints = 0, ends = 0, execs = 0;

  traced.on_exec = [&] {
    ++execs;
    changing.clear();
    a = traced.record("hit_a", never);
    b = traced.record("hit_b", never);
    end = traced.record("finish_line");
  };
  // Called while the target runs: breakpoints come and go, and now and then everything is stopped.
  auto last_stop = Clock::now();
  traced.interrupt = [&] {
    if (ends == 0 && random() % 8 == 0) {
      ++changes;
      if (changing.size() < 4) {
        RecordSpec spec;
        if (random() % 2)
          spec.condition = condition_constant(random() % 4 == 0);
        if (random() % 2)
          spec.ignore_count = random() % 1000;
        changing.push_back(traced.record("hit_changing", spec));
      } else {
        EXPECT_TRUE(traced.inferior().remove_records(changing));
        changing.clear();
      }
    }
    const bool due = seconds_since(last_stop) > 0.01;
    if (due)
      last_stop = Clock::now();
    return due && random() % 2;
  };
  const Outcome got = traced.run_to_end([&](const Event& e) {
    for (const ThreadView& v : traced.inferior().threads())
      EXPECT_NE(v.status, ThreadStatus::kRunning) << "thread " << v.number;
    if (e.reason == StopReason::kRequested) {
      ++requested;
    } else if (std::count(e.fired.begin(), e.fired.end(), end)) {
      ++ends;
      EXPECT_EQ(traced.hits(a), static_cast<uint64_t>(traced.read_variable("counted_a")));
      EXPECT_EQ(traced.hits(b), static_cast<uint64_t>(traced.read_variable("counted_b")));
    } else {
      EXPECT_EQ(e.reason, StopReason::kBreakpoint);
      ++breakpoints;
      if (changing.size() > 2) {
        EXPECT_TRUE(traced.inferior().remove_records(changing));
        changing.clear();
      }
    }
    return ResumePlan{};
  });
  EXPECT_EQ(got.output, "errors 0, alarms came\nthe new image\n");
  EXPECT_EQ(got.status, "exit 9");
  EXPECT_EQ(ends, 2);
  EXPECT_EQ(execs, 1);
  EXPECT_GT(requested, 10);
  EXPECT_GT(breakpoints, 10);
  fmt::print("{} breakpoint stops, {} requested stops, {} changes of breakpoints\n", breakpoints,
             requested, changes);
}

} // namespace
} // namespace ddbg::engine::test
