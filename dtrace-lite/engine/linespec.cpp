#include "dtrace-lite/engine/linespec.h"

#include <algorithm>
#include <cctype>
#include <charconv>

namespace ddbg::engine {

namespace {

std::string_view trim(std::string_view s) {
  while (!s.empty() && std::isspace(static_cast<unsigned char>(s.front())))
    s.remove_prefix(1);
  while (!s.empty() && std::isspace(static_cast<unsigned char>(s.back())))
    s.remove_suffix(1);
  return s;
}

bool is_space(char c) { return std::isspace(static_cast<unsigned char>(c)); }

// True when the word `word` stands at `at`: between blanks, or for `if` before a parenthesis.
bool is_word_at(std::string_view text, size_t at, std::string_view word) {
  if (text.substr(at, word.size()) != word || (at > 0 && !is_space(text[at - 1])))
    return false;
  const size_t after = at + word.size();
  return after == text.size() || is_space(text[after]) || (word == "if" && text[after] == '(');
}

// Where the location ends: the first `if`, `thread` or -force-condition outside of quotes and
// parentheses.
size_t location_end(std::string_view text) {
  int depth = 0;
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote) {
      quote = c == quote ? 0 : quote;
      continue;
    }
    if (c == '\'' || c == '"')
      quote = c;
    else if (c == '(')
      ++depth;
    else if (c == ')')
      --depth;
    else if (depth == 0 && (is_word_at(text, i, "if") || is_word_at(text, i, "thread") ||
                            is_word_at(text, i, "-force-condition")))
      return i;
  }
  return text.size();
}

template <class T> std::optional<T> parse_number(std::string_view s) {
  T value{};
  auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), value);
  if (s.empty() || error != std::errc{} || end != s.data() + s.size())
    return std::nullopt;
  return value;
}

std::string_view take_word(std::string_view& text) {
  text = trim(text);
  size_t end = 0;
  while (end < text.size() && !is_space(text[end]))
    ++end;
  std::string_view word = text.substr(0, end);
  text = trim(text.substr(end));
  return word;
}

std::string quoted(std::string_view name) { return "\"" + std::string(name) + "\""; }

class Resolver {
public:
  Resolver(ModuleSpan modules, const LinespecContext& context)
      : modules_(modules), context_(context) {}

  Linespec run(std::string_view text) {
    text = trim(text);
    bool qualified = false;
    for (const std::string_view option : {"-qualified", "-q", "-function", "-func"}) {
      if (text.starts_with(option) && text.size() > option.size() &&
          is_space(text[option.size()])) {
        qualified |= option.starts_with("-q");
        text = trim(text.substr(option.size()));
      }
    }
    if (text.empty())
      here();
    else if (text.front() == '*')
      address(trim(text.substr(1)));
    else if (!line_or_offset(text))
      name(text, qualified);
    finish();
    return std::move(result_);
  }

private:
  void fail(std::string message, std::string hint = {}) {
    result_.problem = {std::move(message), std::move(hint), {}};
  }

  void here() {
    if (!context_.default_pc)
      return fail("No default breakpoint location now.", "Give a location: a function, FILE:LINE.");
    at_pc(*context_.default_pc);
  }

  void address(std::string_view expression) {
    if (expression.empty())
      return fail("Argument required (an expression computing an address).");
    if (!context_.evaluate)
      return fail("No symbol table is loaded.  Use the \"file\" command.");
    Checked<uint64_t> value = context_.evaluate(expression);
    if (!value) {
      result_.problem = value.error();
      return;
    }
    at_pc(TargetAddr(*value));
  }

  void at_pc(TargetAddr pc) {
    const CodeLocation location = locate(modules_, pc);
    result_.places.push_back({pc, location.module, location.source, location.function});
  }

  // "12", "+3", "-2", "FILE:12". False: it is none of these.
  bool line_or_offset(std::string_view text) {
    if (std::isdigit(static_cast<unsigned char>(text.front())) || text.front() == '+' ||
        text.front() == '-') {
      const bool relative = !std::isdigit(static_cast<unsigned char>(text.front()));
      std::optional<unsigned> number =
          parse_number<unsigned>(relative ? trim(text.substr(1)) : text);
      if (!number) {
        fail("malformed linespec error: unexpected string, " + quoted(text) + ".");
        return true;
      }
      relative_line(relative ? text.front() : '=', *number);
      return true;
    }
    const size_t colon = text.rfind(':');
    if (colon == std::string_view::npos || colon == 0)
      return false;
    std::optional<unsigned> number = parse_number<unsigned>(trim(text.substr(colon + 1)));
    if (!number)
      return false;
    file_line(unquote(trim(text.substr(0, colon))), *number);
    return true;
  }

  static std::string_view unquote(std::string_view s) {
    if (s.size() >= 2 && (s.front() == '\'' || s.front() == '"') && s.back() == s.front())
      return s.substr(1, s.size() - 2);
    return s;
  }

  void relative_line(char sign, unsigned number) {
    const SourceLine from = context_.default_line ? context_.default_line() : SourceLine{};
    if (!from.file)
      return fail(modules_.empty() ? "No symbol table is loaded.  Use the \"file\" command."
                                   : "No line number information available for the default "
                                     "location.",
                  "Name the file too: FILE:LINE.");
    unsigned line = number;
    if (sign == '+')
      line = from.line + number;
    else if (sign == '-')
      line = from.line > number ? from.line - number : 1;
    file_line(from.file->full_name.empty() ? from.file->name : from.file->full_name, line);
  }

