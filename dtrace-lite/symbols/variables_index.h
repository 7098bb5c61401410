// Internal to symbols/: the units of a Dwarf and the names at their top level.
#pragma once

#include "dtrace-lite/symbols/types_reader.h"
#include "dtrace-lite/symbols/variables.h"

#include <map>
#include <unordered_set>

namespace ddbg::symbols {

// One name at the level of a unit, namespace or class.
struct NamedDie {
  std::string_view name; // own, without scope; the debug file's bytes
  Dwarf_Die die;
};

class UnitNames {
public:
  UnitNames(Dwarf* dwarf, TypeTable& types) : dwarf_(dwarf), types_(types) {}

  const std::vector<Dwarf_Die>& units(); // full, partial and split units
  std::optional<Dwarf_Die> unit_at(LinkAddr pc);
  std::optional<Dwarf_Die> unit_of_file(std::string_view file);

  // What `qualified` means in one unit, in the order of declaration, definitions first.
  std::vector<Dwarf_Die> in_unit(const Dwarf_Die& unit, std::string_view qualified);
  // The first that `accept` takes, in all units.
  std::optional<Dwarf_Die> anywhere(std::string_view qualified,
                                    const std::function<bool(Dwarf_Die&)>& accept);
  // Names of one unit, for suggestions.
  void for_each_name(const Dwarf_Die& unit, const std::function<void(std::string_view)>& f);
  // Namespaces that the unit imports at its top ("using namespace std"), as "std::".
  std::vector<std::string> imported_prefixes(const Dwarf_Die& unit);

  size_t units_scanned() const { return next_unit_; }

private:
  using Visit = std::function<void(const char* name, Dwarf_Die& die)>;
  using Names = std::unordered_multimap<std::string_view, Dwarf_Die>;
  struct Entry {
    void* address;
    uint16_t unit_kind; // tag, to keep one of each kind
    Dwarf* dwarf;
  };
  void walk(Dwarf_Die parent, bool is_cpp, int depth, const Visit& visit);
  const Names& names_of(const Dwarf_Die& unit);
  bool matches(Dwarf_Die& die, std::string_view prefix, std::string_view name);
  void scan_next_unit();
  void add_units(Dwarf* dwarf);

  Dwarf* dwarf_;
  TypeTable& types_;
  bool have_units_ = false;
  std::vector<Dwarf_Die> units_;
  std::vector<Dwarf*> unit_dwarfs_;
  std::unordered_map<void*, Names> names_; // by unit, of those that were asked for
  size_t next_unit_ = 0;
  std::unordered_multimap<uint64_t, Entry> index_; // by hash of the own name, over scanned units
};

bool is_type_tag(int tag);
// An enumeration with an enumerator of this name.
bool has_enumerator(Dwarf_Die& die, std::string_view name);

} // namespace ddbg::symbols
