#include "dtrace-lite/symbols/functions.h"

#include "dtrace-lite/symbols/demangle.h"
#include "dtrace-lite/symbols/dwarf_internal.h"
#include "dtrace-lite/symbols/mentions.h"
#include "dtrace-lite/symbols/types_reader.h"

#include <algorithm>
#include <dwarf.h>
#include <unordered_set>

namespace ddbg::symbols {
namespace {

unsigned unsigned_attribute(Dwarf_Die* die, unsigned which) {
  Dwarf_Attribute attribute;
  Dwarf_Word value = 0;
  if (dwarf_formudata(dwarf_attr_integrate(die, which, &attribute), &value) != 0)
    return 0;
  return static_cast<unsigned>(value);
}

// Calls f for every DW_TAG_inlined_subroutine below `die`.
template <class F> void for_each_inlined(Dwarf_Die* die, int depth, F& f) {
  constexpr int kMaxDepth = 256;
  Dwarf_Die child;
  if (depth > kMaxDepth || dwarf_child(die, &child) != 0)
    return;
  for (;;) {
    const int tag = dwarf_tag(&child);
    if (tag == DW_TAG_inlined_subroutine)
      f(&child);
    if (tag == DW_TAG_inlined_subroutine || tag == DW_TAG_subprogram ||
        tag == DW_TAG_lexical_block || tag == DW_TAG_namespace)
      for_each_inlined(&child, depth + 1, f);
    const Dwarf_Off before = dwarf_dieoffset(&child);
    if (dwarf_siblingof(&child, &child) != 0 || dwarf_dieoffset(&child) <= before)
      return;
  }
}

} // namespace

struct Functions::Impl {
  Module& module;

  Function from_die(Dwarf_Die* die) {
    Function f;
    f.source = Function::Source::kDwarf;
    f.name = qualified_name(module, die);
    f.linkage_name = die_linkage_name(die);
    f.ranges = die_ranges(die);
    if (!f.ranges.empty())
      f.entry = f.ranges.front().begin;
    f.file = file_of(module, die, DW_AT_decl_file);
    f.line = unsigned_attribute(die, DW_AT_decl_line);
    f.die = dwarf_dieoffset(die);
    return f;
  }

  Function from_symbol(const Symbol& symbol) {
    Function f;
    f.source = Function::Source::kSymbol;
    f.name = symbol.name();
    f.linkage_name = symbol.linkage_name;
    f.entry = symbol.address;
    f.is_ifunc = symbol.is_ifunc;
    LinkAddr end = symbol.address + symbol.size;
    if (symbol.size == 0) {
      const auto next = module.symbols().next_function(symbol.address);
      const Section* section = module.elf().section_at(symbol.address);
      end = next ? *next : section ? section->range.end : symbol.address + 1;
    }
    f.ranges.push_back({symbol.address, end});
    return f;
  }

  // Functions that DWARF alone knows by name: needed when the file has no .symtab.
  void find_in_dwarf(const NameQuery& query, std::string_view typed, std::vector<Function>& found) {
    DebugInfo* info = module.mentions().name(last_component(typed)) ? module.debug_info() : nullptr;
    if (!info)
      return;
    for (const Unit& unit : info->units()) {
      for (const auto& range : info->index_of(unit).functions()) {
        Dwarf_Die die;
        if (!dwarf_offdie(info->dwarf(), range.die, &die) ||
            without_template_arguments(die_name(&die)) != last_component(typed))
          continue;
        Function f = from_die(&die);
        if ((f.name == typed || query.matches(f.name)) &&
            std::none_of(found.begin(), found.end(),
                         [&](const Function& o) { return o.entry == f.entry; }))
          found.push_back(std::move(f));
      }
    }
  }

