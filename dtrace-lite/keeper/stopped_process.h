// All threads of a process in ptrace stops, for attach and release. Destroying it lets them go on.
#pragma once

#include "dtrace-lite/keeper/tracee.h"
#include "dtrace-lite/symbols/diagnostic.h"

#include <map>

namespace ddbg::keeper {

class StoppedProcess {
public:
  // Seizes and interrupts every thread; repeats until no new one appears. Errors: no such process,
  // not ours, already traced: each says what to do.
  static Checked<StoppedProcess> stop(pid_t);
  StoppedProcess(StoppedProcess&&) = default;
  ~StoppedProcess();

  const std::vector<pid_t>& threads() const { return threads_; }
  // Lets one thread run until `deadline_ms` from now or until it can be interrupted again.
  dune::Status run_briefly(pid_t tid);
  dune::Status single_step(pid_t tid);
  // A signal of ours that was taken from threads on the way is not given back.
  void discard_signal(int signal);

private:
  StoppedProcess() = default;
  dune::Status wait_stop(pid_t tid);
  std::vector<pid_t> threads_;
  std::map<pid_t, int> pending_signal_; // taken from a thread on the way, given back at detach
};

// The state of a thread stopped inside a system call that the kernel will make again.
// Puts the instruction pointer and rax as the kernel itself would, where it does so on its own
// (-ERESTART*), and also for epoll_wait and its like, which the interruption ended with EINTR.
enum class InKernel { kNo, kRestarts, kWasInterrupted };
InKernel in_system_call(const user_regs_struct&);

} // namespace ddbg::keeper
