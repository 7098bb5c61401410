#include "dtrace-lite/symbols/variables_index.h"

#include <dwarf.h>

namespace ddbg::symbols {
namespace {

uint64_t hash_of(std::string_view text) { return std::hash<std::string_view>()(text); }

std::pair<std::string_view, std::string_view> split_scope(std::string_view qualified) {
  // The last "::" that is not inside template arguments.
  int nesting = 0;
  for (size_t i = qualified.size(); i-- > 1;) {
    char c = qualified[i];
    nesting += c == '>' ? 1 : c == '<' ? -1 : 0;
    if (nesting == 0 && c == ':' && qualified[i - 1] == ':')
      return {qualified.substr(0, i + 1), qualified.substr(i + 1)};
  }
  return {"", qualified};
}

// A person leaves out anonymous and inline namespaces.
std::string without_transparent_scopes(std::string prefix) {
  for (const char* scope : {"(anonymous namespace)::", "__cxx11::"})
    for (size_t at; (at = prefix.find(scope)) != std::string::npos;)
      prefix.erase(at, strlen(scope));
  return prefix;
}

bool is_definition(Dwarf_Die& die) {
  switch (dwarf_tag(&die)) {
  case DW_TAG_variable:
    return dwarf_hasattr(&die, DW_AT_location) || dwarf_hasattr(&die, DW_AT_const_value);
  case DW_TAG_subprogram:
    return dwarf_hasattr(&die, DW_AT_low_pc) || dwarf_hasattr(&die, DW_AT_ranges);
  default:
    return !flag_attribute(die, DW_AT_declaration);
  }
}

} // namespace

bool has_enumerator(Dwarf_Die& die, std::string_view name) {
  Dwarf_Die child;
  if (dwarf_tag(&die) != DW_TAG_enumeration_type || dwarf_child(&die, &child) != 0)
    return false;
  do {
    const char* own = dwarf_diename(&child);
    if (own && own == name)
      return true;
  } while (dwarf_siblingof(&child, &child) == 0);
  return false;
}

bool is_type_tag(int tag) {
  switch (tag) {
  case DW_TAG_base_type:
  case DW_TAG_typedef:
  case DW_TAG_structure_type:
  case DW_TAG_class_type:
  case DW_TAG_union_type:
  case DW_TAG_enumeration_type:
    return true;
  default:
    return false;
  }
}

void UnitNames::add_units(Dwarf* dwarf) {
  Dwarf_CU* cu = nullptr;
  Dwarf_CU* next = nullptr;
  Dwarf_Half version;
  uint8_t kind;
  Dwarf_Die die, sub;
  while (dwarf_get_units(dwarf, cu, &next, &version, &kind, &die, &sub) == 0) {
    cu = next;
    if (kind == DW_UT_type || kind == DW_UT_split_type)
      continue;
    if (kind == DW_UT_skeleton && sub.addr)
      die = sub;
    units_.push_back(die);
    unit_dwarfs_.push_back(dwarf);
  }
}

const std::vector<Dwarf_Die>& UnitNames::units() {
  if (!have_units_) {
    have_units_ = true;
    add_units(dwarf_);
    if (Dwarf* shared = dwarf_getalt(dwarf_))
      add_units(shared);
  }
  return units_;
}

std::optional<Dwarf_Die> UnitNames::unit_at(LinkAddr pc) {
  Dwarf_Die die;
  if (dwarf_addrdie(dwarf_, pc.value, &die))
    return die;
  // clang writes no .debug_aranges.
  for (const Dwarf_Die& unit : units()) {
    Dwarf_Die copy = unit;
    if (dwarf_haspc(&copy, pc.value) > 0)
      return unit;
  }
  return std::nullopt;
}

std::optional<Dwarf_Die> UnitNames::unit_of_file(std::string_view file) {
  for (Dwarf_Die unit : units()) {
    const char* name = dwarf_diename(&unit);
    if (!name)
      continue;
    std::string_view path = name;
    if (path == file || (path.size() > file.size() && path.ends_with(file) &&
                         path[path.size() - file.size() - 1] == '/'))
      return unit;
  }
  return std::nullopt;
}

void UnitNames::walk(Dwarf_Die parent, bool is_cpp, int depth, const Visit& visit) {
  Dwarf_Die child;
  if (depth > 32 || dwarf_child(&parent, &child) != 0)
    return;
  do {
    int tag = dwarf_tag(&child);
    switch (tag) {
    case DW_TAG_imported_unit: {
      Dwarf_Attribute attribute;
      Dwarf_Die imported;
      if (dwarf_attr(&child, DW_AT_import, &attribute) && dwarf_formref_die(&attribute, &imported))
        walk(imported, is_cpp, depth + 1, visit);
      continue;
    }
    case DW_TAG_namespace:
      if (const char* name = dwarf_diename(&child))
        visit(name, child);
      walk(child, is_cpp, depth + 1, visit);
      continue;
    case DW_TAG_subprogram:
      if (!is_definition(child))
        continue;
      break;
    case DW_TAG_member:
      // A static data member, DWARF 4: declared here, defined in the unit.
      if (!flag_attribute(child, DW_AT_external))
        continue;
      break;
    case DW_TAG_variable:
      break;
    default:
      if (!is_type_tag(tag))
        continue;
    }
    if (const char* name = dwarf_diename(&child))
      visit(name, child);
    if (tag == DW_TAG_enumeration_type) {
      Dwarf_Die enumerator;
      if (dwarf_child(&child, &enumerator) == 0)
        do {
          // Under the enumerator's name the index holds its enumeration: DIEs do not know parents.
          if (const char* name = dwarf_diename(&enumerator))
            visit(name, child);
        } while (dwarf_siblingof(&enumerator, &enumerator) == 0);
    } else if (is_cpp && is_type_tag(tag)) {
      walk(child, is_cpp, depth + 1, visit);
    }
  } while (dwarf_siblingof(&child, &child) == 0);
}

const UnitNames::Names& UnitNames::names_of(const Dwarf_Die& unit) {
  auto [it, inserted] = names_.try_emplace(unit.addr);
  if (inserted) {
    bool is_cpp = language_of_unit(to_ref(unit)) != Language::kC;
    walk(unit, is_cpp, 0,
         [&names = it->second](const char* name, Dwarf_Die& die) { names.emplace(name, die); });
  }
  return it->second;
}

bool UnitNames::matches(Dwarf_Die& die, std::string_view prefix, std::string_view name) {
  Dwarf_Die scoped = die;
  // A definition outside its class or namespace: the declaration knows the scope.
  for (int hops = 0; hops < 4; hops++) {
    Dwarf_Attribute attribute;
    Dwarf_Die next;
    if (!(dwarf_attr(&scoped, DW_AT_specification, &attribute) ||
          dwarf_attr(&scoped, DW_AT_abstract_origin, &attribute)) ||
        !dwarf_formref_die(&attribute, &next))
      break;
    scoped = next;
  }
  std::string actual = types_.scope_prefix(to_ref(scoped));
  const char* own = dwarf_diename(&die);
  if (dwarf_tag(&die) == DW_TAG_enumeration_type && (!own || own != name)) {
    // An enumerator: Colour::kRed, and plain kRed unless the enumeration is scoped.
    std::string scoped_by_enum = actual + (own ? own : "") + "::";
    if (own && (scoped_by_enum == prefix ||
                without_transparent_scopes(std::move(scoped_by_enum)) == prefix))
      return true;
    if (flag_attribute(die, DW_AT_enum_class))
      return false;
  }
  return actual == prefix || without_transparent_scopes(std::move(actual)) == prefix;
}

std::vector<Dwarf_Die> UnitNames::in_unit(const Dwarf_Die& unit, std::string_view qualified) {
  auto [prefix, name] = split_scope(qualified);
  std::vector<Dwarf_Die> definitions, declarations;
  auto [begin, end] = names_of(unit).equal_range(name);
  for (auto it = begin; it != end; ++it) {
    Dwarf_Die die = it->second;
    if (matches(die, prefix, name))
      (is_definition(die) ? definitions : declarations).push_back(die);
  }
  definitions.insert(definitions.end(), declarations.begin(), declarations.end());
  return definitions;
}

void UnitNames::scan_next_unit() {
  const Dwarf_Die& unit = units()[next_unit_];
  Dwarf* dwarf = unit_dwarfs_[next_unit_];
  next_unit_++;
  bool is_cpp = language_of_unit(to_ref(unit)) != Language::kC;
  walk(unit, is_cpp, 0, [&](const char* name, Dwarf_Die& die) {
    uint64_t hash = hash_of(name);
    auto tag = static_cast<uint16_t>(dwarf_tag(&die));
    // Every C++ unit repeats the types of its headers: in C one of each name and kind is enough for
    // a lookup without a unit. Scoped languages need all, since only the scope tells them apart.
    const char* own = dwarf_diename(&die);
    if (!is_cpp && is_type_tag(tag) && own && std::string_view(own) == name) {
      if (!is_definition(die))
        return;
      auto [begin, end] = index_.equal_range(hash);
      for (auto it = begin; it != end; ++it)
        if (it->second.unit_kind == tag)
          return;
    }
    index_.emplace(hash, Entry{die.addr, tag, dwarf});
  });
}

std::optional<Dwarf_Die> UnitNames::anywhere(std::string_view qualified,
                                             const std::function<bool(Dwarf_Die&)>& accept) {
  auto [prefix, name] = split_scope(qualified);
  uint64_t hash = hash_of(name);
  std::optional<Dwarf_Die> declaration;
  std::unordered_set<void*> seen;
  for (;;) {
    auto [begin, end] = index_.equal_range(hash);
    for (auto it = begin; it != end; ++it) {
      Dwarf_Die die;
      if (!seen.insert(it->second.address).second ||
          !dwarf_die_addr_die(it->second.dwarf, it->second.address, &die))
        continue;
      const char* own = dwarf_diename(&die);
      bool named_so = own ? own == name : false;
      if (!named_so && !has_enumerator(die, name)) // another name with this hash
        continue;
      if (!accept(die) || !matches(die, prefix, name))
        continue;
      if (is_definition(die))
        return die;
      if (!declaration)
        declaration = die;
    }
    if (next_unit_ >= units().size())
      return declaration;
    scan_next_unit();
  }
}

void UnitNames::for_each_name(const Dwarf_Die& unit,
                              const std::function<void(std::string_view)>& f) {
  for (const auto& [name, die] : names_of(unit))
    f(name);
}

std::vector<std::string> UnitNames::imported_prefixes(const Dwarf_Die& unit) {
  std::vector<std::string> prefixes;
  Dwarf_Die parent = unit;
  Dwarf_Die child;
  if (language_of_unit(to_ref(unit)) != Language::kCpp || dwarf_child(&parent, &child) != 0)
    return prefixes;
  do {
    Dwarf_Attribute attribute;
    Dwarf_Die space;
    if (dwarf_tag(&child) != DW_TAG_imported_module ||
        !dwarf_attr(&child, DW_AT_import, &attribute) || !dwarf_formref_die(&attribute, &space))
      continue;
    if (const char* name = dwarf_diename(&space))
      prefixes.push_back(types_.scope_prefix(to_ref(space)) + name + "::");
  } while (dwarf_siblingof(&child, &child) == 0);
  return prefixes;
}

} // namespace ddbg::symbols
