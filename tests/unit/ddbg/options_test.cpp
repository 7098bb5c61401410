#include "dtrace-lite/ddbg/options.h"

#include <gtest/gtest.h>

namespace ddbg::ui {
namespace {

using Kind = Options::Step::Kind;

Options parsed(const std::vector<std::string>& arguments) {
  auto options = parse_options(arguments);
  EXPECT_TRUE(options) << (options ? "" : options.error().message);
  return options ? *options : Options{};
}

std::string error_of(const std::vector<std::string>& arguments) {
  auto options = parse_options(arguments);
  return options ? "" : options.error().message;
}

TEST(Options, GdbsUsualLine) {
  Options o = parsed({"-q", "-batch", "-ex", "break main", "-ex", "run", "--args", "./prog", "-x",
                      "--args", "a b"});
  EXPECT_TRUE(o.quiet);
  EXPECT_TRUE(o.batch);
  EXPECT_EQ(o.program, "./prog");
  EXPECT_TRUE(o.have_arguments);
  EXPECT_EQ(o.arguments, (std::vector<std::string>{"-x", "--args", "a b"}));
  ASSERT_EQ(o.steps.size(), 2u);
  EXPECT_EQ(o.steps[0].text, "break main");
  EXPECT_EQ(o.steps[1].text, "run");
}

TEST(Options, CommandsAndFilesKeepTheirOrder) {
  Options o = parsed({"-ex", "a", "-x", "f1", "--eval-command=b", "--command", "f2", "-iex", "i"});
  ASSERT_EQ(o.steps.size(), 4u);
  EXPECT_EQ(o.steps[0].kind, Kind::kCommand);
  EXPECT_EQ(o.steps[1].kind, Kind::kFile);
  EXPECT_EQ(o.steps[1].text, "f1");
  EXPECT_EQ(o.steps[2].text, "b");
  EXPECT_EQ(o.steps[3].text, "f2");
  ASSERT_EQ(o.early.size(), 1u);
  EXPECT_EQ(o.early[0].text, "i");
}

TEST(Options, OneDashOrTwoAndBeginnings) {
  EXPECT_TRUE(parsed({"--quiet"}).quiet);
  EXPECT_TRUE(parsed({"-silent"}).quiet);
  EXPECT_TRUE(parsed({"--bat"}).batch);
  EXPECT_TRUE(parsed({"-nx"}).no_init);
  EXPECT_TRUE(parsed({"-n"}).no_init);
  EXPECT_TRUE(parsed({"-return-child-result"}).return_child_result);
  EXPECT_EQ(parsed({"-cd", "/tmp"}).working_directory, "/tmp");
  EXPECT_EQ(parsed({"--backend=signal"}).backend, "signal");
  EXPECT_EQ(parsed({"-backend", "kvm"}).backend, "kvm");
}

TEST(Options, ArgsAsAnotherOptionsValueIsNotArgs) {
  Options o = parsed({"-ex", "--args", "prog"});
  EXPECT_FALSE(o.have_arguments);
  EXPECT_EQ(o.program, "prog");
  ASSERT_EQ(o.steps.size(), 1u);
  EXPECT_EQ(o.steps[0].text, "--args");
}

TEST(Options, PidByOptionAndBySecondWord) {
  EXPECT_EQ(parsed({"-p", "123"}).pid, 123);
  EXPECT_EQ(parsed({"--pid=7"}).pid, 7);
  EXPECT_EQ(parsed({"prog", "-p", "123"}).pid, 123);
  Options o = parsed({"prog", "456"});
  EXPECT_EQ(o.program, "prog");
  EXPECT_EQ(o.pid_of_program, 456);
  EXPECT_EQ(o.arguments, std::vector<std::string>{"456"}); // if it is no process of prog
  EXPECT_FALSE(parsed({"--args", "prog", "456"}).pid_of_program);
  EXPECT_FALSE(parsed({"prog", "456", "7"}).pid_of_program);
  EXPECT_EQ(error_of({"-p", "abc"}), "Illegal process-id: abc.");
  EXPECT_EQ(error_of({"-p", "-4"}), "Illegal process-id: -4.");
}

TEST(Options, TheProgramsOwnFollowIt) {
  using Words = std::vector<std::string>;
  const std::pair<Words, Words> cases[] = {
      {{"-q", "ls", "-l", "/"}, {"-l", "/"}},
      {{"perl", "-e", "print 1", "-batch"}, {"-e", "print 1", "-batch"}},
      {{"node", "--version"}, {"--version"}},
      {{"prog", "a", "-ex", "run"}, {"a", "-ex", "run"}},
      {{"prog", "-p", "x"}, {"-p", "x"}},
      {{"prog", "--", "-ex"}, {"--", "-ex"}},
      {{"prog", "-"}, {"-"}},
      {{"--", "prog", "-ex", "run"}, {"-ex", "run"}},
      {{"prog", "-q", "--args", "-batch"}, {"-q", "--args", "-batch"}},
      {{"prog", "-batch", "--args", "-batch"}, {"-batch"}},
  };
  for (const auto& [words, own] : cases) {
    Options o = parsed(words);
    EXPECT_EQ(o.arguments, own) << words.front() << ' ' << words.back();
    EXPECT_TRUE(o.steps.empty());
    EXPECT_TRUE(o.have_arguments);
  }
}

TEST(Options, LongOnesMayFollowTheProgram) {
  Options o = parsed({"prog", "-batch", "-ex", "run", "--backend=signal", "-l", "-ex"});
  EXPECT_EQ(o.program, "prog");
  EXPECT_TRUE(o.batch);
  EXPECT_EQ(o.steps.size(), 1u);
  EXPECT_EQ(o.backend, "signal");
  EXPECT_EQ(o.arguments, (std::vector<std::string>{"-l", "-ex"}));
}

TEST(Options, MistakesAreSentences) {
  EXPECT_NE(error_of({"-badopt"}).find("badopt"), std::string::npos);
  EXPECT_NE(error_of({"-ex"}).find("ex"), std::string::npos);
  EXPECT_NE(error_of({"--args"}), "");
  EXPECT_NE(error_of({"--i"}).find("ambiguous"), std::string::npos);
  for (const char* word : {"-=r%canonical_option%", "--i%original_token%", "--batch=%prefix%"})
    EXPECT_NE(error_of({word}), "");
  EXPECT_NE(error_of({"-c", "core.1", "prog"}).find("Core files"), std::string::npos);
}

TEST(Options, UsageNamesEveryShownOption) {
  std::string text = usage();
  for (const char* name : {"--args", "--pid", "-ex", "-iex", "--batch", "--backend", "-nx", "--cd"})
    EXPECT_NE(text.find(name), std::string::npos) << name;
}

} // namespace
} // namespace ddbg::ui
