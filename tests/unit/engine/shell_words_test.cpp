#include "dtrace-lite/engine/shell_words.h"

#include <array>
#include <cstdio>
#include <gtest/gtest.h>

namespace ddbg::engine {
namespace {

TEST(ShellWords, QuotesAndBackslashesGroup) {
  EXPECT_EQ(split_words("a 'b c' \"d \\\"e\" f\\ g ''"),
            (std::vector<std::string>{"a", "b c", "d \"e", "f g", ""}));
  EXPECT_TRUE(split_words("  \t ").empty());
}

std::string output_of(const std::string& command) {
  FILE* shell = popen(command.c_str(), "r");
  std::string text;
  std::array<char, 256> part;
  while (size_t n = fread(part.data(), 1, part.size(), shell))
    text.append(part.data(), n);
  pclose(shell);
  return text;
}

TEST(ShellWords, QuotedComeThroughAShell) {
  std::string all;
  for (int c = 1; c < 256; ++c)
    all += static_cast<char>(c);
  for (const std::string& word : {all, std::string(), std::string("a\nb"), std::string("~")}) {
    EXPECT_EQ(output_of("printf %s " + shell_quoted(word)), word);
    EXPECT_EQ(split_words(shell_quoted(word)), std::vector<std::string>{word});
  }
  EXPECT_EQ(shell_quoted("print('\xc3\xa9')"), "print\\(\\'\xc3\xa9\\'\\)");
}

TEST(ShellWords, ProgramsAreFoundAsByAShell) {
  EXPECT_EQ(find_program("sh") + "\n", output_of("command -v sh"));
  EXPECT_EQ(find_program("/bin/../bin/sh"), "/bin/sh");
  EXPECT_EQ(find_program("no such program").front(), '/');
}

} // namespace
} // namespace ddbg::engine
