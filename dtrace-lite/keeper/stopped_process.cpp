#include "dtrace-lite/keeper/stopped_process.h"

#include <csignal>
#include <cstring>
#include <fmt/format.h>
#include <set>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace ddbg::keeper {

using dune::Errc;
using dune::Error;

namespace {

Diagnostic explain_refusal(pid_t pid, int error) {
  if (error == ESRCH)
    return {fmt::format("ptrace: No such process: {}.", pid), "Check the number with ps.", {}};
  const std::string tracer = read_status_field(pid, "TracerPid");
  if (!tracer.empty() && tracer != "0")
    return {fmt::format("Process {} is already traced by process {}.", pid, tracer),
            "Detach the other debugger first.",
            {}};
  return {
      fmt::format("Could not attach to process {}: {}.", pid, strerror(error)),
      "It belongs to another user, is not dumpable, or /proc/sys/kernel/yama/ptrace_scope forbids "
      "it: try as root, or start the program under ddbg.",
      {}};
}

} // namespace

dune::Status StoppedProcess::wait_stop(pid_t tid) {
  auto status = wait_for(tid);
  if (!status)
    return status.error();
  if (!WIFSTOPPED(*status))
    return Error{Errc::kGone, "the thread ended", tid};
  // A signal was on its way: it is delivered when the thread is let go, and the interrupt comes
  // after it.
  if (*status >> 16 != PTRACE_EVENT_STOP)
    pending_signal_[tid] = WSTOPSIG(*status);
  return {};
}

Checked<StoppedProcess> StoppedProcess::stop(pid_t pid) {
  StoppedProcess result;
  std::set<pid_t> seen;
  for (bool again = true; again;) {
    again = false;
    for (pid_t tid : read_tasks(pid)) {
      if (seen.count(tid))
        continue;
      if (ptrace(PTRACE_SEIZE, tid, nullptr, nullptr) != 0) {
        const int error = errno;
        if (error == ESRCH && !seen.empty())
          continue; // it ended meanwhile
        return explain_refusal(pid, error);
      }
      seen.insert(tid);
      again = true;
      if (ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr) != 0 || !result.wait_stop(tid))
        continue;
      result.threads_.push_back(tid);
    }
  }
  if (result.threads_.empty())
    return explain_refusal(pid, ESRCH);
  return result;
}

StoppedProcess::~StoppedProcess() {
  for (pid_t tid : threads_)
    ptrace(PTRACE_DETACH, tid, nullptr, pending_signal_.count(tid) ? pending_signal_[tid] : 0);
}

dune::Status StoppedProcess::run_briefly(pid_t tid) {
  const int signal = pending_signal_.count(tid) ? pending_signal_[tid] : 0;
  pending_signal_.erase(tid);
  if (ptrace(PTRACE_CONT, tid, nullptr, signal) != 0)
    return dune::system_error("cannot run the thread");
  sched_yield();
  if (ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr) != 0)
    return dune::system_error("cannot stop the thread");
  return wait_stop(tid);
}

dune::Status StoppedProcess::single_step(pid_t tid) {
  if (ptrace(PTRACE_SINGLESTEP, tid, nullptr, nullptr) != 0)
    return dune::system_error("cannot step the thread");
  auto status = wait_for(tid);
  if (!status || !WIFSTOPPED(*status))
    return Error{Errc::kGone, "the thread ended", tid};
  if (WSTOPSIG(*status) != SIGTRAP)
    pending_signal_[tid] = WSTOPSIG(*status);
  return {};
}

void StoppedProcess::discard_signal(int signal) {
  std::erase_if(pending_signal_, [&](const auto& entry) { return entry.second == signal; });
}

InKernel in_system_call(const user_regs_struct& regs) {
  const auto number = static_cast<int64_t>(regs.orig_rax);
  const auto result = static_cast<int64_t>(regs.rax);
  constexpr int64_t kErestartsys = -512, kErestartRestartblock = -516;
  if (number < 0)
    return InKernel::kNo;
  if (result <= kErestartsys && result >= kErestartRestartblock && result != -515)
    return InKernel::kRestarts;
  // These return EINTR for any wake-up, a ptrace interrupt included; calling again is what the
  // program would have seen without us (a relative timeout starts anew).
  const bool never_restarted = number == SYS_epoll_wait || number == SYS_epoll_pwait ||
                               number == SYS_rt_sigtimedwait || number == 441 /* epoll_pwait2 */;
  return result == -EINTR && never_restarted ? InKernel::kWasInterrupted : InKernel::kNo;
}

} // namespace ddbg::keeper
