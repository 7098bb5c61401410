#include "dtrace-lite/symbols/variables.h"

#include "dtrace-lite/symbols/dwarf_internal.h"
#include "dtrace-lite/symbols/variables_index.h"

#include <dwarf.h>

namespace ddbg::symbols {
namespace {

bool tag_fits(int tag, TagKind wanted, bool is_cpp) {
  switch (wanted) {
  case TagKind::kStruct:
    return tag == DW_TAG_structure_type || tag == DW_TAG_class_type;
  case TagKind::kUnion:
    return tag == DW_TAG_union_type;
  case TagKind::kEnum:
    return tag == DW_TAG_enumeration_type;
  case TagKind::kNone:
    return tag == DW_TAG_typedef || tag == DW_TAG_base_type || (is_cpp && is_type_tag(tag));
  }
  return false;
}

// Its own name is the last part of `qualified`.
bool is_named(Dwarf_Die& die, std::string_view qualified) {
  const char* own = dwarf_diename(&die);
  return own && qualified.ends_with(own);
}

// Strips "::" and tells whether it was there.
bool take_global_scope(std::string_view& name) {
  if (!name.starts_with("::"))
    return false;
  name.remove_prefix(2);
  return true;
}

std::vector<Variable> variables_of(const Dwarf_Die& scope, const DieRef& function, bool arguments) {
  std::vector<Variable> result;
  std::unordered_set<const void*> seen_origins;
  int wanted = arguments ? DW_TAG_formal_parameter : DW_TAG_variable;
  auto collect = [&](Dwarf_Die parent, bool is_concrete) {
    Dwarf_Die child;
    if (dwarf_child(&parent, &child) != 0)
      return;
    do {
      if (dwarf_tag(&child) != wanted)
        continue;
      Dwarf_Attribute attribute;
      Dwarf_Die origin;
      if (!is_concrete && seen_origins.contains(child.addr))
        continue;
      if (dwarf_attr(&child, DW_AT_abstract_origin, &attribute) &&
          dwarf_formref_die(&attribute, &origin))
        seen_origins.insert(origin.addr);
      const char* name = dwarf_diename(&child);
      if (!name)
        continue;
      Variable variable;
      variable.name = name;
      variable.die = to_ref(child);
      variable.function = function;
      variable.is_argument = arguments;
      variable.is_artificial = flag_attribute(child, DW_AT_artificial);
      variable.is_declaration =
          flag_attribute(child, DW_AT_declaration) && !dwarf_hasattr(&child, DW_AT_location);
      result.push_back(std::move(variable));
    } while (dwarf_siblingof(&child, &child) == 0);
  };
  collect(scope, true);
  // What the optimizer removed from this instance is still in the abstract one.
  Dwarf_Die copy = scope;
  Dwarf_Attribute attribute;
  Dwarf_Die abstract;
  if (dwarf_attr(&copy, DW_AT_abstract_origin, &attribute) &&
      dwarf_formref_die(&attribute, &abstract))
    collect(abstract, false);
  return result;
}

} // namespace

struct VariableTable::Impl {
  explicit Impl(Dwarf* handle) : dwarf(handle), types(handle), names(handle, types) {
    types.set_find_definition([this](const std::string& name, TypeKind kind) {
      auto die = names.anywhere(name, [&](Dwarf_Die& d) {
        if (!is_named(d, name))
          return false;
        int tag = dwarf_tag(&d);
        bool fits = kind == TypeKind::kUnion ? tag == DW_TAG_union_type
                    : kind == TypeKind::kEnum
                        ? tag == DW_TAG_enumeration_type
                        : tag == DW_TAG_structure_type || tag == DW_TAG_class_type;
        return fits && !flag_attribute(d, DW_AT_declaration);
      });
      return die ? to_ref(*die) : DieRef{};
    });
  }

  std::optional<Meaning> meaning(Dwarf_Die die, std::string_view name);
  std::optional<Meaning> in_block(const Block& block, std::string_view name);
  const FunctionScope* frame(LinkAddr pc, size_t depth);
  std::vector<std::string> enclosing_prefixes(const Dwarf_Die& unit, const FunctionScope* scope);
  std::vector<Dwarf_Die> chain_at(LinkAddr pc);

