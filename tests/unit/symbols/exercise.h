// Asks a module everything, for inputs that may be damaged. Shared by the test and the fuzzer.
#pragma once

#include "dtrace-lite/symbols/module.h"
#include "dtrace-lite/symbols/unwind_cfi.h"
#include "dtrace-lite/symbols/variables.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <sys/mman.h>
#include <unistd.h>

namespace ddbg::symbols::test {

// Bounds the work on one input: a damaged file can list any number of anything.
inline constexpr size_t kMostAddresses = 24;
inline constexpr size_t kMostTypes = 200;
inline constexpr size_t kMostVariables = 64;

// A frame in which every register is known and a little memory is there.
class ExerciseFrame : public FrameState {
public:
  bool read_memory(TargetAddr from, std::span<std::byte> to) override {
    std::fill(to.begin(), to.end(), std::byte(from.value));
    return to.size() <= 4096 && from.value % 7 != 0;
  }
  std::optional<uint64_t> read_register(int number) override {
    return number % 5 ? std::optional<uint64_t>(0x7fff'0000 + static_cast<uint64_t>(number) * 8)
                      : std::nullopt;
  }
  bool read_wide_register(int number, std::span<std::byte> to) override {
    std::fill(to.begin(), to.end(), std::byte(number));
    return true;
  }
  std::optional<TargetAddr> cfa() override { return TargetAddr(0x7fff'1000); }
  std::optional<uint64_t> entry_register(int number) override {
    return static_cast<uint64_t>(number);
  }
  Checked<TargetAddr> tls_address(uint64_t, uint64_t offset) override {
    return TargetAddr(0x7fff'2000 + offset);
  }
};

class DwarfExercise {
public:
  explicit DwarfExercise(VariableTable& table) : table_(table) {}

  void at(LinkAddr pc) {
    const auto& scopes = table_.frames_at(pc);
    for (size_t depth = 0; depth < scopes.size() && depth < 8; depth++) {
      const FunctionScope& scope = scopes[depth];
      type(table_.types().function_type(scope.function), pc, scope.function);
      for (const Variable& v : scope.arguments)
        variable(v, pc);
      for (const Block& block : scope.blocks)
        for (const Variable& v : block.variables)
          variable(v, pc);
      for (const char* name : {"n", "this", "x", "nothing"})
        meaning(table_.find(name, pc, depth), pc);
    }
    table_.nearest_name("lisst", pc);
    type(table_.find_type("list", TagKind::kStruct, pc), pc, {});
  }

  void by_name(std::string_view name) {
    meaning(table_.find_global(name), LinkAddr(0));
    meaning(table_.find_in_file("seed.c", name), LinkAddr(0));
    type(table_.find_type(name, TagKind::kNone, std::nullopt), LinkAddr(0), {});
  }

private:
  void meaning(const std::optional<Meaning>& m, LinkAddr pc) {
    if (!m)
      return;
    if (m->kind == Meaning::Kind::kVariable)
      variable(m->variable, pc);
    if (m->type)
      type(m->type, pc, {});
  }

  void variable(const Variable& v, LinkAddr pc) {
    if (variables_++ > kMostVariables)
      return;
    ExerciseFrame frame;
    if (auto plan = table_.plan(v, pc)) {
      (void)evaluate_location(*plan, frame, 0x1000);
      (void)evaluate_location(*plan, frame, 0, 0x7fff'3000);
    }
    type(table_.type_of(v), pc, v.function);
  }

  void type(TypeRef t, LinkAddr pc, const DieRef& function) {
    if (!t || seen_.size() > kMostTypes || !seen_.insert(t).second)
      return;
    (void)t->name();
    (void)t->size();
    (void)t->is_incomplete();
    (void)t->is_flag_enum();
    (void)t->enumerator_prefix();
    (void)t->is_variadic();
    (void)t->stripped()->is_scalar();
    (void)t->array(3)->name();
    ExerciseFrame frame;
    if (t->count_die())
      if (auto bound = table_.plan_count(*t, pc, function))
        (void)evaluate_location(bound->plan, frame, 0);
    for (const Member& m : t->members()) {
      if (m.is_virtual)
        if (auto plan = VariableTable::plan_member(m))
          (void)evaluate_location(*plan, frame, 0, 0x7fff'3000);
      type(m.type, pc, function);
    }
    for (TypeRef parameter : t->parameters())
      type(parameter, pc, function);
    type(t->target(), pc, function);
  }

  VariableTable& table_;
  std::set<TypeRef> seen_;
  size_t variables_ = 0;
};

// True when the image was taken for a program.
inline bool exercise(const std::vector<std::byte>& image) {
  auto opened = Module::from_memory(image, "image");
  if (!opened)
    return false;
  Module& module = **opened;
  std::vector<LinkAddr> addresses{module.elf().entry(), LinkAddr(0)};
  std::vector<std::string> names = module.symbols().complete("", 10);
  for (const char* name : {"f", "main", "_start", "twice", "ns::f", "list", "counter"})
    names.push_back(name);
  for (const std::string& name : names) {
    for (const CodePlace& p : module.functions().places(name))
      addresses.push_back(p.address);
    module.symbols().find_variables(name);
    module.symbols().find_plt(name);
  }
  module.symbols().nearest_name("fg");
  for (const LinkRange& range : module.elf().text_ranges())
    for (unsigned i = 0; i < 8; i++)
      addresses.push_back(range.begin + i * 7);
  for (const SourceFile* file : module.lines().files())
    for (unsigned line : {1u, 5u})
      module.lines().places(file->name, line);
  std::sort(addresses.begin(), addresses.end());
  addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
  if (addresses.size() > kMostAddresses)
    addresses.resize(kMostAddresses);
  for (LinkAddr a : addresses) {
    module.functions().at(a);
    module.functions().inlined_at(a);
    module.lines().find(a);
    module.lines().after_prologue(a);
    module.symbols().at(a);
    module.elf().fde_range(a);
    module.unwind_row_exists(a);
  }
  if (auto table = VariableTable::open(module)) {
    DwarfExercise dwarf(*table);
    for (LinkAddr a : addresses)
      dwarf.at(a);
    for (const std::string& name : names)
      dwarf.by_name(name);
  }
  return true;
}

// Unwinds from several places of the program, over a stack full of return addresses.
inline void exercise_unwinding(const std::vector<std::byte>& image) {
  const dune::Fd file(::memfd_create("image", MFD_CLOEXEC));
  if (::write(file.get(), image.data(), image.size()) != static_cast<ssize_t>(image.size()))
    return;
  ModuleMap map;
  if (!map.set_program("/proc/self/fd/" + std::to_string(file.get())) || !map.main())
    return;
  const ElfFile& elf = map.main()->module->elf();
  const std::vector<LinkRange> text = elf.text_ranges();
  if (text.empty())
    return;
  constexpr uint64_t kStack = 0x7ffe'0000'0000, kStackSize = 0x1'0000;
  const auto word_at = [&](uint64_t address) {
    return address % 32 == 0 ? address + 48 : text[0].begin.value + address / 8 % 256;
  };
  Unwinder unwinder(map, [&](TargetAddr from, std::span<std::byte> to) {
    if (from.value - kStack >= kStackSize) {
      const Bytes bytes = elf.bytes_at(LinkAddr(from.value), to.size());
      std::copy(bytes.begin(), bytes.begin() + std::min(bytes.size(), to.size()), to.begin());
      return bytes.size() >= to.size();
    }
    for (size_t i = 0; i < to.size(); i++) {
      const uint64_t word = word_at((from.value + i) & ~uint64_t{7});
      to[i] = std::byte(word >> ((from.value + i) % 8 * 8));
    }
    return true;
  });
  for (unsigned i = 0; i < 6; i++) {
    dune::Registers all{};
    all.rip = (i ? text[i % text.size()].begin : elf.entry()).value + i * 5;
    all.rsp = kStack + 64 * i;
    all.rbp = kStack + 64 * i + 32;
    unwinder.backtrace(KnownRegisters(all), 20, i % 2 == 0);
  }
}

} // namespace ddbg::symbols::test
