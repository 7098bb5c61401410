#include "dtrace-lite/keeper/tracee.h"

#include "dtrace-lite/keeper/proc.h"
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

// The main thread's end is told only when no other thread is left, and in a process that is killed
// the others may stand at their exit until they are let go.
dune::Result<int> wait_for(pid_t tid) {
  for (;;) {
    siginfo_t any; // left to whoever waits for it
    int status;
    if (waitid(P_ALL, 0, &any, WEXITED | WSTOPPED | WNOWAIT | __WALL) != 0)
      return Error{Errc::kGone, "the thread is gone", tid};
    const pid_t who = waitpid(tid, &status, __WALL | WNOHANG);
    if (who == tid)
      return status;
    if (who < 0 || thread_state(tid) == 'Z')
      return Error{Errc::kGone, "the thread is gone", tid};
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
    const auto status = wait_for(tid_);
    if (!status)
      return status.error();
    const Stop stop = stop_of(*status);
    if (stop.kind == Stop::Kind::kGone)
      return Error{Errc::kGone, "the thread ended", tid_};
    if (wanted(stop))
      return {};
    signal = stop.kind == Stop::Kind::kSignal ? stop.signal : 0;
  }
}

dune::Result<Tracee::Before> Tracee::save(Detour& detour) const {
  auto regs = registers();
  auto mask = signal_mask();
  if (!regs || !mask)
    return !regs ? regs.error() : mask.error();
  if (auto ok = detour.save(*regs, *mask, detour.saved()); !ok)
    return ok.error();
  return Before{*regs, *mask};
}

dune::Status Tracee::put_back(const Before& before) const {
  if (auto ok = set_signal_mask(before.mask); !ok)
    return ok;
  return set_registers(before.registers);
}

// The order counts: wherever the keeper dies, the thread has what it needs, or is on its way back.
dune::Status Tracee::set_out(user_regs_struct start, uint64_t blocked) const {
  start.orig_rax = ~0ull;    // or the kernel would take it for a call to restart
  start.eflags &= ~0x500ull; // DF, TF
  if (auto ok = set_registers(start); !ok)
    return ok;
  return set_signal_mask(blocked);
}

dune::Result<int64_t> Tracee::system_call(Detour& detour, long number,
                                          std::span<const uint64_t> arguments) const {
  auto before = save(detour);
  if (!before)
    return before.error();
  user_regs_struct start = before->registers;
  start.rip = detour.system_call().value;
  start.rsp = detour.saved().value; // no alternate stack is there: sigaltstack is never refused
  start.rax = static_cast<uint64_t>(number);
  unsigned long long* const slots[] = {&start.rdi, &start.rsi, &start.rdx,
                                       &start.r10, &start.r8,  &start.r9};
  DUNE_ASSERT(arguments.size() <= 6);
  for (size_t i = 0; i < arguments.size(); ++i)
    *slots[i] = arguments[i];
  if (auto ok = set_out(start, ~0ull); !ok)
    return ok.error();
  // By its entry and exit stops, not by single-stepping: a step's SIGTRAP would be forced, which
  // resets the program's disposition where it is blocked or ignored.
  int stops = 0;
  const auto is_made = [&](const Stop& stop) {
    return stop.kind == Stop::Kind::kSystemCall && ++stops == 2;
  };
  if (auto ok = run_until(PTRACE_SYSCALL, is_made); !ok)
    return ok.error();
  auto after = registers();
  if (!after)
    return after.error();
  if (auto ok = put_back(*before); !ok)
    return ok.error();
  return static_cast<int64_t>(after->rax);
}

dune::Status Tracee::send(const Detour& detour, const Errand& errand, uint64_t blocked) const {
  auto start = registers(); // what is not named below stays, fs_base above all
  if (!start)
    return start.error();
  start->rip = errand.run.value;
  start->rsp = errand.stack.value;
  start->rax = errand.function.value;
  start->rdi = errand.arguments[0];
  start->rsi = errand.arguments[1];
  start->rdx = errand.arguments[2];
  start->r12 = detour.way_back().value;
  return set_out(*start, blocked);
}

dune::Status Tracee::run_take(Detour& detour, Errand take) const {
  using namespace dune::session;
  const auto its_kick = [&](const Stop& stop) {
    siginfo_t info;
    return stop.kind == Stop::Kind::kSignal && stop.signal == kKickSignal &&
           ptrace(PTRACE_GETSIGINFO, tid_, nullptr, &info) == 0 && info.si_code == SI_QUEUE &&
           reinterpret_cast<uint64_t>(info.si_value.sival_ptr) == kKickValue;
  };
  auto before = save(detour);
  if (!before)
    return before.error();
  take.arguments[0] = detour.saved().value;
  if (auto ok = send(detour, take, ~(uint64_t{1} << (kKickSignal - 1))); !ok)
    return ok;
  if (auto ok = run_until(PTRACE_CONT, its_kick); !ok)
    return ok;
  return put_back(*before);
}

dune::Status Tracee::run(Detour& detour, Errand errand) const {
  auto before = save(detour);
  if (!before)
    return before.error();
  errand.arguments[0] = detour.saved().value;
  if (auto ok = send(detour, errand, ~0ull); !ok)
    return ok;
  return fetch(detour, before->registers);
}

dune::Status Tracee::fetch(const Detour& detour, const user_regs_struct& registers_then) const {
  int stops = 0; // where the call begins, and where it has been made
  const auto has_its_mask = [&](const Stop& stop) {
    auto there = registers();
    return stop.kind == Stop::Kind::kSystemCall && there &&
           there->rip == detour.mask_restored().value && ++stops == 2;
  };
  if (auto ok = run_until(PTRACE_SYSCALL, has_its_mask); !ok)
    return ok;
  return set_registers(registers_then);
}

} // namespace ddbg::keeper
