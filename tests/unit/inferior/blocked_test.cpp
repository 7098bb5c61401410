// A stop is not to be noticed by threads that are in the kernel: no EINTR, no short count, no time
// lost or gained but that of the stop itself.
#include "tests/unit/inferior/driver.h"

#include <algorithm>
#include <csignal>
#include <fmt/format.h>
#include <sstream>
#include <thread>

namespace ddbg::engine::test {
namespace {

struct Row {
  std::string result; // return value and errno
  double milliseconds = 0;
};

std::map<std::string, Row> parse(const std::string& output) {
  std::map<std::string, Row> rows;
  std::istringstream text(output);
  std::string name, result, error;
  double ms;
  while (text >> name >> result >> error >> ms)
    rows[name] = {result + " " + error, ms};
  return rows;
}

TEST(BlockedThreads, DoNotNoticeStops) {
  const char* given = getenv("DDBG_TEST_BLOCKED_MS");
  const std::string limit = given ? given : "4000"; // of the calls, milliseconds
  const std::string command = target_path("blocked") + " " + limit;
  const Outcome native = run_native(command);
  Traced traced(command);
  ASSERT_TRUE(traced.ok());
  traced.run_to_main();
  auto& inferior = traced.inferior();
  std::vector<double> times;
  std::optional<Event> last;
  double stopped = 0;
  ASSERT_TRUE(inferior.resume({}));
  const auto started = Clock::now();
  while (!last) {
    ASSERT_LT(seconds_since(started), 60) << "the target did not come to an end";
    // Let it run for a while that differs from round to round.
    const auto until = Clock::now() + std::chrono::microseconds(times.size() * 37 % 2000);
    while (Clock::now() < until && inferior.alive())
      __builtin_ia32_pause();
    const auto begin = Clock::now();
    auto ok = inferior.stop();
    times.push_back(seconds_since(begin));
    stopped += times.back();
    ASSERT_TRUE(ok) << ok.error().message;
    // What came instead of, or with, the stop is the next event.
    ASSERT_TRUE(inferior.resume({}));
    if (!inferior.alive()) {
      auto e = inferior.wait();
      ASSERT_TRUE(e) << e.error().message;
      last = std::move(*e);
    }
  }
  const Outcome traced_outcome = traced.outcome(*last);
  EXPECT_EQ(traced_outcome.status, native.status);
  auto expected = parse(native.output), got = parse(traced_outcome.output);
  EXPECT_EQ(got.size(), expected.size()) << traced_outcome.output;
  for (auto& [name, row] : expected) {
    EXPECT_EQ(got[name].result, row.result) << name;
    // The native run may have been late on a busy machine.
    EXPECT_GE(got[name].milliseconds, std::min(row.milliseconds, std::stod(limit)) * 0.95) << name;
    EXPECT_LT(got[name].milliseconds, row.milliseconds * 1.10 + 200 + stopped * 1000) << name;
  }
  std::sort(times.begin(), times.end());
  fmt::print("{} stops: median {:.0f} us, mean {:.0f} us, p99 {:.0f} us, max {:.0f} us\n",
             times.size(), times[times.size() / 2] * 1e6, stopped / double(times.size()) * 1e6,
             times[times.size() * 99 / 100] * 1e6, times.back() * 1e6);
  EXPECT_GE(times.size(), 200u);
}

// The main thread is in the agent when SIGCHLD comes, which is ignored: it must not be kept for, or
// interrupt, anybody.
TEST(BlockedThreads, DoNotNoticeAChildThatEndsDuringAStop) {
  Traced traced(target_path("child_ends"));
  ASSERT_TRUE(traced.ok());
  const RecordId line = traced.record("finish_line");
  traced.run_to_main();
  const Event stop = traced.next();
  ASSERT_EQ(stop.fired, std::vector<RecordId>{line});
  auto waits = [&] {
    for (const ThreadView& v : traced.inferior().threads())
      if (v.number == 2)
        return v.status == ThreadStatus::kBlocked;
    return false;
  };
  for (int i = 0; i < 1000 && !waits(); ++i) { // until the thread has come to its call
    ASSERT_TRUE(traced.inferior().resume({.thread = 2, .only_this_thread = true}));
    ASSERT_TRUE(traced.inferior().stop());
  }
  const auto child = static_cast<pid_t>(traced.read_variable("child_pid"));
  ASSERT_EQ(kill(child, SIGKILL), 0);
  const std::string stat = fmt::format("/proc/{}/stat", child);
  while (file_text(stat).find(") Z ") == std::string::npos)
    std::this_thread::yield();
  const Outcome got = traced.run_to_end();
  EXPECT_EQ(got.output, "0 0\n");
  EXPECT_EQ(got.status, "exit 3");
}

} // namespace
} // namespace ddbg::engine::test
