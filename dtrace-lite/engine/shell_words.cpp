#include "dtrace-lite/engine/shell_words.h"

#include <cstdlib>
#include <filesystem>
#include <unistd.h>
#include <utility>

namespace ddbg::engine {

namespace {

constexpr std::string_view kBlanks = " \t\n";

bool is_executable_file(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path, ignored) && ::access(path.c_str(), X_OK) == 0;
}

std::string absolute(const std::string& path) {
  std::error_code error;
  std::filesystem::path full = std::filesystem::absolute(path, error);
  return error ? path : full.lexically_normal().string();
}

} // namespace

std::string find_program(const std::string& name) {
  if (name.find('/') != std::string::npos || std::filesystem::exists(name))
    return absolute(name);
  const char* path = std::getenv("PATH");
  std::string_view rest = path ? path : "";
  while (!rest.empty()) {
    const size_t colon = rest.find(':');
    std::string candidate = absolute(std::string(rest.substr(0, colon)) + "/" + name);
    if (is_executable_file(candidate))
      return candidate;
    rest = colon == std::string_view::npos ? "" : rest.substr(colon + 1);
  }
  return absolute(name);
}

std::string shell_quoted(std::string_view word) {
  if (word.empty())
    return "''";
  constexpr std::string_view kSpecial = " \t!\"#$&'()*;<>?[\\]^`{|}~";
  std::string quoted;
  for (const char c : word) {
    if (c == '\n') { // a backslash would take it away
      quoted += "'\n'";
      continue;
    }
    if (kSpecial.find(c) != kSpecial.npos)
      quoted += '\\';
    quoted += c;
  }
  return quoted;
}

std::vector<std::string> split_words(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  bool in_word = false;
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (quote) {
      if (c == quote)
        quote = 0;
      else if (c == '\\' && quote == '"' && i + 1 < text.size())
        word += text[++i];
      else
        word += c;
    } else if (kBlanks.find(c) != kBlanks.npos) {
      if (in_word)
        words.push_back(std::exchange(word, {}));
      in_word = false;
    } else {
      in_word = true;
      if (c == '\'' || c == '"')
        quote = c;
      else if (c == '\\' && i + 1 < text.size())
        word += text[++i];
      else
        word += c;
    }
  }
  if (in_word)
    words.push_back(word);
  return words;
}

} // namespace ddbg::engine
