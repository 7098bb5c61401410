// A variable that is nowhere and larger than all memory.
struct huge {
  char c[1UL << 40];
};

__attribute__((noinline)) int f(int n) {
  struct huge h;
  (void)h;
  return n + 1;
}

int main(int argc, char** argv) {
  (void)argv;
  return f(argc) - 2;
}
