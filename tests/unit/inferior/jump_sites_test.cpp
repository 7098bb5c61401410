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
std::vector<uint8_t> text(Inferior& inferior, TargetAddr address, size_t size) {
  std::vector<uint8_t> bytes(size);
  const int fd = open(fmt::format("/proc/{}/mem", inferior.pid()).c_str(), O_RDONLY | O_CLOEXEC);
  EXPECT_EQ(pread(fd, bytes.data(), size, static_cast<off_t>(address.value)),
            static_cast<ssize_t>(size))
      << strerror(errno);
  close(fd);
  return bytes;
}
uint8_t byte_in_text(Inferior& inferior, TargetAddr address) {
  return text(inferior, address, 1).front();
}

// The two calls of tests/targets/masks.c: `mov` and `syscall`, and the variable that counts them.
struct Call {
  const char* name;
  const char* function;
  std::vector<uint8_t> bytes;
  const char* count;
  size_t syscall() const { return bytes.size() - 2; }
};
void PrintTo(const Call& c, std::ostream* out) { *out << c.name; }
const Call kCalls[] = {{"masks", "change_mask", {0xb8, 14, 0, 0, 0, 0x0f, 0x05}, "counted_a"},
                       {"generic", "generic_call", {0x4c, 0x89, 0xf7, 0x0f, 0x05}, "counted_b"}};

class JumpSitesOf : public testing::TestWithParam<Call> {};
INSTANTIATE_TEST_SUITE_P(JumpSites, JumpSitesOf, testing::ValuesIn(kCalls),
                         [](const auto& info) { return info.param.name; });

// The jmp over a short instruction and its `syscall` is a trap for whoever comes to the `syscall`.
void expect_jumps(Traced& traced) {
  for (const Call& call : kCalls) {
    const TargetAddr mov = traced.symbol(std::string(call.name) + "_mov");
    EXPECT_EQ(byte_in_text(traced.inferior(), mov), 0xe9) << call.name;
    EXPECT_EQ(byte_in_text(traced.inferior(), mov + call.syscall()), 0xcc) << call.name;
  }
}

class JumpSitesIn : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(JumpSites, JumpSitesIn, testing::Values("masks", "masks_static"),
                         [](const auto& info) { return info.param; });

TEST_P(JumpSitesIn, KeepEveryRegisterUnderAStormOfSignals) {
  const std::string command = target_path(GetParam()) + " 1000";
  const Outcome native = run_native(command);
  EXPECT_EQ(native.output, "errors 0, signals came, calls 10000\n");
  Traced traced(command);
  ASSERT_TRUE(traced.ok());
  traced.run_to_main();
  expect_jumps(traced);
  EXPECT_EQ(traced.run_to_end(), native);
}

// To the end, with a stop every millisecond: how many came.
Outcome run_with_stops(Traced& traced, int& stops) {
  auto last = Clock::now();
  traced.interrupt = [&] {
    const bool due = seconds_since(last) > 0.001;
    if (due)
      last = Clock::now();
    return due;
  };
  stops = 0;
  return traced.run_to_end([&](const Event& e) {
    EXPECT_EQ(e.reason, StopReason::kRequested);
    for (const ThreadView& v : traced.inferior().threads()) {
      EXPECT_NE(v.status, ThreadStatus::kRunning);
      EXPECT_FALSE(traced.inferior().is_ours(TargetAddr(v.registers.rip)))
          << std::hex << v.registers.rip << ", agent at "
          << traced.inferior().memory_map().agent_text << ", code near the program at "
          << traced.inferior().memory_map().code_near_main << ", status "
          << static_cast<int>(v.status) << ", rax " << v.registers.rax;
    }
    ++stops;
    return ResumePlan{};
  });
}

TEST(JumpSites, AndStops) {
  const std::string command = target_path("masks") + " 1000";
  const Outcome native = run_native(command);
  Traced traced(command);
  ASSERT_TRUE(traced.ok());
  int stops;
  EXPECT_EQ(run_with_stops(traced, stops), native);
  EXPECT_GT(stops, 10);
}

TEST(JumpSites, OfGoAndStops) {
  const std::string command = target_path("goroutines_go");
  if (access(command.c_str(), X_OK) != 0)
    GTEST_SKIP() << "no compiler for it here";
  const Outcome native = run_native(command);
  Traced traced(command);
  ASSERT_TRUE(traced.ok());
  // Where it is depends on Go's version; `mov %rbx,%rdi; syscall` it is since 1.18.
  const symbols::LoadedModule& main = *traced.modules().map().main();
  std::optional<TargetAddr> generic;
  for (const char* name :
       {"runtime/internal/syscall.Syscall6", "internal/runtime/syscall.Syscall6"})
    for (const symbols::Symbol& symbol : main.module->symbols().find(name))
      generic = main.to_target(symbol.address);
  ASSERT_TRUE(generic);
  std::vector<uint8_t> code(64);
  ASSERT_TRUE(traced.inferior().read_memory(*generic, code));
  const uint8_t call[] = {0x48, 0x89, 0xdf, 0x0f, 0x05};
  const auto at = std::search(code.begin(), code.end(), call, std::end(call)) - code.begin();
  ASSERT_LT(at, 59);
  EXPECT_EQ(byte_in_text(traced.inferior(), *generic + static_cast<uint64_t>(at)), 0xe9);
  int stops;
  EXPECT_EQ(run_with_stops(traced, stops), native);
  EXPECT_GT(stops, 3);
}

