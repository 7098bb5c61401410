// DWARF type DIEs to Types.
#include "dtrace-lite/symbols/types_reader.h"

#include <dwarf.h>

namespace ddbg::symbols {
namespace {

TypeKind kind_of_base(const Dwarf_Die& die) {
  switch (unsigned_attribute(die, DW_AT_encoding).value_or(0)) {
  case DW_ATE_boolean:
    return TypeKind::kBool;
  case DW_ATE_signed_char:
  case DW_ATE_unsigned_char:
  case DW_ATE_UTF:
    return TypeKind::kChar;
  case DW_ATE_float:
    return TypeKind::kFloat;
  case DW_ATE_complex_float:
    return TypeKind::kComplex;
  case DW_ATE_signed:
  case DW_ATE_unsigned:
  case DW_ATE_address: {
    Dwarf_Die copy = die;
    const char* name = dwarf_diename(&copy);
    return name && !std::strcmp(name, "wchar_t") ? TypeKind::kChar : TypeKind::kInt;
  }
  default:
    return TypeKind::kUnsupported;
  }
}

TypeKind kind_of_tag(const Dwarf_Die& die) {
  Dwarf_Die copy = die;
  switch (dwarf_tag(&copy)) {
  case DW_TAG_base_type:
    return kind_of_base(die);
  case DW_TAG_enumeration_type:
    return TypeKind::kEnum;
  case DW_TAG_pointer_type:
    return TypeKind::kPointer;
  case DW_TAG_reference_type:
    return TypeKind::kLvalueReference;
  case DW_TAG_rvalue_reference_type:
    return TypeKind::kRvalueReference;
  case DW_TAG_ptr_to_member_type:
    return TypeKind::kMemberPointer;
  case DW_TAG_array_type:
    return TypeKind::kArray;
  case DW_TAG_structure_type:
    return TypeKind::kStruct;
  case DW_TAG_class_type:
    return TypeKind::kClass;
  case DW_TAG_union_type:
    return TypeKind::kUnion;
  case DW_TAG_typedef:
    return TypeKind::kTypedef;
  case DW_TAG_const_type:
    return TypeKind::kConst;
  case DW_TAG_volatile_type:
    return TypeKind::kVolatile;
  case DW_TAG_restrict_type:
    return TypeKind::kRestrict;
  case DW_TAG_atomic_type:
    return TypeKind::kAtomic;
  case DW_TAG_subroutine_type:
  case DW_TAG_subprogram:
    return TypeKind::kFunction;
  default:
    // DW_TAG_unspecified_type is nullptr_t, and whatever DWARF 6 brings.
    return TypeKind::kUnsupported;
  }
}

// gdb shows the canonical spelling of a base type, whatever order the compiler wrote its words in.
std::string canonical_base_name(std::string_view name) {
  static constexpr std::pair<std::string_view, std::string_view> kNames[] = {
      {"long int", "long"},
      {"long unsigned int", "unsigned long"},
      {"long long int", "long long"},
      {"long long unsigned int", "unsigned long long"},
      {"short int", "short"},
      {"short unsigned int", "unsigned short"},
      {"__int128 unsigned", "unsigned __int128"},
  };
  for (auto [spelling, canonical] : kNames)
    if (name == spelling)
      return std::string(canonical);
  return std::string(name);
}

bool has_namespaces(Language language) {
  return language == Language::kCpp || language == Language::kRust;
}

} // namespace

Language language_of_unit(const DieRef& unit) {
  switch (unsigned_attribute(to_die(unit), DW_AT_language).value_or(0)) {
  case DW_LANG_C:
  case DW_LANG_C89:
  case DW_LANG_C99:
  case DW_LANG_C11:
  case 0x2c: // DW_LANG_C17
  case DW_LANG_Mips_Assembler:
    return Language::kC;
  case DW_LANG_C_plus_plus:
  case DW_LANG_C_plus_plus_03:
  case DW_LANG_C_plus_plus_11:
  case DW_LANG_C_plus_plus_14:
  case 0x2a: // DW_LANG_C_plus_plus_17
  case 0x2b: // DW_LANG_C_plus_plus_20
    return Language::kCpp;
  case DW_LANG_Rust:
    return Language::kRust;
  case DW_LANG_Go:
    return Language::kGo;
  default:
    return Language::kOther;
  }
}

TypeTable::TypeTable(Dwarf* dwarf) : dwarf_(dwarf) {}
TypeTable::~TypeTable() = default;

TypeRef TypeTable::from_die(const DieRef& die) {
  if (!die)
    return BuiltinTypes::get().void_type;
  auto [it, inserted] = by_address_.try_emplace(die.words[0]);
  if (inserted)
    it->second = TypeReader::make(*this, die);
  return it->second.get();
}

TypeRef TypeTable::type_of(const DieRef& die) {
  auto target = reference_attribute(to_die(die), DW_AT_type);
  return from_die(target ? to_ref(*target) : DieRef{});
}

TypeRef TypeTable::function_type(const DieRef& subprogram) {
  auto [it, inserted] = function_types_.try_emplace(subprogram.words[0]);
  if (inserted)
    it->second = TypeReader::make(*this, subprogram);
  return it->second.get();
}

std::unique_ptr<Type> TypeReader::make(TypeTable& table, const DieRef& ref) {
  Dwarf_Die die = to_die(ref);
  TypeKind kind = kind_of_tag(die);
  Dwarf_Die unit;
  Language language = dwarf_diecu(&die, &unit, nullptr, nullptr) ? language_of_unit(to_ref(unit))
                                                                 : Language::kOther;
  std::unique_ptr<Type> type;
  if (kind == TypeKind::kArray) {
    type = make_array(table, die);
  } else {
    type = std::unique_ptr<Type>(new Type(kind, &table, ref));
    type->size_ = unsigned_attribute(die, DW_AT_byte_size).value_or(0);
  }
  type->language_ = language;
  switch (kind) {
  case TypeKind::kPointer:
    type->size_ = type->size_ ? type->size_ : 8;
    break;
  case TypeKind::kFunction:
    type->size_ = 1; // as sizeof in GNU C and gdb
    break;
  case TypeKind::kStruct:
  case TypeKind::kClass:
  case TypeKind::kUnion:
  case TypeKind::kEnum:
    type->is_declaration_ = flag_attribute(die, DW_AT_declaration);
    break;
  default:
    break;
  }
  switch (unsigned_attribute(die, DW_AT_encoding).value_or(0)) {
  case DW_ATE_signed:
  case DW_ATE_signed_char:
  case DW_ATE_float:
    type->is_signed_ = true;
    break;
  case 0:
    if (kind == TypeKind::kEnum) {
      // C enums carry no encoding of their own: signed if the underlying type is, or if a value is
      // negative.
      if (TypeRef under = underlying_type(*type))
        type->is_signed_ = under->stripped()->is_signed();
      if (!type->is_declaration_)
        for (const Enumerator& e : type->enumerators())
          type->is_signed_ |= e.value < 0;
    }
    break;
  default:
    break;
  }
  return type;
}

// DWARF says all dimensions of an array in one DIE; here each is a Type of its own.
std::unique_ptr<Type> TypeReader::make_array(TypeTable& table, Dwarf_Die die) {
  struct Dimension {
    std::optional<uint64_t> count;
    DieRef dynamic;
  };
  std::vector<Dimension> dimensions;
  Dwarf_Die child;
  for (int more = dwarf_child(&die, &child); more == 0; more = dwarf_siblingof(&child, &child)) {
    if (dwarf_tag(&child) != DW_TAG_subrange_type)
      continue;
    Dimension d;
    Dwarf_Attribute attribute;
    if (auto count = unsigned_attribute(child, DW_AT_count)) {
      d.count = count;
    } else if (dwarf_attr(&child, DW_AT_upper_bound, &attribute)) {
      Dwarf_Sword upper;
      Dwarf_Block block;
      Dwarf_Die bound;
      if (dwarf_formblock(&attribute, &block) == 0 || dwarf_formref_die(&attribute, &bound))
        d.dynamic = to_ref(child);
      else if (dwarf_formsdata(&attribute, &upper) == 0)
        d.count = upper < 0 ? 0 : static_cast<uint64_t>(upper) + 1;
    } else if (dwarf_attr(&child, DW_AT_count, &attribute)) {
      d.dynamic = to_ref(child);
    }
    dimensions.push_back(d);
  }
  if (dimensions.empty())
    dimensions.push_back({});
  auto make_dimension = [&](const Dimension& d) {
    auto type = std::unique_ptr<Type>(new Type(TypeKind::kArray, &table, to_ref(die)));
    type->have_name_ = true;
    type->count_ = d.count;
    type->count_die_ = d.dynamic;
    return type;
  };
  std::unique_ptr<Type> outer = make_dimension(dimensions.back());
  outer->is_vector_ = flag_attribute(die, DW_AT_GNU_vector);
  for (size_t i = dimensions.size() - 1; i-- > 0;) {
    auto next = make_dimension(dimensions[i]);
    next->target_ = outer.get();
    next->have_target_ = true;
    table.inner_arrays_.push_back(std::move(outer));
    outer = std::move(next);
  }
  return outer;
}

void TypeReader::read_name(const Type& type) {
  Dwarf_Die die = to_die(type.die_);
  const char* name = dwarf_diename(&die);
  if (!name) {
    if (type.kind_ == TypeKind::kVoid)
      type.name_ = "void";
    return;
  }
  if (has_namespaces(type.language_) && type.kind_ != TypeKind::kInt)
    type.name_ = type.table_->scope_prefix(type.die_);
  type.name_ += type.kind_ == TypeKind::kInt ? canonical_base_name(name) : std::string(name);
}

TypeRef TypeReader::underlying_type(const Type& type) {
  auto target = reference_attribute(to_die(type.die_), DW_AT_type);
  return target ? type.table_->from_die(to_ref(*target)) : nullptr;
}

void TypeReader::read_enumerators(const Type& type) {
  Dwarf_Die die = to_die(type.die_);
  if (type.language_ == Language::kCpp)
    type.prefix_ = flag_attribute(die, DW_AT_enum_class) ? type.own_name() + "::"
                                                         : type.table_->scope_prefix(type.die_);
  Dwarf_Die child;
  for (int more = dwarf_child(&die, &child); more == 0; more = dwarf_siblingof(&child, &child)) {
    Dwarf_Attribute attribute;
    Dwarf_Sword value = 0;
    const char* name = dwarf_diename(&child);
    if (dwarf_tag(&child) != DW_TAG_enumerator || !name ||
        !dwarf_attr(&child, DW_AT_const_value, &attribute))
      continue;
    // libdw widens each form by its own sign, which is right for both signs of DW_FORM_data as the
    // compilers use it: unsigned values above INT32_MAX come as udata or data8.
    if (dwarf_whatform(&attribute) == DW_FORM_udata) {
      Dwarf_Word word;
      if (dwarf_formudata(&attribute, &word) == 0)
        value = static_cast<Dwarf_Sword>(word);
    } else if (dwarf_formsdata(&attribute, &value) != 0) {
      continue;
    }
    uint64_t size = type.size_;
    bool is_data = dwarf_whatform(&attribute) != DW_FORM_sdata &&
                   dwarf_whatform(&attribute) != DW_FORM_implicit_const;
    TypeRef under = type.target();
    if (under && !under->stripped()->is_signed() && is_data && size < 8)
      value &= (int64_t{1} << (8 * size)) - 1;
    type.enumerators_.push_back({name, value});
  }
}

void TypeReader::read_parameters(const Type& type) {
  Dwarf_Die die = to_die(type.die_);
  type.is_prototyped_ = flag_attribute(die, DW_AT_prototyped) || has_namespaces(type.language_);
  // The parameters of a concrete instance without any are with its abstract origin.
  Dwarf_Die child;
  Dwarf_Die source = die;
  for (int hops = 0; hops < 4; hops++) {
    Dwarf_Attribute attribute;
    Dwarf_Die next;
    if (dwarf_haschildren(&source) > 0)
      break;
    if (!(dwarf_attr(&source, DW_AT_abstract_origin, &attribute) ||
          dwarf_attr(&source, DW_AT_specification, &attribute)) ||
        !dwarf_formref_die(&attribute, &next))
      break;
    source = next;
  }
  for (int more = dwarf_child(&source, &child); more == 0; more = dwarf_siblingof(&child, &child)) {
    if (dwarf_tag(&child) == DW_TAG_formal_parameter)
      type.parameters_.push_back(type.table_->type_of(to_ref(child)));
    else if (dwarf_tag(&child) == DW_TAG_unspecified_parameters)
      type.is_variadic_ = true;
  }
}

void TypeReader::read_members(const Type& type) {
  Dwarf_Die die = to_die(type.die_);
  Dwarf_Die child;
  for (int more = dwarf_child(&die, &child); more == 0; more = dwarf_siblingof(&child, &child))
    read_member(type, child);
}

void TypeReader::read_member(const Type& type, Dwarf_Die die) {
  int tag = dwarf_tag(&die);
  if (tag != DW_TAG_member && tag != DW_TAG_inheritance && tag != DW_TAG_variable)
    return;
  Member member;
  if (const char* name = dwarf_diename(&die))
    member.name = name;
  member.type = type.table_->type_of(to_ref(die));
  member.die = to_ref(die);
  member.is_base = tag == DW_TAG_inheritance;
  member.is_virtual = unsigned_attribute(die, DW_AT_virtuality).value_or(0) != 0;
  member.is_artificial = flag_attribute(die, DW_AT_artificial);
  // DWARF 4 says a static member by DW_AT_external and DW_AT_declaration, DWARF 5 by its tag.
  member.is_static = tag == DW_TAG_variable || flag_attribute(die, DW_AT_external);
  if (member.is_base)
    member.name = member.type->own_name();

  Dwarf_Attribute attribute;
  if (!member.is_virtual && dwarf_attr(&die, DW_AT_data_member_location, &attribute)) {
    Dwarf_Word offset;
    Dwarf_Op* ops;
    size_t count;
    if (dwarf_formudata(&attribute, &offset) == 0)
      member.bit_offset = offset * 8;
    else if (dwarf_getlocation(&attribute, &ops, &count) == 0 && count == 1 &&
             ops[0].atom == DW_OP_plus_uconst)
      member.bit_offset = ops[0].number * 8;
  }
  if (auto bits = unsigned_attribute(die, DW_AT_bit_size)) {
    constexpr uint64_t kMostBits = 64; // no integer is longer that can be a bit field
    member.bit_size = static_cast<uint32_t>(std::min(*bits, kMostBits));
    if (auto from_start = unsigned_attribute(die, DW_AT_data_bit_offset)) {
      member.bit_offset += *from_start;
    } else if (auto from_top = unsigned_attribute(die, DW_AT_bit_offset)) {
      // DWARF 3: counted from the most significant bit of the storage unit.
      uint64_t storage = unsigned_attribute(die, DW_AT_byte_size).value_or(member.type->size()) * 8;
      member.bit_offset += storage - *from_top - *bits;
    }
  }
  type.members_.push_back(std::move(member));
}

std::string TypeTable::scope_prefix(const DieRef& ref) {
  Dwarf_Die die = to_die(ref);
  Dwarf_Die unit;
  if (!dwarf_diecu(&die, &unit, nullptr, nullptr) ||
      !has_namespaces(language_of_unit(to_ref(unit))))
    return "";
  auto [it, inserted] = parents_.try_emplace(unit.addr);
  auto& parents = it->second;
  if (inserted) {
    // DIEs do not know their parents; walk what can nest names, not the bodies of functions.
    std::vector<std::pair<Dwarf_Die, bool>> pending{{unit, false}};
    while (!pending.empty()) {
      auto [parent, is_scope] = pending.back();
      pending.pop_back();
      Dwarf_Die child;
      for (int more = dwarf_child(&parent, &child); more == 0;
           more = dwarf_siblingof(&child, &child)) {
        if (is_scope)
          parents.emplace(child.addr, to_ref(parent));
        int tag = dwarf_tag(&child);
        if (tag == DW_TAG_namespace || tag == DW_TAG_structure_type || tag == DW_TAG_class_type ||
            tag == DW_TAG_union_type)
          pending.emplace_back(child, true);
      }
    }
  }
  std::string prefix;
  const void* at = die.addr;
  for (int depth = 0; depth < 64; depth++) {
    auto found = parents.find(at);
    if (found == parents.end())
      break;
    Dwarf_Die parent = to_die(found->second);
    const char* name = dwarf_diename(&parent);
    // Inline namespaces are part of the name for gdb too.
    prefix.insert(0, std::string(name ? name : "(anonymous namespace)") + "::");
    at = parent.addr;
  }
  return prefix;
}

} // namespace ddbg::symbols
