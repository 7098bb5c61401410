// `print` of what a damaged file says there is: expressions over its variables and types, checked,
// evaluated, compiled and printed. The input is an ELF file, see ../symbols/elf_mutator.cpp.
#include "dtrace-lite/expr/compile.h"
#include "dtrace-lite/expr/format.h"
#include "dtrace-lite/expr/frame_context.h"

namespace ddbg::expr {
namespace {

constexpr size_t kMostNames = 24;

// A frame whose memory is everywhere and whose registers are all known.
class FuzzFrame : public FrameContext {
public:
  using FrameContext::FrameContext;
  bool read_memory(TargetAddr from, std::span<std::byte> to) override {
    for (size_t i = 0; i < to.size(); i++)
      to[i] = std::byte((from.value + i) * 37 >> 3);
    return from.value % 5 != 0;
  }
  bool write_memory(TargetAddr, std::span<const std::byte>) override { return true; }
  std::optional<uint64_t> read_register(int number) override {
    return 0x7fff'0001 + static_cast<uint64_t>(number) * 8;
  }
  bool read_wide_register(int number, std::span<std::byte> to) override {
    std::fill(to.begin(), to.end(), std::byte(number));
    return true;
  }
  bool write_register(dune::Reg, uint64_t) override { return true; }
  std::optional<TargetAddr> cfa() override { return TargetAddr(0x7fff'1001); }
};

void print(const std::string& text, FuzzFrame& frame) {
  auto expression = check(text, frame);
  if (!expression)
    return;
  (void)compile_predicate(*expression, {});
  auto value = evaluate(*expression, frame);
  if (!value)
    return;
  FormatOptions options;
  for (char letter : {'\0', 'x', 'f', 's'}) {
    options.letter = letter;
    (void)format_value(*value, frame, options);
  }
}

void print_all(FuzzFrame& frame) {
  std::vector<std::string> names{"counter", "limit", "f", "s", "n", "this", "ns::derived::shared"};
  for (const Symbol& s : frame.arguments())
    names.push_back(s.name);
  for (const auto& block : frame.locals())
    for (const Symbol& s : block)
      names.push_back(s.name);
  names.resize(std::min(names.size(), kMostNames));
  for (const std::string& name : names)
    for (const char* with : {"", "*", "&", "sizeof ", "-", "!"})
      print(with + name, frame);
  for (const std::string& name : names)
    for (const char* with : {"[1]", "[2]@3", "+1", "=3", "==2.5", ".value", "->next"})
      print(name + with, frame);
  for (const char* text :
       {"counter.next->value.f", "counter.name[2]", "counter.colour", "(enum colour)6", "RED|GREEN",
        "*(struct list*)0x1001", "sizeof(struct list)", "(word)-1", "*this", "d", "d.b",
        "(char)counter.flags", "counter.call", "*(union either*)&counter", "counter = counter"})
    print(text, frame);
}

} // namespace
} // namespace ddbg::expr

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ddbg;
  const auto* begin = reinterpret_cast<const std::byte*>(data);
  auto module = symbols::Module::from_memory({begin, begin + size}, "image");
  if (!module)
    return 0;
  auto table = symbols::VariableTable::open(**module);
  const dune::LinkRange range = (*module)->elf().load_range();
  std::vector<uint64_t> pcs{(*module)->elf().entry().value + 4};
  for (const char* name : {"f", "vla", "ns::f<int>"})
    for (const symbols::CodePlace& p : (*module)->functions().places(name))
      pcs.push_back(p.address.value + 5);
  if (pcs.size() > 4)
    pcs.resize(4);
  for (uint64_t pc : pcs) {
    expr::ModuleScope scope{module->get(), table.get()};
    scope.range = {dune::TargetAddr(range.begin.value), dune::TargetAddr(range.end.value)};
    expr::FuzzFrame frame({scope}, dune::TargetAddr(pc));
    expr::print_all(frame);
  }
  return 0;
}
