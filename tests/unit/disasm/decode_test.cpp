#include "disasm/decode.h"

#include <gtest/gtest.h>
#include <vector>

namespace dune::disasm {

namespace {

using Bytes = std::vector<uint8_t>;

Instruction one(const Bytes& bytes, uint64_t address = 0x1000) {
  auto decoded = decode(bytes, TargetAddr(address));
  EXPECT_TRUE(decoded) << (decoded ? "" : decoded.error().text);
  return decoded ? *decoded : Instruction{};
}

struct FlowCase {
  Bytes bytes;
  Flow flow;
  bool falls_through;
};

TEST(Decode, TellsWhereControlGoes) {
  const FlowCase kCases[] = {
      {{0x48, 0x89, 0xe5}, Flow::kSequential, true},
      {{0xeb, 0x10}, Flow::kJump, false},
      {{0xe9, 0, 0x10, 0, 0}, Flow::kJump, false},
      {{0x74, 0x10}, Flow::kConditionalJump, true},
      {{0x0f, 0x85, 0, 0x10, 0, 0}, Flow::kConditionalJump, true},
      {{0xe2, 0x10}, Flow::kLoop, true},
      {{0xe1, 0x10}, Flow::kLoop, true},
      {{0xe0, 0x10}, Flow::kLoop, true},
      {{0xe3, 0x10}, Flow::kLoop, true},
      {{0x67, 0xe3, 0x10}, Flow::kLoop, true},
      {{0xff, 0xe0}, Flow::kIndirectJump, false},
      {{0xff, 0x25, 0, 0x10, 0, 0}, Flow::kIndirectJump, false},
      {{0xe8, 0, 0x10, 0, 0}, Flow::kCall, true},
      {{0xff, 0xd0}, Flow::kIndirectCall, true},
      {{0xff, 0x50, 0x18}, Flow::kIndirectCall, true},
      {{0xc3}, Flow::kReturn, false},
      {{0xc2, 8, 0}, Flow::kReturn, false},
      {{0x48, 0xcf}, Flow::kReturn, false},
      {{0xcb}, Flow::kReturn, false},
      {{0x0f, 0x05}, Flow::kSyscall, true},
      {{0xcd, 0x80}, Flow::kSyscall, true},
      {{0xcd, 0x03}, Flow::kTrap, true},
      {{0xcc}, Flow::kTrap, true},
      {{0xf1}, Flow::kTrap, true},
      {{0xf4}, Flow::kTrap, true},
      {{0x0f, 0x0b}, Flow::kTrap, false},
      {{0xff, 0x28}, Flow::kFar, false},
      {{0xff, 0x18}, Flow::kFar, true},
      {{0xc7, 0xf8, 0, 0x10, 0, 0}, Flow::kTransaction, true},
      {{0x0f, 0x01, 0xd5}, Flow::kSequential, true}, // xend
  };
  for (const FlowCase& c : kCases) {
    Instruction i = one(c.bytes);
    EXPECT_EQ(i.flow, c.flow) << std::hex << int{c.bytes[0]};
    EXPECT_EQ(i.falls_through, c.falls_through) << std::hex << int{c.bytes[0]};
    EXPECT_EQ(i.length, c.bytes.size());
  }
}

TEST(Decode, DirectTargetsCountFromTheNextInstruction) {
  EXPECT_EQ(one({0xeb, 0xfe}).target, TargetAddr(0x1000));
  EXPECT_EQ(one({0xe8, 0xfb, 0x0f, 0, 0}).target, TargetAddr(0x2000));
  EXPECT_EQ(one({0x74, 0x10}).target, TargetAddr(0x1012));
  EXPECT_FALSE(one({0xff, 0xe0}).target);
}

TEST(Decode, RipRelativeOperandCountsFromTheNextInstruction) {
  Instruction load = one({0x48, 0x8b, 0x05, 0xf9, 0x0f, 0, 0});
  EXPECT_EQ(load.rip_operand, TargetAddr(0x2000));
  EXPECT_EQ(load.rip_operand_size, 8);
  Instruction store = one({0xc7, 0x05, 0xf6, 0x0f, 0, 0, 1, 2, 3, 4}); // an immediate behind it
  EXPECT_EQ(store.rip_operand, TargetAddr(0x2000));
  EXPECT_EQ(store.rip_operand_size, 4);
  Instruction lea = one({0x48, 0x8d, 0x05, 0xf9, 0x0f, 0, 0});
  EXPECT_EQ(lea.rip_operand, TargetAddr(0x2000));
  EXPECT_EQ(lea.rip_operand_size, 0);
  EXPECT_FALSE(one({0x48, 0x8b, 0x00}).rip_operand);
}

TEST(Decode, EipRelativeOperandIsTruncated) {
  Instruction load = one({0x67, 0x8b, 0x05, 0, 0, 0, 0}, 0x1'2345'0000);
  EXPECT_EQ(load.rip_operand, TargetAddr(0x2345'0007));
}

TEST(Decode, KnowsNopsAndEndbr) {
  for (const Bytes& nop : {Bytes{0x90}, Bytes{0x66, 0x90}, Bytes{0x0f, 0x1f, 0x00},
                           Bytes{0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0}})
    EXPECT_TRUE(one(nop).is_nop) << nop.size();
  EXPECT_FALSE(one({0xf3, 0x90}).is_nop) << "pause";
  EXPECT_FALSE(one({0x41, 0x90}).is_nop) << "xchg %r8,%rax";
  EXPECT_FALSE(one({0xf3, 0x0f, 0x1e, 0xfa}).is_nop);
  EXPECT_TRUE(one({0xf3, 0x0f, 0x1e, 0xfa}).is_endbr64);
}

TEST(Decode, TellsRepeatedStringInstructions) {
  EXPECT_TRUE(one({0xf3, 0xa4}).repeats) << "rep movsb";
  EXPECT_TRUE(one({0xf3, 0x48, 0xab}).repeats) << "rep stosq";
  EXPECT_TRUE(one({0xf2, 0xae}).repeats) << "repne scasb";
  EXPECT_FALSE(one({0xa4}).repeats) << "movsb";
  EXPECT_FALSE(one({0xf3, 0x0f, 0x10, 0xc1}).repeats) << "movss";
  EXPECT_FALSE(one({0xf3, 0x90}).repeats) << "pause";
  EXPECT_FALSE(one({0xf3, 0x0f, 0xb8, 0xc1}).repeats) << "popcnt";
}

TEST(Decode, FindsSystemCallNumbers) {
  EXPECT_EQ(one({0xb8, 14, 0, 0, 0}).eax_constant, 14u);
  EXPECT_EQ(one({0x48, 0xc7, 0xc0, 14, 0, 0, 0}).eax_constant, 14u);
  EXPECT_FALSE(one({0xb9, 14, 0, 0, 0}).eax_constant) << "ecx";
  EXPECT_FALSE(one({0xb0, 14}).eax_constant) << "al";
}

TEST(Decode, ToldApartWhyNot) {
  auto invalid = decode(Bytes{0x06}, TargetAddr(0));
  ASSERT_FALSE(invalid);
  EXPECT_EQ(invalid.error().code, Errc::kInvalid);
  auto cut = decode(Bytes{0xe8, 0x00}, TargetAddr(0));
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().code, Errc::kExhausted);
  auto empty = decode({}, TargetAddr(0));
  ASSERT_FALSE(empty);
  EXPECT_EQ(empty.error().code, Errc::kExhausted);
}

TEST(DecodeRange, StopsAtWhatIsNoInstruction) {
  LinearDecode range = decode_range(Bytes{0x55, 0x48, 0x89, 0xe5, 0x06, 0xc3}, TargetAddr(0x1000));
  ASSERT_EQ(range.instructions.size(), 2u);
  EXPECT_EQ(range.instructions[1].address, TargetAddr(0x1001));
  ASSERT_TRUE(range.stopped);
  EXPECT_EQ(range.stopped->detail, 4);
}

TEST(DecodeRange, EndsWithTheRange) {
  LinearDecode range = decode_range(Bytes{0x55, 0xc3}, TargetAddr(0x1000));
  EXPECT_EQ(range.instructions.size(), 2u);
  EXPECT_FALSE(range.stopped);
}

TEST(ForEachInstruction, StopsWhenTold) {
  int seen = 0;
  EXPECT_TRUE(for_each_instruction(Bytes{0x90, 0x90, 0x06}, TargetAddr(0),
                                   [&](const Instruction&) { return ++seen < 2; }));
  EXPECT_EQ(seen, 2);
}

TEST(NopPadding, CountsWholeNops) {
  EXPECT_EQ(nop_padding(Bytes{0x66, 0x90, 0x90, 0x0f, 0x1f, 0x00, 0xc3}), 6u);
  EXPECT_EQ(nop_padding(Bytes{0xcc, 0x90}), 0u);
  EXPECT_EQ(nop_padding({}), 0u);
}

} // namespace

} // namespace dune::disasm
