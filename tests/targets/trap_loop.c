// trap_loop N: calls hit() N times between begin() and end(), and nothing of the kernel's.
#include <stdlib.h>

__attribute__((noinline, noclone)) void begin(void) { __asm__ volatile(""); }
__attribute__((noinline, noclone)) void end(void) { __asm__ volatile(""); }
__attribute__((noinline, noclone)) long hit(long i) {
  __asm__ volatile("");
  return i ^ 1;
}

int main(int argc, char** argv) {
  const long n = argc > 1 ? atol(argv[1]) : 1000;
  long sum = 0;
  begin();
  for (long i = 0; i < n; ++i)
    sum += hit(i);
  end();
  return sum == 42;
}
