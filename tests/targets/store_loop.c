// store_loop N: writes 0 to N-1 into `watched`, and says what is there in the end.
#include <stdio.h>
#include <stdlib.h>

static volatile long watched;

int main(int argc, char** argv) {
  const long n = argc > 1 ? atol(argv[1]) : 1000;
  for (long i = 0; i < n; ++i)
    watched = i;
  printf("%ld\n", watched);
  return 0;
}
