#include "dtrace-lite/keeper/confinement.h"
#include "libdune/arch/seccomp_filter.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <optional>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

namespace ddbg::keeper {

namespace {

constexpr const char* kInsteadOfGuest =
    "ddbg needs that to run the program in a guest; try --backend signal.";
constexpr const char* kInstead = "ddbg works inside the program, where the kernel may answer such "
                                 "a call by killing it. Use gdb, "
                                 "or start it without its sandbox.";

struct NeededCall {
  const char* name;
  long number;
  bool may_fail; // the program is none the worse for an error
};
constexpr NeededCall kNeeded[] = {
    // by the agent
    {"rt_sigreturn", SYS_rt_sigreturn, false},
    {"futex", SYS_futex, false},
    {"rt_sigaction", SYS_rt_sigaction, true},
    {"rt_sigprocmask", SYS_rt_sigprocmask, false},
    {"sigaltstack", SYS_sigaltstack, false},
    {"rt_sigpending", SYS_rt_sigpending, true},
    {"rt_sigtimedwait", SYS_rt_sigtimedwait, true},
    {"getpid", SYS_getpid, true},
    {"gettid", SYS_gettid, true},
    {"tgkill", SYS_tgkill, true},
    {"rt_tgsigqueueinfo", SYS_rt_tgsigqueueinfo, true},
    {"mmap", SYS_mmap, true},
    {"munmap", SYS_munmap, true},
    {"prctl", SYS_prctl, true},
};
// By it where threads run in a guest, too.
constexpr NeededCall kNeededInGuest[] = {
    {"ioctl", SYS_ioctl, false},
    {"openat", SYS_openat, false},
    {"pread64", SYS_pread64, false},
    {"fcntl", SYS_fcntl, false},
    {"mmap", SYS_mmap, false},
    {"mprotect", SYS_mprotect, false},
    {"madvise", SYS_madvise, false},
    {"arch_prctl", SYS_arch_prctl, false},
    {"rt_sigtimedwait", SYS_rt_sigtimedwait, false},
    {"close", SYS_close, true},
    {"read", SYS_read, true},
    {"readlinkat", SYS_readlinkat, true},
    {"fstatfs", SYS_fstatfs, true},
    {"prlimit64", SYS_prlimit64, true},
    {"perf_event_open", SYS_perf_event_open, true},
};
constexpr NeededCall kNeededOutside[] = {
    // to bring it in
    {"memfd_create", SYS_memfd_create, false},
    {"close", SYS_close, false},
    {"mmap", SYS_mmap, false},
    {"munmap", SYS_munmap, false},
    {"madvise", SYS_madvise, false},
    {"mprotect", SYS_mprotect, false},
    {"rt_sigprocmask", SYS_rt_sigprocmask, false},
};

bool lets_pass(const std::vector<sock_filter>& program, const NeededCall& call, TargetAddr from) {
  seccomp_data data{};
  data.instruction_pointer = from.value;
  data.nr = static_cast<int>(call.number);
  data.arch = AUDIT_ARCH_X86_64;
  const uint32_t action = dune::seccomp_verdict(program, data) & SECCOMP_RET_ACTION_FULL;
  return action == SECCOMP_RET_ALLOW || action == SECCOMP_RET_LOG ||
         (action == SECCOMP_RET_ERRNO && call.may_fail);
}

// nullopt: there is no such filter, or it is not ours to read (errno).
std::optional<std::vector<sock_filter>> read_filter(pid_t tid, long index) {
  const long count = ptrace(PTRACE_SECCOMP_GET_FILTER, tid, index, nullptr);
  if (count < 0)
    return std::nullopt;
  std::vector<sock_filter> program(static_cast<size_t>(count));
  if (ptrace(PTRACE_SECCOMP_GET_FILTER, tid, index, program.data()) < 0)
    return std::nullopt;
  return program;
}

int filter_count(pid_t tid) { return atoi(read_status_field(tid, "Seccomp_filters").c_str()); }

// Calls that come from one place.
struct Calls {
  std::span<const NeededCall> needed;
  TargetAddr from;
  const char* instead = kInstead;
};

std::span<const NeededCall> needed_in(bool guest) {
  return guest ? std::span<const NeededCall>(kNeededInGuest) : std::span<const NeededCall>();
}

// Of a stopped thread.
Checked<void> check_filters(pid_t pid, pid_t tid, std::initializer_list<Calls> all) {
  for (long index = 0;; ++index) {
    const auto program = read_filter(tid, index);
    if (!program && errno == ENOENT)
      return {};
    if (!program)
      return Diagnostic{fmt::format("Process {} is confined by seccomp, and its filter cannot be "
                                    "read: {}.",
                                    pid, strerror(errno)),
                        "Root can let ddbg find out whether the filter leaves it what it needs; "
                        "or use gdb.",
                        {}};
    for (const Calls& calls : all)
      for (const NeededCall& call : calls.needed)
        if (!lets_pass(*program, call, calls.from))
          return Diagnostic{fmt::format("Process {} is confined by seccomp, and may not call {}.",
                                        pid, call.name),
                            calls.instead,
                            {}};
  }
}

TargetAddr a_call_of_agent(const MemoryMap& map) {
  return TargetAddr(map.quick_call) + dune::session::kSyscallLength; // somewhere in its own text
}

} // namespace

bool has_more_filters(pid_t tid) { return filter_count(tid) > filter_count(getpid()); }

Checked<Filters> check_confinement(pid_t pid, const StoppedProcess& stopped, bool guest) {
  const auto plan = plan_addresses(pid, false);
  if (!plan)
    return plan.error();
  Filters filters = Filters::kKnown;
  for (pid_t tid : stopped.threads()) {
    if (read_status_field(tid, "Seccomp") == "1")
      return Diagnostic{
          fmt::format("Process {} is confined by seccomp to read, write and exit.", pid),
          kInstead,
          {}};
    if (!has_more_filters(tid))
      continue;
    const TargetAddr from = a_call_of_agent(*plan);
    if (auto ok =
            check_filters(pid, tid, {{kNeeded, from}, {needed_in(guest), from, kInsteadOfGuest}});
        !ok)
      return ok.error();
    filters = Filters::kOthers;
  }
  return filters;
}

Checked<Filters> check_new_image(const Injected& before, const Detour& detour) {
  if (!has_more_filters(before.pid))
    return Filters::kKnown;
  const auto plan = plan_addresses(before.pid, before.map.guest != 0);
  if (!plan)
    return plan.error();
  if (before.filters == Filters::kKnown && plan->agent_text == before.map.agent_text &&
      detour.system_call().value == before.config.detour_begin)
    return Filters::kKnown;
  const TargetAddr from = a_call_of_agent(*plan);
  if (auto ok = check_filters(before.pid, before.pid,
                              {{kNeeded, from},
                               {kNeededOutside, detour.mask_restored()},
                               {needed_in(before.map.guest != 0), from, kInsteadOfGuest}});
      !ok)
    return ok.error();
  return Filters::kOthers;
}

} // namespace ddbg::keeper
