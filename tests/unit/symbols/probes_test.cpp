#include "dtrace-lite/symbols/probes.h"
#include "tests/unit/symbols/sample.h"

#include <gtest/gtest.h>
#include <iomanip>
#include <sstream>

namespace ddbg::symbols {
namespace {

using namespace test;
using dune::Reg;

KnownRegisters some_registers() {
  KnownRegisters known;
  known.set(Reg::rax, 0xfedcba9876543210);
  known.set(Reg::rbx, 0x1000);
  known.set(Reg::r12, 3);
  return known;
}

// Each byte of memory is the low byte of its address.
bool read_addresses(TargetAddr from, std::span<std::byte> to) {
  for (size_t i = 0; i < to.size(); ++i)
    to[i] = static_cast<std::byte>(from.value + i);
  return true;
}

TEST(ProbeOperand, EvaluatesTheAssemblersForms) {
  struct Row {
    const char* text;
    uint64_t value;
  };
  const Row rows[] = {
      {"8@%rax", 0xfedcba9876543210},
      {"-8@%rax", 0xfedcba9876543210},
      {"4@%eax", 0x76543210},
      {"-4@%eax", 0x76543210},
      {"-4@%r12d", 3},
      {"2@%ax", 0x3210},
      {"1@%al", 0x10},
      {"1@%ah", 0x32},
      {"%rbx", 0x1000},
      {"8@$-24", static_cast<uint64_t>(-24)},
      {"-4@$24", 24},
      {"1@(%rbx)", 0x00},
      {"1@5(%rbx)", 0x05},
      {"1@-1(%rbx)", 0xff},
      {"-1@-1(%rbx)", static_cast<uint64_t>(-1)},
      {"2@16(%rbx,%r12,8)", 0x2928},
      {"1@7(,%r12,4)", 19},
      {"4@(%rbx,%r12)", 0x06050403},
  };
  for (const Row& row : rows) {
    const auto operand = ProbeOperand::parse(row.text);
    ASSERT_TRUE(operand) << row.text;
    EXPECT_EQ(operand->value(some_registers(), read_addresses), row.value) << row.text;
  }
}

TEST(ProbeOperand, RefusesWhatItDoesNotKnow) {
  for (const char* text : {"", "8@", "3@%rax", "8f@%xmm0", "8@%xmm0", "8@symbol(%rip)", "8@%rax+1",
                           "8@(%eax)", "8@(%rax", "8@(%rax,%rbx,3)", "8@$1x"})
    EXPECT_FALSE(ProbeOperand::parse(text)) << text;
  EXPECT_FALSE(ProbeOperand::parse("8@%rcx")->value(some_registers(), read_addresses));
  EXPECT_FALSE(
      ProbeOperand::parse("8@(%rbx)")
          ->value(some_registers(), [](TargetAddr, std::span<std::byte>) { return false; }));
}

TEST(Probes, AgreeWithReadelf) {
  const std::string path = output_of("readlink -fn /usr/lib/x86_64-linux-gnu/libstdc++.so.6");
  auto file = ElfFile::open(path);
  ASSERT_TRUE(file) << file.error().message;
  std::ostringstream text;
  for (const Probe& probe : read_probes(**file))
    text << probe.provider << ' ' << probe.name << " 0x" << std::hex << std::setw(16)
         << std::setfill('0') << probe.address.value << ' ' << probe.arguments << '\n';
  const std::string ours = text.str();
  EXPECT_EQ(ours, output_of("readelf -nW " + path + R"( | awk '
      /Provider:/ {provider = $NF} /Name:/ {name = $2} /Location:/ {sub(",", "", $2); place = $2}
      /Arguments:/ {sub(/ *Arguments: /, ""); print provider, name, place, $0}')"));
  EXPECT_NE(ours.find("libstdcxx throw"), std::string::npos);
}

} // namespace
} // namespace ddbg::symbols
