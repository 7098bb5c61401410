// The second level: what the process maps, when it maps it, with its rights and not for longer.
#include "tests/kmod/test_guest.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <fcntl.h>
#include <fstream>
#include <sched.h>
#include <string>
#include <sys/mman.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <thread>
#include <time.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 // since 6.1, and the C library's headers may be older
#endif

namespace dune::test {
namespace {

#define ASSERT_ENDS_WITH(cpu, name) ASSERT_STREQ(name_of((cpu).go()), name)

uint64_t load(uint64_t at) { return *reinterpret_cast<volatile uint64_t*>(at); }
void store(uint64_t at) { *reinterpret_cast<volatile uint64_t*>(at) = 0x5555; }
extern "C" void kmod_test_load(uint64_t at); // leaves the value in rdi, and so in the host's call
asm(R"(
  .pushsection .text
  .globl kmod_test_load
kmod_test_load:
  mov (%rdi), %rdi
  ret
  .popsection
)");

// A guest and its vCPU that know everything that is mapped when a test begins to run code.
class Memory : public testing::Test {
protected:
  void covered(const Pages& pages) {
    for (uint64_t a = pages.at(); a < pages.at() + pages.size(); a += kPage)
      guest_.cover(a);
  }
  // What the guest reads there; a test fails if it cannot.
  uint64_t guest_reads(uint64_t at) {
    cpu_.prepare(Ring::k3, kmod_test_load, at);
    EXPECT_STREQ(name_of(cpu_.go()), "SYSCALL");
    return cpu_.regs().rdi;
  }
  void guest_writes(uint64_t at) {
    cpu_.prepare(Ring::k3, store, at);
    EXPECT_STREQ(name_of(cpu_.go()), "SYSCALL");
  }
  void expect_fault(uint64_t hva, uint32_t access, uint32_t error = EFAULT) {
    EXPECT_STREQ(name_of(cpu_.go()), "FAULT");
    const dune_exit_fault& f = cpu_.run().exit.fault;
    EXPECT_EQ(f.hva, hva);
    EXPECT_EQ(f.access, access);
    EXPECT_EQ(f.error, error);
  }
  void expect_write_refused(uint64_t at) {
    cpu_.prepare(Ring::k3, store, at);
    expect_fault(at, DUNE_ACCESS_WRITE);
  }
  void expect_read_refused(uint64_t at) {
    cpu_.prepare(Ring::k3, kmod_test_load, at);
    expect_fault(at, 0);
  }

