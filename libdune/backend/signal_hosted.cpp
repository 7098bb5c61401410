// The signal backend: int3 and steps arrive as SIGTRAP, watchpoints as perf events' SIGTRAP, system
// calls are the kernel's own. Needs nothing; the probe says what it costs and whether the
// processor's debug registers can be had.
#include "libdune/backend/backend.h"
#include "libdune/backend/kick_hosted.h"
#include "libdune/backend/measure_hosted.h"
#include "libdune/session/layout.h"

#include <csignal>
#include <cstdlib>
#include <linux/hw_breakpoint.h>
#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

namespace dune::backend {

namespace {

void ignore_trap(int) {}

bool watchpoints_work() {
  static volatile long watched;
  perf_event_attr attr{};
  attr.size = sizeof attr;
  attr.type = PERF_TYPE_BREAKPOINT;
  attr.bp_type = HW_BREAKPOINT_W;
  attr.bp_addr = reinterpret_cast<uint64_t>(&watched);
  attr.bp_len = sizeof watched;
  attr.sample_period = 1;
  attr.exclude_kernel = attr.exclude_hv = 1;
  attr.sigtrap = attr.remove_on_exec = 1;
  static volatile sig_atomic_t fired;
  struct sigaction action {
  }, before;
  action.sa_handler = [](int) { fired = 1; };
  sigaction(SIGTRAP, &action, &before);
  const long fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
  fired = 0;
  watched = 1; // some hypervisors accept the event and never deliver it
  if (fd >= 0)
    close(static_cast<int>(fd));
  sigaction(SIGTRAP, &before, nullptr);
  return fd >= 0 && fired;
}

// In a child, with SIGTRAP blocked, as it is while the agent runs: before 5.18 the kernel killed a
// process for such an event.
bool precise_kicks_work() {
  const pid_t child = fork();
  if (child == 0) {
    sigset_t trap;
    sigemptyset(&trap);
    sigaddset(&trap, SIGTRAP);
    sigprocmask(SIG_BLOCK, &trap, nullptr);
    const bool opened = open_kick(0) >= 0;
    const timespec none{};
    siginfo_t info{};
    constexpr uint64_t kPatience = 100'000'000; // it takes 10 us of a processor's time
    for (const uint64_t begin = now_ns(); opened && now_ns() - begin < kPatience;)
      for (int spin = 0; spin < 1000; ++spin)
        if (spin == 999 && sigtimedwait(&trap, &info, &none) == SIGTRAP)
          _exit(0);
    _exit(1);
  }
  int status = 1;
  return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

} // namespace

Result<Probe> probe_signal() {
  constexpr size_t kRounds = 101;
  Probe p;
  struct sigaction action {
  }, before;
  action.sa_handler = ignore_trap;
  sigaction(SIGTRAP, &action, &before);
  p.trap_ns = median_ns<kRounds>([] { asm volatile("int3" ::: "memory"); });
  sigaction(SIGTRAP, &before, nullptr);
  p.syscall_ns = median_ns<kRounds>([] { syscall(SYS_getppid); });
  p.capabilities = session::kCapStep;
  if (getenv("DDBG_NO_PERF")) // as where a container's profile refuses perf_event_open
    return p;
  if (watchpoints_work())
    p.capabilities |= session::kCapHardwareWatch;
  if (precise_kicks_work())
    p.capabilities |= session::kCapPreciseKick;
  return p;
}

} // namespace dune::backend
