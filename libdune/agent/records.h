// What a hit asks of each record of its site, the same in the monitor and on the host side.
#pragma once

#include "libdune/agent/agent.h"

namespace dune::agent {

// The condition's answer; counts nothing. `faulted`: it could not be computed.
inline bool condition_holds(ThreadBlock* t, const session::Record& r, const Registers& regs,
                            bool* faulted) {
  *faulted = false;
  if (!r.condition)
    return true;
  const Guarded g = guarded_call(r.condition, &regs, t);
  *faulted = g.faulted;
  return g.faulted || g.value; // as gdb: an error in a condition stops
}

inline bool applies(const session::Record& r, uint32_t tid, uint64_t rsp) {
  return (r.flags.load(std::memory_order_relaxed) & session::kRecordEnabled) &&
         (!r.only_tid || r.only_tid == tid) && rsp >= r.min_stack_pointer;
}

inline void count_evaluation(session::Record& r, bool faulted) {
  if (r.condition)
    r.evaluations.fetch_add(1, std::memory_order_relaxed);
  if (faulted)
    r.faults.fetch_add(1, std::memory_order_relaxed);
}

} // namespace dune::agent
