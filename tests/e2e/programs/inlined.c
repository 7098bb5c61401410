// Built with -O2: atol() is a body of stdlib.h that is inlined here, behind a jump.
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char** argv) {
  int n = argc > 1 ? atol(argv[1]) : 3;
  long sum = 0;
  for (int i = 0; i < n; i++)
    sum += (long)i * i;
  printf("%ld\n", sum);
  return 0;
}
