#include "dtrace-lite/keeper/tracee.h"

#include "libdune/session/layout.h"

#include <csignal>
#include <elf.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>

namespace ddbg::keeper {

using dune::Errc;
using dune::Error;

// Exits are traced so that the main thread's is seen, too: waitpid tells it only when no other
// thread is left.
const int kTraceOptions = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXIT;

dune::Result<user_regs_struct> Tracee::registers() const {
  user_regs_struct regs;
  if (ptrace(PTRACE_GETREGS, tid_, nullptr, &regs) != 0)
    return dune::system_error("cannot read the thread's registers");
  return regs;
}

dune::Status Tracee::set_registers(const user_regs_struct& regs) const {
  if (ptrace(PTRACE_SETREGS, tid_, nullptr, &regs) != 0)
    return dune::system_error("cannot write the thread's registers");
  return {};
}

dune::Result<uint64_t> Tracee::signal_mask() const {
  uint64_t mask;
  if (ptrace(PTRACE_GETSIGMASK, tid_, sizeof mask, &mask) != 0)
    return dune::system_error("cannot read the thread's signal mask");
  return mask;
}

dune::Status Tracee::set_signal_mask(uint64_t mask) const {
  if (ptrace(PTRACE_SETSIGMASK, tid_, sizeof mask, &mask) != 0)
    return dune::system_error("cannot write the thread's signal mask");
  return {};
}

dune::Result<std::vector<uint8_t>> Tracee::xstate() const {
  std::vector<uint8_t> image(64 * 1024);
  iovec vec{image.data(), image.size()};
  if (ptrace(PTRACE_GETREGSET, tid_, NT_X86_XSTATE, &vec) != 0)
    return dune::system_error("cannot read the thread's floating-point state");
  image.resize(vec.iov_len);
  return image;
}

dune::Status Tracee::detach(int signal) const {
  if (ptrace(PTRACE_DETACH, tid_, nullptr, signal) != 0)
    return dune::system_error("cannot detach from the thread");
  return {};
}

// The last thread of a process that ends tells it only when the others have been waited for. They
// are ours too: whoever ends meanwhile is taken note of by nobody.
dune::Result<int> wait_for(pid_t tid) {
  for (;;) {
    int status;
    const pid_t who = waitpid(-1, &status, __WALL);
    if (who < 0)
      return Error{Errc::kGone, "the thread is gone", tid};
    if (who == tid)
      return status;
  }
}

bool Tracee::enters_system_call() const {
  __ptrace_syscall_info info{};
  return ptrace(PTRACE_GET_SYSCALL_INFO, tid_, sizeof info, &info) > 0 &&
         info.op == PTRACE_SYSCALL_INFO_ENTRY;
}

Stop Tracee::stop_of(int status) const {
  if (!WIFSTOPPED(status))
    return {Stop::Kind::kGone};
  const int signal = WSTOPSIG(status);
  switch (status >> 16) {
  case 0:
    if (signal == (SIGTRAP | 0x80))
      return {Stop::Kind::kSystemCall};
    return {Stop::Kind::kSignal, signal};
  case PTRACE_EVENT_EXIT:
    (void)!detach();
    return {Stop::Kind::kGone};
  case PTRACE_EVENT_EXEC:
    return {Stop::Kind::kExec};
  default:
    return {Stop::Kind::kEvent, signal};
  }
}

dune::Status Tracee::run_until(int request, const Wanted& wanted) const {
  for (int signal = 0;;) {
    if (ptrace(static_cast<__ptrace_request>(request), tid_, nullptr, signal) != 0)
      return dune::system_error("cannot run the thread");
    int status;
    if (waitpid(tid_, &status, __WALL) != tid_)
      return Error{Errc::kGone, "the thread is gone", tid_};
    const Stop stop = stop_of(status);
    if (stop.kind == Stop::Kind::kGone)
      return Error{Errc::kGone, "the thread ended", tid_};
    if (wanted(stop))
      return {};
    signal = stop.kind == Stop::Kind::kSignal ? stop.signal : 0;
  }
}

dune::Result<user_regs_struct> Tracee::excursion(Detour& detour, user_regs_struct start,
                                                 uint64_t blocked, int request,
                                                 const Wanted& wanted) const {
  auto saved = registers();
  auto mask = signal_mask();
  if (!saved || !mask)
    return !saved ? saved.error() : mask.error();
  if (auto ok = detour.save(*saved, *mask); !ok)
    return ok.error();
  start.orig_rax = ~0ull;    // or the kernel would take it for a call to restart
  start.eflags &= ~0x500ull; // DF, TF
  // The order counts: wherever the keeper dies, the thread has what it needs, or is on its way
  // back.
  if (auto ok = set_registers(start); !ok)
    return ok.error();
  if (auto ok = set_signal_mask(blocked); !ok)
    return ok.error();
  if (auto ok = run_until(request, wanted); !ok)
    return ok.error();
  auto there = registers();
  if (!there)
    return there.error();
  if (auto ok = set_signal_mask(*mask); !ok)
    return ok.error();
  if (auto ok = set_registers(*saved); !ok)
    return ok.error();
  return there;
}

dune::Result<int64_t> Tracee::system_call(Detour& detour, long number,
                                          std::span<const uint64_t> arguments) const {
  auto start = registers();
  if (!start)
    return start.error();
  start->rip = detour.system_call().value;
  start->rsp = detour.saved().value; // no alternate stack is there: sigaltstack is never refused
  start->rax = static_cast<uint64_t>(number);
  unsigned long long* const slots[] = {&start->rdi, &start->rsi, &start->rdx,
                                       &start->r10, &start->r8,  &start->r9};
  DUNE_ASSERT(arguments.size() <= 6);
  for (size_t i = 0; i < arguments.size(); ++i)
    *slots[i] = arguments[i];
  // By its entry and exit stops, not by single-stepping: a step's SIGTRAP would be forced, which
  // resets the program's disposition where it is blocked or ignored.
  int stops = 0;
  auto after = excursion(detour, *start, ~0ull, PTRACE_SYSCALL, [&](const Stop& stop) {
    return stop.kind == Stop::Kind::kSystemCall && ++stops == 2;
  });
  if (!after)
    return after.error();
  return static_cast<int64_t>(after->rax);
}

dune::Status Tracee::run_take(Detour& detour, TargetAddr entry, TargetAddr stack) const {
  using namespace dune::session;
  auto start = registers();
  if (!start)
    return start.error();
  start->rip = entry.value;
  start->rsp = stack.value;
  start->rbx = detour.saved().value;
  start->r12 = detour.way_back().value;
  const auto its_kick = [&](const Stop& stop) {
    siginfo_t info;
    return stop.kind == Stop::Kind::kSignal && stop.signal == kKickSignal &&
           ptrace(PTRACE_GETSIGINFO, tid_, nullptr, &info) == 0 && info.si_code == SI_QUEUE &&
           reinterpret_cast<uint64_t>(info.si_value.sival_ptr) == kKickValue;
  };
  auto there =
      excursion(detour, *start, ~(uint64_t{1} << (kKickSignal - 1)), PTRACE_CONT, its_kick);
  if (!there)
    return there.error();
  return {};
}

} // namespace ddbg::keeper
