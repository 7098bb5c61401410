// What must not work: instructions of ring 0, arguments that are wrong, descriptors in the wrong
// hands; and that nothing is left of it.
#include "tests/kmod/test_guest.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <fcntl.h>
#include <fstream>
#include <linux/kvm.h>
#include <random>
#include <string>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace dune::test {
namespace {

struct Forbidden {
  const char* name;
  uint8_t code[8];
  int vector;
};
constexpr int kUd = 6, kGp = 13;
// rcx is LSTAR's number, rax a page's address.
constexpr Forbidden kForbidden[] = {
    {"mov to cr0", {0x0f, 0x22, 0xc0}, kGp},
    {"mov to cr4", {0x0f, 0x22, 0xe0}, kGp},
    {"lmsw", {0x0f, 0x01, 0xf0}, kGp},
    {"rdmsr of LSTAR", {0x0f, 0x32}, kGp},
    {"wrmsr of LSTAR", {0x0f, 0x30}, kGp},
    {"rdmsr of EFER", {0xb9, 0x80, 0, 0, 0xc0, 0x0f, 0x32}, kGp},
    {"wrmsr of EFER", {0xb9, 0x80, 0, 0, 0xc0, 0x0f, 0x30}, kGp},
    {"wrmsr of APIC_BASE", {0xb9, 0x1b, 0, 0, 0, 0x0f, 0x30}, kGp},
    {"wrmsr of DEBUGCTL", {0xb9, 0xd9, 1, 0, 0, 0x0f, 0x30}, kGp},
    {"wrmsr of SYSENTER_EIP", {0xb9, 0x76, 1, 0, 0, 0x0f, 0x30}, kGp},
    {"in", {0xe4, 0x80}, kGp},
    {"out", {0xe6, 0x80}, kGp},
    {"out of dx", {0xee}, kGp},
    {"outs", {0x6e}, kGp},
    {"hlt", {0xf4}, kGp},
    {"xsetbv", {0x31, 0xc9, 0x0f, 0x01, 0xd1}, kGp},
    {"mov to dr0", {0x0f, 0x23, 0xc0}, kGp},
    {"mov to dr7", {0x0f, 0x23, 0xf8}, kGp},
    {"invd", {0x0f, 0x08}, kGp},
    {"wbinvd", {0x0f, 0x09}, kGp},
    {"rdpmc", {0x0f, 0x33}, kGp},
    {"monitor", {0x31, 0xc9, 0x0f, 0x01, 0xc8}, kUd},
    {"mwait", {0x31, 0xc9, 0x0f, 0x01, 0xc9}, kUd},
    {"rsm", {0x0f, 0xaa}, kUd},
    {"vmxon", {0xf3, 0x0f, 0xc7, 0x34, 0x24}, kUd},
    {"vmlaunch", {0x0f, 0x01, 0xc2}, kUd},
    {"vmrun", {0x0f, 0x01, 0xd8}, kUd},
    {"vmload", {0x0f, 0x01, 0xda}, kUd},
    {"vmsave", {0x0f, 0x01, 0xdb}, kUd},
    {"stgi", {0x0f, 0x01, 0xdc}, kUd},
    {"clgi", {0x0f, 0x01, 0xdd}, kUd},
    {"skinit", {0x0f, 0x01, 0xde}, kUd},
    {"invlpga", {0x0f, 0x01, 0xdf}, kUd},
};

TEST(Hostile, Ring0IsNotTheMachines) {
  Guest guest;
  Vcpu cpu(guest);
  Pages code(kPage, 7);
  guest.cover(code.at());
  for (const Forbidden& f : kForbidden) {
    memset(code.data(), 0xcc, kPage); // behind it is int3, which nobody handles
    memcpy(code.data(), f.code, sizeof f.code);
    cpu.prepare(Ring::k0, code.at());
    dune_regs& r = cpu.regs();
    r.rax = kPage;
    r.rdx = 0;
    r.rcx = 0xc0000082;
    ASSERT_STREQ(name_of(cpu.go()), "SYSCALL") << f.name;
    EXPECT_EQ(guest.exception_at(cpu.regs().rip), f.vector) << f.name;
    cpu.prepare(Ring::k3, code.at());
    ASSERT_STREQ(name_of(cpu.go()), "SYSCALL") << f.name;
    EXPECT_GE(guest.exception_at(cpu.regs().rip), kUd) << f.name;
  }
}

// --- the ABI
// --------------------------------------------------------------------------------------

TEST(Abi, VersionAndWidthsAreTold) {
  Descriptor vm(open_dune());
  ASSERT_GE(vm.get(), 0);
  const dune_info info = info_of(vm.get());
  EXPECT_EQ(info.version, uint32_t{DUNE_ABI_VERSION});
  EXPECT_EQ(info.run_size, kPage);
  EXPECT_GE(info.gpa_bits, 36u);
  EXPECT_LE(info.gpa_bits, 57u);
  EXPECT_TRUE(info.cr4_allowed & 1 << 5);
  dune_info small{};
  small.size = 8;
  EXPECT_EQ(call(vm.get(), DUNE_GET_INFO, &small), 0);
  EXPECT_EQ(small.version, uint32_t{DUNE_ABI_VERSION});
  EXPECT_EQ(small.run_size, 0u);
  small.size = 4;
  EXPECT_EQ(call(vm.get(), DUNE_GET_INFO, &small), -EINVAL);
  EXPECT_EQ(call(vm.get(), DUNE_GET_INFO, nullptr), -EFAULT);
}

TEST(Abi, UnknownCallsAndFlagsAreRefused) {
  Guest guest;
  Vcpu cpu(guest);
  EXPECT_EQ(call(guest.fd(), _IO(DUNE_IOCTL, 0x7f)), -ENOTTY);
  EXPECT_EQ(call(guest.fd(), DUNE_RUN), -ENOTTY);
  EXPECT_EQ(call(cpu.fd(), _IO(DUNE_IOCTL, 0x7f)), -ENOTTY);
  EXPECT_EQ(call(cpu.fd(), DUNE_CREATE_VCPU), -ENOTTY);
  EXPECT_EQ(call(cpu.fd(), DUNE_RUN, &cpu), -EINVAL);
  EXPECT_EQ(call(guest.fd(), DUNE_FORGET, &cpu), -EINVAL);
  dune_create_vcpu create{sizeof create, 1, {}};
  EXPECT_EQ(call(guest.fd(), DUNE_CREATE_VCPU, &create), -EINVAL);
  dune_debug debug{sizeof debug, 4, {}, 0, 0, {}};
  EXPECT_EQ(call(cpu.fd(), DUNE_SET_DEBUG, &debug), -EINVAL);
  dune_signal_mask mask{sizeof mask, 2, 0};
  EXPECT_EQ(call(cpu.fd(), DUNE_SET_SIGNAL_MASK, &mask), -EINVAL);
}

TEST(Abi, ReservedFieldsAreZero) {
  Guest guest;
  Vcpu cpu(guest);
  dune_region region{sizeof region, 0, 500 * kGigabyte, 0, kGigabyte, {0, 0, 0, 1}};
  EXPECT_EQ(call(guest.fd(), DUNE_SET_REGION, &region), -EINVAL);
  dune_create_vcpu create{sizeof create, 0, {0, 0, 1}};
  EXPECT_EQ(call(guest.fd(), DUNE_CREATE_VCPU, &create), -EINVAL);
  dune_debug debug{sizeof debug, 0, {}, 0, 0, {1}};
  EXPECT_EQ(call(cpu.fd(), DUNE_SET_DEBUG, &debug), -EINVAL);
  dune_state state = cpu.state();
  state.reserved[7] = 1;
  EXPECT_EQ(call(cpu.fd(), DUNE_SET_STATE, &state), -EINVAL);
  state = cpu.state();
  state.idt.reserved = 1;
  EXPECT_EQ(call(cpu.fd(), DUNE_SET_STATE, &state), -EINVAL);
}

TEST(Abi, LargerStructuresAreTakenIfTheirRestIsZero) {
  Guest guest;
  Vcpu cpu(guest);
  struct {
    dune_debug known;
    uint64_t later[4];
  } d{};
  d.known.size = sizeof d;
  EXPECT_EQ(call(cpu.fd(), DUNE_SET_DEBUG, &d), 0);
  d.later[3] = 1;
  EXPECT_EQ(call(cpu.fd(), DUNE_SET_DEBUG, &d), -E2BIG);
  d.known.size = 8;
  EXPECT_EQ(call(cpu.fd(), DUNE_SET_DEBUG, &d), -EINVAL);
  d.known.size = 1 << 20;
  EXPECT_EQ(call(cpu.fd(), DUNE_SET_DEBUG, &d), -EINVAL);
}

TEST(Abi, StateThatNoGuestMayHaveIsRefused) {
  Guest guest;
  Vcpu cpu(guest);
  const uint64_t allowed = info_of(guest.fd()).cr4_allowed;
  const auto result_of = [&](auto&& change) {
    dune_state s = cpu.state();
    change(s);
    return call(cpu.fd(), DUNE_SET_STATE, &s);
  };
  EXPECT_EQ(result_of([](dune_state&) {}), 0);
  for (int bit = 0; bit < 64; ++bit) {
    if (!(allowed >> bit & 1)) {
      EXPECT_EQ(result_of([&](dune_state& s) { s.cr4 |= 1ull << bit; }), -EINVAL) << bit;
    }
  }
  EXPECT_EQ(result_of([](dune_state& s) { s.cr4 &= ~0x20ull; }), -EINVAL);
  EXPECT_EQ(result_of([](dune_state& s) { s.lstar = 1ull << 47; }), -EINVAL);
  EXPECT_EQ(result_of([](dune_state& s) { s.idt.base = 1ull << 55; }), -EINVAL);
  EXPECT_EQ(result_of([](dune_state& s) { s.gdt.limit = 0x10000; }), -EINVAL);
  EXPECT_EQ(result_of([](dune_state& s) { s.task.limit = 0x66; }), -EINVAL);
  EXPECT_EQ(result_of([](dune_state& s) { s.task_selector = 0; }), -EINVAL);
  EXPECT_EQ(result_of([](dune_state& s) { s.task_selector |= 4; }), -EINVAL);
  EXPECT_EQ(result_of([](dune_state& s) { s.exceptions = 1 << 2; }), -EINVAL);
  EXPECT_EQ(result_of([](dune_state& s) { s.exceptions = 1 << 18; }), -EINVAL);
  EXPECT_EQ(result_of([](dune_state& s) { s.sfmask = 1ull << 32; }), -EINVAL);
  for (const uint64_t dr7 : {1ull << 13, 1ull << 32, 2ull << 16, 1ull << 11}) {
    dune_debug d{sizeof d, 0, {}, dr7, 0, {}};
    EXPECT_EQ(call(cpu.fd(), DUNE_SET_DEBUG, &d), -EINVAL) << dr7;
  }
  dune_debug d{sizeof d, 0, {1ull << 47}, 1, 0, {}};
  EXPECT_EQ(call(cpu.fd(), DUNE_SET_DEBUG, &d), -EINVAL);
  static uint64_t words[2];
  const uint64_t word = reinterpret_cast<uint64_t>(words);
  for (const uint64_t status : {word + 4, uint64_t{0xffff888000000000}, uint64_t{1} << 63}) {
    d = {sizeof d, 0, {}, 0, status, {}};
    EXPECT_EQ(call(cpu.fd(), DUNE_SET_DEBUG, &d), -EINVAL) << status;
  }
  d = {sizeof d, DUNE_DEBUG_RING3, {}, 0, 0, {}};
  EXPECT_EQ(call(cpu.fd(), DUNE_SET_DEBUG, &d), -EINVAL);
}

TEST(Abi, RegionsAreGigabytesThatDoNotOverlap) {
  Descriptor vm(open_dune());
  const dune_info info = info_of(vm.get());
  const auto set = [&](uint64_t gpa, uint64_t hva, uint64_t length, uint32_t flags = 0) {
    dune_region r{sizeof r, flags, gpa, hva, length, {}};
    return call(vm.get(), DUNE_SET_REGION, &r);
  };
  const uint64_t g = kGigabyte;
  EXPECT_EQ(set(4 * g, 8 * g, 2 * g), 0);
  EXPECT_EQ(set(5 * g, 20 * g, g), -EEXIST);
  EXPECT_EQ(set(20 * g, 9 * g, g), -EEXIST);
  EXPECT_EQ(set(6 * g, 10 * g, g), 0);
  EXPECT_EQ(set(kPage, 30 * g, g), -EINVAL);
  EXPECT_EQ(set(30 * g, kPage, g), -EINVAL);
  EXPECT_EQ(set(30 * g, 30 * g, kPage), -EINVAL);
  EXPECT_EQ(set(30 * g, 30 * g, 0), -EINVAL);
  EXPECT_EQ(set(1ull << info.gpa_bits, 30 * g, g), -EINVAL);
  EXPECT_EQ(set((1ull << info.gpa_bits) - g, 30 * g, 2 * g), -EINVAL);
  EXPECT_EQ(set(30 * g, 0xffffffff80000000ull, g), -EINVAL);
  EXPECT_EQ(set(30 * g, 0xffff888000000000ull, g), -EINVAL);
  EXPECT_EQ(set(30 * g, 31 * g, ~0ull - g + 1), -EINVAL);
  EXPECT_EQ(set(30 * g, 0x7fffc0000000ull, g), 0); // the last one of user space
  EXPECT_EQ(set(4 * g, 8 * g, g, DUNE_REGION_REMOVE), -ENOENT);
  EXPECT_EQ(set(4 * g, 8 * g, 2 * g, DUNE_REGION_REMOVE), 0);
  EXPECT_EQ(set(4 * g, 8 * g, 2 * g, 2), -EINVAL);
  long result = 0;
  uint32_t made = 0;
  for (uint64_t i = 0; i < info.max_regions && result == 0; ++i, ++made)
    result = set((100 + i) * g, (1000 + i) * g, g);
  EXPECT_EQ(result, -ENOSPC);
  EXPECT_EQ(made, info.max_regions - 1); // two were there, the last one did not go in
}

// --- hands
// ----------------------------------------------------------------------------------------

TEST(Hands, ForkedChildHasNoGuest) {
  Guest guest;
  Vcpu cpu(guest);
  cpu.prepare(
      Ring::k3, +[](uint64_t) {});
  const int status = status_of_child([&] {
    dune_info info{};
    info.size = sizeof info;
    const bool refused =
        call(guest.fd(), DUNE_GET_INFO, &info) == -EXDEV && call(cpu.fd(), DUNE_RUN) == -EXDEV &&
        call(guest.fd(), DUNE_FORGET) == -EXDEV &&
        mmap(nullptr, kPage, PROT_READ, MAP_SHARED, cpu.fd(), 0) == MAP_FAILED && errno == EXDEV;
    // Nor its parent's registers.
    uint8_t there;
    const bool gone = mincore(&cpu.run(), kPage, &there) != 0 && errno == ENOMEM;
    // It may make its own.
    Guest own;
    Vcpu own_cpu(own);
    own_cpu.prepare(
        Ring::k3, +[](uint64_t) {});
    _exit(refused && gone && own_cpu.go() == DUNE_EXIT_SYSCALL ? 0 : 1);
  });
  EXPECT_EQ(status, 0);
  EXPECT_STREQ(name_of(cpu.go()), "SYSCALL");
}

TEST(Hands, VcpuRunsForOneThreadAtATime) {
  Guest guest;
  Vcpu cpu(guest);
  cpu.prepare(
      Ring::k3,
      +[](uint64_t at) {
        while (!__atomic_load_n(reinterpret_cast<int*>(at), __ATOMIC_RELAXED))
          ;
      },
      0);
  auto* stop = new int(0);
  guest.cover(reinterpret_cast<uint64_t>(stop));
  cpu.regs().rdi = reinterpret_cast<uint64_t>(stop);
  std::thread other([&] { cpu.go(); });
  long result = 0;
  for (int i = 0; i < 1000 && result != -EBUSY; ++i) {
    usleep(1000);
    dune_debug d{sizeof d, 0, {}, 0, 0, {}};
    result = call(cpu.fd(), DUNE_SET_DEBUG, &d);
  }
  EXPECT_EQ(result, -EBUSY);
  EXPECT_EQ(call(cpu.fd(), DUNE_RUN), -EBUSY);
  __atomic_store_n(stop, 1, __ATOMIC_RELAXED);
  other.join();
  delete stop;
}

TEST(Hands, RunPageIsOnePageAndShared) {
  Guest guest;
  Vcpu cpu(guest);
  EXPECT_EQ(mmap(nullptr, 2 * kPage, PROT_READ, MAP_SHARED, cpu.fd(), 0), MAP_FAILED);
  EXPECT_EQ(mmap(nullptr, kPage, PROT_READ, MAP_SHARED, cpu.fd(), kPage), MAP_FAILED);
  EXPECT_EQ(mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, cpu.fd(), 0), MAP_FAILED);
  EXPECT_EQ(mmap(nullptr, kPage, PROT_READ | PROT_EXEC, MAP_SHARED, cpu.fd(), 0), MAP_FAILED);
  EXPECT_EQ(mmap(nullptr, kPage, PROT_READ, MAP_SHARED, guest.fd(), 0), MAP_FAILED);
}

