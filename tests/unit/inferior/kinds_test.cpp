// Programs of other makes: static, static-PIE, another C library, Go; they run as without the
// agent, with its sites set in them.
#include "tests/unit/inferior/driver.h"

#include <unistd.h>

namespace ddbg::engine::test {
namespace {

struct Kind {
  const char* name;
  const char* command;
};
void PrintTo(const Kind& k, std::ostream* out) { *out << k.name; }

class Kinds : public testing::TestWithParam<Kind> {};

TEST_P(Kinds, RunAsWithoutTheAgent) {
  const std::string command = target_path(GetParam().command);
  if (access(command.substr(0, command.find(' ')).c_str(), X_OK) != 0)
    GTEST_SKIP() << "no compiler for it here";
  const Outcome native = run_native(command);
  Traced traced(command);
  ASSERT_TRUE(traced.ok());
  const bool is_go = command.find("_go") != std::string::npos;
  const bool counts = command.find("/count") != std::string::npos;
  const RecordSpec never{.ignore_count = ~uint64_t{0}};
  const RecordId a = traced.record(is_go ? "main.Hit" : counts ? "hit" : "hit_a", never);
  std::optional<RecordId> end;
  if (!is_go && !counts)
    end = traced.record("finish_line");
  const Outcome got = traced.run_to_end([&](const Event&) {
    EXPECT_EQ(traced.hits(a), static_cast<uint64_t>(traced.read_variable("counted_a")));
    return ResumePlan{};
  });
  EXPECT_EQ(got, native);
  if (is_go) {
    EXPECT_NE(got.output.find("transferred 8000\n"), std::string::npos);
  }
  if (counts) {
    EXPECT_EQ(traced.hits(a), 4000u);
  }
  if (is_go) {
    EXPECT_EQ(traced.hits(a), 12800u);
  }
  EXPECT_EQ(traced.stops, end ? 1 : 0);
}

INSTANTIATE_TEST_SUITE_P(
    Programs, Kinds,
    testing::Values(Kind{"count_static", "count_static 4 1000"},
                    Kind{"count_musl", "count_musl 4 1000"},
                    Kind{"signals_static_storm", "signals_static storm"},
                    Kind{"signals_static_traps", "signals_static traps"},
                    Kind{"signals_musl_storm", "signals_musl storm"},
                    Kind{"signals_musl_faults", "signals_musl faults"},
                    Kind{"signals_musl_jumps", "signals_musl jumps"},
                    Kind{"signals_musl_blocked", "signals_musl all_blocked"},
                    Kind{"processes_static_pie_churn", "processes_static_pie churn"},
                    Kind{"processes_static_pie_forks", "processes_static_pie forks"},
                    Kind{"processes_static_pie_spawns", "processes_static_pie spawns"},
                    Kind{"processes_musl_churn", "processes_musl churn"},
                    Kind{"processes_musl_forks", "processes_musl forks"},
                    Kind{"processes_musl_spawns", "processes_musl spawns"},
                    Kind{"goroutines", "goroutines_go"}),
    [](const auto& info) { return info.param.name; });

} // namespace
} // namespace ddbg::engine::test
