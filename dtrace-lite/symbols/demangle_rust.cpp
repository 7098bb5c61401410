#include "dtrace-lite/symbols/demangle_rust.h"

#include <cctype>
#include <cstdint>
#include <vector>

namespace ddbg::symbols {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f'); }

void append_utf8(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xc0 | c >> 6);
    out += static_cast<char>(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xe0 | c >> 12);
    out += static_cast<char>(0x80 | (c >> 6 & 0x3f));
    out += static_cast<char>(0x80 | (c & 0x3f));
  } else {
    out += static_cast<char>(0xf0 | (c >> 18 & 7));
    out += static_cast<char>(0x80 | (c >> 12 & 0x3f));
    out += static_cast<char>(0x80 | (c >> 6 & 0x3f));
    out += static_cast<char>(0x80 | (c & 0x3f));
  }
}

// "$LT$T$u20$as$u20$U$GT$" -> "<T as U>"; ".." -> "::".
std::string unescape_legacy(std::string_view s) {
  struct Escape {
    std::string_view code;
    char text;
  };
  static constexpr Escape kEscapes[] = {{"SP", '@'}, {"BP", '*'}, {"RF", '&'}, {"LT", '<'},
                                        {"GT", '>'}, {"LP", '('}, {"RP", ')'}, {"C", ','}};
  std::string out;
  if (s.starts_with("_$"))
    s.remove_prefix(1);
  while (!s.empty()) {
    if (s.starts_with("..")) {
      out += "::";
      s.remove_prefix(2);
      continue;
    }
    const size_t end = s[0] == '$' ? s.find('$', 1) : std::string_view::npos;
    if (end == std::string_view::npos) {
      out += s[0];
      s.remove_prefix(1);
      continue;
    }
    const std::string_view code = s.substr(1, end - 1);
    bool known = false;
    for (const Escape& e : kEscapes) {
      if (e.code == code) {
        out += e.text;
        known = true;
      }
    }
    if (!known && code.size() > 1 && code.size() <= 7 && code[0] == 'u') {
      uint32_t value = 0;
      known = true;
      for (char c : code.substr(1)) {
        known &= is_hex(c);
        value = value * 16 + static_cast<uint32_t>(is_digit(c) ? c - '0' : c - 'a' + 10);
      }
      if (known)
        append_utf8(out, value);
    }
    if (!known) {
      out += s[0];
      s.remove_prefix(1);
      continue;
    }
    s.remove_prefix(end + 1);
  }
  return out;
}

std::optional<std::string> demangle_legacy(std::string_view s) {
  s.remove_prefix(3); // _ZN
  std::vector<std::string_view> parts;
  while (!s.empty() && is_digit(s[0])) {
    size_t length = 0;
    while (!s.empty() && is_digit(s[0]) && length < 100000) {
      length = length * 10 + static_cast<size_t>(s[0] - '0');
      s.remove_prefix(1);
    }
    if (length > s.size())
      return std::nullopt;
    parts.push_back(s.substr(0, length));
    s.remove_prefix(length);
  }
  if (!s.starts_with('E') || parts.size() < 2)
    return std::nullopt;
  const std::string_view hash = parts.back();
  if (hash.size() != 17 || hash[0] != 'h')
    return std::nullopt;
  for (char c : hash.substr(1))
    if (!is_hex(c))
      return std::nullopt;
  std::string out;
  for (size_t i = 0; i + 1 < parts.size(); i++) {
    if (i)
      out += "::";
    out += unescape_legacy(parts[i]);
  }
  return out;
}

// v0, RFC 2603. Recursive descent over the mangled text; gives up on what it does not know.
class V0 {
public:
  explicit V0(std::string_view text) : text_(text) {}

  std::optional<std::string> run() {
    if (!text_.empty() && is_digit(text_[0]))
      return std::nullopt; // a later encoding version
    path(true);
    if (failed_)
      return std::nullopt;
    return std::move(out_);
  }

private:
  static constexpr int kMaxDepth = 200;
  static constexpr size_t kMaxOutput = 65536; // backreferences can blow a short name up

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  char take() {
    if (at_ >= text_.size()) {
      failed_ = true;
      return '\0';
    }
    return text_[at_++];
  }
  bool eat(char c) {
    if (peek() != c)
      return false;
    at_++;
    return true;
  }
  void print(std::string_view s) {
    if (silent_)
      return;
    out_ += s;
    failed_ |= out_.size() > kMaxOutput;
  }

