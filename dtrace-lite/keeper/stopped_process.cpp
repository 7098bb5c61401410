#include "dtrace-lite/keeper/stopped_process.h"

#include "dtrace-lite/keeper/confinement.h"
#include "libdune/arch/signal_frame.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

namespace ddbg::keeper {

namespace {

// Who may attach (admin-guide/LSM/Yama.rst): 0 where it is not there.
int yama_scope() {
  const dune::Fd file(open("/proc/sys/kernel/yama/ptrace_scope", O_RDONLY | O_CLOEXEC));
  char digit = '0';
  return file && read(file.get(), &digit, 1) == 1 ? digit - '0' : 0;
}

Checked<void> check_untraced(pid_t pid, pid_t tid) {
  const std::string tracer = read_status_field(tid, "TracerPid");
  if (tracer.empty() || tracer == "0")
    return {};
  return Diagnostic{fmt::format("Process {} is already traced by process {} ({}).", pid, tracer,
                                read_status_field(atoi(tracer.c_str()), "Name")),
                    "Detach the other debugger or tracer first.",
                    {}};
}

} // namespace

Checked<void> check_is_process(pid_t pid) {
  const std::string group = read_status_field(pid, "Tgid");
  const std::string state = read_status_field(pid, "State");
  if (group.empty())
    return Diagnostic{fmt::format("There is no process {}.", pid), "Check the number with ps.", {}};
  if (group != std::to_string(pid))
    return Diagnostic{fmt::format("{} is a thread of process {}.", pid, group),
                      fmt::format("Attach to the process: \"attach {}\".", group),
                      {}};
  const bool ended = state[0] == 'Z' || state[0] == 'X';
  if (ended && read_status_field(pid, "Threads") != "1")
    return Diagnostic{fmt::format("The main thread of process {} has ended.", pid),
                      "The kernel shows the program through that one only, so the other threads "
                      "cannot be attached to.",
                      {}};
  if (ended)
    return Diagnostic{
        fmt::format("Process {} has ended; only its exit status is left (a zombie).", pid),
        fmt::format("It goes when its parent, process {}, asks for that.",
                    read_status_field(pid, "PPid")),
        {}};
  if (read_status_field(pid, "VmSize").empty())
    return Diagnostic{fmt::format("Process {} is a part of the kernel.", pid),
                      "Only programs can be debugged.",
                      {}};
  return check_untraced(pid, pid);
}

Diagnostic explain_refusal(pid_t pid, int error) {
  if (auto ok = check_is_process(pid); !ok)
    return ok.error();
  const std::string message =
      fmt::format("Could not attach to process {}: {}.", pid, strerror(error));
  if (error != EPERM)
    return {message, {}, {}};
  if (geteuid() == 0)
    return {message,
            "Not even root may: this is a container without CAP_SYS_PTRACE, or the process belongs "
            "to a user namespace that is not ours.",
            {}};
  const std::string user = std::to_string(geteuid());
  const std::string owners = read_status_field(pid, "Uid"); // real, effective, saved, of files
  if (owners != fmt::format("{0}\t{0}\t{0}\t{0}", user)) {
    const size_t effective = owners.find('\t') + 1;
    return {message,
            fmt::format("It runs as another user (uid {}): try as root.",
                        owners.substr(effective, owners.find('\t', effective) - effective)),
            {}};
  }
  if (const int scope = yama_scope())
    return {message,
            scope == 3 ? "/proc/sys/kernel/yama/ptrace_scope is 3: nobody may attach until the "
                         "next boot. Start the program under ddbg."
                       : fmt::format("/proc/sys/kernel/yama/ptrace_scope is {}: try as root, set "
                                     "it to 0, or start the program under ddbg.",
                                     scope),
            {}};
  return {message,
          "The kernel protects it: its file is not readable, it has more rights than you "
          "(capabilities, set-user-ID), or it asked for that (PR_SET_DUMPABLE). Try as root.",
          {}};
}

namespace {

using Clock = std::chrono::steady_clock;
constexpr timespec kSecond{1, 0}, kMoment{0, 10'000'000}, kGlance{0, 1'000'000};

// The next change of the thread's state; nothing within that time. Every one of them comes with a
// SIGCHLD, which this process blocks.
std::optional<int> wait_status(pid_t tid, const timespec& limit) {
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  for (;;) {
    int status;
    const pid_t got = waitpid(tid, &status, __WALL | WNOHANG);
    if (got == tid)
      return status;
    if (got < 0)
      return 0; // it has gone
    if (sigtimedwait(&child, nullptr, &limit) < 0 && errno == EAGAIN)
      return std::nullopt;
  }
}

// Signals that mean nothing to the process. The kernel drops them at once, except where a thread is
// traced: that one it wakes up, and a system call may end.
uint64_t ignored_signals(pid_t tid) {
  return read_signal_set(tid, "SigIgn") | (dune::kDefaultIgnored & ~read_signal_set(tid, "SigCgt"));
}

bool dies_with_core(pid_t tid, int signal) {
  const uint64_t others = read_signal_set(tid, "SigCgt") | read_signal_set(tid, "SigIgn");
  return dune::kDefaultDumps & ~others & dune::signal_bit(signal);
}

// A signal of the program's own is about to be handled: then EINTR is its doing.
bool has_signal_waiting(const Tracee& thread) {
  const pid_t tid = thread.tid();
  auto mask = thread.signal_mask();
  const uint64_t waiting = read_signal_set(tid, "SigPnd") | read_signal_set(tid, "ShdPnd");
  const uint64_t open = mask ? waiting & ~*mask : 0;
  return open && (open & ~ignored_signals(tid));
}

// Whether the call is made again is the kernel's to say, when it delivers the signal.
bool a_signal_ends_its_call(const Tracee& thread) {
  auto regs = thread.registers();
  return regs && in_system_call(*regs) && has_signal_waiting(thread);
}

// These return EINTR for any wake-up, a ptrace interrupt included; calling again is what the
// program would have seen without us, except that a relative timeout starts anew.
constexpr long kNeverRestarted[] = {
    SYS_read,        SYS_write,        SYS_readv,           SYS_writev,       SYS_accept,
    SYS_accept4,     SYS_recvfrom,     SYS_recvmsg,         SYS_recvmmsg,     SYS_sendto,
    SYS_sendmsg,     SYS_sendmmsg,     SYS_semop,           SYS_semtimedop,   SYS_epoll_wait,
    SYS_epoll_pwait, SYS_epoll_pwait2, SYS_rt_sigtimedwait, SYS_io_getevents, SYS_io_uring_enter,
};

void call_again(const Tracee& thread) {
  constexpr int64_t kErestartnointr = -513, kErestartnohand = -514, kErestartRestartblock = -516;
  auto regs = thread.registers();
  if (regs && in_system_call(*regs) && static_cast<int64_t>(regs->rax) == kErestartRestartblock &&
      has_more_filters(thread.tid())) {
    // By its own number: restart_syscall is a call that the program does not make.
    regs->rax = static_cast<uint64_t>(kErestartnohand);
    (void)!thread.set_registers(*regs);
    return;
  }
  if (!regs || static_cast<int64_t>(regs->rax) != -EINTR ||
      std::find(std::begin(kNeverRestarted), std::end(kNeverRestarted),
                static_cast<int64_t>(regs->orig_rax)) == std::end(kNeverRestarted) ||
      has_signal_waiting(thread))
    return;
  // As a call that the kernel restarts by itself.
  regs->rax = static_cast<uint64_t>(kErestartnointr);
  (void)!thread.set_registers(*regs);
}

} // namespace

// `request`: how the thread goes on from a stop that is none of ours. PTRACE_CONT: it has been
// interrupted; PTRACE_SYSCALL: it is yet to be, should it not stop by itself.
void StoppedProcess::wait_for(pid_t tid, int request) {
  const Tracee thread(tid);
  const auto begin = Clock::now();
  const timespec* limit = request == PTRACE_CONT ? &kSecond : &kGlance;
  for (;;) {
    auto status = wait_status(tid, *limit);
    if (!status && limit != &kSecond) { // it runs on; behind kMoment: another thread got the signal
      limit = &kSecond;
      ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr);
      continue;
    }
    if (!status) {
      if (thread_state(tid) != 'Z') // the main thread's end is told after all others'
        stragglers_.push_back(tid);
      return;
    }
    const Stop stop = thread.stop_of(*status);
    if (stop.kind == Stop::Kind::kGone)
      return;
    if (stop.kind == Stop::Kind::kSignal && deaths_ == Deaths::kHeld &&
        dies_with_core(tid, stop.signal)) {
      dying_.push_back({tid, stop.signal});
      return;
    }
    if (stop.kind == Stop::Kind::kSignal) {
      // A signal was on its way to the thread: it gets it, and is stopped right behind, unless it
      // has just begun to run. (They may come faster than a glance takes.)
      const bool enough = request == PTRACE_CONT ||
                          Clock::now() - begin > std::chrono::nanoseconds(kGlance.tv_nsec);
      if (enough)
        ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr);
      if (ignored_signals(tid) & dune::signal_bit(stop.signal))
        call_again(thread);
      limit = enough ? &kSecond : &kGlance;
      ptrace(static_cast<__ptrace_request>(request), tid, nullptr, stop.signal);
      continue;
    }
    const bool suspended = stop.kind == Stop::Kind::kEvent && stop.signal != SIGTRAP;
    if (request == PTRACE_CONT && !suspended && a_signal_ends_its_call(thread)) {
      limit = &kMoment;
      ptrace(PTRACE_CONT, tid, nullptr, nullptr);
      continue;
    }
    is_suspended_ |= suspended;
    threads_.push_back(tid);
    return call_again(thread);
  }
}

