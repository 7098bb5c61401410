// The `x` command.
#include "dtrace-lite/expr/formatter.h"

#include <algorithm>

namespace ddbg::expr {
namespace {

uint64_t bytes_of(char size) { return size == 'b' ? 1 : size == 'h' ? 2 : size == 'w' ? 4 : 8; }

TypeRef unit_type(char letter, char size) {
  const BuiltinTypes& t = BuiltinTypes::get();
  if (letter == 'f' && size == 'w')
    return t.float_type;
  if (letter == 'f' && size == 'g')
    return t.double_type;
  bool is_unsigned = letter == 'u' || letter == 'x' || letter == 'o' || letter == 't' ||
                     letter == 'z' || letter == 'a';
  switch (size) {
  case 'b':
    return is_unsigned ? t.uint8 : t.int8;
  case 'h':
    return is_unsigned ? t.uint16 : t.int16;
  case 'w':
    return is_unsigned ? t.uint32 : t.int32;
  default:
    return is_unsigned ? t.uint64 : t.int64;
  }
}

std::string unit(const Value& value, char letter, char size, Context& context) {
  FormatOptions options;
  options.letter = letter;
  if (letter == 'x')
    options.letter = 'z'; // all digits of the unit
  if (letter == 't')
    return in_base(static_cast<UnsignedWide>(number_of(value)), 2,
                   static_cast<unsigned>(bytes_of(size) * 8));
  return Formatter(context, options).scalar(value);
}

} // namespace

Checked<ExamineFormat> parse_format(std::string_view text, ExamineFormat defaults) {
  ExamineFormat format = defaults;
  format.count = 1;
  size_t i = 0;
  bool has_count = false;
  uint64_t count = 0;
  for (; i < text.size() && text[i] >= '0' && text[i] <= '9'; i++) {
    has_count = true;
    count = std::min<uint64_t>(count * 10 + static_cast<uint64_t>(text[i] - '0'), 1u << 30);
  }
  if (has_count)
    format.count = count;
  bool has_size = false;
  char letter = 0;
  for (; i < text.size(); i++) {
    char c = text[i];
    if (c == 'b' || c == 'h' || c == 'w' || c == 'g') {
      format.size = c;
      has_size = true;
    } else if (std::string_view("xduotcafsiz").find(c) != std::string_view::npos) {
      letter = c;
    } else {
      return Diagnostic{std::string("Undefined output format \"") + c + "\".",
                        "The formats are x d u o t c a f s i z; the sizes b h w g.", i};
    }
  }
  if (letter)
    format.letter = letter;
  if (!has_size && letter) {
    if (letter == 'a')
      format.size = 'g';
    else if (letter == 'c')
      format.size = 'b';
    else if (letter == 'f' && defaults.size != 'w' && defaults.size != 'g')
      format.size = 'g';
  }
  if (letter == 'a')
    format.size = 'g';
  return format;
}

Checked<void*> examine(TargetAddr address, const ExamineFormat& format, Context& context,
                       const Disassemble& disassemble, std::vector<std::string>& lines,
                       TargetAddr& next) {
  next = address;
  auto label = [&] { return format_address(next, context) + ":"; };
  if (format.letter == 'i') {
    for (uint64_t i = 0; i < format.count; i++) {
      auto shown = disassemble ? disassemble(next) : std::nullopt;
      if (!shown)
        return cannot_access(next);
      lines.push_back(label() + "\t" + shown->text);
      next += std::max(shown->length, 1u);
    }
    return nullptr;
  }
  if (format.letter == 's') {
    TypeRef element = format.size == 'h'   ? BuiltinTypes::get().char16
                      : format.size == 'w' ? BuiltinTypes::get().char32
                                           : BuiltinTypes::get().char_type;
    if (format.size == 'w')
      element = BuiltinTypes::get().char_type; // `x/s` after `x/x`: w is not meant
    FormatOptions options;
    for (uint64_t i = 0; i < format.count; i++) {
      std::vector<std::byte> one(element->size());
      if (!context.read_memory(next, one)) {
        lines.push_back(label() + "\t<error: " + cannot_access(next).message + ">");
        return nullptr;
      }
      lines.push_back(label() + "\t" + Formatter(context, options).string_at(next, element));
      // Past the text shown and its terminator.
      uint64_t length = 0;
      for (; length < options.element_limit; length++) {
        if (!context.read_memory(next + length * one.size(), one))
          break;
        if (std::all_of(one.begin(), one.end(), [](std::byte b) { return b == std::byte{0}; })) {
          length++;
          break;
        }
      }
      next += length * one.size();
    }
    return nullptr;
  }
  uint64_t size = bytes_of(format.size);
  uint64_t per_line = format.size == 'w' ? 4 : format.size == 'g' ? 2 : 8;
  if (format.letter == 't')
    per_line = format.size == 'b' ? 8 : format.size == 'h' ? 8 : format.size == 'w' ? 4 : 2;
  TypeRef type = unit_type(format.letter, format.size);
  for (uint64_t i = 0; i < format.count; i++) {
    if (i % per_line == 0)
      lines.push_back(label());
    std::vector<std::byte> bytes(size);
    if (!context.read_memory(next, bytes)) {
      lines.back() += "\t"; // gdb's error follows on the same line
      return cannot_access(next);
    }
    lines.back() +=
        "\t" + unit(Value::of(type, std::move(bytes)), format.letter, format.size, context);
    next += size;
  }
  return nullptr;
}

} // namespace ddbg::expr
