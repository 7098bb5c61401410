#include <unistd.h>

static struct {
  enum { OFF, ON = 3 } state;
} lamp;

static int after(int n) { return n + 1; }

static void again(char** argv) {
  char* arguments[] = {argv[0], "again", NULL};
  execv("/proc/self/exe", arguments);
}

int main(int argc, char** argv) {
  if (argc == 1)
    again(argv);
  lamp.state = ON;
  int n = after(argc);
  return n - 3;
}
