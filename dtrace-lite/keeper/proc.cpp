#include "dtrace-lite/keeper/proc.h"

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <unistd.h>

namespace ddbg::keeper {

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

namespace {

enum class TaskKind { kNone, kProgram, kKernel };

// kKernel: a worker of the kernel's that counts as a thread of the process (io_uring's, KVM's since
// 6.4). It has no registers of the program's and never runs any of it.
TaskKind kind_of_task(pid_t pid, pid_t tid) {
  constexpr unsigned long kIoWorker = 0x10, kUserWorker = 0x4000; // PF_* in <linux/sched.h>
  const std::string stat = read_proc_file(pid, ("task/" + std::to_string(tid) + "/stat").c_str());
  const size_t name_end = stat.rfind(')');
  unsigned long flags = 0;
  if (name_end == std::string::npos ||
      sscanf(stat.c_str() + name_end + 1, " %*c %*d %*d %*d %*d %*d %lu", &flags) != 1)
    return TaskKind::kNone;
  return flags & (kIoWorker | kUserWorker) ? TaskKind::kKernel : TaskKind::kProgram;
}

} // namespace

TaskList list_tasks(pid_t pid) {
  DIR* dir = opendir(("/proc/" + std::to_string(pid) + "/task").c_str());
  if (!dir)
    return {{}, true}; // the process has gone
  TaskList result;
  std::vector<pid_t> listed;
  while (dirent* entry = readdir(dir))
    if (entry->d_name[0] != '.')
      listed.push_back(static_cast<pid_t>(strtol(entry->d_name, nullptr, 10)));
  closedir(dir);
  // All of those were there when they were counted, if they are there still.
  result.is_complete = read_status_field(pid, "Threads") == std::to_string(listed.size());
  for (pid_t tid : listed) {
    const TaskKind kind = kind_of_task(pid, tid);
    result.is_complete &= kind != TaskKind::kNone;
    if (kind == TaskKind::kProgram)
      result.tids.push_back(tid);
  }
  return result;
}

std::vector<pid_t> read_children(pid_t tid) {
  std::vector<pid_t> result;
  const std::string task = "task/" + std::to_string(tid) + "/children";
  const std::string text = read_proc_file(tid, task.c_str());
  char* end = nullptr;
  for (const char* at = text.c_str(); const long child = strtol(at, &end, 10); at = end)
    result.push_back(static_cast<pid_t>(child));
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

char thread_state(pid_t tid) {
  const std::string state = read_status_field(tid, "State");
  return state.empty() ? char{0} : state[0];
}

uint64_t read_signal_set(pid_t tid, const std::string& name) {
  return strtoull(read_status_field(tid, name).c_str(), nullptr, 16);
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

} // namespace ddbg::keeper
