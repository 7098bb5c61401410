// Memory of the process for tests of what the guest makes of it, and its children.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <sys/mman.h>
#include <sys/wait.h>

namespace dune {

inline char* map_pages(size_t count, int protection = PROT_READ | PROT_WRITE) {
  void* at = mmap(nullptr, count * 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT_NE(at, MAP_FAILED);
  return static_cast<char*>(at);
}

// How a child ends that says by its exit status what it has found.
inline int exit_of(pid_t child) {
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -status;
}

inline bool wants_tags() { return getenv("DUNE_TEST_VIEW_TAGS") != nullptr; } // EnterOptions

} // namespace dune
