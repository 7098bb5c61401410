// Sample programs, compiled by the tests, and reference tools to compare with.
#pragma once

#include <string>
#include <vector>

namespace ddbg::symbols::test {

// The output of a shell command, standard error dropped. Empty when it fails to start.
std::string output_of(const std::string& command);
bool have(const std::string& program); // in PATH
std::vector<std::string> lines_of(const std::string& text);

// Compiles `source` (a name in this folder, or text) with `command` ("g++ -O2 -g"): the path of the
// program. Kept between runs by content, so that a matrix of samples is compiled once. Empty when
// the compiler fails.
std::string compiled(const std::string& command, const std::string& source,
                     const std::string& extension);
std::string source_file(const std::string& name); // in this folder

// A fresh scratch folder, removed with the object.
class ScratchFolder {
public:
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

private:
  std::string path_;
};

std::string read_file(const std::string& path);
void write_file(const std::string& path, const std::string& content);

} // namespace ddbg::symbols::test
