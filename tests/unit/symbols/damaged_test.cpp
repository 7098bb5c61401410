// Truncated and flipped files: an error or an answer, never a crash. Run under the asan preset too.
#include "tests/unit/symbols/exercise.h"
#include "tests/unit/symbols/sample.h"

#include <cstdio>
#include <filesystem>
#include <gtest/gtest.h>
#include <random>

namespace ddbg::symbols {
namespace {

using namespace test;

std::vector<std::byte> bytes_of(const std::string& text) {
  const auto* begin = reinterpret_cast<const std::byte*>(text.data());
  return {begin, begin + text.size()};
}

const char* const kSmall = "static int twice(int x) { return 2 * x; }\n"
                           "int f(int n) {\n  int s = 0;\n  for (int i = 0; i < n; i++) {\n"
                           "    int k = twice(i);\n    s += k;\n  }\n  return s;\n}\n"
                           "void _start(void) { f(3); for (;;) ; }\n";

std::string small_program(const std::string& dwarf) {
  return read_file(compiled("gcc -O1 -g " + dwarf + " -nostdlib -static -no-pie", kSmall, "c"));
}

TEST(DamagedElf, TruncatedAnywhereIsNoCrash) {
  const std::string good = small_program("-gdwarf-5");
  ASSERT_GT(good.size(), 1000u);
  size_t opened = 0, refused = 0;
  for (size_t size = 0; size < good.size(); size += 64)
    (exercise(bytes_of(good.substr(0, size))) ? opened : refused)++;
  EXPECT_GT(refused, 0u);
  EXPECT_GT(opened, 0u) << "a lost section table does not stop a program from running";
  EXPECT_TRUE(exercise(bytes_of(good)));
}

TEST(DamagedElf, RandomByteFlipsAreNoCrash) {
  const unsigned seed = std::random_device()();
  RecordProperty("seed", std::to_string(seed));
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  for (const char* dwarf : {"-gdwarf-4", "-gdwarf-5"}) {
    const std::string good = small_program(dwarf);
    for (int round = 0; round < 1500; round++) {
      std::string bad = good;
      const unsigned flips = 1 + random() % 8;
      for (unsigned i = 0; i < flips; i++)
        bad[random() % bad.size()] = static_cast<char>(random());
      exercise(bytes_of(bad));
      exercise_unwinding(bytes_of(bad));
    }
  }
}

// What the fuzzer found once, too.
TEST(DamagedElf, FuzzSeedsAreNoCrash) {
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(DDBG_FUZZ_SEEDS)) {
    SCOPED_TRACE(entry.path());
    const std::vector<std::byte> image = bytes_of(read_file(entry.path()));
    if (exercise(image))
      exercise_unwinding(image);
    files++;
  }
  EXPECT_GT(files, 10u);
}

} // namespace
} // namespace ddbg::symbols
