// echo and printf.
#include "dtrace-lite/ddbg/commands.h"
#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/evaluation.h"
#include "dtrace-lite/ddbg/text.h"

#include <algorithm>

namespace ddbg::ui::cmd {

namespace {

// The character after a backslash at text[i]; moves i past what belongs to it. -1: nothing (a
// backslash before a newline or at the end).
int unescape(std::string_view text, size_t& i) {
  if (i >= text.size())
    return -1;
  char c = text[i++];
  switch (c) {
  case 'n':
    return '\n';
  case 't':
    return '\t';
  case 'r':
    return '\r';
  case 'a':
    return '\a';
  case 'b':
    return '\b';
  case 'f':
    return '\f';
  case 'v':
    return '\v';
  case 'e':
    return '\033';
  case '\n':
    return -1;
  default:
    break;
  }
  if (c < '0' || c > '7')
    return static_cast<unsigned char>(c);
  int value = c - '0';
  for (int digits = 1; digits < 3 && i < text.size() && text[i] >= '0' && text[i] <= '7'; ++digits)
    value = value * 8 + (text[i++] - '0');
  return value & 0xff;
}

constexpr size_t kLongestString = 1 << 20;
constexpr int kWidestField = 4096;

// What %s shows: the characters of an array, or those that a pointer points to, up to a NUL.
Checked<std::string> string_of(Context& context, expr::Value value) {
  expr::Context& target = context.debugger.context();
  auto fetched = expr::fetch(std::move(value), target);
  if (!fetched)
    return fetched.error();
  std::string text;
  if (fetched->type->stripped()->kind() == symbols::TypeKind::kArray) {
    for (std::byte b : fetched->bytes) {
      if (b == std::byte{0})
        break;
      text += static_cast<char>(b);
    }
    return text;
  }
  if (!fetched->type->is_pointer() && !fetched->type->is_integral())
    return Diagnostic{"Value given for %s is no string.", {}, {}};
  dune::TargetAddr at(static_cast<uint64_t>(expr::number_of(*fetched)));
  while (text.size() < kLongestString) {
    uint8_t c = 0;
    if (auto read = context.debugger.read_memory(at, {&c, 1}); !read)
      return read.error();
    if (c == 0)
      break;
    text += static_cast<char>(c);
    at += 1;
  }
  return text;
}

// One conversion: "%-5.2ld" and what it is.
struct Conversion {
  std::string flags; // flags, width and precision
  char letter;
};

Checked<std::string> convert(Context& context, const Conversion& conversion,
                             std::string_view expression) {
  expr::Context& target = context.debugger.context();
  auto value = expr::evaluate(expression, target);
  if (!value)
    return value.error();
  auto printed = [&](const char* length, auto argument) {
    std::string format = "%" + conversion.flags + length + conversion.letter;
    int size = std::snprintf(nullptr, 0, format.c_str(), argument);
    std::string text(static_cast<size_t>(std::max(size, 0)) + 1, '\0');
    std::snprintf(text.data(), text.size(), format.c_str(), argument);
    text.pop_back();
    return text;
  };
  switch (conversion.letter) {
  case 's': {
    auto text = string_of(context, std::move(*value));
    return text ? Checked<std::string>(printed("", text->c_str())) : text;
  }
  case 'e':
  case 'E':
  case 'f':
  case 'F':
  case 'g':
  case 'G':
  case 'a':
  case 'A': {
    auto fetched = expr::fetch(std::move(*value), target);
    if (!fetched)
      return fetched.error();
    if (fetched->type->stripped()->kind() == symbols::TypeKind::kFloat)
      return printed("L", expr::floating_of(*fetched));
    if (!fetched->type->is_integral())
      return Diagnostic{"Invalid floating value found in program.", {}, {}};
    return printed("L", static_cast<long double>(expr::number_of(*fetched)));
  }
  default: {
    auto number = evaluate_integer(context, expression);
    if (!number)
      return number.error();
    if (conversion.letter == 'c')
      return printed("", static_cast<int>(*number));
    if (conversion.letter == 'p')
      return printed("", reinterpret_cast<void*>(*number));
    return printed("l", *number);
  }
  }
}

// The arguments after the format: separated by commas that are in no bracket or quotes.
std::vector<std::string_view> split_arguments(std::string_view text) {
  std::vector<std::string_view> parts;
  int depth = 0;
  char quote = 0;
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (quote) {
      if (c == '\\')
        ++i;
      else if (c == quote)
        quote = 0;
    } else if (c == '"' || c == '\'') {
      quote = c;
    } else if (c == '(' || c == '[' || c == '{') {
      ++depth;
    } else if (c == ')' || c == ']' || c == '}') {
      --depth;
    } else if (c == ',' && depth == 0) {
      parts.push_back(trim(text.substr(begin, i - begin)));
      begin = i + 1;
    }
  }
  parts.push_back(trim(text.substr(begin)));
  return parts;
}

} // namespace

