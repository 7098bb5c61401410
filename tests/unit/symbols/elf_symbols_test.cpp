#include "dtrace-lite/symbols/demangle.h"
#include "dtrace-lite/symbols/module.h"
#include "tests/unit/symbols/sample.h"

#include <algorithm>
#include <cstdio>
#include <gtest/gtest.h>
#include <sstream>

namespace ddbg::symbols {
namespace {

using namespace test;

TEST(ElfSymbols, FindsWhatNmLists) {
  const std::string path = output_of("readlink -fn /lib/x86_64-linux-gnu/libcrypto.so.3");
  auto module = Module::open(path);
  ASSERT_TRUE(module) << module.error().message;
  size_t checked = 0;
  for (const std::string& line : lines_of(output_of("nm -D --defined-only " + path))) {
    std::istringstream in(line);
    std::string address, type, name;
    in >> address >> type >> name;
    if (type != "T" || checked >= 300)
      continue;
    checked++;
    name.resize(std::min(name.find('@'), name.size()));
    const auto found = (*module)->symbols().find(name);
    ASSERT_EQ(found.size(), 1u) << name;
    EXPECT_EQ(found.front().address.value, std::stoull(address, nullptr, 16)) << name;
    EXPECT_TRUE(found.front().is_code);
    const auto at = (*module)->symbols().function_at(found.front().address + 1);
    ASSERT_TRUE(at) << name;
    EXPECT_EQ(at->address, found.front().address) << name;
  }
  EXPECT_EQ(checked, 300u);
  EXPECT_TRUE((*module)->symbols().find("no_such_symbol").empty());
  EXPECT_EQ((*module)->counters().units_opened, 0u) << "names need no DWARF";
}

TEST(ElfSymbols, NamesAddressesAsGdb) {
  if (!have("gdb"))
    GTEST_SKIP() << "no gdb to compare with";
  const std::string path = output_of("readlink -fn /lib/x86_64-linux-gnu/libstdc++.so.6");
  auto module = Module::open(path);
  ASSERT_TRUE(module) << module.error().message;
  const Section* text = (*module)->elf().section(".text");
  ASSERT_NE(text, nullptr);
  std::string commands;
  std::vector<LinkAddr> addresses;
  for (LinkAddr a = text->range.begin; a < text->range.end; a += 4099) {
    addresses.push_back(a);
    char hex[64];
    std::snprintf(hex, sizeof hex, "info symbol 0x%lx\n", a.value);
    commands += hex;
  }
  const ScratchFolder scratch;
  write_file(scratch / "ask", commands);
  const auto answers =
      lines_of(output_of("gdb -nx -q -batch -x " + (scratch / "ask") + " " + path + " 2>&1"));
  ASSERT_EQ(answers.size(), addresses.size());
  size_t same = 0, different = 0;
  for (size_t i = 0; i < answers.size(); i++) {
    const auto symbol = (*module)->symbols().at(addresses[i]);
    const size_t cut = answers[i].find(" in section");
    if (cut == std::string::npos) {
      EXPECT_FALSE(symbol) << answers[i] << " but " << (symbol ? symbol->name() : "");
      continue;
    }
    ASSERT_TRUE(symbol) << answers[i];
    std::string ours = symbol->name();
    if (addresses[i] > symbol->address)
      ours += " + " + std::to_string(addresses[i] - symbol->address);
    const bool equal = ours == answers[i].substr(0, cut);
    same += equal;
    different += !equal;
    if (!equal && different <= 3)
      std::printf("%s\n  for gdb's %s\n", ours.c_str(), answers[i].c_str());
  }
  EXPECT_GT(same, 100u);
  // Aliases at one address (C1 and C2 constructors) may be named by either.
  EXPECT_LE(different * 20, same);
}

TEST(ElfSymbols, NamesPltEntriesAsObjdump) {
  const std::string path = output_of("readlink -fn /usr/bin/gzip");
  auto module = Module::open(path);
  ASSERT_TRUE(module) << module.error().message;
  size_t checked = 0;
  for (const std::string& line : lines_of(output_of("objdump -d -j .plt -j .plt.sec -j .plt.got " +
                                                    path + " | grep -E '^[0-9a-f]+ <.*@plt>:'"))) {
    std::istringstream in(line);
    std::string address, name;
    in >> address >> name;
    name = name.substr(1, name.find("@plt") - 1);
    const auto plt = (*module)->symbols().find_plt(name);
    ASSERT_TRUE(plt) << name;
    EXPECT_EQ(plt->address.value, std::stoull(address, nullptr, 16)) << name;
    EXPECT_EQ(plt->name(), name + "@plt");
    checked++;
  }
  EXPECT_GT(checked, 20u);
}

TEST(ElfSymbols, LooksUpOneNameWithoutDemanglingAll) {
  const std::string program = compiled("g++ -g -O0", "sample_cpp.txt", "cpp");
  auto module = Module::open(program);
  ASSERT_TRUE(module);
  EXPECT_EQ((*module)->symbols().find_functions("main").size(), 1u);
  EXPECT_LT((*module)->counters().symbols_demangled, 5u); // of main's lambda, say
  EXPECT_EQ((*module)->symbols().find_functions("ns::f(double)").size(), 1u);
  EXPECT_LT((*module)->counters().symbols_demangled, 15u);
}

TEST(ElfSymbols, CompletesAndSuggests) {
  const std::string program = compiled("g++ -g -O0", "sample_cpp.txt", "cpp");
  auto module = Module::open(program);
  ASSERT_TRUE(module);
  const ElfSymbols& symbols = (*module)->symbols();
  const auto names = symbols.complete("ns::f", 10);
  EXPECT_EQ(names, (std::vector<std::string>{"ns::f(double)", "ns::f(int)"}));
  EXPECT_EQ(symbols.complete("", 3).size(), 3u);
  EXPECT_EQ(symbols.nearest_name("hleper"),
            symbols.find_functions("helper").front().name().substr(0, 6));
  EXPECT_EQ(symbols.nearest_name("mian"), "main");
  EXPECT_EQ(symbols.nearest_name("qqqqqqqqqqqq"), "");
}

TEST(ElfSymbols, CompletesWhatOtherModulesDefine) {
  const std::string program = compiled("g++ -g -O0", "sample_cpp.txt", "cpp");
  auto module = Module::open(program);
  ASSERT_TRUE(module);
  const ElfSymbols& symbols = (*module)->symbols();
  EXPECT_EQ(symbols.complete("printf", 10), std::vector<std::string>{"printf"});
}

TEST(Demangle, AgreesWithCxxfilt) {
  if (!have("c++filt"))
    GTEST_SKIP() << "no c++filt to compare with";
  const ScratchFolder scratch;
  const std::string names = output_of("nm -D --defined-only /lib/x86_64-linux-gnu/libstdc++.so.6 | "
                                      "awk '{sub(/@.*/, \"\", $3); print $3}' | awk 'NR%7==0'");
  write_file(scratch / "names", names);
  const auto mangled = lines_of(names);
  const auto expected = lines_of(output_of("c++filt < " + (scratch / "names")));
  ASSERT_EQ(mangled.size(), expected.size());
  ASSERT_GT(mangled.size(), 300u);
  for (size_t i = 0; i < mangled.size(); i++)
    EXPECT_EQ(demangle(mangled[i]), expected[i]) << mangled[i];
}

TEST(Demangle, ReadsBothManglingsOfRust) {
  const std::pair<const char*, const char*> rows[] = {
      {"_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE", "core::fmt::Write::write_fmt"},
      {"_ZN50_$LT$alloc..vec..Vec$LT$T$GT$$u20$as$u20$Trait$GT$3foo17h0123456789abcdefE", nullptr},
      {"_ZN36_$LT$T$u20$as$u20$core..any..Any$GT$3foo17h0123456789abcdefE",
       "<T as core::any::Any>::foo"},
      {"_RNvCs1234_7mycrate3foo", "mycrate::foo"},
      {"_RNvNtC7mycrate3bar3baz", "mycrate::bar::baz"},
      {"_RINvC7mycrate3foolE", "mycrate::foo::<i32>"},
      {"_RNCNvC7mycrate4main0B3_", "mycrate::main::{closure#0}"},
      {"_RNvXC7mycrateNtB2_1SNtB2_1T3foo", nullptr},
      {"_RNv", "_RNv"}, // damaged: as it is
      {"_ZN2ns1fEi", "ns::f(int)"},
      {"printf", "printf"},
      {"_Z", "_Z"},
  };
  for (const auto& [mangled, expected] : rows) {
    if (expected) {
      EXPECT_EQ(demangle(mangled), expected);
    } else {
      EXPECT_FALSE(demangle(mangled).empty()); // only that it ends
    }
  }
}

TEST(NameQuery, MatchesAsGdbDoes) {
  struct Row {
    const char* typed;
    const char* name;
    bool matches;
  };
  const Row rows[] = {
      {"f", "f(int)", true},
      {"f", "ns::f(int)", true},
      {"ns::f", "ns::f(int)", true},
      {"ns::f", "a::ns::f(int)", true},
      {"::f", "ns::f(int)", false},
      {"f", "ff(int)", false},
      {"f(int)", "ns::f(int)", true},
      {"f(char)", "ns::f(int)", false},
      {"f( unsigned int , char )", "f(unsigned int, char)", true},
      {"f(void)", "f()", true},
      {"bigger", "int ns::bigger<int>(int, int)", true},
      {"bigger<int>", "int ns::bigger<int>(int, int)", true},
      {"bigger<char>", "int ns::bigger<int>(int, int)", false},
      {"int", "int ns::bigger<int>(int, int)", false},
      {"S::get", "ns::S::get() const", true},
      {"operator+=", "ns::S::operator+=(int)", true},
      {"operator()", "main::{lambda(int)#1}::operator()(int) const", true},
      {"~S", "ns::S::~S()", true},
      {"S", "ns::S::~S()", false},
      {"f", "(anonymous namespace)::f(int)", true},
      {"get", "std::vector<int, std::allocator<int> >::get[abi:cxx11](int) const", true},
      {"lambda_user", "lambda_user(std::function<void (int)>)", true},
  };
  for (const Row& row : rows)
    EXPECT_EQ(NameQuery(row.typed).matches(row.name), row.matches)
        << row.typed << " / " << row.name;
  EXPECT_EQ(function_name_only("int ns::bigger<int>(int, int)"), "ns::bigger<int>");
  EXPECT_EQ(function_name_only("ns::S::get() const"), "ns::S::get");
  EXPECT_EQ(function_name_only("main::{lambda(int)#1}::operator()(int) const"),
            "main::{lambda(int)#1}::operator()");
}

} // namespace
} // namespace ddbg::symbols
