// The rows of libdune/process against what this machine says of its system calls: the C library's
// headers, the kernel's trace points, strace.
#include "dtrace-lite/engine/syscall_sites.h"
#include "libdune/process/calls.h"

#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <linux/perf_event.h>
#include <map>
#include <regex>
#include <set>
#include <signal.h>
#include <string>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace dune::process {
namespace {

namespace fs = std::filesystem;
const fs::path kTracePoints = "/sys/kernel/tracing/events/syscalls";

const Row* row_named(const std::string& name) {
  for (const Row& row : all_rows()) {
    if (name == row.name)
      return &row;
  }
  return nullptr;
}

TEST(CallsTable, EveryNumberOfTheHeadersHasTheRowOfItsName) {
  std::ifstream header("/usr/include/x86_64-linux-gnu/asm/unistd_64.h");
  ASSERT_TRUE(header);
  const std::regex definition(R"(#define __NR_(\w+) (\d+))");
  std::smatch match;
  size_t seen = 0;
  for (std::string line; std::getline(header, line);) {
    if (!std::regex_match(line, match, definition))
      continue;
    seen++;
    EXPECT_EQ(policy_of(static_cast<uint32_t>(std::stoul(match[2]))).name, match[1].str());
  }
  EXPECT_GE(seen, 362u); // Debian 12's
}

TEST(CallsTable, RowsAreOneForEachNumberAndName) {
  std::set<std::string> names;
  for (const Row& row : all_rows()) {
    EXPECT_EQ(&policy_of(row.number), &row);
    EXPECT_TRUE(is_known(row));
    EXPECT_TRUE(names.insert(row.name).second) << row.name << " is there twice";
    EXPECT_EQ(row.error != 0, row.effect == Effect::kAbsent || row.effect == Effect::kUnguarded)
        << row.name;
  }
  for (uint32_t unknown : {337u, 400u, 423u, 470u, 512u, 0x40000000u, ~0u}) {
    EXPECT_FALSE(is_known(policy_of(unknown))) << unknown;
    EXPECT_EQ(policy_of(unknown).effect, Effect::kPass);
  }
}

TEST(CallsTable, OperationsBelongToRowsWithASelector) {
  std::set<std::pair<uint32_t, uint32_t>> seen;
  for (const Operation& o : all_operations()) {
    const Row& row = policy_of(o.number);
    ASSERT_LT(row.selector, kMostArguments) << row.name;
    EXPECT_TRUE(seen.insert({o.number, o.value}).second) << row.name << " " << o.value;
    EXPECT_EQ(o.error != 0, o.effect == Effect::kAbsent) << row.name << " " << o.value;
    long args[kMostArguments] = {};
    args[row.selector] = o.value;
    EXPECT_EQ(operation_of(row, args), &o) << row.name << " " << o.value;
    // What the row itself takes for a descriptor is one in all operations, or an address.
    for (unsigned i = row.argument_count; i < kMostArguments; i++)
      EXPECT_EQ(o.arguments[i].kind, Kind::kNone) << row.name << " " << o.value;
  }
}

// What the agent has to see without a guest is not made as it is in one.
TEST(CallsTable, WhatTheAgentHasToSeeHasAnEffect) {
  for (const Row& row : all_rows()) {
    EXPECT_TRUE(!ddbg::engine::agent_must_see(row.number) || row.effect == Effect::kSignal ||
                row.effect == Effect::kThread || row.effect == Effect::kIdentity)
        << row.name;
  }
}

// A trace point's arguments, as the kernel's source declares them.
struct Declared {
  std::vector<std::string> arguments;
};
std::map<std::string, Declared> trace_points() {
  // What the kernel's functions are called, and the calls.
  const std::map<std::string, std::string> other_names = {
      {"newstat", "stat"},   {"newfstat", "fstat"},      {"newlstat", "lstat"},
      {"newuname", "uname"}, {"sendfile64", "sendfile"}, {"umount", "umount2"}};
  std::map<std::string, Declared> all;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(kTracePoints, error)) {
    std::string name = entry.path().filename();
    if (!name.starts_with("sys_enter_"))
      continue;
    name = name.substr(10);
    if (auto other = other_names.find(name); other != other_names.end())
      name = other->second;
    std::ifstream format(entry.path() / "format");
    for (std::string line; std::getline(format, line);) {
      const size_t begin = line.find("field:"), end = line.find(';');
      if (begin == std::string::npos || line.find("common_") != std::string::npos ||
          line.find("__syscall_nr") != std::string::npos)
        continue;
      all[name].arguments.push_back(line.substr(begin + 6, end - begin - 6));
    }
    all[name];
  }
  return all;
}

