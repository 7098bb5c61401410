#include "dtrace-lite/ddbg/evaluation.h"
#include "dtrace-lite/ddbg/text.h"

#include <gtest/gtest.h>

namespace ddbg::ui {
namespace {

TEST(ParseInteger, DecimalHexAndRange) {
  EXPECT_EQ(parse_integer("42").value_or(0), 42);
  EXPECT_EQ(parse_integer("-1").value_or(0), -1);
  EXPECT_EQ(parse_integer("0xffffffffffffffff").value_or(0), -1);
  EXPECT_FALSE(parse_integer(""));
  EXPECT_FALSE(parse_integer("-"));
  EXPECT_FALSE(parse_integer("12a"));
  EXPECT_FALSE(parse_integer("99999999999999999999"));
}

TEST(ParseNumberList, NumbersRangesCommas) {
  EXPECT_EQ(parse_number_list("1 3-5,8", "breakpoint").value_or({}),
            (std::vector<int>{1, 3, 4, 5, 8}));
  EXPECT_TRUE(parse_number_list("", "breakpoint"));
  EXPECT_FALSE(parse_number_list("5-3", "breakpoint"));
  EXPECT_FALSE(parse_number_list("-3", "breakpoint"));
  EXPECT_FALSE(parse_number_list("x", "breakpoint"));
  EXPECT_FALSE(parse_number_list("1-2000000000", "breakpoint"));
}

TEST(EditDistance, CountsEditsAndSwaps) {
  EXPECT_EQ(edit_distance("break", "break"), 0u);
  EXPECT_EQ(edit_distance("braek", "break"), 1u);
  EXPECT_EQ(edit_distance("brek", "break"), 1u);
  EXPECT_EQ(edit_distance("", "abc"), 3u);
}

FormatSpec taken(std::string_view& args) {
  auto spec = take_format(args, "print", true);
  EXPECT_TRUE(spec);
  return spec ? *spec : FormatSpec{};
}

TEST(TakeFormat, CountLetterSizeAndTheRest) {
  std::string_view args = "/16xb $sp";
  FormatSpec spec = taken(args);
  EXPECT_EQ(spec.count, 16u);
  EXPECT_EQ(spec.letter, 'x');
  EXPECT_EQ(spec.size, 'b');
  EXPECT_EQ(args, "$sp");
  args = "/x(1+2)*3";
  spec = taken(args);
  EXPECT_EQ(spec.letter, 'x');
  EXPECT_EQ(args, "(1+2)*3");
  args = "plain";
  EXPECT_EQ(taken(args).letter, 0);
  EXPECT_EQ(args, "plain");
}

TEST(TakeFormat, RefusesWhatMakesNoSense) {
  std::string_view args = "/q 1";
  EXPECT_FALSE(take_format(args, "print", true));
  args = "/4x 1";
  auto spec = take_format(args, "print", false);
  ASSERT_FALSE(spec);
  EXPECT_EQ(spec.error().message, "Item count other than 1 is meaningless in \"print\" command.");
  args = "/i 1";
  EXPECT_FALSE(take_format(args, "print", false));
  args = "/99999999999999999999x 1";
  EXPECT_FALSE(take_format(args, "x", true));
}

} // namespace
} // namespace ddbg::ui
