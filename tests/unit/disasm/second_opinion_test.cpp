// The planner does not ask Capstone about instructions of the one-byte map without prefixes but
// REX: here it is asked about each of them.
#include "disasm/capstone.h"
#include "disasm/decode.h"

#include <array>
#include <cstdio>
#include <gtest/gtest.h>

namespace dune::disasm {

namespace {

bool is_prefix(unsigned byte) {
  switch (byte) {
  case 0x26:
  case 0x2e:
  case 0x36:
  case 0x3e:
  case 0x64:
  case 0x65:
  case 0x66:
  case 0x67:
  case 0xf0:
  case 0xf2:
  case 0xf3:
    return true;
  default:
    return (byte & 0xf0) == 0x40; // REX
  }
}

// 0f leads to the other maps; c4, c5 and 62 are VEX and EVEX; 8f with a register in ModRM is XOP.
bool is_escape(unsigned byte, unsigned modrm) {
  return byte == 0x0f || byte == 0xc4 || byte == 0xc5 || byte == 0x62 ||
         (byte == 0x8f && (modrm & 0x38) != 0);
}

TEST(SecondOpinion, IsTheSameForEveryOneByteOpcodeAndForSyscall) {
  size_t asked = 0, silent = 0, wrong = 0;
  const auto ask = [&](std::span<const uint8_t> bytes) {
    auto one = decode(bytes, TargetAddr(0x1000));
    if (!one)
      return;
    const unsigned length = capstone_length(bytes, TargetAddr(0x1000));
    ++asked;
    silent += length == 0;
    if (length != 0 && length != one->length && ++wrong <= 20)
      ADD_FAILURE() << std::hex << int{bytes[0]} << ' ' << int{bytes[1]} << ' ' << int{bytes[2]}
                    << ": Zydis " << int{one->length} << ", Capstone " << length;
  };
  for (unsigned rex = 0x3f; rex < 0x50; ++rex) // 3f: none
    for (unsigned opcode = 0; opcode < 256; ++opcode)
      for (unsigned modrm = 0; modrm < 256; ++modrm)
        // Without base, with base, and a plain one.
        for (const unsigned sib : {0x25u, 0x24u, 0xe7u}) {
          if (is_prefix(opcode) || is_escape(opcode, modrm))
            continue;
          uint8_t bytes[16] = {};
          size_t size = 0;
          if (rex != 0x3f)
            bytes[size++] = static_cast<uint8_t>(rex);
          for (const unsigned byte : {opcode, modrm, sib})
            bytes[size++] = static_cast<uint8_t>(byte);
          while (size < 15) {
            bytes[size] = static_cast<uint8_t>(0x11 * size);
            ++size;
          }
          ask(std::span(bytes).first(15));
        }
  ask(std::array<uint8_t, 4>{0x0f, 0x05, 0xc3, 0x90});
  EXPECT_EQ(wrong, 0u);
  EXPECT_GT(asked, 2'000'000u);
  EXPECT_LT(silent, asked / 50);
  printf("%zu instructions, Capstone knows all but %zu\n", asked, silent);
}

} // namespace

} // namespace dune::disasm
