// A name that DWARF does not mention is found out without opening it.
#include "dtrace-lite/symbols/mentions.h"

#include "dtrace-lite/symbols/module.h"
#include "tests/unit/symbols/sample.h"

#include <gtest/gtest.h>

namespace ddbg::symbols {
namespace {

using namespace test;

constexpr const char* kSource =
    "namespace ns {\n"
    "template <class T> inline T doubled_value(T x) { volatile T v = x; return v + v; }\n"
    "struct a_structure { int a_member; };\n"
    "enum { kAnEnumerator = 7 };\n"
    "}\n"
    "int a_variable;\n"
    "inline int f3(int x) { return x + 3; }\n"
    "int main(int argc, char**) {\n"
    "  ns::a_structure s{argc};\n"
    "  return ns::doubled_value(s.a_member) + f3(a_variable) + "
    "ns::kAnEnumerator;\n"
    "}\n";

// As gcc writes it, as distributions compress it, and with DWARF 4's tables.
class MentionsOf : public testing::TestWithParam<const char*> {};

TEST_P(MentionsOf, SayYesForWhatIsThereAndNoWithoutOpeningDwarf) {
  const std::string program = compiled(GetParam(), kSource, "cpp");
  ASSERT_FALSE(program.empty());
  auto opened = Module::open(program);
  ASSERT_TRUE(opened) << opened.error().message;
  Module& module = **opened;
  for (const char* name :
       {"doubled_value", "a_structure", "kAnEnumerator", "a_variable", "f3", "main", "ns", "int"})
    EXPECT_TRUE(module.mentions().name(name)) << name;
  for (const char* name : {"no_such_function", "doubled_valu", "a_variabl", "f4"})
    EXPECT_FALSE(module.mentions().name(name)) << name;
  const std::string source =
      module.lines().find(module.symbols().find("main")[0].address)->file->name;
  EXPECT_TRUE(module.mentions().file(source.substr(source.rfind('/') + 1)));

  auto again = Module::open(program);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_TRUE((*again)->functions().places("no_such_function").empty());
  EXPECT_TRUE((*again)->lines().places("no_such_file.c", 3).empty());
  EXPECT_TRUE((*again)->lines().files("no_such_file.c").empty());
  EXPECT_EQ((*again)->counters().dwarf_opened, 0u);
  EXPECT_GE((*again)->functions().places("ns::doubled_value").size(), 1u);
  EXPECT_EQ((*again)->counters().dwarf_opened, 1u);
}

INSTANTIATE_TEST_SUITE_P(Ways, MentionsOf,
                         testing::Values("g++ -g -O1", "g++ -g -O1 -gz=zlib",
                                         "g++ -g -O1 -gz=zlib-gnu", "g++ -gdwarf-4 -O1",
                                         "g++ -gdwarf-4 -gz -O1 -fdebug-types-section"));

TEST(Mentions, ReadTheDebugFileOfTheCLibrary) {
  auto opened = Module::open("/lib/x86_64-linux-gnu/libc.so.6");
  ASSERT_TRUE(opened) << opened.error().message;
  if (!(*opened)->has_debug_section())
    GTEST_SKIP() << "no debug file for the C library";
  Mentions& mentions = (*opened)->mentions();
  EXPECT_TRUE(mentions.name("tcache_get")); // inlined only
  EXPECT_TRUE(mentions.name("abs"));        // a string of .debug_info itself
  EXPECT_TRUE(mentions.file("malloc.c"));
  EXPECT_FALSE(mentions.name("no_library_has_a_function_of_this_name"));
  EXPECT_FALSE(mentions.file("no_library_has_this_file.c"));
  EXPECT_EQ((*opened)->counters().dwarf_opened, 0u);
}

TEST(LastComponent, IsWithoutScopeArgumentsAndParameters) {
  EXPECT_EQ(last_component("f(int)"), "f");
  EXPECT_EQ(last_component("::f"), "f");
  EXPECT_EQ(last_component("ns::f<char>(int)"), "f");
  EXPECT_EQ(last_component("ns::S<a::b>::f<c::d>"), "f");
  EXPECT_EQ(last_component("S::operator<"), "operator<");
  EXPECT_EQ(last_component("S<int>::operator->"), "operator->");
}

} // namespace
} // namespace ddbg::symbols
