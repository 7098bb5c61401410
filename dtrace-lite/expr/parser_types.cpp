// Type names: "unsigned long", "struct list *", "const char *const [4]", "int (*)(int, char)".
#include "dtrace-lite/expr/parser.h"

namespace ddbg::expr {
namespace {

bool is_builtin_word(std::string_view word) {
  for (std::string_view w : {"unsigned", "signed", "int", "long", "short", "char", "float",
                             "double", "void", "_Bool", "__int128"})
    if (word == w)
      return true;
  return false;
}

bool is_qualifier(std::string_view word) { return word == "const" || word == "volatile"; }

} // namespace

TypeRef Parser::parse_type_all() {
  if (!starts_type())
    return nullptr;
  TypeRef type = type_name();
  return type && is(Token::kEnd) ? type : nullptr;
}

std::string Parser::scoped_name() {
  std::string name;
  if (take(Token::kColonColon))
    name = "::";
  while (is(Token::kName)) {
    name += peek().text;
    next_++;
    if (!is(Token::kColonColon) || peek(1).token != Token::kName)
      return name;
    name += "::";
    next_++;
  }
  return "";
}

bool Parser::starts_type() {
  if (is(Token::kColonColon) || is(Token::kName)) {
    const std::string& word = peek().text;
    if (is(Token::kName)) {
      if (is_qualifier(word) || is_builtin_word(word))
        return true;
      if (word == "sizeof")
        return false;
      if (word == "struct" || word == "union" || word == "enum" || word == "class")
        return peek(1).token == Token::kName;
    }
    size_t mark = next_;
    std::string name = scoped_name();
    next_ = mark;
    if (name.empty())
      return false;
    auto symbol = context_.lookup(name);
    return symbol && symbol->kind == Symbol::Kind::kType;
  }
  return false;
}

TypeRef Parser::type_name() {
  Nested nested(*this);
  if (too_deep())
    return nullptr;
  TypeRef base = base_type();
  return base ? abstract_declarator(base) : nullptr;
}

TypeRef Parser::builtin_words() {
  unsigned longs = 0;
  bool is_unsigned = false, is_signed = false, is_short = false;
  std::string base;
  while (is(Token::kName)) {
    const std::string& word = peek().text;
    if (word == "long")
      longs++;
    else if (word == "unsigned")
      is_unsigned = true;
    else if (word == "signed")
      is_signed = true;
    else if (word == "short")
      is_short = true;
    else if (is_builtin_word(word) && base.empty())
      base = word;
    else if (!is_qualifier(word))
      break;
    next_++;
  }
  std::string name;
  if (base == "char")
    name = is_unsigned ? "unsigned char" : is_signed ? "signed char" : "char";
  else if (base == "double")
    name = longs ? "long double" : "double";
  else if (base == "__int128")
    name = is_unsigned ? "unsigned __int128" : "__int128";
  else if (base.empty() || base == "int")
    name = std::string(is_unsigned ? "unsigned " : "") + (is_short     ? "short"
                                                          : longs == 0 ? "int"
                                                          : longs == 1 ? "long"
                                                                       : "long long");
  else
    name = base;
  TypeRef type = BuiltinTypes::get().by_name(name);
  return type ? type : syntax_error();
}

TypeRef Parser::base_type() {
  bool is_const = false, is_volatile = false;
  auto qualifiers = [&] {
    for (;;) {
      if (take_word("const"))
        is_const = true;
      else if (take_word("volatile"))
        is_volatile = true;
      else
        return;
    }
  };
  qualifiers();
  TypeRef type = nullptr;
  if (!is(Token::kName) && !is(Token::kColonColon))
    return syntax_error();
  std::string word = peek().text;
  if (is(Token::kName) && is_builtin_word(word)) {
    type = builtin_words();
  } else if (is(Token::kName) &&
             (word == "struct" || word == "class" || word == "union" || word == "enum")) {
    next_++;
    size_t column = peek().begin;
    std::string name = scoped_name();
    TagKind tag = word == "union"  ? TagKind::kUnion
                  : word == "enum" ? TagKind::kEnum
                                   : TagKind::kStruct;
    type = context_.lookup_type(name, tag);
    if (!type)
      return fail(
          {"No " + (word == "class" ? std::string("struct") : word) + " type named " + name + ".",
           "", column});
  } else {
    size_t column = peek().begin;
    std::string name = scoped_name();
    auto symbol = context_.lookup(name);
    if (!symbol || symbol->kind != Symbol::Kind::kType)
      return fail({"No type named " + name + ".", "", column});
    type = symbol->type;
  }
  if (!type)
    return nullptr;
  qualifiers();
  if (is_const)
    type = type->const_qualified();
  if (is_volatile)
    type = type->volatile_qualified();
  return type;
}

bool Parser::parameter_types(std::vector<TypeRef>& types, bool& variadic) {
  if (take(Token::kClose))
    return true;
  for (;;) {
    if (is(Token::kDot)) { // "..."
      while (take(Token::kDot)) {
      }
      variadic = true;
    } else {
      if (!starts_type()) {
        syntax_error();
        return false;
      }
      TypeRef type = type_name();
      if (!type)
        return false;
      types.push_back(type);
    }
    if (take(Token::kClose))
      break;
    if (!take(Token::kComma)) {
      syntax_error();
      return false;
    }
  }
  if (types.size() == 1 && types[0]->stripped()->kind() == TypeKind::kVoid)
    types.clear();
  return true;
}

// What follows a base type: "* const *", "[3][4]", "(*)(int)", "(*)[3]".
TypeRef Parser::abstract_declarator(TypeRef type) {
  Nested nested(*this);
  if (too_deep())
    return nullptr;
  for (;;) {
    if (take(Token::kStar))
      type = type->pointer();
    else if (take(Token::kAmpersand))
      type = type->lvalue_reference();
    else if (take_word("const"))
      type = type->const_qualified();
    else if (take_word("volatile"))
      type = type->volatile_qualified();
    else
      break;
  }
  // A parenthesized inner declarator applies to what its suffixes make of `type`.
  size_t inner_begin = 0;
  bool has_inner =
      is(Token::kOpen) && (peek(1).token == Token::kStar || peek(1).token == Token::kAmpersand);
  if (has_inner) {
    inner_begin = ++next_;
    for (int open = 1; open > 0; next_++) {
      if (is(Token::kEnd))
        return syntax_error();
      open += is(Token::kOpen) ? 1 : is(Token::kClose) ? -1 : 0;
    }
  }
  if (take(Token::kOpen)) {
    std::vector<TypeRef> parameters;
    bool variadic = false;
    if (!parameter_types(parameters, variadic))
      return nullptr;
    type = type->function(std::move(parameters), variadic);
  }
  std::vector<uint64_t> dimensions;
  while (take(Token::kOpenSquare)) {
    if (!is(Token::kInteger))
      return syntax_error();
    dimensions.push_back(peek().number);
    next_++;
    if (!take(Token::kCloseSquare))
      return syntax_error();
  }
  for (size_t i = dimensions.size(); i-- > 0;)
    type = type->array(dimensions[i]);
  if (has_inner) {
    size_t after = next_;
    next_ = inner_begin;
    type = abstract_declarator(type);
    if (!type || !take(Token::kClose))
      return syntax_error();
    next_ = after;
  }
  return type;
}

} // namespace ddbg::expr
