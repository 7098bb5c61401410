// Hardware watchpoints: perf_event breakpoints with sigtrap, one event per thread and watchpoint.
// The descriptors live in the keeper: none in the target, and the kernel removes them with us.
#pragma once

#include "dtrace-lite/keeper/client.h"

#include <map>

namespace ddbg::keeper {

class WatchSet {
public:
  // Errors: no free debug register, size or alignment impossible, perf_event_open not permitted.
  Checked<uint32_t> add(pid_t, dune::TargetAddr, unsigned size, Client::Access, uint32_t record);
  void remove(uint32_t id);
  void clear();

private:
  std::map<uint32_t, std::vector<dune::Fd>> watches_;
  uint32_t next_ = 1;
};

} // namespace ddbg::keeper
