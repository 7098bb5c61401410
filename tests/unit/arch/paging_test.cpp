// The guest's page tables, walked here as the processor would.
#include "libdune/arch/paging.h"

#include <gtest/gtest.h>

#include <sys/mman.h>
#include <vector>

namespace dune {
namespace {

constexpr uint64_t kPool = 256 * kPageSize;
constexpr GuestPhysAddr kPhysical(0x40000000), kMemory(0x80000000);
constexpr TargetAddr kPage(0x7f1234567000);
constexpr uint64_t kAll = kPageRead | kPageWrite | kPageExecute;

class Paging : public testing::Test {
protected:
  void SetUp() override {
    pool_ = mmap(nullptr, kPool, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(pool_, MAP_FAILED);
    const TargetAddr begin(reinterpret_cast<uint64_t>(pool_));
    tables_ = PageTables({begin, begin + kPool}, kPhysical);
  }
  void TearDown() override { munmap(pool_, kPool); }

  // What the processor finds at an address: the entry that maps it, with that of a large page made
  // one of the small page; 0: nothing.
  PageEntry walk(TargetAddr a, GuestPhysAddr root) const {
    constexpr PageEntry kLarge = 1 << 7;
    uint64_t table = root.value;
    for (int level = 3; level >= 0; --level) {
      const auto* entries =
          reinterpret_cast<const PageEntry*>(static_cast<char*>(pool_) + (table - kPhysical.value));
      const PageEntry e = entries[a.value >> (12 + 9 * level) & 511];
      if (!(e & kPageRead))
        return 0;
      if (level == 0)
        return e;
      if (e & kLarge)
        return (e & ~kLarge) + (a.value & (PageTables::size_of(level) - kPageSize));
      table = e & kEntryAddress;
    }
    return 0;
  }
  PageEntry walk(TargetAddr a) const { return walk(a, tables_.root()); }
  static uint64_t address(PageEntry e) { return e & kEntryAddress; }
  Status set_policy(TargetAddr page, PageEntry allowed) {
    return tables_.change_entry(page, [=](PageEntry e) { return with_policy(e, allowed); });
  }

  void* pool_ = nullptr;
  PageTables tables_;
};

TEST_F(Paging, MapsAndClears) {
  ASSERT_TRUE(tables_.map(kPage, kMemory, kPageRead | kPageExecute));
  EXPECT_EQ(address(walk(kPage)), kMemory.value);
  EXPECT_FALSE(walk(kPage) & kPageWrite);
  EXPECT_FALSE(walk(kPage) & kPageExecute); // the bit says NX
  EXPECT_EQ(walk(kPage + kPageSize), 0u);
  tables_.clear({kPage, kPage + kPageSize});
  EXPECT_EQ(walk(kPage), 0u);
}

TEST_F(Paging, PolicyOutlivesTheMapping) {
  ASSERT_TRUE(set_policy(kPage, kEntryAllowRead | kEntryAllowExecute));
  EXPECT_EQ(walk(kPage), 0u);
  ASSERT_TRUE(tables_.map(kPage, kMemory, kAll));
  EXPECT_TRUE(walk(kPage) & kPageRead);
  EXPECT_FALSE(walk(kPage) & kPageWrite);
  EXPECT_FALSE(walk(kPage) & kPageUser);
  ASSERT_TRUE(set_policy(kPage, kEntryAllowRead | kEntryAllowWrite | kEntryAllowRing3));
  EXPECT_TRUE(walk(kPage) & kPageWrite);
  EXPECT_TRUE(walk(kPage) & kPageUser);
  tables_.clear({kPage, kPage + kPageSize});
  EXPECT_EQ(walk(kPage), 0u);
  ASSERT_TRUE(tables_.map(kPage, kMemory, kPageRead));
  EXPECT_TRUE(walk(kPage) & kPageUser);
  EXPECT_FALSE(walk(kPage) & kPageWrite); // the mapping has no such right now
  ASSERT_TRUE(tables_.change_entry(kPage, without_policy));
  EXPECT_EQ(address(walk(kPage)), kMemory.value);
  EXPECT_FALSE(walk(kPage) & kPageUser);
}

TEST_F(Paging, DirtyIsRememberedWhenTheMappingGoes) {
  ASSERT_TRUE(tables_.map(kPage, kMemory, kAll));
  ASSERT_TRUE(tables_.change_entry(
      kPage, [](PageEntry e) { return with_policy(without_age(e), kEntryAllowed); }));
  PageEntry* e = tables_.find_entry(kPage);
  ASSERT_TRUE(e);
  EXPECT_FALSE(*e & (kEntryDirty | kEntryWasDirty));
  *e |= kEntryAccessed | kEntryDirty; // as the processor does it
  tables_.clear({kPage, kPage + kPageSize});
  EXPECT_TRUE(*e & kEntryWasDirty);
  ASSERT_TRUE(tables_.map(kPage, kMemory, kAll));
  EXPECT_TRUE(*e & kEntryWasDirty);
  EXPECT_FALSE(*e & kEntryDirty);
}

TEST_F(Paging, RefusedIsWhatThePolicySays) {
  constexpr uint64_t kWrite = 2, kRing3 = 4, kFetch = 16;
  EXPECT_FALSE(policy_refuses(0, kWrite));
  EXPECT_TRUE(policy_refuses(0, kRing3)); // nothing is ring 3's that is not said to be
  const PageEntry read = with_policy(0, kEntryAllowRead);
  EXPECT_FALSE(policy_refuses(read, 0));
  EXPECT_TRUE(policy_refuses(read, kWrite));
  EXPECT_TRUE(policy_refuses(read, kFetch));
  EXPECT_TRUE(policy_refuses(read, kRing3));
  EXPECT_TRUE(policy_refuses(with_policy(0, 0), 0));
}

TEST_F(Paging, LargePageGoesAsAWholeAndIsMadeSmallByWhatIsSaidOfAPart) {
  constexpr uint64_t kLarge = PageTables::kLargePage;
  const TargetAddr begin = kPage.align_down(kLarge);
  ASSERT_TRUE(tables_.map_large(begin, kMemory, kPageRead | kPageWrite));
  EXPECT_EQ(address(walk(begin + 77 * kPageSize)), kMemory.value + 77 * kPageSize);
  EXPECT_TRUE(tables_.mapped(begin + kLarge - kPageSize));
  EXPECT_FALSE(tables_.find_entry(begin));
  ASSERT_TRUE(set_policy(begin + kPageSize, kEntryAllowRead));
  for (uint64_t i = 0; i < 512; ++i) {
    const PageEntry e = walk(begin + i * kPageSize);
    EXPECT_EQ(address(e), kMemory.value + i * kPageSize);
    EXPECT_EQ(bool(e & kPageWrite), i != 1) << i;
    EXPECT_TRUE(e & kPageExecute) << i; // NX as before
  }
  ASSERT_TRUE(tables_.map_large(begin + kLarge, kMemory, kAll));
  tables_.clear({begin + kLarge + kPageSize, begin + kLarge + 2 * kPageSize});
  EXPECT_EQ(walk(begin + kLarge), 0u);
}

TEST_F(Paging, ViewHasWhatAllHaveButForItsOwn) {
  constexpr TargetAddr kFar(0x1000);
  ASSERT_TRUE(tables_.map(kPage, kMemory, kAll));
  ASSERT_TRUE(tables_.open_view(7));
  const GuestPhysAddr root = tables_.root(7);
  EXPECT_NE(root, tables_.root());
  EXPECT_EQ(tables_.view_of(root), 7u);
  EXPECT_EQ(tables_.view_of(tables_.root()), PageTables::kViews);
  EXPECT_EQ(walk(kPage, root), walk(kPage));
  const auto forbid = [](PageEntry e) { return with_policy(e, kEntryAllowRead) | kEntryOfView; };
  ASSERT_TRUE(tables_.change_entry_in(7, kPage, forbid));
  EXPECT_FALSE(walk(kPage, root) & kPageWrite);
  EXPECT_TRUE(walk(kPage) & kPageWrite);
  // What comes for all afterwards, also where it has tables of its own now.
  ASSERT_TRUE(tables_.map(kFar, kMemory, kAll));
  ASSERT_TRUE(tables_.map(kPage + kPageSize, kMemory + kPageSize, kAll));
  EXPECT_EQ(walk(kFar, root), walk(kFar));
  EXPECT_EQ(walk(kPage + kPageSize, root), walk(kPage + kPageSize));
  ASSERT_TRUE(set_policy(kPage + kPageSize, 0));
  EXPECT_EQ(walk(kPage + kPageSize, root), 0u);
  ASSERT_TRUE(set_policy(kPage, kEntryAllowed));
  EXPECT_FALSE(walk(kPage, root) & kPageWrite); // its own
  tables_.clear({kPage, kPage + 2 * kPageSize});
  EXPECT_EQ(walk(kPage, root), 0u);
  ASSERT_TRUE(tables_.map(kPage, kMemory, kAll));
  EXPECT_TRUE(walk(kPage, root) & kPageRead);
  EXPECT_FALSE(walk(kPage, root) & kPageWrite);
  tables_.close_view(7);
  EXPECT_EQ(walk(kPage, root), walk(kPage));
}

TEST_F(Paging, ElsewhereIsInDoubtWhenTheMappingGoes) {
  ASSERT_TRUE(tables_.map(kPage, kMemory, kAll));
  const PageEntry elsewhere =
      with_policy(kEntryPolicy | kEntryGiven | (kMemory.value + 0x5000), kEntryAllowRead) |
      kEntryOfView | kEntryElsewhere;
  ASSERT_TRUE(tables_.change_entry_in(0, kPage, [=](PageEntry) { return elsewhere; }));
  const GuestPhysAddr root = tables_.root(0);
  EXPECT_EQ(address(walk(kPage, root)), kMemory.value + 0x5000);
  ASSERT_TRUE(tables_.map(kPage, kMemory + 0x9000, kAll)); // not its business
  EXPECT_EQ(address(walk(kPage, root)), kMemory.value + 0x5000);
  tables_.clear({kPage, kPage + kPageSize});
  EXPECT_EQ(walk(kPage, root), 0u);
  const PageEntry* e = tables_.find_leaf(root, kPage).entry;
  ASSERT_TRUE(e);
  EXPECT_EQ(address(*e), kMemory.value + 0x5000);
  EXPECT_FALSE(*e & kEntryGiven);
}

TEST_F(Paging, PageOfOneGigabyteIsMadeSmallStepByStep) {
  constexpr uint64_t kLarge = PageTables::kLargePage, kHuge = PageTables::size_of(2);
  const TargetAddr begin = kPage.align_down(kHuge);
  ASSERT_TRUE(tables_.map_large(begin, kMemory, kAll, 2));
  EXPECT_EQ(address(walk(begin + kHuge - kPageSize)), kMemory.value + kHuge - kPageSize);
  EXPECT_EQ(tables_.find_leaf(tables_.root(), kPage).level, 2);
  ASSERT_TRUE(set_policy(begin + 3 * kLarge + kPageSize, kEntryAllowRead));
  EXPECT_EQ(tables_.find_leaf(tables_.root(), begin + 2 * kLarge).level, 1);
  EXPECT_EQ(tables_.find_leaf(tables_.root(), begin + 3 * kLarge).level, 0);
  for (uint64_t at = 0; at < kHuge; at += kPageSize) {
    const PageEntry e = walk(begin + at);
    ASSERT_EQ(address(e), kMemory.value + at);
    ASSERT_EQ(bool(e & kPageWrite), at != 3 * kLarge + kPageSize);
  }
  tables_.clear({begin, begin + kPageSize});
  EXPECT_EQ(walk(begin + kPageSize), 0u);
  EXPECT_EQ(address(walk(begin + kLarge)), kMemory.value + kLarge);
}

TEST_F(Paging, ClosedViewGivesItsTablesBack) {
  ASSERT_TRUE(tables_.map(kPage, kMemory, kAll));
  const auto forbid = [](PageEntry e) { return with_policy(e, kEntryAllowRead) | kEntryOfView; };
  for (uint32_t n = 0; n < 2 * kPool / kPageSize; ++n) {
    ASSERT_TRUE(tables_.open_view(n % 2)) << n;
    ASSERT_TRUE(tables_.change_entry_in(n % 2, kPage, forbid)) << n;
    ASSERT_TRUE(tables_.change_entry_in(n % 2, TargetAddr(0x1000), forbid)) << n;
    EXPECT_FALSE(tables_.has_room_in(n % 2, kPage, 1));
    EXPECT_FALSE(walk(kPage, tables_.root(n % 2)) & kPageWrite);
    tables_.close_view(n % 2);
    if (n % 3 == 0)
      tables_.reuse_closed();
    EXPECT_TRUE(tables_.has_room_in(n % 2, kPage, 2));
    EXPECT_EQ(walk(kPage, tables_.root(n % 2)), walk(kPage));
  }
  // One that was a table of a view says nothing of that.
  ASSERT_TRUE(tables_.map(TargetAddr(0x7f0000000000), kMemory, kAll));
  EXPECT_EQ(walk(TargetAddr(0x7f0000000000 + kPageSize)), 0u);
}

// One that lies elsewhere as a whole.
class LargePageOfView : public Paging, public testing::WithParamInterface<int> {
protected:
  void SetUp() override {
    Paging::SetUp();
    ASSERT_TRUE(tables_.map(kPage, kMemory, kAll));
    ASSERT_TRUE(tables_.open_view(3));
    ASSERT_TRUE(tables_.has_room_in(3, kPage, level_));
    const PageEntry e =
        with_policy(kEntryPolicy | kEntryGiven | kEntryGivenWrite | kElsewhere.value,
                    kEntryAllowed) |
        kEntryOfView | kEntryElsewhere | kEntryLarge;
    ASSERT_TRUE(tables_.change_entry_in(
        3, kPage, [=](PageEntry) { return e; }, level_));
  }
  PageEntry seen(TargetAddr a) const { return walk(a, tables_.root(3)); }
  int level_at(TargetAddr a) const { return tables_.find_leaf(tables_.root(3), a).level; }

