#include <unistd.h>

volatile unsigned long turns;

int main(void) {
  write(1, "spinning\n", 9);
  for (;;)
    turns++;
}
