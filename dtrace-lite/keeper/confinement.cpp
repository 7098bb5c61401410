#include "dtrace-lite/keeper/confinement.h"

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

// What a filter answers. The instructions are those that the kernel lets into one
// (kernel/seccomp.c, seccomp_check_filter).
uint32_t verdict(const std::vector<sock_filter>& program, const seccomp_data& data) {
  uint32_t a = 0, x = 0, memory[BPF_MEMWORDS] = {};
  for (size_t pc = 0; pc < program.size(); ++pc) {
    const sock_filter& f = program[pc];
    const uint32_t operand = BPF_SRC(f.code) == BPF_X ? x : f.k;
    switch (BPF_CLASS(f.code)) {
    case BPF_LD:
    case BPF_LDX: {
      uint32_t& to = BPF_CLASS(f.code) == BPF_LD ? a : x;
      if (BPF_MODE(f.code) == BPF_IMM)
        to = f.k;
      else if (BPF_MODE(f.code) == BPF_LEN)
        to = sizeof data;
      else if (BPF_MODE(f.code) == BPF_MEM)
        to = memory[f.k % BPF_MEMWORDS];
      else if (f.k <= sizeof data - sizeof to)
        std::memcpy(&to, reinterpret_cast<const char*>(&data) + f.k, sizeof to);
      break;
    }
    case BPF_ST:
      memory[f.k % BPF_MEMWORDS] = a;
      break;
    case BPF_STX:
      memory[f.k % BPF_MEMWORDS] = x;
      break;
    case BPF_ALU:
      switch (BPF_OP(f.code)) {
      case BPF_ADD:
        a += operand;
        break;
      case BPF_SUB:
        a -= operand;
        break;
      case BPF_MUL:
        a *= operand;
        break;
      case BPF_DIV:
        if (operand == 0)
          return SECCOMP_RET_KILL_THREAD; // as the kernel: the filter ends with 0
        a /= operand;
        break;
      case BPF_AND:
        a &= operand;
        break;
      case BPF_OR:
        a |= operand;
        break;
      case BPF_XOR:
        a ^= operand;
        break;
      case BPF_LSH:
        a <<= operand % 32;
        break;
      case BPF_RSH:
        a >>= operand % 32;
        break;
      case BPF_NEG:
        a = -a;
        break;
      }
      break;
    case BPF_JMP: {
      bool holds = false;
      switch (BPF_OP(f.code)) {
      case BPF_JA:
        pc += f.k;
        continue;
      case BPF_JEQ:
        holds = a == operand;
        break;
      case BPF_JGT:
        holds = a > operand;
        break;
      case BPF_JGE:
        holds = a >= operand;
        break;
      case BPF_JSET:
        holds = a & operand;
        break;
      }
      pc += holds ? f.jt : f.jf;
      break;
    }
    case BPF_RET:
      return BPF_RVAL(f.code) == BPF_A ? a : f.k;
    case BPF_MISC:
      (BPF_MISCOP(f.code) == BPF_TAX ? x : a) = BPF_MISCOP(f.code) == BPF_TAX ? a : x;
      break;
    }
  }
  return SECCOMP_RET_KILL_PROCESS;
}

bool lets_pass(const std::vector<sock_filter>& program, const NeededCall& call, TargetAddr from) {
  seccomp_data data{};
  data.instruction_pointer = from.value;
  data.nr = static_cast<int>(call.number);
  data.arch = AUDIT_ARCH_X86_64;
  const uint32_t action = verdict(program, data) & SECCOMP_RET_ACTION_FULL;
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
};

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
                            kInstead,
                            {}};
  }
}

TargetAddr a_call_of_agent(const MemoryMap& map) {
  return TargetAddr(map.quick_call) + dune::session::kSyscallLength; // somewhere in its own text
}

} // namespace

bool has_more_filters(pid_t tid) { return filter_count(tid) > filter_count(getpid()); }

Checked<Filters> check_confinement(pid_t pid, const StoppedProcess& stopped) {
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
    if (auto ok = check_filters(pid, tid, {{kNeeded, a_call_of_agent(*plan)}}); !ok)
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
  if (auto ok = check_filters(
          before.pid, before.pid,
          {{kNeeded, a_call_of_agent(*plan)}, {kNeededOutside, detour.mask_restored()}});
      !ok)
    return ok.error();
  return Filters::kOthers;
}

} // namespace ddbg::keeper
