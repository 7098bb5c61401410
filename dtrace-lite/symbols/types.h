// Types as DWARF 4 and 5 describe them: what a value's bytes mean.
//
// A TypeTable belongs to one debug file and hands out Types, which live as long as it does. Nothing
// is read before it is asked for: a Type is made from its DIE alone; its target, members,
// enumerators and parameters are read at the first call that needs them, and a declaration looks
// for its definition only when its members or size are wanted. Not thread-safe (libdw is not).
#pragma once

#include "libdune/base/types.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

struct Dwarf; // libdw's handle, see dwarf_internal.h

namespace ddbg::symbols {

// A Dwarf_Die, opaque outside this folder. Valid as long as its Dwarf.
struct DieRef {
  void* words[4] = {};
  explicit operator bool() const { return words[0] != nullptr; }
  bool operator==(const DieRef& o) const { return words[0] == o.words[0]; }
};

enum class Language : uint8_t { kC, kCpp, kRust, kGo, kOther };

enum class TypeKind : uint8_t {
  kVoid,
  kBool,
  kChar,
  kInt,
  kFloat,
  kComplex,
  kFlags, // the flag bits of a register
  kEnum,
  kPointer,
  kLvalueReference,
  kRvalueReference,
  kMemberPointer,
  kArray,
  kStruct,
  kClass,
  kUnion,
  kTypedef,
  kConst,
  kVolatile,
  kRestrict,
  kAtomic,
  kFunction,
  kNoDebugData, // what an ELF data symbol without debug information is
  kNoDebugText, // the same for code
  kUnsupported, // a DWARF type that is not modelled; its bytes can still be shown
};

class Type;
class TypeTable;
using TypeRef = const Type*; // never null in this interface unless said

struct Member {
  std::string name; // empty: anonymous struct or union
  TypeRef type;
  uint64_t bit_offset = 0; // from the start of the enclosing object
  uint32_t bit_size = 0;   // 0: not a bit field
  bool is_base = false;
  bool is_static = false;  // `die` names the declaration; no place in the object
  bool is_virtual = false; // a virtual base: its offset is computed from the object, see `die`
  bool is_artificial = false;
  DieRef die{};
};

struct Enumerator {
  std::string name;
  int64_t value;
};

class Type {
public:
  Type(TypeKind kind, std::string name, uint64_t size, bool is_signed)
      : kind_(kind), name_(std::move(name)), size_(size), is_signed_(is_signed) {}
  Type(const Type&) = delete;
  Type& operator=(const Type&) = delete;
  ~Type();

  TypeKind kind() const { return kind_; }
  Language language() const { return language_; }
  const DieRef& die() const { return die_; }

  // The name the declaration gives, qualified by its namespaces and classes; "" for anonymous and
  // derived types.
  const std::string& own_name() const;
  // The whole type as gdb prints it: "struct list *", "const char [6]", "int (*)(void)".
  std::string name() const;
  // As name(), with what a declaration has between the two halves: "int (*" + inner + ")[3]".
  std::string name_around(std::string_view inner) const;

  // Bytes; 0 for void, functions, incomplete types and arrays of unknown length.
  uint64_t size() const;
  bool is_signed() const { return is_signed_; }
  // Without a definition anywhere in this file.
  bool is_incomplete() const;

  // Pointee, element, aliased type, return type, or an enum's underlying type (may be null there).
  TypeRef target() const;
  // Elements of an array; nullopt: not known ("int a[]"), or known only at run time.
  std::optional<uint64_t> count() const { return count_; }
  // The DIE of the bound when it is known only at run time (variable-length arrays).
  const DieRef& count_die() const { return count_die_; }
  bool is_vector() const { return is_vector_; } // __attribute__((vector_size))

  const std::vector<Member>& members() const;
  const std::vector<Enumerator>& enumerators() const;
  // What stands before an enumerator's name when it is printed: "ns::Colour::", in C "".
  const std::string& enumerator_prefix() const { return enumerators(), definition()->prefix_; }
  bool is_flag_enum() const; // every enumerator is disjoint bits: printed as (A | B)
  const std::vector<TypeRef>& parameters() const;
  bool is_variadic() const;
  bool is_prototyped() const;

  // Without typedefs and qualifiers.
  TypeRef stripped() const;
  // Without qualifiers at the top, typedefs kept.
  TypeRef unqualified() const;

