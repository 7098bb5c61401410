#include "dtrace-lite/expr/lexer.h"

#include <cctype>
#include <cmath>
#include <cstdlib>

namespace ddbg::expr {
namespace {

struct Punctuator {
  std::string_view spelling;
  Token token;
  Token op = Token::kEnd;
};
// Longest first.
constexpr Punctuator kPunctuators[] = {
    {"<<=", Token::kOperatorEqual, Token::kShiftLeft},
    {">>=", Token::kOperatorEqual, Token::kShiftRight},
    {"+=", Token::kOperatorEqual, Token::kPlus},
    {"-=", Token::kOperatorEqual, Token::kMinus},
    {"*=", Token::kOperatorEqual, Token::kStar},
    {"/=", Token::kOperatorEqual, Token::kSlash},
    {"%=", Token::kOperatorEqual, Token::kPercent},
    {"&=", Token::kOperatorEqual, Token::kAmpersand},
    {"|=", Token::kOperatorEqual, Token::kBar},
    {"^=", Token::kOperatorEqual, Token::kCaret},
    {"<<", Token::kShiftLeft},
    {">>", Token::kShiftRight},
    {"<=", Token::kLessEqual},
    {">=", Token::kGreaterEqual},
    {"==", Token::kEqualEqual},
    {"!=", Token::kBangEqual},
    {"&&", Token::kAndAnd},
    {"||", Token::kOrOr},
    {"++", Token::kPlusPlus},
    {"--", Token::kMinusMinus},
    {"->", Token::kArrow},
    {"::", Token::kColonColon},
    {"+", Token::kPlus},
    {"-", Token::kMinus},
    {"*", Token::kStar},
    {"/", Token::kSlash},
    {"%", Token::kPercent},
    {"&", Token::kAmpersand},
    {"|", Token::kBar},
    {"^", Token::kCaret},
    {"~", Token::kTilde},
    {"!", Token::kBang},
    {"<", Token::kLess},
    {">", Token::kGreater},
    {"=", Token::kEqual},
    {".", Token::kDot},
    {",", Token::kComma},
    {"?", Token::kQuestion},
    {":", Token::kColon},
    {"@", Token::kAt},
    {"(", Token::kOpen},
    {")", Token::kClose},
    {"[", Token::kOpenSquare},
    {"]", Token::kCloseSquare},
    {"{", Token::kOpenBrace},
    {"}", Token::kCloseBrace},
};

bool is_name_start(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_'; }
bool is_name_part(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

class Lexer {
public:
  Lexer(std::string_view text, Context& context) : text_(text), context_(context) {}

  Checked<std::vector<Lexeme>> run();

private:
  char at(size_t i) const { return i < text_.size() ? text_[i] : '\0'; }
  std::optional<Diagnostic> number(Lexeme& lexeme);
  std::optional<Diagnostic> integer(Lexeme& lexeme, std::string_view digits, unsigned base);
  std::optional<Diagnostic> quoted(Lexeme& lexeme);
  std::optional<Diagnostic> string(Lexeme& lexeme);
  bool escape(std::string& out);
  Diagnostic bad(std::string message, size_t column) const {
    return {std::move(message), "", column};
  }

  std::string_view text_;
  Context& context_;
  size_t position_ = 0;
};

Checked<std::vector<Lexeme>> Lexer::run() {
  std::vector<Lexeme> lexemes;
  for (;;) {
    while (position_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[position_])))
      position_++;
    Lexeme lexeme;
    lexeme.begin = position_;
    if (position_ >= text_.size()) {
      lexeme.end = position_;
      lexemes.push_back(std::move(lexeme));
      return lexemes;
    }
    char c = text_[position_];
    std::optional<Diagnostic> problem;
    if (std::isdigit(static_cast<unsigned char>(c)) ||
        (c == '.' && std::isdigit(static_cast<unsigned char>(at(position_ + 1))))) {
      problem = number(lexeme);
    } else if (is_name_start(c)) {
      size_t begin = position_;
      while (is_name_part(at(position_)))
        position_++;
      lexeme.token = Token::kName;
      lexeme.text = text_.substr(begin, position_ - begin);
    } else if (c == '$') {
      size_t begin = ++position_;
      while (is_name_part(at(position_)) || at(position_) == '$')
        position_++;
      lexeme.token = Token::kDollar;
      lexeme.text = text_.substr(begin, position_ - begin);
    } else if (c == '\'') {
      problem = quoted(lexeme);
    } else if (c == '"') {
      problem = string(lexeme);
    } else {
      for (const Punctuator& p : kPunctuators)
        if (text_.substr(position_).starts_with(p.spelling)) {
          lexeme.token = p.token;
          lexeme.op = p.op;
          position_ += p.spelling.size();
          break;
        }
      if (lexeme.token == Token::kEnd)
        problem = bad(std::string("Invalid character '") + c + "' in expression.", position_);
    }
    if (problem)
      return *problem;
    lexeme.end = position_;
    lexemes.push_back(std::move(lexeme));
  }
}

std::optional<Diagnostic> Lexer::number(Lexeme& lexeme) {
  size_t begin = position_;
  bool hex = at(begin) == '0' && (at(begin + 1) == 'x' || at(begin + 1) == 'X');
  bool is_float = false;
  while (position_ < text_.size()) {
    char c = text_[position_];
    if (c == '.')
      is_float = true;
    else if ((c == '+' || c == '-') && position_ > begin &&
             ((!hex && (at(position_ - 1) == 'e' || at(position_ - 1) == 'E')) ||
              (hex && (at(position_ - 1) == 'p' || at(position_ - 1) == 'P'))))
      is_float = true;
    else if (!is_name_part(c))
      break;
    else if (!hex && (c == 'e' || c == 'E'))
      is_float = true;
    else if (hex && (c == 'p' || c == 'P'))
      is_float = true;
    position_++;
  }
  std::string spelling(text_.substr(begin, position_ - begin));
  Diagnostic invalid = bad("Invalid number \"" + spelling + "\".", begin);
  if (is_float) {
    char* end;
    lexeme.token = Token::kFloat;
    lexeme.real = std::strtold(spelling.c_str(), &end);
    const BuiltinTypes& t = BuiltinTypes::get();
    lexeme.type = t.double_type;
    std::string_view suffix = end;
    if (suffix == "f" || suffix == "F")
      lexeme.type = t.float_type;
    else if (suffix == "l" || suffix == "L")
      lexeme.type = t.long_double;
    else if (!suffix.empty())
      return invalid;
    return std::nullopt;
  }
  std::string_view digits = spelling;
  unsigned base = 10;
  if (hex) {
    base = 16;
    digits.remove_prefix(2);
  } else if (digits.size() > 1 && digits[0] == '0') {
    char letter = static_cast<char>(std::tolower(digits[1]));
    base = letter == 'b' ? 2 : letter == 't' || letter == 'd' ? 10 : 8;
    digits.remove_prefix(letter == 'b' || letter == 't' || letter == 'd' ? 2 : 1);
  }
  return integer(lexeme, digits, base);
}

std::optional<Diagnostic> Lexer::integer(Lexeme& lexeme, std::string_view digits, unsigned base) {
  Diagnostic invalid =
      bad("Invalid number \"" + std::string(text_.substr(lexeme.begin, position_ - lexeme.begin)) +
              "\".",
          lexeme.begin);
  uint64_t value = 0;
  size_t i = 0;
  for (; i < digits.size(); i++) {
    char c = static_cast<char>(std::tolower(digits[i]));
    unsigned digit = std::isdigit(static_cast<unsigned char>(c)) ? static_cast<unsigned>(c - '0')
                     : c >= 'a' && c <= 'f' ? static_cast<unsigned>(c - 'a') + 10
                                            : 99;
    if (digit >= base)
      break;
    if (__builtin_mul_overflow(value, uint64_t{base}, &value) ||
        __builtin_add_overflow(value, uint64_t{digit}, &value))
      return bad("Numeric constant too large.", lexeme.begin);
  }
  if (i == 0 && text_[lexeme.begin] != '0')
    return invalid;
  if (i == 0 && base != 8)
    return invalid;
  unsigned longs = 0, unsigneds = 0;
  for (; i < digits.size(); i++) {
    char c = static_cast<char>(std::tolower(digits[i]));
    if (c == 'l')
      longs++;
    else if (c == 'u')
      unsigneds++;
    else
      return invalid;
  }
  if (longs > 2 || unsigneds > 1)
    return invalid;
  // As in C: the first of int, unsigned, long, unsigned long that can hold it; but a decimal
  // constant becomes unsigned only where nothing else is left.
  const BuiltinTypes& t = BuiltinTypes::get();
  bool decimal = base == 10;
  lexeme.token = Token::kInteger;
  lexeme.number = value;
  if (longs == 0 && value <= 0x7fffffff && !unsigneds)
    lexeme.type = t.int_type;
  else if (longs == 0 && value <= 0xffffffff && (unsigneds || !decimal))
    lexeme.type = t.unsigned_int;
  else if (value <= INT64_MAX && !unsigneds)
    lexeme.type = longs == 2 ? t.long_long : t.long_type;
  else
    lexeme.type = longs == 2 ? t.unsigned_long_long : t.unsigned_long;
  return std::nullopt;
}

// After a backslash. False: there is nothing after it.
bool Lexer::escape(std::string& out) {
  char c = at(position_);
  if (position_ >= text_.size())
    return false;
  position_++;
  if (c >= '0' && c <= '7') {
    unsigned value = static_cast<unsigned>(c - '0');
    for (int i = 0; i < 2 && at(position_) >= '0' && at(position_) <= '7'; i++)
      value = value * 8 + static_cast<unsigned>(at(position_++) - '0');
    out += static_cast<char>(value);
    return true;
  }
  if (c == 'x') {
    unsigned value = 0;
    while (std::isxdigit(static_cast<unsigned char>(at(position_)))) {
      char digit = static_cast<char>(std::tolower(at(position_++)));
      value = value * 16 + static_cast<unsigned>(digit <= '9' ? digit - '0' : digit - 'a' + 10);
    }
    out += static_cast<char>(value);
    return true;
  }
  constexpr std::string_view kFrom = "abefnrtv", kTo = "\a\b\033\f\n\r\t\v";
  size_t index = kFrom.find(c);
  out += index == std::string_view::npos ? c : kTo[index];
  return true;
}

// 'a' is a character; 'file.c' and 'ns::f(int)' are names.
std::optional<Diagnostic> Lexer::quoted(Lexeme& lexeme) {
  size_t begin = position_++;
  std::string content;
  size_t characters = 0;
  bool escaped = false;
  for (;;) {
    if (position_ >= text_.size())
      return bad("Unmatched single quote.", begin);
    char c = text_[position_++];
    if (c == '\'')
      break;
    characters++;
    if (c == '\\') {
      escaped = true;
      if (!escape(content))
        return bad("Unmatched single quote.", begin);
    } else {
      content += c;
    }
  }
  if (characters == 0)
    return bad("A character constant must contain at least one character.", begin);
  if (characters == 1) {
    lexeme.token = Token::kCharacter;
    lexeme.number =
        static_cast<uint64_t>(static_cast<int64_t>(static_cast<signed char>(content[0])));
    lexeme.type = BuiltinTypes::get().char_type;
    return std::nullopt;
  }
  bool followed_by_scope = text_.substr(position_).starts_with("::");
  if (escaped || (!followed_by_scope && context_.has_symbols() && !context_.lookup(content)))
    return bad(escaped ? "Invalid character constant."
                       : "No symbol \"" + content + "\" in current context.",
               begin);
  lexeme.token = Token::kQuotedName;
  lexeme.text = std::move(content);
  return std::nullopt;
}

std::optional<Diagnostic> Lexer::string(Lexeme& lexeme) {
  size_t begin = position_++;
  for (;;) {
    if (position_ >= text_.size())
      return bad("Unterminated string in expression.", begin);
    char c = text_[position_++];
    if (c == '"')
      break;
    if (c != '\\')
      lexeme.text += c;
    else if (!escape(lexeme.text))
      return bad("Unterminated string in expression.", begin);
  }
  lexeme.token = Token::kString;
  lexeme.type = BuiltinTypes::get().char_type;
  return std::nullopt;
}

} // namespace

Checked<std::vector<Lexeme>> tokenize(std::string_view text, Context& context) {
  return Lexer(text, context).run();
}

} // namespace ddbg::expr
