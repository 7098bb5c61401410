// Names to variables, functions, types and constants, as the DWARF of one module says it.
//
// Scopes are found from a pc: blocks, the function, its unit; global names by a walk over the units
// that stops at the first definition and remembers what it saw, so a name in the current unit costs
// one unit, and only a name that does not exist costs all of them. Not thread-safe.
#pragma once

#include "dtrace-lite/symbols/locations.h"
#include "dtrace-lite/symbols/types.h"

namespace ddbg::symbols {

class Module;

struct Variable {
  std::string name;
  DieRef die;      // has the type and the location
  DieRef function; // whose frame base its location is relative to; empty for globals
  bool is_argument = false;
  bool is_artificial = false;  // `this`
  bool is_declaration = false; // defined elsewhere: only the type is known
};

// What a name means.
struct Meaning {
  enum class Kind { kVariable, kFunction, kType, kEnumerator, kNamespace };
  Kind kind;
  Variable variable{};    // kVariable
  TypeRef type = nullptr; // of the variable, function, enumerator; the type itself
  int64_t value = 0;      // kEnumerator
  LinkAddr entry{};       // kFunction
};

// The tag before a type's name: `struct foo` is not `union foo` or the typedef foo.
enum class TagKind { kNone, kStruct, kUnion, kEnum };

struct Block {
  std::vector<Variable> variables; // in the order of declaration
  DieRef die;
};

// A function as a frame of the call stack: an inlined call is a frame of its own.
struct FunctionScope {
  std::string name;
  DieRef die;      // DW_TAG_subprogram or DW_TAG_inlined_subroutine
  DieRef function; // the enclosing concrete subprogram, which has the frame base
  bool is_inlined = false;
  std::vector<Variable> arguments;
  std::vector<Block> blocks; // those that cover the pc, innermost first; the last is the body
};

class VariableTable {
public:
  // Null when the module has no DWARF. The module must outlive the table.
  static std::unique_ptr<VariableTable> open(Module& module);
  explicit VariableTable(Dwarf* dwarf);
  ~VariableTable();
  VariableTable(const VariableTable&) = delete;
  VariableTable& operator=(const VariableTable&) = delete;

  TypeTable& types();
  TypeRef type_of(const Variable& variable);
  Language language_at(LinkAddr pc); // kC where there is no DWARF

  // The function that covers pc and what is inlined there, innermost first; empty: no DWARF for pc.
  const std::vector<FunctionScope>& frames_at(LinkAddr pc);

  // The meaning of `name` ("x", "ns::x", "::x") in the frame at pc: blocks, arguments, enclosing
  // classes and namespaces, the unit, then the other units. `depth` counts inlined frames from the
  // innermost. nullopt: none.
  std::optional<Meaning> find(std::string_view name, LinkAddr pc, size_t depth = 0);
  // The same without frame: globals and file statics of all units.
  std::optional<Meaning> find_global(std::string_view name);
  // 'file.c'::name. `file` is a whole path or its last components.
  std::optional<Meaning> find_in_file(std::string_view file, std::string_view name);
  bool has_file(std::string_view file);
  // A type by name; in C a struct's tag only with its keyword, in C++ without, too.
  TypeRef find_type(std::string_view name, TagKind tag, std::optional<LinkAddr> pc,
                    size_t depth = 0); // null: none

  // Where the variable is at pc (any pc for globals).
  Checked<LocationPlan> plan(const Variable& variable, LinkAddr pc);
  // Where a base or member lies whose offset is known only at run time: from the enclosing object.
  static Checked<LocationPlan> plan_member(const Member& member);
  // The number of elements of a variable-length array: a plan of one value, or of the address of
  // the bound's variable. `bound_is_upper`: the count is one more.
  struct ArrayBound {
    LocationPlan plan;
    TypeRef type; // of the value, when it is read from a variable; else null
    bool bound_is_upper;
  };
  Checked<ArrayBound> plan_count(const Type& array, LinkAddr pc, const DieRef& function);

  // The name in scope at pc that is nearest to a mistyped one, or "".
  std::string nearest_name(std::string_view typed, std::optional<LinkAddr> pc);

  size_t units_scanned() const; // by the walk for global names

private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

} // namespace ddbg::symbols
