// Compiled expressions against evaluated ones: on random expressions, and on a program's state.
#include "dtrace-lite/expr/compile.h"
#include "dtrace-lite/expr/evaluate.h"
#include "libdune/base/file.h"
#include "tests/unit/expr/core_context.h"

#include <csetjmp>
#include <csignal>
#include <cstring>
#include <gtest/gtest.h>
#include <random>

namespace ddbg::expr {
namespace {

// Memory of this process and registers of its own; no names but `cell` and `words`.
class OwnContext : public Context {
public:
  std::optional<Symbol> lookup(std::string_view) override { return std::nullopt; }
  Checked<std::optional<Symbol>> lookup_in_file(std::string_view, std::string_view) override {
    return std::optional<Symbol>();
  }
  TypeRef lookup_type(std::string_view, TagKind) override { return nullptr; }
  bool read_memory(TargetAddr from, std::span<std::byte> to) override {
    if (from.value < 4096)
      return false;
    std::memcpy(to.data(), reinterpret_cast<const void*>(from.value), to.size());
    return true;
  }
  std::optional<uint64_t> read_register(int number) override {
    auto reg = register_by_dwarf(number);
    return reg ? std::optional(dune::register_at(registers, *reg)) : std::nullopt;
  }
  std::optional<TargetAddr> cfa() override { return std::nullopt; }
  dune::Registers registers{};
};

class ExecutableArena {
public:
  static constexpr size_t kSize = 1 << 16;
  ExecutableArena()
      : base_(mmap(nullptr, kSize, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
                   -1, 0)) {}
  ~ExecutableArena() { munmap(base_, kSize); }
  TargetAddr address() const { return TargetAddr(reinterpret_cast<uint64_t>(base_)); }
  using Function = uint64_t (*)(const dune::Registers*);
  Function place(const std::vector<uint8_t>& code) {
    if (code.size() > kSize)
      std::abort();
    std::memcpy(base_, code.data(), code.size());
    return reinterpret_cast<Function>(base_);
  }

private:
  void* base_;
};

thread_local sigjmp_buf recover;
thread_local volatile sig_atomic_t caught;

void on_fault(int signal) {
  caught = signal;
  siglongjmp(recover, 1);
}

// nullopt: it faulted, with the signal in `caught`.
std::optional<uint64_t> run(ExecutableArena::Function f, const dune::Registers& registers) {
  struct sigaction action {};
  action.sa_handler = on_fault;
  struct sigaction old_fpe, old_segv;
  sigaction(SIGFPE, &action, &old_fpe);
  sigaction(SIGSEGV, &action, &old_segv);
  caught = 0;
  std::optional<uint64_t> result;
  if (sigsetjmp(recover, 1) == 0)
    result = f(&registers);
  sigaction(SIGFPE, &old_fpe, nullptr);
  sigaction(SIGSEGV, &old_segv, nullptr);
  return result;
}

class RandomExpression {
public:
  RandomExpression(std::mt19937_64& random, uint64_t memory) : random_(random), memory_(memory) {}

