#include "disasm/decode.h"
#include "disasm/patch_plan.h"

#include <cstring>
#include <gtest/gtest.h>
#include <initializer_list>

namespace dune::disasm {

namespace {

constexpr TargetAddr kBase(0x5555'5555'0000);

// A function of these bytes at kBase; keeps them alive.
struct Function {
  std::vector<uint8_t> bytes;
  std::vector<uint8_t> behind;
  std::vector<CodePart> parts;
  PatchRequest request;

  Function(std::initializer_list<uint8_t> code, uint64_t site = 0) : bytes(code) {
    parts.push_back({kBase, bytes});
    request.site = kBase + site;
    request.function = parts;
  }
  Function(const Function&) = delete;

  PatchPlan plan() {
    request.function = parts;
    request.behind = behind;
    auto made = plan_patch(request);
    EXPECT_TRUE(made) << (made ? "" : refusal_text(made.error().why));
    if (!made)
      abort();
    return std::move(*made);
  }
};

TEST(PatchPlan, LongInstructionIsTierA) {
  Function f{0x48, 0x8b, 0x05, 0, 0x10, 0, 0, 0xc3}; // mov 0x1000(%rip),%rax; ret
  PatchPlan plan = f.plan();
  EXPECT_EQ(plan.tier, Tier::kA);
  EXPECT_EQ(plan.overwritten, 5u);
  EXPECT_EQ(plan.relocation.source_length(), 7u);
  EXPECT_TRUE(plan.reach.contains(kBase + 0x7000'0000));
  EXPECT_FALSE(plan.reach.contains(kBase + 0x8000'0000));
}

TEST(PatchPlan, SystemCallNumberIsTierA) {
  Function f{0xb8, 14, 0, 0, 0, 0x0f, 0x05, 0xc3}; // mov $14,%eax; syscall; ret
  PatchPlan plan = f.plan();
  EXPECT_EQ(plan.tier, Tier::kA);
  EXPECT_EQ(plan.relocation.source_length(), 5u);
}

TEST(PatchPlan, EndbrIsSkippedNotOverwritten) {
  Function f{0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x81, 0xec, 0, 1, 0, 0, 0xc3}; // endbr64; sub $256,%rsp
  PatchPlan plan = f.plan();
  EXPECT_EQ(plan.site, kBase + 4);
  EXPECT_EQ(plan.tier, Tier::kA);
}

TEST(PatchPlan, PrologueIsTierB) {
  Function f{0x55, 0x48, 0x89, 0xe5, 0x53, 0x5b, 0x5d, 0xc3}; // push; mov; push ...
  PatchPlan plan = f.plan();
  EXPECT_EQ(plan.tier, Tier::kB);
  EXPECT_EQ(plan.relocation.source_length(), 5u);
  EXPECT_NE(plan.reason.find("3 instructions"), std::string::npos) << plan.reason;
  EXPECT_NE(plan.reason.find("shorter than a jump"), std::string::npos) << plan.reason;
}

TEST(PatchPlan, JumpTargetWithinRulesTierBOut) {
  // 0: push %rbp  1: mov %rsp,%rbp  4: push %rbx  5: jmp 1
  Function f{0x55, 0x48, 0x89, 0xe5, 0x53, 0xeb, 0xfa};
  PatchPlan plan = f.plan();
  EXPECT_NE(plan.tier, Tier::kB);
  EXPECT_NE(plan.reason.find("next instruction is a jump target"), std::string::npos)
      << plan.reason;
}

TEST(PatchPlan, JumpTargetFromAnotherPartCounts) {
  Function f{0x55, 0x48, 0x89, 0xe5, 0x53, 0xc3};
  const uint8_t cold[] = {0xe9, 0xfc, 0xff, 0xfe, 0xff}; // at kBase + 0x10000: jmp kBase + 1
  f.parts.push_back({kBase + 0x10000, cold});
  EXPECT_NE(f.plan().tier, Tier::kB);
}

TEST(PatchPlan, KnownTargetCounts) {
  Function f{0x55, 0x48, 0x89, 0xe5, 0x53, 0xc3};
  const TargetAddr landing_pads[] = {kBase + 4};
  f.request.known_targets = landing_pads;
  EXPECT_NE(f.plan().tier, Tier::kB);
}

TEST(PatchPlan, IndirectJumpRulesTierBOutUnlessKnown) {
  Function f{0x55, 0x48, 0x89, 0xe5, 0x53, 0xff, 0xe0}; // ...; jmp *%rax
  EXPECT_NE(f.plan().tier, Tier::kB);
  f.request.indirect_jumps_known = true;
  EXPECT_EQ(f.plan().tier, Tier::kB);
}

TEST(PatchPlan, CallBeforeTheLastRulesTierBOut) {
  Function f{0xff, 0xd0, 0x48, 0x89, 0xe5, 0xc3}; // call *%rax; mov; ret
  PatchPlan plan = f.plan();
  EXPECT_NE(plan.tier, Tier::kB);
  EXPECT_NE(plan.reason.find("would return into the jump"), std::string::npos) << plan.reason;
}

TEST(PatchPlan, SystemCallBeforeTheLastRulesTierBOut) {
  Function f{0x0f, 0x05, 0x48, 0x89, 0xc7, 0xc3};
  EXPECT_NE(f.plan().tier, Tier::kB);
}

TEST(PatchPlan, ReturnBeforePaddingIsTierC) {
  Function f({0x31, 0xc0, 0xc3}, 2); // xor %eax,%eax; ret
  f.behind = {0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00, 0x90, 0x90};
  PatchPlan plan = f.plan();
  EXPECT_EQ(plan.tier, Tier::kC);
  EXPECT_EQ(plan.overwritten, 5u);
}

TEST(PatchPlan, PunnedJumpLandsInItsReach) {
  // 0: mov %eax,%eax (2 bytes, the target of the jump after it is 2); then 00 00 20 as the tail
  Function f{0x89, 0xc0, 0x00, 0x00, 0x20, 0xeb, 0xfb};
  f.request.cheapest = Tier::kC;
  PatchPlan plan = f.plan();
  ASSERT_EQ(plan.tier, Tier::kC) << plan.reason;
  EXPECT_EQ(plan.overwritten, 2u);
  EXPECT_EQ(plan.reach.size(), 256u);
  for (TargetAddr trampoline : {plan.reach.begin, plan.reach.end - 1}) {
    auto displacement = static_cast<uint32_t>(trampoline - (kBase + 5));
    uint8_t jump[5] = {0xe9};
    memcpy(jump + 1, &displacement, 4);
    EXPECT_EQ(memcmp(jump + 2, f.bytes.data() + 2, 3), 0) << "the tail is not to be written";
    EXPECT_EQ(decode(jump, kBase)->target, trampoline);
  }
}

TEST(PatchPlan, TrapSiteIsAlwaysLeft) {
  Function f{0x55, 0x48, 0x89, 0xe5, 0x53, 0xc3};
  f.request.cheapest = Tier::kD;
  PatchPlan plan = f.plan();
  EXPECT_EQ(plan.tier, Tier::kD);
  EXPECT_EQ(plan.overwritten, 1u);
  EXPECT_EQ(plan.relocation.source_length(), 1u);
}

TEST(PatchPlan, UndecodableFunctionIsTierD) {
  Function f{0x48, 0x8b, 0x05, 0, 0x10, 0, 0, 0x06};
  PatchPlan plan = f.plan();
  EXPECT_EQ(plan.tier, Tier::kD);
  EXPECT_NE(plan.reason.find("could not be decoded"), std::string::npos) << plan.reason;
}

TEST(PatchPlan, MiddleOfAnInstructionIsTierD) {
  Function f({0x48, 0x8b, 0x05, 0, 0x10, 0, 0, 0xc3}, 1);
  EXPECT_EQ(f.plan().tier, Tier::kD);
}

TEST(PatchPlan, RefusesWhatCannotBeDisplaced) {
  Function f{0xc7, 0xf8, 0, 0x10, 0, 0, 0xc3}; // xbegin
  auto plan = plan_patch(f.request);
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().why, Refusal::kTransaction);
}

} // namespace

} // namespace dune::disasm
