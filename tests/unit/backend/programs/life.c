// What a program sees of its surroundings, as far as it does not vary: prints the same in a guest
// as outside, with any C library.
#include <fcntl.h>
#include <immintrin.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long nanoseconds(const struct timespec* t) { return t->tv_sec * 1000000000L + t->tv_nsec; }

// Registers that only the processor and the kernel keep, across system calls and new pages.
static void leave_the_processor(void) {
  for (int i = 0; i < 10; ++i) {
    syscall(SYS_getppid);
    volatile char* page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    page[0] = 1;
    munmap((void*)page, 4096);
  }
}
__attribute__((target("avx512f"))) static int keeps_512(void) {
  register __m512i v asm("zmm17") = _mm512_set1_epi64(0x1234567890abcdef);
  asm volatile("" : "+v"(v));
  leave_the_processor();
  asm volatile("" : "+v"(v));
  return _mm512_cmpeq_epi64_mask(v, _mm512_set1_epi64(0x1234567890abcdef)) == 0xff;
}
__attribute__((target("fsgsbase"))) static int keeps_gs_base(void) {
  _writegsbase_u64(0x123456789000);
  leave_the_processor();
  return _readgsbase_u64() == 0x123456789000;
}

int main(int argc, char** argv) {
  double sum = 0;
  for (int i = 1; i < 1000; ++i)
    sum += sqrt(1.0 / i);
  printf("%d arguments, the last %s; sum %.12f; TMPDIR %s\n", argc, argv[argc - 1], sum,
         getenv("TMPDIR") ? "set" : "not set");

  // The vDSO's clock, by the guest's time stamps, against the kernel's.
  struct timespec before, between, after;
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &before);
  clock_gettime(CLOCK_MONOTONIC, &between);
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &after);
  printf("clock %s\n", nanoseconds(&before) <= nanoseconds(&between) &&
                               nanoseconds(&between) <= nanoseconds(&after)
                           ? "right"
                           : "wrong");

  if (__builtin_cpu_supports("avx512f"))
    printf("512 bits %s\n", keeps_512() ? "kept" : "lost");
  if (getauxval(AT_HWCAP2) & 2)
    printf("gs base %s\n", keeps_gs_base() ? "kept" : "lost");

  printf("descriptor %d\n", open("/dev/null", O_RDONLY));

  // Memory that comes, moves, changes its rights and goes.
  size_t size = 3 << 20;
  unsigned char* p = malloc(size);
  for (size_t i = 0; i < size; ++i)
    p[i] = (unsigned char)(i * 7);
  p = realloc(p, size * 3);
  unsigned long check = 0;
  for (size_t i = 0; i < size; ++i)
    check += p[i];
  free(p);
  printf("check %lu\n", check);
  for (int round = 0; round < 50; ++round) {
    unsigned char* q =
        mmap(0, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(q, round, 8 * 4096);
    mprotect(q, 8 * 4096, PROT_READ);
    check += q[4096 * (round % 8)];
    mprotect(q, 8 * 4096, PROT_READ | PROT_WRITE);
    q[0] = 1;
    munmap(q, 8 * 4096);
  }
  printf("check %lu\n", check);
  fflush(stdout);
  if (argc > 1 && !strcmp(argv[1], "crash"))
    *(volatile int*)16 = 1;
  return 7;
}