// Seizes and stops what was not there before. False: nothing is there that was not.
Checked<bool> StoppedProcess::stop_unseen() {
  std::vector<pid_t> running, waiting;
  const TaskList tasks = list_tasks(pid_);
  bool any = !tasks.is_complete;
  for (pid_t tid : tasks.tids) {
    if (std::find(seen_.begin(), seen_.end(), tid) != seen_.end())
      continue;
    any = true;
    seen_.push_back(tid);
    // With seccomp suspended what we do in the thread's name cannot be held against it; that is
    // root's to ask for.
    if (ptrace(PTRACE_SEIZE, tid, nullptr, kTraceOptions | PTRACE_O_SUSPEND_SECCOMP) != 0 &&
        ptrace(PTRACE_SEIZE, tid, nullptr, kTraceOptions) != 0) {
      const int error = errno;
      const char state = thread_state(tid);
      if (error == ESRCH || is_ended(state))
        continue; // it has ended
      running.insert(running.end(), waiting.begin(), waiting.end());
      stop_all(running);
      if (auto ok = check_untraced(pid_, tid); !ok)
        return ok.error();
      return explain_refusal(pid_, error);
    }
    (thread_state(tid) == 'R' ? running : waiting).push_back(tid);
  }
  // Those that want the processor together. The others one by one: should we die, those between
  // their interruption and the correction of what their call returns would notice.
  stop_all(running);
  for (pid_t tid : waiting)
    stop_all({tid});
  return any;
}

