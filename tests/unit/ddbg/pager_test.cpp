#include "dtrace-lite/ddbg/output.h"

#include <gtest/gtest.h>

namespace ddbg::ui {
namespace {

std::string lines(int n) {
  std::string text;
  for (int i = 0; i < n; ++i)
    text += "line " + std::to_string(i) + "\n";
  return text;
}

TEST(Pager, PageEndsBeforeTheQuestionsLine) {
  Pager pager;
  pager.set_size(80, 4);
  std::string text = lines(10);
  EXPECT_EQ(pager.fits(text), lines(3).size());
  pager.answered(Pager::Answer::kMore);
  EXPECT_EQ(pager.fits(std::string_view(text).substr(lines(3).size())), lines(3).size());
}

TEST(Pager, LongLinesCountAsSeveral) {
  Pager pager;
  pager.set_size(10, 4);
  EXPECT_EQ(pager.fits(std::string(100, 'x')), 30u);
}

TEST(Pager, EscapesAndContinuationBytesTakeNoColumn) {
  Pager pager;
  pager.set_size(10, 2);
  std::string text = "\033[31m0123456789\033[0m";
  EXPECT_EQ(pager.fits(text), text.size());
  pager.restart();
  text = "\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4";
  EXPECT_EQ(pager.fits(text), text.size());
}

TEST(Pager, UnlimitedHeightNeverAsks) {
  Pager pager;
  pager.set_size(80, 0);
  std::string text = lines(1000);
  EXPECT_EQ(pager.fits(text), text.size());
}

TEST(Pager, AnswersByTheirFirstLetter) {
  EXPECT_EQ(Pager::parse_answer("q"), Pager::Answer::kQuit);
  EXPECT_EQ(Pager::parse_answer(" quit"), Pager::Answer::kQuit);
  EXPECT_EQ(Pager::parse_answer("c"), Pager::Answer::kWithoutPaging);
  EXPECT_EQ(Pager::parse_answer(""), Pager::Answer::kMore);
}

struct Paged {
  std::string text;
  int questions = 0;
  Output out{[this](std::string_view t, bool) { text += t; }};
  explicit Paged(Pager::Answer answer) {
    out.pager().set_size(80, 4);
    out.set_pager_question([this, answer] {
      ++questions;
      return answer;
    });
  }
};

TEST(Output, QuitDropsTheRestOfTheCommandOnly) {
  Paged paged(Pager::Answer::kQuit);
  paged.out.write(lines(10));
  paged.out.write("more\n");
  paged.out.flush();
  EXPECT_EQ(paged.text, lines(3));
  EXPECT_EQ(paged.questions, 1);
  paged.out.pager().restart();
  paged.out.write("next\n");
  paged.out.flush();
  EXPECT_EQ(paged.text, lines(3) + "next\n");
}

TEST(Output, ContinueAsksOncePerCommand) {
  Paged paged(Pager::Answer::kWithoutPaging);
  paged.out.write(lines(20));
  paged.out.flush();
  EXPECT_EQ(paged.text, lines(20));
  EXPECT_EQ(paged.questions, 1);
}

TEST(Output, MoreAsksAtEachPage) {
  Paged paged(Pager::Answer::kMore);
  paged.out.write(lines(10));
  paged.out.flush();
  EXPECT_EQ(paged.text, lines(10));
  EXPECT_EQ(paged.questions, 3);
}

TEST(Output, ErrorsComeAfterWhatWasWritten) {
  std::string text;
  Output out(
      [&](std::string_view t, bool is_error) { text += (is_error ? "E:" : "") + std::string(t); });
  out.write("before\n");
  out.error_line("wrong");
  EXPECT_EQ(text, "before\nE:wrong\n");
}

} // namespace
} // namespace ddbg::ui
