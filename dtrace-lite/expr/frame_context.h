// Names as a frame of a stopped thread sees them: its own scopes, then every loaded module, then
// ELF symbols. The engine derives from this and gives memory and registers.
#pragma once

#include "dtrace-lite/expr/context.h"
#include "dtrace-lite/symbols/module.h"

#include <functional>
#include <unordered_map>
#include <utility>

namespace ddbg::expr {

// A module's variable table, opened by the first question that the module has to answer: opening it
// reads the module's DWARF, and most expressions are answered by the frame's own module.
class LazyTable {
public:
  using Open = std::function<symbols::VariableTable*()>;
  LazyTable(symbols::VariableTable* table) : table_(table) {}
  explicit LazyTable(Open open) : open_(std::move(open)) {}

  operator symbols::VariableTable*() const { // null: no DWARF
    if (open_)
      table_ = std::exchange(open_, nullptr)();
    return table_;
  }
  symbols::VariableTable* operator->() const { return *this; }

private:
  mutable Open open_;
  mutable symbols::VariableTable* table_ = nullptr;
};

struct ModuleScope {
  symbols::Module* module;
  LazyTable table;
  uint64_t bias = 0;
  dune::TargetRange range{}; // where it is loaded; empty: unknown
  // Its place among the modules that have a PT_TLS segment, in load order from 1; 0: has none.
  unsigned tls_module_id = 0;
  std::optional<symbols::ProgramTls> program_tls{}; // of the program itself only
};

class FrameContext : public Context {
public:
  // `lookup_pc`: of the frame (for a caller, inside the call instruction); nullopt: no frame, only
  // globals. `inline_depth`: 0 is the innermost function inlined at that pc.
  FrameContext(std::vector<ModuleScope> modules, std::optional<TargetAddr> lookup_pc,
               size_t inline_depth = 0);

  Language language() override;
  bool has_symbols() override { return !modules_.empty(); }
  std::optional<Symbol> lookup(std::string_view name) override;
  Checked<std::optional<Symbol>> lookup_in_file(std::string_view file,
                                                std::string_view name) override;
  TypeRef lookup_type(std::string_view name, TagKind tag) override;
  bool is_namespace(std::string_view name) override;
  std::string nearest_name(std::string_view typed) override;
  std::optional<SymbolOffset> symbolize(TargetAddr address) override;
  Checked<TargetAddr> tls_address(uint64_t module_bias, uint64_t offset) override;

  // The arguments and the locals of this frame, for `info args`, `info locals`, `bt`. Blocks:
  // innermost first.
  std::vector<Symbol> arguments();
  std::vector<std::vector<Symbol>> locals();

  const std::vector<ModuleScope>& modules() const { return modules_; }

private:
  Symbol to_symbol(const symbols::Meaning& meaning, std::string_view name,
                   const ModuleScope& module) const;
  Symbol to_symbol(const symbols::Variable& variable) const;
  std::optional<Symbol> find(std::string_view name);
  std::optional<Symbol> find_minimal(std::string_view name);
  const symbols::FunctionScope* function();

  std::vector<ModuleScope> modules_;
  std::optional<TargetAddr> pc_;
  size_t inline_depth_;
  const ModuleScope* home_ = nullptr; // the module that pc_ is in
  std::unordered_map<std::string, std::optional<Symbol>> found_;
};

// PT_TLS of a program, for ModuleScope::program_tls; nullopt: it has none.
std::optional<symbols::ProgramTls> program_tls(const symbols::ElfFile& elf);

} // namespace ddbg::expr