void StoppedProcess::stop_all(const std::vector<pid_t>& tids) {
  for (pid_t tid : tids)
    ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr);
  for (pid_t tid : tids)
    wait_for(tid, PTRACE_CONT);
}

Checked<std::vector<pid_t>> StoppedProcess::stop_new() {
  const auto before = static_cast<ptrdiff_t>(threads_.size());
  for (bool more = true; more;) {
    auto unseen = stop_unseen();
    if (!unseen)
      return unseen.error();
    more = *unseen;
  }
  return std::vector<pid_t>(threads_.begin() + before, threads_.end());
}

std::vector<pid_t> StoppedProcess::stop_stragglers() {
  const auto before = static_cast<ptrdiff_t>(threads_.size());
  for (pid_t tid : std::exchange(stragglers_, {}))
    wait_for(tid, PTRACE_CONT);
  return std::vector<pid_t>(threads_.begin() + before, threads_.end());
}

Checked<StoppedProcess> StoppedProcess::stop(pid_t pid, Deaths deaths) {
  StoppedProcess result(pid, deaths);
  if (auto ok = result.stop_new(); !ok)
    return ok.error();
  if (result.threads_.empty() && result.stragglers_.empty() && result.dying_.empty())
    return explain_refusal(pid, ESRCH);
  return result;
}

bool StoppedProcess::let_die() {
  const bool any = !dying_.empty();
  for (const Dying& each : dying_)
    (void)!Tracee(each.tid).detach(each.signal);
  dying_.clear();
  return any;
}

StoppedProcess::~StoppedProcess() {
  let_die();
  for (pid_t tid : threads_)
    ptrace(PTRACE_DETACH, tid, nullptr, nullptr);
}

namespace {

// At the call by which a thread goes into its guest, or another that looks like it.
bool is_about_to_enter_guest(const Tracee& thread) {
  auto regs = thread.registers();
  return regs && regs->orig_rax == SYS_ioctl && thread.enters_system_call();
}

} // namespace

bool StoppedProcess::run_briefly(pid_t tid) {
  std::erase(threads_, tid);
  // A stop at a call leaves the kernel work to do on the thread's way back to user mode (rseq's),
  // and for such work dune.ko comes out again before it has gone in. Were the thread stopped there
  // each time that it tries, it would never get in.
  const bool stops_at_calls = !is_about_to_enter_guest(Tracee(tid));
  ptrace(stops_at_calls ? PTRACE_SYSCALL : PTRACE_CONT, tid, nullptr, nullptr);
  // Not interrupted at once: it could be again and again before it has executed an instruction.
  wait_for(tid, PTRACE_SYSCALL);
  return !threads_.empty() && threads_.back() == tid;
}

bool in_system_call(const user_regs_struct& regs) { return as_restarted(regs).rip != regs.rip; }

} // namespace ddbg::keeper
