// Hits are counted exactly, whatever the number of threads and whatever stops in between.
#include "tests/unit/inferior/driver.h"

#include <fmt/format.h>

namespace ddbg::engine::test {
namespace {

uint64_t per_thread() {
  const char* given = getenv("DDBG_TEST_HITS"); // by hand: 2500000 for ten million in all
  return given ? strtoull(given, nullptr, 10) : 10000;
}
std::string count_command() { return fmt::format("{} 4 {}", target_path("count"), per_thread()); }
uint64_t all_hits() { return 4 * per_thread(); }

TEST(Counts, FalseConditionsOfFourThreadsAreEvaluatedExactly) {
  const Outcome native = run_native(count_command());
  Traced traced(count_command());
  ASSERT_TRUE(traced.ok());
  const RecordId id = traced.record("hit", {.condition = condition_constant(false)});
  traced.give_up = 3600;
  const auto begin = Clock::now();
  EXPECT_EQ(traced.run_to_end(), native);
  fmt::print("{} hits in {:.2f} s\n", all_hits(), seconds_since(begin));
  EXPECT_EQ(traced.inferior().counts(id).evaluations, all_hits());
  EXPECT_EQ(traced.hits(id), 0u);
  EXPECT_EQ(traced.stops, 0);
}

TEST(Counts, IgnoredHitsOfSeveralRecordsAreExact) {
  const Outcome native = run_native(count_command());
  Traced traced(count_command());
  ASSERT_TRUE(traced.ok());
  const uint64_t all = all_hits();
  const RecordId ignored = traced.record("hit", {.ignore_count = all});
  const RecordId last = traced.record("hit", {.ignore_count = all - 1});
  const RecordId even =
      traced.record("hit", {.condition = condition_low_bits_zero(dune::Reg::rdi, 1),
                            .ignore_count = ~uint64_t{0}});
  const RecordId disabled = traced.record("hit", {.enabled = false});
  EXPECT_EQ(traced.run_to_end([&](const Event& e) {
    EXPECT_EQ(e.reason, StopReason::kBreakpoint);
    EXPECT_EQ(e.fired, std::vector<RecordId>{last});
    return ResumePlan{};
  }),
            native);
  EXPECT_EQ(traced.stops, 1);
  EXPECT_EQ(traced.hits(ignored), all);
  EXPECT_EQ(traced.hits(last), all);
  EXPECT_EQ(traced.hits(even), all / 2);
  EXPECT_EQ(traced.inferior().counts(even).evaluations, all);
  EXPECT_EQ(traced.hits(disabled), 0u);
  EXPECT_EQ(traced.inferior().counts(ignored).ignore_left, 0u);
}

// Each stop is a hit, and each hit of a true condition is a stop: threads that arrive while another
// one stops neither lose theirs nor count it twice.
TEST(Counts, EachTrueConditionStopsOnce) {
  const std::string command = fmt::format("{} 4 256", target_path("count"));
  const Outcome native = run_native(command);
  Traced traced(command);
  ASSERT_TRUE(traced.ok());
  const RecordId id =
      traced.record("hit", {.condition = condition_low_bits_zero(dune::Reg::rdi, 3)});
  const RecordId every = traced.record("hit", {.ignore_count = ~uint64_t{0}});
  std::map<std::pair<uint32_t, uint64_t>, int> seen; // thread, argument
  EXPECT_EQ(traced.run_to_end([&](const Event& e) {
    EXPECT_EQ(e.fired, std::vector<RecordId>{id});
    const ThreadView* v = traced.inferior().thread(e.thread);
    EXPECT_NE(v, nullptr);
    if (v) {
      EXPECT_EQ(v->registers.rip, traced.symbol("hit").value);
      seen[{v->number, v->registers.rdi}]++;
    }
    return ResumePlan{};
  }),
            native);
  EXPECT_EQ(traced.stops, 256);
  EXPECT_EQ(seen.size(), 256u);
  EXPECT_EQ(traced.hits(id), 256u);
  EXPECT_EQ(traced.hits(every), 1024u);
}

TEST(Counts, OneThreadOnly) {
  const std::string command = fmt::format("{} 4 1000", target_path("count"));
  const Outcome native = run_native(command);
  Traced traced(command);
  ASSERT_TRUE(traced.ok());
  const RecordId first = traced.record("hit");
  RecordId filtered = dune::session::kNone;
  EXPECT_EQ(traced.run_to_end([&](const Event& e) {
    const ThreadView* v = traced.inferior().thread(e.thread);
    if (v)
      filtered = traced.record("hit", {.only_tid = v->tid, .ignore_count = ~uint64_t{0}});
    EXPECT_TRUE(traced.inferior().remove_record(first));
    return ResumePlan{};
  }),
            native);
  // Other threads may have stood at the site already: they go on without a record of theirs.
  EXPECT_GE(traced.hits(filtered), 999u);
  EXPECT_LE(traced.hits(filtered), 1000u);
  EXPECT_EQ(traced.stops, 1);
}

// `finish` out of a recursive function: only the frame that was asked for.
TEST(Counts, MinimumStackPointerSelectsTheFrame) {
  const std::string command = fmt::format("{} 1 1", target_path("count"));
  const Outcome native = run_native(command);
  Traced traced(command);
  ASSERT_TRUE(traced.ok());
  const RecordId entry = traced.record("recursive");
  std::vector<uint64_t> stack_pointers;
  uint64_t depth_five = 0, back = 0;
  RecordId finish = dune::session::kNone;
  int finished = 0;
  EXPECT_EQ(traced.run_to_end([&](const Event& e) {
    const ThreadView* v = traced.inferior().thread(e.thread);
    if (!v)
      return ResumePlan{};
    if (e.fired == std::vector<RecordId>{entry}) {
      stack_pointers.push_back(v->registers.rsp);
      if (stack_pointers.size() == 5) {
        depth_five = v->registers.rsp;
        EXPECT_TRUE(traced.inferior().read_memory(
            TargetAddr(depth_five), {reinterpret_cast<uint8_t*>(&back), sizeof back}));
        finish = traced.record(TargetAddr(back), {.min_stack_pointer = depth_five + 8});
      }
    } else {
      EXPECT_EQ(e.fired, std::vector<RecordId>{finish});
      if (!finished++) {
        EXPECT_EQ(v->registers.rsp, depth_five + 8);
      }
    }
    return ResumePlan{};
  }),
            native);
  EXPECT_EQ(stack_pointers.size(), 10u);
  // The frames 5, 4, 3, 2 return to the same place, the fifth first; the outermost to another one.
  EXPECT_EQ(finished, 4);
  EXPECT_EQ(traced.hits(finish), 4u);
}

} // namespace
} // namespace ddbg::engine::test