  // Every inlined copy of what the query names: entry addresses.
  std::vector<LinkAddr> inlined_copies(const NameQuery& query, std::string_view typed) {
    std::vector<LinkAddr> entries;
    const std::string_view name = last_component(typed);
    // main is called by the C library, and by nothing it could be inlined into.
    if (name == "main" || name.empty())
      return entries;
    DebugInfo* info = module.mentions().name(name) ? module.debug_info() : nullptr;
    if (!info)
      return entries;
    for (const Unit& unit : info->units()) {
      std::unordered_set<Dwarf_Off> wanted;
      for (const auto& candidate : info->index_of(unit).inlinable()) {
        Dwarf_Die die;
        if (without_template_arguments(candidate.name) != name ||
            !dwarf_offdie(info->dwarf(), candidate.die, &die))
          continue;
        const std::string linkage = die_linkage_name(&die);
        if (query.matches(looks_mangled(linkage) ? demangle(linkage)
                                                 : qualified_name(module, &die)))
          wanted.insert(candidate.die);
      }
      if (wanted.empty())
        continue;
      const auto collect = [&](Dwarf_Die* inlined) {
        Dwarf_Attribute attribute;
        Dwarf_Die origin;
        if (!dwarf_formref_die(dwarf_attr(inlined, DW_AT_abstract_origin, &attribute), &origin) ||
            !wanted.contains(dwarf_dieoffset(&origin)))
          return;
        if (const auto ranges = die_ranges(inlined); !ranges.empty())
          entries.push_back(ranges.front().begin);
      };
      Dwarf_Die top = unit.die;
      for_each_inlined(&top, 0, collect);
    }
    return entries;
  }
};

Functions::Functions(Module& module) : impl_(new Impl{module}) {}
Functions::~Functions() = default;

std::optional<Function> Functions::at(LinkAddr pc) {
  Module& module = impl_->module;
  Dwarf_Die die;
  if (function_die_at(module, pc, &die)) {
    Function f = impl_->from_die(&die);
    if (!f.name.empty())
      return f;
  }
  if (const auto symbol = module.symbols().function_at(pc))
    return impl_->from_symbol(*symbol);
  if (const auto range = module.elf().fde_range(pc)) {
    Function f;
    f.source = Function::Source::kFrameTable;
    f.entry = range->begin;
    f.ranges.push_back(*range);
    return f;
  }
  return std::nullopt;
}

std::vector<InlinedCall> Functions::inlined_at(LinkAddr pc) {
  std::vector<InlinedCall> chain;
  Module& module = impl_->module;
  for (Dwarf_Die& die : scopes_at(module, pc)) {
    if (dwarf_tag(&die) != DW_TAG_inlined_subroutine)
      continue;
    InlinedCall call;
    call.function = qualified_name(module, &die);
    call.call_file = file_of(module, &die, DW_AT_call_file);
    call.call_line = unsigned_attribute(&die, DW_AT_call_line);
    call.ranges = die_ranges(&die);
    if (!call.ranges.empty())
      call.entry = call.ranges.front().begin;
    call.die = dwarf_dieoffset(&die);
    chain.insert(chain.begin(), std::move(call));
  }
  return chain;
}

std::vector<Function> Functions::find(std::string_view typed) {
  Module& module = impl_->module;
  std::vector<Function> found;
  const auto clones =
      module.has_debug_section() ? ElfSymbols::Clones::kInclude : ElfSymbols::Clones::kExclude;
  for (const Symbol& symbol : module.symbols().find_functions(typed, clones))
    found.push_back(impl_->from_symbol(symbol));
  if (!module.symbols().has_full_table())
    impl_->find_in_dwarf(NameQuery(typed), typed, found);
  return found;
}

std::vector<CodePlace> Functions::places(std::string_view typed) {
  Module& module = impl_->module;
  std::vector<CodePlace> places;
  const auto add = [&](LinkAddr address, bool is_ifunc, bool is_inlined) {
    for (const CodePlace& p : places)
      if (p.address == address)
        return;
    CodePlace place{address};
    place.is_ifunc = is_ifunc;
    place.is_inlined = is_inlined;
    if (const auto span = module.lines().find(address)) {
      place.file = span->file;
      place.line = span->line;
    }
    places.push_back(place);
  };
  for (const Function& f : find(typed))
    add(f.is_ifunc ? f.entry : module.lines().after_prologue(f.entry), f.is_ifunc, false);
  for (LinkAddr entry : impl_->inlined_copies(NameQuery(typed), typed)) {
    // Where the copy begins inside its caller's prologue, stop after that.
    LinkAddr address = entry;
    Dwarf_Die caller;
    if (function_die_at(module, entry, &caller))
      if (const auto ranges = die_ranges(&caller); !ranges.empty())
        address = std::max(address, module.lines().after_prologue(ranges.front().begin));
    add(address, false, true);
  }
  return places;
}

std::string Functions::listed_name(const Function& function) {
  // DWARF names a constructor's or destructor's instances by their symbols only.
  const auto symbol = impl_->module.symbols().function_at(function.entry);
  for (std::string_view name :
       {std::string_view(function.linkage_name), symbol ? symbol->linkage_name : ""})
    if (looks_mangled(name))
      return demangle(name);
  Dwarf_Die die, unit;
  DebugInfo* info = function.die ? impl_->module.debug_info() : nullptr;
  if (!info || !dwarf_offdie(info->dwarf(), function.die, &die) ||
      !dwarf_diecu(&die, &unit, nullptr, nullptr) ||
      language_of_unit(to_ref(unit)) != Language::kCpp)
    return function.name;
  // extern "C", or main.
  TypeTable types(info->dwarf());
  std::string list;
  for (TypeRef parameter : types.function_type(to_ref(die))->parameters()) {
    list += list.empty() ? "" : ", ";
    for (const char c : parameter->name()) {
      if ((c == '*' || c == '&') && list.ends_with(' '))
        list.pop_back();
      list += c;
    }
  }
  return function.name + "(" + list + ")";
}

} // namespace ddbg::symbols
