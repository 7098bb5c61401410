#include "dtrace-lite/ddbg/completion.h"
#include "dtrace-lite/ddbg/context.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <fstream>
#include <unistd.h>

namespace ddbg::ui {
namespace {

class Lines : public LineSource {
public:
  explicit Lines(std::deque<std::string> lines) : lines_(std::move(lines)) {}
  std::optional<std::string> next(const std::string&) override {
    if (lines_.empty())
      return std::nullopt;
    std::string line = std::move(lines_.front());
    lines_.pop_front();
    return line;
  }

private:
  std::deque<std::string> lines_;
};

// A debugger without a program: what the commands say goes to `text`.
struct Front {
  std::string text;
  Output out{[this](std::string_view t, bool is_error) {
    text += (is_error ? "E:" : "") + std::string(t);
  }};
  Context context{out};

  std::string run(std::deque<std::string> lines) {
    text.clear();
    Lines source(std::move(lines));
    while (auto line = source.next(""))
      if (auto done = context.interpreter.execute(*line, source); !done)
        context.report_error(done.error());
    out.flush();
    return text;
  }
};

TEST(Interpreter, EchoUnderstandsEscapes) {
  Front f;
  EXPECT_EQ(f.run({"echo a\\n\\tb\\101\\\\"}), "a\n\tbA\\");
}

TEST(Interpreter, IfElseWhile) {
  Front f;
  EXPECT_EQ(f.run({"if 1 == 2", "echo no", "else", "echo yes", "end"}), "yes");
  EXPECT_EQ(f.run({"set $i = 0", "while $i < 3", "output $i", "set $i = $i + 1", "end"}), "012");
  EXPECT_EQ(f.run({"set $i = 0", "while 1", "set $i = $i + 1", "if $i == 2", "loop_continue", "end",
                   "if $i > 4", "loop_break", "end", "output $i", "end"}),
            "134");
}

TEST(Interpreter, UserCommandsTakeArguments) {
  Front f;
  EXPECT_EQ(f.run({"define hello", "echo $arg0-$argc-$arg1\\n", "end", "hello a b"}), "a-2-b\n");
  EXPECT_EQ(f.run({"document hello", "Says hello.", "Twice.", "end", "help hello"}),
            "Says hello.\nTwice.\n");
}

TEST(Interpreter, RecursionEndsInAnError) {
  Front f;
  EXPECT_NE(f.run({"define loop", "loop", "end", "loop"}).find("Max user call depth exceeded"),
            std::string::npos);
}

TEST(Interpreter, BudgetEndsLoops) {
  Front f;
  f.context.interpreter.set_budget(1000);
  EXPECT_EQ(f.run({"while 1", "end"}), "E:Quit\n");
}

TEST(Interpreter, DeepNestingIsRefused) {
  Front f;
  std::deque<std::string> lines(1000, "if 1");
  EXPECT_NE(f.run(lines).find("nested too deeply"), std::string::npos);
}

TEST(Interpreter, ErrorInAScriptNamesFileAndLine) {
  char path[] = "/tmp/ddbg-script-XXXXXX";
  int fd = mkstemp(path);
  ASSERT_GE(fd, 0);
  close(fd);
  std::ofstream(path) << "echo one\\n\nnosuch\necho two\\n";
  Front f;
  std::string text = f.run({std::string("source ") + path});
  unlink(path);
  EXPECT_EQ(text, "one\nE:" + std::string(path) +
                      ":2: Error in sourced command file:\nUndefined command: \"nosuch\".  Try "
                      "\"help\".\n");
}

TEST(Commands, WithoutATargetSayWhatIsMissing) {
  Front f;
  for (const char* line :
       {"continue", "step", "next", "stepi", "nexti", "finish", "until", "kill", "detach"})
    EXPECT_EQ(f.run({line}), "E:The program is not being run.\n") << line;
  EXPECT_EQ(f.run({"bt"}), "E:No stack.\n");
  EXPECT_EQ(f.run({"thread"}), "E:No thread selected\n");
  EXPECT_EQ(f.run({"info locals"}), "E:No frame selected.\n");
  EXPECT_EQ(f.run({"info registers"}), "E:The program has no registers now.\n");
  EXPECT_EQ(f.run({"info breakpoints"}), "No breakpoints or watchpoints.\n");
  EXPECT_EQ(f.run({"info threads"}), "No threads.\n");
}

// What a user typed must never end ddbg: each command with arguments of many kinds.
TEST(Commands, NoArgumentCrashesThem) {
  Front f;
  f.context.host_is_off_limits = true;
  f.context.interpreter.set_budget(100000);
  const char* arguments[] = {"",   "1",     "-1",        "99999999999999999999",
                             "*0", "/x",    "/99999x 0", "$sp",
                             "\"", "a,b",   "if",        "main:",
                             ":3", "%s",    "all",       "/",
                             "-",  "(((((", "'",         "\\",
                             ".5"};
  for (const Command& command : commands()) {
    if (command.flags & kTakesBody)
      continue;
    for (const char* argument : arguments)
      f.run({std::string(command.name) + " " + argument});
  }
  SUCCEED();
}

TEST(Questions, AreAnsweredWhenNobodyCan) {
  Front f;
  EXPECT_TRUE(f.context.confirm("Sure? "));
  f.out.flush();
  EXPECT_EQ(f.text, "Sure? (y or n) [answered Y; input not from terminal]\n");
  f.text.clear();
  ASSERT_TRUE(f.context.settings.set(Setting::kConfirm, "off"));
  EXPECT_TRUE(f.context.confirm("Sure? "));
  EXPECT_EQ(f.text, "");
}

TEST(Questions, AreAskedUntilAnswered) {
  Front f;
  std::deque<std::string> answers{"what", "n"};
  f.context.read_answer = [&](const std::string&) {
    std::string answer = answers.front();
    answers.pop_front();
    return std::optional(answer);
  };
  EXPECT_FALSE(f.context.confirm("Sure? "));
  EXPECT_TRUE(answers.empty());
}

bool offers(const Completions& c, std::string_view word) {
  return std::find(c.words.begin(), c.words.end(), word) != c.words.end();
}

TEST(Completion, CommandsAndSubcommands) {
  Front f;
  Completions c = complete(f.context, "disas");
  EXPECT_TRUE(offers(c, "disassemble"));
  EXPECT_EQ(c.begin, 0u);
  c = complete(f.context, "info br");
  EXPECT_EQ(c.words, std::vector<std::string>{"breakpoints"});
  EXPECT_EQ(c.begin, 5u);
  c = complete(f.context, "help info reg");
  EXPECT_EQ(c.words, std::vector<std::string>{"registers"});
  EXPECT_EQ(c.begin, 10u);
}

TEST(Completion, SettingsAndTheirValues) {
  Front f;
  Completions c = complete(f.context, "set pag");
  EXPECT_EQ(c.words, std::vector<std::string>{"pagination"});
  c = complete(f.context, "show print el");
  EXPECT_EQ(c.words, std::vector<std::string>{"elements"});
  c = complete(f.context, "set disassembly-flavor i");
  EXPECT_EQ(c.words, std::vector<std::string>{"intel"});
  c = complete(f.context, "set confirm o");
  EXPECT_EQ(c.words, (std::vector<std::string>{"off", "on"}));
}

TEST(Completion, RegistersSignalsFiles) {
  Front f;
  EXPECT_TRUE(offers(complete(f.context, "print $ri"), "$rip"));
  EXPECT_TRUE(offers(complete(f.context, "handle SIGUS"), "SIGUSR1"));
  EXPECT_TRUE(offers(complete(f.context, "handle SIGUSR1 nos"), "nostop"));
  EXPECT_TRUE(complete(f.context, "source /tm").files);
}

TEST(Completion, FunctionsOfTheProgram) {
  Front f;
  ASSERT_TRUE(f.context.debugger.set_program("/proc/self/exe"));
  EXPECT_TRUE(offers(complete(f.context, "break mai"), "main"));
  Completions c = complete(f.context, "tbreak *mai");
  EXPECT_EQ(c.begin, 8u);
  EXPECT_TRUE(offers(c, "main"));
}

TEST(Completion, NoLineCrashesIt) {
  Front f;
  for (const char* line : {"", " ", "!", "x/", "p $", "set ", "set print ", "info ",
                           "thread apply ", "break f if ", "::", "$", "help help help help"})
    complete(f.context, line);
  SUCCEED();
}

} // namespace
} // namespace ddbg::ui
