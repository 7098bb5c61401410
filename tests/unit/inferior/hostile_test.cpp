// A target whose session says what no agent writes there. The words are written into the target's
// memory while it is stopped: the storm of them is tests/e2e/hostile_test.py.
#include "tests/unit/inferior/driver.h"

#include <csignal>
#include <cstddef>
#include <sys/wait.h>

namespace ddbg::engine::test {
namespace {

using namespace dune::session;

constexpr uint64_t kSlot0 = offsetof(Session, threads);
constexpr uint64_t kOwner = offsetof(Header, stop_owner);

struct Damage {
  const char* name;
  std::vector<std::pair<uint64_t, uint32_t>> words; // offset in the session, value
};
void PrintTo(const Damage& d, std::ostream* out) { *out << d.name; }

const Damage kDamages[] = {
    {"Slots", {{offsetof(Header, slots_in_use), 70000}}},
    {"Owner", {{kOwner, 500}}},
    {"State", {{kSlot0 + offsetof(ThreadSlot, state), 17}}},
    {"Reason", {{kSlot0 + offsetof(ThreadSlot, reason), 0x7777}, {kOwner, 1}}},
    {"Signal",
     {{kSlot0 + offsetof(ThreadSlot, reason), static_cast<uint32_t>(StopReason::kSignal)},
      {kSlot0 + offsetof(ThreadSlot, signal), 1'000'000'000},
      {kOwner, 1}}},
    {"Fired",
     {{kSlot0 + offsetof(ThreadSlot, reason), static_cast<uint32_t>(StopReason::kBreakpoint)},
      {kSlot0 + offsetof(ThreadSlot, fired_count), 2},
      {kSlot0 + offsetof(ThreadSlot, fired) + 4, 0xfffffff0},
      {kOwner, 1}}},
};

// A target that has stopped once, and whose end is seen to when the debugger has let go of it.
struct Victim {
  Traced traced{target_path("hostile") + " nothing 0"};
  pid_t pid = traced.inferior().pid();

  Victim() { traced.run_to_main(); }
  ~Victim() { ::kill(pid, SIGKILL); }

  void write(uint64_t offset, uint32_t value) {
    const TargetAddr at(traced.inferior().memory_map().session + offset);
    auto ok =
        traced.inferior().write_memory(at, {reinterpret_cast<uint8_t*>(&value), sizeof value});
    ASSERT_TRUE(ok) << ok.error().message;
  }
  uint32_t read_word(uint64_t offset) {
    const TargetAddr at(traced.inferior().memory_map().session + offset);
    uint32_t value = 0;
    EXPECT_TRUE(
        traced.inferior().read_memory(at, {reinterpret_cast<uint8_t*>(&value), sizeof value}));
    return value;
  }
  char state() {
    const std::string stat = file_text("/proc/" + std::to_string(pid) + "/stat");
    const size_t end = stat.rfind(')');
    return end == std::string::npos ? '-' : stat[end + 2];
  }
  std::string maps() { return file_text("/proc/" + std::to_string(pid) + "/maps"); }
};

class Corrupted : public testing::TestWithParam<Damage> {};
INSTANTIATE_TEST_SUITE_P(HostileSession, Corrupted, testing::ValuesIn(kDamages),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(Corrupted, EndsTheSessionAndLetsTheTargetGo) {
  Victim victim;
  Inferior& inferior = victim.traced.inferior();
  // The thread stays parked, so that what is written stays as it is.
  for (auto [offset, value] : GetParam().words)
    victim.write(offset, value);
  auto event = inferior.wait();
  ASSERT_TRUE(event) << event.error().message;
  EXPECT_EQ(event->kind, Event::Kind::kLost);
  EXPECT_NE(event->text.find("corrupted its session"), std::string::npos) << event->text;
  EXPECT_FALSE(inferior.alive());
  EXPECT_TRUE(victim.state() == 'R' || victim.state() == 'S') << victim.state();
  EXPECT_EQ(victim.maps().find("ddbg"), std::string::npos) << event->text << victim.maps();
}

TEST(HostileSession, ThreadThatClaimsAndNeverParksIsGivenUp) {
  Victim victim;
  Inferior& inferior = victim.traced.inferior();
  inferior.set_patience(std::chrono::milliseconds(300));
  ASSERT_TRUE(inferior.resume({}));
  victim.write(kOwner, 1);
  auto event = inferior.wait();
  ASSERT_TRUE(event) << event.error().message;
  EXPECT_EQ(event->kind, Event::Kind::kLost) << event->text;
  EXPECT_NE(event->text.find("does not stop"), std::string::npos) << event->text;
  EXPECT_EQ(victim.maps().find("ddbg"), std::string::npos) << event->text << victim.maps();
}

// Parked, and said to be running: it neither parks nor blocks.
TEST(HostileSession, ThreadThatCannotBeStoppedIsGivenUp) {
  Victim victim;
  Inferior& inferior = victim.traced.inferior();
  inferior.set_patience(std::chrono::milliseconds(300));
  victim.write(kSlot0 + offsetof(ThreadSlot, state), static_cast<uint32_t>(ThreadState::kRunning));
  victim.write(kOwner, kOwnedByFrontend);
  auto event = inferior.wait();
  ASSERT_TRUE(event) << event.error().message;
  EXPECT_EQ(event->kind, Event::Kind::kLost) << event->text;
  EXPECT_EQ(victim.maps().find("ddbg"), std::string::npos) << event->text << victim.maps();
}

// A stop of its own and Ctrl-C at once: neither is lost.
TEST(Interrupt, ComesWithAnEventThatWasFirst) {
  Victim victim;
  Inferior& inferior = victim.traced.inferior();
  RecordSpec internal;
  internal.internal = true;
  victim.traced.record("work", internal);
  ASSERT_TRUE(inferior.resume({}));
  while (victim.read_word(kOwner) == 0) // until the thread has claimed its stop
    ;
  bool asked = false;
  auto event = inferior.wait([&] { return !std::exchange(asked, true); });
  ASSERT_TRUE(event) << event.error().message;
  EXPECT_EQ(event->reason, StopReason::kBreakpoint);
  EXPECT_TRUE(event->interrupted);
}

// The keeper follows the thread that says it is about to call execve; its number is the target's.
TEST(HostileSession, AnotherProcessIsNotFollowed) {
  const pid_t bystander = fork();
  if (bystander == 0) {
    pause();
    _exit(0);
  }
  {
    Victim victim;
    Inferior& inferior = victim.traced.inferior();
    victim.write(kSlot0 + offsetof(ThreadSlot, tid), static_cast<uint32_t>(bystander));
    victim.write(kSlot0 + offsetof(ThreadSlot, reason), static_cast<uint32_t>(StopReason::kExec));
    victim.write(kOwner, 1);
    int polls = 0;
    (void)inferior.wait([&] { return ++polls > 1; });
    const std::string status = file_text("/proc/" + std::to_string(bystander) + "/status");
    EXPECT_NE(status.find("TracerPid:\t0\n"), std::string::npos) << status;
  }
  ::kill(bystander, SIGKILL);
  waitpid(bystander, nullptr, 0);
}

} // namespace
} // namespace ddbg::engine::test
