#include "dtrace-lite/keeper/kick.h"

#include "libdune/backend/kick_hosted.h"
#include "libdune/session/layout.h"

#include <csignal>
#include <cstring>
#include <fmt/format.h>
#include <sys/syscall.h>

namespace ddbg::keeper {

using namespace dune::session;

Checked<void> Kicker::kick(pid_t tid) {
  if (precise_) {
    dune::Fd& event = events_[tid];
    event.reset();
    event.reset(dune::backend::open_kick(tid));
    if (event || errno == ESRCH)
      return {};
    return Diagnostic{
        fmt::format("Cannot stop thread {}: perf_event_open: {}.", tid, strerror(errno)),
        errno == EMFILE ? "Raise ddbg's limit of open files (ulimit -n)." : "",
        {}};
  }
  siginfo_t info{};
  info.si_signo = kKickSignal;
  info.si_code = SI_QUEUE;
  info.si_pid = getpid();
  info.si_uid = getuid();
  info.si_value.sival_ptr = reinterpret_cast<void*>(kKickValue);
  syscall(SYS_rt_tgsigqueueinfo, process_, tid, kKickSignal, &info);
  return {};
}

} // namespace ddbg::keeper
