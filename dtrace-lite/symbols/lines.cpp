#include "dtrace-lite/symbols/lines.h"

#include "dtrace-lite/symbols/dwarf_internal.h"
#include "dtrace-lite/symbols/mentions.h"
#include "dtrace-lite/symbols/prologue.h"
#include "dtrace-lite/symbols/unit_lines.h"

#include <algorithm>
#include <deque>
#include <dwarf.h>
#include <unordered_map>
#include <utility>

namespace ddbg::symbols {
namespace {

std::string joined(std::string_view directory, std::string_view name) {
  while (name.starts_with("./"))
    name.remove_prefix(2);
  if (name.starts_with('/') || directory.empty())
    return std::string(name);
  return std::string(directory) + (directory.ends_with('/') ? "" : "/") + std::string(name);
}

std::string_view base_name(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

} // namespace

bool file_name_matches(std::string_view name, std::string_view pattern) {
  while (pattern.starts_with("./"))
    pattern.remove_prefix(2);
  return name.ends_with(pattern) && !pattern.empty() &&
         (name.size() == pattern.size() || pattern.starts_with('/') ||
          name[name.size() - pattern.size() - 1] == '/');
}

struct Lines::Impl {
  struct Entry { // of one unit
    std::string_view name, compilation_directory;
    std::optional<uint64_t> offset; // in .debug_line
    bool header_read = false, decoded = false, files_made = false;
    std::optional<LineHeader> header;
    UnitLines lines;
  };

  Module& module;
  bool opened = false;
  DebugInfo* info_or_null = nullptr;
  LineSections sections;
  std::unordered_map<Dwarf_Off, Entry> entries; // by unit
  std::deque<SourceFile> files;                 // stable addresses
  std::unordered_map<std::string, const SourceFile*> by_full_name;

  explicit Impl(Module& m) : module(m) {}

  // Opened by the first question about a line or a file that the module can have.
  DebugInfo* info() {
    if (!std::exchange(opened, true) && (info_or_null = module.debug_info()))
      sections = {info_or_null->section(".debug_line"), info_or_null->section(".debug_line_str"),
                  info_or_null->section(".debug_str")};
    return info_or_null;
  }
  DebugInfo* info_with_file(std::string_view pattern) {
    return module.mentions().file(base_name(pattern)) ? info() : nullptr;
  }

  Entry& entry_of(const Unit& unit) {
    const auto [it, fresh] = entries.try_emplace(unit.offset);
    Entry& e = it->second;
    if (fresh) {
      Dwarf_Die die = unit.die;
      Dwarf_Attribute attribute;
      Dwarf_Word offset = 0;
      if (dwarf_formudata(dwarf_attr(&die, DW_AT_stmt_list, &attribute), &offset) == 0)
        e.offset = offset;
      if (const char* text = dwarf_formstring(dwarf_attr(&die, DW_AT_comp_dir, &attribute)))
        e.compilation_directory = text;
      if (const char* text = dwarf_formstring(dwarf_attr(&die, DW_AT_name, &attribute)))
        e.name = text;
    }
    return e;
  }

  const LineHeader* header_of(Entry& e) {
    if (!e.header_read) {
      e.header_read = true;
      if (e.offset) {
        module.counters().line_headers++;
        e.header = read_line_header(sections, *e.offset);
      }
    }
    return e.header ? &*e.header : nullptr;
  }

  // The paths of one file of a header, without keeping them. As gdb has them: what the unit's own
  // file was called on the compiler's command line, and any other file with its directory, which
  // since DWARF 5 may be the one of the compilation.
  static SourceFile paths_of(const Entry& e, const LineHeader::File& file) {
    const LineHeader& h = *e.header;
    const bool in_directory = file.directory < h.directories.size();
    const std::string relative =
        joined(file.directory != 0 && in_directory ? h.directories[file.directory] : "", file.name);
    std::string_view compilation = e.compilation_directory;
    if (compilation.empty() && h.version >= 5 && !h.directories.empty())
      compilation = h.directories[0];
    SourceFile paths{relative, joined(compilation, relative)};
    if (h.version >= 5 && in_directory) {
      paths.name = joined(h.directories[file.directory], file.name);
      if (joined(compilation, paths.name) == joined(compilation, e.name))
        paths.name = joined({}, e.name);
    }
    return paths;
  }

