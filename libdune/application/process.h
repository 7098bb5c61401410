// What the library and the agent in the process share.
#pragma once

#include "libdune/agent/image.h"
#include "libdune/arch/paging.h"
#include "libdune/arch/syscall.h"

namespace dune::application {

// Null: the process is not in Dune mode.
agent::AgentConfig* config();

inline PageTables& tables() { return *reinterpret_cast<PageTables*>(config()->tables); }

// The process has entered: it has no views, whatever its parent had.
void begin_views();

// Whether the processor keeps translations by the tag in CR3 (PCID), and forgets them by tag. Asked
// in ring 0.
bool finds_tags();

// Of a thread in ring 0.
template <class... Args> long call_agent(agent::ApplicationCall what, Args... args) {
  return syscall_of(agent::kApplicationCall, static_cast<uint64_t>(what), args...);
}

} // namespace dune::application
