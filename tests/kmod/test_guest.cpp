#include "tests/kmod/test_guest.h"

#include <cerrno>
#include <cpuid.h>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <string>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

namespace dune::test {

namespace {

[[noreturn]] void fail(const char* what) {
  fprintf(stderr, "kmod_test: %s: %s\n", what, strerror(errno));
  _exit(125);
}

constexpr uint64_t kStack = 16 * kPage;

} // namespace

Descriptor::~Descriptor() { reset(); }
void Descriptor::reset() {
  if (fd_ >= 0)
    close(fd_);
  fd_ = -1;
}

Pages::Pages(uint64_t size, int protection, int extra_flags, int fd) : size_(size) {
  const int flags = fd < 0 && !(extra_flags & MAP_SHARED) ? MAP_PRIVATE | MAP_ANONYMOUS : 0;
  void* p = mmap(nullptr, size, protection, flags | extra_flags, fd, 0);
  if (p == MAP_FAILED)
    fail("mmap");
  data_ = static_cast<uint8_t*>(p);
}
Pages::~Pages() { munmap(data_, size_); }

int open_dune() {
  const int fd = open("/dev/dune", O_RDWR | O_CLOEXEC);
  return fd < 0 ? -errno : fd;
}

long call(int fd, unsigned long request, void* argument) {
  const long result = ioctl(fd, request, argument);
  return result < 0 ? -errno : result;
}

dune_info info_of(int vm) {
  dune_info info{};
  info.size = sizeof info;
  if (call(vm, DUNE_GET_INFO, &info) != 0)
    fail("DUNE_GET_INFO");
  return info;
}

// One page of the fourth level, and one for each 512 GiB that are used.
Guest::Guest() : vm_(open_dune()), tables_(64 * kPage), idt_(kPage), code_(kPage, 7) {
  if (vm_.get() < 0)
    fail("/dev/dune");
  cover(tables_.at());
  cr3_ = cover(tables_.at());
  // mov %rdi, %rax; vmcall or vmmcall; ret
  const uint8_t code[] = {0x48, 0x89, 0xf8, 0x0f, 0x01, uint8_t(is_intel() ? 0xc1 : 0xd9), 0xc3};
  memcpy(code_.data(), code, sizeof code);
  hypercall_ = reinterpret_cast<uint64_t (*)(uint64_t)>(code_.at());
  // What has no handler calls the host with its vector: mov $vector, %eax; vmcall; jmp back
  for (uint32_t v = 0; v < 32; ++v) {
    uint8_t* stub = code_.data() + 256 + 16 * v;
    const uint8_t bytes[] = {0xb8, uint8_t(v), 0, 0, 0, 0x0f, 0x01, code[5], 0xeb, 0xf6};
    memcpy(stub, bytes, sizeof bytes);
    set_gate(v, code_.at(256 + 16 * v));
  }
  cover_everything();
}

void Guest::set_gate(uint32_t vector, uint64_t entry) {
  auto* idt = reinterpret_cast<Idt*>(idt_.data());
  idt->gates[vector] = make_gate(GateType::kInterrupt, TargetAddr(entry), kKernelCode, 1,
                                 vector == 3 || vector == 4);
}
int Guest::exception_at(uint64_t rip) const {
  const uint64_t offset = rip - code_.at(256);
  return offset < 16 * 32 ? int(offset / 16) : -1;
}

uint64_t Guest::cover(uint64_t address) {
  const uint64_t chunk = address & ~(kGigabyte - 1);
  for (auto [virt, phys] : covered_)
    if (virt == chunk)
      return phys + address % kGigabyte;
  dune_region region{};
  region.size = sizeof region;
  region.gpa = chunks_ * kGigabyte;
  region.hva = chunk;
  region.length = kGigabyte;
  if (long result = call(fd(), DUNE_SET_REGION, &region); result != 0) {
    errno = int(-result);
    fail("DUNE_SET_REGION");
  }
  covered_.emplace_back(chunk, region.gpa);
  ++chunks_;
  map_gigabyte(chunk, region.gpa);
  return region.gpa + address % kGigabyte;
}

volatile uint64_t& Guest::entry_of_gigabyte(uint64_t address) {
  // The first is that of the tables themselves.
  const uint64_t tables_physical = covered_[0].second + tables_.at() % kGigabyte;
  uint64_t* root = tables_.words();
  uint64_t& entry = root[address >> 39 & 511];
  if (!entry) {
    static_assert(kPage == 512 * 8);
    const uint64_t next = root[511] ? root[511] : 1; // how many are in use, where nobody maps
    root[511] = next + 1;
    entry = (tables_physical + next * kPage) | 7;
  }
  uint64_t* table = tables_.words() + ((entry & ~0xfffull) - tables_physical) / 8;
  return table[address >> 30 & 511];
}

void Guest::map_gigabyte(uint64_t address, uint64_t physical) {
  entry_of_gigabyte(address) = physical | 0xe7; // present, writable, user, accessed, dirty, 1 GiB
}

void Guest::unmap_gigabyte(uint64_t address) { entry_of_gigabyte(address) = 0; }

void Guest::cover_everything() {
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  {
    std::ifstream maps("/proc/self/maps");
    std::string line;
    while (std::getline(maps, line)) {
      unsigned long begin, end;
      if (sscanf(line.c_str(), "%lx-%lx", &begin, &end) == 2 && end < (1ull << 47))
        ranges.emplace_back(begin, end);
    }
  }
  for (auto [begin, end] : ranges)
    for (uint64_t a = begin & ~(kGigabyte - 1); a < end; a += kGigabyte)
      cover(a);
}

Vcpu::Vcpu(Guest& guest) : guest_(guest), memory_(2 * kPage + kStack) {
  dune_create_vcpu create{};
  create.size = sizeof create;
  const long fd = call(guest.fd(), DUNE_CREATE_VCPU, &create);
  if (fd < 0) {
    errno = int(-fd);
    fail("DUNE_CREATE_VCPU");
  }
  fd_ = Descriptor(int(fd));
  void* p = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
  if (p == MAP_FAILED)
    fail("mmap of a vCPU");
  run_ = static_cast<dune_run*>(p);
  auto* gdt = reinterpret_cast<Gdt*>(memory_.data());
  auto* tss = reinterpret_cast<Tss*>(memory_.data() + sizeof(Gdt));
  *gdt = make_gdt(TargetAddr(memory_.at(sizeof(Gdt))));
  tss->ist[0] = memory_.at(2 * kPage);
  tss->rsp[0] = memory_.at(2 * kPage);
  tss->io_map = sizeof(Tss);
  guest.cover_everything();
  dune_state s = state();
  if (call(this->fd(), DUNE_SET_STATE, &s) != 0)
    fail("DUNE_SET_STATE");
}

Vcpu::~Vcpu() { munmap(run_, kPage); }

dune_state Vcpu::state() {
  dune_state s{};
  s.size = sizeof s;
  const uint64_t wanted = 1 << 5 | 1 << 9 | 1 << 10 | 1 << 16 | 1 << 18;
  s.cr4 = wanted & info_of(guest_.fd()).cr4_allowed;
  s.gdt = {memory_.at(), sizeof(Gdt) - 1, 0};
  s.idt = {guest_.idt(), kPage - 1, 0};
  s.task = {memory_.at(sizeof(Gdt)), sizeof(Tss) - 1, 0};
  s.task_selector = kTaskSelector;
  s.star = uint64_t{kUserCode32} << 48 | uint64_t{kKernelCode} << 32;
  s.lstar = reinterpret_cast<uint64_t>(guest_.hypercall());
  s.sfmask = 0x44700;
  return s;
}

void Vcpu::prepare(Ring ring, uint64_t entry, uint64_t argument) {
  dune_regs& r = regs();
  r = {};
  // It returns into the host's call.
  auto* stack = reinterpret_cast<uint64_t*>(memory_.at(2 * kPage + kStack - 64));
  *stack = reinterpret_cast<uint64_t>(guest_.hypercall());
  r.rsp = reinterpret_cast<uint64_t>(stack);
  r.rip = entry;
  r.rdi = argument;
  r.rflags = 0x202;
  r.cs = ring == Ring::k0 ? kKernelCode : kUserCode;
  r.ss = ring == Ring::k0 ? kKernelData : kUserData;
  r.cr3 = guest_.cr3();
  asm("mov %%fs:0, %0" : "=r"(r.fs_base)); // a thread's own address is its first word
  run_->event = {};
}

uint32_t Vcpu::go_once() {
  const long result = call(fd(), DUNE_RUN);
  if (result != 0) {
    errno = int(-result);
    perror("DUNE_RUN");
    return 0;
  }
  return run_->exit_reason;
}

uint32_t Vcpu::go() {
  for (;;)
    if (const uint32_t reason = go_once(); reason != DUNE_EXIT_INTR)
      return reason;
}

bool is_intel() {
  uint32_t eax, ebx, ecx, edx;
  __cpuid(0, eax, ebx, ecx, edx);
  return ebx == signature_INTEL_ebx;
}

bool emulator_ignores_debug_registers() {
  uint32_t eax, ebx, ecx, edx;
  __cpuid(0x40000000, eax, ebx, ecx, edx);
  const uint32_t name[] = {ebx, ecx, edx};
  return memcmp(name, "TCGTCGTCGTCG", sizeof name) == 0;
}

int status_of_child(const std::function<void()>& body, int milliseconds) {
  fflush(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    body();
    _exit(0);
  }
  for (int waited = 0;; ++waited) {
    int status = 0;
    if (waitpid(pid, &status, WNOHANG) == pid)
      return status;
    if (waited == milliseconds)
      kill(pid, SIGKILL);
    const timespec pause{0, 1'000'000};
    nanosleep(&pause, nullptr);
  }
}

const char* name_of(uint32_t reason) {
  constexpr const char* kNames[] = {"none",      "SYSCALL", "FAULT",    "INTR",
                                    "EXCEPTION", "DEBUG",   "SHUTDOWN", "FAIL_ENTRY"};
  return reason < std::size(kNames) ? kNames[reason] : "unknown";
}

} // namespace dune::test
