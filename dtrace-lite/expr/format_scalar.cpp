// Numbers, characters, strings, enums, pointers.
#include "dtrace-lite/expr/formatter.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace ddbg::expr {

std::string in_base(UnsignedWide number, unsigned base, unsigned pad_to) {
  std::string digits;
  do {
    digits += "0123456789abcdef"[static_cast<unsigned>(number % base)];
    number /= base;
  } while (number != 0);
  while (digits.size() < pad_to)
    digits += '0';
  std::reverse(digits.begin(), digits.end());
  return digits;
}

std::string to_decimal(Wide number, bool is_signed) {
  if (is_signed && number < 0)
    return "-" + in_base(0 - static_cast<UnsignedWide>(number), 10);
  return in_base(static_cast<UnsignedWide>(number), 10);
}

bool is_textual(TypeRef type) { return type->stripped()->kind() == TypeKind::kChar; }

std::string format_float(std::span<const std::byte> bytes) {
  long double value = read_float(bytes);
  if (std::isnan(value)) {
    uint64_t mantissa = 0;
    std::memcpy(&mantissa, bytes.data(), std::min<size_t>(bytes.size(), 8));
    bool negative = std::signbit(value);
    mantissa &= bytes.size() == 4 ? 0x7fffff : bytes.size() == 8 ? 0xfffffffffffff : ~uint64_t{0};
    return std::string(negative ? "-" : "") + "nan(0x" + in_base(mantissa, 16) + ")";
  }
  if (std::isinf(value))
    return value < 0 ? "-inf" : "inf";
  // As many digits as tell every value from its neighbours.
  int digits = bytes.size() == 4 ? 9 : bytes.size() == 8 ? 17 : 21;
  char text[64];
  snprintf(text, sizeof text, "%.*Lg", digits, value);
  return text;
}

namespace {

// One character inside quotes. Octal escapes always have three digits, so a digit may follow.
std::string escaped(uint64_t c, uint64_t width, char quote) {
  if (c == static_cast<unsigned char>(quote) || c == '\\')
    return std::string("\\") + static_cast<char>(c);
  constexpr std::string_view kFrom = "\a\b\f\n\r\t\v", kTo = "abfnrtv";
  if (c < 128)
    if (size_t i = kFrom.find(static_cast<char>(c)); i != std::string_view::npos)
      return std::string("\\") + kTo[i];
  if (c >= 32 && c < 127)
    return std::string(1, static_cast<char>(c));
  if (width == 1 || c < 256)
    return "\\" + in_base(c & 0xff, 8, 3);
  if (c >= 0x80 && c <= 0x10ffff) { // gdb converts to the terminal's character set; ours is UTF-8
    std::string out;
    if (c < 0x800)
      out = {static_cast<char>(0xc0 | c >> 6)};
    else if (c < 0x10000)
      out = {static_cast<char>(0xe0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 0x3f))};
    else
      out = {static_cast<char>(0xf0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 0x3f)),
             static_cast<char>(0x80 | (c >> 6 & 0x3f))};
    return out + static_cast<char>(0x80 | (c & 0x3f));
  }
  return "\\x" + in_base(c, 16);
}

uint64_t character_at(std::span<const std::byte> bytes, uint64_t width, uint64_t index) {
  uint64_t c = 0;
  std::memcpy(&c, bytes.data() + index * width, std::min<uint64_t>(width, 8));
  return c;
}

const char* string_prefix(uint64_t width) { return width == 2 ? "u" : width == 4 ? "L" : ""; }

} // namespace

std::string quote_character(Wide character, char quote) {
  return quote + escaped(static_cast<uint64_t>(character) & 0xff, 1, quote) + quote;
}

