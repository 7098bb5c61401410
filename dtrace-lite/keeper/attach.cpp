#include "dtrace-lite/keeper/birth.h"
#include "dtrace-lite/keeper/confinement.h"
#include "dtrace-lite/keeper/release.h"

#include <csignal>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace ddbg::keeper {

namespace {

// A process that can be debugged, with 64-bit x86 code and no agent of ours in it already.
Checked<void> check_process(pid_t pid) {
  if (auto ok = check_is_process(pid); !ok)
    return ok;
  dune::Fd exe(open(fmt::format("/proc/{}/exe", pid).c_str(), O_RDONLY | O_CLOEXEC));
  if (!exe)
    return explain_refusal(pid, errno == EACCES ? EPERM : errno);
  unsigned char ident[20] = {};
  if (read(exe.get(), ident, sizeof ident) != sizeof ident || ident[4] != 2 || ident[18] != 62)
    return Diagnostic{fmt::format("Process {} is not an x86-64 program.", pid),
                      ident[4] == 1 ? "32-bit programs cannot be debugged here; gdb can." : "",
                      {}};
  for (const MapEntry& m : read_maps(pid))
    if (m.path.find("memfd:ddbg-session") != std::string::npos)
      return Diagnostic{fmt::format("Process {} is already being debugged by a ddbg.", pid),
                        "Detach the other one first.",
                        {}};
  return {};
}

// Calls that do not return here, or not only here: the thread makes them under the agent's eyes.
bool agent_makes(uint64_t number) {
  switch (number) {
  case SYS_clone:
  case SYS_clone3:
  case SYS_fork:
  case SYS_vfork:
  case SYS_execve:
  case SYS_execveat:
    return true;
  default:
    return false;
  }
}

// It is to go on with a call that it was interrupted in, and has not got to that yet.
bool is_before_restart(const Injected& in, const user_regs_struct& regs) {
  uint8_t code[2];
  return regs.rax == SYS_restart_syscall &&
         in.memory->read(TargetAddr(regs.rip), code, sizeof code) && code[0] == 0x0f &&
         code[1] == 0x05;
}

// The agent's `syscall` would make another call of its number.
bool is_call_of_32_bits(const Injected& in, const user_regs_struct& regs) {
  uint8_t code[2];
  return in.memory->read(TargetAddr(regs.rip - sizeof code), code, sizeof code) &&
         code[0] == 0xcd && code[1] == 0x80;
}

Checked<void> adopt_threads(Injected& in, const StoppedProcess& stopped) {
  uint32_t slot = 0;
  for (pid_t tid : stopped.threads()) {
    const Tracee thread(tid);
    auto regs = thread.registers();
    if (!regs)
      continue; // it ended
    bool in_call = in_system_call(*regs) || is_before_restart(in, *regs);
    if (in_call && (agent_makes(regs->orig_rax) || is_call_of_32_bits(in, *regs))) {
      const uint64_t number = regs->orig_rax;
      *regs = as_restarted(*regs);
      regs->rax = number; // a timeout starts anew
      regs->orig_rax = ~0ull;
      if (auto ok = thread.set_registers(*regs); !ok)
        return to_diagnostic(ok.error());
      in_call = false;
    }
    auto ok = in_call ? enter_agent_after_call(in, thread, slot) : enter_agent(in, thread, slot);
    if (!ok)
      return ok;
    ++slot;
  }
  return {};
}

} // namespace

Checked<Injected> attach(pid_t pid, const dune::backend::Choice& choice) {
  if (auto ok = check_process(pid); !ok)
    return ok.error();
  auto stopped = StoppedProcess::stop(pid);
  if (!stopped)
    return stopped.error();
  if (!stopped->stragglers().empty())
    return Diagnostic{fmt::format("Thread {} of process {} does not come out of the kernel.",
                                  stopped->stragglers().front(), pid),
                      "It may be waiting for a child made with vfork; try again later.",
                      {}};
  auto filters = check_confinement(pid, *stopped, has_guest(choice));
  if (!filters)
    return filters.error();
  auto detour = Detour::build(pid);
  if (!detour)
    return to_diagnostic(detour.error());
  auto in = inject_agent(pid, Tracee(stopped->threads().front()), *detour, choice, *filters,
                         Age::kRunning);
  if (!in)
    return in.error();
  if (auto ok = adopt_threads(*in, *stopped); !ok) {
    abandon(*in);
    (void)take_out(*in, *stopped, *detour);
    return ok.error();
  }
  in->was_suspended = stopped->is_suspended();
  if (in->was_suspended) // or no thread would come to run the agent
    ::kill(pid, SIGCONT);
  return in;
}

} // namespace ddbg::keeper
