// DUNE_ASSERT: for our own bugs, never for bad input. On in release builds.
// Freestanding-clean: each image (hosted tools, the agent) defines dune_assert_failed once.
#pragma once

extern "C" [[noreturn]] void dune_assert_failed(const char* expression, const char* file, int line);

#define DUNE_ASSERT(condition)                                                                     \
  (__builtin_expect(!!(condition), 1) ? (void)0                                                    \
                                      : dune_assert_failed(#condition, __FILE__, __LINE__))
