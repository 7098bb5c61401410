// LD_PRELOADed: any program's main() is in ring 0. What it cannot enter by, it says and ends with.
#include <dune/enter.h>

#include <cstdio>
#include <cstring>
#include <unistd.h>

[[gnu::constructor]] static void enter_dune() {
  if (auto ok = dune::enter(); !ok) {
    fprintf(stderr, "preload: %s (%s)\n", ok.error().text,
            strerror(static_cast<int>(ok.error().detail)));
    _exit(126);
  }
}