TEST(Hands, RunPageOutlivesItsVcpu) {
  Guest guest;
  dune_create_vcpu create{sizeof create, 0, {}};
  const long fd = call(guest.fd(), DUNE_CREATE_VCPU, &create);
  ASSERT_GE(fd, 0);
  auto* run =
      static_cast<dune_run*>(mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, int(fd), 0));
  ASSERT_NE(run, MAP_FAILED);
  close(int(fd));
  run->interrupt = 1; // which hits nobody's page
  EXPECT_EQ(run->interrupt, 1u);
  munmap(run, kPage);
}

TEST(Hands, ModuleInUseStays) {
  {
    Descriptor vm(open_dune());
    ASSERT_GE(vm.get(), 0);
    EXPECT_EQ(syscall(SYS_delete_module, "dune", O_NONBLOCK), -1);
    EXPECT_EQ(errno, EWOULDBLOCK);
  }
  Guest guest;
  Vcpu cpu(guest);
  EXPECT_EQ(syscall(SYS_delete_module, "dune", O_NONBLOCK), -1);
  cpu.prepare(
      Ring::k3, +[](uint64_t) {});
  EXPECT_STREQ(name_of(cpu.go()), "SYSCALL");
}

TEST(Hands, ExecvedImageHasNothing) {
  const int status = status_of_child([] {
    Guest guest;
    Vcpu cpu(guest);
    // Both are close-on-exec; one that is not is of another address space.
    const int kept = dup(cpu.fd());
    char number[16];
    snprintf(number, sizeof number, "%d", kept);
    setenv("KMOD_TEST_KEPT", number, 1);
    execl("/proc/self/exe", "kmod_test", "--gtest_filter=Hands.DISABLED_Execved",
          "--gtest_also_run_disabled_tests", nullptr);
    _exit(9);
  });
  EXPECT_EQ(status, 0);
}
TEST(Hands, DISABLED_Execved) { EXPECT_EQ(call(atoi(getenv("KMOD_TEST_KEPT")), DUNE_RUN), -EXDEV); }

