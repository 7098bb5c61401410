// The numbers of a target's threads. The agent knows those of the target's own pid namespace, which
// is not ours where the target is in a container: everybody else uses what /proc here calls them.
#pragma once

#include <cstdint>
#include <map>
#include <sys/types.h>

namespace ddbg::keeper {

class TidMap {
public:
  explicit TidMap(pid_t process);

  // Of a number that the agent knows; 0 if no thread of the process ever had it. One that has ended
  // keeps its last until another thread has got the inner number.
  pid_t outer(uint32_t inner);
  uint32_t inner(pid_t outer) const; // 0: it has ended
  // Of a child process; 0: it has ended.
  pid_t outer_child(uint32_t inner) const;

private:
  pid_t process_;
  bool same_; // no namespace between us: the numbers are the same
  std::map<uint32_t, pid_t> outer_;
};

} // namespace ddbg::keeper
