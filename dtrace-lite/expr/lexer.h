#pragma once

#include "dtrace-lite/expr/syntax.h"

namespace ddbg::expr {

struct Lexeme {
  Token token = Token::kEnd;
  size_t begin = 0, end = 0; // in the text
  std::string text{};        // a name; the bytes of a string; after $
  uint64_t number = 0;       // kInteger, kCharacter
  long double real = 0;      // kFloat
  TypeRef type = nullptr;    // of a literal
  Token op = Token::kEnd;    // kOperatorEqual: which
};

Checked<std::vector<Lexeme>> tokenize(std::string_view text, Context& context);

} // namespace ddbg::expr
