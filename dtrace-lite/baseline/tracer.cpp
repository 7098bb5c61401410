#include "dtrace-lite/baseline/tracer.h"

#include "libdune/base/file.h"

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

namespace ddbg::baseline {

struct Tracer::Registers {
  user_regs_struct r{};
};

namespace {

constexpr long kInt3 = 0xcc;
constexpr long kOptions = PTRACE_O_EXITKILL | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
                          PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC;
constexpr size_t kDebugRegister0 = offsetof(user, u_debugreg);
constexpr size_t debug_register(unsigned n) { return kDebugRegister0 + n * sizeof(long); }

Diagnostic failed(const char* what) {
  return {fmt::format("{}: {}.", what, strerror(errno)), {}, {}};
}

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> result;
  result.reserve(strings.size() + 1);
  for (const std::string& s : strings)
    result.push_back(const_cast<char*>(s.c_str()));
  result.push_back(nullptr);
  return result;
}

[[noreturn]] void become(const Program& program, char* const* arguments, char* const* environment) {
  setpgid(0, 0); // so that the tracer can wait for it and its threads alone
  const int now = personality(0xffffffff);
  if (now != -1)
    personality(static_cast<unsigned long>(now) | ADDR_NO_RANDOMIZE);
  if (program.cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(program.cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
  }
  if (program.discards) {
    const int null = open("/dev/null", O_RDWR);
    dup2(null, 0);
    dup2(null, 1);
    if (null > 2)
      close(null);
  }
  if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0)
    _exit(126);
  execve(program.path.c_str(), arguments, environment);
  _exit(127);
}

} // namespace

Checked<std::unique_ptr<Tracer>> Tracer::launch(const Program& program) {
  const auto arguments = pointers(program.arguments), environment = pointers(program.environment);
  const pid_t pid = fork();
  if (pid < 0)
    return failed("Cannot start the program");
  if (pid == 0)
    become(program, arguments.data(), environment.data());
  setpgid(pid, pid); // in both processes: neither has to wait for the other
  std::unique_ptr<Tracer> tracer(new Tracer(pid));
  int status;
  if (waitpid(pid, &status, 0) != pid)
    return failed("Cannot start the program");
  if (!WIFSTOPPED(status)) {
    tracer->exited_ = true;
    return Diagnostic{WEXITSTATUS(status) == 126
                          ? std::string("ptrace is not permitted here.")
                          : fmt::format("{} cannot be executed.", program.path),
                      {},
                      {}};
  }
  if (ptrace(PTRACE_SETOPTIONS, pid, nullptr, kOptions) != 0)
    return failed("PTRACE_SETOPTIONS");
  return tracer;
}

Tracer::Tracer(pid_t pid) : pid_(pid), thread_(pid), registers_(std::make_unique<Registers>()) {}

Tracer::~Tracer() {
  if (exited_)
    return;
  kill(pid_, SIGKILL);
  int status;
  while (waitpid(-pid_, &status, __WALL) > 0 || errno == EINTR)
    ;
}

uint64_t Tracer::pc() const { return registers_->r.rip; }
uint64_t Tracer::result_register() const { return registers_->r.rax; }

Checked<void> Tracer::set_breakpoint(TargetAddr address, uint8_t byte) {
  errno = 0;
  const long word = ptrace(PTRACE_PEEKTEXT, thread_, address.value, nullptr);
  if (errno)
    return failed("Cannot read the code");
  if ((word & 0xff) != byte)
    return Diagnostic{fmt::format("The code at {:#x} is not the same under ptrace ({:#04x}, not "
                                  "{:#04x}): the program lies elsewhere there.",
                                  address.value, word & 0xff, byte),
                      {},
                      {}};
  if (ptrace(PTRACE_POKETEXT, thread_, address.value, (word & ~0xffl) | kInt3) != 0)
    return failed("Cannot write the code");
  breakpoint_ = address;
  original_ = word;
  at_breakpoint_ = false;
  return {};
}

Checked<void> Tracer::remove_breakpoint() {
  if (ptrace(PTRACE_POKETEXT, thread_, breakpoint_.value, original_) != 0)
    return failed("Cannot write the code");
  breakpoint_ = TargetAddr(0);
  at_breakpoint_ = false;
  return {};
}

bool Tracer::arm_watch(pid_t tid) {
  const unsigned long length = watch_size_ == 8 ? 2 : watch_size_ - 1; // the manual's LEN0 encoding
  const unsigned long control = 1 | 1ul << 16 | length << 18;          // L0, on writes
  return ptrace(PTRACE_POKEUSER, tid, debug_register(7), 0) == 0 &&
         ptrace(PTRACE_POKEUSER, tid, debug_register(0), watch_.value) == 0 &&
         ptrace(PTRACE_POKEUSER, tid, debug_register(7), control) == 0;
}

Checked<void> Tracer::set_watch(TargetAddr address, unsigned size) {
  watch_ = address;
  watch_size_ = size;
  if (!arm_watch(thread_))
    return failed("Cannot set a debug register");
  return {};
}

