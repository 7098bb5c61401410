#include "libdune/base/assert.h"

#include <cstdio>
#include <cstdlib>

extern "C" void dune_assert_failed(const char* expression, const char* file, int line) {
  fprintf(stderr, "ddbg: internal error at %s:%d: %s\n", file, line, expression);
  abort();
}
