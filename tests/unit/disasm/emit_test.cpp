// Emitted code, executed.
#include "disasm/decode.h"
#include "disasm/emit.h"
#include "machine.h"

#include <cstring>
#include <functional>
#include <gtest/gtest.h>

namespace dune::disasm::test {

namespace {

class Emitted : public testing::Test {
protected:
  Emitted() : place_(0x4100'0000, 0x1000) {}
  void SetUp() override { ASSERT_TRUE(place_.ok()); }

  // Emits `body` as a function of two numbers (rdi, rsi) that leaves its result in rax, and calls
  // it.
  uint64_t call(const std::function<void(Emitter&)>& body, uint64_t first = 0,
                uint64_t second = 0) {
    Emitter e{TargetAddr(place_.address())};
    e.prologue(0);
    body(e);
    e.epilogue();
    auto bytes = e.finish();
    if (!bytes) {
      ADD_FAILURE() << bytes.error().text;
      return 0;
    }
    memcpy(place_.data(), bytes->data(), bytes->size());
    return reinterpret_cast<uint64_t (*)(uint64_t, uint64_t)>(place_.address())(first, second);
  }

  uint64_t binary(Binary op, uint64_t a, uint64_t b) {
    return call(
        [&](Emitter& e) {
          e.move(Reg::rax, Reg::rdi);
          e.move(Reg::rcx, Reg::rsi);
          e.binary(op, Reg::rax, Reg::rcx);
        },
        a, b);
  }

  uint64_t compare(Compare op, uint64_t a, uint64_t b) {
    return call(
        [&](Emitter& e) {
          e.move(Reg::rax, Reg::rdi);
          e.compare(op, Reg::rax, Reg::rsi);
        },
        a, b);
  }

  Place place_;
};

constexpr uint64_t kMinusOne = ~uint64_t{0};
constexpr uint64_t kSamples[] = {0,  1,          2,          7,         63,
                                 64, 0x7fffffff, 0x80000000, kMinusOne, uint64_t{1} << 63};

TEST_F(Emitted, BinaryOperationsAgreeWithTheCompiler) {
  for (uint64_t a : kSamples) {
    for (uint64_t b : kSamples) {
      SCOPED_TRACE(testing::Message() << std::hex << a << " op " << b);
      auto sa = static_cast<int64_t>(a), sb = static_cast<int64_t>(b);
      EXPECT_EQ(binary(Binary::kAdd, a, b), a + b);
      EXPECT_EQ(binary(Binary::kSub, a, b), a - b);
      EXPECT_EQ(binary(Binary::kMul, a, b), a * b);
      EXPECT_EQ(binary(Binary::kAnd, a, b), a & b);
      EXPECT_EQ(binary(Binary::kOr, a, b), a | b);
      EXPECT_EQ(binary(Binary::kXor, a, b), a ^ b);
      EXPECT_EQ(binary(Binary::kShiftLeft, a, b), a << (b & 63));
      EXPECT_EQ(binary(Binary::kShiftRight, a, b), a >> (b & 63));
      EXPECT_EQ(binary(Binary::kShiftRightSigned, a, b), static_cast<uint64_t>(sa >> (b & 63)));
      if (b == 0)
        continue;
      EXPECT_EQ(binary(Binary::kDivUnsigned, a, b), a / b);
      EXPECT_EQ(binary(Binary::kModUnsigned, a, b), a % b);
      if (sb == -1 && sa == INT64_MIN)
        continue;
      EXPECT_EQ(binary(Binary::kDivSigned, a, b), static_cast<uint64_t>(sa / sb));
      EXPECT_EQ(binary(Binary::kModSigned, a, b), static_cast<uint64_t>(sa % sb));
    }
  }
}

TEST_F(Emitted, ComparisonsAgreeWithTheCompiler) {
  for (uint64_t a : kSamples) {
    for (uint64_t b : kSamples) {
      SCOPED_TRACE(testing::Message() << std::hex << a << " against " << b);
      auto sa = static_cast<int64_t>(a), sb = static_cast<int64_t>(b);
      EXPECT_EQ(compare(Compare::kEqual, a, b), a == b);
      EXPECT_EQ(compare(Compare::kNotEqual, a, b), a != b);
      EXPECT_EQ(compare(Compare::kLess, a, b), sa < sb);
      EXPECT_EQ(compare(Compare::kLessEqual, a, b), sa <= sb);
      EXPECT_EQ(compare(Compare::kGreater, a, b), sa > sb);
      EXPECT_EQ(compare(Compare::kGreaterEqual, a, b), sa >= sb);
      EXPECT_EQ(compare(Compare::kBelow, a, b), a < b);
      EXPECT_EQ(compare(Compare::kBelowEqual, a, b), a <= b);
      EXPECT_EQ(compare(Compare::kAbove, a, b), a > b);
      EXPECT_EQ(compare(Compare::kAboveEqual, a, b), a >= b);
    }
  }
}

TEST_F(Emitted, EveryRegisterIsTheOneNamed) {
  for (int i = 0; i < 16; ++i) {
    auto reg = static_cast<Reg>(i);
    if (reg == Reg::rsp || reg == Reg::rbp)
      continue;
    Emitter e{TargetAddr(0)};
    e.load_immediate(reg, 0x1122334455667788);
    e.push(reg);
    auto bytes = e.finish();
    ASSERT_TRUE(bytes);
    // movabs $imm,%reg and push %reg by hardware number.
    static constexpr uint8_t kNumber[] = {0, 2, 1, 3, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15};
    EXPECT_EQ((*bytes)[0], 0x48 | kNumber[i] >> 3) << kRegisters[i].name;
    EXPECT_EQ((*bytes)[1], 0xb8 | (kNumber[i] & 7)) << kRegisters[i].name;
    EXPECT_EQ(bytes->back(), 0x50 | (kNumber[i] & 7)) << kRegisters[i].name;
  }
}

TEST_F(Emitted, LoadsExtend) {
  const uint64_t word = 0x8182838485868788;
  auto address = reinterpret_cast<uint64_t>(&word);
  auto load = [&](Width width, Extend extend) {
    return call([&](Emitter& e) { e.load(Reg::rax, Reg::rdi, 8, width, extend); }, address - 8);
  };
  EXPECT_EQ(load(Width::k64, Extend::kZero), word);
  EXPECT_EQ(load(Width::k32, Extend::kZero), 0x85868788u);
  EXPECT_EQ(load(Width::k32, Extend::kSign), 0xffffffff85868788u);
  EXPECT_EQ(load(Width::k16, Extend::kZero), 0x8788u);
  EXPECT_EQ(load(Width::k16, Extend::kSign), 0xffffffffffff8788u);
  EXPECT_EQ(load(Width::k8, Extend::kZero), 0x88u);
  EXPECT_EQ(load(Width::k8, Extend::kSign), 0xffffffffffffff88u);
}

TEST_F(Emitted, StoresTouchTheirWidthOnly) {
  for (Width width : {Width::k8, Width::k16, Width::k32, Width::k64}) {
    uint64_t word = 0;
    call([&](Emitter& e) { e.store(Reg::rdi, 0, Reg::rsi, width); },
         reinterpret_cast<uint64_t>(&word), kMinusOne);
    EXPECT_EQ(word, kMinusOne >> (64 - 8 * static_cast<int>(width)));
  }
}

TEST_F(Emitted, ExtendNarrows) {
  auto extend = [&](Width width, Extend how) {
    return call(
        [&](Emitter& e) {
          e.move(Reg::rax, Reg::rdi);
          e.extend(Reg::rax, width, how);
        },
        0x8182838485868788);
  };
  EXPECT_EQ(extend(Width::k8, Extend::kSign), 0xffffffffffffff88u);
  EXPECT_EQ(extend(Width::k16, Extend::kZero), 0x8788u);
  EXPECT_EQ(extend(Width::k32, Extend::kSign), 0xffffffff85868788u);
  EXPECT_EQ(extend(Width::k32, Extend::kZero), 0x85868788u);
  EXPECT_EQ(extend(Width::k64, Extend::kZero), 0x8182838485868788u);
}

TEST_F(Emitted, UnaryOperations) {
  auto unary = [&](Unary op, uint64_t a) {
    return call(
        [&](Emitter& e) {
          e.move(Reg::rax, Reg::rdi);
          e.unary(op, Reg::rax);
        },
        a);
  };
  EXPECT_EQ(unary(Unary::kNegate, 5), static_cast<uint64_t>(-5));
  EXPECT_EQ(unary(Unary::kNot, 5), ~uint64_t{5});
}

TEST_F(Emitted, LabelsMakeALoop) {
  auto sum_below = [&](uint64_t n) {
    return call(
        [](Emitter& e) {
          e.load_immediate(Reg::rax, 0);
          e.load_immediate(Reg::rcx, 1);
          Label top = e.label(), out = e.label();
          e.bind(top);
          e.jump_if_zero(Reg::rdi, out);
          e.binary(Binary::kSub, Reg::rdi, Reg::rcx);
          e.binary(Binary::kAdd, Reg::rax, Reg::rdi);
          e.jump(top);
          e.bind(out);
        },
        n);
  };
  EXPECT_EQ(sum_below(0), 0u);
  EXPECT_EQ(sum_below(10), 45u);
}

TEST_F(Emitted, ConditionalJumpTakesTheRightWay) {
  auto larger = [&](uint64_t a, uint64_t b) {
    return call(
        [](Emitter& e) {
          Label out = e.label();
          e.move(Reg::rax, Reg::rdi);
          e.jump_if(Compare::kGreater, Reg::rdi, Reg::rsi, out);
          e.move(Reg::rax, Reg::rsi);
          e.bind(out);
        },
        a, b);
  };
  EXPECT_EQ(larger(3, 4), 4u);
  EXPECT_EQ(larger(4, 3), 4u);
  EXPECT_EQ(larger(kMinusOne, 3), 3u);
}

TEST_F(Emitted, FrameSlotsAndTemporaries) {
  uint64_t result = call(
      [](Emitter& e) {
        e.load_address(Reg::rsp, Reg::rsp, -32);
        e.store(Reg::rbp, -8, Reg::rdi, Width::k64);
        e.push(Reg::rsi);
        e.load_immediate(Reg::rsi, 0);
        e.load_immediate(Reg::rdi, 0);
        e.pop(Reg::rsi);
        e.load(Reg::rax, Reg::rbp, -8, Width::k64, Extend::kZero);
        e.binary(Binary::kSub, Reg::rax, Reg::rsi);
      },
      50, 8);
  EXPECT_EQ(result, 42u);
}

uint64_t twice(uint64_t n) { return 2 * n; }

TEST_F(Emitted, CallsReachFarFunctions) {
  auto target = TargetAddr(reinterpret_cast<uint64_t>(&twice));
  ASSERT_GT(target - TargetAddr(place_.address()), uint64_t{1} << 32);
  EXPECT_EQ(call([&](Emitter& e) { e.call(target); }, 21), 42u);
}

TEST_F(Emitted, JumpsAndCallsChooseTheShortForm) {
  Emitter near{TargetAddr(0x10000)};
  near.jump(TargetAddr(0x20000));
  EXPECT_EQ(*near.finish(), (std::vector<uint8_t>{0xe9, 0xfb, 0xff, 0x00, 0x00}));
  Emitter far{TargetAddr(0x10000)};
  far.jump(TargetAddr(0x1122334455667788));
  EXPECT_EQ(*far.finish(), (std::vector<uint8_t>{0xff, 0x25, 0, 0, 0, 0, 0x88, 0x77, 0x66, 0x55,
                                                 0x44, 0x33, 0x22, 0x11}));
}

TEST_F(Emitted, AtomicAddCounts) {
  uint64_t counter = 40;
  call([](Emitter& e) { e.atomic_add(Reg::rdi, 0, Reg::rsi); },
       reinterpret_cast<uint64_t>(&counter), 2);
  EXPECT_EQ(counter, 42u);
}

TEST_F(Emitted, MovesLoadsAndStoresLeaveTheFlags) {
  uint64_t word = 0;
  uint64_t flags = call(
      [](Emitter& e) {
        e.load_immediate(Reg::rax, 0x8d7);
        e.push(Reg::rax);
        e.pop_flags();
        e.load_immediate(Reg::rax, 0);
        e.load(Reg::rcx, Reg::rdi, 0, Width::k8, Extend::kSign);
        e.store(Reg::rdi, 0, Reg::rcx, Width::k32);
        e.load_address(Reg::rdx, Reg::rdi, 8);
        e.move(Reg::rsi, Reg::rdx);
        e.push_flags();
        e.pop(Reg::rax);
      },
      reinterpret_cast<uint64_t>(&word));
  EXPECT_EQ(flags & 0x8d5, 0x8d5u);
}

TEST_F(Emitted, ReadsARegisterFromTheState) {
  // A condition as the agent runs it: rdi points at a Registers.
  Registers registers{};
  registers.rsi = 7;
  auto condition = [](Emitter& e) {
    e.load(Reg::rax, Reg::rdi, kRegisters[static_cast<size_t>(Reg::rsi)].offset, Width::k64,
           Extend::kZero);
    e.load_immediate(Reg::rcx, 7);
    e.compare(Compare::kEqual, Reg::rax, Reg::rcx);
  };
  EXPECT_EQ(call(condition, reinterpret_cast<uint64_t>(&registers)), 1u);
  registers.rsi = 8;
  EXPECT_EQ(call(condition, reinterpret_cast<uint64_t>(&registers)), 0u);
}

TEST_F(Emitted, AnUnboundLabelIsAnError) {
  Emitter e{TargetAddr(0x1000)};
  e.jump(e.label());
  auto bytes = e.finish();
  ASSERT_FALSE(bytes);
  EXPECT_EQ(bytes.error().code, Errc::kInvalid);
}

TEST_F(Emitted, WrongOperandsAreErrors) {
  Emitter division{TargetAddr(0x1000)};
  division.binary(Binary::kDivSigned, Reg::rbx, Reg::rcx);
  EXPECT_FALSE(division.finish());
  Emitter shift{TargetAddr(0x1000)};
  shift.binary(Binary::kShiftLeft, Reg::rax, Reg::rdx);
  EXPECT_FALSE(shift.finish());
  Emitter segment{TargetAddr(0x1000)};
  segment.move(Reg::rax, Reg::fs_base);
  EXPECT_FALSE(segment.finish());
}

} // namespace

} // namespace dune::disasm::test
