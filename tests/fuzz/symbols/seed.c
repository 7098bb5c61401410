// What the seeds of elf_fuzz are compiled from, as C and as C++: see make_seeds.sh.
typedef unsigned long word;
enum colour { RED = 1, GREEN = 2, BLUE = 4 };
union either {
  float f;
  word w;
};
struct list {
  struct list* next;
  enum colour colour : 3;
  unsigned flags : 5;
  union either value;
  char name[6];
  int (*call)(int, ...);
};
struct list counter = {&counter, RED, 3, {1.5f}, "seed", 0};
static volatile const word limit = 3;
#ifdef __cplusplus
namespace ns {
struct base {
  int b;
  virtual int get() { return b; }
  virtual ~base() {}
};
struct derived : virtual base {
  int d;
  int get() { return d + b; }
  static int shared;
};
int derived::shared = 4;
template <class T> T f(T n) {
  T twice = n * 2;
  return twice;
}
} // namespace ns
void operator delete(void*, unsigned long) {}
extern "C" void __cxa_pure_virtual() {}
extern "C" void* _ZTVN10__cxxabiv117__class_type_infoE[4];
void* _ZTVN10__cxxabiv117__class_type_infoE[4];
extern "C" {
#endif
static inline __attribute__((always_inline)) int twice(int x) {
  int y = 2 * x;
  return y + (int)limit;
}
__attribute__((noinline)) int f(int n) {
  int s = 0;
  for (int i = 0; i < n; i++) {
    int k = twice(i);
    s += k;
  }
  return s;
}
__attribute__((noinline)) int vla(int n) {
  volatile int a[n];
  a[n - 1] = f(n);
  return a[n - 1] + (int)counter.value.w;
}
void _start(void) {
#ifdef __cplusplus
  ns::derived d;
  counter.flags = ns::f<int>(vla(3)) + d.get();
#else
  counter.flags = vla(3);
#endif
  for (;;)
    ;
}
#ifdef __cplusplus
}
#endif