// A breakpoint on either instruction sees each execution, and leaves the jump behind it.
TEST_P(JumpSitesOf, LeadPastNoBreakpoint) {
  const Call& c = GetParam();
  Traced traced(target_path("masks") + " 500");
  ASSERT_TRUE(traced.ok());
  traced.run_to_main();
  auto& inferior = traced.inferior();
  const TargetAddr mov = traced.symbol(std::string(c.name) + "_mov"), call = mov + c.syscall();
  std::vector<uint8_t> seen(c.bytes.size());
  ASSERT_TRUE(inferior.read_memory(mov, seen));
  EXPECT_EQ(seen, c.bytes);
  EXPECT_FALSE(inferior.write_memory(mov + 1, {seen.data(), 1}));

  const auto jump = text(inferior, mov, c.bytes.size());
  const RecordId removed[] = {traced.record(mov, kNever), traced.record(call, kNever)};
  EXPECT_EQ(byte_in_text(inferior, mov), 0xcc);
  ASSERT_TRUE(inferior.remove_records({&removed[0], 1}));
  EXPECT_EQ(byte_in_text(inferior, mov), 0xcc) << "the jump would lead past the other";
  ASSERT_TRUE(inferior.remove_records({&removed[1], 1}));
  EXPECT_EQ(text(inferior, mov, c.bytes.size()), jump);

  const RecordId at_mov = traced.record(mov, kNever), at_call = traced.record(call, kNever);
  const RecordId end = traced.record("finish_line");
  EXPECT_EQ(traced
                .run_to_end([&](const Event& e) {
                  EXPECT_EQ(e.fired, std::vector<RecordId>{end});
                  const auto times = static_cast<uint64_t>(traced.read_variable(c.count));
                  EXPECT_GT(times, 0u);
                  EXPECT_EQ(traced.hits(at_mov), times);
                  EXPECT_EQ(traced.hits(at_call), times);
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
TEST_P(JumpSitesOf, AreSteppedAsWhatTheyReplace) {
  const Call& c = GetParam();
  Traced traced(target_path("masks") + " 4");
  ASSERT_TRUE(traced.ok());
  const TargetAddr mov = traced.symbol(std::string(c.name) + "_mov");
  const TargetAddr call = mov + c.syscall(), after = call + 2;
  // By a thread that never waits for another.
  const RecordId once = traced.record("change_mask");
  Event e = traced.next();
  ASSERT_EQ(e.fired, std::vector<RecordId>{once});
  const pid_t tid = traced.inferior().thread(e.thread)->tid;
  ASSERT_TRUE(traced.inferior().remove_record(once));
  if (c.function != std::string("change_mask")) {
    const RecordId before = traced.record(c.function, {.only_tid = tid});
    e = traced.next();
    ASSERT_EQ(e.fired, std::vector<RecordId>{before});
    ASSERT_TRUE(traced.inferior().remove_record(before));
  }
  std::vector<uint64_t> seen; // outside of handlers
  for (int i = 0; i < 1000 && (seen.empty() || seen.back() != after.value); ++i) {
    e = traced.next({.thread = e.thread, .action = Action::kStep, .only_this_thread = true});
    ASSERT_EQ(e.reason, StopReason::kStep);
    const uint64_t rip = traced.inferior().thread(e.thread)->registers.rip;
    if (rip >= mov.value && rip <= after.value && (seen.empty() || seen.back() != rip))
      seen.push_back(rip);
  }
  EXPECT_EQ(seen, (std::vector<uint64_t>{mov.value, call.value, after.value}));
  EXPECT_EQ(traced.run_to_end().output, "errors 0, signals came, calls 40\n");
}

TEST_P(JumpSitesOf, AreGoneAfterDetach) {
  const Call& c = GetParam();
  Traced traced(target_path("masks") + " 100000000");
  ASSERT_TRUE(traced.ok());
  traced.run_to_main();
  const TargetAddr mov = traced.symbol(std::string(c.name) + "_mov");
  ASSERT_EQ(byte_in_text(traced.inferior(), mov), 0xe9);
  auto left = traced.inferior().detach();
  ASSERT_TRUE(left);
  EXPECT_TRUE(left->empty());
  EXPECT_EQ(text(traced.inferior(), mov, c.bytes.size()), c.bytes);
  EXPECT_EQ(kill(traced.inferior().pid(), SIGKILL), 0);
}

} // namespace
} // namespace ddbg::engine::test
