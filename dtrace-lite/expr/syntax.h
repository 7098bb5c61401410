// The syntax tree of an expression: what was typed, not yet what it means.
#pragma once

#include "dtrace-lite/expr/context.h"

#include <memory>

namespace ddbg::expr {

enum class Syntax : uint8_t {
  kInteger,     // number, type
  kFloat,       // real, type
  kCharacter,   // number, type
  kString,      // text: the bytes; type: the element's
  kName,        // text; `file` when 'file.c'::name
  kDollarName,  // text without $: a register or a convenience variable
  kHistory,     // number, from_end
  kType,        // type: a type name used as an operand
  kUnary,       // op, a
  kBinary,      // op, a, b
  kLogical,     // op (kAndAnd, kOrOr), a, b
  kAssign,      // a, b; op: kEqual for plain, else the operator of `+=` and its kin
  kIncrement,   // a; op kPlusPlus or kMinusMinus; from_end: postfix
  kConditional, // a ? b : c
  kCast,        // type, a
  kMemoryAs,    // {type} a
  kSizeof,      // a, or type
  kMember,      // a . text
  kArrow,       // a -> text
  kIndex,       // a [b]
  kRepeat,      // a @ b
  kComma,       // a , b
  kCall,        // a (arguments)
};

enum class Token : uint8_t {
  kEnd,
  kInteger,
  kFloat,
  kCharacter,
  kString,
  kName,
  kQuotedName,
  kDollar,
  kPlus,
  kMinus,
  kStar,
  kSlash,
  kPercent,
  kAmpersand,
  kBar,
  kCaret,
  kTilde,
  kBang,
  kLess,
  kGreater,
  kLessEqual,
  kGreaterEqual,
  kEqualEqual,
  kBangEqual,
  kShiftLeft,
  kShiftRight,
  kAndAnd,
  kOrOr,
  kEqual,
  kOperatorEqual,
  kPlusPlus,
  kMinusMinus,
  kDot,
  kArrow,
  kComma,
  kQuestion,
  kColon,
  kColonColon,
  kAt,
  kOpen,
  kClose,
  kOpenSquare,
  kCloseSquare,
  kOpenBrace,
  kCloseBrace,
};

struct Node {
  Syntax kind;
  Token op = Token::kEnd;
  bool from_end = false;
  size_t column = 0;
  std::string text{};
  std::string file{};
  uint64_t number = 0;
  long double real = 0;
  TypeRef type = nullptr;
  std::unique_ptr<Node> a{}, b{}, c{};
};
using NodePtr = std::unique_ptr<Node>;

// Types in casts and sizeof are looked up in `context` while parsing, since C's grammar needs that.
// Nesting is limited, so that no input can exhaust the stack.
Checked<NodePtr> parse(std::string_view text, Context& context);

// "No symbol "x" in current context.", with the nearest name that there is as hint.
Diagnostic no_symbol(const std::string& name, size_t column, Context& context);

// For the commands that take an expression and something after it: `break f if EXPR`. Parses the
// whole text as a type name ("struct list *"); null: it is none.
TypeRef parse_type_name(std::string_view text, Context& context);

} // namespace ddbg::expr