  std::string make(int depth) {
    if (depth == 0 || pick(8) == 0)
      return leaf();
    static constexpr const char* kBinary[] = {"+",  "-", "*",  "&", "|",  "^", "<<", ">>", "==",
                                              "!=", "<", "<=", ">", ">=", "/", "%",  "&&", "||"};
    static constexpr const char* kTypes[] = {"char",           "unsigned char", "short",
                                             "unsigned short", "int",           "unsigned int",
                                             "long",           "unsigned long", "_Bool"};
    switch (pick(8)) {
    case 0:
      return std::string(pick(2) ? "-" : "~") + "(" + make(depth - 1) + ")";
    case 1:
      return "!(" + make(depth - 1) + ")";
    case 2:
      return std::string("(") + kTypes[pick(std::size(kTypes))] + ")(" + make(depth - 1) + ")";
    case 3:
      return "(" + make(depth - 1) + " ? " + make(depth - 1) + " : " + make(depth - 1) + ")";
    case 4: { // memory: an aligned or unaligned word of the arena
      std::string type = kTypes[pick(std::size(kTypes) - 1)];
      return "*(" + type + " *)(" + std::to_string(memory_) + " + ((" + make(depth - 1) +
             ") & 0x3f))";
    }
    case 5:
      return "((" + std::string(kTypes[pick(8)]) + " *)" + std::to_string(memory_) + ")[(" +
             make(depth - 1) + ") & 7]";
    default:
      return "(" + make(depth - 1) + " " + kBinary[pick(std::size(kBinary))] + " " +
             make(depth - 1) + ")";
    }
  }

private:
  size_t pick(size_t n) { return static_cast<size_t>(random_() % n); }
  std::string leaf() {
    static constexpr const char* kRegisters[] = {"$rax", "$rbx", "$ecx", "$dx",  "$sil", "$ah",
                                                 "$r8",  "$r15", "$r9d", "$rip", "$sp"};
    static constexpr const char* kInteresting[] = {
        "0",   "1",  "-1", "2147483647", "0x80000000", "4294967295",         "0xffffffffu",
        "31",  "63", "64", "'a'",        "255",        "0x7fffffffffffffff", "0x8000000000000000",
        "-128"};
    switch (pick(4)) {
    case 0:
      return std::string("(long)") + kRegisters[pick(std::size(kRegisters))];
    case 1:
      return std::string("(") + kInteresting[pick(std::size(kInteresting))] + ")";
    case 2:
      return std::to_string(random_() % 100);
    default:
      return std::to_string(random_()) + "ul";
    }
  }
  std::mt19937_64& random_;
  uint64_t memory_;
};

TEST(Compiler, AgreesWithEvaluatorOnRandomExpressions) {
  uint64_t seed = std::random_device{}();
  if (const char* given = getenv("DDBG_TEST_SEED"))
    seed = std::strtoull(given, nullptr, 0);
  RecordProperty("seed", std::to_string(seed));
  std::cout << "DDBG_TEST_SEED=" << seed << "\n";
  std::mt19937_64 random(seed);
  std::vector<uint64_t> memory(32);
  OwnContext context;
  ExecutableArena arena;
  RandomExpression expressions(random, reinterpret_cast<uint64_t>(memory.data()));
  int divisions = 0, compiled = 0;
  for (int i = 0; i < 20000; i++) {
    for (uint64_t& word : memory)
      word = random() >> (random() % 64);
    for (size_t r = 0; r < dune::kRegisterCount; r++)
      dune::register_at(context.registers, static_cast<dune::Reg>(r)) = random() >> (random() % 64);
    std::string text = expressions.make(static_cast<int>(random() % 7));
    auto expression = check(text, context);
    ASSERT_TRUE(expression) << text << ": " << expression.error().message;
    auto code = compile_value(*expression, {arena.address(), {}});
    if (!code) {
      ASSERT_EQ(code.error().message, "it is too long") << text;
      continue;
    }
    compiled++;
    auto result = run(arena.place(*code), context.registers);
    auto expected = evaluate(*expression, context);
    if (expected)
      expected = fetch(std::move(*expected), context);
    if (!expected) {
      divisions++;
      ASSERT_EQ(expected.error().message, "Division by zero") << text;
      ASSERT_FALSE(result) << text;
      ASSERT_EQ(caught, SIGFPE) << text;
      continue;
    }
    ASSERT_TRUE(result) << text << ": signal " << caught;
    ASSERT_EQ(*result, static_cast<uint64_t>(number_of(*expected))) << text;
    auto predicate = compile_predicate(*expression, {arena.address(), {}});
    ASSERT_TRUE(predicate) << text;
    ASSERT_EQ(run(arena.place(*predicate), context.registers), number_of(*expected) != 0) << text;
  }
  EXPECT_GT(divisions, 10);
  EXPECT_GT(compiled, 19000);
}

TEST(Compiler, LeastNumberByMinusOneWrapsAsInEvaluator) {
  OwnContext context;
  ExecutableArena arena;
  for (const char* text : {"(long)0x8000000000000000 / -1", "(long)0x8000000000000000 % -1",
                           "(int)0x80000000 / -1", "(int)0x80000000 % -1"}) {
    auto expression = check(text, context);
    ASSERT_TRUE(expression);
    auto code = compile_value(*expression, {arena.address(), {}});
    ASSERT_TRUE(code);
    auto value = evaluate(*expression, context);
    ASSERT_TRUE(value);
    EXPECT_EQ(run(arena.place(*code), context.registers), static_cast<uint64_t>(number_of(*value)))
        << text;
  }
}

TEST(Compiler, UnreadableMemoryFaultsWhereEvaluatorReports) {
  OwnContext context;
  ExecutableArena arena;
  auto expression = check("*(int *)8 == 1", context);
  ASSERT_TRUE(expression);
  auto code = compile_predicate(*expression, {arena.address(), {}});
  ASSERT_TRUE(code);
  EXPECT_FALSE(run(arena.place(*code), context.registers));
  EXPECT_EQ(caught, SIGSEGV);
  auto value = evaluate(*expression, context);
  ASSERT_FALSE(value);
  EXPECT_EQ(value.error().message, "Cannot access memory at address 0x8");
}

TEST(Compiler, SaysWhyNot) {
  OwnContext context;
  context.set_convenience("counter", Value::integer(BuiltinTypes::get().int_type, 1));
  auto reason = [&](const char* text) {
    auto expression = check(text, context);
    if (!expression)
      return expression.error().message;
    auto code = compile_predicate(*expression, {});
    return code ? std::string("compiled") : code.error().message;
  };
  EXPECT_EQ(reason("1.5 > 1"), "it uses floating point numbers");
  EXPECT_EQ(reason("$counter > 1"), "it uses the convenience variable $counter");
  EXPECT_EQ(reason("$counter++ > 1"), "it assigns");
  EXPECT_EQ(reason("$rax == 1"), "compiled");
  EXPECT_EQ(reason("*(int *)$rsp@2 == 1"), "it uses an array made by @");
}

// Found by the fuzzer: each ++ doubled what was checked.
TEST(Checker, NestedIncrementsAreRefusedQuickly) {
  OwnContext context;
  context.set_convenience("v", Value::integer(BuiltinTypes::get().int_type, 1));
  std::string text = "$v";
  for (int i = 0; i < 60; i++)
    text += "++";
  auto expression = check(text, context);
  ASSERT_FALSE(expression);
  EXPECT_EQ(expression.error().message, "The expression is too complex.");
}

// The frame's own variables, through the DWARF locations of a real program. Its memory is only in
// the core, so what is compiled reads the core's bytes mapped where they were.
TEST(Compiler, AgreesWithEvaluatorOnAProgramsVariables) {
  std::string core = ::testing::TempDir() + "compile_" + std::to_string(getpid()) + ".core";
  std::vector<std::string> ignored;
  ASSERT_TRUE(CoreContext::run_gdb(STATE_C_DWARF5, core, {"p 1"}, ignored));
  auto context = CoreContext::open(STATE_C_DWARF5, core);
  unlink(core.c_str());
  ASSERT_TRUE(context);
  ExecutableArena arena;
  int ran = 0;
  for (const char* text : {"global_int",
                           "static_int < 0",
                           "global_uint > 1000",
                           "global_uchar",
                           "global_schar",
                           "array[3]",
                           "array[static_int + 9]",
                           "points[1].y",
                           "*int_pointer",
                           "**double_pointer",
                           "(*array_pointer)[4]",
                           "text[1] == 'e'",
                           "bits.a",
                           "bits.b",
                           "bits.c",
                           "bits.d",
                           "bits.e",
                           "outer.parts.hi",
                           "outer.where->x",
                           "outer.where == &origin",
                           "colour == GREEN",
                           "first.next->next->value",
                           "head->next->value == 2",
                           "head->name[0] == 'f'",
                           "head == &first",
                           "count * 10 + local",
                           "label[2]",
                           "by_value.y",
                           "letter",
                           "calls",
                           "small > 249",
                           "sum",
                           "inner.p",
                           "inner.q == shadowed",
                           "&head->value",
                           "global_bool",
                           "global_ushort",
                           "const_int",
                           "operation == &add",
                           "matrix[1][2]",
                           "&points[2] - points",
                           "int_pointer > &array[0] && *int_pointer == 3",
                           "words[1][0]",
                           "number.bytes[2]"}) {
    auto expression = check(text, *context);
    ASSERT_TRUE(expression) << text << ": " << expression.error().message;
    auto code = compile_value(*expression, {arena.address(), CoreContext::kCfa});
    ASSERT_TRUE(code) << text << ": " << code.error().message;
    auto value = evaluate(*expression, *context);
    ASSERT_TRUE(value) << text;
    value = fetch(std::move(*value), *context);
    ASSERT_TRUE(value) << text;
    auto result = context->run_with_memory_mapped(*code, arena.address());
    ASSERT_TRUE(result) << text << ": it faulted";
    EXPECT_EQ(*result, static_cast<uint64_t>(number_of(*value))) << text;
    ran++;
  }
  EXPECT_EQ(ran, 44);
}

} // namespace
} // namespace ddbg::expr
