// All threads of a process in ptrace stops, for attach and release. Destroying it lets them go on.
#pragma once

#include "dtrace-lite/keeper/tracee.h"
#include "dtrace-lite/symbols/diagnostic.h"

namespace ddbg::keeper {

class StoppedProcess {
public:
  // What becomes of a thread that gets a signal of which its process dies with a core. kHeld: it is
  // stopped before that, and no more one of threads().
  enum class Deaths { kLet, kHeld };
  // Seizes and interrupts every thread; repeats until no new one appears. A system call that the
  // interruption ended with EINTR will be made again. Errors: no such process, not ours, already
  // traced: each says what to do.
  static Checked<StoppedProcess> stop(pid_t, Deaths = Deaths::kLet);
  // The same for threads born since, by others that ran briefly. Returns those that have stopped.
  Checked<std::vector<pid_t>> stop_new();
  StoppedProcess(StoppedProcess&&) = default;
  ~StoppedProcess();

  const std::vector<pid_t>& threads() const { return threads_; }
  // Seized, but did not stop within a second: they are in the kernel and cannot be interrupted
  // there (the parent of a vfork). Whoever reaps children has to detach them when they do stop.
  const std::vector<pid_t>& stragglers() const { return stragglers_; }
  // Waits once more for those, after others have run. Returns the ones that have stopped.
  std::vector<pid_t> stop_stragglers();
  // Stopped by SIGSTOP or its like: the threads do not run when they are let go.
  bool is_suspended() const { return is_suspended_; }
  // Lets one thread run for a moment, at most up to where a system call begins or ends; signals
  // that wait for it are delivered. False: it did not stop again, and is not one of threads() any
  // more.
  bool run_briefly(pid_t tid);
  // The held ones get their signals; all others stay stopped, until the kernel ends them. False:
  // there is none.
  bool let_die();

private:
  StoppedProcess(pid_t pid, Deaths deaths) : pid_(pid), deaths_(deaths) {}
  Checked<bool> stop_unseen();
  void stop_all(const std::vector<pid_t>& seized);
  void wait_for(pid_t tid, int request);

  struct Dying {
    pid_t tid;
    int signal;
  };
  pid_t pid_;
  Deaths deaths_;
  std::vector<pid_t> seen_, threads_, stragglers_;
  std::vector<Dying> dying_;
  bool is_suspended_ = false;
};

// Errors: no such process, a thread, nothing that can be debugged, already traced.
Checked<void> check_is_process(pid_t);
// Why the kernel refused it, and what to do.
Diagnostic explain_refusal(pid_t, int error);

// Whether a stopped thread is inside a system call that the kernel will make again.
bool in_system_call(const user_regs_struct&);

} // namespace ddbg::keeper
