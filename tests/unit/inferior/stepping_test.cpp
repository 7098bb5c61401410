// Steps inside the agent visit the instructions that the processor would: a plain ptrace stepper is
// the reference.
#include "tests/unit/inferior/driver.h"

#include <csignal>
#include <fmt/format.h>
#include <set>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

namespace ddbg::engine::test {
namespace {

constexpr const char* kEnvironment[] = {"PATH=/usr/bin:/bin", "PYTHONHASHSEED=0", "LC_ALL=C"};

// Both sides get the same short environment, so that the same code runs over it.
void use_environment() {
  clearenv();
  for (const char* e : kEnvironment)
    putenv(const_cast<char*>(e));
}

class Environment {
public:
  Environment() {
    for (char** e = environ; *e; ++e)
      saved_.push_back(*e);
    keeper_ = getenv("DDBG_KEEPER") ? getenv("DDBG_KEEPER") : "";
    use_environment();
    if (!keeper_.empty())
      setenv("DDBG_KEEPER", keeper_.c_str(), 1);
  }
  ~Environment() {
    clearenv();
    for (std::string& e : saved_) {
      const size_t equals = e.find('=');
      setenv(e.substr(0, equals).c_str(), e.substr(equals + 1).c_str(), 1);
    }
  }

private:
  std::vector<std::string> saved_;
  std::string keeper_;
};

// rip before each of the first `limit` instructions.
std::vector<uint64_t> reference_trace(const std::string& command, size_t limit) {
  // As Traced does it, through a shell that says `exec`; its redirection needs a name as long.
  const std::string line = fmt::format("exec {} > /tmp/ddbg-inferior-XXXXXX/output 2>&1", command);
  Folder folder;
  const std::string real = fmt::format("exec {} > {} 2>&1", command, folder / "output");
  EXPECT_EQ(real.size(), line.size());
  const pid_t pid = fork();
  if (pid == 0) {
    setpgid(0, 0);
    personality(ADDR_NO_RANDOMIZE);
    ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    execl("/bin/sh", "/bin/sh", "-c", real.c_str(), nullptr);
    _exit(127);
  }
  std::vector<uint64_t> trace;
  int status;
  waitpid(pid, &status, 0); // the shell
  ptrace(PTRACE_CONT, pid, nullptr, nullptr);
  waitpid(pid, &status, 0); // the program
  while (trace.size() < limit && WIFSTOPPED(status)) {
    const int signal = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
    if (!signal) {
      user_regs_struct regs;
      ptrace(PTRACE_GETREGS, pid, nullptr, &regs);
      trace.push_back(regs.rip);
    }
    ptrace(PTRACE_SINGLESTEP, pid, nullptr, signal);
    if (waitpid(pid, &status, 0) != pid)
      break;
  }
  if (WIFSTOPPED(status)) {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  return trace;
}

// A repeated string instruction traps once per iteration, unless a breakpoint stands on it.
std::vector<uint64_t> without_repeats(const std::vector<uint64_t>& trace) {
  std::vector<uint64_t> out;
  for (uint64_t rip : trace)
    if (out.empty() || out.back() != rip)
      out.push_back(rip);
  return out;
}

struct Stepped {
  std::vector<uint64_t> trace;
  std::vector<std::vector<RecordId>> fired; // beside trace
  Outcome outcome;
};

uint64_t rip_of(Traced& traced, uint32_t* number) {
  const ThreadView& v = traced.inferior().threads().front();
  *number = v.number;
  return v.registers.rip;
}

// Single steps from where the target stands.
Stepped step_all(Traced& traced, size_t limit) {
  Stepped s;
  uint32_t thread = 0;
  s.trace.push_back(rip_of(traced, &thread));
  s.fired.emplace_back();
  while (s.trace.size() < limit) {
    if (auto ok = traced.inferior().resume({.thread = thread, .action = Action::kStep}); !ok) {
      ADD_FAILURE() << ok.error().message;
      break;
    }
    auto e = traced.inferior().wait();
    if (!e || e->kind != Event::Kind::kStopped) {
      if (e)
        s.outcome = traced.outcome(*e);
      else
        ADD_FAILURE() << e.error().message;
      break;
    }
    EXPECT_TRUE(e->reason == StopReason::kStep || e->reason == StopReason::kBreakpoint)
        << static_cast<int>(e->reason);
    s.trace.push_back(rip_of(traced, &thread));
    s.fired.push_back(e->fired);
  }
  return s;
}

void expect_same(const std::vector<uint64_t>& got, const std::vector<uint64_t>& expected) {
  const size_t common = std::min(got.size(), expected.size());
  for (size_t i = 0; i < common; ++i)
    if (got[i] != expected[i]) {
      ADD_FAILURE() << fmt::format("instruction {}: {:#x}, not {:#x}; before it {:#x}", i, got[i],
                                   expected[i], i ? expected[i - 1] : 0);
      return;
    }
  EXPECT_EQ(got.size(), expected.size());
}

class Stepping : public testing::TestWithParam<std::pair<const char*, const char*>> {
protected:
  static constexpr size_t kInstructions = 4000;
  std::string command() const {
    const std::string given = GetParam().second;
    return given[0] == '/' ? given : target_path(given);
  }
  Environment environment_;
};

TEST_P(Stepping, VisitsWhatThePtraceStepperVisits) {
  const auto reference = reference_trace(command(), kInstructions);
  Traced traced(command());
  ASSERT_TRUE(traced.ok());
  const auto begin = Clock::now();
  const Stepped got = step_all(traced, kInstructions);
  fmt::print("{:.1f} us a stop\n", seconds_since(begin) / double(got.trace.size()) * 1e6);
  SCOPED_TRACE(got.outcome.status + "\n" + got.outcome.output);
  expect_same(got.trace, reference);
}

TEST_P(Stepping, ReportsSitesOnTheWay) {
  const auto reference = without_repeats(reference_trace(command(), kInstructions));
  Traced traced(command());
  ASSERT_TRUE(traced.ok());
  std::map<uint64_t, RecordId> sites;
  for (size_t i = 1; i < reference.size(); i += 37)
    if (!sites.count(reference[i]))
      if (auto id = traced.inferior().add_record(TargetAddr(reference[i]), {}))
        sites[reference[i]] = *id;
  EXPECT_GT(sites.size(), 50u);
  const Stepped got = step_all(traced, reference.size());
  std::vector<uint64_t> trace = without_repeats(got.trace);
  trace.resize(std::min(trace.size(), reference.size()));
  std::vector<uint64_t> expected = reference;
  expected.resize(trace.size());
  expect_same(trace, expected);
  std::map<uint64_t, uint64_t> visits;
  for (size_t i = 1; i < got.trace.size(); ++i) {
    auto site = sites.find(got.trace[i]);
    const bool at_site = site != sites.end();
    const bool fired =
        at_site && std::count(got.fired[i].begin(), got.fired[i].end(), site->second);
    EXPECT_EQ(fired, at_site) << fmt::format("{} {:#x}", i, got.trace[i]);
    visits[got.trace[i]] += at_site;
  }
  for (auto [address, id] : sites)
    EXPECT_EQ(traced.hits(id), visits[address]) << fmt::format("{:#x}", address);
}

TEST_P(Stepping, ManyStepsAtOnceArriveAtTheSamePlace) {
  const auto reference = reference_trace(command(), kInstructions);
  Traced traced(command());
  ASSERT_TRUE(traced.ok());
  size_t at = 0;
  uint32_t thread = 0;
  EXPECT_EQ(rip_of(traced, &thread), reference[0]);
  for (size_t n : {1u, 500u, 1777u, 3u, 1500u}) {
    ASSERT_TRUE(
        traced.inferior().resume({.thread = thread, .action = Action::kStep, .step_count = n}));
    auto e = traced.inferior().wait();
    ASSERT_TRUE(e);
    ASSERT_EQ(e->kind, Event::Kind::kStopped);
    if (e->reason ==
        StopReason::kBreakpoint) { // the dynamic linker's record: the rest of the steps
      n = traced.inferior().threads().front().steps_taken;
    } else {
      EXPECT_EQ(e->reason, StopReason::kStep);
      EXPECT_EQ(traced.inferior().threads().front().steps_taken, n);
    }
    at += n;
    EXPECT_EQ(rip_of(traced, &thread), reference[at]) << at;
  }
}

INSTANTIATE_TEST_SUITE_P(Programs, Stepping,
                         testing::Values(std::pair{"true", "/bin/true"},
                                         std::pair{"python3", "/usr/bin/python3 -c 1"},
                                         std::pair{"static_steps", "steps_static"}),
                         [](const auto& info) { return std::string(info.param.first); });

// Over the calls that the agent makes for the program, strings, flags, signals and a fork, to the
// end.
TEST(SteppingOn, WholeProgramToItsEnd) {
  Environment environment;
  const std::string command = target_path("steps_static");
  const Outcome native = run_native(command);
  Traced traced(command);
  ASSERT_TRUE(traced.ok());
  const Stepped got = step_all(traced, 1000000);
  EXPECT_GT(got.trace.size(), 10000u);
  EXPECT_EQ(got.outcome, native);
  // What sets the flags anew does not end the stepping.
  for (const char* behind : {"own_begin", "popped", "own_return", "own_end"})
    EXPECT_EQ(std::count(got.trace.begin(), got.trace.end(), traced.symbol(behind).value), 2)
        << behind;
}

// A program that steps itself, past sites.
TEST(OwnTrapFlag, TrapsAsWithoutTheAgent) {
  for (const char* name : {"steps", "steps_static"}) {
    const std::string command = target_path(name);
    const Outcome native = run_native(command);
    Traced traced(command);
    ASSERT_TRUE(traced.ok());
    std::vector<RecordId> sites;
    for (const char* place : {"own_steps", "own_begin", "own_hit", "popped", "own_return"})
      sites.push_back(traced.record(place, {.ignore_count = ~uint64_t{0}}));
    const TargetAddr begin = traced.symbol("own_begin");
    for (uint64_t offset : {0x1, 0x8, 0x28, 0x2a}) // pushfq, syscall, rep, call
      sites.push_back(traced.record(begin + offset, {.ignore_count = ~uint64_t{0}}));
    EXPECT_EQ(traced.run_to_end(), native) << name;
    for (RecordId id : sites)
      EXPECT_EQ(traced.hits(id), 2u) << name << " " << id;
  }
}

// A range that calls itself: the inner calls run at full speed, only the frame's own instructions
// are stepped.
TEST(RangeStep, RunsInnerCallsFreely) {
  const std::string command = target_path("count") + " 1 1";
  const Outcome native = run_native(command);
  Traced traced(command);
  ASSERT_TRUE(traced.ok());
  const RecordId entry = traced.record("recursive");
  Event e = traced.next(); // depth 9, the outermost
  const uint64_t begin = traced.symbol("recursive").value;
  uint64_t size = 0;
  for (const auto& s : traced.modules().map().main()->module->symbols().find("recursive"))
    size = s.size;
  ASSERT_GT(size, 0u);
  const uint64_t outer_rsp = traced.inferior().thread(e.thread)->registers.rsp;
  e = traced.next();
  ASSERT_EQ(e.fired, std::vector<RecordId>{entry});
  uint64_t back = 0;
  const ThreadView second = *traced.inferior().thread(e.thread);
  ASSERT_TRUE(traced.inferior().read_memory(TargetAddr(second.registers.rsp),
                                            {reinterpret_cast<uint8_t*>(&back), sizeof back}));
  EXPECT_GE(back, begin);
  EXPECT_LT(back, begin + size);
  (void)!traced.inferior().remove_record(entry);
  const RecordId returns = traced.record(TargetAddr(back), {.internal = true, .park_only = true});
  // From depth 8's entry through its inner calls, back into depth 9, and out of it.
  e = traced.next({.thread = e.thread,
                   .action = Action::kRange,
                   .range = {TargetAddr(begin), TargetAddr(begin + size)},
                   .step_over_calls = true});
  EXPECT_EQ(e.reason, StopReason::kStep);
  const ThreadView after = *traced.inferior().thread(e.thread);
  EXPECT_EQ(after.registers.rsp, outer_rsp + 8);
  EXPECT_TRUE(after.registers.rip < begin || after.registers.rip >= begin + size);
  EXPECT_EQ(traced.read_variable("deep"), 10);
  // Two frames' instructions, not ten frames'.
  EXPECT_LT(after.steps_taken, 60u);
  EXPECT_GT(after.steps_taken, 10u);
  (void)!traced.inferior().remove_record(returns);
  EXPECT_EQ(traced.run_to_end(), native);
}

} // namespace
} // namespace ddbg::engine::test