TEST(CallsTable, ArgumentsAreThoseOfTheKernelsTracePoints) {
  const std::map<std::string, Declared> points = trace_points();
  if (points.empty())
    GTEST_SKIP() << "the kernel's trace points cannot be read";
  // Addresses that the kernel declares as numbers, and the other way round.
  const std::set<std::string> are_addresses = {
      "capget 0", "capget 1", "capset 0", "capset 1", // by their types' names
      "ioctl 2",  "prctl 1",  "prctl 2",  "prctl 3",  "prctl 4",  "arch_prctl 1", "ptrace 3",
      "semctl 3", "sysfs 1",  "sysfs 2",  "keyctl 1", "keyctl 2", "keyctl 3",     "keyctl 4"};
  const std::set<std::string> are_no_addresses = {
      "getcpu 2",           // not used any more
      "shmat 1", "shmdt 0", // ranges
  };
  for (const auto& [name, declared] : points) {
    const Row* row = row_named(name);
    ASSERT_TRUE(row) << name << " has no row";
    if (name == "uprobe" || name == "uretprobe")
      continue;
    EXPECT_EQ(row->argument_count, declared.arguments.size()) << name;
    for (size_t i = 0; i < declared.arguments.size(); i++) {
      const std::string which = name + " " + std::to_string(i);
      const bool is_pointer = declared.arguments[i].find('*') != std::string::npos;
      EXPECT_EQ(row->arguments[i].is_pointer(),
                (is_pointer || are_addresses.contains(which)) && !are_no_addresses.contains(which))
          << which << ": " << declared.arguments[i];
      // What is called a descriptor is one.
      const std::regex descriptor(R"(.*\b(fd|\w+fd|fildes|mqdes|fd_in|fd_out|fdin|fdout|\w+_fd)$)");
      EXPECT_TRUE(is_pointer || name == "close_range" || // a range
                  !std::regex_match(declared.arguments[i], descriptor) ||
                  row->arguments[i].kind == Kind::kDescriptor)
          << which << ": " << declared.arguments[i];
    }
  }
}

// The numbers that the headers do not have: each call counts at its own trace point.
TEST(CallsTable, NewNumbersAreTheKernels) {
  size_t tried = 0;
  for (const Row& row : all_rows()) {
    if (row.number <= 450)
      continue;
    std::ifstream id_file(kTracePoints / ("sys_enter_" + std::string(row.name)) / "id");
    uint64_t id = 0;
    if (!(id_file >> id))
      continue;
    perf_event_attr attr{};
    attr.type = PERF_TYPE_TRACEPOINT;
    attr.size = sizeof attr;
    attr.config = id;
    const auto counter = static_cast<int>(syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0));
    if (counter < 0)
      continue;
    syscall(row.number, -1L, -1L, -1L, -1L, -1L, -1L);
    uint64_t count = 0;
    EXPECT_EQ(read(counter, &count, sizeof count), ssize_t{sizeof count});
    EXPECT_EQ(count, 1u) << row.name << " is not " << row.number;
    close(counter);
    tried++;
  }
  if (tried == 0)
    GTEST_SKIP() << "the kernel's trace points cannot be counted";
}

// strace's classes. Each is asked by having strace answer calls of the class with an error of its
// own, and all others with another: none is made.
constexpr int kInClass = EDOM, kNotInClass = EXFULL;

std::set<uint32_t> strace_class(const std::string& name) {
  std::set<uint32_t> members;
  void* shared = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto* answers = static_cast<volatile uint8_t*>(shared);
  constexpr uint32_t kNumbers = 451;
  int ready[2];
  if (pipe(ready) != 0)
    return members;
  const pid_t asked = fork();
  if (asked == 0) {
    while (syscall(SYS_getppid) >= 0 || errno != kNotInClass)
      ;
    for (uint32_t i = 0; i < kNumbers; i++) {
      if (i < 337 || i >= 424)
        answers[i] = syscall(i, 0, 0, 0, 0, 0, 0) < 0 && errno == kInClass ? 2 : 1;
    }
    answers[kNumbers] = 1;
    for (;;)
      ;
  }
  const pid_t strace = fork();
  if (strace == 0) {
    const std::string pid = std::to_string(asked), in = "inject=" + name + ":error=EDOM",
                      rest = "inject=!" + name + ":error=EXFULL";
    execlp("strace", "strace", "-qq", "-e", in.c_str(), "-e", rest.c_str(), "-o", "/dev/null", "-p",
           pid.c_str(), nullptr);
    _exit(127);
  }
  int status = 0;
  bool strace_ended = false;
  while (!answers[kNumbers] && !(strace_ended = waitpid(strace, &status, WNOHANG) == strace))
    sched_yield();
  kill(asked, SIGKILL);
  waitpid(asked, nullptr, 0);
  if (!strace_ended)
    waitpid(strace, &status, 0);
  for (uint32_t i = 0; i < kNumbers; i++) {
    if (answers[i] == 2)
      members.insert(i);
  }
  munmap(shared, 4096);
  close(ready[0]);
  close(ready[1]);
  return members;
}

