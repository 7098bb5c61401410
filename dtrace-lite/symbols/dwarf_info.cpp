// DebugInfo: the Dwarf handle, its units, and which unit an address belongs to.
#include "dtrace-lite/symbols/dwarf_internal.h"

#include <algorithm>
#include <dwarf.h>
#include <elf.h>
#include <gelf.h>
#include <unordered_set>

namespace ddbg::symbols {
namespace {

// libelf over the image that ElfFile has mapped and checked. To decompress a section it writes into
// the section headers, in place: the mapping is private, so that touches no file.
Elf* elf_over(const ElfFile& file) {
  elf_version(EV_CURRENT);
  const Bytes image = file.image();
  for (const Section& s : file.sections()) {
    if (!(s.flags & SHF_COMPRESSED) && !s.name.starts_with(".zdebug"))
      continue;
    if (!file.make_writable())
      return nullptr;
    break;
  }
  return elf_memory(const_cast<char*>(reinterpret_cast<const char*>(image.data())), image.size());
}

} // namespace

std::unique_ptr<DebugInfo> DebugInfo::open(const ElfFile& file, const DebugFileOptions& options,
                                           ReadCounters& counters,
                                           std::vector<std::string>& warnings) {
  if (!file.section(".debug_info") && !file.section(".zdebug_info"))
    return nullptr;
  counters.dwarf_opened++;
  std::unique_ptr<DebugInfo> info(new DebugInfo(file, counters));
  info->elf_ = elf_over(file);
  if (info->elf_)
    info->dwarf_ = dwarf_begin_elf(info->elf_, DWARF_C_READ, nullptr);
  if (!info->dwarf_) {
    warnings.push_back(file.path() + ": its debug information cannot be read (" + dwarf_errmsg(-1) +
                       "); going on without it.");
    return nullptr;
  }
  info->terminate_texts(info->elf_);
  if (file.section(".gnu_debugaltlink")) {
    info->alternate_ = find_alternate_file(file, options, &warnings);
    if (info->alternate_) {
      info->alternate_elf_ = elf_over(*info->alternate_);
      if (info->alternate_elf_)
        info->alternate_dwarf_ = dwarf_begin_elf(info->alternate_elf_, DWARF_C_READ, nullptr);
      if (info->alternate_dwarf_) {
        info->terminate_texts(info->alternate_elf_);
        dwarf_setalt(info->dwarf_, info->alternate_dwarf_);
      }
    }
  }
  return info;
}

// libdw gives out texts as they stand in these sections, with or without an end. In the image one
// comes sooner or later; a section that was decompressed is a block of its own.
void DebugInfo::terminate_texts(Elf* elf) {
  constexpr std::string_view kWithTexts[] = {"info", "types", "str", "line_str"};
  size_t names = 0;
  if (elf_getshdrstrndx(elf, &names) != 0)
    return;
  for (Elf_Scn* scn = nullptr; (scn = elf_nextscn(elf, scn)) != nullptr;) {
    GElf_Shdr header;
    const char* text =
        gelf_getshdr(scn, &header) ? elf_strptr(elf, names, header.sh_name) : nullptr;
    std::string_view name = text ? text : "";
    const size_t prefix = name.starts_with(".debug_") ? 7 : name.starts_with(".zdebug_") ? 8 : 0;
    if (!prefix || std::ranges::find(kWithTexts, name.substr(prefix)) == std::end(kWithTexts))
      continue;
    Elf_Data* data = elf_getdata(scn, nullptr); // libdw's
    Elf_Data* raw = elf_rawdata(scn, nullptr);  // section()'s
    if (!data || !data->d_buf || data->d_size == 0)
      continue;
    const char* begin = static_cast<const char*>(data->d_buf);
    if (begin[data->d_size - 1] == 0)
      continue;
    std::vector<char>& copy = terminated_.emplace_back(begin, begin + data->d_size);
    copy.push_back(0);
    data->d_buf = raw->d_buf = copy.data();
  }
}

DebugInfo::~DebugInfo() {
  if (dwarf_)
    dwarf_end(dwarf_);
  if (alternate_dwarf_)
    dwarf_end(alternate_dwarf_);
  if (elf_)
    elf_end(elf_);
  if (alternate_elf_)
    elf_end(alternate_elf_);
}

const std::vector<Unit>& DebugInfo::units() {
  if (units_read_)
    return units_;
  units_read_ = true;
  Dwarf_CU* unit = nullptr;
  Dwarf_CU* next = nullptr;
  uint8_t type = 0;
  Dwarf_Die die;
  // A damaged unit ends the list: what follows cannot be found.
  while (dwarf_get_units(dwarf_, unit, &next, nullptr, &type, &die, nullptr) == 0) {
    unit = next;
    if ((type == DW_UT_compile || type == DW_UT_skeleton) &&
        dwarf_tag(&die) != DW_TAG_partial_unit) {
      counters_.units_opened++;
      units_.push_back({die, dwarf_dieoffset(&die)});
    }
  }
  return units_;
}

const Unit* DebugInfo::unit_by_offset(Dwarf_Off offset) {
  const auto known = opened_units_.find(offset);
  if (known != opened_units_.end())
    return &known->second;
  Unit unit{};
  unit.offset = offset;
  if (!dwarf_offdie(dwarf_, offset, &unit.die))
    return nullptr;
  counters_.units_opened++;
  return &opened_units_.emplace(offset, unit).first->second;
}

const Unit* DebugInfo::unit_of(Dwarf_Die* die) {
  Dwarf_Die unit_die;
  // dwarf_diecu answers for the dwz file too, whose offsets mean something else.
  if (!dwarf_diecu(die, &unit_die, nullptr, nullptr) || dwarf_cu_getdwarf(die->cu) != dwarf_)
    return nullptr;
  return unit_by_offset(dwarf_dieoffset(&unit_die));
}

void DebugInfo::read_aranges() {
  aranges_read_ = true;
  Dwarf_Aranges* list = nullptr;
  size_t count = 0;
  if (dwarf_getaranges(dwarf_, &list, &count) != 0)
    return;
  for (size_t i = 0; i < count; i++) {
    Dwarf_Addr begin = 0;
    Dwarf_Word length = 0;
    Dwarf_Off offset = 0;
    Dwarf_Arange* one = dwarf_onearange(list, i);
    // A range at 0 belongs to code that the linker dropped.
    if (one && dwarf_getarangeinfo(one, &begin, &length, &offset) == 0 && length > 0 && begin > 0 &&
        begin + length > begin)
      aranges_.push_back({{LinkAddr(begin), LinkAddr(begin + length)}, offset});
  }
  std::sort(aranges_.begin(), aranges_.end(),
            [](const UnitRange& a, const UnitRange& b) { return a.range.begin < b.range.begin; });
}

void DebugInfo::read_unit_ranges() {
  ranges_read_ = true;
  std::unordered_set<Dwarf_Off> listed;
  for (const UnitRange& r : aranges_)
    listed.insert(r.unit);
  for (const Unit& unit : units()) {
    if (listed.contains(unit.offset))
      continue;
    Dwarf_Die die = unit.die;
    for (const LinkRange& range : die_ranges(&die))
      unit_ranges_.push_back({range, unit.offset});
  }
  std::sort(unit_ranges_.begin(), unit_ranges_.end(),
            [](const UnitRange& a, const UnitRange& b) { return a.range.begin < b.range.begin; });
}

const Unit* DebugInfo::unit_at(LinkAddr pc) {
  if (!aranges_read_)
    read_aranges();
  const auto search = [&](const std::vector<UnitRange>& ranges) -> const Unit* {
    auto it = std::upper_bound(ranges.begin(), ranges.end(), pc,
                               [](LinkAddr a, const UnitRange& r) { return a < r.range.begin; });
    // Ranges of different units seldom overlap; look a few back for a longer one.
    for (int tries = 0; it != ranges.begin() && tries < 8; tries++) {
      --it;
      if (it->range.contains(pc))
        return unit_by_offset(it->unit);
    }
    return nullptr;
  };
  if (const Unit* unit = search(aranges_))
    return unit;
  if (!ranges_read_)
    read_unit_ranges();
  return search(unit_ranges_);
}

const UnitIndex& DebugInfo::index_of(const Unit& unit) {
  auto& index = indexes_[unit.offset];
  if (!index) {
    counters_.units_scanned++;
    index = std::make_unique<UnitIndex>(unit);
  }
  return *index;
}

Bytes DebugInfo::section(std::string_view name) {
  const auto known = sections_.find(name);
  if (known != sections_.end())
    return known->second;
  Bytes content;
  size_t names = 0;
  if (elf_getshdrstrndx(elf_, &names) == 0) {
    for (Elf_Scn* scn = nullptr; (scn = elf_nextscn(elf_, scn)) != nullptr;) {
      GElf_Shdr header;
      if (!gelf_getshdr(scn, &header) || header.sh_type == SHT_NOBITS)
        continue;
      const char* text = elf_strptr(elf_, names, header.sh_name);
      if (!text)
        continue;
      const std::string_view own = text;
      const bool is_old = own.starts_with(".zdebug") && name.substr(1) == own.substr(2);
      if (own != name && !is_old)
        continue;
      // libdw has decompressed those it knows of when it was opened.
      if ((header.sh_flags & SHF_COMPRESSED) && elf_compress(scn, 0, 0) < 0)
        break;
      if (is_old)
        (void)elf_compress_gnu(scn, 0, 0); // fails when it has been done
      if (const Elf_Data* data = elf_rawdata(scn, nullptr); data && data->d_buf)
        content = {static_cast<const std::byte*>(data->d_buf), data->d_size};
      break;
    }
  }
  sections_.emplace(name, content);
  return content;
}

} // namespace ddbg::symbols
