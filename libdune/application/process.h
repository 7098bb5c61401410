// What the library and the agent in the process share.
#pragma once

#include "libdune/agent/image.h"
#include "libdune/arch/paging.h"
#include "libdune/arch/syscall.h"

namespace dune::application {

// Null: the process is not in Dune mode.
agent::AgentConfig* config();

inline PageTables& tables() { return *reinterpret_cast<PageTables*>(config()->tables); }

// Of a thread in ring 0.
inline long call_agent(agent::ApplicationCall what, uint64_t a = 0, uint64_t b = 0,
                       uint64_t c = 0) {
  return syscall_of(agent::kApplicationCall, static_cast<uint64_t>(what), a, b, c);
}

} // namespace dune::application
