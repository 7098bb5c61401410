// Hardware watchpoints: perf_event breakpoints with sigtrap, one event per thread and watchpoint.
// The descriptors live in the keeper: none in the target, and the kernel removes them with us.
// The session says what is watched. For a target in a guest it says, too, by which of the two ways
// that there are, and the agent does the rest (libdune/agent/guest_watch.cpp).
#pragma once

#include "dtrace-lite/keeper/client.h"
#include "libdune/session/layout.h"

#include <map>

namespace ddbg::keeper {

// Whether this process could use perf_event breakpoints, and so the target's agent.
bool accesses_can_be_counted();

class WatchSet {
public:
  // What the record says. The session outlives what is added here.
  // Errors: no free debug register, size or alignment impossible, perf_event_open not permitted.
  Checked<uint32_t> add(pid_t, dune::session::Session&, Client::Access, uint32_t record);
  Checked<uint32_t> add_in_guest(dune::session::Session&, Client::Access, uint32_t record);
  void remove(uint32_t id);
  void clear();

private:
  struct Watch {
    std::vector<dune::Fd> events; // none in a guest
    dune::session::Header* header;
    dune::session::WatchPlace* place;
  };
  Checked<uint32_t> list(dune::session::Header&, Client::Access, uint32_t record, bool by_register,
                         std::vector<dune::Fd> events);
  static void forget(const Watch&);

  std::map<uint32_t, Watch> watches_;
  uint32_t next_ = 1;
};

} // namespace ddbg::keeper
