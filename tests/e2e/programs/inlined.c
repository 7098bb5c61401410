// Built with -O2: atol() is a body of stdlib.h that is inlined here, behind a jump. The jump to
// scaled() is to a function that begins with an inlined body.
#include <stdio.h>
#include <stdlib.h>

static inline int doubled(int n) { return n * 2; }

__attribute__((noipa)) int scaled(int n) {
  n = doubled(n);
  puts("scaled");
  return n;
}

__attribute__((noipa)) int jumps_on(int n) {
  return scaled(n);
}

int main(int argc, char** argv) {
  int n = argc > 1 ? atol(argv[1]) : 3;
  long sum = 0;
  for (int i = 0; i < n; i++)
    sum += (long)i * i;
  printf("%ld\n", sum);
  jumps_on(n);
  return 0;
}
