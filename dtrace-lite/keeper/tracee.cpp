#include "dtrace-lite/keeper/tracee.h"

#include <algorithm>
#include <cinttypes>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>

namespace ddbg::keeper {

using dune::Errc;
using dune::Error;

namespace {

// Whole; empty when the process is gone. Not by iostreams, which would be most of the keeper.
std::string read_proc_file(pid_t pid, const char* name) {
  std::string text;
  const dune::Fd fd(
      open(("/proc/" + std::to_string(pid) + "/" + name).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd)
    return text;
  for (char part[4096];;) {
    const ssize_t n = read(fd.get(), part, sizeof part);
    if (n > 0)
      text.append(part, static_cast<size_t>(n));
    else if (n == 0 || errno != EINTR)
      return text;
  }
}

// Calls f with every line, without its end, until f returns false.
template <class F> void for_each_line(const std::string& text, F f) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    if (!f(text.substr(at, end - at)))
      return;
    at = end + 1;
  }
}

} // namespace

std::vector<MapEntry> read_maps(pid_t pid) {
  std::vector<MapEntry> result;
  for_each_line(read_proc_file(pid, "maps"), [&](const std::string& line) {
    uint64_t begin, end;
    char protection[8];
    int path_at = 0;
    if (sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %7s %*s %*s %*s %n", &begin, &end, protection,
               &path_at) >= 3)
      result.push_back({{TargetAddr(begin), TargetAddr(end)},
                        protection,
                        path_at ? line.substr(static_cast<size_t>(path_at)) : ""});
    return true;
  });
  return result;
}

uint64_t read_auxv(pid_t pid, uint64_t type) {
  const std::string entries = read_proc_file(pid, "auxv");
  Elf64_auxv_t entry;
  for (size_t at = 0; at + sizeof entry <= entries.size(); at += sizeof entry) {
    std::memcpy(&entry, entries.data() + at, sizeof entry);
    if (entry.a_type == type)
      return entry.a_un.a_val;
  }
  return 0;
}

std::vector<pid_t> read_tasks(pid_t pid) {
  std::vector<pid_t> result;
  DIR* dir = opendir(("/proc/" + std::to_string(pid) + "/task").c_str());
  if (!dir)
    return result;
  while (dirent* entry = readdir(dir))
    if (entry->d_name[0] != '.')
      result.push_back(static_cast<pid_t>(strtol(entry->d_name, nullptr, 10)));
  closedir(dir);
  return result;
}

std::string read_status_field(pid_t pid, const std::string& name) {
  std::string value;
  for_each_line(read_proc_file(pid, "status"), [&](const std::string& line) {
    if (line.compare(0, name.size() + 1, name + ":") != 0)
      return true;
    const size_t at = line.find_first_not_of(" \t", name.size() + 1);
    value = at == std::string::npos ? "" : line.substr(at);
    return false;
  });
  return value;
}

uint32_t innermost_pid(pid_t pid) {
  const std::string numbers = read_status_field(pid, "NSpid");
  const size_t last = numbers.find_last_of('\t');
  return static_cast<uint32_t>(
      strtoul(numbers.c_str() + (last == std::string::npos ? 0 : last + 1), nullptr, 10));
}

dune::Result<Memory> Memory::open(pid_t pid) {
  dune::Fd fd(::open(("/proc/" + std::to_string(pid) + "/mem").c_str(), O_RDWR | O_CLOEXEC));
  if (!fd)
    return dune::system_error("cannot open the memory of the process");
  return Memory(std::move(fd));
}

dune::Status Memory::read(TargetAddr address, void* to, size_t size) const {
  ssize_t n = pread(fd_.get(), to, size, static_cast<off_t>(address.value));
  if (n != static_cast<ssize_t>(size))
    return dune::system_error("cannot read the memory of the process", n < 0 ? errno : EIO);
  return {};
}

dune::Status Memory::write(TargetAddr address, const void* from, size_t size) const {
  ssize_t n = pwrite(fd_.get(), from, size, static_cast<off_t>(address.value));
  if (n != static_cast<ssize_t>(size))
    return dune::system_error("cannot write the memory of the process", n < 0 ? errno : EIO);
  return {};
}

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

// The last thread of a process that ends tells it only when the others have been waited for. They
// are ours too: whoever ends meanwhile is taken note of by nobody.
dune::Result<int> wait_for(pid_t tid) {
  for (;;) {
    int status;
    const pid_t who = waitpid(-1, &status, __WALL);
    if (who < 0)
      return Error{Errc::kGone, "the thread is gone", tid};
    if (who == tid)
      return status;
  }
}

