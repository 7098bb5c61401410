#include "dtrace-lite/ddbg/evaluation.h"
#include "dtrace-lite/ddbg/text.h"

namespace ddbg::ui {

Checked<FormatSpec> take_format(std::string_view& args, std::string_view command, bool counted) {
  FormatSpec spec;
  if (!args.starts_with('/'))
    return spec;
  // Only letters and digits belong to it: "/x(1)" is a format and an expression.
  std::string_view text = args.substr(1);
  size_t length = 0;
  while (length < text.size() && (std::isalnum(static_cast<unsigned char>(text[length])) ||
                                  (length == 0 && text[0] == '-')))
    ++length;
  args = trim(text.substr(length));
  text = text.substr(0, length);
  size_t i = 0;
  if (i < text.size() && text[i] == '-') {
    spec.backwards = true;
    ++i;
  }
  size_t digits = i;
  while (i < text.size() && std::isdigit(static_cast<unsigned char>(text[i])))
    ++i;
  if (i > digits) {
    auto count = parse_integer(text.substr(digits, i - digits));
    if (!count || *count > INT32_MAX)
      return Diagnostic{"Numeric constant too large.", {}, {}};
    spec.count = static_cast<uint64_t>(*count);
    spec.has_count = true;
  } else if (spec.backwards) {
    spec.has_count = true;
  }
  for (; i < text.size(); ++i) {
    char c = text[i];
    switch (c) {
    case 'b':
    case 'h':
    case 'w':
    case 'g':
      spec.size = c;
      break;
    case 'r':
      spec.raw = true;
      break;
    case 'x':
    case 'd':
    case 'u':
    case 'o':
    case 't':
    case 'a':
    case 'c':
    case 'f':
    case 's':
    case 'i':
    case 'z':
      spec.letter = c;
      break;
    default:
      return Diagnostic{std::string("Undefined output format \"") + c + "\".",
                        "Formats are x d u o t a c f s i z, sizes b h w g.",
                        {}};
    }
  }
  if (!counted) {
    if (spec.has_count)
      return Diagnostic{"Item count other than 1 is meaningless in \"" + std::string(command) +
                            "\" command.",
                        "Use x/FMT to show memory.",
                        {}};
    if (spec.letter == 'i')
      return Diagnostic{"Format letter \"i\" is meaningless in \"" + std::string(command) +
                            "\" command.",
                        {},
                        {}};
    if (spec.size && spec.letter != 's' && spec.letter != 'x')
      return Diagnostic{
          "Size letters are meaningless in \"" + std::string(command) + "\" command.", {}, {}};
  }
  return spec;
}

} // namespace ddbg::ui