// `count` characters: runs become 'x' <repeats 15 times>, and at most element_limit are shown.
std::string Formatter::text(std::span<const std::byte> bytes, uint64_t width, uint64_t count,
                            bool cut_after) const {
  std::string prefix = string_prefix(width);
  if (count == 0)
    return prefix + "\"\"" + (cut_after ? "..." : "");
  std::string out;
  bool in_quotes = false;
  uint64_t shown = 0, i = 0;
  while (i < count && shown < options_.element_limit) {
    uint64_t c = character_at(bytes, width, i);
    uint64_t run = 1;
    while (i + run < count && character_at(bytes, width, i + run) == c)
      run++;
    if (run > options_.repeat_threshold) {
      if (in_quotes)
        out += "\"";
      in_quotes = false;
      out += std::string(out.empty() ? "" : ", ") + prefix + "'" + escaped(c, width, '\'') +
             "' <repeats " + std::to_string(run) + " times>";
      i += run;
      shown += options_.repeat_threshold;
      continue;
    }
    if (!in_quotes)
      out += (out.empty() ? "" : ", ") + prefix + "\"";
    in_quotes = true;
    out += escaped(c, width, '"');
    i++;
    shown++;
  }
  if (in_quotes)
    out += "\"";
  if (i < count || cut_after)
    out += "...";
  return out;
}

std::string Formatter::string_at(TargetAddr address, TypeRef element) {
  uint64_t width = std::max<uint64_t>(element->size(), 1);
  std::vector<std::byte> bytes;
  uint64_t count = 0;
  bool ended = false;
  // In pieces that do not cross a page: the string may be the last thing before a hole.
  while (count < options_.element_limit && !ended) {
    TargetAddr at = address + count * width;
    uint64_t room = (dune::kPageSize - at.value % dune::kPageSize) / width;
    uint64_t chunk =
        std::clamp<uint64_t>(std::min<uint64_t>(options_.element_limit - count, room), 1, 64);
    bytes.resize((count + chunk) * width);
    if (!context_.read_memory(at, std::span(bytes).subspan(count * width))) {
      bytes.resize(count * width);
      if (count == 0)
        return "<error: " + cannot_access(address).message + ">";
      return text(bytes, width, count, false) + "<error: " + cannot_access(at).message + ">";
    }
    for (uint64_t i = 0; i < chunk && !ended; i++) {
      ended = character_at(bytes, width, count) == 0;
      count += ended ? 0 : 1;
    }
  }
  bool cut = false;
  if (!ended) { // exactly as long as the limit is not cut
    std::vector<std::byte> one(width);
    cut = !context_.read_memory(address + count * width, one) || character_at(one, width, 0) != 0;
  }
  return text(bytes, width, count, cut);
}

std::string format_address(TargetAddr address, Context& context) {
  std::string out = "0x" + in_base(address.value, 16);
  if (auto symbol = context.symbolize(address))
    out += " <" + symbol->name +
           (symbol->offset ? "+" + std::to_string(symbol->offset) : std::string()) + ">";
  return out;
}

std::string Formatter::pointer(const Value& value) {
  if (value.is_synthetic_pointer)
    return "<synthetic pointer>";
  TypeRef target = value.type->stripped()->target();
  TargetAddr address(static_cast<uint64_t>(number_of(value)));
  std::string out = format_address(address, context_);
  if (is_textual(target) && address)
    out += " " + string_at(address, target);
  return out;
}

std::string Formatter::enumeration(const Value& value) {
  TypeRef type = value.type->stripped();
  auto number = static_cast<int64_t>(number_of(value));
  for (const symbols::Enumerator& e : type->enumerators())
    if (e.value == number)
      return type->enumerator_prefix() + e.name;
  if (!type->is_flag_enum())
    return to_decimal(number, type->is_signed());
  if (number == 0)
    return "0";
  std::string out;
  auto rest = static_cast<uint64_t>(number);
  for (const symbols::Enumerator& e : type->enumerators()) {
    auto bits = static_cast<uint64_t>(e.value);
    if (bits != 0 && (rest & bits) == bits) {
      out += (out.empty() ? "" : " | ") + type->enumerator_prefix() + e.name;
      rest &= ~bits;
    }
  }
  if (rest != 0)
    out += std::string(out.empty() ? "" : " | ") + "unknown: 0x" + in_base(rest, 16);
  return "(" + out + ")";
}

