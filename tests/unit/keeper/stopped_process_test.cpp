// All threads of a process, while they come and go.
#include "dtrace-lite/keeper/stopped_process.h"
#include "tests/unit/backend/guests.h"
#include "tests/unit/backend/host_loop.h"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace ddbg::keeper {
namespace {

// PF_POSTCOREDUMP, PF_EXITING in <linux/sched.h>: it runs no more of the program.
bool has_begun_to_exit(pid_t tid) {
  std::ifstream file("/proc/" + std::to_string(tid) + "/stat");
  std::string stat;
  unsigned long flags = 0;
  const bool there =
      std::getline(file, stat) &&
      sscanf(stat.c_str() + stat.rfind(')') + 1, " %*c %*d %*d %*d %*d %*d %lu", &flags) == 1;
  return !there || flags & 0xc;
}

void* live(void* unused) { return unused; }
void* make(void*) {
  for (;;) {
    pthread_t threads[4];
    for (pthread_t& thread : threads)
      pthread_create(&thread, nullptr, live, nullptr);
    for (pthread_t thread : threads)
      pthread_join(thread, nullptr);
  }
}

void* spin(void*) {
  for (;;)
    asm volatile("");
}

// As the keeper has it.
void block_child_signal() {
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child, nullptr);
}

struct Program {
  explicit Program(bool calls = false) : pid(fork()) {
    if (pid)
      return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (calls)
      getppid();
    pthread_t thread;
    for (auto* run : {make, make, spin})
      pthread_create(&thread, nullptr, run, nullptr);
    for (;;)
      pause();
  }
  ~Program() {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  const pid_t pid;
};

// About one of a thousand stops missed a thread when the list was trusted: the kernel ends it early
// when the thread that it is at has gone.
TEST(StoppedProcess, HoldsAllThreads) {
  block_child_signal();
  const Program program;
  for (int i = 0; i < 10'000 && !HasFailure(); ++i) {
    const auto process = StoppedProcess::stop(program.pid);
    ASSERT_TRUE(process) << process.error().message;
    const auto& held = process->threads();
    for (int look = 0; look < 3; ++look) {
      for (pid_t tid : list_tasks(program.pid).tids) {
        const bool is_held = std::find(held.begin(), held.end(), tid) != held.end();
        EXPECT_TRUE(is_held || has_begun_to_exit(tid)) << "stop " << i << ", thread " << tid;
      }
    }
    while (waitpid(-1, nullptr, __WALL | WNOHANG) > 0)
      ;
  }
}

void use_nth_of(const cpu_set_t& all, int n, pid_t pid) {
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &all) && n-- == 0)
      CPU_SET(cpu, &one);
  sched_setaffinity(pid, sizeof one, &one);
}

// On another processor it was interrupted before it had executed an instruction, nearly always.
TEST(StoppedProcess, MovesWhenItRunsBriefly) {
  block_child_signal();
  const Program program(true);
  cpu_set_t all;
  sched_getaffinity(0, sizeof all, &all);
  use_nth_of(all, CPU_COUNT(&all) - 1, program.pid);
  use_nth_of(all, 0, 0);
  auto process = StoppedProcess::stop(program.pid);
  ASSERT_TRUE(process) << process.error().message;
  const Tracee thread(program.pid);
  ASSERT_TRUE(process->run_briefly(program.pid));
  int moved = 0;
  for (int i = 0; i < 1000; ++i) {
    const bool entered = thread.enters_system_call();
    ASSERT_TRUE(process->run_briefly(program.pid));
    moved += thread.enters_system_call() != entered;
  }
  sched_setaffinity(0, sizeof all, &all);
  EXPECT_GT(moved, 500); // each time, but where others have the processor for that moment
}

// Where the child's loop makes its system call.
extern "C" const char snippet_of_call[];
asm(R"(
    .pushsection .text
snippet_of_call: syscall; ud2
    .popsection
)");

using dune::backend::each_guest, dune::backend::GuestTest, dune::backend::MappedGuest,
    dune::backend::name_of_guest;

class InAGuest : public GuestTest {
protected:
  // Never returns: the process goes in and comes out, and counts how often it has been in.
  [[noreturn]] void go_in_and_out(std::atomic<uint64_t>& count) const {
    alignas(16) static std::byte stack[4096];
    auto guest = MappedGuest::open(ops(), placement(), {}, 64);
    while (guest) {
      start_at((*guest)->cpu, snippet_of_call, stack + sizeof stack);
      while (run_mapped(**guest).why == dune::backend::Why::kInterrupted)
        ;
      ++count;
    }
    _exit(1);
  }
};
INSTANTIATE_TEST_SUITE_P(Guests, InAGuest, each_guest(), name_of_guest);

// Stopped at every ioctl a thread with rseq (glibc's have it) never got into a guest of dune.ko's.
TEST_P(InAGuest, AStoppedThreadMovesWhenItRunsBriefly) {
  block_child_signal();
  auto* count = static_cast<std::atomic<uint64_t>*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  const pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    go_in_and_out(*count);
  }
  while (*count < 100 && thread_state(pid) != 'Z')
    sched_yield();
  {
    auto process = StoppedProcess::stop(pid);
    ASSERT_TRUE(process) << process.error().message;
    for (int moves = 0; moves < 20; ++moves) {
      const uint64_t before = *count;
      for (int i = 0; *count == before; ++i) {
        ASSERT_LT(i, 50) << "after " << moves << " times in the guest";
        ASSERT_TRUE(process->run_briefly(pid));
      }
    }
  }
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
  munmap(count, 4096);
}

TEST(StoppedProcess, IsNotToBeHadOfAProcessThatHasGone) {
  pid_t gone;
  {
    const Program program;
    gone = program.pid;
  }
  EXPECT_TRUE(list_tasks(gone).is_complete);
  const auto process = StoppedProcess::stop(gone);
  ASSERT_FALSE(process);
  EXPECT_NE(process.error().message.find("There is no process"), std::string::npos)
      << process.error().message;
}

} // namespace
} // namespace ddbg::keeper
