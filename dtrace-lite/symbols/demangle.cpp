#include "dtrace-lite/symbols/demangle.h"

#include "dtrace-lite/symbols/demangle_rust.h"

#include <cctype>
#include <cstdlib>
#include <cxxabi.h>

namespace ddbg::symbols {
namespace {

bool is_identifier(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$';
}

// The index past the bracket that closes the one at `open`, or npos.
size_t past_closing(std::string_view s, size_t open) {
  int depth = 0;
  for (size_t i = open; i < s.size(); i++) {
    const char c = s[i];
    if (c == '(' || c == '<' || c == '{' || c == '[')
      depth++;
    else if ((c == ')' || c == '}' || c == ']') || (c == '>' && i > 0 && s[i - 1] != '-'))
      if (--depth == 0)
        return i + 1;
  }
  return std::string_view::npos;
}

// Spaces out, except those that keep two words apart ("unsigned int").
std::string squeeze(std::string_view s) {
  std::string out;
  for (size_t i = 0; i < s.size(); i++) {
    if (s[i] != ' ') {
      out += s[i];
      continue;
    }
    while (i + 1 < s.size() && s[i + 1] == ' ')
      i++;
    if (!out.empty() && i + 1 < s.size() && is_identifier(out.back()) && is_identifier(s[i + 1]))
      out += ' ';
  }
  return out;
}

struct Component {
  std::string base;
  std::string template_arguments; // "<...>" as written
};

struct SplitName {
  std::vector<Component> components;
  std::string parameters; // "(...)" as written
  bool has_parameters = false;
};

constexpr std::string_view kAnonymous = "(anonymous namespace)";
constexpr std::string_view kOperator = "operator";

// A demangled or typed function name in its parts: return type and qualifiers are dropped.
SplitName split_name(std::string_view s) {
  SplitName out;
  Component current;
  const auto finish = [&] {
    if (!current.base.empty())
      out.components.push_back(std::move(current));
    current = {};
  };
  size_t i = 0;
  while (i < s.size()) {
    const char c = s[i];
    const bool word_start = i == 0 || !is_identifier(s[i - 1]);
    if (word_start && s.substr(i).starts_with(kOperator) &&
        (i + kOperator.size() == s.size() || !is_identifier(s[i + kOperator.size()]))) {
      size_t end = i + kOperator.size();
      const std::string_view rest = s.substr(end);
      if (rest.starts_with("()") || rest.starts_with("[]"))
        end += 2;
      else // symbols, or the type of a conversion, up to the parameters
        end = std::min(s.find('(', end), s.size());
      std::string name(s.substr(i, end - i));
      // "operator==<int>": what follows the symbols may be template arguments.
      const size_t symbol = name.find_last_of("=+-*/%^&|!~,]");
      const size_t angle = symbol == std::string::npos ? std::string::npos : name.find('<', symbol);
      if (angle != std::string::npos && name.back() == '>') {
        current.template_arguments = name.substr(angle);
        name.resize(angle);
      }
      current.base = std::move(name);
      i = end;
    } else if (s.substr(i).starts_with("::")) {
      finish();
      i += 2;
    } else if (s.substr(i).starts_with(kAnonymous)) {
      current.base += kAnonymous;
      i += kAnonymous.size();
    } else if (c == '<' || c == '{' || c == '[') {
      const size_t end = past_closing(s, i);
      if (end == std::string_view::npos) {
        current.base += s.substr(i);
        break;
      }
      const std::string_view part = s.substr(i, end - i);
      if (c == '<' && !current.base.empty())
        current.template_arguments = part;
      else if (c == '{' || (c == '<' && current.base.empty()))
        current.base += part; // a lambda, or Rust's <T as Trait>
      else if (!part.starts_with("[abi:"))
        current.base += part;
      i = end;
    } else if (c == '(') {
      const size_t end = past_closing(s, i);
      if (end == std::string_view::npos) {
        current.base += s.substr(i);
        break;
      }
      if (current.base == "decltype") {
        current = {}; // part of the return type
        i = end;
        continue;
      }
      size_t next = end;
      while (s.substr(next).starts_with(" const") || s.substr(next).starts_with(" &"))
        next += s[next + 1] == '&' ? 2 : 6;
      if (s.substr(next).starts_with("::")) { // a function as a scope
        current.base += s.substr(i, end - i);
        i = next;
        continue;
      }
      out.parameters = s.substr(i, end - i);
      out.has_parameters = true;
      break; // qualifiers and [clone ...] follow
    } else if (c == ' ') {
      // What came before was a return type, unless nothing but a qualifier follows.
      if (i + 1 < s.size() && s[i + 1] != '[') {
        out.components.clear();
        current = {};
      } else {
        break;
      }
      i++;
    } else {
      if (c != '*' && c != '&') // of a return type that is a pointer
        current.base += c;
      i++;
    }
  }
  finish();
  return out;
}

} // namespace

namespace {
// __cxa_demangle abbreviates the streams and strings of the old ABI, gdb and c++filt do not.
void expand_abbreviations(std::string& text) {
  struct Abbreviation {
    std::string_view name, full, constructor;
  };
  static constexpr Abbreviation kRows[] = {
      {"std::string", "std::basic_string<char, std::char_traits<char>, std::allocator<char> >",
       "basic_string"},
      {"std::istream", "std::basic_istream<char, std::char_traits<char> >", "basic_istream"},
      {"std::ostream", "std::basic_ostream<char, std::char_traits<char> >", "basic_ostream"},
      {"std::iostream", "std::basic_iostream<char, std::char_traits<char> >", "basic_iostream"}};
  for (const Abbreviation& row : kRows) {
    const std::string_view last = row.name.substr(5);
    for (size_t at = 0; (at = text.find(row.name, at)) != std::string::npos;) {
      size_t end = at + row.name.size();
      if ((end < text.size() && is_identifier(text[end])) ||
          (at > 0 && (is_identifier(text[at - 1]) || text[at - 1] == ':'))) {
        at = end;
        continue;
      }
      std::string full(row.full);
      for (const char* mark : {"::", "::~"}) { // its constructor or destructor
        const std::string own = mark + std::string(last);
        if (text.compare(end, own.size(), own) == 0 &&
            (end + own.size() == text.size() || !is_identifier(text[end + own.size()]))) {
          full += mark + std::string(row.constructor);
          end += own.size();
          break;
        }
      }
      if (full.ends_with('>') && end < text.size() && text[end] == '>')
        full += ' ';
      text.replace(at, end - at, full);
      at += full.size();
    }
  }
}
} // namespace

bool looks_mangled(std::string_view name) {
  return name.starts_with("_Z") || name.starts_with("_R") || name.starts_with("___Z") ||
         name.starts_with("_GLOBAL__");
}

std::string demangle(std::string_view linkage_name) {
  if (!looks_mangled(linkage_name))
    return std::string(linkage_name);
  if (auto rust = demangle_rust(linkage_name))
    return *std::move(rust);
  std::string terminated(linkage_name);
  int status = 0;
  char* text = abi::__cxa_demangle(terminated.c_str(), nullptr, nullptr, &status);
  if (!text)
    return terminated;
  std::string result(text);
  std::free(text);
  expand_abbreviations(result);
  return result;
}

std::string function_name_only(std::string_view demangled) {
  std::string out;
  for (const Component& c : split_name(demangled).components) {
    if (!out.empty())
      out += "::";
    out += c.base + c.template_arguments;
  }
  return out;
}

NameQuery::NameQuery(std::string_view typed) {
  while (typed.starts_with(' '))
    typed.remove_prefix(1);
  while (typed.ends_with(' '))
    typed.remove_suffix(1);
  fully_qualified_ = typed.starts_with("::");
  std::string expanded(typed);
  expand_abbreviations(expanded);
  typed = expanded;
  SplitName split = split_name(typed);
  has_parameters_ = split.has_parameters;
  parameters_ = squeeze(split.parameters);
  if (parameters_ == "(void)")
    parameters_ = "()";
  for (Component& c : split.components) {
    has_template_arguments_ |= !c.template_arguments.empty();
    components_.push_back(squeeze(c.base + c.template_arguments));
  }
  if (split.components.empty())
    return;
  std::string_view last = split.components.back().base;
  if (last.starts_with('~'))
    last.remove_prefix(1);
  bool plain = !last.starts_with(kOperator) && !last.empty();
  for (char c : last)
    plain &= is_identifier(c);
  if (plain) // an Itanium or Rust identifier is its length and its text
    needle_ = std::to_string(last.size()) + std::string(last);
}

bool NameQuery::matches(std::string_view demangled) const {
  if (components_.empty())
    return false;
  const SplitName name = split_name(demangled);
  const size_t n = name.components.size();
  if (n < components_.size() || (fully_qualified_ && n != components_.size()))
    return false;
  for (size_t i = 0; i < components_.size(); i++) {
    const Component& c = name.components[n - components_.size() + i];
    const std::string& wanted = components_[i];
    if (wanted != c.base && (c.template_arguments.empty() || !has_template_arguments_ ||
                             wanted != squeeze(c.base + c.template_arguments)))
      return false;
  }
  return !has_parameters_ || squeeze(name.parameters) == parameters_;
}

} // namespace ddbg::symbols
