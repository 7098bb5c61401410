// Who watches a thread's system calls: seccomp filters, and the descriptor of one that asks.
#pragma once

#include <cstdint>

namespace dune::test {

// From now on getppid of this thread does what `action` (SECCOMP_RET_...) says; flags as of
// seccomp(2). A descriptor for SECCOMP_FILTER_FLAG_NEW_LISTENER, else 0; or -errno.
int filter_getppid(uint32_t action, uint32_t flags = 0);

// Answers `value` to the next one who asks; false: there was none.
bool answer_one(int listener, int64_t value);

} // namespace dune::test
