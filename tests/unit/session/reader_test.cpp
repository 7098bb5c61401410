// What a target can write into its session, and what comes out of the reader.
#include "libdune/session/reader.h"

#include <cstring>
#include <gtest/gtest.h>
#include <memory>
#include <random>

namespace dune::session {
namespace {

struct SessionReaderTest : testing::Test {
  std::unique_ptr<Session> session = std::make_unique<Session>();
  SessionReader reader{*session};
  ThreadSlot& slot = session->threads[0];

  SessionReaderTest() { session->header.slots_in_use = 1; }
  void set_reason(StopReason reason) { slot.reason = reason; }
};

TEST_F(SessionReaderTest, WhatAnAgentWritesIsNoDamage) {
  EXPECT_EQ(reader.slot_count(), 1u);
  EXPECT_EQ(reader.stop_owner().kind, StopOwner::Kind::kNobody);
  session->header.stop_owner = kOwnedByFrontend;
  EXPECT_EQ(reader.stop_owner().kind, StopOwner::Kind::kFrontend);
  session->header.stop_owner = 1;
  EXPECT_EQ(reader.stop_owner().kind, StopOwner::Kind::kThread);
  EXPECT_EQ(reader.stop_owner().slot, 0u);
  set_reason(StopReason::kBreakpoint);
  slot.fired_count = 2;
  slot.fired[1] = kRecords - 1;
  EXPECT_EQ(reader.stop(0).fired[1], kRecords - 1);
  set_reason(StopReason::kSignal);
  slot.signal = 64;
  EXPECT_EQ(reader.stop(0).signal, 64u);
  EXPECT_FALSE(reader.damage());
}

TEST_F(SessionReaderTest, MoreSlotsThanThereAre) {
  session->header.slots_in_use = kThreadSlots + 1;
  EXPECT_EQ(reader.slot_count(), kThreadSlots);
  ASSERT_TRUE(reader.damage());
  EXPECT_EQ(reader.damage()->detail, kThreadSlots + 1);
}

TEST_F(SessionReaderTest, OwnerWithoutASlot) {
  session->header.stop_owner = 2;
  EXPECT_EQ(reader.stop_owner().kind, StopOwner::Kind::kNobody);
  EXPECT_TRUE(reader.damage());
}

TEST_F(SessionReaderTest, UnknownState) {
  slot.state = static_cast<uint32_t>(ThreadState::kInCall) + 1;
  EXPECT_EQ(reader.state(0), ThreadState::kFree);
  EXPECT_TRUE(reader.damage());
}

TEST_F(SessionReaderTest, UnknownReason) {
  for (uint32_t reason : {0u, 1u, 9u, 0xffffffffu}) {
    SessionReader fresh(*session);
    set_reason(static_cast<StopReason>(reason));
    EXPECT_EQ(fresh.stop(0).reason, StopReason::kNone) << reason;
    EXPECT_TRUE(fresh.damage()) << reason;
  }
}

TEST_F(SessionReaderTest, SignalOutOfRange) {
  set_reason(StopReason::kSignal);
  for (uint32_t signal : {0u, kSignals, 0x80000001u}) {
    SessionReader fresh(*session);
    slot.signal = signal;
    EXPECT_EQ(fresh.stop(0).signal, 0u);
    EXPECT_TRUE(fresh.damage()) << signal;
  }
}

TEST_F(SessionReaderTest, RecordOutOfRange) {
  set_reason(StopReason::kWatchpoint);
  for (uint32_t count : {0u, kMaxFired + 1, 0xffffffffu}) {
    SessionReader fresh(*session);
    slot.fired_count = count;
    EXPECT_EQ(fresh.stop(0).fired_count, 0u);
    EXPECT_TRUE(fresh.damage()) << count;
  }
  slot.fired_count = 1;
  slot.fired[0] = kRecords;
  EXPECT_EQ(reader.stop(0).fired_count, 0u);
  EXPECT_TRUE(reader.damage());
}

TEST_F(SessionReaderTest, WatchIsByPageIfItHasNoRegister) {
  EXPECT_FALSE(reader.is_watched_by_page(7)); // not in a guest
  session->header.watch_places[0].record = 7 + 1;
  session->header.watch_places[0].by_register = 1;
  session->header.watch_places[3].record = 8 + 1;
  EXPECT_FALSE(reader.is_watched_by_page(7));
  EXPECT_TRUE(reader.is_watched_by_page(8));
}

TEST_F(SessionReaderTest, XsaveImageIsBounded) {
  slot.fpstate_size = 0xffffffff;
  EXPECT_EQ(reader.xsave_image(0).size, XsaveImage::kMaxSize);
}

TEST_F(SessionReaderTest, UnknownNoticeSaysNothing) {
  Notice& n = session->notices[3];
  n.kind = static_cast<NoticeKind>(77);
  EXPECT_FALSE(reader.notice(3));
  n.sequence = 4;
  ASSERT_TRUE(reader.notice(3));
  EXPECT_EQ(reader.notice(3)->kind, NoticeKind::kNone);
  EXPECT_FALSE(reader.notice(3 + kNotices)) << "another round of the ring";
}

TEST_F(SessionReaderTest, TheFirstDamageIsKept) {
  slot.state = 7;
  (void)reader.state(0);
  session->header.slots_in_use = 5000;
  (void)reader.slot_count();
  ASSERT_TRUE(reader.damage());
  EXPECT_EQ(reader.damage()->detail, 7);
}

TEST(SessionReader, RandomContentIsNeverOutOfRange) {
  auto session = std::make_unique<Session>();
  const unsigned seed = std::random_device()();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 20; ++round) {
    auto* words = reinterpret_cast<uint32_t*>(session.get());
    for (size_t i = 0; i < sizeof(Session) / 4; ++i)
      words[i] = round % 2 ? random() % 12 : random();
    SessionReader reader(*session);
    ASSERT_LE(reader.slot_count(), kThreadSlots);
    ASSERT_LT(reader.stop_owner().slot, kThreadSlots);
    for (uint32_t i = 0; i < kThreadSlots; ++i) {
      ASSERT_LE(reader.state(i), ThreadState::kInCall);
      const StopWords stop = reader.stop(i);
      ASSERT_LE(stop.fired_count, kMaxFired);
      for (uint32_t n = 0; n < stop.fired_count; ++n)
        ASSERT_LT(stop.fired[n], kRecords);
      ASSERT_LT(stop.signal, kSignals);
      ASSERT_LE(reader.xsave_image(i).size, XsaveImage::kMaxSize);
    }
    for (uint32_t i = 0; i < kNotices; ++i)
      ASSERT_LE(reader.notice(i).value_or(NoticeWords{}).kind, NoticeKind::kExiting);
  }
}

} // namespace
} // namespace dune::session