  uint64_t base62() { // "_" is 0, "0_" is 1
    if (eat('_'))
      return 0;
    uint64_t value = 0;
    while (!failed_ && !eat('_')) {
      const char c = take();
      unsigned digit = 0;
      if (is_digit(c))
        digit = static_cast<unsigned>(c - '0');
      else if (c >= 'a' && c <= 'z')
        digit = static_cast<unsigned>(c - 'a' + 10);
      else if (c >= 'A' && c <= 'Z')
        digit = static_cast<unsigned>(c - 'A' + 36);
      else
        failed_ = true;
      value = value * 62 + digit;
    }
    return value + 1;
  }
  uint64_t disambiguator() { return eat('s') ? base62() + 1 : 0; }

  std::string identifier() {
    const bool punycode = eat('u');
    size_t length = 0;
    if (!is_digit(peek()))
      failed_ = true;
    if (!eat('0'))
      while (is_digit(peek()) && length < text_.size())
        length = length * 10 + static_cast<size_t>(take() - '0');
    eat('_');
    if (failed_ || length > text_.size() - at_) {
      failed_ = true;
      return {};
    }
    std::string name(text_.substr(at_, length));
    at_ += length;
    // Rare enough to be shown as it is, in the form rustc-demangle uses when it cannot decode.
    return punycode ? "punycode{" + name + "}" : name;
  }

  struct Nested { // counts depth, and fails beyond the limit
    explicit Nested(V0& v) : v_(v) { v_.failed_ |= ++v_.depth_ > kMaxDepth; }
    ~Nested() { v_.depth_--; }
    V0& v_;
  };

  template <class F> void back_reference(F f) {
    const size_t target = base62();
    // The text begins after "_R"; positions count from there.
    if (failed_ || target >= at_) {
      failed_ = true;
      return;
    }
    const size_t saved = at_;
    at_ = target;
    f();
    at_ = saved;
  }

  void path(bool in_value) {
    const Nested nested(*this);
    if (failed_)
      return;
    switch (take()) {
    case 'C':
      disambiguator();
      print(identifier());
      break;
    case 'M': // <T>
      implementation_path();
      print("<");
      type();
      print(">");
      break;
    case 'X': // <T as Trait>, with the impl's path
      implementation_path();
      [[fallthrough]];
    case 'Y':
      print("<");
      type();
      print(" as ");
      path(false);
      print(">");
      break;
    case 'N': {
      const char space = take();
      path(in_value);
      const uint64_t d = disambiguator();
      const std::string name = identifier();
      if (space >= 'A' && space <= 'Z') {
        print("::{");
        print(space == 'C' ? "closure" : space == 'S' ? "shim" : std::string(1, space));
        if (!name.empty())
          print(":" + name);
        print("#" + std::to_string(d) + "}");
      } else if (!name.empty()) {
        print("::" + name);
      }
      break;
    }
    case 'I':
      path(in_value);
      print(in_value ? "::<" : "<");
      for (bool first = true; !failed_ && !eat('E'); first = false) {
        if (!first)
          print(", ");
        generic_argument();
      }
      print(">");
      break;
    case 'B':
      back_reference([&] { path(in_value); });
      break;
    default:
      failed_ = true;
    }
  }

  void implementation_path() { // parsed, not shown
    disambiguator();
    const bool saved = silent_;
    silent_ = true;
    path(false);
    silent_ = saved;
  }

  void generic_argument() {
    if (eat('L')) {
      lifetime();
    } else if (eat('K')) {
      constant();
    } else {
      type();
    }
  }

  void lifetime() {
    const uint64_t index = base62();
    print(index == 0 ? "'_" : "'" + std::string(1, static_cast<char>('a' + (index - 1) % 26)));
  }

