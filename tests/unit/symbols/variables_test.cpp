// Types, scopes and locations of optimized code, as DWARF 4 and 5 of gcc and clang say them.
#include "dtrace-lite/symbols/variables.h"

#include "dtrace-lite/symbols/module.h"
#include "tests/unit/symbols/sample.h"

#include <gtest/gtest.h>

namespace ddbg::symbols {
namespace {

constexpr const char* kSource = R"(
struct incomplete;
extern struct incomplete* handle;
enum mode { OFF, ON = 4 };
typedef unsigned int u32;
struct node { struct node* next; const volatile int tag; u32 flags : 3; int (*call)(const char*, ...); };
struct node nodes[2][3];
static int hidden = 3;
const char* const names[] = {"a", "b"};
__thread int per_thread = 4;
static inline __attribute__((always_inline)) int twice(int inlined) {
  int doubled = inlined * 2;
  __asm__ volatile("nop # %0" ::"r"(doubled));
  return doubled;
}
__attribute__((noinline)) int work(int first, const struct node* list, int unused) {
  int constant = 7;
  int result = first;
  __asm__ volatile(".globl mark_body\nmark_body: nop" ::: "memory");
  {
    int inner = result + 1;
    enum mode local_mode = ON;
    __asm__ volatile(".globl mark_block\nmark_block: nop # %0 %1" ::"r"(inner), "r"(local_mode));
    result += inner;
  }
  return twice(result) + constant + hidden;
}
int main(int argc, char** argv) { return work(argc, nodes[0], 3) + per_thread; }
)";

struct Sample {
  std::unique_ptr<Module> module;
  std::unique_ptr<VariableTable> table;
  LinkAddr at(const char* label) {
    auto found = module->symbols().find(label);
    return found.empty() ? LinkAddr(0) : found[0].address;
  }
};

Sample build(const std::string& command) {
  Sample sample;
  std::string path = test::compiled(command, kSource, ".c");
  if (path.empty())
    return sample;
  auto module = Module::open(path);
  if (!module)
    return sample;
  sample.module = std::move(*module);
  sample.table = VariableTable::open(*sample.module);
  return sample;
}

class VariablesOf : public ::testing::TestWithParam<const char*> {
protected:
  void SetUp() override {
    sample_ = build(GetParam());
    ASSERT_TRUE(sample_.table) << GetParam();
    body_ = sample_.at("mark_body");
    ASSERT_NE(body_, LinkAddr(0));
  }
  std::string type_name(const char* variable) {
    auto meaning = sample_.table->find(variable, body_);
    return meaning && meaning->type ? meaning->type->name() : "none";
  }
  Sample sample_;
  LinkAddr body_;
};

TEST_P(VariablesOf, TypesHaveGdbsNames) {
  EXPECT_EQ(type_name("nodes"), "struct node [2][3]");
  EXPECT_EQ(type_name("names"), "const char * const [2]");
  EXPECT_EQ(type_name("list"), "const struct node *");
  EXPECT_EQ(type_name("main"), "int (int, char **)");
  TypeRef node = sample_.table->find_type("node", TagKind::kStruct, body_);
  ASSERT_TRUE(node);
  EXPECT_EQ(node->name(), "struct node");
  ASSERT_EQ(node->members().size(), 4u);
  EXPECT_EQ(node->members()[0].type->name(), "struct node *");
  EXPECT_EQ(node->members()[1].type->name(), "const volatile int");
  EXPECT_EQ(node->members()[2].type->name(), "u32");
  EXPECT_EQ(node->members()[2].bit_size, 3u);
  EXPECT_EQ(node->members()[2].bit_offset, 96u);
  EXPECT_EQ(node->members()[3].type->name(), "int (*)(const char *, ...)");
  EXPECT_EQ(node->size(), 24u);
  EXPECT_EQ(sample_.table->find_type("node", TagKind::kUnion, body_), nullptr);
  EXPECT_EQ(sample_.table->find_type("node", TagKind::kNone, body_), nullptr); // C has tags
}

TEST_P(VariablesOf, FramesShowArgumentsBlocksAndInlinedCalls) {
  const auto& frames = sample_.table->frames_at(body_);
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].name, "work");
  ASSERT_EQ(frames[0].arguments.size(), 3u);
  EXPECT_EQ(frames[0].arguments[0].name, "first");
  EXPECT_EQ(frames[0].arguments[2].name, "unused");
  EXPECT_FALSE(sample_.table->find("inner", body_)); // its block does not cover this pc
  LinkAddr block = sample_.at("mark_block");
  ASSERT_EQ(sample_.table->frames_at(block).size(), 1u);
  EXPECT_EQ(sample_.table->frames_at(block)[0].blocks.size(), 2u);
  EXPECT_TRUE(sample_.table->find("inner", block));
  EXPECT_TRUE(sample_.table->find("result", block));
}

