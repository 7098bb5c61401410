// Internal to expr/: the recursive descent parser.
#pragma once

#include "dtrace-lite/expr/lexer.h"

namespace ddbg::expr {

// Errors are kept until parse() returns: a null NodePtr or TypeRef means there is one.
class Parser {
public:
  Parser(std::string_view text, Context& context, std::vector<Lexeme> lexemes)
      : text_(text), context_(context), lexemes_(std::move(lexemes)) {}

  Checked<NodePtr> parse_all();
  TypeRef parse_type_all();

private:
  NodePtr comma();
  NodePtr assignment();
  NodePtr conditional();
  NodePtr binary(int level);
  NodePtr unary();
  NodePtr postfix(NodePtr node);
  NodePtr primary();
  NodePtr name();
  NodePtr dollar();
  NodePtr type_operand();
  NodePtr size_of();

  // Types (parser_types.cpp).
  bool starts_type();
  TypeRef type_name();
  TypeRef base_type();
  TypeRef builtin_words();
  TypeRef abstract_declarator(TypeRef base);
  bool parameter_types(std::vector<TypeRef>& types, bool& variadic);
  std::string scoped_name(); // a::b::c, consumed

  const Lexeme& peek(size_t ahead = 0) const {
    return lexemes_[std::min(next_ + ahead, lexemes_.size() - 1)];
  }
  bool is(Token token) const { return peek().token == token; }
  bool is_word(std::string_view word) const { return is(Token::kName) && peek().text == word; }
  bool take(Token token) {
    if (!is(token))
      return false;
    next_++;
    return true;
  }
  bool take_word(std::string_view word) {
    if (!is_word(word))
      return false;
    next_++;
    return true;
  }
  NodePtr make(Syntax kind, size_t column) const {
    auto node = std::make_unique<Node>();
    node->kind = kind;
    node->column = column;
    return node;
  }
  std::nullptr_t fail(Diagnostic diagnostic) {
    if (!problem_)
      problem_ = std::move(diagnostic);
    return nullptr;
  }
  std::nullptr_t syntax_error() {
    // What cannot be parsed is often a misspelt type: then say that.
    if (unknown_name_)
      return fail(no_symbol(unknown_name_->first, unknown_name_->second, context_));
    size_t at = peek().begin;
    return fail(
        {"A syntax error in expression, near `" + std::string(text_.substr(at)) + "'.", "", at});
  }

  // Each level of nesting costs about a dozen frames of the recursive descent.
  static constexpr int kMaxDepth = 200;
  struct Nested {
    explicit Nested(Parser& p) : parser(p) { parser.depth_++; }
    ~Nested() { parser.depth_--; }
    Parser& parser;
  };
  bool too_deep() {
    if (depth_ <= kMaxDepth)
      return false;
    fail({"The expression is nested too deeply.", "", peek().begin});
    return true;
  }

  std::string_view text_;
  Context& context_;
  std::vector<Lexeme> lexemes_;
  size_t next_ = 0;
  int depth_ = 0;
  std::optional<Diagnostic> problem_;
  std::optional<std::pair<std::string, size_t>> unknown_name_; // and its column
};

} // namespace ddbg::expr
