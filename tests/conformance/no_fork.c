// Preloaded into stress-ng: its first fork is none, so that the stressor runs in the process that
// was started, which is the one that is debugged. What it returns is the process's exit status
// then.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

pid_t fork(void) {
  static int called;
  if (!called) {
    called = 1;
    unsetenv("LD_PRELOAD");
    return 0;
  }
  pid_t (*real)(void) = (pid_t(*)(void))dlsym(RTLD_NEXT, "fork");
  return real();
}
