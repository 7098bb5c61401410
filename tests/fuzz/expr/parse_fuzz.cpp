// What a person can type after `print`: parsed, checked, evaluated, printed and compiled. Nothing
// that is typed may crash, hang or use unbounded stack; what compiles must also evaluate.
#include "dtrace-lite/expr/compile.h"
#include "dtrace-lite/expr/format.h"

#include <cstring>

namespace ddbg::expr {
namespace {

// A little memory, a few names, all registers.
class FuzzContext : public Context {
public:
  Language language() override { return Language::kCpp; }
  std::optional<Symbol> lookup(std::string_view name) override {
    const BuiltinTypes& t = BuiltinTypes::get();
    auto data = [&](TypeRef type, uint64_t address) {
      Symbol s{Symbol::Kind::kMinimalData};
      s.name = name;
      s.type = type;
      s.address = TargetAddr(address);
      return s;
    };
    if (name == "i")
      return data(t.int_type, kBase);
    if (name == "a")
      return data(t.short_type->array(8), kBase + 8);
    if (name == "p")
      return data(t.char_type->pointer(), kBase + 32);
    if (name == "r")
      return data(t.double_type->lvalue_reference(), kBase + 40);
    if (name == "f")
      return data(t.int_type->function({t.int_type}, true), kBase + 48);
    if (name == "d")
      return data(t.no_debug_data, kBase + 56);
    if (name == "T") {
      Symbol s{Symbol::Kind::kType};
      s.type = t.unsigned_long->const_qualified();
      return s;
    }
    return std::nullopt;
  }
  Checked<std::optional<Symbol>> lookup_in_file(std::string_view, std::string_view name) override {
    return lookup(name);
  }
  TypeRef lookup_type(std::string_view name, TagKind) override {
    return name == "s" ? BuiltinTypes::get().float_type : nullptr;
  }
  bool read_memory(TargetAddr from, std::span<std::byte> to) override {
    uint64_t offset = from.value - kBase;
    if (offset > sizeof memory_ || to.size() > sizeof memory_ - offset)
      return false;
    std::memcpy(to.data(), memory_ + offset, to.size());
    return true;
  }
  bool write_memory(TargetAddr to, std::span<const std::byte> from) override {
    uint64_t offset = to.value - kBase;
    if (offset > sizeof memory_ || from.size() > sizeof memory_ - offset)
      return false;
    std::memcpy(memory_ + offset, from.data(), from.size());
    return true;
  }
  std::optional<uint64_t> read_register(int number) override { return kBase + uint64_t(number); }
  bool write_register(dune::Reg, uint64_t) override { return true; }
  std::optional<TargetAddr> cfa() override { return TargetAddr(kBase); }

private:
  static constexpr uint64_t kBase = 0x10000;
  std::byte memory_[256]{};
};

} // namespace
} // namespace ddbg::expr

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ddbg::expr;
  FuzzContext context;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  auto expression = check(text, context);
  if (!expression)
    return 0;
  (void)compile_predicate(*expression, {});
  auto value = evaluate(*expression, context);
  if (!value)
    return 0;
  FormatOptions options;
  for (char letter : {'\0', 'x', 'd', 'c', 's'}) {
    options.letter = letter;
    (void)format_value(*value, context, options);
  }
  return 0;
}
