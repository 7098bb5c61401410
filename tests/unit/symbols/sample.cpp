#include "tests/unit/symbols/sample.h"

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <unistd.h>

namespace ddbg::symbols::test {

std::string output_of(const std::string& command) {
  std::string text;
  FILE* pipe = ::popen(("exec 2>/dev/null; " + command).c_str(), "r");
  if (!pipe)
    return text;
  char buffer[65536];
  for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;)
    text.append(buffer, n);
  ::pclose(pipe);
  return text;
}

bool have(const std::string& program) { return !output_of("command -v " + program).empty(); }

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);)
    lines.push_back(line);
  return lines;
}

std::string source_file(const std::string& name) {
  return std::string(SYMBOLS_TEST_SOURCE_DIR) + "/" + name;
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

namespace {
// In the build folder, so that samples are compiled once; another user's run has a temporary one.
std::string work_folder() {
  return ::access(SYMBOLS_TEST_BINARY_DIR, W_OK) == 0
             ? SYMBOLS_TEST_BINARY_DIR
             : std::filesystem::temp_directory_path().string();
}
} // namespace

void write_file(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

std::string compiled(const std::string& command, const std::string& source,
                     const std::string& extension) {
  const bool is_name = source.find('\n') == std::string::npos;
  const std::string text = is_name ? read_file(source_file(source)) : source;
  const size_t hash = std::hash<std::string>()(command + "|" + extension + "|" + text);
  const std::string folder = work_folder() + "/samples";
  std::filesystem::create_directories(folder);
  std::string base = folder + "/" + std::to_string(hash);
  if (::access(base.c_str(), X_OK) == 0)
    return base;
  // Tests run in parallel: each compiles under a name of its own and moves the result.
  const std::string own = base + "." + std::to_string(::getpid());
  // The source keeps one name for all, since names of files are part of what is tested.
  const std::string source_path =
      folder + "/sample" + std::to_string(std::hash<std::string>()(text)) + "." + extension;
  const std::string source_own = source_path + "." + std::to_string(::getpid());
  write_file(source_own, text);
  std::filesystem::rename(source_own, source_path);
  output_of(command + " " + source_path + " -o " + own);
  if (::access(own.c_str(), R_OK) != 0)
    return {};
  std::filesystem::rename(own, base);
  return base;
}

ScratchFolder::ScratchFolder() {
  std::string path = work_folder() + "/scratch-XXXXXX";
  path_ = ::mkdtemp(path.data()) ? path : std::string();
}
ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  if (!path_.empty())
    std::filesystem::remove_all(path_, ignored);
}

} // namespace ddbg::symbols::test