std::string Formatter::with_letter(const Value& value, char letter) {
  TypeRef type = value.type->stripped();
  unsigned size = static_cast<unsigned>(std::min<uint64_t>(type->size(), 16));
  bool is_float = type->kind() == TypeKind::kFloat;
  bool is_signed = type->is_signed() && !is_float;
  Wide number = is_float ? read_integer(value.bytes, false) : number_of(value);
  if (is_float && size == 16) // x87: 10 bytes, and padding that means nothing
    number =
        read_integer(std::span(value.bytes).first(std::min<size_t>(value.bytes.size(), 10)), false);
  unsigned bits = size * 8; // a bit field is shown as its declared type, sign extended
  UnsignedWide mask = bits >= 128 ? ~UnsignedWide{0} : (UnsignedWide{1} << bits) - 1;
  UnsignedWide raw = static_cast<UnsignedWide>(number) & mask;
  switch (letter) {
  case 'x':
    return "0x" + in_base(raw, 16);
  case 'z':
    return "0x" + in_base(raw, 16, size * 2);
  case 'o':
    return raw ? "0" + in_base(raw, 8) : "0";
  case 't':
    return in_base(raw, 2);
  case 'd': {
    unsigned shift = 128 - bits;
    return to_decimal(static_cast<Wide>(raw << shift) >> shift, true);
  }
  case 'u':
    return to_decimal(static_cast<Wide>(raw), false);
  case 'c': {
    // As a char of the value's own sign; a float by its value, unlike for the other letters.
    long double real = is_float ? read_float(value.bytes) : 0;
    if (is_float) // outside of what can be converted there is no character
      raw =
          real > -1e18L && real < 1e18L ? static_cast<UnsignedWide>(static_cast<int64_t>(real)) : 0;
    auto low = static_cast<unsigned char>(raw);
    Wide shown = is_signed ? static_cast<signed char>(low) : low;
    return to_decimal(shown, true) + " " + quote_character(low, '\'');
  }
  case 'a':
    return format_address(TargetAddr(static_cast<uint64_t>(raw)), context_);
  case 'f': {
    if (is_float || ((size == 4 || size == 8) && !value.bit_size))
      return format_float(value.bytes);
    return to_decimal(number, is_signed);
  }
  default:
    return to_decimal(number, is_signed);
  }
}

std::string Formatter::scalar(const Value& value) {
  TypeRef type = value.type->stripped();
  if (options_.letter && options_.letter != 's' && type->kind() != TypeKind::kComplex)
    return with_letter(value, options_.letter);
  switch (type->kind()) {
  case TypeKind::kBool: {
    Wide number = number_of(value);
    return number == 0 ? "false" : number == 1 ? "true" : to_decimal(number, false);
  }
  case TypeKind::kChar: {
    Wide number = number_of(value);
    uint64_t width = type->size();
    auto code = static_cast<uint64_t>(number) & (width >= 8 ? ~0ull : (1ull << (8 * width)) - 1);
    return to_decimal(number, type->is_signed()) + " " + string_prefix(width) + "'" +
           escaped(code, width, '\'') + "'";
  }
  case TypeKind::kFloat:
    return format_float(value.bytes);
  case TypeKind::kComplex: {
    auto half = value.bytes.size() / 2;
    auto bytes = std::span(value.bytes);
    return format_float(bytes.first(half)) + " + " + format_float(bytes.subspan(half)) + "i";
  }
  case TypeKind::kEnum:
    return enumeration(value);
  case TypeKind::kPointer:
    return pointer(value);
  case TypeKind::kFlags: {
    static constexpr struct {
      unsigned bit;
      const char* name;
    } kFlags[] = {{0, "CF"},  {2, "PF"},   {4, "AF"},   {6, "ZF"},  {7, "SF"},  {8, "TF"},
                  {9, "IF"},  {10, "DF"},  {11, "OF"},  {14, "NT"}, {16, "RF"}, {17, "VM"},
                  {18, "AC"}, {19, "VIF"}, {20, "VIP"}, {21, "ID"}};
    auto number = static_cast<uint64_t>(number_of(value));
    std::string out = "[ ";
    for (const auto& flag : kFlags)
      if (number >> flag.bit & 1)
        out += std::string(flag.name) + " ";
    return out + "]";
  }
  case TypeKind::kMemberPointer:
  case TypeKind::kUnsupported:
    return "0x" + in_base(static_cast<UnsignedWide>(read_integer(value.bytes, false)), 16);
  default:
    return to_decimal(number_of(value), type->is_signed());
  }
}

} // namespace ddbg::expr
