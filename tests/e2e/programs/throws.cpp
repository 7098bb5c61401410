#include <atomic>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>

namespace {

volatile int counter;

struct Guard {
  ~Guard() { counter = counter + 1; }
};

void leaf(int n) {
  counter = n;
  if (n > 0)
    throw n;
  counter = 0;
}

void middle(int n) {
  leaf(n);
  counter = -1;
}

void guarded(int n) {
  Guard guard;
  leaf(n);
  counter = -2;
}

void same_function() {
  try {
    counter = 1;
    throw 1;
  } catch (int e) {
    counter = e;
  }
  counter = 2;
}

void in_caller() {
  try {
    counter = 1;
    middle(1);
    counter = 2;
  } catch (const std::string &) {
    counter = 3;
  } catch (int e) {
    counter = e;
  }
  counter = 4;
}

void with_guard() {
  counter = 1;
  try {
    Guard here;
    guarded(2);
  } catch (...) {
    counter = 5;
  }
  counter = 6;
}

void again(int n) {
  try {
    middle(n);
  } catch (int) {
    counter = 7;
    throw;
  }
}

void rethrow() {
  try {
    again(3);
  } catch (int e) {
    counter = e;
  }
  counter = 8;
}

void nested() {
  try {
    try {
      middle(4);
    } catch (const std::string &) {
      counter = 9;
    }
    counter = 10;
  } catch (int e) {
    try {
      throw std::runtime_error("second");
    } catch (const std::exception &) {
      counter = e;
    }
    counter = 11;
  }
  counter = 12;
}

void caught_inside(int n) {
  try {
    guarded(n);
  } catch (int) {
    counter = 13;
  }
}

void beneath() {
  counter = 1;
  caught_inside(1);
  for (int i = 0; i < 3; i++)
    caught_inside(i);
  counter = 14;
}

int recurse(int n) {
  if (n == 0)
    throw std::runtime_error("deep");
  if (n == 3) {
    try {
      return recurse(n - 1);
    } catch (const std::exception &) {
      return n;
    }
  }
  return recurse(n - 1) + n;
}

void recursion() {
  counter = recurse(5);
  counter = 15;
}

std::atomic<bool> stop;

void throws_all_the_time() {
  for (int rounds = 0; !stop || rounds < 10; rounds++) {
    try {
      throw int{rounds};
    } catch (int) {
    }
  }
}

void other_thread() {
  std::thread thread(throws_all_the_time);
  counter = 1;
  in_caller();
  counter = 2;
  stop = true;
  thread.join();
  counter = 3;
}

} // namespace

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    void (*function)();
  } cases[] = {{"same_function", same_function}, {"in_caller", in_caller}, {"with_guard", with_guard},
               {"rethrow", rethrow},             {"nested", nested},       {"beneath", beneath},
               {"recursion", recursion},         {"other_thread", other_thread}};
  for (const auto &one : cases)
    if (argc < 2 || std::strcmp(argv[1], one.name) == 0)
      one.function();
  return 0;
}
