#include "dtrace-lite/expr/context.h"

namespace ddbg::expr {

const Value* Context::convenience(const std::string& name) {
  auto it = convenience_.find(name);
  return it == convenience_.end() ? nullptr : &it->second;
}

void Context::set_convenience(const std::string& name, Value value) {
  convenience_.insert_or_assign(name, std::move(value));
}

namespace {

struct LegacyRegister {
  const char* letters; // "a" of rax
  dune::Reg reg;
};
constexpr LegacyRegister kLegacy[] = {
    {"a", dune::Reg::rax},
    {"b", dune::Reg::rbx},
    {"c", dune::Reg::rcx},
    {"d", dune::Reg::rdx},
};
constexpr LegacyRegister kIndexed[] = {
    {"si", dune::Reg::rsi},
    {"di", dune::Reg::rdi},
    {"bp", dune::Reg::rbp},
    {"sp", dune::Reg::rsp},
};

} // namespace

std::optional<RegisterName> register_by_name(std::string_view name) {
  const BuiltinTypes& t = BuiltinTypes::get();
  using dune::Reg;
  if (name == "pc")
    return RegisterName{Reg::rip, 0, 8, t.code_ptr};
  if (name == "fp")
    return RegisterName{Reg::rbp, 0, 8, t.data_ptr};
  if (name == "eflags")
    return RegisterName{Reg::eflags, 0, 4, t.eflags};
  for (size_t i = 0; i < dune::kRegisterCount; i++) {
    if (name != dune::kRegisters[i].name)
      continue;
    auto reg = static_cast<Reg>(i);
    switch (reg) {
    case Reg::rip:
      return RegisterName{reg, 0, 8, t.code_ptr};
    case Reg::rsp:
    case Reg::rbp:
      return RegisterName{reg, 0, 8, t.data_ptr};
    case Reg::cs:
    case Reg::ss:
    case Reg::ds:
    case Reg::es:
    case Reg::fs:
    case Reg::gs:
      return RegisterName{reg, 0, 4, t.int32};
    case Reg::fs_base:
    case Reg::gs_base:
      return RegisterName{reg, 0, 8, t.long_type};
    default:
      return RegisterName{reg, 0, 8, t.int64};
    }
  }
  for (const LegacyRegister& r : kLegacy) {
    std::string letter = r.letters;
    if (name == "e" + letter + "x")
      return RegisterName{r.reg, 0, 4, t.int32};
    if (name == letter + "x")
      return RegisterName{r.reg, 0, 2, t.int16};
    if (name == letter + "l")
      return RegisterName{r.reg, 0, 1, t.int8};
    if (name == letter + "h")
      return RegisterName{r.reg, 1, 1, t.int8};
  }
  for (const LegacyRegister& r : kIndexed) {
    std::string letters = r.letters;
    if (letters == "sp" && name == "sp")
      return RegisterName{r.reg, 0, 8, t.data_ptr};
    if (name == "e" + letters)
      return RegisterName{r.reg, 0, 4, t.int32};
    if (name == letters)
      return RegisterName{r.reg, 0, 2, t.int16};
    if (name == letters + "l")
      return RegisterName{r.reg, 0, 1, t.int8};
  }
  // r8d, r8w, r8l: gdb's spelling.
  if (name.size() >= 3 && name[0] == 'r') {
    char suffix = name.back();
    if (auto whole = register_by_name(name.substr(0, name.size() - 1));
        whole && whole->reg >= Reg::r8 && whole->reg <= Reg::r15 && whole->size == 8) {
      if (suffix == 'd')
        return RegisterName{whole->reg, 0, 4, t.int32};
      if (suffix == 'w')
        return RegisterName{whole->reg, 0, 2, t.int16};
      if (suffix == 'l')
        return RegisterName{whole->reg, 0, 1, t.int8};
    }
  }
  return std::nullopt;
}

std::optional<dune::Reg> register_by_dwarf(int number) {
  for (size_t i = 0; i < dune::kRegisterCount; i++)
    if (number >= 0 && dune::kRegisters[i].dwarf_number == number)
      return static_cast<dune::Reg>(i);
  return std::nullopt;
}

} // namespace ddbg::expr
