#include "dtrace-lite/expr/frame_context.h"

#include "dtrace-lite/symbols/mentions.h"

#include <cstring>
#include <elf.h>

namespace ddbg::expr {

using symbols::Meaning;

constexpr int kDwarfFsBase = 58; // System V psABI

namespace {
// False: the module's DWARF, which need not be opened to say so, has nothing of this name.
bool may_have(const ModuleScope& module, std::string_view name) {
  return !module.module || module.module->mentions().name(symbols::last_component(name));
}
} // namespace

FrameContext::FrameContext(std::vector<ModuleScope> modules, std::optional<TargetAddr> lookup_pc,
                           size_t inline_depth)
    : modules_(std::move(modules)), pc_(lookup_pc), inline_depth_(inline_depth) {
  if (pc_)
    for (const ModuleScope& module : modules_)
      if (module.range.contains(*pc_))
        home_ = &module;
}

Language FrameContext::language() {
  if (home_ && home_->table)
    return home_->table->language_at(LinkAddr(pc_->value - home_->bias));
  return Language::kC;
}

Symbol FrameContext::to_symbol(const Meaning& meaning, std::string_view name,
                               const ModuleScope& module) const {
  Symbol symbol{Symbol::Kind::kVariable};
  symbol.name = name;
  symbol.type = meaning.type ? meaning.type : symbol.type;
  symbol.table = module.table;
  symbol.bias = module.bias;
  if (home_ == &module)
    symbol.pc = LinkAddr(pc_->value - module.bias);
  switch (meaning.kind) {
  case Meaning::Kind::kVariable:
    symbol.variable = meaning.variable;
    break;
  case Meaning::Kind::kFunction:
    symbol.kind = Symbol::Kind::kFunction;
    symbol.address = TargetAddr(meaning.entry.value + module.bias);
    break;
  case Meaning::Kind::kEnumerator:
    symbol.kind = Symbol::Kind::kConstant;
    symbol.value = meaning.value;
    break;
  default:
    symbol.kind = Symbol::Kind::kType;
  }
  return symbol;
}

Symbol FrameContext::to_symbol(const symbols::Variable& variable) const {
  Meaning meaning{Meaning::Kind::kVariable};
  meaning.variable = variable;
  meaning.type = home_->table->type_of(variable);
  return to_symbol(meaning, variable.name, *home_);
}

std::optional<Symbol> FrameContext::find_minimal(std::string_view name) {
  const BuiltinTypes& t = BuiltinTypes::get();
  for (const ModuleScope& module : modules_) {
    if (!module.module)
      continue;
    for (const symbols::Symbol& s : module.module->symbols().find(name)) {
      Symbol symbol{s.is_code ? Symbol::Kind::kMinimalText : Symbol::Kind::kMinimalData};
      symbol.name = name;
      symbol.type = s.is_code ? t.no_debug_text : t.no_debug_data;
      symbol.bias = module.bias;
      symbol.address = TargetAddr(s.address.value + module.bias);
      if (s.type == symbols::SymbolType::kTls) {
        auto place = tls_address(module.bias, s.address.value);
        if (!place)
          continue;
        symbol.address = *place;
      }
      return symbol;
    }
  }
  return std::nullopt;
}

std::optional<Symbol> FrameContext::find(std::string_view name) {
  std::optional<Symbol> declared;
  auto consider = [&](const std::optional<Meaning>& meaning,
                      const ModuleScope& module) -> std::optional<Symbol> {
    if (!meaning || meaning->kind == Meaning::Kind::kNamespace)
      return std::nullopt;
    Symbol symbol = to_symbol(*meaning, name, module);
    if (meaning->kind == Meaning::Kind::kVariable && meaning->variable.is_declaration) {
      if (!declared)
        declared = symbol;
      return std::nullopt;
    }
    return symbol;
  };
  if (home_ && home_->table)
    if (auto s = consider(
            home_->table->find(name, LinkAddr(pc_->value - home_->bias), inline_depth_), *home_))
      return s;
  for (const ModuleScope& module : modules_)
    if (&module != home_ && may_have(module, name) && module.table)
      if (auto s = consider(module.table->find_global(name), module))
        return s;
  auto minimal = find_minimal(name.starts_with("::") ? name.substr(2) : name);
  if (minimal && declared) { // the declaration knows the type, the ELF symbol the place
    minimal->type = declared->type;
    return minimal;
  }
  return minimal ? minimal : declared;
}

std::optional<Symbol> FrameContext::lookup(std::string_view name) {
  auto [it, inserted] = found_.try_emplace(std::string(name));
  if (inserted)
    it->second = find(name);
  return it->second;
}

Checked<std::optional<Symbol>> FrameContext::lookup_in_file(std::string_view file,
                                                            std::string_view name) {
  bool seen = false;
  for (const ModuleScope& module : modules_) {
    if (!module.table || !module.table->has_file(file))
      continue;
    seen = true;
    if (auto meaning = module.table->find_in_file(file, name))
      return std::optional<Symbol>(to_symbol(*meaning, name, module));
  }
  // 'f'::x is a static variable of the function f.
  if (!seen)
    if (auto f = lookup(file); f && f->kind == Symbol::Kind::kFunction)
      for (const ModuleScope& module : modules_) {
        if (module.table != f->table || !module.table)
          continue;
        const auto& frames = module.table->frames_at(LinkAddr(f->address.value - f->bias));
        if (!frames.empty())
          for (const symbols::Block& block : frames.back().blocks)
            for (const symbols::Variable& v : block.variables)
              if (v.name == name) {
                Meaning meaning{Meaning::Kind::kVariable};
                meaning.variable = v;
                meaning.type = module.table->type_of(v);
                return std::optional<Symbol>(to_symbol(meaning, name, module));
              }
        return std::optional<Symbol>();
      }
  if (!seen)
    return Diagnostic{"No symbol table is loaded for \"" + std::string(file) + "\".",
                      "Name a source file of the program, as in 'main.c'::counter.",
                      {}};
  return std::optional<Symbol>();
}

TypeRef FrameContext::lookup_type(std::string_view name, TagKind tag) {
  if (home_ && home_->table)
    if (TypeRef type =
            home_->table->find_type(name, tag, LinkAddr(pc_->value - home_->bias), inline_depth_))
      return type;
  for (const ModuleScope& module : modules_)
    if (&module != home_ && may_have(module, name) && module.table)
      if (TypeRef type = module.table->find_type(name, tag, std::nullopt))
        return type;
  return nullptr;
}

bool FrameContext::is_namespace(std::string_view name) {
  for (const ModuleScope& module : modules_)
    if (may_have(module, name) && module.table)
      if (auto meaning = &module == home_
                             ? module.table->find(name, LinkAddr(pc_->value - module.bias))
                             : module.table->find_global(name);
          meaning && meaning->kind == Meaning::Kind::kNamespace)
        return true;
  return false;
}

std::string FrameContext::nearest_name(std::string_view typed) {
  if (home_ && home_->table)
    if (std::string name = home_->table->nearest_name(typed, LinkAddr(pc_->value - home_->bias));
        !name.empty())
      return name;
  for (const ModuleScope& module : modules_)
    if (module.module)
      if (std::string name = module.module->symbols().nearest_name(typed); !name.empty())
        return name;
  return "";
}

std::optional<SymbolOffset> FrameContext::symbolize(TargetAddr address) {
  for (const ModuleScope& module : modules_) {
    if (!module.module || !module.range.contains(address))
      continue;
    LinkAddr link(address.value - module.bias);
    auto symbol = module.module->symbols().at(link);
    if (!symbol)
      return std::nullopt;
    std::string name = symbol->name();
    // A C++ function without a mangled name, as main, is still shown with its parameters.
    if (symbol->is_code && module.table && name.find('(') == std::string::npos &&
        module.table->language_at(link) == Language::kCpp)
      if (const auto& frames = module.table->frames_at(link);
          !frames.empty() && frames.back().name == name) {
        name += '(';
        const char* separator = "";
        for (const symbols::Variable& parameter : frames.back().arguments) {
          name += separator + module.table->type_of(parameter)->name();
          separator = ", ";
        }
        for (size_t at; (at = name.find(" *")) != std::string::npos;)
          name.erase(at, 1);
        name += ')';
      }
    return SymbolOffset{std::move(name), link - symbol->address, symbol->is_code};
  }
  return std::nullopt;
}

Checked<TargetAddr> FrameContext::tls_address(uint64_t module_bias, uint64_t offset) {
  auto thread_pointer = read_register(kDwarfFsBase);
  for (const ModuleScope& module : modules_) {
    if (module.bias != module_bias || module.tls_module_id == 0)
      continue;
    auto read = [this](TargetAddr from, std::span<std::byte> to) { return read_memory(from, to); };
    auto block = symbols::tls_block(read, thread_pointer.value_or(0), module.tls_module_id,
                                    module.program_tls);
    if (!block)
      return block.error();
    return *block + offset;
  }
  return Diagnostic{
      "Cannot find thread-local storage: the module's TLS block is not known.", "", {}};
}

const symbols::FunctionScope* FrameContext::function() {
  if (!home_ || !home_->table)
    return nullptr;
  const auto& frames = home_->table->frames_at(LinkAddr(pc_->value - home_->bias));
  return inline_depth_ < frames.size() ? &frames[inline_depth_] : nullptr;
}

std::vector<Symbol> FrameContext::arguments() {
  std::vector<Symbol> result;
  if (const symbols::FunctionScope* scope = function())
    for (const symbols::Variable& v : scope->arguments)
      result.push_back(to_symbol(v));
  return result;
}

std::vector<std::vector<Symbol>> FrameContext::locals() {
  std::vector<std::vector<Symbol>> result;
  if (const symbols::FunctionScope* scope = function())
    for (const symbols::Block& block : scope->blocks) {
      auto& variables = result.emplace_back();
      for (const symbols::Variable& v : block.variables)
        if (!v.is_declaration)
          variables.push_back(to_symbol(v));
    }
  return result;
}

std::optional<symbols::ProgramTls> program_tls(const symbols::ElfFile& elf) {
  // ElfFile has checked the header and that the table lies inside the file.
  Elf64_Ehdr header;
  symbols::Bytes image = elf.image();
  if (image.size() < sizeof header)
    return std::nullopt;
  std::memcpy(&header, image.data(), sizeof header);
  for (uint64_t i = 0; i < header.e_phnum; i++) {
    Elf64_Phdr segment;
    uint64_t at = header.e_phoff + i * sizeof segment;
    if (at > image.size() || image.size() - at < sizeof segment)
      return std::nullopt;
    std::memcpy(&segment, image.data() + at, sizeof segment);
    if (segment.p_type == PT_TLS)
      return symbols::ProgramTls{segment.p_memsz, segment.p_align};
  }
  return std::nullopt;
}

} // namespace ddbg::expr
