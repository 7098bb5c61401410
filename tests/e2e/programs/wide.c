// Both halves of a pair are written, and read, by one instruction; then one half.
#include <emmintrin.h>
#include <stdio.h>

static struct pair { long first, second; } pair __attribute__((aligned(16)));

static void store(long first, long second) {
  _mm_store_si128((__m128i*)&pair, _mm_set_epi64x(second, first));
}

static long load(void) { return _mm_cvtsi128_si64(_mm_load_si128((const __m128i*)&pair)); }

int main(void) {
  store(1, 2);
  store(1, 3);
  store(1, 3);
  long seen = load();
  pair.second = 4;
  printf("%ld %ld %ld\n", pair.first, pair.second, seen);
  return 0;
}
