// Kicks: makes running threads of the target enter the agent, which then parks them. Used by the
// front end itself, since it waits for them.
#pragma once

#include "dtrace-lite/symbols/diagnostic.h"
#include "libdune/base/file.h"

#include <map>
#include <sys/types.h>

namespace ddbg::keeper {

class Kicker {
public:
  // `precise`: session::kCapPreciseKick.
  Kicker(pid_t process, bool precise) : process_(process), precise_(precise) {}

  // Again for the same thread: it has not come yet, and may not have got the last one.
  // A thread that has ended is no error.
  Checked<void> kick(pid_t tid);
  // Takes back the precise kicks that have not arrived.
  void clear() { events_.clear(); }

private:
  pid_t process_;
  bool precise_;
  std::map<pid_t, dune::Fd> events_;
};

} // namespace ddbg::keeper
