// Private pages: the guest's alone, without an address in the process.
#include "tests/kmod/test_guest.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <fcntl.h>
#include <fstream>
#include <memory>
#include <sched.h>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>

namespace dune::test {
namespace {

#define ASSERT_ENDS_WITH(cpu, name) ASSERT_STREQ(name_of((cpu).go()), name)

extern "C" {
void kmod_private_load(uint64_t at);
void kmod_private_store(uint64_t at);
void kmod_private_call(uint64_t at);
void kmod_private_read_for_ever(uint64_t at);
volatile uint64_t kmod_private_reads; // by it
}
asm(R"(
  .pushsection .text
  .globl kmod_private_load, kmod_private_store, kmod_private_call, kmod_private_read_for_ever
kmod_private_load:
  mov (%rdi), %rdi
  ret
kmod_private_store:
  movq $0x7777, (%rdi)
  ret
kmod_private_call:
  call *%rdi
  ret
kmod_private_read_for_ever:
  mov (%rdi), %rax
  incq kmod_private_reads(%rip)
  jmp kmod_private_read_for_ever
  .popsection
)");

constexpr uint64_t kVirtual =
    0x300000000000; // where the guest's tables show them, and the process has nothing

class Private : public testing::Test {
protected:
  Private() : cpu_(guest_) {
    at_ = (1ull << info_of(guest_.fd()).gpa_bits) - kGigabyte;
    guest_.map_gigabyte(kVirtual, at_);
  }
  long set(uint64_t offset, uint64_t pages, uint32_t flags, const void* content = nullptr) {
    dune_private_range range{};
    range.size = sizeof range;
    range.flags = flags;
    range.gpa = at_ + offset;
    range.length = pages * kPage;
    range.content = reinterpret_cast<uint64_t>(content);
    return call(guest_.fd(), DUNE_SET_PRIVATE, &range);
  }
  uint64_t guest_reads(uint64_t offset) {
    cpu_.prepare(Ring::k3, kmod_private_load, kVirtual + offset);
    EXPECT_STREQ(name_of(cpu_.go()), "SYSCALL");
    return cpu_.regs().rdi;
  }
  void guest_writes(uint64_t offset) {
    cpu_.prepare(Ring::k3, kmod_private_store, kVirtual + offset);
    EXPECT_STREQ(name_of(cpu_.go()), "SYSCALL");
  }
  void expect_refused(void (*code)(uint64_t), uint64_t offset, uint32_t access, uint32_t error) {
    cpu_.prepare(Ring::k3, code, kVirtual + offset);
    EXPECT_STREQ(name_of(cpu_.go()), "FAULT");
    const dune_exit_fault& f = cpu_.run().exit.fault;
    EXPECT_EQ(f.gpa, at_ + offset);
    EXPECT_EQ(f.hva, ~uint64_t{0});
    EXPECT_EQ(f.access, access);
    EXPECT_EQ(f.error, error);
  }