// Lets the thread go on by `request` to its next stop. A stop that was asked for when another came
// first (a signal, at PTRACE_INTERRUPT) is due as soon as it goes on, and is not the one waited
// for.
dune::Result<int> Tracee::run_to_stop(int request) const {
  for (;;) {
    if (ptrace(static_cast<__ptrace_request>(request), tid_, nullptr, nullptr) != 0)
      return dune::system_error("cannot run the thread");
    auto status = wait_for(tid_);
    if (!status)
      return status.error();
    if (!WIFSTOPPED(*status))
      return Error{Errc::kGone, "the thread ended", tid_};
    if (*status >> 16 != PTRACE_EVENT_STOP)
      return WSTOPSIG(*status);
  }
}

dune::Result<int64_t> Tracee::system_call(TargetAddr instruction, long number,
                                          std::span<const uint64_t> arguments) const {
  auto saved = registers();
  if (!saved)
    return saved.error();
  auto mask = signal_mask();
  if (!mask)
    return mask.error();
  user_regs_struct regs = *saved;
  regs.rip = instruction.value;
  regs.rax = static_cast<uint64_t>(number);
  regs.orig_rax = ~0ull; // or the kernel would take it for a call to restart
  unsigned long long* const slots[] = {&regs.rdi, &regs.rsi, &regs.rdx,
                                       &regs.r10, &regs.r8,  &regs.r9};
  DUNE_ASSERT(arguments.size() <= 6);
  for (size_t i = 0; i < arguments.size(); ++i)
    *slots[i] = arguments[i];
  if (auto ok = set_signal_mask(~0ull); !ok)
    return ok.error();
  if (auto ok = set_registers(regs); !ok)
    return ok.error();
  // By its entry and exit stops, not by single-stepping: a step's SIGTRAP would be forced, which
  // resets the program's disposition where it is blocked or ignored.
  for (int stops = 0; stops < 2; ++stops) {
    auto signal = run_to_stop(PTRACE_SYSCALL);
    if (!signal)
      return signal.error();
    if ((*signal & 0x7f) != SIGTRAP)
      return Error{Errc::kUnsupported, "an unexpected stop in a system call", *signal};
  }
  auto after = registers();
  if (!after)
    return after.error();
  if (auto ok = set_registers(*saved); !ok)
    return ok.error();
  if (auto ok = set_signal_mask(*mask); !ok)
    return ok.error();
  return static_cast<int64_t>(after->rax);
}

dune::Status Tracee::run_to_int3(TargetAddr entry, TargetAddr stack) const {
  auto saved = registers();
  if (!saved)
    return saved.error();
  auto mask = signal_mask();
  if (!mask)
    return mask.error();
  user_regs_struct regs = *saved;
  regs.rip = entry.value;
  regs.rsp = stack.value;
  regs.orig_rax = ~0ull;
  regs.eflags &= ~0x500ull;                                   // DF, TF
  constexpr uint64_t kTrapBit = uint64_t{1} << (SIGTRAP - 1); // a blocked int3 would be forced
  if (auto ok = set_signal_mask(~kTrapBit); !ok)
    return ok;
  if (auto ok = set_registers(regs); !ok)
    return ok;
  auto signal = run_to_stop(PTRACE_CONT);
  if (!signal)
    return signal.error();
  if (*signal != SIGTRAP)
    return Error{Errc::kUnsupported, "the agent did not come up", *signal};
  if (auto ok = set_registers(*saved); !ok)
    return ok;
  return set_signal_mask(*mask);
}

dune::Result<TargetAddr> find_syscall_instruction(pid_t pid, const Memory& memory) {
  const TargetAddr vdso(read_auxv(pid, AT_SYSINFO_EHDR));
  if (!vdso)
    return Error{Errc::kNotFound, "the process has no vDSO"};
  std::vector<uint8_t> text(2 * dune::kPageSize);
  if (!memory.read(vdso, text.data(), text.size())) {
    text.resize(dune::kPageSize);
    if (auto ok = memory.read(vdso, text.data(), text.size()); !ok)
      return ok.error();
  }
  const uint8_t pattern[] = {0x0f, 0x05};
  const void* found = memmem(text.data(), text.size(), pattern, sizeof pattern);
  if (!found)
    return Error{Errc::kNotFound, "no system call instruction in the vDSO"};
  return vdso + static_cast<uint64_t>(static_cast<const uint8_t*>(found) - text.data());
}

} // namespace ddbg::keeper
