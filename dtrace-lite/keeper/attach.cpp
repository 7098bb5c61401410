#include "dtrace-lite/keeper/birth.h"
#include "dtrace-lite/keeper/stopped_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

namespace ddbg::keeper {

namespace {

// 64-bit x86 code, and no agent of ours in it already.
Checked<void> check_process(pid_t pid) {
  dune::Fd exe(open(fmt::format("/proc/{}/exe", pid).c_str(), O_RDONLY | O_CLOEXEC));
  if (!exe)
    return Diagnostic{
        fmt::format("Cannot attach to process {}: {}.", pid,
                    errno == ENOENT ? "no such process, or a kernel thread" : strerror(errno)),
        errno == EACCES ? "It belongs to another user: try as root." : "",
        {}};
  unsigned char ident[20] = {};
  if (read(exe.get(), ident, sizeof ident) != sizeof ident || ident[4] != 2 || ident[18] != 62)
    return Diagnostic{fmt::format("Process {} is not an x86-64 program.", pid), {}, {}};
  for (const MapEntry& m : read_maps(pid))
    if (m.path.find("memfd:ddbg-session") != std::string::npos)
      return Diagnostic{fmt::format("Process {} is already being debugged by a ddbg.", pid),
                        "Detach the other one first.",
                        {}};
  return {};
}

} // namespace

Checked<Injected> attach(pid_t pid, pid_t frontend_pid, const dune::backend::Choice& choice) {
  if (auto ok = check_process(pid); !ok)
    return ok.error();
  auto stopped = StoppedProcess::stop(pid);
  if (!stopped)
    return stopped.error();
  Tracee first(stopped->threads().front());
  auto in = inject_agent(pid, first, frontend_pid, choice);
  if (!in)
    return in.error();
  auto instruction = find_syscall_instruction(pid, *in->memory);
  if (!instruction)
    return to_diagnostic(instruction.error());
  uint32_t slot = 0;
  for (pid_t tid : stopped->threads()) {
    Tracee thread(tid);
    auto regs = thread.registers();
    if (!regs)
      continue; // it ended
    switch (in_system_call(*regs)) {
    case InKernel::kWasInterrupted:
      regs->rip -= 2;
      regs->rax = regs->orig_rax;
      regs->orig_rax = ~0ull;
      if (auto ok = thread.set_registers(*regs); !ok)
        return to_diagnostic(ok.error());
      [[fallthrough]];
    case InKernel::kRestarts:
      if (auto ok = adopt_blocked(*in, thread, slot, *instruction); !ok)
        return ok.error();
      break;
    case InKernel::kNo:
      if (auto ok = enter_agent(*in, thread, slot); !ok)
        return ok.error();
      break;
    }
    ++slot;
  }
  return in;
}

} // namespace ddbg::keeper
