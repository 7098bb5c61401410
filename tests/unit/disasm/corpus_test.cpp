// Every instruction of real programs: lengths against objdump's, and whether it can be displaced.
#include "disasm/decode.h"
#include "disasm/relocate.h"
#include "libdune/arch/access_size.h"
#include "objdump.h"

#include <algorithm>
#include <cstdio>
#include <gtest/gtest.h>
#include <map>
#include <string>
#include <unistd.h>
#include <vector>

namespace dune::disasm::test {

namespace {

enum class Text : uint8_t {
  kCode,     // nothing but instructions
  kWithData, // hand-written assembly puts tables between functions, which objdump lists as code
};

struct CorpusFile {
  const char* path;
  Text text;
};

// The address ranges of functions, by their frame descriptions, sorted. Tables have none.
std::vector<std::pair<uint64_t, uint64_t>> frame_ranges(const std::string& file) {
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  auto close = [](FILE* f) { pclose(f); };
  std::unique_ptr<FILE, decltype(close)> pipe(
      popen(("LC_ALL=C readelf -wf " + file + " 2>/dev/null").c_str(), "r"), close);
  char line[512];
  while (pipe && fgets(line, sizeof line, pipe.get())) {
    unsigned long begin, end;
    const char* at = strstr(line, " pc=");
    if (at && strstr(line, " FDE ") && sscanf(at, " pc=%lx..%lx", &begin, &end) == 2)
      ranges.emplace_back(begin, end);
  }
  std::sort(ranges.begin(), ranges.end());
  return ranges;
}

class Corpus : public testing::TestWithParam<CorpusFile> {
protected:
  void SetUp() override {
    if (access(GetParam().path, R_OK) != 0)
      GTEST_SKIP() << GetParam().path << " is not installed";
    if (GetParam().text == Text::kWithData) {
      functions_ = frame_ranges(GetParam().path);
      ASSERT_GT(functions_.size(), 1000u) << "readelf listed no frames";
    }
  }

  // Within a function, where that matters?
  bool is_code(const Listed& listed) const {
    if (GetParam().text == Text::kCode)
      return true;
    auto behind = std::upper_bound(functions_.begin(), functions_.end(),
                                   std::pair(listed.address, ~uint64_t{0}));
    return behind != functions_.begin() &&
           listed.address + listed.length <= std::prev(behind)->second;
  }

  std::vector<std::pair<uint64_t, uint64_t>> functions_;
};

// What objdump prints for bytes that it does not take for an instruction, or for a prefix that it
// splits from the instruction behind it.
bool is_guess(const Listed& listed) {
  static constexpr std::string_view kPrefixes[] = {
      "rex", "data16", "addr32", "cs", "ds", "es", "ss", "fs", "gs", "lock", "repz", "repnz"};
  if (listed.text.find("(bad)") != std::string_view::npos || listed.text.empty() ||
      listed.text.substr(0, 5) == ".byte")
    return true;
  return std::any_of(std::begin(kPrefixes), std::end(kPrefixes), [&](std::string_view prefix) {
    return listed.length == 1 && listed.text.substr(0, prefix.size()) == prefix;
  });
}

TEST_P(Corpus, LengthsAreObjdumps) {
  size_t guesses = 0, wrong = 0;
  size_t count = for_each_listed(GetParam().path, "", [&](const Listed& listed) {
    if (!is_code(listed) || is_guess(listed)) {
      ++guesses;
      return;
    }
    auto one = decode(listed.bytes(), TargetAddr(listed.address));
    if (one && one->length == listed.length)
      return;
    if (++wrong <= 20)
      ADD_FAILURE() << std::hex << listed.address << ": " << listed.text << ": objdump "
                    << listed.length << ", we " << (one ? int{one->length} : -1);
  });
  EXPECT_EQ(wrong, 0u);
  EXPECT_GT(count, 10000u) << "objdump listed too little";
  printf("%s: %zu instructions, %zu of them data or guesses of objdump's\n", GetParam().path, count,
         guesses);
}

// Those of rip-relative operands, which decode() knows; the way to name a place changes no size.
TEST_P(Corpus, AccessSizesAreTheDecoders) {
  size_t known = 0, unknown = 0, wrong = 0;
  for_each_listed(GetParam().path, "", [&](const Listed& listed) {
    if (!is_code(listed) || is_guess(listed))
      return;
    const auto one = decode(listed.bytes(), TargetAddr(listed.address));
    if (!one || !one->rip_operand_size)
      return;
    const uint32_t size = access_size(listed.bytes());
    size ? ++known : ++unknown;
    if (size && size != one->rip_operand_size && ++wrong <= 20)
      ADD_FAILURE() << listed.text << ": " << size << " instead of " << one->rip_operand_size;
  });
  EXPECT_EQ(wrong, 0u);
  EXPECT_GT(known, 1000u);
  printf("%s: %zu known, %zu not\n", GetParam().path, known, unknown);
}

TEST_P(Corpus, WhatCannotBeDisplacedIsOfAKnownReason) {
  std::map<Refusal, std::pair<size_t, std::string>> refused;
  size_t count = for_each_listed(GetParam().path, "", [&](const Listed& listed) {
    if (!is_code(listed) || is_guess(listed))
      return;
    auto plan = plan_relocation(listed.bytes(), TargetAddr(listed.address));
    if (plan) {
      if (plan->source_length() != listed.length)
        ADD_FAILURE() << listed.text;
      return;
    }
    auto& entry = refused[plan.error().why];
    if (entry.first++ == 0)
      entry.second = listed.text;
  });
  EXPECT_GT(count, 10000u);
  static constexpr Refusal kKnown[] = {Refusal::kTransaction};
  for (const auto& [why, entry] : refused) {
    printf("%s: %zu x %s, first: %s\n", GetParam().path, entry.first, refusal_name(why),
           entry.second.c_str());
    EXPECT_NE(std::find(std::begin(kKnown), std::end(kKnown), why), std::end(kKnown))
        << refusal_text(why);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Debian, Corpus,
    testing::Values(CorpusFile{"/lib/x86_64-linux-gnu/libc.so.6", Text::kCode},
                    CorpusFile{"/lib64/ld-linux-x86-64.so.2", Text::kCode},
                    CorpusFile{"/lib/x86_64-linux-gnu/libstdc++.so.6", Text::kCode},
                    CorpusFile{"/lib/x86_64-linux-gnu/libcrypto.so.3", Text::kWithData},
                    CorpusFile{"/usr/bin/python3", Text::kCode}),
    [](const auto& info) {
      std::string name = info.param.path;
      name = name.substr(name.rfind('/') + 1);
      std::replace_if(
          name.begin(), name.end(), [](char c) { return !isalnum(c); }, '_');
      return name;
    });

} // namespace

} // namespace dune::disasm::test