  Guest guest_;
  Vcpu cpu_{guest_};
};

TEST_F(Memory, IsBuiltWhenItIsUsed) {
  Pages pages(256 * kPage);
  covered(pages);
  madvise(pages.data(), pages.size(), MADV_NOHUGEPAGE);
  const uint64_t faults = cpu_.run().faults;
  for (uint64_t i = 0; i < 256; ++i)
    guest_writes(pages.at(i * kPage));
  EXPECT_GE(cpu_.run().faults - faults, 256u);
  for (uint64_t i = 0; i < 256; ++i)
    EXPECT_EQ(pages.words()[i * 512], 0x5555u);
  const uint64_t built = cpu_.run().faults;
  for (uint64_t i = 0; i < 256; ++i)
    EXPECT_EQ(guest_reads(pages.at(i * kPage)), 0x5555u);
  EXPECT_LE(cpu_.run().faults - built, 4u);
}

// Off by default where there is little memory. As before when the test is over: it is the
// machine's.
class HugePagesOnRequest {
public:
  HugePagesOnRequest() : before_(modes()) { write("madvise"); }
  ~HugePagesOnRequest() {
    const size_t begin = before_.find('['), end = before_.find(']');
    if (begin < end && end != std::string::npos)
      write(before_.substr(begin + 1, end - begin - 1));
  }
  HugePagesOnRequest(const HugePagesOnRequest&) = delete;
  HugePagesOnRequest& operator=(const HugePagesOnRequest&) = delete;
  static std::string modes() {
    std::string line;
    std::getline(std::ifstream(kSetting), line);
    return line;
  }

private:
  static constexpr char kSetting[] = "/sys/kernel/mm/transparent_hugepage/enabled";
  static void write(const std::string& mode) { std::ofstream(kSetting) << mode << std::flush; }
  std::string before_;
};

TEST_F(Memory, HugePagesOfTheHostAreHugeThere) {
  const HugePagesOnRequest on_request;
  const std::string modes = HugePagesOnRequest::modes();
  constexpr uint64_t kHuge = 2 << 20;
  Pages pages(4 * kHuge);
  covered(pages);
  const uint64_t begin = (pages.at() + kHuge - 1) & ~(kHuge - 1);
  if (madvise(pages.data(), pages.size(), MADV_HUGEPAGE) != 0 ||
      modes.find("[madvise]") == std::string::npos)
    GTEST_SKIP() << "this kernel has no transparent huge pages: " << modes;
  memset(reinterpret_cast<void*>(begin), 1, kHuge);
  const uint64_t faults = cpu_.run().faults;
  for (uint64_t i = 0; i < kHuge; i += kPage)
    guest_writes(begin + i);
  EXPECT_LE(cpu_.run().faults - faults, 16u);
  // Its rights can change in the middle.
  ASSERT_EQ(mprotect(reinterpret_cast<void*>(begin + 8 * kPage), kPage, PROT_READ), 0);
  expect_write_refused(begin + 8 * kPage);
  EXPECT_EQ(guest_reads(begin + 8 * kPage), 0x5555u);
  guest_writes(begin + 9 * kPage);
}

TEST_F(Memory, RightsAreTheMappings) {
  Pages pages(4 * kPage);
  covered(pages);
  guest_writes(pages.at());
  ASSERT_EQ(mprotect(pages.data(), kPage, PROT_READ), 0);
  EXPECT_EQ(guest_reads(pages.at()), 0x5555u);
  expect_write_refused(pages.at());
  ASSERT_EQ(mprotect(pages.data(), kPage, PROT_NONE), 0);
  expect_read_refused(pages.at());
  ASSERT_EQ(mprotect(pages.data(), kPage, PROT_READ | PROT_WRITE), 0);
  ASSERT_ENDS_WITH(cpu_, "SYSCALL"); // the read goes on where it was refused
  EXPECT_EQ(cpu_.regs().rdi, 0x5555u);
  guest_writes(pages.at());
}

TEST_F(Memory, OnlyExecutableMappingsAreExecuted) {
  Pages pages(kPage);
  covered(pages);
  guest_writes(pages.at()); // it is in the second level already
  pages.data()[0] = 0xc3;
  cpu_.prepare(Ring::k3, pages.at());
  expect_fault(pages.at(), DUNE_ACCESS_EXECUTE);
  // Ring 0 is no way around it.
  cpu_.prepare(Ring::k0, pages.at());
  expect_fault(pages.at(), DUNE_ACCESS_EXECUTE);
  ASSERT_EQ(mprotect(pages.data(), kPage, PROT_READ | PROT_EXEC), 0);
  ASSERT_ENDS_WITH(cpu_, "SYSCALL");
  expect_write_refused(pages.at());
  ASSERT_EQ(mprotect(pages.data(), kPage, PROT_READ), 0);
  cpu_.prepare(Ring::k3, pages.at());
  expect_fault(pages.at(), DUNE_ACCESS_EXECUTE);
}

// A file of our own, unlinked, with `pages` pages of their number.
int make_file(uint64_t pages) {
  char name[] = "/tmp/kmod_test.XXXXXX";
  const int fd = mkstemp(name);
  unlink(name);
  for (uint64_t i = 0; i < pages; ++i)
    for (uint64_t j = 0; j < kPage; j += 8)
      EXPECT_EQ(pwrite(fd, &i, 8, off_t(i * kPage + j)), 8);
  return fd;
}

TEST_F(Memory, PrivateFileIsCopiedAndSharedFileIsWritten) {
  Descriptor file(make_file(2));
  Pages mine(2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, file.get());
  Pages shared(2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, file.get());
  Pages readable(2 * kPage, PROT_READ, MAP_SHARED, file.get());
  covered(mine);
  covered(shared);
  covered(readable);
  EXPECT_EQ(guest_reads(mine.at(kPage)), 1u);
  guest_writes(mine.at(kPage));
  EXPECT_EQ(guest_reads(mine.at(kPage)), 0x5555u);
  EXPECT_EQ(guest_reads(readable.at(kPage)), 1u);
  expect_write_refused(readable.at(kPage));
  uint64_t word = 0;
  ASSERT_EQ(pread(file.get(), &word, 8, kPage), 8);
  EXPECT_EQ(word, 1u);
  guest_writes(shared.at());
  ASSERT_EQ(pread(file.get(), &word, 8, 0), 8);
  EXPECT_EQ(word, 0x5555u);
  EXPECT_EQ(guest_reads(readable.at()), 0x5555u);
}

TEST_F(Memory, NothingIsBeyondTheEndOfAFile) {
  Descriptor file(make_file(2));
  Pages pages(4 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, file.get());
  covered(pages);
  EXPECT_EQ(guest_reads(pages.at(kPage)), 1u);
  expect_read_refused(pages.at(2 * kPage));
  ASSERT_EQ(ftruncate(file.get(), kPage), 0);
  expect_read_refused(pages.at(kPage));
  ASSERT_EQ(ftruncate(file.get(), 3 * kPage), 0);
  EXPECT_EQ(guest_reads(pages.at(kPage)), 0u);
}

TEST_F(Memory, ZeroPageStaysZero) {
  Pages one(kPage), other(kPage);
  covered(one);
  covered(other);
  EXPECT_EQ(guest_reads(one.at()), 0u);
  EXPECT_EQ(guest_reads(other.at()), 0u);
  guest_writes(one.at());
  EXPECT_EQ(guest_reads(one.at()), 0x5555u);
  EXPECT_EQ(guest_reads(other.at()), 0u);
  EXPECT_EQ(other.words()[0], 0u);
}

TEST_F(Memory, GoesWithItsMapping) {
  Pages pages(4 * kPage);
  covered(pages);
  guest_writes(pages.at());
  ASSERT_EQ(madvise(pages.data(), kPage, MADV_DONTNEED), 0);
  EXPECT_EQ(guest_reads(pages.at()), 0u);
  guest_writes(pages.at());
  void* elsewhere =
      mremap(pages.data(), kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, pages.data() + 2 * kPage);
  ASSERT_EQ(elsewhere, pages.data() + 2 * kPage);
  expect_read_refused(pages.at());
  EXPECT_EQ(guest_reads(pages.at(2 * kPage)), 0x5555u);
  ASSERT_EQ(munmap(pages.data() + 2 * kPage, kPage), 0);
  expect_read_refused(pages.at(2 * kPage));
}

// Emulators forget everything at each entry, so what a missing flush would do is not seen there.
TEST_F(Memory, FlushesAreForChanges) {
  cpu_set_t before, first;
  sched_getaffinity(0, sizeof before, &before);
  CPU_ZERO(&first);
  CPU_SET(0, &first);
  sched_setaffinity(0, sizeof first, &first); // another processor is another flush
  Pages pages(kPage);
  covered(pages);
  guest_writes(pages.at());
  // A write of the host's own changes nothing, but the kernel may do so at any time.
  uint64_t least = ~uint64_t{0};
  for (int i = 0; i < 10; ++i) {
    const uint64_t flushes = cpu_.run().flushes;
    guest_writes(pages.at());
    least = std::min<uint64_t>(least, cpu_.run().flushes - flushes);
  }
  EXPECT_EQ(least, 0u);
  for (const int protection : {PROT_READ, PROT_READ | PROT_WRITE, PROT_READ}) {
    guest_reads(pages.at());
    const uint64_t flushes = cpu_.run().flushes;
    ASSERT_EQ(mprotect(pages.data(), kPage, protection), 0);
    guest_reads(pages.at());
    EXPECT_GT(cpu_.run().flushes, flushes) << protection;
  }
  const uint64_t flushes = cpu_.run().flushes;
  ASSERT_EQ(call(guest_.fd(), DUNE_FORGET), 0);
  guest_reads(pages.at());
  EXPECT_GT(cpu_.run().flushes, flushes);
  sched_setaffinity(0, sizeof before, &before);
}

// Kilobytes of a mapping, by a name of /proc/self/smaps.
int kilobytes(const Pages& pages, const std::string& name) {
  std::ifstream smaps("/proc/self/smaps");
  std::string line;
  bool found = false;
  while (std::getline(smaps, line)) {
    unsigned long begin, end;
    if (sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2)
      found = begin <= pages.at() && pages.at() < end;
    else if (found && line.starts_with(name + ":"))
      return atoi(line.c_str() + name.size() + 1);
  }
  return -1;
}

// What the guest writes to, the kernel has to know as written: or it would throw it away.
TEST_F(Memory, WrittenPageIsDirtyForTheKernel) {
  Pages pages(kPage);
  covered(pages);
  guest_writes(pages.at());
  EXPECT_EQ(guest_reads(pages.at()), 0x5555u);
  ASSERT_EQ(madvise(pages.data(), kPage, MADV_FREE), 0);
  ASSERT_EQ(kilobytes(pages, "Private_Dirty"), 0);
  EXPECT_EQ(guest_reads(pages.at()), 0x5555u); // nobody has needed the memory yet
  ASSERT_EQ(kilobytes(pages, "Private_Dirty"), 0);
  guest_writes(pages.at());
  EXPECT_EQ(kilobytes(pages, "Private_Dirty"), 4);
}

// The kernel's own pages that every process has, which are no ordinary memory.
TEST_F(Memory, VdsoTellsTheTime) {
  static timespec there;
  timespec before, after;
  guest_.cover_everything();
  clock_gettime(CLOCK_MONOTONIC, &before);
  cpu_.prepare(
      Ring::k3, +[](uint64_t) { clock_gettime(CLOCK_MONOTONIC, &there); });
  ASSERT_ENDS_WITH(cpu_, "SYSCALL");
  if (cpu_.regs().cs == kKernelCode)
    GTEST_SKIP() << "the clock of this machine needs a system call";
  clock_gettime(CLOCK_MONOTONIC, &after);
  const auto ns = [](const timespec& t) { return t.tv_sec * 1'000'000'000 + t.tv_nsec; };
  EXPECT_LE(ns(before), ns(there));
  EXPECT_LE(ns(there), ns(after));
}

// A page far from the guest's own code, tables and stack, without whose region it can go on.
constexpr uint64_t kFar = 0x200000000000;
void* const far_page = reinterpret_cast<void*>(kFar);
void map_far(Guest& guest, dune_region& region) {
  ASSERT_EQ(mmap(far_page, kPage, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0),
            far_page);
  region.size = sizeof region;
  region.gpa = guest.cover(kFar);
  region.hva = kFar;
  region.length = kGigabyte;
}

TEST_F(Memory, WithoutARegionThereIsNone) {
  dune_region region{};
  ASSERT_NO_FATAL_FAILURE(map_far(guest_, region));
  region.flags = DUNE_REGION_REMOVE;
  guest_writes(kFar);
  ASSERT_EQ(call(guest_.fd(), DUNE_SET_REGION, &region), 0);
  cpu_.prepare(Ring::k3, kmod_test_load, kFar + 8);
  ASSERT_ENDS_WITH(cpu_, "FAULT");
  EXPECT_EQ(cpu_.run().exit.fault.hva, ~uint64_t{0});
  EXPECT_EQ(cpu_.run().exit.fault.error, uint32_t{ENOENT});
  EXPECT_EQ(cpu_.run().exit.fault.gpa, region.gpa + 8);
  EXPECT_EQ(call(guest_.fd(), DUNE_SET_REGION, &region), -ENOENT);
  region.flags = 0;
  ASSERT_EQ(call(guest_.fd(), DUNE_SET_REGION, &region), 0);
  ASSERT_ENDS_WITH(cpu_, "SYSCALL");
  EXPECT_EQ(guest_reads(kFar), 0x5555u);
  munmap(far_page, kPage);
}

TEST_F(Memory, TablesAreBounded) {
  const char* parameter = "/sys/module/dune/parameters/max_table_pages";
  std::string before;
  {
    std::ifstream f(parameter);
    f >> before;
    std::ofstream(parameter) << 24;
  }
  // Each of these needs a table of its own.
  constexpr uint64_t kPlaces = 200, kApart = 2 << 20;
  Pages pages(kPlaces * kApart, PROT_READ | PROT_WRITE, MAP_NORESERVE);
  madvise(pages.data(), pages.size(), MADV_NOHUGEPAGE);
  covered(pages);
  for (int round = 0; round < 2; ++round)
    for (uint64_t i = 0; i < kPlaces; ++i) {
      EXPECT_EQ(guest_reads(pages.at(i * kApart)), round ? i + 1 : 0);
      guest_writes(pages.at(i * kApart));
      EXPECT_EQ(pages.words()[i * kApart / 8], 0x5555u);
      pages.words()[i * kApart / 8] = i + 1;
    }
  std::ofstream(parameter) << before;
}

// --- while others change the mappings
// -------------------------------------------------------------

// Shared with code in the guest, which may only use plain memory.
struct Race {
  std::atomic<uint64_t> published, stop, violations, rounds;
  uint64_t page; // its address
};

// What was mapped before `published` grew is what the page shows, or something later.
void watch_page(uint64_t at) {
  Race& race = *reinterpret_cast<Race*>(at);
  while (!race.stop.load(std::memory_order_relaxed)) {
    const uint64_t least = race.published.load(std::memory_order_acquire);
    const uint64_t seen = load(race.page);
    if (seen < least)
      race.violations.fetch_add(1);
    race.rounds.fetch_add(1, std::memory_order_relaxed);
  }
}

// Runs code in the guest on a thread of its own until it returns; faults go on.
std::thread in_guest(Vcpu& cpu, void (*code)(uint64_t), uint64_t argument,
                     std::atomic<int>& ended) {
  return std::thread([&cpu, code, argument, &ended] {
    cpu.prepare(Ring::k3, code, argument);
    uint32_t reason;
    while ((reason = cpu.go()) == DUNE_EXIT_FAULT)
      sched_yield();
    ended = int(reason);
  });
}

TEST_F(Memory, ReplacedPageIsNeverSeenAgain) {
  // One processor takes turns.
  const uint64_t versions = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 1500 : 300;
  Descriptor file(make_file(versions));
  Pages pages(kPage);
  auto* race = new Race{};
  race->page = pages.at();
  covered(pages);
  guest_.cover_everything();
  ASSERT_EQ(mmap(pages.data(), kPage, PROT_READ, MAP_SHARED | MAP_FIXED, file.get(), 0),
            pages.data());
  std::atomic<int> ended = 0;
  std::thread thread = in_guest(cpu_, watch_page, reinterpret_cast<uint64_t>(race), ended);
  for (uint64_t i = 1; i < versions; ++i) {
    // In turn: over it, and away and back, so that it faults.
    if (i % 4 == 0)
      munmap(pages.data(), kPage);
    mmap(pages.data(), kPage, PROT_READ, MAP_SHARED | MAP_FIXED, file.get(), off_t(i * kPage));
    race->published.store(i, std::memory_order_release);
    if (i % 64 == 0)
      usleep(1000);
  }
  race->stop = 1;
  thread.join();
  EXPECT_STREQ(name_of(uint32_t(ended.load())), "SYSCALL");
  EXPECT_EQ(race->violations, 0u);
  EXPECT_GT(race->rounds, 100u);
  delete race;
}

// What the guest's tables said before DUNE_FORGET nobody uses behind it, not even a fault that was
// on its way: so the region may go.
TEST_F(Memory, ForgottenTablesLeadNowhere) {
  dune_region region{};
  ASSERT_NO_FATAL_FAILURE(map_far(guest_, region));
  std::atomic<bool> stop = false;
  std::atomic<uint64_t> written = 0, faults = 0;
  std::atomic<uint32_t> error = 0;
  std::thread writer([&] {
    while (!stop && !error) {
      cpu_.prepare(Ring::k3, store, kFar);
      const uint32_t reason = cpu_.go();
      if (reason != DUNE_EXIT_SYSCALL)
        error = reason == DUNE_EXIT_FAULT ? cpu_.run().exit.fault.error : uint32_t{EPROTO};
      else if (guest_.exception_at(cpu_.regs().rip) == int(kVectorPageFault))
        ++faults;
      else
        ++written;
    }
  });
  for (int round = 0; round < 100 && !error; ++round) {
    const uint64_t before = written;
    while (written == before && !error)
      usleep(20);
    // Its next write takes the kernel a while.
    madvise(far_page, kPage, MADV_DONTNEED);
    usleep(round % 16 * 10);
    guest_.unmap_gigabyte(kFar);
    EXPECT_EQ(call(guest_.fd(), DUNE_FORGET), 0);
    region.flags = DUNE_REGION_REMOVE;
    EXPECT_EQ(call(guest_.fd(), DUNE_SET_REGION, &region), 0);
    const uint64_t missed = faults;
    while (faults == missed && !error)
      usleep(20);
    region.flags = 0;
    EXPECT_EQ(call(guest_.fd(), DUNE_SET_REGION, &region), 0);
    guest_.map_gigabyte(kFar, region.gpa);
  }
  stop = true;
  writer.join();
  EXPECT_STREQ(strerror(int(error)), strerror(0)) << " behind " << faults << " faults";
  munmap(far_page, kPage);
}

void write_page(uint64_t at) {
  Race& race = *reinterpret_cast<Race*>(at);
  auto* word = reinterpret_cast<volatile uint64_t*>(race.page);
  while (!race.stop.load(std::memory_order_relaxed)) {
    *word = *word + 1;
    race.rounds.fetch_add(1, std::memory_order_relaxed);
  }
}

TEST_F(Memory, WriteProtectedPageIsNotWrittenAnyMore) {
  Pages pages(kPage);
  auto* race = new Race{};
  race->page = pages.at();
  covered(pages);
  guest_.cover_everything();
  std::atomic<int> ended = 0;
  std::thread thread = in_guest(cpu_, write_page, reinterpret_cast<uint64_t>(race), ended);
  uint64_t last = 0, moved = 0;
  for (int i = 0; i < 300; ++i) {
    ASSERT_EQ(mprotect(pages.data(), kPage, PROT_READ), 0);
    const uint64_t now = load(pages.at());
    if (i % 16 == 0)
      usleep(500);
    EXPECT_EQ(load(pages.at()), now);
    moved += now != last;
    last = now;
    ASSERT_EQ(mprotect(pages.data(), kPage, PROT_READ | PROT_WRITE), 0);
    usleep(500);
  }
  race->stop = 1;
  thread.join();
  EXPECT_STREQ(name_of(uint32_t(ended.load())), "SYSCALL");
  EXPECT_GT(moved, 10u);
  delete race;
}

// A child sees what was there when it was made, whatever the guest of its parent writes then.
TEST_F(Memory, ForkedChildHasItsOwnCopy) {
  Pages pages(kPage);
  auto* race = new Race{};
  race->page = pages.at();
  covered(pages);
  guest_.cover_everything();
  std::atomic<int> ended = 0;
  std::thread thread = in_guest(cpu_, write_page, reinterpret_cast<uint64_t>(race), ended);
  for (int i = 0; i < 20; ++i) {
    const int status = status_of_child([&] {
      const uint64_t now = load(pages.at());
      usleep(2000);
      _exit(load(pages.at()) == now ? 0 : 1);
    });
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
  race->stop = 1;
  thread.join();
  // It has run all the time, and nothing of it was lost here.
  EXPECT_GT(race->rounds, 1000u);
  EXPECT_EQ(load(pages.at()), race->rounds);
  delete race;
}

constexpr const char* kSwap = "/dev/ram0";

// The kernel's own format: a page with its length and a name at the end.
bool swap_on() {
  Descriptor disk(open(kSwap, O_RDWR | O_CLOEXEC));
  if (disk.get() < 0)
    return false;
  uint32_t head[kPage / 4] = {};
  head[256] = 1;                     // version
  head[257] = (4 << 20) / kPage - 1; // the last page
  memcpy(reinterpret_cast<char*>(head) + kPage - 10, "SWAPSPACE2", 10);
  return pwrite(disk.get(), head, kPage, 0) == kPage && fsync(disk.get()) == 0 &&
         swapon(kSwap, 0) == 0;
}

struct Counters {
  std::atomic<uint64_t> stop, rounds;
  uint64_t first, pages;
};

// One more in each page, over and over.
void count_pages(uint64_t at) {
  Counters& c = *reinterpret_cast<Counters*>(at);
  for (; !c.stop.load(std::memory_order_relaxed); c.rounds.fetch_add(1, std::memory_order_relaxed))
    for (uint64_t i = 0; i < c.pages; ++i) {
      auto* word = reinterpret_cast<volatile uint64_t*>(c.first + i * kPage);
      *word = *word + 1;
    }
}

// The kernel takes pages away, and brings them back elsewhere: to swap (a RAM disk, where there is
// one), to compact memory, as one with equal ones, as large ones, to other addresses.
TEST_F(Memory, NothingIsLostWhereverTheKernelMovesIt) {
  const auto write_to = [](const char* file, const char* text) {
    std::ofstream(file) << text << std::flush;
  };
  constexpr uint64_t kSize = 4 << 20;
  const bool swaps = swap_on();
  write_to("/sys/kernel/mm/ksm/sleep_millisecs", "1");
  write_to("/sys/kernel/mm/ksm/run", "1");
  Pages pages(2 * kSize);
  const uint64_t first = (pages.at() + (2 << 20) - 1) & ~uint64_t{(2 << 20) - 1}; // a large one
  auto* counters = new Counters{};
  counters->first = first;
  counters->pages = 64;
  auto* data = reinterpret_cast<void*>(first);
  const uint64_t length = counters->pages * kPage;
  madvise(data, length, MADV_MERGEABLE);
  covered(pages);
  guest_.cover_everything();
  std::atomic<int> ended = 0;
  std::thread thread = in_guest(cpu_, count_pages, reinterpret_cast<uint64_t>(counters), ended);
  void* aside = reinterpret_cast<void*>(first + (2 << 20));
  const time_t until =
      time(nullptr) + (getenv("KMOD_TEST_SECONDS") ? atoi(getenv("KMOD_TEST_SECONDS")) : 2);
  int rounds = 0;
  for (; time(nullptr) < until || rounds < 20; ++rounds) {
    madvise(data, length, MADV_PAGEOUT);
    usleep(500);
    write_to("/proc/sys/vm/compact_memory", "1");
    madvise(data, 2 << 20, MADV_COLLAPSE);
    usleep(500);
    madvise(data, length, MADV_COLD);
    // Away and back, as a whole: it counts on where it stopped.
    ASSERT_EQ(mremap(data, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, aside), aside);
    ASSERT_EQ(mremap(aside, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, data), data);
  }
  counters->stop = 1;
  thread.join();
  EXPECT_STREQ(name_of(uint32_t(ended.load())), "SYSCALL");
  EXPECT_GT(counters->rounds, 3u); // it went on, slowly where each page comes from swap
  for (uint64_t i = 0; i < counters->pages; ++i)
    ASSERT_EQ(load(first + i * kPage), counters->rounds) << i;
  write_to("/sys/kernel/mm/ksm/run", "2");
  if (swaps)
    swapoff(kSwap);
  delete counters;
}

TEST_F(Memory, ManyVcpusShareIt) {
  constexpr int kThreads = 8;
  constexpr uint64_t kPagesEach = 64;
  Pages pages(kThreads * kPagesEach * kPage);
  madvise(pages.data(), pages.size(), MADV_NOHUGEPAGE);
  covered(pages);
  std::vector<std::thread> threads;
  std::atomic<int> failures = 0;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      Vcpu cpu(guest_);
      for (uint64_t i = 0; i < kPagesEach; ++i) {
        const uint64_t at = pages.at((i * kThreads + uint64_t(t)) * kPage);
        cpu.prepare(Ring::k3, store, at);
        if (cpu.go() != DUNE_EXIT_SYSCALL)
          ++failures;
        if (i % 8 == 0)
          madvise(reinterpret_cast<void*>(at), kPage, MADV_DONTNEED);
      }
    });
  for (auto& t : threads)
    t.join();
  EXPECT_EQ(failures, 0);
  for (uint64_t i = 0; i < kPagesEach; ++i)
    for (uint64_t t = 0; t < kThreads; ++t)
      EXPECT_EQ(pages.words()[(i * kThreads + t) * 512], i % 8 == 0 ? 0u : 0x5555u);
}

} // namespace
} // namespace dune::test