  bool is_integral() const; // bool, char, int, enum (stripped)
  bool is_scalar() const;   // anything a register holds: integral, float, pointer
  bool is_record() const;
  bool is_pointer() const { return stripped()->kind() == TypeKind::kPointer; }
  bool is_reference() const;

  // Derived types, made once and owned by this one.
  TypeRef pointer() const;
  TypeRef lvalue_reference() const;
  TypeRef const_qualified() const;
  TypeRef volatile_qualified() const;
  TypeRef array(uint64_t count) const;
  TypeRef vector(uint64_t count) const;
  TypeRef function() const; // returning this, without prototype
  TypeRef function(std::vector<TypeRef> parameters, bool variadic) const;

private:
  friend class TypeTable;
  friend class TypeReader;
  Type(TypeKind kind, TypeTable* table, const DieRef& die);
  TypeRef derived(TypeKind kind, uint64_t size) const;
  const Type* definition() const; // this, or what a declaration stands for

  TypeKind kind_;
  Language language_ = Language::kC;
  mutable std::string name_;
  mutable uint64_t size_ = 0;
  bool is_signed_ = false;
  bool is_vector_ = false;
  bool is_declaration_ = false;
  mutable bool is_variadic_ = false;
  mutable bool is_prototyped_ = false;
  std::optional<uint64_t> count_;
  DieRef count_die_;
  TypeTable* table_ = nullptr; // null: built in or derived
  DieRef die_;

  // What has been read already.
  mutable bool have_name_ = true;
  mutable bool have_target_ = true;
  mutable bool have_children_ = true;
  mutable bool have_definition_ = false;
  mutable TypeRef target_ = nullptr;
  mutable const Type* definition_ = nullptr;
  mutable std::vector<Member> members_;
  mutable std::vector<Enumerator> enumerators_;
  mutable std::string prefix_; // of enumerators
  mutable std::vector<TypeRef> parameters_;
  mutable std::vector<std::unique_ptr<Type>> derived_;
};

// The types C has without any debug information, and those of the registers.
struct BuiltinTypes {
  static const BuiltinTypes& get();
  // By spelling with the words in canonical order ("unsigned long", "long double"), or null.
  TypeRef by_name(std::string_view name) const;

  TypeRef void_type, bool_type, char_type, signed_char, unsigned_char, short_type, unsigned_short,
      int_type, unsigned_int, long_type, unsigned_long, long_long, unsigned_long_long, int128,
      uint128, float_type, double_type, long_double, wchar, char16, char32;
  TypeRef int8, uint8, int16, uint16, int32, uint32, int64, uint64; // gdb's names of register parts
  TypeRef c_bool;                                                   // a comparison's result in C++
  TypeRef data_ptr;                                                 // void *
  TypeRef code_ptr;                                                 // void (*)()
  TypeRef eflags;                                                   // i386_eflags
  TypeRef no_debug_data, no_debug_text;
};

class TypeTable {
public:
  // `find_definition` maps the qualified name and kind of a declared type to its definition's DIE,
  // or to nothing; it is called lazily.
  using FindDefinition = std::function<DieRef(const std::string& name, TypeKind kind)>;
  explicit TypeTable(Dwarf* dwarf);
  ~TypeTable();
  TypeTable(const TypeTable&) = delete;
  TypeTable& operator=(const TypeTable&) = delete;

  void set_find_definition(FindDefinition find) { find_definition_ = std::move(find); }

  // The type that a type DIE describes; void for an empty one.
  TypeRef from_die(const DieRef& die);
  // What DW_AT_type of this DIE (or its abstract origin or specification) says; void if nothing.
  TypeRef type_of(const DieRef& die);
  // The function type of a DW_TAG_subprogram.
  TypeRef function_type(const DieRef& subprogram);
  // "ns::Class::" of a DIE that can be nested in one, "" outside C++ and Rust.
  std::string scope_prefix(const DieRef& die);

  size_t types_read() const { return by_address_.size(); }

private:
  friend class Type;
  friend class TypeReader;
  Dwarf* dwarf_;
  FindDefinition find_definition_;
  std::unordered_map<const void*, std::unique_ptr<Type>> by_address_;
  std::unordered_map<const void*, std::unique_ptr<Type>> function_types_;
  std::vector<std::unique_ptr<Type>> inner_arrays_;
  // For each unit with namespaces or nested types: child -> enclosing namespace or type.
  std::unordered_map<const void*, std::unordered_map<const void*, DieRef>> parents_;
};

Language language_of_unit(const DieRef& unit);

} // namespace ddbg::symbols
