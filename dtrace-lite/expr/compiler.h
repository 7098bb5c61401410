// Internal to expr/: code generation over the emitter.
#pragma once

#include "disasm/emit.h"
#include "dtrace-lite/expr/compile.h"

namespace ddbg::expr {

using dune::Reg;
using dune::disasm::Emitter;

// Results come in rax, extended to 64 bits by their type's sign. rcx and rdx are scratch; rdi holds
// the Registers throughout. False: problem() has the reason.
class Compiler {
public:
  explicit Compiler(const CompileOptions& options)
      : options_(options), emit_(options.code_address) {}

  bool value(const Expr& e);
  bool truth(const Expr& e); // rax: 0 or 1
  Emitter& emitter() { return emit_; }
  const std::string& problem() const { return problem_; }

private:
  bool address(const Expr& e);
  bool variable(const Expr& e);
  bool constant(const Value& value);
  bool arithmetic(const Expr& e);
  bool pointer_arithmetic(const Expr& e);
  bool shift(const Expr& e);
  bool divide(const Expr& e);
  bool convert(const Expr& e);
  bool logical(const Expr& e);
  bool bit_field(const symbols::Member& member);
  bool load(TypeRef type); // rax = what is at rax
  bool node(const symbols::LocationPlan& plan, int index, uint64_t bias);
  bool register_part(Reg reg, unsigned offset, TypeRef type);

  // a in rax, b in rcx. `first` and `second` leave their result in rax.
  template <class First, class Second> bool operands(First first, Second second);
  bool both(const Expr& a, const Expr& b) {
    return operands([&] { return value(a); }, [&] { return value(b); });
  }
  void add_constant(uint64_t n);
  void multiply(uint64_t n);
  void narrow(TypeRef type);
  bool fail(std::string reason) {
    if (problem_.empty())
      problem_ = std::move(reason);
    return false;
  }
  // A result that waits for the other operand: in a register, or on the stack when all are taken.
  void keep();
  void take_back();

  const CompileOptions& options_;
  Emitter emit_;
  size_t kept_ = 0;
  size_t nodes_ = 0;
  std::string problem_;
};

template <class First, class Second> bool Compiler::operands(First first, Second second) {
  if (!first())
    return false;
  keep();
  if (!second())
    return false;
  emit_.move(Reg::rcx, Reg::rax);
  take_back();
  return true;
}

} // namespace ddbg::expr