  void file_line(std::string_view file, unsigned line) {
    bool file_known = false;
    for (const symbols::LoadedModule& module : modules_) {
      symbols::Lines& lines = module.module->lines();
      std::vector<symbols::CodePlace> found = lines.places(file, line);
      file_known |= !found.empty() || !lines.files(file).empty();
      add(module, found);
    }
    if (!result_.places.empty())
      return;
    result_.may_come_later = true; // a library may have a file of that name, too
    if (file_known)
      return fail("No line " + std::to_string(line) + " in file " + quoted(file) + ".");
    fail("No source file named " + std::string(file) + ".");
  }

  void name(std::string_view text, bool qualified) {
    // FILE:FUNCTION; the colons of ns::f are pairs.
    for (size_t i = 1; i + 1 < text.size(); ++i) {
      if (text[i] != ':')
        continue;
      if (text[i + 1] == ':' || text[i - 1] == ':')
        continue;
      if (text[i - 1] == ')' || text.substr(0, i).find('(') != std::string_view::npos)
        continue;
      return function(unquote(trim(text.substr(i + 1))), unquote(trim(text.substr(0, i))),
                      qualified);
    }
    function(unquote(text), {}, qualified);
  }

  void function(std::string_view typed, std::string_view file, bool qualified) {
    std::string query(typed);
    if (qualified && !query.starts_with("::"))
      query = "::" + query;
    bool file_known = file.empty();
    for (const symbols::LoadedModule& module : modules_) {
      if (!file.empty()) {
        if (module.module->lines().files(file).empty())
          continue;
        file_known = true;
      }
      std::vector<symbols::CodePlace> found = module.module->functions().places(query);
      if (!file.empty())
        std::erase_if(found, [&](const symbols::CodePlace& place) {
          return !place.file || !(symbols::file_name_matches(place.file->name, file) ||
                                  symbols::file_name_matches(place.file->full_name, file));
        });
      add(module, found);
    }
    if (!result_.places.empty())
      return;
    // A PLT entry stands for the function until the library that has it is there.
    if (file.empty())
      for (const symbols::LoadedModule& module : modules_)
        if (std::optional<symbols::Symbol> plt = module.module->symbols().find_plt(typed))
          result_.places.push_back({module.to_target(plt->address), module.path, {}, plt->name()});
    if (!result_.places.empty())
      return;
    result_.may_come_later = true;
    if (!file_known)
      return fail("No source file named " + std::string(file) + ".");
    if (modules_.empty())
      return fail("No symbol table is loaded.  Use the \"file\" command.");
    std::string hint;
    for (const symbols::LoadedModule& module : modules_) {
      const std::string nearest = module.module->symbols().nearest_name(typed);
      if (!nearest.empty()) {
        hint = "Did you mean " + quoted(nearest) + "?";
        break;
      }
    }
    if (file.empty())
      fail("Function " + quoted(typed) + " not defined.", hint);
    else
      fail("Function " + quoted(typed) + " not defined in " + quoted(file) + ".", hint);
  }

  void add(const symbols::LoadedModule& module, const std::vector<symbols::CodePlace>& places) {
    for (const symbols::CodePlace& place : places) {
      const std::optional<symbols::Function> in = module.module->functions().at(place.address);
      result_.places.push_back({module.to_target(place.address),
                                module.path,
                                {place.file, place.line},
                                in ? in->name : std::string()});
    }
  }

  void finish() {
    auto& places = result_.places;
    std::sort(places.begin(), places.end(),
              [](const auto& a, const auto& b) { return a.address < b.address; });
    places.erase(std::unique(places.begin(), places.end(),
                             [](const auto& a, const auto& b) { return a.address == b.address; }),
                 places.end());
    if (!places.empty()) {
      result_.may_come_later = false;
      result_.problem = {};
    }
  }

  ModuleSpan modules_;
  const LinespecContext& context_;
  Linespec result_;
};

} // namespace

Checked<BreakArguments> parse_break_arguments(std::string_view text) {
  BreakArguments out;
  text = trim(text);
  const size_t end = location_end(text);
  out.location = trim(text.substr(0, end));
  std::string_view rest = text.substr(end);
  while (!(rest = trim(rest)).empty()) {
    if (is_word_at(rest, 0, "if")) {
      out.condition = trim(rest.substr(2));
      if (out.condition.empty())
        return Diagnostic{"Argument required (a condition after \"if\").", {}, {}};
      break;
    }
    const std::string_view word = take_word(rest);
    if (word == "thread") {
      const std::string_view number = take_word(rest);
      out.thread = parse_number<unsigned>(number);
      if (!out.thread)
        return Diagnostic{"Invalid thread ID: " + std::string(number), {}, {}};
    } else if (word == "-force-condition") {
      out.force_condition = true;
    } else {
      return Diagnostic{"Junk after the location: " + quoted(word) + ".", {}, {}};
    }
  }
  return out;
}

bool is_position(std::string_view location) {
  const std::string_view last = location.substr(location.rfind(':') + 1);
  return location.empty() || location[0] == '*' ||
         last.find_first_not_of("0123456789+- ") == std::string_view::npos;
}

Linespec resolve_linespec(ModuleSpan modules, const LinespecContext& context,
                          std::string_view text) {
  return Resolver(modules, context).run(text);
}

} // namespace ddbg::engine
