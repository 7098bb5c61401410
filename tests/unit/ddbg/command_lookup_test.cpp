#include "dtrace-lite/ddbg/command.h"
#include "dtrace-lite/ddbg/repl.h"
#include "dtrace-lite/ddbg/text.h"

#include <gtest/gtest.h>

#include <set>

namespace ddbg::ui {
namespace {

using Problem = CommandMatch::Problem;

std::string name_of(std::string_view typed) {
  CommandMatch match = find_command(typed);
  return match.problem == Problem::kNone ? match.command->name : "";
}

// What gdb's users' fingers know.
TEST(CommandLookup, GdbsAbbreviations) {
  const std::pair<const char*, const char*> cases[] = {
      {"b", "break"},
      {"br", "break"},
      {"tb", "tbreak"},
      {"r", "run"},
      {"c", "continue"},
      {"cont", "continue"},
      {"n", "next"},
      {"s", "step"},
      {"ni", "nexti"},
      {"si", "stepi"},
      {"fin", "finish"},
      {"u", "until"},
      {"bt", "backtrace"},
      {"where", "backtrace"},
      {"f", "frame"},
      {"p", "print"},
      {"inspect", "print"},
      {"x", "x"},
      {"l", "list"},
      {"d", "delete"},
      {"dis", "disable"},
      {"disas", "disassemble"},
      {"k", "kill"},
      {"q", "quit"},
      {"h", "help"},
      {"t", "thread"},
      {"j", "jump"},
      {"cl", "clear"},
      {"i r", "info registers"},
      {"i b", "info breakpoints"},
      {"inf thr", "info threads"},
      {"info sh", "info sharedlibrary"},
      {"i lo", "info locals"},
      {"info ar", "info args"},
      {"thr apply", "thread apply"},
      {"set var", "set variable"},
      {"set env", "set environment"},
      {"unset env", "unset environment"},
  };
  for (auto [typed, expected] : cases)
    EXPECT_EQ(name_of(typed), expected) << typed;
}

TEST(CommandLookup, NameEndsBeforeFormatAndOperators) {
  CommandMatch match = find_command("x/4i $pc");
  EXPECT_STREQ(match.command->name, "x");
  EXPECT_EQ(match.args, "/4i $pc");
  match = find_command("p$rip");
  EXPECT_STREQ(match.command->name, "print");
  EXPECT_EQ(match.args, "$rip");
  match = find_command("!ls -l");
  EXPECT_STREQ(match.command->name, "!");
  EXPECT_EQ(match.args, "ls -l");
}

TEST(CommandLookup, ArgumentsOfPrefixCommands) {
  CommandMatch match = find_command("thread 3");
  EXPECT_STREQ(match.command->name, "thread");
  EXPECT_EQ(match.args, "3");
  match = find_command("delete 1-3");
  EXPECT_STREQ(match.command->name, "delete");
  match = find_command("delete display 2");
  EXPECT_STREQ(match.command->name, "delete display");
  match = find_command("set x = 3");
  EXPECT_STREQ(match.command->name, "set");
  EXPECT_EQ(match.args, "x = 3");
}

TEST(CommandLookup, AmbiguityListsAllMeanings) {
  CommandMatch match = find_command("wa");
  EXPECT_EQ(match.problem, Problem::kNone); // watch only
  match = find_command("di");
  EXPECT_EQ(match.problem, Problem::kAmbiguous);
  EXPECT_EQ(
      explain(match).message,
      "Ambiguous command \"di\": directory, dis, disa, disable, disas, disassemble, display.");
}

TEST(CommandLookup, UnknownWordsAreWordedAsGdbDoes) {
  EXPECT_EQ(explain(find_command("foo")).message, "Undefined command: \"foo\".  Try \"help\".");
  EXPECT_EQ(explain(find_command("info fo")).message,
            "Undefined info command: \"fo\".  Try \"help info\".");
  EXPECT_EQ(explain(find_command("123")).message, "Undefined command: \"123\".  Try \"help\".");
  EXPECT_EQ(find_command("$x").problem, Problem::kUnknown);
}

TEST(CommandLookup, MistypedNameSuggestsTheNearest) {
  EXPECT_EQ(explain(find_command("braek")).hint, "Did you mean \"break\"?");
  EXPECT_EQ(explain(find_command("contniue")).hint, "Did you mean \"continue\"?");
  EXPECT_EQ(explain(find_command("info regsiters")).hint, "Did you mean \"info registers\"?");
  EXPECT_EQ(explain(find_command("zzzzzz")).hint, "");
}

TEST(CommandTable, EveryRowCanBeReachedByItsNameAndAliases) {
  for (const Command& command : commands()) {
    EXPECT_EQ(name_of(command.name), command.name);
    std::string name = command.name;
    size_t space = name.rfind(' ');
    std::string prefix = space == name.npos ? "" : name.substr(0, space + 1);
    for (std::string_view alias : split_blank(command.aliases))
      EXPECT_EQ(name_of(prefix + std::string(alias)), command.name) << alias;
  }
}

TEST(CommandTable, SummariesAreSentences) {
  for (const Command& command : commands()) {
    EXPECT_TRUE(summary(command).ends_with('.')) << command.name;
    EXPECT_FALSE(std::string_view(command.help).ends_with('\n')) << command.name;
    EXPECT_NE(command.run, nullptr);
  }
}

TEST(CommandTable, SubcommandsHaveAParentThatIsAPrefix) {
  for (const Command& command : commands()) {
    std::string name = command.name;
    if (size_t space = name.rfind(' '); space != name.npos) {
      CommandMatch parent = find_command(name.substr(0, space));
      ASSERT_TRUE(parent.command) << name;
      EXPECT_TRUE(parent.command->flags & kPrefix) << name;
    }
  }
}

TEST(RepeatedLine, FollowsTheRowsRule) {
  EXPECT_EQ(repeated_line("step 3"), "step 3");
  EXPECT_EQ(repeated_line("run a b"), "");
  EXPECT_EQ(repeated_line("list main"), "list");
  EXPECT_EQ(repeated_line("list -"), "list -");
  EXPECT_EQ(repeated_line("x/4x $sp"), "x");
  EXPECT_EQ(repeated_line("delete 1"), "");
  EXPECT_EQ(repeated_line("nosuchcommand"), "nosuchcommand");
}

} // namespace
} // namespace ddbg::ui
