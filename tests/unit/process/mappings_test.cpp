#include "libdune/process/mappings.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <random>
#include <vector>

namespace dune::process {
namespace {

constexpr TargetAddr page_at(uint64_t n) { return TargetAddr(n * kPageSize); }
constexpr TargetRange pages(uint64_t from, uint64_t to) { return {page_at(from), page_at(to)}; }

// Against one number per page.
TEST(Mappings, KnowsTheLastThatWasSaidOfEachPage) {
  constexpr uint64_t kPages = 64;
  constexpr uint64_t kUnknown = ~0ull;
  std::mt19937 random(1);
  std::vector<Mapped> pool(kPages);
  Mappings m(pool);
  std::vector<uint64_t> expected(kPages, kUnknown);
  for (int round = 0; round < 20'000; ++round) {
    uint64_t from = random() % kPages, to = random() % (kPages + 1);
    const uint64_t rights = random() % 3;
    if (random() % 2) {
      m.assign(pages(from, to), rights);
      std::fill(expected.begin() + long(from), expected.begin() + long(std::max(from, to)), rights);
    } else {
      m.forget(pages(from, to));
      std::fill(expected.begin() + long(from), expected.begin() + long(std::max(from, to)),
                kUnknown);
    }
    for (uint64_t i = 0; i < kPages; ++i) {
      const Mapped* found = m.find(page_at(i) + 1);
      ASSERT_EQ(found ? found->rights : kUnknown, expected[i]) << round << ", page " << i;
    }
    const auto all = m.all();
    for (size_t i = 1; i < all.size(); ++i)
      ASSERT_TRUE(
          all[i - 1].range.end < all[i].range.begin ||
          (all[i - 1].range.end == all[i].range.begin && all[i - 1].rights != all[i].rights));
  }
}

TEST(Mappings, FullPoolKeepsWhatIsNewest) {
  Mapped pool[2];
  Mappings m(pool);
  m.assign(pages(0, 1), 1);
  m.assign(pages(2, 10), 1);
  m.forget(pages(4, 5)); // two pieces, and room for one
  EXPECT_TRUE(m.find(page_at(3)));
  EXPECT_FALSE(m.find(page_at(4)));
  EXPECT_FALSE(m.find(page_at(5)));
  m.assign(pages(20, 21), 7);
  ASSERT_TRUE(m.find(page_at(20)));
  EXPECT_EQ(*m.find(page_at(20)), (Mapped{pages(20, 21), 7}));
  EXPECT_FALSE(m.find(page_at(0)));
}

TEST(MapsParser, ReadsWhatTheKernelWrites) {
  constexpr char kText[] = "00400000-00401000 r--p 00000000 08:01 1234      /bin/a-b r-xp c\n"
                           "7f0000000000-7f0000003000 -w-s 00000000 00:00 0 \n"
                           "7ffff000-7ffff1000 r-xp 0ff00000 00:00 0   [a]\n"
                           "7ffffffde000-7ffffffff000 ---p 00000000 00:00 0   [stack]\n";
  MapsParser parser;
  std::vector<Mapped> found;
  for (char c : std::string(kText))
    if (parser.feed(c))
      found.push_back(parser.mapped());
  const auto row = [](uint64_t begin, uint64_t end, uint64_t rights) {
    return Mapped{{TargetAddr(begin), TargetAddr(end)}, rights};
  };
  EXPECT_EQ(found, (std::vector{row(0x400000, 0x401000, kPageRead),
                                row(0x7f0000000000, 0x7f0000003000, kPageWrite),
                                row(0x7ffff000, 0x7ffff1000, kPageRead | kPageExecute),
                                row(0x7ffffffde000, 0x7ffffffff000, 0)}));
}

} // namespace
} // namespace dune::process
