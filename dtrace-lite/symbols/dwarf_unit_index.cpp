// UnitIndex, and the small questions about one DIE.
#include "dtrace-lite/symbols/demangle.h"
#include "dtrace-lite/symbols/dwarf_internal.h"

#include <algorithm>
#include <dwarf.h>

namespace ddbg::symbols {
namespace {

constexpr int kMaxScopeDepth = 64;      // of namespaces and classes; damage can nest without end
constexpr size_t kMaxRanges = 1u << 20; // of one DIE

std::string_view own_name(Dwarf_Die* die) {
  Dwarf_Attribute attribute;
  const char* text = dwarf_formstring(dwarf_attr(die, DW_AT_name, &attribute));
  return text ? text : std::string_view();
}

// Follows abstract_origin and specification, which damage can make a circle: dwarf_attr_integrate
// stops after 16.
const char* integrated_string(Dwarf_Die* die, unsigned which) {
  Dwarf_Attribute attribute;
  return dwarf_formstring(dwarf_attr_integrate(die, which, &attribute));
}

} // namespace

std::vector<LinkRange> die_ranges(Dwarf_Die* die) {
  std::vector<LinkRange> ranges;
  Dwarf_Addr base = 0, begin = 0, end = 0;
  ptrdiff_t offset = 0;
  while ((offset = dwarf_ranges(die, offset, &base, &begin, &end)) > 0 &&
         ranges.size() < kMaxRanges)
    if (begin < end && begin > 0) // at 0: dropped by the linker
      ranges.push_back({LinkAddr(begin), LinkAddr(end)});
  return ranges;
}

UnitIndex::UnitIndex(const Unit& unit) {
  Dwarf_Die die = unit.die, child;
  if (dwarf_child(&die, &child) == 0)
    walk(child, -1, ~Dwarf_Off{0}, 0);
  std::sort(
      functions_.begin(), functions_.end(),
      [](const FunctionRange& a, const FunctionRange& b) { return a.range.begin < b.range.begin; });
}

void UnitIndex::walk(Dwarf_Die die, int parent, Dwarf_Off end, int depth) {
  if (depth > kMaxScopeDepth)
    return;
  for (bool more = true; more;) {
    Dwarf_Die next;
    Dwarf_Die child;
    const int tag = dwarf_tag(&die);
    more = dwarf_siblingof(&die, &next) == 0;
    const Dwarf_Off offset = dwarf_dieoffset(&die);
    // Siblings go forward; a reference backwards would never end.
    if (more && dwarf_dieoffset(&next) <= offset)
      more = false;
    switch (tag) {
    case DW_TAG_subprogram: {
      Dwarf_Attribute attribute;
      if (dwarf_hasattr(&die, DW_AT_low_pc) || dwarf_hasattr(&die, DW_AT_ranges)) {
        for (const LinkRange& range : die_ranges(&die))
          functions_.push_back({range, offset});
      } else if (Dwarf_Word how = 0;
                 dwarf_formudata(dwarf_attr(&die, DW_AT_inline, &attribute), &how) == 0 &&
                 (how == DW_INL_inlined || how == DW_INL_declared_inlined)) {
        const char* name = integrated_string(&die, DW_AT_name);
        if (name)
          inlinable_.push_back({name, offset});
        break; // what is nested in it has no code
      }
      // Lambdas and nested functions are children of the function they are written in.
      if (dwarf_haschildren(&die) == 1 && dwarf_child(&die, &child) == 0)
        walk(child, parent, more ? dwarf_dieoffset(&next) : end, depth + 1);
      break;
    }
    case DW_TAG_lexical_block:
      if (dwarf_child(&die, &child) == 0)
        walk(child, parent, more ? dwarf_dieoffset(&next) : end, depth + 1);
      break;
    case DW_TAG_namespace:
    case DW_TAG_module:
    case DW_TAG_class_type:
    case DW_TAG_structure_type:
    case DW_TAG_union_type:
    case DW_TAG_interface_type:
      if (dwarf_haschildren(&die) == 1 && dwarf_child(&die, &child) == 0) {
        const Dwarf_Off scope_end = more ? dwarf_dieoffset(&next) : end;
        std::string_view name = own_name(&die);
        if (name.empty() && tag == DW_TAG_namespace)
          name = "(anonymous namespace)";
        scopes_.push_back({offset, scope_end, name, parent});
        walk(child, static_cast<int>(scopes_.size()) - 1, scope_end, depth + 1);
      }
      break;
    default:
      break;
    }
    die = next;
  }
}

std::optional<Dwarf_Off> UnitIndex::function_at(LinkAddr pc) const {
  auto it = std::upper_bound(functions_.begin(), functions_.end(), pc,
                             [](LinkAddr a, const FunctionRange& f) { return a < f.range.begin; });
  for (int tries = 0; it != functions_.begin() && tries < 8; tries++) {
    --it;
    if (it->range.contains(pc))
      return it->die;
  }
  return std::nullopt;
}

std::string UnitIndex::scope_of(Dwarf_Off die) const {
  auto it = std::upper_bound(scopes_.begin(), scopes_.end(), die,
                             [](Dwarf_Off o, const Scope& s) { return o < s.begin; });
  if (it == scopes_.begin())
    return {};
  int index = static_cast<int>(it - scopes_.begin()) - 1;
  while (index >= 0 && (die <= scopes_[index].begin || die >= scopes_[index].end))
    index = scopes_[index].parent;
  std::string text;
  // A class without name (a lambda's) gives its members no prefix, as in gdb.
  for (; index >= 0 && !scopes_[index].name.empty(); index = scopes_[index].parent)
    text = std::string(scopes_[index].name) + (text.empty() ? "" : "::" + text);
  return text;
}

std::string die_name(Dwarf_Die* die) {
  const char* text = integrated_string(die, DW_AT_name);
  return text ? text : "";
}

std::string die_linkage_name(Dwarf_Die* die) {
  const char* text = integrated_string(die, DW_AT_linkage_name);
  if (!text)
    text = integrated_string(die, DW_AT_MIPS_linkage_name);
  return text ? text : "";
}

std::string qualified_name(Module& module, Dwarf_Die* function) {
  Dwarf_Die unit_die;
  const int language =
      dwarf_diecu(function, &unit_die, nullptr, nullptr) ? dwarf_srclang(&unit_die) : -1;
  // As gdb: in C++ the linkage name says it best (it names lambdas and local classes fully), Rust
  // is named by its DIEs.
  std::string linkage = die_linkage_name(function);
  if (looks_mangled(linkage) && language != DW_LANG_Rust) {
    module.counters().symbols_demangled++;
    const std::string demangled = demangle(linkage);
    if (demangled != linkage)
      return function_name_only(demangled);
  }
  std::string name = die_name(function);
  // A C function renamed in assembly (glibc's __GI_raise) goes by the name it links with.
  if (!linkage.empty() && !looks_mangled(linkage) &&
      (language == DW_LANG_C || language == DW_LANG_C89 || language == DW_LANG_C99 ||
       language == DW_LANG_C11 || language == DW_LANG_Mips_Assembler))
    return linkage;
  // The scope is that of the declaration.
  Dwarf_Die die = *function;
  for (int hops = 0; hops < 16; hops++) {
    Dwarf_Attribute attribute;
    Dwarf_Die origin;
    Dwarf_Attribute* link = dwarf_attr(&die, DW_AT_abstract_origin, &attribute);
    if (!link)
      link = dwarf_attr(&die, DW_AT_specification, &attribute);
    if (!link || !dwarf_formref_die(link, &origin))
      break;
    die = origin;
  }
  DebugInfo* info = module.debug_info();
  const Unit* unit = info ? info->unit_of(&die) : nullptr;
  if (!unit)
    return name;
  const std::string scope = info->index_of(*unit).scope_of(dwarf_dieoffset(&die));
  return scope.empty() ? name : scope + "::" + name;
}

bool function_die_at(Module& module, LinkAddr pc, Dwarf_Die* result) {
  DebugInfo* info = module.debug_info();
  const Unit* unit = info ? info->unit_at(pc) : nullptr;
  if (!unit)
    return false;
  const auto offset = info->index_of(*unit).function_at(pc);
  return offset && dwarf_offdie(info->dwarf(), *offset, result);
}

std::vector<Dwarf_Die> scopes_at(Module& module, LinkAddr pc) {
  std::vector<Dwarf_Die> scopes;
  Dwarf_Die die;
  if (!function_die_at(module, pc, &die))
    return scopes;
  constexpr size_t kMaxNesting = 256;
  while (scopes.size() < kMaxNesting) {
    scopes.push_back(die);
    Dwarf_Die child;
    if (dwarf_child(&die, &child) != 0)
      return scopes;
    bool found = false;
    for (int more = 0; more == 0 && !found;) {
      const int tag = dwarf_tag(&child);
      if ((tag == DW_TAG_lexical_block || tag == DW_TAG_inlined_subroutine ||
           tag == DW_TAG_try_block || tag == DW_TAG_catch_block) &&
          dwarf_haspc(&child, pc.value) == 1) {
        found = true;
        break;
      }
      // A block without code of its own (gcc's abstract leftovers) may still hold ones that have.
      const Dwarf_Off before = dwarf_dieoffset(&child);
      more = dwarf_siblingof(&child, &child);
      if (more == 0 && dwarf_dieoffset(&child) <= before)
        more = 1;
    }
    if (!found)
      return scopes;
    die = child;
  }
  return scopes;
}

} // namespace ddbg::symbols
