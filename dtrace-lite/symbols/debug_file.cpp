#include "dtrace-lite/symbols/debug_file.h"

#include <array>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

namespace ddbg::symbols {
namespace {

std::string directory_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

std::string resolved(const std::string& path) {
  char buffer[PATH_MAX];
  return ::realpath(path.c_str(), buffer) ? buffer : path;
}

std::string build_id_path(const std::string& directory, const std::string& id) {
  return directory + "/.build-id/" + id.substr(0, 2) + "/" + id.substr(2) + ".debug";
}

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

void warn(std::vector<std::string>* warnings, std::string text) {
  if (warnings)
    warnings->push_back(std::move(text));
}

std::unique_ptr<ElfFile> open_debug(const std::string& path, std::vector<std::string>* warnings) {
  auto file = ElfFile::open(path, ElfPurpose::kDebugInfo);
  if (!file) {
    warn(warnings, file.error().message);
    return nullptr;
  }
  return *std::move(file);
}

struct Link {
  std::string name;
  Bytes rest; // what follows the name's terminator
};

std::optional<Link> read_link(const ElfFile& file, std::string_view section) {
  const Section* s = file.section(section);
  if (!s || s->data.empty())
    return std::nullopt;
  const char* begin = reinterpret_cast<const char*>(s->data.data());
  const size_t length = strnlen(begin, s->data.size());
  if (length == 0 || length == s->data.size())
    return std::nullopt;
  return Link{std::string(begin, length), s->data.subspan(length + 1)};
}

std::string to_hex(Bytes bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (std::byte b : bytes) {
    hex += kDigits[std::to_integer<unsigned>(b) >> 4];
    hex += kDigits[std::to_integer<unsigned>(b) & 15];
  }
  return hex;
}

} // namespace

uint32_t gnu_debuglink_crc(Bytes data) {
  static const auto kTable = [] {
    std::array<uint32_t, 256> table{};
    for (uint32_t i = 0; i < 256; i++) {
      uint32_t c = i;
      for (int bit = 0; bit < 8; bit++)
        c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
      table[i] = c;
    }
    return table;
  }();
  uint32_t crc = ~0u;
  for (std::byte b : data)
    crc = kTable[(crc ^ std::to_integer<uint32_t>(b)) & 0xff] ^ (crc >> 8);
  return ~crc;
}

std::unique_ptr<ElfFile> find_debug_file(const ElfFile& file, const DebugFileOptions& options,
                                         std::vector<std::string>* warnings) {
  if (file.build_id().size() > 2) {
    for (const std::string& directory : options.directories) {
      const std::string path = build_id_path(directory, file.build_id());
      if (!exists(path) || resolved(path) == resolved(file.path()))
        continue;
      if (auto debug = open_debug(path, warnings)) {
        if (debug->build_id() == file.build_id())
          return debug;
        warn(warnings, path + ": its build-id is not that of " + file.path() + "; not used.");
      }
    }
  }
  const auto link = read_link(file, ".gnu_debuglink");
  if (!link || link->name.find('/') != std::string::npos)
    return nullptr;
  // The CRC follows the name, 4-aligned from the section's start.
  const size_t padding = (4 - (link->name.size() + 1) % 4) % 4;
  if (link->rest.size() < padding + 4)
    return nullptr;
  uint32_t expected;
  std::memcpy(&expected, link->rest.data() + padding, 4);

  const std::string home = directory_of(resolved(file.path()));
  std::vector<std::string> candidates{home + "/" + link->name, home + "/.debug/" + link->name};
  for (const std::string& directory : options.directories)
    candidates.push_back(directory + home + "/" + link->name);
  for (const std::string& path : candidates) {
    if (!exists(path) || resolved(path) == resolved(file.path()))
      continue;
    auto debug = open_debug(path, warnings);
    if (!debug)
      continue;
    // Equal build-ids prove what the CRC would, without reading the whole file.
    const bool same_id = !file.build_id().empty() && debug->build_id() == file.build_id();
    if (same_id || gnu_debuglink_crc(debug->image()) == expected)
      return debug;
    warn(warnings, "the debug information in \"" + path + "\" does not match \"" + file.path() +
                       "\" (CRC mismatch); not used.");
  }
  return nullptr;
}

std::unique_ptr<ElfFile> find_alternate_file(const ElfFile& debug, const DebugFileOptions& options,
                                             std::vector<std::string>* warnings) {
  const auto link = read_link(debug, ".gnu_debugaltlink");
  if (!link)
    return nullptr;
  const std::string id = to_hex(link->rest);
  std::vector<std::string> candidates;
  if (link->name.starts_with('/'))
    candidates.push_back(link->name);
  else
    candidates.push_back(directory_of(resolved(debug.path())) + "/" + link->name);
  for (const std::string& directory : options.directories)
    if (id.size() > 2)
      candidates.push_back(build_id_path(directory, id));
  for (const std::string& path : candidates) {
    if (!exists(path))
      continue;
    auto file = open_debug(path, warnings);
    if (file && file->build_id() == id)
      return file;
  }
  warn(warnings, debug.path() + ": the shared debug file " + link->name +
                     " that it needs was not found; some names and types are missing.");
  return nullptr;
}

} // namespace ddbg::symbols
