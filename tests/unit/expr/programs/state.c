// A program in a known state, stopped at an int3: what gdb prints of it is what we must print.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum colour { RED, GREEN = 5, BLUE };
enum flags { F_A = 1, F_B = 2, F_C = 8 };
enum negative { MINUS = -1, PLUS = 1 };

struct point {
  int x, y;
};
struct list {
  struct list *next;
  const char *name;
  int value;
  double weight;
};
struct bits {
  unsigned a : 3;
  int b : 5;
  unsigned long c : 33;
  bool d : 1;
  unsigned char e;
};
union number {
  int i;
  float f;
  unsigned char bytes[4];
};
struct outer {
  int kind;
  union {
    int as_int;
    float as_float;
  };
  struct {
    short lo, hi;
  } parts;
  struct point corners[2];
  struct point *where;
  int (*op)(int, int);
  enum colour tint;
};
typedef struct point point_t;
typedef unsigned int u32;
typedef const char *string_t;
struct opaque;

int global_int = 42;
static int static_int = -7;
unsigned int global_uint = 4000000000u;
long global_long = -5000000000L;
unsigned long global_ulong = 18446744073709551615ul;
short global_short = -300;
unsigned short global_ushort = 65535;
char global_char = 'Z';
signed char global_schar = -1;
unsigned char global_uchar = 200;
int8_t global_i8 = 65;
uint64_t global_u64 = 0x123456789abcdef0ul;
float global_float = 3.14159f;
double global_double = -2.718281828459045;
long double global_ldouble = 1.1L;
bool global_bool = true;
_Complex double global_complex = 1.5;
int array[5] = {1, 2, 3, 4, 5};
int matrix[2][3] = {{1, 2, 3}, {4, 5, 6}};
int zeros[300];
int mostly[40] = {1, 2, [20] = 7};
char text[16] = "hello";
char exact[5] = "12345";
char blank[8];
char escapes[] = "tab\there \"quoted\" \\ \001\0012 \377 end";
char runs[64] = "aaaaaaaaaaaaaaaaaaaabc";
char longer[400];
unsigned char bytes[6] = {0, 1, 127, 128, 255, 10};
const char *message = "a message";
const char *null_string = 0;
char *words[3] = {"one", "two", 0};
string_t typed_string = "typed";
void *anything = &global_int;
struct point origin = {0, 0};
struct point points[3] = {{1, 2}, {3, 4}, {5, 6}};
struct point same[12];
point_t typed_point = {7, 8};
struct bits bits = {5, -3, 0x1ffffffffUL, true, 0x7f};
union number number = {0x40490fdb};
enum colour colour = GREEN;
enum colour strange = 3;
enum flags flags = F_A | F_C;
enum flags no_flags = 0;
enum flags odd_flags = F_B | 64;
enum negative negative = MINUS;
u32 typed_int = 77;
volatile int volatile_int = 9;
const int const_int = 11;
struct opaque *opaque_pointer = 0;
int *int_pointer = &array[2];
int **double_pointer = &int_pointer;
int (*array_pointer)[5] = &array;
struct list third = {0, "third", 3, 0.5};
struct list second = {&third, "second", 2, 1e100};
struct list first = {&second, "first", 1, -1.0 / 3};
__int128 wide = 5;
__thread int thread_int = 1234;

static int add(int a, int b) { return a + b; }
int variadic(const char *format, ...) { return format != 0; }
int (*operation)(int, int) = add;
int (*operations[2])(int, int) = {add, 0};
struct outer outer = {.kind = 1, .as_float = 1.0f, .parts = {1, -2}, .corners = {{1, 2}, {3, 4}},
                      .where = &origin, .op = add, .tint = BLUE};

__attribute__((noinline)) int stop(int count, struct list *head, const char *label, double ratio,
                                   struct point by_value, char letter) {
  int local = count * 2;
  static int calls = 3;
  unsigned char small = 250;
  int shadowed = 1;
  int vla[count];
  register int sum = 0;
  for (int i = 0; i < count; i++) {
    int shadowed = i * 10;
    vla[i] = shadowed;
    sum += shadowed;
  }
  {
    int shadowed = 99;
    struct local_type {
      int p, q;
    } inner = {local, shadowed};
    calls += inner.p;
    __asm__ volatile("int3");
    calls -= inner.q;
  }
  return sum + small + shadowed + by_value.x + letter + (int)ratio + head->value + label[0];
}

int main(void) {
  for (int i = 0; i < 399; i++)
    longer[i] = (char)('a' + i % 26);
  static_int++;
  static_int--;
  return stop(4, &first, "label", 0.25, points[1], 'q') == 0;
}
