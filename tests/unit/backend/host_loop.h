// The host side of a guest, as small as the contract of libdune/backend allows: enough to run a
// static program of one thread without signal handlers.
#pragma once

#include "libdune/backend/owned_guest_hosted.h"

#include <string>
#include <vector>

namespace dune::backend {

// Starts at `rip` in ring 3, with a stack that ends at `rsp`.
void start_at(Cpu&, const void* rip, const void* rsp);

// Runs the thread and serves its page faults from what the process has mapped, until something else
// brings it back. Counts every time it came back.
Exit run_mapped(OwnedGuest&, uint64_t* exits = nullptr);

// Loads a static program into this process and runs it to its exit in the guest. Returns its
// status; a fault ends it with 128 + the signal that Linux would have sent.
int run_program(OwnedGuest&, const std::vector<std::string>& arguments);

} // namespace dune::backend
