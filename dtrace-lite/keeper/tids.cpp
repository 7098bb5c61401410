#include "dtrace-lite/keeper/tids.h"

#include "dtrace-lite/keeper/proc.h"

namespace ddbg::keeper {

TidMap::TidMap(pid_t process)
    : process_(process), same_(innermost_pid(process) == static_cast<uint32_t>(process)) {}

pid_t TidMap::outer(uint32_t inner) {
  if (same_)
    return static_cast<pid_t>(inner);
  const auto known = outer_.find(inner);
  if (known != outer_.end() && innermost_pid(known->second) == inner)
    return known->second;
  for (pid_t tid : read_tasks(process_))
    if (innermost_pid(tid) == inner)
      return outer_[inner] = tid;
  return known == outer_.end() ? 0 : known->second;
}

uint32_t TidMap::inner(pid_t outer) const {
  return same_ ? static_cast<uint32_t>(outer) : innermost_pid(outer);
}

pid_t TidMap::outer_child(uint32_t inner) const {
  if (same_)
    return static_cast<pid_t>(inner);
  for (pid_t tid : read_tasks(process_))
    for (pid_t child : read_children(tid))
      if (innermost_pid(child) == inner)
        return child;
  return 0;
}

} // namespace ddbg::keeper
