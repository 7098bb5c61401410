// Internal to symbols/: how a Type fills itself from its DIE.
#pragma once

#include "dtrace-lite/symbols/types.h"

#include <cstring>
#include <elfutils/libdw.h>

namespace ddbg::symbols {

static_assert(sizeof(Dwarf_Die) == sizeof(DieRef));

inline Dwarf_Die to_die(const DieRef& ref) {
  Dwarf_Die die;
  std::memcpy(&die, ref.words, sizeof die);
  return die;
}

inline DieRef to_ref(const Dwarf_Die& die) {
  DieRef ref;
  std::memcpy(ref.words, &die, sizeof ref.words);
  return ref;
}

// A small unsigned attribute, own or inherited by abstract origin or specification.
inline std::optional<uint64_t> unsigned_attribute(const Dwarf_Die& die, unsigned name) {
  Dwarf_Die copy = die;
  Dwarf_Attribute attribute;
  Dwarf_Word value;
  if (dwarf_attr_integrate(&copy, name, &attribute) && dwarf_formudata(&attribute, &value) == 0)
    return value;
  return std::nullopt;
}

inline bool flag_attribute(const Dwarf_Die& die, unsigned name) {
  Dwarf_Die copy = die;
  Dwarf_Attribute attribute;
  bool value = false;
  return dwarf_attr_integrate(&copy, name, &attribute) && dwarf_formflag(&attribute, &value) == 0 &&
         value;
}

// The DIE that a reference attribute names.
inline std::optional<Dwarf_Die> reference_attribute(const Dwarf_Die& die, unsigned name) {
  Dwarf_Die copy = die;
  Dwarf_Attribute attribute;
  Dwarf_Die target;
  if (dwarf_attr_integrate(&copy, name, &attribute) && dwarf_formref_die(&attribute, &target))
    return target;
  return std::nullopt;
}

class TypeReader {
public:
  static void read_name(const Type& type);
  static void read_members(const Type& type);
  static void read_enumerators(const Type& type);
  static void read_parameters(const Type& type);
  static TypeRef underlying_type(const Type& type);
  static std::unique_ptr<Type> make(TypeTable& table, const DieRef& die);

private:
  static std::unique_ptr<Type> make_array(TypeTable& table, Dwarf_Die die);
  static void read_member(const Type& type, Dwarf_Die die);
};

} // namespace ddbg::symbols