// --- at random
// ------------------------------------------------------------------------------------

// Its own process is the guest's to spoil, which may end it in any way.
void random_guest(uint64_t seed, int rounds, int* entered) {
  std::mt19937_64 random(seed);
  Guest guest;
  Vcpu cpu(guest);
  const uint64_t allowed = info_of(guest.fd()).cr4_allowed;
  // An address: often one that is there, else anything.
  const auto address = [&]() -> uint64_t {
    switch (random() % 4) {
    case 0:
      return cpu.state().gdt.base + random() % (16 * kPage);
    case 1:
      return reinterpret_cast<uint64_t>(&open_dune) + random() % kPage;
    case 2:
      return random() & 0x7fffffffffff;
    }
    return random();
  };
  const auto maybe = [&](uint64_t value, uint64_t other) { return random() % 8 ? value : other; };
  for (int i = 0; i < rounds; ++i) {
    dune_state s = cpu.state();
    s.cr4 = maybe(s.cr4, random() & allowed);
    s.gdt = {maybe(s.gdt.base, address()), uint32_t(maybe(s.gdt.limit, random() & 0xffff)), 0};
    s.idt = {maybe(s.idt.base, address()), uint32_t(maybe(s.idt.limit, random() & 0xffff)), 0};
    s.task = {maybe(s.task.base, address()), uint32_t(maybe(s.task.limit, random() & 0xfffff)), 0};
    s.task_selector = uint16_t(maybe(s.task_selector, random() & 0xfff8));
    s.exceptions = uint32_t(maybe(0, random()));
    s.lstar = maybe(s.lstar, address());
    s.star = random();
    s.sfmask = uint32_t(random());
    call(cpu.fd(), DUNE_SET_STATE, &s);
    dune_debug d{sizeof d,
                 uint32_t(random() % 4),
                 {address(), address(), address(), address()},
                 random() & 0xffff07ff,
                 maybe(0, address()),
                 {}};
    d.dr7 = maybe(0, d.dr7);
    call(cpu.fd(), DUNE_SET_DEBUG, &d);
    cpu.prepare(random() % 2 ? Ring::k0 : Ring::k3, address(), random());
    __u64* registers = &cpu.regs().rax;
    for (int j = 0; j < 16; ++j)
      registers[j] = maybe(registers[j], address());
    cpu.regs().rflags = maybe(0x202, random() & 0x254fd5);
    cpu.regs().cr3 = maybe(guest.cr3(), random() & 0xfffffff000);
    cpu.regs().cs = maybe(cpu.regs().cs, random() & 0xffff);
    if (random() % 8 == 0)
      cpu.run().event = {uint8_t(random() % 32), uint8_t(random() % 4), 0,
                         uint32_t(random() & 0x1f)};
    // It may well run for ever, or be handed its own exceptions for ever.
    std::atomic<bool> ended = false;
    std::thread clock([&] {
      for (int ms = 0; ms < 20 && !ended; ++ms)
        usleep(1000);
      cpu.run().interrupt = 1;
    });
    const uint32_t reason = cpu.go_once();
    ended = true;
    clock.join();
    *entered += reason != DUNE_EXIT_FAIL_ENTRY;
  }
}

