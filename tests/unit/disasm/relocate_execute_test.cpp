// Displaced copies run against the originals: the same registers, flags, vectors, memory and stack,
// the same faults, from random states; then stopped at every boundary and continued in the
// original.
#include "disasm/decode.h"
#include "disasm/relocate.h"
#include "machine.h"
#include "objdump.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <gtest/gtest.h>
#include <set>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ADDRESS_SANITIZER 1
#endif
#endif

namespace {

struct ExecutionCase {
  const uint8_t* begin;
  const uint8_t* end;
  const char* text;
  uint64_t kind;
};
extern "C" const ExecutionCase execution_cases[], execution_cases_end[];

} // namespace

namespace dune::disasm::test {

namespace {

enum Kind : uint64_t {
  kRandom = 0,
  kPointers = 1,
  kSystemCall = 2,
  kReadsFlags = 3,
  kPointersOnce = 4
};

uint64_t seed() {
  static const uint64_t value = [] {
    const char* given = getenv("DDBG_TEST_SEED");
    uint64_t chosen = given ? strtoull(given, nullptr, 0) : std::random_device{}();
    printf("seed %#lx (repeat with DDBG_TEST_SEED)\n", chosen);
    return chosen;
  }();
  return value;
}

struct Placement {
  const char* name;
  uint64_t source;
  uint64_t copy;
};

// Return addresses that fit in 32 bits and that do not; copies near, at the edges of rel32's reach,
// beyond it, and far below it.
constexpr Placement kPlacements[] = {
    {"near, low", 0x5000'0000, 0x5400'0000},
    {"near below, high", 0x2000'8000'0000, 0x2000'1000'0000},
    {"far above, low", 0x5000'0000, 0x3000'0000'0000},
    {"far below, high", 0x2000'0000'0000, 0x6000'0000},
    {"just out of reach", 0x2000'0000'0000, 0x2000'8001'0000},
    {"just within reach", 0x2000'0000'0000, 0x2000'7fff'0000},
#ifndef ADDRESS_SANITIZER // its shadow lies there
    {"return address that does not sign-extend", 0x9000'0000, 0x9800'0000},
#endif
};

class Displaced : public testing::TestWithParam<Placement> {
protected:
  Displaced() : machine_(GetParam().source), copy_place_(GetParam().copy, 0x1000) {}

  void SetUp() override {
    ASSERT_TRUE(machine_.ok() && copy_place_.ok()) << "the address range is taken";
  }

  static constexpr uint64_t kPointerStub = 0x1c00;
  static constexpr uint32_t kPointerNumber = 99;

  // Puts the case where it runs, with a stub wherever it can go. The bytes of the source.
  std::span<const uint8_t> put(std::span<const uint8_t> code) {
    memset(machine_.code_bytes().data(), 0xcc, Machine::kDataOffset);
    machine_.put_code(code);
    TargetAddr source(machine_.code());
    machine_.put_capture(source.value + code.size(), 1);
    machine_.put_capture(source.value + kPointerStub, kPointerNumber);
    uint32_t number = 2;
    EXPECT_TRUE(for_each_instruction(code, source, [&](const Instruction& i) {
      if (i.target && *i.target - source > code.size())
        machine_.put_capture(i.target->value, number++);
      return true;
    }));
    return code;
  }

  State start(uint64_t kind, std::mt19937_64& random) {
    State s = machine_.random_state(random);
    if (kind == kPointers || kind == kPointersOnce) {
      uint64_t stub = machine_.code() + kPointerStub;
      for (Reg reg : {Reg::rax, Reg::r10, Reg::r11, Reg::r14})
        register_at(s.registers, reg) = stub;
      for (auto* memory : {&s.data, &s.stack})
        for (size_t i = 0; i + 8 <= memory->size(); i += 8)
          memcpy(&(*memory)[i], &stub, 8);
    }
    if (kind == kSystemCall)
      s.registers.rax = 39; // getpid
    return s;
  }

  Relocated place_copy(const RelocationPlan& plan) {
    Relocated copy = plan.commit(TargetAddr(copy_place_.address()));
    memset(copy_place_.data(), 0xcc, copy_place_.size());
    memcpy(copy_place_.data(), copy.bytes.data(), copy.bytes.size());
    return copy;
  }

  // A fault inside the copy, told as the original's.
  void translate_fault(const Relocated& copy, Outcome& o) {
    uint64_t offset = o.state.registers.rip - copy_place_.address();
    if (!o.signal || offset >= copy.bytes.size())
      return;
    const Boundary* boundary = copy.boundary_at(offset);
    ASSERT_NE(boundary, nullptr) << "fault at copy+" << offset;
    ASSERT_NE(boundary->state, BoundaryState::kStepOn) << "fault at copy+" << offset;
    apply_boundary(*boundary, o.state.registers, [](uint64_t address) {
      uint64_t value;
      memcpy(&value, reinterpret_cast<const void*>(address), sizeof value);
      return value;
    });
  }

  void compare(std::span<const uint8_t> code, uint64_t kind, const char* text, int rounds,
               int stepped_rounds) {
    SCOPED_TRACE(text);
    put(code);
    auto plan = plan_relocation(code, TargetAddr(machine_.code()), {.cover = code.size()});
    ASSERT_TRUE(plan) << refusal_text(plan.error().why);
    Relocated copy = place_copy(*plan);
    std::mt19937_64 random(seed());
    for (int round = 0; round < rounds; ++round) {
      State s = start(kind, random);
      machine_.put_code(code);
      Outcome expected = machine_.run(s);
      CallSlot slot =
          expected.signal && plan->contains_call() ? CallSlot::kIgnore : CallSlot::kCompare;
      // The source's bytes must not matter any more.
      memset(machine_.code_bytes().data(), 0x06, code.size()); // invalid in 64-bit mode
      State displaced = s;
      displaced.registers.rip = copy_place_.address();
      Outcome actual = machine_.run(displaced);
      translate_fault(copy, actual);
      if (HasFatalFailure())
        return;
      ASSERT_EQ(differences(expected, actual, s, slot), "") << "round " << round;
      if (round >= stepped_rounds || kind == kReadsFlags || kind == kPointersOnce)
        continue;
      // A single step that ends in a fault or trap of the original's own is not stepped again.
      for (unsigned steps = 0; steps < 64; ++steps) {
        memset(machine_.code_bytes().data(), 0x06, code.size());
        StepReport report;
        Outcome stepped =
            machine_.run_stepped(displaced, {&copy, copy_place_.address(), steps}, code, report);
        translate_fault(copy, stepped);
        if (HasFatalFailure())
          return;
        ASSERT_EQ(report.complaint, "") << "after " << steps << " steps";
        if (kind == kSystemCall) // r11 holds the flags, TF among them
          stepped.state.registers.r11 &= ~uint64_t{0x100};
        ASSERT_EQ(differences(expected, stepped, s, slot), "")
            << "left after " << steps << " steps";
        if (report.left_by_itself || stepped.signal)
          break;
      }
    }
  }

  Machine machine_;
  Place copy_place_;
};

TEST_P(Displaced, HasTheEffectOfTheOriginal) {
  for (const ExecutionCase* c = execution_cases; c != execution_cases_end; ++c) {
    compare({c->begin, c->end}, c->kind, c->text, 10, 1);
    if (HasFatalFailure())
      return;
  }
}

// Each rip-relative instruction that real programs contain, once per shape (prefixes, opcode,
// registers, immediate), with its operand moved to the data behind the code, on a cache line.
std::set<std::vector<uint8_t>> rip_relative_shapes() {
  std::set<std::vector<uint8_t>> shapes;
  for (const char* file : {"/lib/x86_64-linux-gnu/libc.so.6",
                           "/lib/x86_64-linux-gnu/libcrypto.so.3", "/usr/bin/python3"}) {
    for_each_listed(file, "", [&](const Listed& listed) {
      auto one = decode(listed.bytes(), TargetAddr(listed.address));
      if (!one || !one->rip_operand || one->flow != Flow::kSequential ||
          listed.text.find("(bad)") != std::string_view::npos)
        return;
      auto distance = static_cast<uint32_t>(*one->rip_operand - one->end());
      std::vector<uint8_t> bytes(listed.bytes().begin(), listed.bytes().end());
      auto* value = reinterpret_cast<const uint8_t*>(&distance);
      auto at = std::search(bytes.begin() + 1, bytes.end(), value, value + 4);
      auto moved = static_cast<uint32_t>(Machine::kDataOffset + 0x400 - bytes.size());
      memcpy(&*at, &moved, sizeof moved);
      shapes.insert(std::move(bytes));
    });
  }
  return shapes;
}

class DisplacedReal : public Displaced {};

TEST_P(DisplacedReal, RipRelativeShapesHaveTheirEffect) {
  static const std::set<std::vector<uint8_t>> shapes = rip_relative_shapes();
  EXPECT_GT(shapes.size(), 500u);
  for (const std::vector<uint8_t>& bytes : shapes) {
    auto plan = plan_relocation(bytes, TargetAddr(machine_.code()));
    if (!plan) { // libcrypto's tables read as code
      EXPECT_EQ(plan.error().why, Refusal::kEipRelative);
      continue;
    }
    std::string text;
    for (uint8_t byte : bytes)
      text += "0123456789abcdef"[byte >> 4], text += "0123456789abcdef"[byte & 15];
    compare(bytes, kRandom, text.c_str(), 2, 0);
    if (HasFatalFailure())
      return;
  }
  printf("%zu shapes\n", shapes.size());
}

INSTANTIATE_TEST_SUITE_P(Places, DisplacedReal,
                         testing::Values(kPlacements[0], kPlacements[2], kPlacements[3]),
                         [](const auto& info) { return "place" + std::to_string(info.index); });

INSTANTIATE_TEST_SUITE_P(Places, Displaced, testing::ValuesIn(kPlacements),
                         [](const auto& info) { return "place" + std::to_string(info.index); });

} // namespace

} // namespace dune::disasm::test
