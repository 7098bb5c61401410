// One thread under ptrace, for the short time of birth, attach, exec or release: registers, memory,
// and code that it runs in our name. The only place, with baseline/, that calls ptrace.
#pragma once

#include "dtrace-lite/keeper/detour.h"
#include "dtrace-lite/keeper/proc.h"

#include <functional>
#include <optional>
#include <span>

namespace ddbg::keeper {

// Why a thread has come to a halt under ptrace.
struct Stop {
  enum class Kind {
    kEvent,      // an interrupt of ours, or a group stop: `signal` is the stopping one, or SIGTRAP
    kExec,       // PTRACE_EVENT_EXEC
    kSystemCall, // entry or exit
    kSignal,     // about to be delivered
    kGone,       // it has ended, or is past doing anything else
  } kind;
  int signal = 0;
};

// The options that Tracee relies on, for whoever seizes a thread.
extern const int kTraceOptions;

// Waits for a child or traced thread to stop or to end: its wait status. What others have to tell
// stays to be waited for. Fails for a main thread that has ended before its process.
dune::Result<int> wait_for(pid_t tid);

// A function of the agent's for a thread to run (agent/entry.S, agent_run). It returns the Away
// with which the thread takes the way back.
struct Errand {
  TargetAddr run, function, stack;
  uint64_t arguments[3] = {};
};

// The thread is in a ptrace stop for as long as this object is used.
class Tracee {
public:
  explicit Tracee(pid_t tid) : tid_(tid) {}
  pid_t tid() const { return tid_; }

  dune::Result<user_regs_struct> registers() const;
  dune::Status set_registers(const user_regs_struct&) const;
  dune::Result<uint64_t> signal_mask() const;
  dune::Status set_signal_mask(uint64_t) const;
  // The XSAVE image as PTRACE_GETREGSET gives it.
  dune::Result<std::vector<uint8_t>> xstate() const;
  dune::Status detach(int signal = 0) const;

  // It has stopped on its way into a system call.
  bool enters_system_call() const;

  // What a status of waitpid means. A thread that is about to exit is let go here.
  Stop stop_of(int wait_status) const;

  // Lets the thread run (PTRACE_CONT, PTRACE_SYSCALL), with the signals that come to it, until a
  // stop is the one wanted. Errors: the thread is gone.
  using Wanted = std::function<bool(const Stop&)>;
  dune::Status run_until(int request, const Wanted&) const;

  // A system call executed by the thread; everything but memory is put back afterwards. Returns
  // what the kernel returned (an -errno included).
  dune::Result<int64_t> system_call(Detour&, long number,
                                    std::span<const uint64_t> arguments) const;

  // Runs the agent's agent_take_process, then puts registers and mask back.
  dune::Status run_take(Detour&, Errand) const;

  // Runs a function of the agent's that returns its first argument, and gets it the way back for
  // that.
  dune::Status run(Detour&, Errand) const;
  // In two steps, so that others can be sent meanwhile. From the first on the thread is on its
  // errand, whether we live or not; it begins when it is resumed. The second waits until it is on
  // its way back, with the mask that the errand left for it.
  dune::Status send(const Detour&, const Errand&, uint64_t blocked) const;
  dune::Status fetch(const Detour&, const user_regs_struct& registers_then) const;

private:
  struct Before {
    user_regs_struct registers;
    uint64_t mask;
  };
  dune::Result<Before> save(Detour&) const;
  dune::Status put_back(const Before&) const;
  dune::Status set_out(user_regs_struct start, uint64_t blocked) const;
  pid_t tid_;
};

} // namespace ddbg::keeper