  Dwarf* dwarf;
  TypeTable types;
  UnitNames names;
  std::optional<LinkAddr> frames_pc;
  std::vector<FunctionScope> frames;
};

// `name`, without scope, tells an enumerator from its enumeration.
std::optional<Meaning> VariableTable::Impl::meaning(Dwarf_Die die, std::string_view name) {
  DieRef ref = to_ref(die);
  if (size_t colons = name.rfind("::"); colons != std::string_view::npos)
    name.remove_prefix(colons + 2);
  if (dwarf_tag(&die) == DW_TAG_enumeration_type) {
    TypeRef type = types.from_die(ref);
    for (const Enumerator& e : type->enumerators())
      if (e.name == name) {
        Meaning m{Meaning::Kind::kEnumerator};
        m.type = type;
        m.value = e.value;
        return m;
      }
  }
  switch (dwarf_tag(&die)) {
  case DW_TAG_variable:
  case DW_TAG_member: {
    Meaning m{Meaning::Kind::kVariable};
    const char* own = dwarf_diename(&die);
    m.variable = {own ? own : "", ref, {}, false, false, false};
    m.variable.is_declaration =
        !dwarf_hasattr(&die, DW_AT_location) && !dwarf_hasattr(&die, DW_AT_const_value);
    m.type = types.type_of(ref);
    return m;
  }
  case DW_TAG_subprogram: {
    Meaning m{Meaning::Kind::kFunction};
    Dwarf_Addr entry;
    if (dwarf_entrypc(&die, &entry) != 0)
      return std::nullopt;
    m.entry = LinkAddr(entry);
    m.type = types.function_type(ref);
    return m;
  }
  case DW_TAG_namespace:
    return Meaning{Meaning::Kind::kNamespace};
  default:
    if (!is_type_tag(dwarf_tag(&die)))
      return std::nullopt;
    Meaning m{Meaning::Kind::kType};
    m.type = types.from_die(ref);
    return m;
  }
}

// From the subprogram that covers pc inwards.
std::vector<Dwarf_Die> VariableTable::Impl::chain_at(LinkAddr pc) {
  std::vector<Dwarf_Die> chain;
  auto unit = names.unit_at(pc);
  if (!unit)
    return chain;
  std::function<bool(Dwarf_Die, int)> descend = [&](Dwarf_Die parent, int depth) {
    Dwarf_Die child;
    if (depth > 200 || dwarf_child(&parent, &child) != 0)
      return false;
    do {
      switch (dwarf_tag(&child)) {
      case DW_TAG_inlined_subroutine:
      case DW_TAG_lexical_block:
        if (chain.empty()) // damage: nothing that they are in
          break;
        [[fallthrough]];
      case DW_TAG_subprogram:
        if (dwarf_haspc(&child, pc.value) > 0) {
          chain.push_back(child);
          descend(child, depth + 1);
          return true;
        }
        break;
      case DW_TAG_namespace:
      case DW_TAG_structure_type:
      case DW_TAG_class_type:
      case DW_TAG_union_type:
        if (chain.empty() && descend(child, depth + 1))
          return true;
        break;
      default:
        break;
      }
    } while (dwarf_siblingof(&child, &child) == 0);
    return false;
  };
  descend(*unit, 0);
  // A GNU C nested function: its frame is its own.
  for (size_t i = chain.size(); i-- > 1;)
    if (dwarf_tag(&chain[i]) == DW_TAG_subprogram) {
      chain.erase(chain.begin(), chain.begin() + static_cast<ptrdiff_t>(i));
      break;
    }
  return chain;
}

const FunctionScope* VariableTable::Impl::frame(LinkAddr pc, size_t depth) {
  if (frames_pc != pc) {
    frames_pc = pc;
    frames.clear();
    std::vector<Dwarf_Die> chain = chain_at(pc);
    for (Dwarf_Die& die : chain) {
      int tag = dwarf_tag(&die);
      DieRef function = to_ref(chain.front());
      if (tag != DW_TAG_lexical_block) {
        FunctionScope scope;
        const char* name = dwarf_diename(&die);
        scope.name = name ? name : "";
        scope.die = to_ref(die);
        scope.function = function;
        scope.is_inlined = tag == DW_TAG_inlined_subroutine;
        scope.arguments = variables_of(die, function, true);
        frames.insert(frames.begin(), std::move(scope));
      }
      auto& blocks = frames.front().blocks;
      blocks.insert(blocks.begin(), Block{variables_of(die, function, false), to_ref(die)});
    }
  }
  return depth < frames.size() ? &frames[depth] : nullptr;
}

std::optional<Meaning> VariableTable::Impl::in_block(const Block& block, std::string_view name) {
  for (const Variable& variable : block.variables)
    if (variable.name == name) {
      if (variable.is_declaration)
        break; // "extern int x;" in a block: the global
      Meaning m{Meaning::Kind::kVariable};
      m.variable = variable;
      m.type = types.type_of(variable.die);
      return m;
    }
  Dwarf_Die parent = to_die(block.die);
  Dwarf_Die child;
  if (dwarf_child(&parent, &child) != 0)
    return std::nullopt;
  do {
    int tag = dwarf_tag(&child);
    if (!is_type_tag(tag))
      continue;
    const char* own = dwarf_diename(&child);
    if (own && own == name)
      return meaning(child, name);
    if (tag == DW_TAG_enumeration_type) {
      TypeRef type = types.from_die(to_ref(child));
      for (const Enumerator& e : type->enumerators())
        if (e.name == name) {
          Meaning m{Meaning::Kind::kEnumerator};
          m.type = type;
          m.value = e.value;
          return m;
        }
    }
  } while (dwarf_siblingof(&child, &child) == 0);
  return std::nullopt;
}

// "a::b::", "a::", "" for code in a::b, then what the unit imports.
std::vector<std::string> VariableTable::Impl::enclosing_prefixes(const Dwarf_Die& unit,
                                                                 const FunctionScope* scope) {
  std::vector<std::string> prefixes;
  if (scope) {
    Dwarf_Die die = to_die(scope->die);
    for (unsigned attribute : {DW_AT_abstract_origin, DW_AT_specification}) {
      Dwarf_Attribute a;
      Dwarf_Die next;
      if (dwarf_attr(&die, attribute, &a) && dwarf_formref_die(&a, &next))
        die = next;
    }
    std::string prefix = types.scope_prefix(to_ref(die));
    while (!prefix.empty()) {
      prefixes.push_back(prefix);
      size_t cut = prefix.size() > 2 ? prefix.rfind("::", prefix.size() - 3) : std::string::npos;
      prefix.resize(cut == std::string::npos ? 0 : cut + 2);
    }
  }
  prefixes.push_back("");
  for (std::string& imported : names.imported_prefixes(unit))
    prefixes.push_back(std::move(imported));
  return prefixes;
}

std::unique_ptr<VariableTable> VariableTable::open(Module& module) {
  DebugInfo* info = module.debug_info();
  return info ? std::make_unique<VariableTable>(info->dwarf()) : nullptr;
}

VariableTable::VariableTable(Dwarf* dwarf) : impl_(std::make_unique<Impl>(dwarf)) {}
VariableTable::~VariableTable() = default;

TypeTable& VariableTable::types() { return impl_->types; }
TypeRef VariableTable::type_of(const Variable& v) { return impl_->types.type_of(v.die); }
size_t VariableTable::units_scanned() const { return impl_->names.units_scanned(); }

Language VariableTable::language_at(LinkAddr pc) {
  auto unit = impl_->names.unit_at(pc);
  return unit ? language_of_unit(to_ref(*unit)) : Language::kC;
}

const std::vector<FunctionScope>& VariableTable::frames_at(LinkAddr pc) {
  impl_->frame(pc, 0);
  return impl_->frames;
}

std::optional<Meaning> VariableTable::find(std::string_view name, LinkAddr pc, size_t depth) {
  bool global = take_global_scope(name);
  const FunctionScope* scope = impl_->frame(pc, depth);
  if (scope && !global) {
    for (const Block& block : scope->blocks)
      if (auto m = impl_->in_block(block, name))
        return m;
    for (const Variable& variable : scope->arguments)
      if (variable.name == name) {
        Meaning m{Meaning::Kind::kVariable};
        m.variable = variable;
        m.type = type_of(variable);
        return m;
      }
  }
  auto unit = impl_->names.unit_at(pc);
  if (!unit)
    return find_global(name);
  std::vector<std::string> prefixes{""};
  if (!global)
    prefixes = impl_->enclosing_prefixes(*unit, scope);
  std::optional<Meaning> declared;
  for (const std::string& prefix : prefixes)
    for (const Dwarf_Die& die : impl_->names.in_unit(*unit, prefix + std::string(name))) {
      int tag = [&] {
        Dwarf_Die copy = die;
        return dwarf_tag(&copy);
      }();
      bool is_cpp = language_of_unit(to_ref(*unit)) != Language::kC;
      Dwarf_Die copy = die;
      if (is_type_tag(tag) && !tag_fits(tag, TagKind::kNone, is_cpp) && !has_enumerator(copy, name))
        continue; // in C a tag is not an ordinary identifier
      if (auto m = impl_->meaning(die, name)) {
        if (m->kind != Meaning::Kind::kVariable || !m->variable.is_declaration)
          return m;
        if (!declared)
          declared = m;
      }
    }
  for (const std::string& prefix : prefixes)
    if (auto m = find_global(prefix + std::string(name)))
      return m;
  return declared;
}

std::optional<Meaning> VariableTable::find_global(std::string_view name) {
  take_global_scope(name);
  auto die = impl_->names.anywhere(name, [name](Dwarf_Die& d) {
    int tag = dwarf_tag(&d);
    if (!is_type_tag(tag) || has_enumerator(d, name.substr(name.rfind(':') + 1)))
      return true;
    Dwarf_Die unit;
    bool is_cpp =
        dwarf_diecu(&d, &unit, nullptr, nullptr) && language_of_unit(to_ref(unit)) != Language::kC;
    return tag_fits(tag, TagKind::kNone, is_cpp);
  });
  return die ? impl_->meaning(*die, name) : std::nullopt;
}

bool VariableTable::has_file(std::string_view file) {
  return impl_->names.unit_of_file(file).has_value();
}

std::optional<Meaning> VariableTable::find_in_file(std::string_view file, std::string_view name) {
  auto unit = impl_->names.unit_of_file(file);
  if (!unit)
    return std::nullopt;
  for (const Dwarf_Die& die : impl_->names.in_unit(*unit, name))
    if (auto m = impl_->meaning(die, name))
      return m;
  return std::nullopt;
}

TypeRef VariableTable::find_type(std::string_view name, TagKind tag, std::optional<LinkAddr> pc,
                                 size_t depth) {
  take_global_scope(name);
  if (pc) {
    if (const FunctionScope* scope = impl_->frame(*pc, depth))
      for (const Block& block : scope->blocks) {
        Dwarf_Die parent = to_die(block.die);
        Dwarf_Die child;
        if (dwarf_child(&parent, &child) != 0)
          continue;
        do {
          const char* own = dwarf_diename(&child);
          if (own && own == name && is_type_tag(dwarf_tag(&child)) &&
              tag_fits(dwarf_tag(&child), tag, true))
            return impl_->types.from_die(to_ref(child));
        } while (dwarf_siblingof(&child, &child) == 0);
      }
    if (auto unit = impl_->names.unit_at(*pc)) {
      bool is_cpp = language_of_unit(to_ref(*unit)) != Language::kC;
      for (const std::string& prefix : impl_->enclosing_prefixes(*unit, impl_->frame(*pc, depth)))
        for (Dwarf_Die die : impl_->names.in_unit(*unit, prefix + std::string(name)))
          if (tag_fits(dwarf_tag(&die), tag, is_cpp) && is_named(die, name) &&
              !flag_attribute(die, DW_AT_declaration))
            return impl_->types.from_die(to_ref(die));
    }
  }
  auto die = impl_->names.anywhere(name, [&](Dwarf_Die& d) {
    if (!is_type_tag(dwarf_tag(&d)) || !is_named(d, name) || flag_attribute(d, DW_AT_declaration))
      return false;
    Dwarf_Die unit;
    bool is_cpp =
        dwarf_diecu(&d, &unit, nullptr, nullptr) && language_of_unit(to_ref(unit)) != Language::kC;
    return tag_fits(dwarf_tag(&d), tag, is_cpp);
  });
  return die ? impl_->types.from_die(to_ref(*die)) : nullptr;
}

Checked<LocationPlan> VariableTable::plan(const Variable& variable, LinkAddr pc) {
  Dwarf_Die die = to_die(variable.die);
  Dwarf_Attribute attribute;
  if (!dwarf_hasattr_integrate(&die, DW_AT_location) &&
      dwarf_attr_integrate(&die, DW_AT_const_value, &attribute)) {
    PlannedPiece piece;
    piece.kind = PlannedPiece::Kind::kBytes;
    Dwarf_Block block;
    Dwarf_Sword number;
    if (dwarf_formblock(&attribute, &block) == 0) {
      const auto* data = reinterpret_cast<const std::byte*>(block.data);
      piece.bytes.assign(data, data + block.length);
    } else if (dwarf_formsdata(&attribute, &number) == 0) {
      piece.bytes.resize(8);
      std::memcpy(piece.bytes.data(), &number, 8);
    } else if (const char* text = dwarf_formstring(&attribute)) {
      const auto* data = reinterpret_cast<const std::byte*>(text);
      piece.bytes.assign(data, data + std::strlen(text) + 1);
    }
    LocationPlan plan;
    plan.pieces.push_back(std::move(piece));
    return plan;
  }
  return plan_location(variable.die, DW_AT_location, pc, variable.function);
}

Checked<LocationPlan> VariableTable::plan_member(const Member& member) {
  return plan_location(member.die, DW_AT_data_member_location, LinkAddr(0), {});
}

Checked<VariableTable::ArrayBound> VariableTable::plan_count(const Type& array, LinkAddr pc,
                                                             const DieRef& function) {
  Dwarf_Die subrange = to_die(array.count_die());
  unsigned name = dwarf_hasattr(&subrange, DW_AT_count) ? DW_AT_count : DW_AT_upper_bound;
  bool is_upper = name == DW_AT_upper_bound;
  Dwarf_Attribute attribute;
  Dwarf_Die bound;
  if (dwarf_attr(&subrange, name, &attribute) && dwarf_formref_die(&attribute, &bound)) {
    auto located = plan_location(to_ref(bound), DW_AT_location, pc, function);
    if (!located)
      return located.error();
    return ArrayBound{std::move(*located), impl_->types.type_of(to_ref(bound)), is_upper};
  }
  auto located = plan_location(array.count_die(), name, pc, function);
  if (!located)
    return located.error();
  // Here the expression's result is the bound itself, not where it is.
  for (PlannedPiece& piece : located->pieces)
    if (piece.kind == PlannedPiece::Kind::kMemory)
      piece.kind = PlannedPiece::Kind::kValue;
  return ArrayBound{std::move(*located), nullptr, is_upper};
}

std::string VariableTable::nearest_name(std::string_view typed, std::optional<LinkAddr> pc) {
  std::string best;
  unsigned limit = typed.size() < 4 ? 1 : typed.size() < 8 ? 2 : 3;
  auto consider = [&](std::string_view name) {
    unsigned distance = edit_distance(typed, name, limit);
    if (distance > 0 && distance <= limit && (best.empty() || distance < limit)) {
      best = name;
      limit = distance;
    }
  };
  if (pc) {
    if (const FunctionScope* scope = impl_->frame(*pc, 0)) {
      for (const Block& block : scope->blocks)
        for (const Variable& variable : block.variables)
          consider(variable.name);
      for (const Variable& variable : scope->arguments)
        consider(variable.name);
    }
    if (auto unit = impl_->names.unit_at(*pc))
      impl_->names.for_each_name(*unit, consider);
  }
  return best;
}

} // namespace ddbg::symbols
