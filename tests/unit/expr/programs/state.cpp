// The C++ half: classes, references, namespaces.
#include <cstdint>

namespace shapes {
int counter = 17;
namespace {
int hidden = 18;
}
enum class Kind : unsigned char { kRound, kSquare = 4 };
struct Base {
  virtual ~Base() {}
  virtual int area() const { return 0; }
  int id = 7;
};
struct Named {
  const char* name = "named";
};
struct Derived : Base, Named {
  int area() const override;
  static int instances;
  static constexpr int kLimit = 9;
  int side = 3;
  Kind kind = Kind::kSquare;
  bool flag = true;
};
int Derived::instances = 5;
} // namespace shapes

struct Empty {};
template <class T> struct Box {
  T content;
  int count;
};

shapes::Derived object;
shapes::Base* base = &object;
int target = 8;
int& reference = target;
shapes::Base& base_reference = object;
Box<int> box = {5, 6};
Box<const char*> text_box = {"inside", 1};
Empty empty;
char16_t wide16 = u'A';
wchar_t wide = L'B';
bool truth = true;
struct WithReference {
  int& r;
  const int c;
} with_reference = {target, 4};

int shapes::Derived::area() const {
  int doubled = side * 2;
  __asm__ volatile("int3");
  return doubled * counter + hidden;
}

int main() { return base->area() == 0; }