// Arguments at random for every call that there is, and some that are not: mostly refused, and
// never at the expense of others.
void random_calls(uint64_t seed, int rounds) {
  std::mt19937_64 random(seed);
  Guest guest;
  Vcpu cpu(guest);
  Pages bytes(2 * kPage);
  for (int i = 0; i < rounds; ++i) {
    uint64_t* words = bytes.words();
    for (int j = 0; j < 32; ++j)
      words[j] = random() % 4 ? random() % 4 * kPage : random();
    const bool of_vm = random() % 2;
    *reinterpret_cast<uint32_t*>(words) = uint32_t(random() % 16 ? 8 + random() % 200 : random());
    reinterpret_cast<uint32_t*>(words)[1] = uint32_t(random() % 2 ? 0 : random() % 8);
    const uint64_t number =
        random() % 16 ? (of_vm ? random() % 6 : 0x10 + random() % 6) : random() % 256;
    void* argument =
        random() % 4 ? bytes.data() : reinterpret_cast<void*>(random() % 2 ? 0 : random());
    cpu.run().interrupt = 1; // whatever it runs, it does not run for long
    const long result = call(of_vm ? guest.fd() : cpu.fd(), _IO(DUNE_IOCTL, number), argument);
    if (of_vm && number == 3 && result >= 0)
      close(int(result));
  }
}

