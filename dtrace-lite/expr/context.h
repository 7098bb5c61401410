// What an expression is evaluated against: names, memory, registers, convenience variables.
#pragma once

#include "dtrace-lite/expr/value.h"
#include "dtrace-lite/symbols/variables.h"

#include <map>

namespace ddbg::expr {

using dune::LinkAddr;
using symbols::TagKind;

// What an identifier stands for in a context.
struct Symbol {
  enum class Kind {
    kVariable,    // `variable` of `table`, at link address `pc` of the module
    kFunction,    // at `address`
    kType,        // `type`
    kConstant,    // an enumerator: `value`
    kMinimalData, // an ELF symbol without debug information, at `address`
    kMinimalText,
  };
  Kind kind;
  std::string name{};
  TypeRef type = BuiltinTypes::get().void_type;
  symbols::Variable variable{};
  symbols::VariableTable* table = nullptr;
  uint64_t bias = 0;
  LinkAddr pc{};
  TargetAddr address{};
  int64_t value = 0;
};

struct SymbolOffset {
  std::string name;
  uint64_t offset;
  bool is_code = true;
};

class Context : public symbols::FrameState {
public:
  virtual Language language() { return Language::kC; }
  // False: no program is loaded, and gdb says so instead of "no symbol".
  virtual bool has_symbols() { return true; }
  virtual std::optional<Symbol> lookup(std::string_view name) = 0;
  // 'file.c'::name. Error: no such file.
  virtual Checked<std::optional<Symbol>> lookup_in_file(std::string_view file,
                                                        std::string_view name) = 0;
  virtual TypeRef lookup_type(std::string_view name, TagKind tag) = 0; // null: none
  virtual bool is_namespace(std::string_view /*name*/) { return false; }
  virtual std::string nearest_name(std::string_view /*typed*/) { return ""; }
  // The symbol at or before an address, for <main+4>; nullopt: none.
  virtual std::optional<SymbolOffset> symbolize(TargetAddr) { return std::nullopt; }

  // What gdb warns of while it goes on: a shift by too much.
  virtual void warn(const std::string& /*text*/) {}

  // False: there is no process, or this frame does not know it.
  virtual bool has_registers() { return true; }
  virtual bool write_memory(TargetAddr, std::span<const std::byte>) { return false; }
  virtual bool write_register(dune::Reg, uint64_t) { return false; }
  // Other registers ($xmm0, $st0, $k1 ...) as the engine models them; nullopt: no such register.
  virtual std::optional<Value> named_register(std::string_view /*name*/) { return std::nullopt; }

  // $name; null: not set (void). The pointer is valid until the next set_convenience.
  virtual const Value* convenience(const std::string& name);
  virtual void set_convenience(const std::string& name, Value value);
  // $N, $, $$N. nullopt: gdb's "History has not yet reached $N."
  virtual std::optional<Value> history(int64_t /*index*/, bool /*from_end*/) {
    return std::nullopt;
  }

private:
  std::map<std::string, Value> convenience_;
};

// A name of a general register or of a part of one: $rax $eax $ax $al $ah, $pc $sp $fp $rip ...
struct RegisterName {
  dune::Reg reg;
  uint8_t offset; // first byte
  uint8_t size;
  TypeRef type; // as gdb gives it: int64_t, void *, void (*)() ...
};
std::optional<RegisterName> register_by_name(std::string_view name);
std::optional<dune::Reg> register_by_dwarf(int number);

} // namespace ddbg::expr
