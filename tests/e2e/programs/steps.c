#include <stdio.h>
#include <stdlib.h>

struct point {
  int x, y;
};
int counter;

static int add(int a, int b) {
  int sum = a + b;
  counter += sum;
  return sum;
}

static int factorial(int n) {
  if (n <= 1)
    return 1;
  return n * factorial(n - 1);
}

int main(int argc, char** argv) {
  struct point p = {1, 2};
  for (int i = 0; i < 5; i++)
    p.x = add(p.x, i);
  printf("x=%d f=%d\n", p.x, factorial(5));
  if (argc > 1 && argv[1][0] == 'c') {
    int* nowhere = 0;
    *nowhere = 1;
  }
  return p.y;
}
