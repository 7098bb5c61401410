// What the module allocates for a process is charged to its cgroup, and ends there.
#include "tests/kmod/test_guest.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <fstream>
#include <sstream>
#include <string>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace dune::test {
namespace {

constexpr uint64_t kMegabyte = 1 << 20, kApart = 2 << 20;
void store_word(uint64_t at) { *reinterpret_cast<volatile uint64_t*>(at) = at; }
void load_word(uint64_t at) { asm volatile("mov (%0), %%rax" : : "r"(at) : "rax"); }

template <class F> bool within_seconds(const F& is_so) {
  for (int i = 0; i < 500; ++i, usleep(10'000))
    if (is_so())
      return true;
  return false;
}

// Groups that have not gone for good, the first one apart.
int memory_groups() {
  std::ifstream f("/proc/cgroups");
  std::string line, name;
  int hierarchy = 0, groups = 0;
  while (std::getline(f, line))
    if (std::istringstream(line) >> name >> hierarchy >> groups && name == "memory")
      return groups - 1;
  return -1;
}

// Before any group of version 2: what that has of the kernel's is not charged as version 1 gives it
// back, so that the kernel warns of a page_counter underflow when the one follows the other,
// without a module as well.
//
// What such a group has is a process that waits for memory, instead of one that is killed. A guest
// is told, and holds nothing of the group then.
TEST(OldCgroup, GoesWithAGuestThatHasExhaustedIt) {
  const std::string root = "/tmp/kmod_cgroup1", group = root + "/test";
  const auto write = [](const std::string& file, const std::string& text) {
    std::ofstream f(file);
    f << text << std::flush;
    return bool(f);
  };
  if (memory_groups() > 0)
    GTEST_SKIP() << "this machine uses cgroups";
  mkdir(root.c_str(), 0700);
  mount("cgroup", root.c_str(), "cgroup", 0, "memory");
  mkdir(group.c_str(), 0700);
  if (access((group + "/memory.oom_control").c_str(), F_OK) != 0) {
    rmdir(group.c_str());
    umount(root.c_str());
    GTEST_SKIP() << "this kernel has no memory limits in cgroups of version 1";
  }
  ASSERT_EQ(memory_groups(), 1);
  ASSERT_TRUE(write(group + "/memory.limit_in_bytes", std::to_string(16 * kMegabyte)));
  ASSERT_TRUE(write(group + "/memory.oom_control", "1"));
  const int status = status_of_child([&] {
    write(group + "/cgroup.procs", "0");
    Guest guest;
    Vcpu cpu(guest);
    Pages pages(64 * kMegabyte, PROT_READ | PROT_WRITE, MAP_NORESERVE);
    madvise(pages.data(), pages.size(), MADV_NOHUGEPAGE);
    guest.cover_everything();
    uint32_t reason = DUNE_EXIT_SYSCALL;
    for (uint64_t at = 0; reason == DUNE_EXIT_SYSCALL && at < pages.size(); at += kPage) {
      cpu.prepare(Ring::k3, store_word, pages.at(at));
      reason = cpu.go();
    }
    for (int i = 0; i < 10; ++i) {
      if (reason != DUNE_EXIT_FAULT || cpu.run().exit.fault.error != ENOMEM)
        _exit(2);
      reason = cpu.go();
    }
    _exit(0);
  });
  EXPECT_EQ(status, 0) << status;
  write(group + "/memory.force_empty", "0");
  EXPECT_TRUE(within_seconds([&] { return rmdir(group.c_str()) == 0; }));
  EXPECT_TRUE(within_seconds([] { return memory_groups() == 0; })) << memory_groups();
  umount(root.c_str());
}

class Cgroup : public testing::Test {
protected:
  void SetUp() override {
    mkdir(kRoot, 0700);
    ASSERT_EQ(mount("cgroup2", kRoot, "cgroup2", 0, nullptr), 0);
    const std::string control = std::string(kRoot) + "/cgroup.subtree_control";
    ASSERT_TRUE(within_seconds([&] { // version 1 may be about to give it back
      write(control, "+memory");
      std::ifstream f(control);
      const std::string all{std::istreambuf_iterator<char>(f), {}};
      return all.find("memory") != all.npos;
    }));
    ASSERT_EQ(mkdir(kGroup, 0700), 0);
  }
  void TearDown() override {
    rmdir(kGroup);
    umount(kRoot);
  }
  static void write(const std::string& file, const std::string& text) {
    std::ofstream(file) << text << std::flush;
  }
  static void join() { write(std::string(kGroup) + "/cgroup.procs", "0"); }
  static uint64_t value(const char* file, const char* key = nullptr) {
    std::ifstream f(std::string(kGroup) + "/" + file);
    std::string word;
    uint64_t number = 0;
    if (!key && f >> number)
      return number;
    f.clear();
    while (f >> word >> number)
      if (word == key)
        return number;
    return 0;
  }

  static constexpr const char* kRoot = "/tmp/kmod_cgroup";
  static constexpr const char* kGroup = "/tmp/kmod_cgroup/test";
};

TEST_F(Cgroup, TablesAndPrivatePagesAreCharged) {
  const int status = status_of_child([] {
    join();
    Guest guest;
    Vcpu cpu(guest);
    constexpr uint64_t kPlaces = 1000; // each needs a table
    Pages pages(kPlaces * kApart, PROT_READ | PROT_WRITE, MAP_NORESERVE);
    madvise(pages.data(), pages.size(), MADV_NOHUGEPAGE);
    guest.cover_everything();
    uint64_t sum = 0;
    for (uint64_t i = 0; i < kPlaces; ++i)
      sum += pages.words()[i * kApart / 8]; // the host's own tables
    // Statistics may lag behind by some pages per processor, the counter does not.
    uint64_t before = value("memory.current");
    for (uint64_t i = 0; i < kPlaces; ++i) {
      cpu.prepare(Ring::k3, load_word, pages.at(i * kApart));
      if (cpu.go() != DUNE_EXIT_SYSCALL)
        _exit(2);
    }
    if (sum != 0 || value("memory.current") < before + kPlaces * kPage * 9 / 10)
      _exit(3);
    before = value("memory.current");
    dune_private_range range{};
    range.size = sizeof range;
    range.gpa = (1ull << info_of(guest.fd()).gpa_bits) - kGigabyte;
    range.length = 4 * kMegabyte;
    if (call(guest.fd(), DUNE_SET_PRIVATE, &range) != 0)
      _exit(4);
    if (value("memory.current") < before + 4 * kMegabyte * 9 / 10)
      _exit(5);
  });
  EXPECT_EQ(status, 0) << WEXITSTATUS(status);
}

TEST_F(Cgroup, WhoExhaustsItIsTold) {
  write(std::string(kGroup) + "/memory.max", std::to_string(12 * kMegabyte));
  const int status = status_of_child([] {
    join();
    for (int i = 0; i < 100; ++i) {
      auto* guest = new Guest;
      dune_private_range range{};
      range.size = sizeof range;
      range.gpa = (1ull << info_of(guest->fd()).gpa_bits) - kGigabyte;
      range.length = 4 * kMegabyte;
      if (const long result = call(guest->fd(), DUNE_SET_PRIVATE, &range); result != 0)
        _exit(result == -ENOMEM ? 0 : 2);
    }
    _exit(3);
  });
  EXPECT_EQ(status, 0) << status;
  EXPECT_GT(value("memory.events", "max"), 0u);
  EXPECT_EQ(value("memory.events", "oom_kill"), 0u);
  // And all of it is free again.
  EXPECT_TRUE(within_seconds([] { return value("memory.current") <= kMegabyte; }))
      << value("memory.current");
  Guest guest;
  Vcpu cpu(guest);
  cpu.prepare(
      Ring::k3, +[](uint64_t) {});
  EXPECT_STREQ(name_of(cpu.go()), "SYSCALL");
}

} // namespace
} // namespace dune::test
