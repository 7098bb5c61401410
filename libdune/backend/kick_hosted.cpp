#include "libdune/backend/kick_hosted.h"

#include "libdune/session/layout.h"

#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace dune::backend {

int open_kick(pid_t tid) {
  perf_event_attr attr{};
  attr.size = sizeof attr;
  attr.type = PERF_TYPE_SOFTWARE;
  attr.config = PERF_COUNT_SW_CPU_CLOCK;
  attr.sample_period = 10'000; // nanoseconds; the kernel takes no less
  attr.disabled = 1;
  attr.exclude_kernel = attr.exclude_hv = 1;
  attr.sigtrap = attr.remove_on_exec = 1;
  attr.sig_data = session::kKickValue;
  const int fd =
      static_cast<int>(syscall(SYS_perf_event_open, &attr, tid, -1, -1, PERF_FLAG_FD_CLOEXEC));
  if (fd >= 0)
    ioctl(fd, PERF_EVENT_IOC_REFRESH, 1); // enables it, and disables it after one overflow
  return fd;
}

} // namespace dune::backend
