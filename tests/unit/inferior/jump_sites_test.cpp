// System calls that the agent answers through a jump instead of a trap.
#include "tests/unit/inferior/driver.h"

#include <algorithm>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

namespace ddbg::engine::test {
namespace {

constexpr RecordSpec kNever{.ignore_count = ~uint64_t{0}};

// The text as the processor sees it.
uint8_t byte_in_text(Inferior& inferior, TargetAddr address) {
  uint8_t byte = 0;
  const int fd = open(fmt::format("/proc/{}/mem", inferior.pid()).c_str(), O_RDONLY | O_CLOEXEC);
  EXPECT_EQ(pread(fd, &byte, 1, static_cast<off_t>(address.value)), 1) << strerror(errno);
  close(fd);
  return byte;
}

TEST(JumpSites, KeepEveryRegisterUnderAStormOfSignals) {
  const std::string command = target_path("masks") + " 1000";
  const Outcome native = run_native(command);
  EXPECT_EQ(native.output, "errors 0, signals came, calls 10000\n");
  Traced traced(command);
  ASSERT_TRUE(traced.ok());
  traced.run_to_main();
  EXPECT_EQ(byte_in_text(traced.inferior(), traced.symbol("masks_mov")), 0xe9);
  EXPECT_EQ(traced.run_to_end(), native);
}

TEST(JumpSites, AndStops) {
  const std::string command = target_path("masks") + " 1000";
  const Outcome native = run_native(command);
  Traced traced(command);
  ASSERT_TRUE(traced.ok());
  auto last = Clock::now();
  traced.interrupt = [&] {
    const bool due = seconds_since(last) > 0.001;
    if (due)
      last = Clock::now();
    return due;
  };
  int stops = 0;
  EXPECT_EQ(traced.run_to_end([&](const Event& e) {
    EXPECT_EQ(e.reason, StopReason::kRequested);
    for (const ThreadView& v : traced.inferior().threads()) {
      EXPECT_NE(v.status, ThreadStatus::kRunning);
      EXPECT_FALSE(traced.inferior().is_ours(TargetAddr(v.registers.rip)));
    }
    ++stops;
    return ResumePlan{};
  }),
            native);
  EXPECT_GT(stops, 10);
}

// A breakpoint on either instruction sees each execution, and leaves the jump behind it.
TEST(JumpSites, LeadPastNoBreakpoint) {
  Traced traced(target_path("masks") + " 500");
  ASSERT_TRUE(traced.ok());
  traced.run_to_main();
  auto& inferior = traced.inferior();
  const TargetAddr mov = traced.symbol("masks_mov"), call = traced.symbol("masks_syscall");
  std::vector<uint8_t> text(7);
  ASSERT_TRUE(inferior.read_memory(mov, text));
  EXPECT_EQ(text, (std::vector<uint8_t>{0xb8, 14, 0, 0, 0, 0x0f, 0x05}));
  EXPECT_FALSE(inferior.write_memory(mov + 1, {text.data(), 1}));

  const RecordId removed[] = {traced.record(mov, kNever), traced.record(call, kNever)};
  EXPECT_EQ(byte_in_text(inferior, mov), 0xcc);
  ASSERT_TRUE(inferior.remove_records({&removed[0], 1}));
  EXPECT_EQ(byte_in_text(inferior, mov), 0xcc) << "the jump would lead past the other";
  ASSERT_TRUE(inferior.remove_records({&removed[1], 1}));
  EXPECT_EQ(byte_in_text(inferior, mov), 0xe9);

  const RecordId at_mov = traced.record(mov, kNever), at_call = traced.record(call, kNever);
  const RecordId end = traced.record("finish_line");
  EXPECT_EQ(traced
                .run_to_end([&](const Event& e) {
                  EXPECT_EQ(e.fired, std::vector<RecordId>{end});
                  EXPECT_EQ(traced.hits(at_mov),
                            static_cast<uint64_t>(traced.read_variable("counted_a")));
                  EXPECT_EQ(traced.hits(at_call),
                            static_cast<uint64_t>(traced.read_variable("counted_a")));
                  return ResumePlan{};
                })
                .output,
            "errors 0, signals came, calls 5000\n");
}

// libc's syscall() makes the calls that the agent need not see without a trap, and a breakpoint on
// its instruction sees them all the same.
TEST(JumpSites, OfCallsWithoutANumberInSight) {
  Traced traced(target_path("masks") + " 100");
  ASSERT_TRUE(traced.ok());
  traced.run_to_main();
  auto& inferior = traced.inferior();
  const TargetAddr function = traced.symbol_in("libc.so", "syscall");
  std::vector<uint8_t> text(64);
  ASSERT_TRUE(inferior.read_memory(function, text));
  const uint8_t call[] = {0x0f, 0x05};
  const auto at = std::search(text.begin(), text.end(), call, call + 2) - text.begin();
  ASSERT_LT(at, 62);
  const TargetAddr instruction = function + static_cast<uint64_t>(at);
  EXPECT_EQ(byte_in_text(inferior, instruction - 5), 0xe9);
  const RecordId every = traced.record(function, kNever);
  const RecordId at_call = traced.record(instruction, kNever);
  const RecordId end = traced.record("finish_line");
  EXPECT_EQ(traced
                .run_to_end([&](const Event& e) {
                  EXPECT_EQ(e.fired, std::vector<RecordId>{end});
                  EXPECT_EQ(traced.hits(every), traced.hits(at_call));
                  EXPECT_GE(traced.hits(every), uint64_t{2 * 100 * 5});
                  return ResumePlan{};
                })
                .output,
            "errors 0, signals came, calls 1000\n");
}

// Stepping goes through the program's own instructions.
TEST(JumpSites, AreSteppedAsWhatTheyReplace) {
  Traced traced(target_path("masks") + " 4");
  ASSERT_TRUE(traced.ok());
  const TargetAddr mov = traced.symbol("masks_mov");
  const RecordId once = traced.record("change_mask");
  Event e = traced.next();
  ASSERT_EQ(e.fired, std::vector<RecordId>{once});
  ASSERT_TRUE(traced.inferior().remove_record(once));
  std::vector<uint64_t> seen;
  for (int i = 0; i < 100 && (seen.empty() || seen.back() != (mov + 7).value); ++i) {
    e = traced.next({.thread = e.thread, .action = Action::kStep, .only_this_thread = true});
    ASSERT_EQ(e.reason, StopReason::kStep);
    seen.push_back(traced.inferior().thread(e.thread)->registers.rip);
  }
  ASSERT_GE(seen.size(), 3u);
  EXPECT_EQ((std::vector<uint64_t>(seen.end() - 3, seen.end())),
            (std::vector<uint64_t>{mov.value, (mov + 5).value, (mov + 7).value}));
  EXPECT_EQ(traced.run_to_end().output, "errors 0, signals came, calls 40\n");
}

TEST(JumpSites, AreGoneAfterDetach) {
  Traced traced(target_path("masks") + " 100000000");
  ASSERT_TRUE(traced.ok());
  traced.run_to_main();
  const TargetAddr mov = traced.symbol("masks_mov");
  ASSERT_EQ(byte_in_text(traced.inferior(), mov), 0xe9);
  auto left = traced.inferior().detach();
  ASSERT_TRUE(left);
  EXPECT_TRUE(left->empty());
  EXPECT_EQ(byte_in_text(traced.inferior(), mov), 0xb8);
  EXPECT_EQ(kill(traced.inferior().pid(), SIGKILL), 0);
}

} // namespace
} // namespace ddbg::engine::test
