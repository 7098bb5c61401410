// Checked expressions to machine code, run by the agent at a breakpoint without leaving the target.
//
// The code is `uint64_t f(const dune::Registers*)`, System V ABI: general registers only, no calls,
// no state, leaf; it clobbers rax rcx rdx rsi r8-r11 and the flags, and uses less than 2 KB of
// stack (none for all but deeply nested expressions). It means exactly what evaluate() means, with
// two differences that the runner sees as a fault and counts: memory is read directly, so an
// unreadable address is SIGSEGV or SIGBUS where evaluate() says "Cannot access memory"; and
// division by zero is #DE (SIGFPE) where evaluate() says "Division by zero". The least integer
// divided by -1 wraps, in both. On a fault the stack pointer may be below where it was at entry.
#pragma once

#include "dtrace-lite/expr/expression.h"

#include <vector>

namespace ddbg::expr {

// CFA = register + offset, at the place where the code will run.
struct CfaRule {
  dune::Reg base;
  int64_t offset;
};

struct CompileOptions {
  TargetAddr code_address{}; // where the bytes will lie
  std::optional<CfaRule> cfa{};
};

// The expression must have been checked in a context whose frame is the innermost one at the
// breakpoint's pc. Error: not compilable, with the reason as message ("floating point numbers"), to
// be shown as "not compilable: REASON"; then the front end evaluates it.
Checked<std::vector<uint8_t>> compile_value(const Expression& expression,
                                            const CompileOptions& options);
// The same for a condition: returns 0 or 1.
Checked<std::vector<uint8_t>> compile_predicate(const Expression& expression,
                                                const CompileOptions& options);

} // namespace ddbg::expr
