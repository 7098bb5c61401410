// The bytes of a displaced instruction of every form, with its boundaries; and what is refused.
#include "disasm/relocate.h"

#include <gtest/gtest.h>
#include <sstream>
#include <string>
#include <vector>

namespace dune::disasm {

namespace {

std::vector<uint8_t> bytes(const std::string& hex) {
  std::istringstream in(hex);
  std::vector<uint8_t> out;
  unsigned value;
  while (in >> std::hex >> value)
    out.push_back(static_cast<uint8_t>(value));
  return out;
}

std::string hex(std::span<const uint8_t> raw) {
  std::string out;
  for (uint8_t byte : raw) {
    char two[4];
    snprintf(two, sizeof two, "%02x ", byte);
    out += two;
  }
  return out;
}

std::string describe(const std::vector<Boundary>& boundaries) {
  std::ostringstream out;
  const char* comma = "";
  for (const Boundary& b : boundaries) {
    static constexpr const char* kStates[] = {"exact", "undo", "step"};
    out << comma << b.offset << ' ' << kStates[static_cast<size_t>(b.state)];
    if (b.state == BoundaryState::kUndo)
      out << " +" << b.rsp_add;
    comma = ", ";
  }
  return out.str();
}

constexpr TargetAddr kSource(0x5555'5555'0000), kNear(0x5555'6000'0000), kFar(0x7000'0000'0000);

struct Form {
  const char* name;
  const char* original;
  const char* near;
  const char* far;
  const char* far_boundaries; // offset, state, what undo adds to rsp
};

constexpr Form kForms[] = {
    // clang-format off
    {"Verbatim",
     "48 89 e5", // mov %rsp,%rbp
     "48 89 e5 ", // mov %rsp,%rbp
     "48 89 e5 ", // mov %rsp,%rbp
     "0 exact, 3 exact"},
    {"RipRelativeLoad",
     "48 8b 05 00 30 00 00", // mov 0x3000(%rip),%rax
     "48 8b 05 00 30 55 f5 ", // mov -0xaaad000(%rip),%rax
     "48 8d 64 24 80 " // lea -0x80(%rsp),%rsp
     "51 " // push %rcx
     "48 b9 07 30 55 55 55 55 00 00 " // movabs $0x555555553007,%rcx
     "48 8b 01 " // mov (%rcx),%rax
     "59 " // pop %rcx
     "48 8d a4 24 80 00 00 00 ", // lea 0x80(%rsp),%rsp
     "0 exact, 5 undo +128, 6 undo +136, 16 undo +136, 19 undo +136, 20 undo +128, 28 exact"},
    {"RipRelativeStoreWithImmediate",
     "c7 05 00 30 00 00 78 56 34 12", // movl $0x12345678,0x3000(%rip)
     "c7 05 00 30 55 f5 78 56 34 12 ", // movl $0x12345678,-0xaaad000(%rip)
     "48 8d 64 24 80 " // lea -0x80(%rsp),%rsp
     "50 " // push %rax
     "48 b8 0a 30 55 55 55 55 00 00 " // movabs $0x55555555300a,%rax
     "c7 00 78 56 34 12 " // movl $0x12345678,(%rax)
     "58 " // pop %rax
     "48 8d a4 24 80 00 00 00 ", // lea 0x80(%rsp),%rsp
     "0 exact, 5 undo +128, 6 undo +136, 16 undo +136, 22 undo +136, 23 undo +128, 31 exact"},
    {"RipRelativeVex3",
     "c4 e2 fb f6 0d 00 30 00 00", // mulx 0x3000(%rip),%rax,%rcx
     "c4 e2 fb f6 0d 00 30 55 f5 ", // mulx -0xaaad000(%rip),%rax,%rcx
     "48 8d 64 24 80 " // lea -0x80(%rsp),%rsp
     "53 " // push %rbx
     "48 bb 09 30 55 55 55 55 00 00 " // movabs $0x555555553009,%rbx
     "c4 e2 fb f6 0b " // mulx (%rbx),%rax,%rcx
     "5b " // pop %rbx
     "48 8d a4 24 80 00 00 00 ", // lea 0x80(%rsp),%rsp
     "0 exact, 5 undo +128, 6 undo +136, 16 undo +136, 21 undo +136, 22 undo +128, 30 exact"},
    {"RipRelativeEvex",
     "62 e1 fe 48 6f 0d 00 30 00 00", // vmovdqu64 0x3000(%rip),%zmm17
     "62 e1 fe 48 6f 0d 00 30 55 f5 ", // vmovdqu64 -0xaaad000(%rip),%zmm17
     "48 8d 64 24 80 " // lea -0x80(%rsp),%rsp
     "50 " // push %rax
     "48 b8 0a 30 55 55 55 55 00 00 " // movabs $0x55555555300a,%rax
     "62 e1 fe 48 6f 08 " // vmovdqu64 (%rax),%zmm17
     "58 " // pop %rax
     "48 8d a4 24 80 00 00 00 ", // lea 0x80(%rsp),%rsp
     "0 exact, 5 undo +128, 6 undo +136, 16 undo +136, 22 undo +136, 23 undo +128, 31 exact"},
    {"RipRelativeXop",
     "8f e8 78 a2 0d 00 30 00 00 10", // vpcmov %xmm1,0x3000(%rip),%xmm0,%xmm1
     "8f e8 78 a2 0d 00 30 55 f5 10 ", // vpcmov %xmm1,-0xaaad000(%rip),%xmm0,%xmm1
     "48 8d 64 24 80 " // lea -0x80(%rsp),%rsp
     "50 " // push %rax
     "48 b8 0a 30 55 55 55 55 00 00 " // movabs $0x55555555300a,%rax
     "8f e8 78 a2 08 10 " // vpcmov %xmm1,(%rax),%xmm0,%xmm1
     "58 " // pop %rax
     "48 8d a4 24 80 00 00 00 ", // lea 0x80(%rsp),%rsp
     "0 exact, 5 undo +128, 6 undo +136, 16 undo +136, 22 undo +136, 23 undo +128, 31 exact"},
    {"RipRelativeRexB",
     "49 8b 05 00 30 00 00", // rex.WB mov 0x3000(%rip),%rax (B has no say here, but would in the copy)
     "49 8b 05 00 30 55 f5 ", // mov -0xaaad000(%rip),%rax
     "48 8d 64 24 80 " // lea -0x80(%rsp),%rsp
     "51 " // push %rcx
     "48 b9 07 30 55 55 55 55 00 00 " // movabs $0x555555553007,%rcx
     "48 8b 01 " // mov (%rcx),%rax
     "59 " // pop %rcx
     "48 8d a4 24 80 00 00 00 ", // lea 0x80(%rsp),%rsp
     "0 exact, 5 undo +128, 6 undo +136, 16 undo +136, 19 undo +136, 20 undo +128, 28 exact"},
    {"RipRelativePushKeepsRedZone",
     "ff 35 00 30 00 00", // push 0x3000(%rip)
     "ff 35 00 30 55 f5 ", // push -0xaaad000(%rip)
     "48 8d a4 24 78 ff ff ff " // lea -0x88(%rsp),%rsp
     "50 " // push %rax
     "48 b8 06 30 55 55 55 55 00 00 " // movabs $0x555555553006,%rax
     "48 8b 00 " // mov (%rax),%rax
     "48 89 84 24 88 00 00 00 " // mov %rax,0x88(%rsp)
     "58 " // pop %rax
     "48 8d a4 24 80 00 00 00 ", // lea 0x80(%rsp),%rsp
     "0 exact, 8 undo +136, 9 undo +144, 19 undo +144, 22 undo +144, 30 undo +136, 31 undo +128, 39 exact"},
    {"RipRelativePop",
     "8f 05 00 30 00 00", // pop 0x3000(%rip)
     "8f 05 00 30 55 f5 ", // pop -0xaaad000(%rip)
     "48 8d 64 24 80 " // lea -0x80(%rsp),%rsp
     "50 " // push %rax
     "51 " // push %rcx
     "48 b8 06 30 55 55 55 55 00 00 " // movabs $0x555555553006,%rax
     "48 8b 8c 24 90 00 00 00 " // mov 0x90(%rsp),%rcx
     "48 89 08 " // mov %rcx,(%rax)
     "59 " // pop %rcx
     "58 " // pop %rax
     "48 8d a4 24 88 00 00 00 ", // lea 0x88(%rsp),%rsp
     "0 exact, 5 undo +128, 6 undo +136, 7 undo +144, 17 undo +144, 25 undo +144, 28 undo +152, 29 undo +144, 30 undo +136, 38 exact"},
    {"LoadOfTheStackPointer",
     "48 8b 25 00 30 00 00", // mov 0x3000(%rip),%rsp
     "48 8b 25 00 30 55 f5 ", // mov -0xaaad000(%rip),%rsp
     "48 8d 64 24 80 " // lea -0x80(%rsp),%rsp
     "50 " // push %rax
     "51 " // push %rcx
     "48 8d 8c 24 90 00 00 00 " // lea 0x90(%rsp),%rcx
     "48 b8 07 30 55 55 55 55 00 00 " // movabs $0x555555553007,%rax
     "48 8b 08 " // mov (%rax),%rcx
     "48 8b 84 24 08 00 00 00 " // mov 0x8(%rsp),%rax
     "48 89 8c 24 08 00 00 00 " // mov %rcx,0x8(%rsp)
     "59 " // pop %rcx
     "5c ", // pop %rsp
     "0 exact, 5 undo +128, 6 undo +136, 7 undo +144, 15 undo +144, 25 undo +144, 28 step, 36 step, 44 step, 45 step, 46 exact"},
    {"Lea",
     "48 8d 3d 00 30 00 00", // lea 0x3000(%rip),%rdi
     "48 8d 3d 00 30 55 f5 ", // lea -0xaaad000(%rip),%rdi
     "48 bf 07 30 55 55 55 55 00 00 ", // movabs $0x555555553007,%rdi
     "0 exact, 10 exact"},
    {"Lea32",
     "8d 3d 00 30 00 00", // lea 0x3000(%rip),%edi
     "bf 06 30 55 55 ", // mov $0x55553006,%edi
     "bf 06 30 55 55 ", // mov $0x55553006,%edi
     "0 exact, 5 exact"},
    {"ShortJump",
     "eb 10", // jmp .+0x12
     "e9 0d 00 55 f5 ", // jmp 0x555555550012
     "ff 25 00 00 00 00 " // jmp *0(%rip)
     "12 00 55 55 55 55 00 00 ", // 0x555555550012
     "0 exact"},
    {"NearJump",
     "e9 00 10 00 00", // jmp .+0x1005
     "e9 00 10 55 f5 ", // jmp 0x555555551005
     "ff 25 00 00 00 00 " // jmp *0(%rip)
     "05 10 55 55 55 55 00 00 ", // 0x555555551005
     "0 exact"},
    {"ShortConditionalJump",
     "74 10", // je .+0x12
     "0f 84 0c 00 55 f5 ", // je 0x555555550012
     "75 0e " // jne 0x700000000010
     "ff 25 00 00 00 00 " // jmp *0(%rip)
     "12 00 55 55 55 55 00 00 ", // 0x555555550012
     "0 exact, 2 exact, 16 exact"},
    {"HintedConditionalJump",
     "3e 0f 84 00 10 00 00", // je,pt
     "3e 0f 84 00 10 55 f5 ", // je,pt 0x555555551007
     "75 0e " // jne 0x700000000010
     "ff 25 00 00 00 00 " // jmp *0(%rip)
     "07 10 55 55 55 55 00 00 ", // 0x555555551007
     "0 exact, 2 exact, 16 exact"},
    {"Loop",
     "e2 10", // loop .+0x12
     "e2 02 " // loop 0x555560000004
     "eb 05 " // jmp 0x555560000009
     "e9 09 00 55 f5 ", // jmp 0x555555550012
     "e2 02 " // loop 0x700000000004
     "eb 0e " // jmp 0x700000000012
     "ff 25 00 00 00 00 " // jmp *0(%rip)
     "12 00 55 55 55 55 00 00 ", // 0x555555550012
     "0 exact, 2 exact, 4 exact, 18 exact"},
    {"Jecxz",
     "67 e3 10", // jecxz .+0x13
     "67 e3 02 " // jecxz 0x555560000005
     "eb 05 " // jmp 0x55556000000a
     "e9 09 00 55 f5 ", // jmp 0x555555550013
     "67 e3 02 " // jecxz 0x700000000005
     "eb 0e " // jmp 0x700000000013
     "ff 25 00 00 00 00 " // jmp *0(%rip)
     "13 00 55 55 55 55 00 00 ", // 0x555555550013
     "0 exact, 3 exact, 5 exact, 19 exact"},
    {"Call",
     "e8 00 10 00 00", // call .+0x1005
     "68 05 00 55 55 " // push $0x55550005
     "c7 44 24 04 55 55 00 00 " // movl $0x5555,0x4(%rsp)
     "e9 f3 0f 55 f5 ", // jmp 0x555555551005
     "68 05 00 55 55 " // push $0x55550005
     "c7 44 24 04 55 55 00 00 " // movl $0x5555,0x4(%rsp)
     "ff 25 00 00 00 00 " // jmp *0(%rip)
     "05 10 55 55 55 55 00 00 ", // 0x555555551005
     "0 exact, 5 undo +8, 13 exact"},
    {"CallRegister",
     "41 ff d3", // call *%r11
     "68 03 00 55 55 " // push $0x55550003
     "c7 44 24 04 55 55 00 00 " // movl $0x5555,0x4(%rsp)
     "41 ff e3 ", // jmp *%r11
     "68 03 00 55 55 " // push $0x55550003
     "c7 44 24 04 55 55 00 00 " // movl $0x5555,0x4(%rsp)
     "41 ff e3 ", // jmp *%r11
     "0 exact, 5 undo +8, 13 undo +8"},
    {"CallMemory",
     "ff 50 18", // call *0x18(%rax)
     "48 8d a4 24 78 ff ff ff " // lea -0x88(%rsp),%rsp
     "ff 70 18 " // push 0x18(%rax)
     "c7 84 24 88 00 00 00 03 00 55 55 " // movl $0x55550003,0x88(%rsp)
     "c7 84 24 8c 00 00 00 55 55 00 00 " // movl $0x5555,0x8c(%rsp)
     "c2 80 00 ", // ret $0x80
     "48 8d a4 24 78 ff ff ff " // lea -0x88(%rsp),%rsp
     "ff 70 18 " // push 0x18(%rax)
     "c7 84 24 88 00 00 00 03 00 55 55 " // movl $0x55550003,0x88(%rsp)
     "c7 84 24 8c 00 00 00 55 55 00 00 " // movl $0x5555,0x8c(%rsp)
     "c2 80 00 ", // ret $0x80
     "0 exact, 8 undo +136, 11 undo +144, 22 undo +144, 33 undo +144"},
    {"CallRspMemory",
     "ff 54 24 08", // call *8(%rsp)
     "48 8d a4 24 78 ff ff ff " // lea -0x88(%rsp),%rsp
     "ff b4 24 90 00 00 00 " // push 0x90(%rsp)
     "c7 84 24 88 00 00 00 04 00 55 55 " // movl $0x55550004,0x88(%rsp)
     "c7 84 24 8c 00 00 00 55 55 00 00 " // movl $0x5555,0x8c(%rsp)
     "c2 80 00 ", // ret $0x80
     "48 8d a4 24 78 ff ff ff " // lea -0x88(%rsp),%rsp
     "ff b4 24 90 00 00 00 " // push 0x90(%rsp)
     "c7 84 24 88 00 00 00 04 00 55 55 " // movl $0x55550004,0x88(%rsp)
     "c7 84 24 8c 00 00 00 55 55 00 00 " // movl $0x5555,0x8c(%rsp)
     "c2 80 00 ", // ret $0x80
     "0 exact, 8 undo +136, 15 undo +144, 26 undo +144, 37 undo +144"},
    {"CallRspMemoryRepeatedPrefixes",
     "65 64 64 64 64 64 64 64 64 64 ff 54 24 08", // call *%fs:8(%rsp)
     "48 8d a4 24 78 ff ff ff " // lea -0x88(%rsp),%rsp
     "64 ff b4 24 90 00 00 00 " // push %fs:0x90(%rsp)
     "c7 84 24 88 00 00 00 0e 00 55 55 " // movl $0x5555000e,0x88(%rsp)
     "c7 84 24 8c 00 00 00 55 55 00 00 " // movl $0x5555,0x8c(%rsp)
     "c2 80 00 ", // ret $0x80
     "48 8d a4 24 78 ff ff ff " // lea -0x88(%rsp),%rsp
     "64 ff b4 24 90 00 00 00 " // push %fs:0x90(%rsp)
     "c7 84 24 88 00 00 00 0e 00 55 55 " // movl $0x5555000e,0x88(%rsp)
     "c7 84 24 8c 00 00 00 55 55 00 00 " // movl $0x5555,0x8c(%rsp)
     "c2 80 00 ", // ret $0x80
     "0 exact, 8 undo +136, 16 undo +144, 27 undo +144, 38 undo +144"},
    {"CallRip",
     "ff 15 00 30 00 00", // call *0x3000(%rip)
     "68 06 00 55 55 " // push $0x55550006
     "c7 44 24 04 55 55 00 00 " // movl $0x5555,0x4(%rsp)
     "ff 25 f3 2f 55 f5 ", // jmp *-0xaaad00d(%rip)
     "48 8d a4 24 78 ff ff ff " // lea -0x88(%rsp),%rsp
     "50 " // push %rax
     "48 b8 06 30 55 55 55 55 00 00 " // movabs $0x555555553006,%rax
     "48 8b 00 " // mov (%rax),%rax
     "c7 84 24 88 00 00 00 06 00 55 55 " // movl $0x55550006,0x88(%rsp)
     "c7 84 24 8c 00 00 00 55 55 00 00 " // movl $0x5555,0x8c(%rsp)
     "48 87 04 24 " // xchg %rax,(%rsp)
     "c2 80 00 ", // ret $0x80
     "0 exact, 8 undo +136, 9 undo +144, 19 undo +144, 22 undo +144, 33 undo +144, 44 undo +144, 48 undo +144"},
    {"CallRsp",
     "ff d4", // call *%rsp
     "48 8d a4 24 78 ff ff ff " // lea -0x88(%rsp),%rsp
     "50 " // push %rax
     "48 8d 84 24 90 00 00 00 " // lea 0x90(%rsp),%rax
     "c7 84 24 88 00 00 00 02 00 55 55 " // movl $0x55550002,0x88(%rsp)
     "c7 84 24 8c 00 00 00 55 55 00 00 " // movl $0x5555,0x8c(%rsp)
     "48 87 04 24 " // xchg %rax,(%rsp)
     "c2 80 00 ", // ret $0x80
     "48 8d a4 24 78 ff ff ff " // lea -0x88(%rsp),%rsp
     "50 " // push %rax
     "48 8d 84 24 90 00 00 00 " // lea 0x90(%rsp),%rax
     "c7 84 24 88 00 00 00 02 00 55 55 " // movl $0x55550002,0x88(%rsp)
     "c7 84 24 8c 00 00 00 55 55 00 00 " // movl $0x5555,0x8c(%rsp)
     "48 87 04 24 " // xchg %rax,(%rsp)
     "c2 80 00 ", // ret $0x80
     "0 exact, 8 undo +136, 9 undo +144, 17 undo +144, 28 undo +144, 39 undo +144, 43 undo +144"},
    {"JumpRip",
     "ff 25 00 30 00 00", // jmp *0x3000(%rip)
     "ff 25 00 30 55 f5 ", // jmp *-0xaaad000(%rip)
     "48 8d 64 24 80 " // lea -0x80(%rsp),%rsp
     "50 " // push %rax
     "48 b8 06 30 55 55 55 55 00 00 " // movabs $0x555555553006,%rax
     "48 8b 00 " // mov (%rax),%rax
     "48 87 04 24 " // xchg %rax,(%rsp)
     "c2 80 00 ", // ret $0x80
     "0 exact, 5 undo +128, 6 undo +136, 16 undo +136, 19 undo +136, 23 undo +136"},
    {"Return",
     "c3", // ret
     "c3 ", // ret
     "c3 ", // ret
     "0 exact"},
    {"SystemCall",
     "0f 05", // syscall
     "0f 05 " // syscall
     "48 b9 02 00 55 55 55 55 00 00 ", // movabs $0x555555550002,%rcx
     "0f 05 " // syscall
     "48 b9 02 00 55 55 55 55 00 00 ", // movabs $0x555555550002,%rcx
     "0 exact, 2 exact, 12 exact"},
    {"Endbr",
     "f3 0f 1e fa", // endbr64
     "f3 0f 1e fa ", // endbr64
     "f3 0f 1e fa ", // endbr64
     "0 exact, 4 exact"},
    // clang-format on
};

class RelocatedBytes : public testing::TestWithParam<Form> {};

TEST_P(RelocatedBytes, AreThese) {
  const Form& form = GetParam();
  auto plan = plan_relocation(bytes(form.original), kSource);
  ASSERT_TRUE(plan) << refusal_text(plan.error().why);
  EXPECT_EQ(hex(plan->commit(kNear, Tail::kNone).bytes), form.near);
  Relocated far = plan->commit(kFar, Tail::kNone);
  EXPECT_EQ(hex(far.bytes), form.far);
  EXPECT_EQ(describe(far.boundaries), form.far_boundaries);
  EXPECT_EQ(plan->source_length(), bytes(form.original).size());
}

INSTANTIATE_TEST_SUITE_P(Forms, RelocatedBytes, testing::ValuesIn(kForms),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Relocator, JumpsBackBehindTheCopy) {
  auto plan = plan_relocation(bytes("48 89 e5"), kSource); // mov %rsp,%rbp
  ASSERT_TRUE(plan);
  EXPECT_TRUE(plan->falls_through());
  Relocated near = plan->commit(kNear);
  EXPECT_EQ(hex(near.bytes), "48 89 e5 "         // mov %rsp,%rbp
                             "e9 fb ff 54 f5 "); // jmp source + 3
  EXPECT_EQ(near.fallthrough_offset, 3);
  ASSERT_TRUE(near.boundary_at(3));
  EXPECT_EQ(near.boundary_at(3)->original, kSource + 3);
  EXPECT_EQ(near.boundary_at(3)->state, BoundaryState::kExact);
  EXPECT_EQ(near.boundary_at(1), nullptr);
  EXPECT_EQ(near.boundary_at(8), nullptr);
  EXPECT_EQ(hex(plan->commit(kFar).bytes), "48 89 e5 "
                                           "ff 25 00 00 00 00 " // jmp *0(%rip)
                                           "03 00 55 55 55 55 00 00 ");
}

TEST(Relocator, NoJumpBackWhereControlDoesNotComeBy) {
  for (const char* last : {"c3", "eb 10", "e8 00 10 00 00", "ff e0", "ff d0", "0f 0b", "48 cf"}) {
    auto plan = plan_relocation(bytes(last), kSource);
    ASSERT_TRUE(plan) << last;
    EXPECT_FALSE(plan->falls_through()) << last;
    Relocated copy = plan->commit(kNear);
    EXPECT_EQ(copy.fallthrough_offset, Relocated::kNone) << last;
    EXPECT_EQ(hex(copy.bytes), hex(plan->commit(kNear, Tail::kNone).bytes)) << last;
  }
}

TEST(Relocator, ReturnAddressThatSignExtendsIsPushedAtOnce) {
  auto plan = plan_relocation(bytes("e8 00 10 00 00"), TargetAddr(0x401000));
  ASSERT_TRUE(plan);
  EXPECT_EQ(hex(plan->commit(TargetAddr(0x10000000)).bytes), "68 05 10 40 00 "   // push $0x401005
                                                             "e9 fb 1f 40 f0 "); // jmp 0x402005
}

TEST(Relocator, SystemCallIsFound) {
  auto plan = plan_relocation(bytes("b8 27 00 00 00 0f 05"), kSource, {.cover = 7});
  ASSERT_TRUE(plan);
  EXPECT_TRUE(plan->contains_syscall());
  Relocated copy = plan->commit(kNear);
  EXPECT_EQ(copy.syscall_offset, 5);
  ASSERT_TRUE(copy.boundary_at(7)); // where the kernel returns to
  EXPECT_EQ(copy.boundary_at(7)->original, kSource + 7);
  EXPECT_EQ(copy.boundary_at(7)->state, BoundaryState::kExact);
}

TEST(Relocator, CoversWholeInstructions) {
  auto plan = plan_relocation(bytes("55 48 89 e5 48 83 ec 10 90"), kSource, {.cover = 5});
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->source_length(), 8u);
  EXPECT_EQ(plan->instruction_count(), 3u);
}

TEST(Relocator, PaddingBehindAReturnIsCoveredNotCopied) {
  // ret; nopw 0(%rax,%rax)
  auto plan = plan_relocation(bytes("c3 66 0f 1f 44 00 00 55"), kSource, {.cover = 5});
  ASSERT_TRUE(plan);
  EXPECT_EQ(hex(plan->commit(kNear).bytes), "c3 ");
  EXPECT_EQ(plan->source_length(), 7u);
}

TEST(Relocator, BranchWithinTheCopyStaysThere) {
  // 0: jne 3  2: nop  3: mov %rsp,%rbp
  auto plan = plan_relocation(bytes("75 01 90 48 89 e5"), kSource, {.cover = 5});
  ASSERT_TRUE(plan);
  EXPECT_EQ(hex(plan->commit(kFar, Tail::kNone).bytes), "0f 85 01 00 00 00 90 48 89 e5 ");
}

TEST(Relocator, BranchToItsOwnStartGoesToTheSite) {
  auto plan = plan_relocation(bytes("e2 fe"), kSource); // loop .
  ASSERT_TRUE(plan);
  EXPECT_EQ(hex(plan->commit(kNear, Tail::kNone).bytes), "e2 02 eb 05 e9 f7 ff 54 f5 ");
}

struct RefusedForm {
  const char* bytes;
  size_t cover;
  Refusal why;
};

TEST(Relocator, Refuses) {
  static constexpr RefusedForm kRefused[] = {
      {"06", 1, Refusal::kUndecodable},                    // push %es
      {"ce", 1, Refusal::kUndecodable},                    // into
      {"", 1, Refusal::kTruncated},                        //
      {"e8 00 10", 1, Refusal::kTruncated},                //
      {"90 90", 5, Refusal::kTruncated},                   //
      {"ff 1d 00 30 00 00", 1, Refusal::kFarBranch},       // lcall *0x3000(%rip)
      {"ff 28", 1, Refusal::kFarBranch},                   // ljmp *(%rax)
      {"c7 f8 00 10 00 00", 1, Refusal::kTransaction},     // xbegin
      {"0f 34", 1, Refusal::kSystemEntry},                 // sysenter
      {"48 0f 07", 1, Refusal::kSystemEntry},              // sysretq
      {"67 8b 05 00 30 00 00", 1, Refusal::kEipRelative},  // mov 0x3000(%eip),%eax
      {"67 ff 15 00 30 00 00", 1, Refusal::kEipRelative},  // call *0x3000(%eip)
      {"66 e8 00 10 00 00", 1, Refusal::kNarrowBranch},    // callw
      {"66 74 10", 1, Refusal::kNarrowBranch},             // data16 je
      {"66 ff d0", 1, Refusal::kNarrowBranch},             // call *%ax
      {"75 02 48 89 e5", 5, Refusal::kIntoPatch},          // jne into the mov
      {"e8 00 00 00 00 58", 6, Refusal::kRunsOff},         // call next; pop
      {"c3 55 48 89 e5", 5, Refusal::kRunsOff},            // ret, then a function
      {"ff d0 90 90 90", 5, Refusal::kRunsOff},            // the call comes back
      {"8b 05 fc ff ff ff", 5, Refusal::kReadsPatch},      // mov -4(%rip),%eax
      {"ff 54 24 f8", 1, Refusal::kStackPointer},          // call *-8(%rsp)
      {"67 ff 14 24", 1, Refusal::kStackPointer},          // call *(%esp)
      {"ff 94 24 80 ff ff 7f", 1, Refusal::kDisplacement}, // call *0x7fffff80(%rsp)
  };
  for (const RefusedForm& form : kRefused) {
    auto plan = plan_relocation(bytes(form.bytes), kSource, {.cover = form.cover});
    ASSERT_FALSE(plan) << form.bytes;
    EXPECT_STREQ(refusal_name(plan.error().why), refusal_name(form.why)) << form.bytes;
  }
}

TEST(Relocator, RefusalNamesTheInstruction) {
  auto plan = plan_relocation(bytes("90 90 ff 28 90"), kSource, {.cover = 5});
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().at, kSource + 2);
}

TEST(Relocator, ShadowStackRefusesCalls) {
  for (const char* call : {"e8 00 10 00 00", "ff d0", "ff 10", "ff 15 00 30 00 00"}) {
    auto plan = plan_relocation(bytes(call), kSource, {.shadow_stack = true});
    ASSERT_FALSE(plan) << call;
    EXPECT_EQ(plan.error().why, Refusal::kShadowStack) << call;
  }
  EXPECT_TRUE(plan_relocation(bytes("48 89 e5"), kSource, {.shadow_stack = true}));
}

TEST(Relocator, SizeLimitHoldsForAnyDestination) {
  for (const Form& form : kForms) {
    auto plan = plan_relocation(bytes(form.original), kSource);
    ASSERT_TRUE(plan);
    for (uint64_t at : {uint64_t{0}, kSource.value + 0x7fff'0000, kSource.value - 0x8000'0000,
                        kSource.value + 0x8000'0000, ~uint64_t{0} - 0x1000})
      EXPECT_LE(plan->commit(TargetAddr(at)).bytes.size(), plan->max_size()) << form.name;
  }
}

} // namespace

} // namespace dune::disasm
