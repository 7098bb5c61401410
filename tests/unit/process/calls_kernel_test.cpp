// names_memory() against the kernel. A page stands for memory of ours: calls with arguments, and
// memory they point to, of any kind are made in children of this process once with the page closed
// and once with it open. What the kernel could not or did do because of that page names it.
#include "libdune/arch/syscall.h"
#include "libdune/process/calls.h"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <random>
#include <sched.h>
#include <set>
#include <string>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace dune::process {
namespace {

// Some pages below ours, two of ours, and many above, from where nothing reaches ours.
constexpr uint64_t kBelow = 0x7e5500000000, kOurs = kBelow + 4 * kPageSize,
                   kAbove = kOurs + 2 * kPageSize, kTexts = kAbove + 8 * kPageSize,
                   kEnd = kAbove + 128 * kPageSize;
constexpr TargetRange kOurRange{TargetAddr(kOurs), TargetAddr(kAbove)};
constexpr uint8_t kPattern = 0x5a;

bool read_own(void*, void* to, TargetAddr from, uint64_t size) {
  const iovec here{to, size}, there{reinterpret_cast<void*>(from.value), size};
  return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == static_cast<ssize_t>(size);
}

// Not made: they end or replace the caller, or start something at an address that nobody chose.
const std::set<std::string> kNotMade = {"clone", "clone3", "execve", "execveat"};
// Whose result says how much was done before a page that is closed.
const std::set<std::string> kTransfers = {"read",
                                          "write",
                                          "pread64",
                                          "pwrite64",
                                          "readv",
                                          "writev",
                                          "preadv",
                                          "pwritev",
                                          "preadv2",
                                          "pwritev2",
                                          "sendto",
                                          "sendmsg",
                                          "recvfrom",
                                          "recvmsg",
                                          "sendmmsg",
                                          "recvmmsg",
                                          "process_vm_readv",
                                          "process_vm_writev",
                                          "vmsplice",
                                          "getdents",
                                          "getdents64",
                                          "io_submit"};

// What a child leaves, and what the worker does.
struct Outcome {
  volatile long result;
  volatile uint32_t is_made;
  volatile uint32_t is_changed;
};
struct Report {
  Outcome outcome;
  uint64_t cases, named, refused, changed, short_of;
  uint32_t met[512]; // by number
  size_t length;
  char text[1 << 15];
};

bool has_pointer(const Row& row) {
  return std::any_of(std::begin(row.arguments), std::end(row.arguments),
                     [](const Argument& a) { return a.is_pointer(); });
}

template <class... Values> void note(Report& r, const char* format, Values... values) {
  if (r.length + 256 < sizeof r.text)
    r.length += static_cast<size_t>(snprintf(r.text + r.length, 256, format, values...));
}

// Leaves the result although the call may have taken away what a function needs: no stack
// protector, nothing thread-local.
[[gnu::noinline, gnu::no_stack_protector, gnu::no_sanitize("address", "undefined")]] void
make_call(long number, const long args[kMostArguments], Outcome& outcome) {
  const long result = syscall_raw(number, args[0], args[1], args[2], args[3], args[4], args[5]);
  outcome.result = result;
  const auto* page = reinterpret_cast<const volatile uint8_t*>(kOurs);
  uint32_t is_changed = 0;
  if (outcome.is_changed) { // asked for: the page is open
    for (uint64_t i = 0; i < kOurRange.size(); i++)
      is_changed |= page[i] != kPattern;
  }
  outcome.is_changed = is_changed;
  outcome.is_made = 1;
  for (;;)
    syscall_of(SYS_exit_group, 0);
}

// Of each kind one, with something to read where there can be.
std::vector<int> open_descriptors() {
  std::vector<int> all;
  const int file = memfd_create("file", 0);
  [[maybe_unused]] ssize_t done = pwrite(file, "some words in a file", 20, 0);
  all.push_back(file);
  int pair[2];
  const auto add_pair = [&] { all.insert(all.end(), {pair[0], pair[1]}); };
  done = pipe2(pair, O_NONBLOCK);
  done = write(pair[1], "words in a pipe", 15);
  add_pair();
  for (int type : {SOCK_STREAM, SOCK_DGRAM}) {
    done = socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, pair);
    done = write(pair[1], "words in a socket", 17);
    add_pair();
  }
  all.push_back(socket(AF_INET, SOCK_DGRAM, 0));
  const int epoll = epoll_create1(0), event = eventfd(1, EFD_NONBLOCK);
  epoll_event wanted{EPOLLIN, {}};
  epoll_ctl(epoll, EPOLL_CTL_ADD, event, &wanted);
  sigset_t none;
  sigemptyset(&none);
  all.insert(all.end(), {epoll, event, timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK),
                         signalfd(-1, &none, SFD_NONBLOCK), inotify_init1(IN_NONBLOCK),
                         open("/", O_RDONLY | O_DIRECTORY), open("/dev/null", O_RDWR),
                         open("/dev/zero", O_RDWR), open("/proc/self/maps", O_RDONLY),
                         posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK),
                         static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0))});
  return all;
}

