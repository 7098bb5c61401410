// The host side of a guest, as small as the contracts of libdune/backend and libdune/process allow:
// enough to run a static program of one thread without signal handlers.
#pragma once

#include "libdune/backend/owned_guest_hosted.h"
#include "libdune/process/address_space.h"

#include <string>
#include <vector>

namespace dune::backend {

// A thread with the process's memory in its guest.
struct MappedThread {
  process::AddressSpace& memory;
  Cpu& cpu;
  process::FaultHistory history{};
  process::Outcome refused{}; // why a page fault came back
};

// A guest with one such thread.
class MappedGuest {
public:
  // `known`: how many mappings it can remember.
  static Result<std::unique_ptr<MappedGuest>> open(const GuestOps&, Placement,
                                                   std::span<const Handler>, uint64_t table_pages,
                                                   size_t known = 1024);
  ~MappedGuest() { memory.close(); }
  MappedGuest(const MappedGuest&) = delete;
  MappedGuest& operator=(const MappedGuest&) = delete;

  Exit run() { return owned_->run(); }

private:
  MappedGuest(std::unique_ptr<OwnedGuest> owned, size_t known)
      : owned_(std::move(owned)), known_(known) {}

  std::unique_ptr<OwnedGuest> owned_;
  std::vector<process::Mapped> known_;
  TargetRange own_;

public:
  Guest& guest = owned_->guest;
  Cpu& cpu = owned_->cpu;
  process::AddressSpace memory;
  MappedThread thread{memory, cpu};
};

// Starts at `rip` in ring 3, with a stack that ends at `rsp`.
void start_at(Cpu&, const void* rip, const void* rsp);

// Runs the thread and serves its page faults until something else, or a fault that the process
// would not survive, brings it back. Counts every time it came back.
Exit run_mapped(MappedThread&, uint64_t* exits = nullptr);
inline Exit run_mapped(MappedGuest& g, uint64_t* exits = nullptr) {
  return run_mapped(g.thread, exits);
}

// Loads a static program into this process and runs it to its exit in the guest. Returns its
// status; a fault ends it with 128 + the signal that Linux would have sent.
int run_program(MappedGuest&, const std::vector<std::string>& arguments);

} // namespace dune::backend