using Reasons = std::map<std::string, std::string>;
template <class IsMember>
void compare_with(const std::string& name, IsMember is_member, const Reasons& reasons) {
  if (access("/usr/bin/strace", X_OK) != 0)
    GTEST_SKIP() << "strace is not installed";
  const std::set<uint32_t> strace = strace_class(name);
  if (strace.empty())
    GTEST_SKIP() << "strace cannot attach";
  std::set<std::string> differing;
  for (const Row& row : all_rows()) {
    if (row.number > 450 || is_member(row) == strace.contains(row.number))
      continue;
    differing.insert(row.name);
    EXPECT_TRUE(reasons.contains(row.name))
        << row.name << (is_member(row) ? " is not" : " is") << " in strace's " << name;
  }
  for (const auto& [call, reason] : reasons)
    EXPECT_TRUE(differing.contains(call)) << call << " does not differ: " << reason;
}

TEST(CallsTable, MemoryIsStracesClass) {
  const std::string where = "where pages are, not what is mapped";
  compare_with("%memory", [](const Row& r) { return r.effect == Effect::kMemory; },
               {{"get_mempolicy", where},
                {"set_mempolicy", where},
                {"migrate_pages", where},
                {"move_pages", where},
                {"mlockall", "no range: ours may be locked, too"},
                {"munlockall", "no range"},
                {"set_mempolicy_home_node", "strace 6.1 has no class for it"}});
}

TEST(CallsTable, SignalsAreStracesClass) {
  const std::string waits = "waits with a mask", sends = "sends, which needs nothing of us";
  compare_with("%signal", [](const Row& r) { return r.effect == Effect::kSignal; },
               {{"epoll_pwait", waits},
                {"epoll_pwait2", waits},
                {"io_pgetevents", waits},
                {"ppoll", waits},
                {"pselect6", waits},
                {"kill", sends},
                {"tkill", sends},
                {"tgkill", sends},
                {"rt_sigqueueinfo", sends},
                {"rt_tgsigqueueinfo", sends},
                {"pause", "waits with the thread's own mask"}});
}

TEST(CallsTable, ThreadsAreStracesClass) {
  const std::string signals = "sends a signal", waits = "waits for a child";
  compare_with("%process", [](const Row& r) { return r.effect == Effect::kThread; },
               {{"clone3", "strace 6.1 has no class for it"},
                {"kill", signals},
                {"tkill", signals},
                {"tgkill", signals},
                {"rt_sigqueueinfo", signals},
                {"rt_tgsigqueueinfo", signals},
                {"wait4", waits},
                {"waitid", waits}});
}

TEST(CallsTable, DescriptorsAreStracesClasses) {
  const std::string makes = "makes one and takes none",
                    many = "sets of them, in memory (calls.h says so)";
  compare_with("%desc,%network",
               [](const Row& r) {
                 // strace 6.1 gives its newer calls no class.
                 if (r.number >= 424)
                   return false;
                 for (const Argument& a : r.arguments) {
                   if (a.kind == Kind::kDescriptor)
                     return true;
                 }
                 return false;
               },
               {{"open", makes},
                {"creat", makes},
                {"pipe", makes},
                {"pipe2", makes},
                {"socket", makes},
                {"socketpair", makes},
                {"epoll_create", makes},
                {"epoll_create1", makes},
                {"mq_open", makes},
                {"inotify_init", makes},
                {"inotify_init1", makes},
                {"timerfd_create", makes},
                {"eventfd", makes},
                {"eventfd2", makes},
                {"fanotify_init", makes},
                {"memfd_create", makes},
                {"userfaultfd", makes},
                {"poll", many},
                {"ppoll", many},
                {"select", many},
                {"pselect6", many},
                {"bpf", "by operation, in its structure"},
                {"getpmsg", "never was one"},
                {"putpmsg", "never was one"}});
}

} // namespace
} // namespace dune::process