  static std::string_view basic_type(char c) {
    switch (c) {
    case 'a':
      return "i8";
    case 'b':
      return "bool";
    case 'c':
      return "char";
    case 'd':
      return "f64";
    case 'e':
      return "str";
    case 'f':
      return "f32";
    case 'h':
      return "u8";
    case 'i':
      return "isize";
    case 'j':
      return "usize";
    case 'l':
      return "i32";
    case 'm':
      return "u32";
    case 'n':
      return "i128";
    case 'o':
      return "u128";
    case 'p':
      return "_";
    case 's':
      return "i16";
    case 't':
      return "u16";
    case 'u':
      return "()";
    case 'v':
      return "...";
    case 'x':
      return "i64";
    case 'y':
      return "u64";
    case 'z':
      return "!";
    default:
      return {};
    }
  }

  void type() {
    const Nested nested(*this);
    if (failed_)
      return;
    const char c = take();
    if (const auto basic = basic_type(c); !basic.empty()) {
      print(basic);
      return;
    }
    switch (c) {
    case 'A':
      print("[");
      type();
      print("; ");
      constant();
      print("]");
      break;
    case 'S':
      print("[");
      type();
      print("]");
      break;
    case 'T': {
      print("(");
      size_t count = 0;
      for (; !failed_ && !eat('E'); count++) {
        if (count)
          print(", ");
        type();
      }
      print(count == 1 ? ",)" : ")");
      break;
    }
    case 'R':
    case 'Q':
      print("&");
      if (eat('L')) {
        if (peek() != '_') {
          lifetime();
          print(" ");
        } else {
          at_++;
        }
      }
      print(c == 'Q' ? "mut " : "");
      type();
      break;
    case 'P':
    case 'O':
      print(c == 'P' ? "*const " : "*mut ");
      type();
      break;
    case 'F':
      function_type();
      break;
    case 'D':
      dynamic_type();
      break;
    case 'B':
      back_reference([&] { type(); });
      break;
    default:
      at_--;
      path(false);
    }
  }

  void binder() {
    if (eat('G'))
      base62();
  }

  void function_type() {
    binder();
    if (eat('U'))
      print("unsafe ");
    if (eat('K')) {
      print("extern \"");
      print(eat('C') ? "C" : identifier());
      print("\" ");
    }
    print("fn(");
    for (bool first = true; !failed_ && !eat('E'); first = false) {
      if (!first)
        print(", ");
      type();
    }
    print(")");
    if (eat('u'))
      return;
    print(" -> ");
    type();
  }

  void dynamic_type() {
    print("dyn ");
    binder();
    for (bool first = true; !failed_ && !eat('E'); first = false) {
      if (!first)
        print(" + ");
      path(false);
      bool open = false;
      while (eat('p')) {
        print(open ? ", " : "<");
        open = true;
        print(identifier());
        print(" = ");
        type();
      }
      if (open)
        print(">");
    }
    if (!eat('L'))
      failed_ = true;
    else if (base62() != 0)
      print(" + '_");
  }

  void constant() {
    const Nested nested(*this);
    if (failed_)
      return;
    if (eat('B')) {
      back_reference([&] { constant(); });
      return;
    }
    if (eat('p')) {
      print("_");
      return;
    }
    const char kind = take();
    const bool negative = eat('n');
    uint64_t value = 0;
    bool large = false;
    std::string digits;
    while (!failed_ && !eat('_')) {
      const char c = take();
      if (!is_hex(c))
        failed_ = true;
      large |= value >> 60 != 0;
      value = value * 16 + static_cast<uint64_t>(is_digit(c) ? c - '0' : c - 'a' + 10);
      digits += c;
    }
    if (kind == 'b') {
      print(value ? "true" : "false");
    } else if (kind == 'c') {
      std::string text;
      append_utf8(text, static_cast<uint32_t>(value));
      print("'" + text + "'");
    } else {
      print(negative ? "-" : "");
      print(large ? "0x" + digits : std::to_string(value));
    }
  }

  std::string_view text_;
  size_t at_ = 0;
  std::string out_;
  bool failed_ = false;
  bool silent_ = false;
  int depth_ = 0;
};

} // namespace

std::optional<std::string> demangle_rust(std::string_view name) {
  if (name.starts_with("_ZN"))
    return demangle_legacy(name);
  if (name.starts_with("_R"))
    return V0(name.substr(2, name.find('.') == std::string_view::npos ? std::string_view::npos
                                                                      : name.find('.') - 2))
        .run();
  return std::nullopt;
}

} // namespace ddbg::symbols
