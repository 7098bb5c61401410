// Which backend a target gets: the keeper's half of the contract (backend.h).
#pragma once

#include "libdune/backend/backend.h"

#include <span>
#include <string>

namespace dune::backend {

std::span<const Backend> all();

// Of a row of all(), done at most once in a process.
const Result<Probe>& probe(const Backend&);

struct Choice {
  const Backend* backend = nullptr; // null: none, `why` says why
  Probe probe;
  std::string why;
};

inline bool has_guest(const Choice& c) { return c.backend->guest != GuestKind::kNone; }

struct Candidate {
  const Backend* backend;
  Probe probe;
};

// By what was measured; docs/adding-a-backend.md has the rule and its reasons.
Choice choose_among(std::span<const Candidate>);

// By name, or by measurement for "auto". Probes only what is asked for, and each backend at most
// once in a process.
Choice choose(const std::string& name);

} // namespace dune::backend
