// Backends: how exceptions of the target reach the agent. One row each in table_hosted.cpp; nothing
// above the keeper knows which there are. This is the probing half of the contract, which the
// keeper runs, hosted. The front end sees what a probe found as capabilities and costs in the
// session.
//
// A backend that changes how the target's threads run (Dune mode) also enters the guest from inside
// the target; that half of the contract comes with the first such backend.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace dune::backend {

// What a probe on this machine, as this user, found. Costs are medians, in nanoseconds.
struct Probe {
  bool present = false;
  std::string why_not;       // a sentence, when not present
  uint32_t capabilities = 0; // session::Capability bits
  uint32_t trap_ns = 0;      // an int3 up to the agent's handler and back
  uint32_t syscall_ns = 0;   // a system call that does nothing
};

struct Backend {
  const char* name;
  Probe (*probe)(); // takes about a millisecond; has no lasting effect
};

std::span<const Backend> all();

struct Choice {
  const Backend* backend = nullptr; // null: none, `why` says why
  Probe probe;
  std::string why;
};

// By name, or by measurement for "auto": the cheapest trap among those present whose system calls
// cost less than ten times the cheapest. Probes each backend at most once in a process.
Choice choose(const std::string& name);

} // namespace dune::backend