  Guest guest_;
  Vcpu cpu_;
  uint64_t at_ = 0;
};

TEST_F(Private, BeginsWithACopyAndIsTheGuestsThen) {
  EXPECT_TRUE(info_of(guest_.fd()).capabilities & DUNE_CAP_PRIVATE_PAGES);
  Pages content(2 * kPage);
  content.words()[0] = 0x1111;
  content.words()[512] = 0x2222;
  ASSERT_EQ(set(0, 2, DUNE_PRIVATE_WRITE, content.data()), 0);
  content.words()[0] = 0x3333; // which was copied already
  EXPECT_EQ(guest_reads(0), 0x1111u);
  EXPECT_EQ(guest_reads(kPage), 0x2222u);
  guest_writes(kPage);
  EXPECT_EQ(guest_reads(kPage), 0x7777u);
  EXPECT_EQ(content.words()[512], 0x2222u);
  // Without content it begins with zeroes.
  ASSERT_EQ(set(2 * kPage, 1, 0), 0);
  EXPECT_EQ(guest_reads(2 * kPage), 0u);
}

TEST_F(Private, HasNoAddressInTheProcess) {
  ASSERT_EQ(set(0, 1, DUNE_PRIVATE_WRITE), 0);
  guest_writes(0);
  Descriptor memory(open("/proc/self/mem", O_RDWR | O_CLOEXEC));
  uint64_t word = 0;
  ASSERT_EQ(pread(memory.get(), &word, 8, off_t(reinterpret_cast<uint64_t>(&word))), 8);
  EXPECT_EQ(pread(memory.get(), &word, 8, off_t(kVirtual)), -1);
  EXPECT_EQ(errno, EIO);
  for (const uint64_t address : {kVirtual, at_}) {
    uint8_t resident;
    EXPECT_EQ(mincore(reinterpret_cast<void*>(address), kPage, &resident), -1) << address;
  }
}

TEST_F(Private, HasTheRightsThatItWasMadeWith) {
  Pages content(kPage);
  memset(content.data(), 0xc3, kPage); // ret
  ASSERT_EQ(set(0, 1, 0, content.data()), 0);
  ASSERT_EQ(set(kPage, 1, DUNE_PRIVATE_EXECUTE, content.data()), 0);
  EXPECT_EQ(guest_reads(0), 0xc3c3c3c3c3c3c3c3u);
  expect_refused(kmod_private_store, 0, DUNE_ACCESS_WRITE, EFAULT);
  expect_refused(kmod_private_call, 0, DUNE_ACCESS_EXECUTE, EFAULT);
  expect_refused(kmod_private_store, kPage, DUNE_ACCESS_WRITE, EFAULT);
  cpu_.prepare(Ring::k3, kmod_private_call, kVirtual + kPage);
  ASSERT_ENDS_WITH(cpu_, "SYSCALL");
}

// Tables are dropped when there are too many, and for DUNE_FORGET nothing is.
TEST_F(Private, IsKeptWhenTheTablesAreNot) {
  ASSERT_EQ(set(0, 1, DUNE_PRIVATE_WRITE), 0);
  guest_writes(0);
  ASSERT_EQ(call(guest_.fd(), DUNE_FORGET), 0);
  EXPECT_EQ(guest_reads(0), 0x7777u);
  const char* parameter = "/sys/module/dune/parameters/max_table_pages";
  std::string before;
  std::ifstream(parameter) >> before;
  std::ofstream(parameter) << 24;
  constexpr uint64_t kPlaces = 64, kApart = 2 << 20;
  Pages pages(kPlaces * kApart, PROT_READ | PROT_WRITE, MAP_NORESERVE);
  madvise(pages.data(), pages.size(), MADV_NOHUGEPAGE);
  guest_.cover_everything();
  const uint64_t faults = cpu_.run().faults;
  for (uint64_t i = 0; i < kPlaces; ++i) {
    cpu_.prepare(Ring::k3, kmod_private_store, pages.at(i * kApart));
    ASSERT_ENDS_WITH(cpu_, "SYSCALL");
    EXPECT_EQ(guest_reads(0), 0x7777u);
  }
  EXPECT_GT(cpu_.run().faults, faults + kPlaces);
  std::ofstream(parameter) << before;
}

TEST_F(Private, RemovedIsGoneForWhoIsReadingIt) {
  ASSERT_EQ(set(0, 4, DUNE_PRIVATE_WRITE), 0);
  std::atomic<uint32_t> reason = 0;
  cpu_.prepare(Ring::k3, kmod_private_read_for_ever, kVirtual);
  kmod_private_reads = 0;
  std::thread reader([&] { reason = cpu_.go(); });
  while (kmod_private_reads < 100 && reason == 0)
    usleep(1000);
  EXPECT_EQ(reason, 0u);
  EXPECT_EQ(set(0, 3, DUNE_PRIVATE_REMOVE), -ENOENT);
  EXPECT_EQ(set(kPage, 3, DUNE_PRIVATE_REMOVE), -ENOENT);
  EXPECT_EQ(set(0, 4, DUNE_PRIVATE_REMOVE), 0);
  reader.join();
  EXPECT_STREQ(name_of(reason), "FAULT");
  EXPECT_EQ(cpu_.run().exit.fault.error, uint32_t{ENOENT});
  EXPECT_EQ(set(0, 4, DUNE_PRIVATE_REMOVE), -ENOENT);
  // The next one there is a new one.
  ASSERT_EQ(set(0, 4, DUNE_PRIVATE_WRITE), 0);
  EXPECT_EQ(guest_reads(0), 0u);
}

// Shared with code in the guest.
struct Removal {
  uint64_t page;
  std::atomic<uint64_t> removed, reads, violations;
};

// Whoever knows that it has been removed does not find it any more.
void read_until_removed(uint64_t at) {
  Removal& r = *reinterpret_cast<Removal*>(at);
  for (;;) {
    const uint64_t removed = r.removed.load(std::memory_order_acquire);
    (void)*reinterpret_cast<volatile uint64_t*>(r.page);
    r.violations.fetch_add(removed, std::memory_order_relaxed);
    r.reads.fetch_add(1, std::memory_order_relaxed);
  }
}

void write_pages(uint64_t at) {
  for (uint64_t i = 0; i < 64; ++i)
    *reinterpret_cast<volatile uint64_t*>(at + (i << 21)) = i;
}

// While another thread has the tables dropped: who finds an entry gone has to wait for whoever took
// it away, and has not told all processors yet.
TEST_F(Private, RemovedIsGoneWhileTheTablesAreDropped) {
  const char* parameter = "/sys/module/dune/parameters/max_table_pages";
  std::string before;
  std::ifstream(parameter) >> before;
  std::ofstream(parameter) << 24;
  Pages pages(64ull << 21, PROT_READ | PROT_WRITE, MAP_NORESERVE);
  madvise(pages.data(), pages.size(), MADV_NOHUGEPAGE);
  auto removal = std::make_unique<Removal>();
  removal->page = kVirtual;
  guest_.cover_everything();
  std::atomic<bool> stop = false;
  std::atomic<int> unexpected = 0;
  Vcpu dropper(guest_);
  std::thread drops([&] {
    while (!stop) {
      dropper.prepare(Ring::k3, write_pages, pages.at());
      unexpected += dropper.go() != DUNE_EXIT_SYSCALL;
    }
  });
  const int rounds = getenv("KMOD_TEST_SECONDS") ? 2000 : 100;
  for (int i = 0; i < rounds; ++i) {
    ASSERT_EQ(set(0, 1, 0), 0);
    removal->removed = 0;
    const uint64_t reads = removal->reads;
    std::thread reader([&] {
      cpu_.prepare(Ring::k3, read_until_removed, reinterpret_cast<uint64_t>(removal.get()));
      unexpected += cpu_.go() != DUNE_EXIT_FAULT || cpu_.run().exit.fault.error != ENOENT;
    });
    while (removal->reads < reads + 50)
      sched_yield();
    EXPECT_EQ(set(0, 1, DUNE_PRIVATE_REMOVE), 0);
    removal->removed = 1;
    reader.join();
  }
  stop = true;
  drops.join();
  std::ofstream(parameter) << before;
  EXPECT_EQ(removal->violations, 0u);
  EXPECT_EQ(unexpected, 0);
}

TEST_F(Private, IsWhereNothingElseIs) {
  ASSERT_EQ(set(0, 4, 0), 0);
  EXPECT_EQ(set(0, 1, 0), -EEXIST);
  EXPECT_EQ(set(3 * kPage, 2, 0), -EEXIST);
  EXPECT_EQ(set(4 * kPage, 1, 0), 0);
  // Regions are gigabytes: neither goes over the other.
  dune_region region{sizeof region, 0, at_, 0x400000000000, kGigabyte, {}};
  EXPECT_EQ(call(guest_.fd(), DUNE_SET_REGION, &region), -EEXIST);
  dune_private_range range{sizeof range, 0, 0, kPage, 0, {}}; // where the tables' own region is
  EXPECT_EQ(call(guest_.fd(), DUNE_SET_PRIVATE, &range), -EEXIST);
}

TEST_F(Private, RefusesWhatIsWrong) {
  EXPECT_EQ(set(1, 1, 0), -EINVAL);
  EXPECT_EQ(set(0, 0, 0), -EINVAL);
  EXPECT_EQ(set(0, 1, 8), -EINVAL);
  EXPECT_EQ(set(0, 1, DUNE_PRIVATE_REMOVE | DUNE_PRIVATE_WRITE), -EINVAL);
  EXPECT_EQ(set(kGigabyte - kPage, 2, 0), -EINVAL); // beyond the last guest-physical address
  EXPECT_EQ(set(kGigabyte, 1, 0), -EINVAL);
  EXPECT_EQ(set(0, 1, 0, reinterpret_cast<void*>(kVirtual)), -EFAULT);
  EXPECT_EQ(set(0, 1, 0, reinterpret_cast<void*>(0xffff888000000000)), -EFAULT);
  dune_private_range range{sizeof range, 0, at_, kPage, 0, {0, 0, 0, 1}};
  EXPECT_EQ(call(guest_.fd(), DUNE_SET_PRIVATE, &range), -EINVAL);
  range = {sizeof range, 0, at_, kPage * (1ull << 40), 0, {}};
  EXPECT_EQ(call(guest_.fd(), DUNE_SET_PRIVATE, &range), -EINVAL);
}

TEST_F(Private, IsBounded) {
  const uint64_t most = info_of(guest_.fd()).max_private_pages;
  ASSERT_GT(most, 64u);
  EXPECT_EQ(set(0, most + 1, 0), -ENOSPC);
  EXPECT_EQ(set(0, most - 1, 0), 0);
  EXPECT_EQ(set(most * kPage, 2, 0), -ENOSPC);
  EXPECT_EQ(set(most * kPage, 1, 0), 0);
  EXPECT_EQ(set(0, most - 1, DUNE_PRIVATE_REMOVE), 0);
  EXPECT_EQ(set(0, most - 1, 0), 0);
  // And how many pieces there may be.
  EXPECT_EQ(set(0, most - 1, DUNE_PRIVATE_REMOVE), 0);
  long result = 0;
  uint64_t made = 1;
  for (; result == 0 && made < most; ++made)
    result = set((made - 1) * 2 * kPage, 1, 0);
  EXPECT_EQ(result, -ENOSPC);
  EXPECT_EQ(made, 65u);
}

} // namespace
} // namespace dune::test
