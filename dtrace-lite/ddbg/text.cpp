#include "dtrace-lite/ddbg/text.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <tuple>

namespace ddbg::ui {

namespace {
constexpr std::string_view kBlanks = " \t\r\n\v\f";
constexpr size_t kMaxListed = 65536;
} // namespace

std::string_view trim(std::string_view text) {
  size_t begin = text.find_first_not_of(kBlanks);
  if (begin == text.npos)
    return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

std::pair<std::string_view, std::string_view> split_first(std::string_view text) {
  text = trim(text);
  size_t end = std::min(text.find_first_of(kBlanks), text.size());
  return {text.substr(0, end), trim(text.substr(end))};
}

std::vector<std::string_view> split_blank(std::string_view text) {
  std::vector<std::string_view> words;
  for (auto [word, rest] = split_first(text); !word.empty();
       std::tie(word, rest) = split_first(rest))
    words.push_back(word);
  return words;
}

bool starts_with_word(std::string_view text, std::string_view word) {
  return text.starts_with(word) &&
         (text.size() == word.size() || kBlanks.find(text[word.size()]) != kBlanks.npos);
}

Checked<int64_t> parse_integer(std::string_view text) {
  std::string_view digits = text;
  bool negative = digits.starts_with('-');
  if (negative)
    digits.remove_prefix(1);
  int base = 10;
  if (digits.starts_with("0x") || digits.starts_with("0X")) {
    base = 16;
    digits.remove_prefix(2);
  }
  uint64_t value = 0;
  auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (digits.empty() || error == std::errc::invalid_argument ||
      end != digits.data() + digits.size())
    return Diagnostic{"\"" + std::string(text) + "\" is not a number.", {}, {}};
  if (error == std::errc::result_out_of_range || (base == 10 && value > INT64_MAX))
    return Diagnostic{"Numeric constant too large.", {}, {}};
  return static_cast<int64_t>(negative ? -value : value);
}

Checked<std::vector<int>> parse_number_list(std::string_view text, std::string_view what) {
  std::vector<int> numbers;
  std::string spaced(text);
  std::replace(spaced.begin(), spaced.end(), ',', ' ');
  for (std::string_view word : split_blank(spaced)) {
    if (word.starts_with('-'))
      return Diagnostic{"negative value", {}, {}};
    size_t dash = word.find('-');
    auto number = [&](std::string_view part) -> Checked<int> {
      auto value = parse_integer(part);
      if (!value || *value > INT32_MAX)
        return Diagnostic{"Bad " + std::string(what) + " argument: '" + std::string(word) + "'",
                          "Give numbers or ranges such as 2-4.",
                          {}};
      return static_cast<int>(*value);
    };
    auto first = number(word.substr(0, dash));
    if (!first)
      return first.error();
    int last = *first;
    if (dash != word.npos) {
      auto end = number(word.substr(dash + 1));
      if (!end)
        return end.error();
      last = *end;
      if (last < *first)
        return Diagnostic{"inverted range", {}, {}};
    }
    if (static_cast<size_t>(last - *first) + numbers.size() >= kMaxListed)
      return Diagnostic{"Too many numbers.", "Give smaller ranges.", {}};
    for (int n = *first; n < last; ++n)
      numbers.push_back(n);
    numbers.push_back(last);
  }
  return numbers;
}

unsigned edit_distance(std::string_view a, std::string_view b) {
  // Optimal string alignment, three rows.
  std::vector<unsigned> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j)
    above[j] = static_cast<unsigned>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = static_cast<unsigned>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, above);
    std::swap(above, row);
  }
  return above[b.size()];
}

std::string expand_tilde(std::string_view path) {
  const char* home = std::getenv("HOME");
  if (home && (path == "~" || path.starts_with("~/")))
    return home + std::string(path.substr(1));
  return std::string(path);
}

} // namespace ddbg::ui
