#include "dtrace-lite/expr/parser.h"

#include <charconv>

namespace ddbg::expr {
namespace {

struct BinaryOperator {
  Token token;
  int level; // higher binds tighter
};
// gdb's precedence: C's, with @ between shifts and addition.
constexpr BinaryOperator kBinary[] = {
    {Token::kOrOr, 1},       {Token::kAndAnd, 2},       {Token::kBar, 3},
    {Token::kCaret, 4},      {Token::kAmpersand, 5},    {Token::kEqualEqual, 6},
    {Token::kBangEqual, 6},  {Token::kLess, 7},         {Token::kGreater, 7},
    {Token::kLessEqual, 7},  {Token::kGreaterEqual, 7}, {Token::kShiftLeft, 8},
    {Token::kShiftRight, 8}, {Token::kAt, 9},           {Token::kPlus, 10},
    {Token::kMinus, 10},     {Token::kStar, 11},        {Token::kSlash, 11},
    {Token::kPercent, 11},
};

int level_of(Token token) {
  for (const BinaryOperator& op : kBinary)
    if (op.token == token)
      return op.level;
  return 0;
}

} // namespace

Checked<NodePtr> Parser::parse_all() {
  NodePtr node = comma();
  if (node && !is(Token::kEnd))
    node = syntax_error();
  if (!node)
    return *problem_;
  return node;
}

NodePtr Parser::comma() {
  NodePtr left = assignment();
  while (left && is(Token::kComma)) {
    auto node = make(Syntax::kComma, peek().begin);
    next_++;
    node->a = std::move(left);
    node->b = assignment();
    if (!node->b)
      return nullptr;
    left = std::move(node);
  }
  return left;
}

NodePtr Parser::assignment() {
  Nested nested(*this);
  if (too_deep())
    return nullptr;
  NodePtr left = conditional();
  if (!left || !(is(Token::kEqual) || is(Token::kOperatorEqual)))
    return left;
  auto node = make(Syntax::kAssign, peek().begin);
  node->op = is(Token::kEqual) ? Token::kEqual : peek().op;
  next_++;
  node->a = std::move(left);
  node->b = assignment();
  return node->b ? std::move(node) : nullptr;
}

NodePtr Parser::conditional() {
  NodePtr condition = binary(1);
  if (!condition || !is(Token::kQuestion))
    return condition;
  Nested nested(*this);
  if (too_deep())
    return nullptr;
  auto node = make(Syntax::kConditional, peek().begin);
  next_++;
  node->a = std::move(condition);
  node->b = comma();
  if (!node->b)
    return nullptr;
  if (!take(Token::kColon))
    return syntax_error();
  node->c = conditional();
  return node->c ? std::move(node) : nullptr;
}

NodePtr Parser::binary(int level) {
  NodePtr left = unary();
  while (left) {
    Token op = peek().token;
    int its_level = level_of(op);
    if (its_level < level || its_level == 0)
      break;
    Syntax kind = op == Token::kAndAnd || op == Token::kOrOr ? Syntax::kLogical
                  : op == Token::kAt                         ? Syntax::kRepeat
                                                             : Syntax::kBinary;
    auto node = make(kind, peek().begin);
    node->op = op;
    next_++;
    node->a = std::move(left);
    Nested nested(*this);
    if (too_deep())
      return nullptr;
    node->b = binary(its_level + 1);
    if (!node->b)
      return nullptr;
    left = std::move(node);
  }
  return left;
}

NodePtr Parser::size_of() {
  auto node = make(Syntax::kSizeof, peek().begin);
  next_++;
  if (is(Token::kOpen)) {
    size_t mark = next_++;
    if (starts_type()) {
      node->type = type_name();
      if (!node->type)
        return nullptr;
      if (!take(Token::kClose))
        return syntax_error();
      return node;
    }
    next_ = mark;
  }
  node->a = unary();
  return node->a ? std::move(node) : nullptr;
}

NodePtr Parser::unary() {
  Nested nested(*this);
  if (too_deep())
    return nullptr;
  size_t column = peek().begin;
  switch (peek().token) {
  case Token::kMinus:
  case Token::kPlus:
  case Token::kBang:
  case Token::kTilde:
  case Token::kStar:
  case Token::kAmpersand: {
    auto node = make(Syntax::kUnary, column);
    node->op = peek().token;
    next_++;
    node->a = unary();
    return node->a ? std::move(node) : nullptr;
  }
  case Token::kPlusPlus:
  case Token::kMinusMinus: {
    auto node = make(Syntax::kIncrement, column);
    node->op = peek().token;
    next_++;
    node->a = unary();
    return node->a ? std::move(node) : nullptr;
  }
  case Token::kOpenBrace: {
    next_++;
    if (!starts_type())
      return syntax_error();
    auto node = make(Syntax::kMemoryAs, column);
    node->type = type_name();
    if (!node->type)
      return nullptr;
    if (!take(Token::kCloseBrace))
      return syntax_error();
    node->a = unary();
    return node->a ? std::move(node) : nullptr;
  }
  case Token::kOpen: {
    size_t mark = next_++;
    if (!starts_type()) {
      next_ = mark;
      break;
    }
    TypeRef type = type_name();
    if (!type)
      return nullptr;
    if (!take(Token::kClose))
      return syntax_error();
    if (is(Token::kEnd) || is(Token::kClose)) { // "whatis (int)"
      auto node = make(Syntax::kType, column);
      node->type = type;
      return node;
    }
    auto node = make(Syntax::kCast, column);
    node->type = type;
    node->a = unary();
    return node->a ? std::move(node) : nullptr;
  }
  default:
    break;
  }
  if (is_word("sizeof"))
    return size_of();
  return postfix(primary());
}

NodePtr Parser::postfix(NodePtr left) {
  while (left) {
    size_t column = peek().begin;
    switch (peek().token) {
    case Token::kOpenSquare: {
      next_++;
      auto node = make(Syntax::kIndex, column);
      node->a = std::move(left);
      node->b = comma();
      if (!node->b)
        return nullptr;
      if (!take(Token::kCloseSquare))
        return syntax_error();
      left = std::move(node);
      break;
    }
    case Token::kDot:
    case Token::kArrow: {
      auto node = make(is(Token::kDot) ? Syntax::kMember : Syntax::kArrow, column);
      next_++;
      if (!is(Token::kName))
        return syntax_error();
      node->column = peek().begin;
      node->text = scoped_name();
      node->a = std::move(left);
      left = std::move(node);
      break;
    }
    case Token::kPlusPlus:
    case Token::kMinusMinus: {
      auto node = make(Syntax::kIncrement, column);
      node->op = peek().token;
      node->from_end = true;
      next_++;
      node->a = std::move(left);
      left = std::move(node);
      break;
    }
    case Token::kOpen: {
      next_++;
      auto node = make(Syntax::kCall, column);
      if (!is(Token::kClose)) {
        node->b = comma();
        if (!node->b)
          return nullptr;
      }
      if (!take(Token::kClose))
        return syntax_error();
      node->a = std::move(left);
      left = std::move(node);
      break;
    }
    default:
      return left;
    }
  }
  return nullptr;
}

NodePtr Parser::primary() {
  const Lexeme& lexeme = peek();
  switch (lexeme.token) {
  case Token::kInteger:
  case Token::kCharacter: {
    auto node =
        make(lexeme.token == Token::kInteger ? Syntax::kInteger : Syntax::kCharacter, lexeme.begin);
    node->number = lexeme.number;
    node->type = lexeme.type;
    next_++;
    return node;
  }
  case Token::kFloat: {
    auto node = make(Syntax::kFloat, lexeme.begin);
    node->real = lexeme.real;
    node->type = lexeme.type;
    next_++;
    return node;
  }
  case Token::kString: {
    auto node = make(Syntax::kString, lexeme.begin);
    node->type = lexeme.type;
    while (is(Token::kString)) // adjacent literals join
      node->text += lexemes_[next_++].text;
    return node;
  }
  case Token::kOpen: {
    next_++;
    NodePtr inner = comma();
    if (!inner)
      return nullptr;
    if (!take(Token::kClose))
      return syntax_error();
    return inner;
  }
  case Token::kDollar:
    return dollar();
  case Token::kName:
  case Token::kQuotedName:
  case Token::kColonColon:
    return name();
  default:
    return syntax_error();
  }
}

NodePtr Parser::name() {
  auto node = make(Syntax::kName, peek().begin);
  if (is(Token::kQuotedName) && peek(1).token == Token::kColonColon) {
    std::string quoted = peek().text;
    if (peek(2).token != Token::kName) {
      next_ += 2;
      return syntax_error();
    }
    node->column = peek(2).begin;
    if (context_.lookup(quoted)) { // 'ns'::x
      node->text = quoted + "::" + peek(2).text;
    } else {
      node->file = quoted;
      node->text = peek(2).text;
    }
    next_ += 3;
    return node;
  }
  if (is(Token::kQuotedName)) {
    node->text = peek().text;
    next_++;
    return node;
  }
  if (context_.language() == Language::kCpp && (is_word("true") || is_word("false"))) {
    node->kind = Syntax::kInteger;
    node->number = is_word("true") ? 1 : 0;
    node->type = BuiltinTypes::get().c_bool;
    next_++;
    return node;
  }
  if (starts_type())
    return type_operand();
  node->text = scoped_name();
  if (!unknown_name_ && !node->text.empty() && !context_.lookup(node->text))
    unknown_name_ = {node->text, node->column};
  return node->text.empty() ? syntax_error() : std::move(node);
}

NodePtr Parser::type_operand() {
  auto node = make(Syntax::kType, peek().begin);
  node->type = type_name();
  return node->type ? std::move(node) : nullptr;
}

NodePtr Parser::dollar() {
  const Lexeme& lexeme = peek();
  std::string_view text = lexeme.text;
  auto node = make(Syntax::kDollarName, lexeme.begin);
  next_++;
  // "$", "$$", "$N", "$$N"; all else is a register or a convenience variable.
  bool from_end = text.starts_with('$');
  std::string_view digits = from_end ? text.substr(1) : text;
  uint64_t number = 0;
  auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  bool all_digits = error == std::errc() && end == digits.data() + digits.size();
  if (digits.empty() || all_digits) {
    node->kind = Syntax::kHistory;
    node->from_end = from_end || digits.empty();
    node->number = digits.empty() ? (from_end ? 1 : 0) : number;
    return node;
  }
  node->text = text;
  return node;
}

Diagnostic no_symbol(const std::string& name, size_t column, Context& context) {
  if (!context.has_symbols())
    return {"No symbol table is loaded.  Use the \"file\" command.", "", column};
  std::string last = name, scope;
  if (size_t colons = name.rfind("::"); colons != std::string::npos && colons > 0) {
    scope = name.substr(0, colons);
    last = name.substr(colons + 2);
    if (context.is_namespace(scope))
      return {"No symbol \"" + last + "\" in namespace \"" + scope + "\".", "", column};
    if (!context.lookup(scope)) // what is unknown is the scope
      return no_symbol(scope, column, context);
  }
  std::string nearest = context.nearest_name(last);
  return {"No symbol \"" + name + "\" in current context.",
          nearest.empty() ? "" : "Did you mean \"" + nearest + "\"?", column};
}

Checked<NodePtr> parse(std::string_view text, Context& context) {
  auto lexemes = tokenize(text, context);
  if (!lexemes)
    return lexemes.error();
  return Parser(text, context, std::move(*lexemes)).parse_all();
}

TypeRef parse_type_name(std::string_view text, Context& context) {
  auto lexemes = tokenize(text, context);
  if (!lexemes)
    return nullptr;
  return Parser(text, context, std::move(*lexemes)).parse_type_all();
}

} // namespace ddbg::expr