  static constexpr GuestPhysAddr kElsewhere{0x4000000000};
  const int level_ = GetParam();
  const uint64_t size_ = PageTables::size_of(level_);
  const TargetAddr begin_ = kPage.align_down(size_);
};
INSTANTIATE_TEST_SUITE_P(Levels, LargePageOfView, testing::Values(1, 2));

TEST_P(LargePageOfView, IsTheViewsAlone) {
  EXPECT_EQ(level_at(kPage), level_);
  EXPECT_EQ(address(seen(begin_)), kElsewhere.value);
  EXPECT_EQ(address(seen(begin_ + size_ - kPageSize)), kElsewhere.value + size_ - kPageSize);
  EXPECT_EQ(address(walk(kPage)), kMemory.value);
  // Whatever comes and goes there for all is not its business, tables included.
  ASSERT_TRUE(tables_.map(begin_, kMemory, kAll));
  ASSERT_TRUE(tables_.map(begin_ + size_ - kPageSize, kMemory, kAll));
  ASSERT_TRUE(set_policy(kPage, 0));
  EXPECT_EQ(address(seen(kPage)), kElsewhere.value + (kPage - begin_));
  EXPECT_EQ(level_at(kPage), level_);
  // And beside it the view has what all have.
  ASSERT_TRUE(tables_.map(begin_ + size_, kMemory + kPageSize, kAll));
  EXPECT_EQ(seen(begin_ + size_), walk(begin_ + size_));
}

TEST_P(LargePageOfView, IsInDoubtAsAWhole) {
  tables_.clear({kPage, kPage + kPageSize});
  EXPECT_EQ(seen(begin_), 0u);
  const PageTables::Leaf leaf = tables_.find_leaf(tables_.root(3), kPage);
  EXPECT_EQ(leaf.level, level_);
  EXPECT_EQ(address(*leaf.entry), kElsewhere.value);
  EXPECT_TRUE(*leaf.entry & kEntryLarge);
  ASSERT_TRUE(tables_.map(kPage, kMemory, kAll));
  EXPECT_EQ(seen(kPage), 0u);
  const auto give = [](PageEntry e) { return effective(e | kEntryGiven); };
  ASSERT_TRUE(tables_.change_entry_in(3, kPage, give, level_));
  EXPECT_EQ(address(seen(kPage)), kElsewhere.value + (kPage - begin_));
  EXPECT_FALSE(seen(kPage) & kPageWrite);
}

TEST_P(LargePageOfView, IsMadeSmallByWhatIsSaidOfAPart) {
  PageEntry* e = tables_.find_leaf(tables_.root(3), kPage).entry;
  *e |= kEntryAccessed | kEntryDirty; // as the processor does it
  const auto forbid = [](PageEntry now) { return with_policy(now, kEntryAllowRead); };
  ASSERT_TRUE(tables_.change_entry_in(3, kPage, forbid));
  EXPECT_EQ(level_at(kPage), 0);
  EXPECT_EQ(level_at(begin_ + size_ - kPageSize), level_ - 1);
  for (uint64_t at = 0; at < size_; at += kPageSize) {
    const PageEntry now = seen(begin_ + at);
    ASSERT_EQ(address(now), kElsewhere.value + at);
    ASSERT_TRUE(now & kEntryDirty);
    ASSERT_EQ(bool(now & kPageWrite), begin_ + at != kPage);
  }
  EXPECT_FALSE(tables_.has_room_in(3, kPage, level_));
  EXPECT_TRUE(tables_.has_room_in(3, begin_ + size_, level_));
  tables_.close_view(3);
  EXPECT_EQ(seen(kPage), walk(kPage));
  EXPECT_EQ(seen(begin_), walk(begin_));
}

TEST_P(LargePageOfView, GoesWithTheViewOrByItself) {
  tables_.follow_in(3, begin_, level_);
  EXPECT_EQ(seen(kPage), walk(kPage));
  EXPECT_EQ(seen(begin_), walk(begin_));
  ASSERT_TRUE(tables_.map(begin_, kMemory, kAll));
  EXPECT_EQ(seen(begin_), walk(begin_));
  SetUp();
  tables_.close_view(3);
  EXPECT_EQ(seen(kPage), walk(kPage));
  ASSERT_TRUE(tables_.map(begin_ + size_ - kPageSize, kMemory, kAll));
  EXPECT_EQ(seen(begin_ + size_ - kPageSize), walk(begin_ + size_ - kPageSize));
}

TEST_F(Paging, FullPoolIsAnError) {
  Status ok;
  uint64_t n = 0;
  for (; ok && n < 1000; ++n)
    ok = tables_.map(TargetAddr(n * PageTables::kLargePage), kMemory, kAll);
  ASSERT_FALSE(ok);
  EXPECT_EQ(ok.error().code, Errc::kExhausted);
  EXPECT_GT(n, kPool / kPageSize / 2);
}

} // namespace
} // namespace dune