// A new thread, or a forked child that must not run into our int3.
void Tracer::adopt_thread(pid_t tid) {
  const bool is_thread = access(fmt::format("/proc/{}/task/{}", pid_, tid).c_str(), F_OK) == 0;
  if (is_thread) {
    if (watch_size_)
      arm_watch(tid);
    ptrace(PTRACE_CONT, tid, nullptr, nullptr);
    return;
  }
  if (breakpoint_)
    ptrace(PTRACE_POKETEXT, tid, breakpoint_.value, original_);
  ptrace(PTRACE_DETACH, tid, nullptr, nullptr);
}

// Everything that is no SIGTRAP of a known thread is dealt with and the thread goes on.
Checked<Tracer::Stop> Tracer::wait_for_trap() {
  for (;;) {
    int status;
    const pid_t tid = waitpid(-pid_, &status, __WALL);
    if (tid < 0 && errno == EINTR)
      continue;
    if (tid < 0)
      return failed("Cannot wait for the program");
    if (!WIFSTOPPED(status)) {
      if (tid != pid_)
        continue;
      exited_ = true;
      return Stop::kExited;
    }
    const int signal = WSTOPSIG(status), event = status >> 16;
    if (event == PTRACE_EVENT_EXEC)
      return Diagnostic{"The program has executed another one.", {}, {}};
    if (event) {
      ptrace(PTRACE_CONT, tid, nullptr, nullptr);
      continue;
    }
    if (signal == SIGTRAP) {
      thread_ = tid;
      return Stop::kTrap;
    }
    if (signal == SIGSTOP && tid != pid_) {
      adopt_thread(tid);
      continue;
    }
    ptrace(PTRACE_CONT, tid, nullptr, signal);
  }
}

Checked<void> Tracer::read_registers() {
  if (ptrace(PTRACE_GETREGS, thread_, nullptr, &registers_->r) != 0)
    return failed("Cannot read the registers");
  return {};
}

Checked<bool> Tracer::step() {
  if (ptrace(PTRACE_SINGLESTEP, thread_, nullptr, nullptr) != 0)
    return failed("PTRACE_SINGLESTEP");
  auto stop = wait_for_trap();
  if (!stop)
    return stop.error();
  return *stop == Stop::kTrap;
}

Checked<bool> Tracer::run_past_call() {
  for (int stops = 0; stops < 2; ++stops) {
    if (ptrace(PTRACE_SYSCALL, thread_, nullptr, nullptr) != 0)
      return failed("PTRACE_SYSCALL");
    auto stop = wait_for_trap();
    if (!stop)
      return stop.error();
    if (*stop == Stop::kExited)
      return false;
  }
  return true;
}

// Byte back, one step of this thread, int3 again.
Checked<bool> Tracer::pass_breakpoint() {
  const pid_t tid = thread_;
  if (ptrace(PTRACE_POKETEXT, tid, breakpoint_.value, original_) != 0)
    return failed("Cannot write the code");
  if (ptrace(PTRACE_SINGLESTEP, tid, nullptr, nullptr) != 0)
    return failed("PTRACE_SINGLESTEP");
  int status;
  while (waitpid(tid, &status, __WALL) != tid)
    if (errno != EINTR)
      return failed("Cannot wait for the program");
  if (!WIFSTOPPED(status)) {
    exited_ = tid == pid_;
    return !exited_;
  }
  if (ptrace(PTRACE_POKETEXT, tid, breakpoint_.value, (original_ & ~0xffl) | kInt3) != 0)
    return failed("Cannot write the code");
  at_breakpoint_ = false;
  return true;
}

Checked<bool> Tracer::is_hit() {
  if (breakpoint_ && registers_->r.rip == breakpoint_.value + 1) {
    registers_->r.rip--;
    if (ptrace(PTRACE_SETREGS, thread_, nullptr, &registers_->r) != 0)
      return failed("Cannot write the registers");
    at_breakpoint_ = true;
    return true;
  }
  if (!watch_size_)
    return false;
  const long status = ptrace(PTRACE_PEEKUSER, thread_, debug_register(6), nullptr);
  if (!(status & 1))
    return false;
  ptrace(PTRACE_POKEUSER, thread_, debug_register(6), 0);
  errno = 0;
  (void)ptrace(PTRACE_PEEKDATA, thread_, watch_.value, nullptr); // the new value, to decide on
  return true;
}

Checked<bool> Tracer::run_to_hit() {
  if (at_breakpoint_) {
    auto passed = pass_breakpoint();
    if (!passed || !*passed)
      return passed;
  }
  int deliver = 0;
  for (;;) {
    if (ptrace(PTRACE_CONT, thread_, nullptr, deliver) != 0)
      return failed("PTRACE_CONT");
    auto stop = wait_for_trap();
    if (!stop)
      return stop.error();
    if (*stop == Stop::kExited)
      return false;
    if (auto ok = read_registers(); !ok)
      return ok.error();
    auto hit = is_hit();
    if (!hit || *hit)
      return hit;
    deliver = SIGTRAP; // the program's own
  }
}

Checked<bool> Tracer::run_to_own_trap(bool registers) {
  if (ptrace(PTRACE_CONT, thread_, nullptr, nullptr) != 0)
    return failed("PTRACE_CONT");
  auto stop = wait_for_trap();
  if (!stop)
    return stop.error();
  if (*stop == Stop::kExited)
    return false;
  if (registers)
    if (auto ok = read_registers(); !ok)
      return ok.error();
  return true;
}

} // namespace ddbg::baseline