TEST_P(VariablesOf, EnumeratorsAndStaticsAreFound) {
  auto on = sample_.table->find("ON", body_);
  ASSERT_TRUE(on);
  EXPECT_EQ(on->kind, Meaning::Kind::kEnumerator);
  EXPECT_EQ(on->value, 4);
  auto hidden = sample_.table->find_in_file(".c", "hidden");
  EXPECT_FALSE(hidden); // not a whole component of the path
  EXPECT_TRUE(sample_.table->find_global("hidden"));
  EXPECT_FALSE(sample_.table->find("no_such_name", body_));
  EXPECT_EQ(sample_.table->nearest_name("resutl", body_), "result");
}

TEST_P(VariablesOf, ConstantsAndThreadLocalsArePlanned) {
  auto constant = sample_.table->find("constant", body_);
  ASSERT_TRUE(constant);
  auto plan = sample_.table->plan(constant->variable, body_);
  ASSERT_TRUE(plan) << plan.error().message;
  ASSERT_EQ(plan->pieces.size(), 1u);
  auto tls = sample_.table->find("per_thread", body_);
  ASSERT_TRUE(tls);
  auto tls_plan = sample_.table->plan(tls->variable, body_);
  ASSERT_TRUE(tls_plan) << tls_plan.error().message;
  ASSERT_GE(tls_plan->memory_node(), 0);
  EXPECT_EQ(tls_plan->nodes[static_cast<size_t>(tls_plan->memory_node())].op,
            LocationOp::kTlsAddress);
}

INSTANTIATE_TEST_SUITE_P(Compilers, VariablesOf,
                         ::testing::Values("gcc -O2 -gdwarf-5", "gcc -O2 -gdwarf-4",
                                           "gcc -O0 -gdwarf-5", "clang -O0 -gdwarf-5"));

TEST(Variables, OfALibraryAreFoundByReadingOnlySomeUnits) {
  auto module = Module::open("/lib/x86_64-linux-gnu/libc.so.6");
  ASSERT_TRUE(module);
  auto table = VariableTable::open(**module);
  if (!table)
    GTEST_SKIP() << "libc6-dbg is not installed";
  auto found = table->find_global("abort");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->kind, Meaning::Kind::kFunction);
  size_t after_one = table->units_scanned();
  auto again = table->find_global("abort");
  EXPECT_EQ(table->units_scanned(), after_one);
  TypeRef file = table->find_type("_IO_FILE", TagKind::kStruct, std::nullopt);
  ASSERT_TRUE(file);
  EXPECT_EQ(file->size(), 216u);
  EXPECT_LT(table->types().types_read(), 200u);
}

TEST(Locations, ApplyFollowsDwarfAtTheEdges) {
  EXPECT_EQ(apply(LocationOp::kDivide, uint64_t(1) << 63, ~uint64_t{0}), uint64_t(1) << 63);
  EXPECT_EQ(apply(LocationOp::kDivide, 5, 0), std::nullopt);
  EXPECT_EQ(apply(LocationOp::kModulo, 5, 0), std::nullopt);
  EXPECT_EQ(apply(LocationOp::kShiftLeft, 1, 64), 0u);
  EXPECT_EQ(apply(LocationOp::kShiftRightArithmetic, ~uint64_t{0}, 100), ~uint64_t{0});
  EXPECT_EQ(convert(0x80, 1, true), 0xffffffffffffff80u);
  EXPECT_EQ(convert(0x180, 1, false), 0x80u);
}

TEST(Locations, ThreadLocalBlockOfTheProgramLiesBelowTheThreadPointer) {
  auto no_memory = [](TargetAddr, std::span<std::byte>) { return false; };
  auto block = tls_block(no_memory, 0x7000, 1, ProgramTls{20, 16});
  ASSERT_TRUE(block);
  EXPECT_EQ(block->value, 0x7000u - 32);
  EXPECT_FALSE(tls_block(no_memory, 0x7000, 2, ProgramTls{20, 16}));
  EXPECT_FALSE(tls_block(no_memory, 0, 1, ProgramTls{20, 16}));
}

} // namespace
} // namespace ddbg::symbols
