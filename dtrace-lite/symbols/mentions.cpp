#include "dtrace-lite/symbols/mentions.h"

#include "dtrace-lite/symbols/byte_reader.h"
#include "dtrace-lite/symbols/module.h"

#include <algorithm>
#include <cstring>
#include <elf.h>
#include <zlib.h>

namespace ddbg::symbols {
namespace {

constexpr size_t kPiece = 64 * 1024;

// Strings that are short, or used once, may stand in .debug_info itself.
constexpr std::string_view kNames[] = {".debug_str", ".debug_info", ".debug_types"};
// DWARF 4 has file names in the line program, 5 in either table of strings.
constexpr std::string_view kFiles[] = {".debug_line_str", ".debug_str", ".debug_line"};

// Is there a string that is `text`, or has it before an angle bracket? Linkers let a string be the
// tail of another, so it may begin anywhere.
bool holds(Bytes bytes, std::string_view text) {
  if (bytes.empty())
    return false;
  const auto* at = reinterpret_cast<const char*>(bytes.data());
  const char* const end = at + bytes.size();
  for (;; ++at) {
    at = static_cast<const char*>(
        ::memmem(at, static_cast<size_t>(end - at), text.data(), text.size()));
    if (!at)
      return false;
    const char* const after = at + text.size();
    if (after < end && (*after == 0 || *after == '<'))
      return true;
  }
}

// The same of a zlib stream, a piece at a time. What cannot be inflated counts as holding it.
bool deflated_holds(Bytes deflated, std::string_view text) {
  z_stream stream{};
  if (::inflateInit(&stream) != Z_OK)
    return true;
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(deflated.data()));
  stream.avail_in = static_cast<uInt>(std::min<size_t>(deflated.size(), UINT32_MAX));
  const size_t overlap = text.size(); // a match, and what follows it, may lie across two pieces
  std::vector<std::byte> piece(overlap + kPiece);
  size_t kept = 0;
  bool found = false;
  for (int status = Z_OK; status == Z_OK && !found;) {
    stream.next_out = reinterpret_cast<Bytef*>(piece.data() + kept);
    stream.avail_out = static_cast<uInt>(piece.size() - kept);
    status = ::inflate(&stream, Z_NO_FLUSH);
    const size_t size = piece.size() - stream.avail_out;
    found = (status != Z_OK && status != Z_STREAM_END) || holds({piece.data(), size}, text);
    kept = std::min(overlap, size);
    std::memmove(piece.data(), piece.data() + size - kept, kept);
  }
  ::inflateEnd(&stream);
  return found;
}

bool section_holds(const Section& section, std::string_view text) {
  if (section.name.starts_with(".zdebug")) // "ZLIB" and the size, then the stream
    return section.data.size() < 12 || deflated_holds(section.data.subspan(12), text);
  if (!(section.flags & SHF_COMPRESSED))
    return holds(section.data, text);
  ByteReader reader(section.data);
  const auto header = reader.fixed<Elf64_Chdr>();
  if (reader.failed() || header.ch_type != ELFCOMPRESS_ZLIB)
    return true;
  return deflated_holds(section.data.subspan(sizeof header), text);
}

} // namespace

std::string_view without_template_arguments(std::string_view name) {
  if (name.starts_with("operator"))
    return name;
  return name.substr(0, name.find('<'));
}

std::string_view last_component(std::string_view typed) {
  typed = typed.substr(0, typed.find('('));
  size_t begin = 0;
  int nesting = 0;
  for (size_t i = 0; i < typed.size(); ++i) {
    if (i == begin && typed.substr(i).starts_with("operator"))
      break;
    nesting += typed[i] == '<' ? 1 : typed[i] == '>' ? -1 : 0;
    if (nesting == 0 && typed.substr(i).starts_with("::"))
      begin = ++i + 1;
  }
  return without_template_arguments(typed.substr(begin));
}

bool Mentions::name(std::string_view component) { return search(names_, component, kNames); }

bool Mentions::file(std::string_view base_name) { return search(files_, base_name, kFiles); }

bool Mentions::search(Known& known, std::string_view text,
                      std::span<const std::string_view> sections) {
  if (text.empty())
    return true;
  const auto asked = known.find(text);
  if (asked != known.end())
    return asked->second;
  const ElfFile* separate = module_.separate_debug_file();
  const ElfFile& file = separate ? *separate : module_.elf();
  // Strings may be in the file that dwz shares, or in .dwo files.
  bool found = file.section(".gnu_debugaltlink") || file.section(".debug_addr");
  for (const std::string_view wanted : sections)
    for (const Section& section : file.sections()) {
      const bool is_it = section.name == wanted || (section.name.starts_with(".zdebug") &&
                                                    section.name.substr(2) == wanted.substr(1));
      found = found || (is_it && section_holds(section, text));
    }
  known.emplace(text, found);
  return found;
}

} // namespace ddbg::symbols
