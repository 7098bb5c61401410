// The monitor: what happens in the guest at an int3, without an exit. It settles the case that
// nobody wants anything of: a site whose records are all passed. Everything else it leaves,
// uncounted, to the host side. It runs on a stack of its own, where the home of the thread is not
// touched.
#include "libdune/agent/guest_loop.h"

namespace dune::agent {

// Null: the host side has to look. Else the trap is dealt with, and frame->trap says where to go
// on.
extern "C" ThreadBlock* agent_on_monitor_breakpoint(MonitorFrame* frame) {
  ThreadBlock* t = current();
  Registers& r = frame->regs;
  r.rip = frame->trap.rip - 1;
  r.rsp = frame->trap.rsp;
  r.eflags = frame->trap.eflags;
  session::Site* site = find_site(r.rip);
  if (!site || !takes_part(t) || t->action != session::Action::kRun || t->step_out ||
      (r.eflags & kEflagsTrap) || stop_wanted(t) || !pass_records(t, site, r))
    return nullptr;
  t->copy_site = reinterpret_cast<uint64_t>(site);
  frame->trap.rip = site->copy;
  slot_of(t).traps++;
  return t;
}

} // namespace dune::agent
