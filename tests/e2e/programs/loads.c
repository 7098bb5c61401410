#include <dlfcn.h>
#include <stdio.h>

static void *load(const char *name) {
  void *library = dlopen(name, RTLD_NOW);
  if (!library)
    puts(dlerror());
  return library;
}

int main(void) {
  void *library = load("libz.so.1");
  int closed = dlclose(library);
  void *nothing = load("no-such-library.so");
  return closed != 0 || nothing != NULL;
}