// How many children one after the other, or for how many seconds; the first one's seed.
struct Amount {
  int children = 40;
  time_t until = 0;
  uint64_t seed = 20240229;
  bool goes_on(int done) const { return until ? time(nullptr) < until : done < children; }
};
Amount amount_of_chance() {
  Amount a;
  if (const char* seconds = getenv("KMOD_TEST_SECONDS")) {
    a.until = time(nullptr) + atoi(seconds);
    a.seed = uint64_t(time(nullptr)) << 20;
    printf("seeds from %lu\n", static_cast<unsigned long>(a.seed));
  }
  return a;
}

TEST(Random, StateAndRegistersDoNoHarm) {
  const Amount amount = amount_of_chance();
  Pages counter(kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  auto* entered = reinterpret_cast<int*>(counter.data());
  int children = 0;
  for (; amount.goes_on(children); ++children)
    status_of_child([&] { random_guest(amount.seed + uint64_t(children), 40, entered); }, 10'000);
  printf("%d children entered the guest %d times\n", children, *entered);
  EXPECT_GT(*entered, 2 * children);
  // And the next one works.
  Guest guest;
  Vcpu cpu(guest);
  cpu.prepare(
      Ring::k3, +[](uint64_t) {});
  EXPECT_STREQ(name_of(cpu.go()), "SYSCALL");
}

TEST(Random, CallsDoNoHarm) {
  const Amount amount = amount_of_chance();
  int children = 0;
  for (; amount.goes_on(children); ++children) {
    const int status =
        status_of_child([&] { random_calls(amount.seed + uint64_t(children), 400); }, 20'000);
    // By the guest's own hands it may end, but not by the kernel's mistake.
    EXPECT_TRUE(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL))
        << status << " of child " << children;
  }
  printf("%d children\n", children);
  Guest guest;
  Vcpu cpu(guest);
  cpu.prepare(
      Ring::k3, +[](uint64_t) {});
  EXPECT_STREQ(name_of(cpu.go()), "SYSCALL");
}

// --- others that want the processor
// ---------------------------------------------------------------

class Kvm : public testing::Test {
protected:
  void SetUp() override {
    kvm_ = Descriptor(open("/dev/kvm", O_RDWR | O_CLOEXEC));
    if (kvm_.get() < 0)
      GTEST_SKIP() << "KVM is not loaded";
  }
  Descriptor kvm_;
};

TEST_F(Kvm, AndWeExcludeEachOther) {
  Descriptor vm(open_dune());
  dune_create_vcpu create{sizeof create, 0, {}};
  {
    Descriptor kvm_vm(ioctl(kvm_.get(), KVM_CREATE_VM, 0));
    ASSERT_GE(kvm_vm.get(), 0);
    EXPECT_EQ(call(vm.get(), DUNE_CREATE_VCPU, &create), -EBUSY);
  }
  const long fd = call(vm.get(), DUNE_CREATE_VCPU, &create);
  if (fd == -EBUSY)
    GTEST_SKIP() << "this KVM has the processors as long as it is loaded"; // since 6.12
  Descriptor cpu{int(fd)};
  ASSERT_GE(cpu.get(), 0);
  EXPECT_EQ(ioctl(kvm_.get(), KVM_CREATE_VM, 0), -1);
  EXPECT_EQ(errno, EBUSY);
  cpu.reset();
  Descriptor kvm_vm(ioctl(kvm_.get(), KVM_CREATE_VM, 0));
  EXPECT_GE(kvm_vm.get(), 0);
}

void set_online(int cpu, bool online) {
  std::ofstream("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/online")
      << online << std::flush;
}

TEST(Hotplug, GuestGoesOnWhereverItIs) {
  if (sysconf(_SC_NPROCESSORS_CONF) < 2)
    GTEST_SKIP() << "one processor";
  Guest guest;
  Vcpu cpu(guest);
  auto* words = new uint64_t[2]{};
  guest.cover(reinterpret_cast<uint64_t>(words));
  cpu.prepare(
      Ring::k3,
      +[](uint64_t at) {
        auto* w = reinterpret_cast<uint64_t*>(at);
        while (!__atomic_load_n(&w[0], __ATOMIC_RELAXED))
          __atomic_fetch_add(&w[1], 1, __ATOMIC_RELAXED);
      },
      reinterpret_cast<uint64_t>(words));
  uint32_t reason = 0;
  std::thread runner([&] { reason = cpu.go(); });
  const auto goes_on = [&] {
    const uint64_t before = __atomic_load_n(&words[1], __ATOMIC_RELAXED);
    for (int ms = 0; ms < 20'000 && __atomic_load_n(&words[1], __ATOMIC_RELAXED) == before; ++ms)
      usleep(1000);
    EXPECT_GT(__atomic_load_n(&words[1], __ATOMIC_RELAXED), before);
  };
  for (int i = 0; i < 4; ++i) {
    for (const bool online : {false, true}) {
      set_online(1, online);
      goes_on();
    }
    // And on the one that has come.
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(i % 2, &only);
    pthread_setaffinity_np(runner.native_handle(), sizeof only, &only);
    goes_on();
    CPU_SET(0, &only);
    CPU_SET(1, &only);
    pthread_setaffinity_np(runner.native_handle(), sizeof only, &only);
  }
  __atomic_store_n(&words[0], 1, __ATOMIC_RELAXED);
  runner.join();
  EXPECT_STREQ(name_of(reason), "SYSCALL");
  delete[] words;
}

} // namespace
} // namespace dune::test
