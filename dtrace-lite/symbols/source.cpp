#include "dtrace-lite/symbols/source.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>

namespace ddbg::symbols {
namespace {

constexpr off_t kMaxSourceSize = 256 << 20;

std::string_view base_name(std::string_view path) {
  return path.substr(path.rfind('/') + 1); // npos + 1 is 0
}

} // namespace

const SourceCache::Text& SourceCache::load(const SourceFile& file) {
  const auto [it, fresh] = texts_.try_emplace(file.full_name);
  Text& text = it->second;
  if (!fresh)
    return text;
  std::vector<std::string> candidates;
  for (const auto& [from, to] : substitutions_)
    if (file.full_name.starts_with(from) &&
        (file.full_name.size() == from.size() || from.ends_with('/') ||
         file.full_name[from.size()] == '/'))
      candidates.push_back(to + file.full_name.substr(from.size()));
  candidates.push_back(file.full_name);
  for (const std::string& directory : directories_) {
    candidates.push_back(directory + "/" + file.name);
    candidates.push_back(directory + "/" + std::string(base_name(file.name)));
  }
  int error = ENOENT;
  for (const std::string& path : candidates) {
    const dune::Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
    struct stat status;
    if (!fd || ::fstat(fd.get(), &status) != 0) {
      if (errno != ENOENT)
        error = errno;
      continue;
    }
    if (!S_ISREG(status.st_mode) || status.st_size > kMaxSourceSize) {
      text.problem = Diagnostic{path + ": is not a source file.", ""};
      return text;
    }
    text.path = path;
    text.content.resize(static_cast<size_t>(status.st_size));
    size_t have = 0;
    while (have < text.content.size()) {
      const ssize_t n = ::read(fd.get(), text.content.data() + have, text.content.size() - have);
      if (n < 0 && errno == EINTR)
        continue;
      if (n <= 0)
        break;
      have += static_cast<size_t>(n);
    }
    text.content.resize(have);
    text.starts.push_back(0);
    for (size_t i = 0; i < have; i++)
      if (text.content[i] == '\n' && i + 1 < have)
        text.starts.push_back(i + 1);
    if (have == 0)
      text.starts.clear();
    return text;
  }
  text.problem = Diagnostic{file.name + ": " + std::strerror(error) + ".",
                            "Looked for " + file.full_name +
                                "; `directory DIR` adds a place, `set substitute-path FROM TO` "
                                "maps a moved tree."};
  return text;
}

Checked<size_t> SourceCache::line_count(const SourceFile& file) {
  const Text& text = load(file);
  if (text.problem)
    return *text.problem;
  return text.starts.size();
}

Checked<std::string_view> SourceCache::line(const SourceFile& file, unsigned number) {
  const Text& text = load(file);
  if (text.problem)
    return *text.problem;
  if (number == 0 || number > text.starts.size())
    return Diagnostic{"Line number " + std::to_string(number) + " out of range; \"" + file.name +
                          "\" has " + std::to_string(text.starts.size()) + " lines.",
                      ""};
  const size_t begin = text.starts[number - 1];
  size_t end = number < text.starts.size() ? text.starts[number] - 1 : text.content.size();
  if (end > begin && text.content[end - 1] == '\n')
    end--;
  if (end > begin && text.content[end - 1] == '\r')
    end--;
  return std::string_view(text.content).substr(begin, end - begin);
}

std::string SourceCache::staleness(const SourceFile& file, const std::string& program_path) {
  const Text& text = load(file);
  struct stat source, program;
  if (text.problem || ::stat(text.path.c_str(), &source) != 0 ||
      ::stat(program_path.c_str(), &program) != 0)
    return {};
  if (source.st_mtime > program.st_mtime)
    return "Source file is more recent than executable.";
  return {};
}

} // namespace ddbg::symbols
