#include "libdune/base/assert.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>

extern "C" void dune_assert_failed(const char* expression, const char* file, int line) {
  fprintf(stderr, "%s: internal error at %s:%d: %s\n", program_invocation_short_name, file, line,
          expression);
  abort();
}
