// DR7 as the processor's manual has it (SDM volume 3, "Debug Control Register").
#include "libdune/arch/debug_registers.h"

#include <gtest/gtest.h>

namespace dune {
namespace {

TEST(DebugRegisters, EachHasItsBits) {
  EXPECT_EQ(dr7_watching(0, 1, true), 0x1u | 0x1u << 16);
  EXPECT_EQ(dr7_watching(1, 2, true), 0x4u | 0x5u << 20);
  EXPECT_EQ(dr7_watching(2, 4, false), 0x10u | 0xfu << 24);
  EXPECT_EQ(dr7_watching(3, 8, false), 0x40u | uint64_t{0xb} << 28);
}

TEST(DebugRegisters, SeveralAreOred) {
  uint64_t all = 0;
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(all & dr7_watching(i, 8, true), 0u);
    all |= dr7_watching(i, 8, true);
  }
  EXPECT_EQ(all, 0x99990055u);
}

} // namespace
} // namespace dune