Checked<void> echo(Context& context, std::string_view args) {
  std::string text;
  for (size_t i = 0; i < args.size();) {
    char c = args[i++];
    if (c != '\\') {
      text += c;
    } else if (int escaped = unescape(args, i); escaped >= 0) {
      text += static_cast<char>(escaped);
    }
  }
  context.out.write(text);
  return {};
}

Checked<void> printf_(Context& context, std::string_view args) {
  if (args.empty())
    return Diagnostic{"Argument required (format-control string and values to print).", {}, {}};
  if (!args.starts_with('"'))
    return Diagnostic{"Bad format string, missing '\"'.", {}, {}};
  size_t end = 1;
  while (end < args.size() && args[end] != '"')
    end += args[end] == '\\' ? 2 : 1;
  if (end >= args.size())
    return Diagnostic{"Bad format string, non-terminated '\"'.", {}, {}};
  std::string_view format = args.substr(1, end - 1);
  std::string_view rest = trim(args.substr(end + 1));
  if (!rest.empty() && !rest.starts_with(','))
    return Diagnostic{
        "Invalid argument syntax", "The arguments follow the format after a comma.", {}};
  std::vector<std::string_view> arguments;
  if (!rest.empty())
    arguments = split_arguments(rest.substr(1));
  std::string text;
  size_t used = 0;
  for (size_t i = 0; i < format.size();) {
    char c = format[i++];
    if (c == '\\') {
      if (int escaped = unescape(format, i); escaped >= 0)
        text += static_cast<char>(escaped);
      continue;
    }
    if (c != '%') {
      text += c;
      continue;
    }
    if (i < format.size() && format[i] == '%') {
      text += '%';
      ++i;
      continue;
    }
    size_t begin = i;
    while (i < format.size() && std::string_view("-+ #0123456789.").find(format[i]) != format.npos)
      ++i;
    Conversion conversion{std::string(format.substr(begin, i - begin)), '\0'};
    while (i < format.size() && std::string_view("hlLzjt").find(format[i]) != format.npos)
      ++i;
    if (i >= format.size())
      return Diagnostic{"Incomplete format specifier at end of format string", {}, {}};
    conversion.letter = format[i++];
    if (std::string_view("diouxXcsfFeEgGaAp").find(conversion.letter) == std::string_view::npos)
      return Diagnostic{std::string("Unrecognized format specifier '") + conversion.letter +
                            "' in printf",
                        {},
                        {}};
    for (std::string_view part = conversion.flags; !part.empty();) {
      size_t digits = part.find_first_of("123456789");
      if (digits == part.npos)
        break;
      part.remove_prefix(digits);
      size_t length = std::min(part.find_first_not_of("0123456789"), part.size());
      auto width = parse_integer(part.substr(0, length));
      if (!width || *width > kWidestField)
        return Diagnostic{"Field too wide in printf.", {}, {}};
      part.remove_prefix(length);
    }
    if (used >= arguments.size())
      return Diagnostic{"Wrong number of arguments for specified format-string", {}, {}};
    auto converted = convert(context, conversion, arguments[used++]);
    if (!converted)
      return converted.error();
    text += *converted;
  }
  if (used != arguments.size())
    return Diagnostic{"Wrong number of arguments for specified format-string", {}, {}};
  context.out.write(text);
  return {};
}

} // namespace ddbg::ui::cmd