  const SourceFile* intern(const Entry& e, const LineHeader::File& file) {
    if (file.name.empty())
      return nullptr;
    SourceFile paths = paths_of(e, file);
    const auto known = by_full_name.find(paths.full_name);
    if (known != by_full_name.end())
      return known->second;
    files.push_back(std::move(paths));
    by_full_name.emplace(files.back().full_name, &files.back());
    return &files.back();
  }

  void make_files(Entry& e) {
    if (e.files_made || !header_of(e))
      return;
    e.files_made = true;
    for (const LineHeader::File& file : e.header->files)
      e.lines.file_table.push_back(intern(e, file));
  }

  const UnitLines* decode(const Unit& unit) {
    Entry& e = entry_of(unit);
    make_files(e);
    if (!e.header)
      return nullptr;
    if (!e.decoded) {
      e.decoded = true;
      module.counters().line_programs++;
      build_unit_lines(
          sections, *e.header, [&](LinkAddr a) { return module.elf().is_text(a); }, e.lines);
    }
    return &e.lines;
  }

  // Files of a unit that `pattern` means; reads the header only.
  std::vector<const SourceFile*> matching(const Unit& unit, std::string_view pattern) {
    std::vector<const SourceFile*> found;
    Entry& e = entry_of(unit);
    const LineHeader* h = header_of(e);
    if (!h)
      return found;
    for (const LineHeader::File& file : h->files) {
      if (file.name.empty() || base_name(file.name) != base_name(pattern))
        continue;
      const SourceFile* source = intern(e, file);
      if ((file_name_matches(source->name, pattern) ||
           file_name_matches(source->full_name, pattern)) &&
          std::find(found.begin(), found.end(), source) == found.end())
        found.push_back(source);
    }
    return found;
  }

