// A guest of dune.ko for tests: the test program itself, at the same addresses. Its own tables map
// gigabytes with every right, so what it may do to a page is decided by the second level alone.
#pragma once

#include "kmod/uapi/dune.h"
#include "libdune/arch/descriptors.h"

#include <cstdint>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

namespace dune::test {

inline constexpr uint64_t kPage = 4096, kGigabyte = 1ull << 30;

// A descriptor, closed with its owner.
class Descriptor {
public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }
  void reset();

private:
  int fd_;
};

// Fresh pages; `protection` as of mmap.
class Pages {
public:
  explicit Pages(uint64_t size, int protection = 3, int extra_flags = 0, int fd = -1);
  ~Pages();
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  uint8_t* data() const { return data_; }
  uint64_t* words() const { return reinterpret_cast<uint64_t*>(data_); }
  uint64_t at(uint64_t offset = 0) const { return reinterpret_cast<uint64_t>(data_) + offset; }
  uint64_t size() const { return size_; }

private:
  uint8_t* data_;
  uint64_t size_;
};

int open_dune(); // a descriptor, or -errno
dune_info info_of(int vm);

// ioctl's result, or -errno.
long call(int fd, unsigned long request, void* argument = nullptr);

// The VM: tables, descriptor tables, and handlers of exceptions.
class Guest {
public:
  Guest();

  int fd() const { return vm_.get(); }
  // The second level shows this address, if it does not yet; and where.
  uint64_t cover(uint64_t address);
  void cover_everything(); // that is mapped now
  // A gigabyte of guest-physical memory at an address, whatever is there.
  void map_gigabyte(uint64_t address, uint64_t physical);
  void unmap_gigabyte(uint64_t address); // one that is mapped; processors may still know it
  uint64_t cr3() const { return cr3_; }
  // Code that asks the host; what it returns is what the host leaves in rax.
  uint64_t (*hypercall() const)(uint64_t number) { return hypercall_; }
  uint64_t idt() const { return idt_.at(); }
  void set_gate(uint32_t vector, uint64_t entry);
  // The exception without a handler that has called the host; -1: it was no such call.
  int exception_at(uint64_t rip) const;

private:
  volatile uint64_t& entry_of_gigabyte(uint64_t address);

  Descriptor vm_;
  Pages tables_, idt_, code_;
  uint64_t (*hypercall_)(uint64_t);
  uint64_t cr3_;
  uint32_t chunks_ = 0;
  std::vector<std::pair<uint64_t, uint64_t>> covered_; // address, physical
};

enum class Ring { k0, k3 };

// A thread's way in. Code runs at ring 3 or 0 until it calls the host.
class Vcpu {
public:
  explicit Vcpu(Guest& guest);
  ~Vcpu();

  int fd() const { return fd_.get(); }
  dune_run& run() { return *run_; }
  dune_regs& regs() { return run_->regs; }
  dune_state state(); // for DUNE_SET_STATE, as the constructor gives it
  // Sets the registers for code at `entry` with an argument; when it returns it calls the host.
  void prepare(Ring ring, uint64_t entry, uint64_t argument = 0);
  template <class F> void prepare(Ring ring, F* entry, uint64_t argument = 0) {
    prepare(ring, reinterpret_cast<uint64_t>(entry), argument);
  }
  // Runs until something comes that is no INTR; 0 if DUNE_RUN fails.
  uint32_t go();
  uint32_t go_once(); // INTR, too

private:
  Guest& guest_;
  Descriptor fd_;
  dune_run* run_;
  Pages memory_; // GDT and TSS, the stack of handlers, the stack of the code
};

const char* name_of(uint32_t exit_reason);

bool is_intel();

// QEMU's own processor, whose VMRUN loads DR7 and does not act on it.
bool emulator_ignores_debug_registers();

// Runs it in a child, which is killed after `milliseconds` at the latest; how it ended.
int status_of_child(const std::function<void()>& body, int milliseconds = 20'000);

} // namespace dune::test
