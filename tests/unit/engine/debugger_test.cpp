// The engine on a real target. What is expected is what gdb 13.1 says of the same program.
#include "dtrace-lite/engine/debugger.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>

namespace ddbg::engine {
namespace {

constexpr const char* kSource = R"(#include <stdio.h>
static int leaf(int x) {
  int y = x + 1;
  return y * 2;
}
static int recurse(int n) {
  if (n == 0)
    return leaf(n);
  return recurse(n - 1) + 1;
}
int main(int argc, char **argv) {
  int r = leaf(argc);
  int s = leaf(r) + leaf(3);
  r += s;
  printf("%d\n", r);
  r += recurse(1000);
  return r - r + 7;
}
)";

// Each test case may be a process of its own, several at once: each compiles into its own folder.
class Sample {
public:
  Sample() {
    std::string name = (std::filesystem::temp_directory_path() / "engine-test-XXXXXX").string();
    if (!mkdtemp(name.data()))
      return;
    folder_ = name;
    std::ofstream(path() + ".c") << kSource;
    built_ = std::system(("gcc -g -O0 -o " + path() + " " + path() + ".c").c_str()) == 0;
  }
  ~Sample() {
    std::error_code ignored;
    if (!folder_.empty())
      std::filesystem::remove_all(folder_, ignored);
  }
  bool built() const { return built_; }
  std::string path() const { return folder_ + "/steps"; }

private:
  std::string folder_;
  bool built_ = false;
};

std::string build_sample() {
  static const Sample sample;
  EXPECT_TRUE(sample.built());
  return sample.path();
}

class DebuggerOnSample : public testing::Test {
protected:
  void SetUp() override {
    auto set = debugger.set_program(build_sample());
    ASSERT_TRUE(set) << set.error().message;
    debugger.settings().args = "> /dev/null";
  }
  void stop_at(const std::string& where) {
    auto number = debugger.add_breakpoint({where, Disposition::kKeep, false});
    ASSERT_TRUE(number) << number.error().message;
    auto report = debugger.run(RunMode::kRun);
    ASSERT_TRUE(report) << report.error().message;
    ASSERT_EQ(report->why, StopWhy::kBreakpoint);
  }
  // "leaf:3", with "=" in front when only the source line is to be shown.
  std::string step(StepKind kind) {
    StepRequest request;
    request.kind = kind;
    auto report = debugger.step(request);
    if (!report)
      return report.error().message;
    if (report->target_gone())
      return "gone";
    auto frame = debugger.selected_frame();
    return (report->source_line_only ? "=" : "") + (frame ? frame->function : "?") + ":" +
           std::to_string(frame ? frame->source.line : 0);
  }
  Debugger debugger;
};

TEST_F(DebuggerOnSample, StepsLikeGdb) {
  stop_at("main");
  for (const char* expected : {"leaf:3", "=leaf:4", "=leaf:5", "main:13", "leaf:3", "=leaf:4",
                               "=leaf:5", "leaf:3", "=leaf:4", "=leaf:5", "main:13", "=main:14"})
    EXPECT_EQ(step(StepKind::kStep), expected);
}

TEST_F(DebuggerOnSample, NextsOverCallsAndLibraryFunctions) {
  stop_at("main");
  for (const char* expected : {"=main:13", "=main:14", "=main:15", "=main:16", "=main:17"})
    EXPECT_EQ(step(StepKind::kNext), expected);
}

TEST_F(DebuggerOnSample, FinishesWithTheReturnedValue) {
  stop_at("leaf if x == 3");
  StepRequest finish;
  finish.kind = StepKind::kFinish;
  auto report = debugger.step(finish);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->why, StopWhy::kFinished);
  ASSERT_TRUE(report->returned);
  EXPECT_EQ(report->returned->value, "8");
}

TEST_F(DebuggerOnSample, CountsHitsAndEvaluationsInTheTarget) {
  stop_at("leaf if x == 3");
  auto info = debugger.breakpoint_info(1);
  ASSERT_TRUE(info);
  EXPECT_EQ(info->condition_place, ConditionPlace::kInTarget);
  EXPECT_EQ(info->total.hits, 1u);
  EXPECT_EQ(info->total.evaluations, 3u);
}

TEST_F(DebuggerOnSample, UnwindsADeepRecursion) {
  stop_at("leaf if x == 0");
  std::string why;
  auto frames = debugger.backtrace(5000, &why);
  ASSERT_TRUE(frames);
  ASSERT_EQ(frames->size(), 1003u); // leaf, 1001 of recurse, main
  EXPECT_EQ(frames->at(1).function, "recurse");
  EXPECT_EQ(frames->at(1).source.line, 8u);
  EXPECT_EQ(frames->back().function, "main");
  EXPECT_EQ(frames->back().source.line, 16u);
  EXPECT_EQ(why, "");
}

TEST_F(DebuggerOnSample, ResolvesAPendingBreakpointWhenItsLibraryComes) {
  auto number = debugger.add_breakpoint({"setvbuf", Disposition::kKeep, false});
  EXPECT_FALSE(number);
  EXPECT_TRUE(debugger.last_error_may_be_pending());
  number = debugger.add_breakpoint({"setvbuf", Disposition::kKeep, true});
  ASSERT_TRUE(number);
  EXPECT_TRUE(debugger.breakpoint(*number)->pending);
  stop_at("main");
  EXPECT_FALSE(debugger.breakpoint(*number)->pending);
}

TEST_F(DebuggerOnSample, ReportsTheExitStatus) {
  auto report = debugger.run(RunMode::kRun);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->why, StopWhy::kExited);
  EXPECT_EQ(report->status.value, 7);
  EXPECT_EQ(debugger.exit_code(), 7);
  EXPECT_FALSE(debugger.alive());
}

// Running to main and showing where it is asks the libraries nothing that their symbols do not
// answer. (Any other function may have been inlined in them, which only their DWARF tells.)
TEST_F(DebuggerOnSample, ReadsNoDwarfOfLibrariesToStopInMain) {
  stop_at("main");
  ASSERT_EQ(debugger.selected_frame()->function, "main");
  ASSERT_EQ(debugger.context().arguments().size(), 2u);
  size_t libraries = 0;
  for (const symbols::LoadedModule& module : debugger.modules()) {
    EXPECT_EQ(module.module->counters().dwarf_opened, module.is_main ? 1u : 0u) << module.path;
    libraries += !module.is_main;
  }
  EXPECT_GE(libraries, 2u);
}

TEST_F(DebuggerOnSample, ReadsTheProgramOnceForAllItsRuns) {
  const symbols::Module* program = debugger.module_map().main()->module.get();
  stop_at("main");
  EXPECT_EQ(debugger.module_map().main()->module.get(), program);
  ASSERT_TRUE(debugger.kill());
  EXPECT_EQ(debugger.module_map().main()->module.get(), program);
}

TEST(Linespec, TakesABreakCommandApart) {
  auto arguments = parse_break_arguments("f(int, char) thread 3 if a == (b if c)");
  ASSERT_TRUE(arguments);
  EXPECT_EQ(arguments->location, "f(int, char)");
  EXPECT_EQ(arguments->thread, 3u);
  EXPECT_EQ(arguments->condition, "a == (b if c)");
  EXPECT_FALSE(parse_break_arguments("main if "));
  EXPECT_EQ(parse_break_arguments("verify.c:12 if(x)")->condition, "(x)");
}

} // namespace
} // namespace ddbg::engine
