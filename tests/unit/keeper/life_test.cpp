// Whoever is killed is not taken for alive, wherever that was.
#include "dtrace-lite/keeper/life.h"
#include "libdune/session/layout.h"

#include <csignal>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

namespace ddbg::keeper {
namespace {

using Word = std::atomic<uint32_t>;

class Life : public testing::Test {
protected:
  Life()
      : words_(static_cast<Word*>(
            mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {}
  ~Life() override { munmap(words_, 4096); }

  // A child does this, and is killed in front of the instruction with this number, or behind the
  // last: then it is true.
  bool kill_at(int instruction, void (*does)(Word*)) {
    words_[0] = words_[1] = 0;
    const pid_t child = fork();
    if (child == 0) {
      ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
      raise(SIGSTOP);
      does(words_);
      raise(SIGSTOP);
      _exit(1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    bool done = false;
    for (int i = 0; i < instruction && !done; ++i) {
      ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr);
      waitpid(child, &status, 0);
      done = WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP;
    }
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status));
    return done;
  }

  Word* words_;
};

TEST_F(Life, EndsWhereverTheProcessIsKilled) {
  const auto show = [](Word* words) { show_life_in(words[0]); };
  int instruction = 0;
  for (; !kill_at(instruction, show); ++instruction)
    ASSERT_FALSE(dune::session::is_alive(words_[0])) << "in front of instruction " << instruction;
  EXPECT_GT(instruction, 20);
  EXPECT_NE(words_[0], 0u); // it was alive
  EXPECT_FALSE(dune::session::is_alive(words_[0]));
}

TEST_F(Life, EndsInTheWordThatCountsLast) {
  const auto show = [](Word* words) {
    show_life_in(words[0]);
    show_life_in(words[1]);
  };
  int instruction = 0;
  for (; !kill_at(instruction, show); ++instruction)
    ASSERT_FALSE(dune::session::is_alive(words_[1])) << "in front of instruction " << instruction;
  EXPECT_NE(words_[1], 0u);
  EXPECT_FALSE(dune::session::is_alive(words_[1]));
}

} // namespace
} // namespace ddbg::keeper