class Worker {
public:
  Worker(Report& report, uint32_t seed) : report_(report), random_(seed) {}

  void run(unsigned cases_per_row) {
    prepare();
    for (const Row& row : all_rows()) {
      if (!has_pointer(row) || kNotMade.contains(row.name))
        continue;
      // Each operation is as much as a row.
      unsigned operations = 1;
      for (const Operation& o : all_operations())
        operations += o.number == row.number;
      if (kTransfers.contains(row.name))
        operations += 16;
      for (unsigned i = 0; i < cases_per_row * (1 + operations / 4); i++)
        one_case(row, i % 4 != 0);
    }
  }

private:
  void prepare() {
    const auto map = [](uint64_t begin, uint64_t end, int prot) {
      return mmap(reinterpret_cast<void*>(begin), end - begin, prot,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != MAP_FAILED;
    };
    if (!map(kBelow, kOurs, PROT_READ | PROT_WRITE) || !map(kOurs, kAbove, PROT_NONE) ||
        !map(kAbove, kEnd, PROT_READ | PROT_WRITE))
      note(report_, "no memory\n");
    const rlimit none{0, 0};
    setrlimit(RLIMIT_CORE, &none);
    // Nobody, and alone: nothing that the calls make outlives the worker.
    if (getuid() == 0) {
      syscall(SYS_setgroups, 0, nullptr);
      syscall(SYS_setresgid, kNobody, kNobody, kNobody);
      syscall(SYS_setresuid, kNobody, kNobody, kNobody);
    }
    unshare(CLONE_NEWUSER | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS);
    [[maybe_unused]] int done = chdir("/");
    done = shmget(IPC_PRIVATE, 8192, 0600);
    done = semget(IPC_PRIVATE, 3, 0600);
    done = msgget(IPC_PRIVATE, 0600);
    descriptors_ = open_descriptors(); // children will get the same numbers
    for (int fd : descriptors_)
      close(fd);
  }

  uint64_t pick(uint64_t below) { return random_() % below; }
  uint64_t small() {
    constexpr uint64_t kValues[] = {0, 0, 0, 0,  1,  1,  1,  1,   2,   3,
                                    4, 8, 8, 16, 24, 32, 64, 128, 1000};
    return kValues[pick(std::size(kValues))];
  }
  uint64_t elsewhere() { return kAbove + kPageSize + 16 * pick(2 * kPageSize / 16); }
  uint64_t within_ours() { return kOurs + (pick(2) ? 8 * pick(512) : pick(2 * kPageSize)); }
  uint64_t reaching_ours() { return kOurs - 1 - pick(pick(2) ? 16 : 300); }
  uint64_t address(bool hostile) {
    const uint64_t kind = hostile ? pick(8) : 7;
    return kind == 0 ? within_ours() : kind == 1 ? reaching_ours() : elsewhere();
  }
  uint64_t word(bool hostile) {
    const uint64_t kind = pick(16);
    if (kind < 8 || has_lengths_)
      return small();
    return kind == 8 ? descriptors_[pick(descriptors_.size())] : address(hostile);
  }
  // Anything, or addresses and sizes by turns, as vectors and headers are.
  void fill(uint64_t begin, uint64_t end, bool hostile) {
    const bool by_turns = pick(2) && !has_lengths_;
    for (uint64_t at = begin; at < end; at += 8)
      *reinterpret_cast<uint64_t*>(at) = !by_turns      ? word(hostile)
                                         : at % 16 == 0 ? address(hostile)
                                                        : 1 + pick(4);
  }
  uint64_t some_text() {
    const uint64_t at = kTexts + 32 * pick(64);
    constexpr const char* kWords[] = {"/proc/self/cmdline", "/",   "user.x", "words",
                                      "/dev/null",          "user"};
    strcpy(reinterpret_cast<char*>(at), kWords[pick(std::size(kWords))]);
    return at;
  }

  uint64_t value_of(const Argument& a, bool hostile) {
    switch (a.kind) {
    case Kind::kDescriptor:
      return descriptors_[pick(descriptors_.size())];
    case Kind::kNumber:
    case Kind::kRange:
    case Kind::kNone:
      return pick(16) ? small() : word(hostile);
    default:
      break;
    }
    if (!hostile)
      return pick(8) == 0 ? 0 : a.kind == Kind::kString ? some_text() : elsewhere();
    // How far what is not known reaches is not known.
    return pick(2) || a.kind == Kind::kUnknown || a.kind == Kind::kIoctl ? within_ours()
                                                                         : reaching_ours();
  }
  // One address of ours, or none but in memory, so that the kernel gets to where it meets it.
  void choose(long args[], const Argument arguments[], unsigned selector, bool hostile) {
    unsigned pointers[kMostArguments + 1], count = 0;
    for (unsigned i = 0; i < kMostArguments; i++) {
      if (arguments[i].is_pointer())
        pointers[count++] = i;
    }
    pointers[count] = kMostArguments;
    const unsigned target = pointers[pick(2 * count + 1) % (count + 1)];
    for (unsigned i = 0; i < kMostArguments; i++) {
      if (i != selector)
        args[i] = static_cast<long>(value_of(arguments[i], hostile && i == target));
    }
  }
  uint64_t selected(const Row& row) {
    std::vector<uint64_t> values;
    for (const Operation& o : all_operations()) {
      if (o.number == row.number)
        values.push_back(o.value);
    }
    if (row.number == SYS_ioctl)
      values.insert(values.end(), {0x8913, 0x80045430, 0x80086601, 0x80087467, 0x80081272, 0x5460});
    return pick(8) == 0 ? pick(40) : values[pick(values.size())];
  }

  void one_case(const Row& row, bool hostile) {
    // A region of any length (userfaultfd, KVM) would reach ours with an address for its length.
    has_lengths_ = !hostile && row.number == SYS_ioctl;
    fill(kBelow + 3 * kPageSize, kOurs, hostile);
    fill(kAbove, kAbove + 4 * kPageSize, hostile);
    if (pick(2)) // text that does not end in time
      memset(reinterpret_cast<void*>(kOurs - 512), 'a', 512);
    long args[kMostArguments];
    choose(args, row.arguments, kMostArguments, hostile);
    if (row.selector < kMostArguments) {
      args[row.selector] = static_cast<long>(selected(row));
      if (const Operation* o = operation_of(row, args))
        choose(args, o->arguments, row.selector, hostile);
    }
    if (row.number == SYS_process_vm_readv || row.number == SYS_process_vm_writev)
      args[0] = getpid();

    const Reader reader{read_own, nullptr};
    const bool named = names_memory(row, args, {&kOurRange, 1}, reader);
    report_.cases++;
    if (!hostile) {
      if (named)
        fail(row, args, "names nothing of ours, but names_memory() says so", 0, 0);
      return;
    }
    report_.named += named;
    long closed = make(row, args, false);
    long open = make(row, args, true);
    const bool is_refused = closed == -EFAULT && open != -EFAULT;
    const bool is_changed = report_.outcome.is_changed;
    bool is_short = kTransfers.contains(row.name) && closed >= 0 && open > closed;
    // The timer's signal cuts transfers short, too, at one place now and at another then.
    for (int again = 0; is_short && !named && again < 5; ++again) {
      closed = make(row, args, false);
      open = make(row, args, true);
      is_short = closed >= 0 && open > closed;
    }
    report_.refused += is_refused;
    report_.changed += is_changed;
    report_.short_of += is_short;
    report_.met[row.number] += is_refused || is_changed || is_short;
    if ((is_refused || is_changed || is_short) && !named)
      fail(row, args, is_changed ? "changed" : is_refused ? "refused" : "cut short", closed, open);
  }

  void fail(const Row& row, const long args[], const char* what, long closed, long open) {
    note(report_, "%s(%lx, %lx, %lx, %lx, %lx, %lx): %s; %ld closed, %ld open\n", row.name, args[0],
         args[1], args[2], args[3], args[4], args[5], what, closed, open);
  }

  static constexpr long kNoResult = -100000;
  long make(const Row& row, const long args[], bool open) {
    Outcome& outcome = report_.outcome;
    outcome.is_made = 0;
    outcome.is_changed = open;
    const pid_t parent = getpid();
    const pid_t child = fork();
    if (child == 0) {
      if (open) {
        mprotect(reinterpret_cast<void*>(kOurs), kOurRange.size(), PROT_READ | PROT_WRITE);
        memset(reinterpret_cast<void*>(kOurs), kPattern, kOurRange.size());
      }
      open_descriptors();
      long own[kMostArguments];
      memcpy(own, args, sizeof own);
      if (own[0] == parent)
        own[0] = getpid();
      struct sigaction interrupt {};
      interrupt.sa_handler = [](int) {};
      sigaction(SIGALRM, &interrupt, nullptr);
      const itimerval soon{{0, 3000}, {0, 3000}};
      setitimer(ITIMER_REAL, &soon, nullptr);
      make_call(row.number, own, outcome);
    }
    const auto pidfd = static_cast<int>(syscall(SYS_pidfd_open, child, 0));
    pollfd ended{pidfd, POLLIN, 0};
    while (poll(&ended, 1, 1000) < 0)
      ;
    kill(child, SIGKILL);
    close(pidfd);
    waitpid(child, nullptr, 0);
    if (!outcome.is_made)
      outcome.is_changed = 0;
    return outcome.is_made ? static_cast<long>(outcome.result) : kNoResult;
  }

  static constexpr unsigned kNobody = 54321;
  Report& report_;
  std::mt19937 random_;
  std::vector<int> descriptors_;
  bool has_lengths_ = false;
};

TEST(CallsKernel, WhatTheKernelTouchesIsNamed) {
  void* shared =
      mmap(nullptr, sizeof(Report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(shared, MAP_FAILED);
  auto* report = static_cast<Report*>(shared);
  const char* cases = getenv("CALLS_TEST_CASES");
  const char* seed = getenv("CALLS_TEST_SEED");
  const pid_t worker = fork();
  if (worker == 0) {
    Worker(*report, seed ? static_cast<uint32_t>(atoi(seed)) : 1)
        .run(cases ? static_cast<unsigned>(atoi(cases)) : 24);
    _exit(0);
  }
  int status = 0;
  waitpid(worker, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_EQ(report->length, 0u) << report->text;
  printf("%lu cases, %lu named; %lu refused, %lu changed, %lu cut short; not met in:",
         report->cases, report->named, report->refused, report->changed, report->short_of);
  for (const Row& row : all_rows()) {
    if (has_pointer(row) && report->met[row.number] == 0)
      printf(" %s", row.name);
  }
  printf("\n");
  // The kernel has met the page often enough to be a referee.
  EXPECT_GT(report->refused, report->cases / 20);
  EXPECT_GT(report->changed, report->cases / 200);
  munmap(shared, sizeof(Report));
}

} // namespace
} // namespace dune::process
