#include "disasm/print.h"
#include "objdump.h"

#include <gtest/gtest.h>
#include <map>
#include <vector>

namespace dune::disasm::test {

namespace {

std::string att(std::vector<uint8_t> bytes, uint64_t address = 0x401000) {
  return print(bytes, TargetAddr(address)).text;
}

TEST(Print, WritesAsGdbDoes) {
  EXPECT_EQ(att({0x48, 0x89, 0xe5}), "mov    %rsp,%rbp");
  EXPECT_EQ(att({0x55}), "push   %rbp");
  EXPECT_EQ(att({0xc3}), "ret");
  EXPECT_EQ(att({0xe8, 0x31, 0x01, 0x00, 0x00}), "call   0x401136");
  EXPECT_EQ(att({0x74, 0x10}), "je     0x401012");
  EXPECT_EQ(att({0xc7, 0x45, 0xfc, 0xff, 0xff, 0xff, 0xff}), "movl   $0xffffffff,-0x4(%rbp)");
  EXPECT_EQ(att({0x48, 0x8b, 0x05, 0xe2, 0x2e, 0x00, 0x00}),
            "mov    0x2ee2(%rip),%rax        # 0x403ee9");
  EXPECT_EQ(att({0x64, 0x48, 0x8b, 0x04, 0x25, 0x28, 0x00, 0x00, 0x00}), "mov    %fs:0x28,%rax");
  EXPECT_EQ(att({0xf3, 0x48, 0xab}), "rep stos %rax,%es:(%rdi)");
  EXPECT_EQ(att({0x0f, 0x05}), "syscall");
  EXPECT_EQ(att({0xcc}), "int3");
}

TEST(Print, NamesWhatItCan) {
  auto symbolizer = [](TargetAddr a) {
    return a == TargetAddr(0x401136) ? std::string("foo") : std::string();
  };
  const uint8_t call[] = {0xe8, 0x31, 0x01, 0x00, 0x00};
  EXPECT_EQ(print(call, TargetAddr(0x401000), Syntax::kAtt, symbolizer).text,
            "call   0x401136 <foo>");
  const uint8_t lea[] = {0x48, 0x8d, 0x3d, 0x2f, 0x01, 0x00, 0x00};
  EXPECT_EQ(print(lea, TargetAddr(0x401000), Syntax::kAtt, symbolizer).text,
            "lea    0x12f(%rip),%rdi        # 0x401136 <foo>");
}

TEST(Print, IntelOnRequest) {
  const uint8_t mov[] = {0x48, 0x89, 0xe5};
  EXPECT_EQ(print(mov, TargetAddr(0), Syntax::kIntel).text, "mov    rbp, rsp");
}

TEST(Print, WhatCapstoneDoesNotKnowZydisPrints) {
  const uint8_t rdpid[] = {0xf3, 0x0f, 0xc7, 0xf8};
  Printed printed = print(rdpid, TargetAddr(0));
  EXPECT_EQ(printed.text, "rdpid  %rax");
  EXPECT_EQ(printed.length, 4);
}

TEST(Print, NoInstructionIsBad) {
  Printed printed = print(std::vector<uint8_t>{0x06, 0x90}, TargetAddr(0));
  EXPECT_EQ(printed.text, "(bad)");
  EXPECT_EQ(printed.length, 1);
}

// objdump writes addresses without 0x and adds its own symbols.
std::string comparable(std::string_view text) {
  std::string out;
  int depth = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text.substr(i, 2) == "0x") {
      ++i;
      continue;
    }
    depth += text[i] == '<';
    if (depth == 0 && (text[i] != ' ' || (!out.empty() && out.back() != ' ')))
      out += text[i];
    depth -= text[i] == '>';
  }
  while (!out.empty() && out.back() == ' ')
    out.pop_back();
  return out;
}

TEST(Print, AgreesWithObjdumpOverLibc) {
  size_t differing = 0;
  std::map<std::string, std::string> examples;
  size_t count = for_each_listed("/lib/x86_64-linux-gnu/libc.so.6", "", [&](const Listed& listed) {
    std::string expected = comparable(listed.text);
    std::string actual = comparable(print(listed.bytes(), TargetAddr(listed.address)).text);
    if (expected == actual)
      return;
    ++differing;
    examples[expected.substr(0, expected.find(' '))] = expected + "  |  " + actual;
  });
  ASSERT_GT(count, 100000u);
  // What is left are operands that x87 instructions imply and the order of xchg's.
  EXPECT_LT(differing, count / 1000);
  for (const auto& [mnemonic, example] : examples)
    printf("%s\n", example.c_str());
}

} // namespace

} // namespace dune::disasm::test
