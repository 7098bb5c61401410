// What a program may do with signals it does under the agent, too, with sites in its way.
#include "tests/unit/inferior/driver.h"

namespace ddbg::engine::test {
namespace {

struct Case {
  const char* name;
  bool reaches_end = true;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class Signals : public testing::TestWithParam<Case> {};

// Every place that a case may come by has a breakpoint that is never stopped at.
void set_sites(Traced& traced, std::map<std::string, RecordId>& ids) {
  const RecordSpec never{.ignore_count = ~uint64_t{0}};
  for (const char* name : {"hit_a", "hit_b", "touch", "fault_load", "fault_after", "quotient",
                           "divide", "divide_after", "on_alarm", "on_fault", "on_trap", "on_tiny",
                           "on_jump", "on_swap", "on_nested", "coroutine"})
    ids[name] = traced.record(name, never);
}

TEST_P(Signals, AsWithoutTheAgent) {
  const std::string command = target_path("signals") + " " + GetParam().name;
  const Outcome native = run_native(command);
  Traced traced(command);
  ASSERT_TRUE(traced.ok());
  std::map<std::string, RecordId> ids;
  set_sites(traced, ids);
  const RecordId end = traced.record("finish_line");
  EXPECT_EQ(traced.run_to_end([&](const Event& e) {
    EXPECT_EQ(e.reason, StopReason::kBreakpoint);
    EXPECT_EQ(traced.hits(ids["hit_a"]), static_cast<uint64_t>(traced.read_variable("counted_a")));
    EXPECT_EQ(traced.hits(ids["hit_b"]), static_cast<uint64_t>(traced.read_variable("counted_b")));
    return ResumePlan{};
  }),
            native);
  EXPECT_EQ(traced.hits(end), GetParam().reaches_end ? 1u : 0u);
}

INSTANTIATE_TEST_SUITE_P(
    Programs, Signals,
    testing::Values(Case{"storm"}, Case{"storm_on_altstack"}, Case{"faults"}, Case{"traps"},
                    Case{"trap_waits"}, Case{"trap_masks"}, Case{"trap_elsewhere"},
                    Case{"wait_masks"}, Case{"all_blocked"}, Case{"alternate_stacks"},
                    Case{"jumps"}, Case{"flags"}, Case{"real_time"}, Case{"die_segv", false},
                    Case{"die_abort", false}, Case{"die_trap", false}, Case{"die_kill_trap", false},
                    Case{"die_term", false}, Case{"die_rt", false}, Case{"die_fpe_blocked", false},
                    Case{"die_segv_ignored", false}, Case{"die_in_handler", false},
                    Case{"die_stack_overflow_frame", false}),
    [](const auto& info) { return info.param.name; });

} // namespace
} // namespace ddbg::engine::test