  // The innermost block that pc is in, as gdb has blocks: a lexical block counts only when it
  // declares something.
  Dwarf_Off block_at(LinkAddr pc) {
    std::vector<Dwarf_Die> scopes = scopes_at(module, pc);
    for (size_t i = scopes.size(); i-- > 0;) {
      Dwarf_Die* scope = &scopes[i];
      if (dwarf_tag(scope) != DW_TAG_lexical_block)
        return dwarf_dieoffset(scope);
      Dwarf_Die child;
      if (dwarf_child(scope, &child) != 0)
        continue;
      do {
        const int tag = dwarf_tag(&child);
        if (tag != DW_TAG_lexical_block && tag != DW_TAG_inlined_subroutine &&
            tag != DW_TAG_call_site && tag != DW_TAG_GNU_call_site)
          return dwarf_dieoffset(scope);
      } while (dwarf_siblingof(&child, &child) == 0);
    }
    return 0;
  }
};

Lines::Lines(Module& module) : impl_(std::make_unique<Impl>(module)) {}
Lines::~Lines() = default;

bool Lines::available() { return impl_->info() && !impl_->sections.line.empty(); }

const UnitLines* Lines::unit_lines_at(LinkAddr pc) {
  DebugInfo* info = impl_->info();
  const Unit* unit = info ? info->unit_at(pc) : nullptr;
  return unit ? impl_->decode(*unit) : nullptr;
}

const SourceFile* Lines::file_by_number(uint64_t unit_offset, uint64_t number) {
  Dwarf_Die die;
  DebugInfo* info = impl_->info();
  if (!info || !dwarf_offdie(info->dwarf(), unit_offset, &die))
    return nullptr;
  Impl::Entry& e = impl_->entry_of({die, unit_offset});
  impl_->make_files(e);
  const auto& table = e.lines.file_table;
  return number < table.size() ? table[number] : nullptr;
}

const SourceFile* file_of(Module& module, Dwarf_Die* die, unsigned which) {
  Dwarf_Attribute attribute;
  Dwarf_Word number = 0;
  if (!dwarf_attr_integrate(die, which, &attribute) || dwarf_formudata(&attribute, &number) != 0)
    return nullptr;
  // The number counts in the unit of the DIE that carries the attribute.
  Dwarf_Die unit_die;
  if (!dwarf_cu_die(attribute.cu, &unit_die, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr))
    return nullptr;
  DebugInfo* info = module.debug_info();
  const Unit* unit = info ? info->unit_of(&unit_die) : nullptr;
  return unit ? module.lines().file_by_number(unit->offset, number) : nullptr;
}

std::optional<LineSpan> Lines::find(LinkAddr pc) {
  const UnitLines* lines = unit_lines_at(pc);
  return lines ? lines->find(pc) : std::nullopt;
}

LinkAddr Lines::after_prologue(LinkAddr entry) { return skip_prologue(impl_->module, entry); }

std::vector<CodePlace> Lines::places(std::string_view pattern, unsigned line) {
  std::vector<CodePlace> places;
  DebugInfo* info = impl_->info_with_file(pattern);
  if (!info)
    return places;
  std::vector<const UnitLines::PerFile*> tables;
  for (const Unit& unit : info->units()) {
    const auto matches = impl_->matching(unit, pattern);
    if (matches.empty())
      continue;
    const UnitLines* lines = impl_->decode(unit);
    for (const SourceFile* file : matches)
      if (const auto* items = lines ? lines->items_of(file) : nullptr)
        tables.push_back(items);
  }
  // The line itself; without code there, the nearest later line that has some, in any instance.
  unsigned wanted = line;
  bool exact = false;
  unsigned next = ~0u;
  for (const auto* table : tables)
    for (const LineItem& item : table->items) {
      if (!item.is_statement || item.line == 0)
        continue;
      exact |= item.line == line;
      if (item.line > line)
        next = std::min(next, item.line);
    }
  if (!exact) {
    if (next == ~0u)
      return places;
    wanted = next;
  }
  // One address per block: the compiler scatters a line over disjoint ranges, but an inlined copy
  // or another instance is a block of its own.
  std::vector<Dwarf_Off> blocks;
  for (const auto* table : tables) {
    for (const LineItem& item : table->items) {
      if (!item.is_statement || item.line != wanted)
        continue;
      const Dwarf_Off block = impl_->block_at(item.pc);
      if (block != 0 && std::find(blocks.begin(), blocks.end(), block) != blocks.end())
        continue;
      blocks.push_back(block);
      CodePlace place{item.pc, table->file, wanted};
      Dwarf_Die function;
      Dwarf_Addr entry = 0;
      if (function_die_at(impl_->module, item.pc, &function) &&
          dwarf_entrypc(&function, &entry) == 0) {
        // A line of the prologue stands for the function, and is told as the line that follows.
        const LinkAddr body = after_prologue(LinkAddr(entry));
        const std::optional<LineSpan> span = item.pc < body ? find(body) : std::nullopt;
        place.address = std::max(item.pc, body);
        if (span && span->line != 0) {
          place.file = span->file;
          place.line = span->line;
        }
      }
      const bool twice = std::any_of(places.begin(), places.end(), [&](const CodePlace& p) {
        return p.address == place.address;
      });
      if (!twice)
        places.push_back(place);
    }
  }
  return places;
}

std::vector<const SourceFile*> Lines::files(std::string_view pattern) {
  std::vector<const SourceFile*> found;
  DebugInfo* info = impl_->info_with_file(pattern);
  if (!info)
    return found;
  for (const Unit& unit : info->units()) {
    if (!pattern.empty()) {
      for (const SourceFile* file : impl_->matching(unit, pattern))
        found.push_back(file);
      continue;
    }
    Impl::Entry& e = impl_->entry_of(unit);
    impl_->make_files(e);
    for (const SourceFile* file : e.lines.file_table)
      if (file)
        found.push_back(file);
  }
  const auto by_name = [](const SourceFile* a, const SourceFile* b) {
    return a->full_name != b->full_name ? a->full_name < b->full_name : a < b;
  };
  std::sort(found.begin(), found.end(), by_name);
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

} // namespace ddbg::symbols
