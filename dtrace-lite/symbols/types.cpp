#include "dtrace-lite/symbols/types.h"

#include "dtrace-lite/symbols/types_reader.h"

#include <algorithm>

namespace ddbg::symbols {

Type::Type(TypeKind kind, TypeTable* table, const DieRef& die)
    : kind_(kind), table_(table), die_(die), have_name_(false), have_target_(false),
      have_children_(false) {}

Type::~Type() = default;

const std::string& Type::own_name() const {
  if (!have_name_) {
    have_name_ = true;
    TypeReader::read_name(*this);
  }
  return name_;
}

uint64_t Type::size() const {
  switch (kind_) {
  case TypeKind::kTypedef:
  case TypeKind::kConst:
  case TypeKind::kVolatile:
  case TypeKind::kRestrict:
  case TypeKind::kAtomic:
    return target()->size();
  case TypeKind::kArray: {
    uint64_t size = 0; // what does not fit is larger than anything that anybody reads
    const bool fits = !__builtin_mul_overflow(count_.value_or(0), target()->size(), &size);
    return size_ ? size_ : fits ? size : ~uint64_t{0};
  }
  case TypeKind::kLvalueReference:
  case TypeKind::kRvalueReference:
    return 8;
  default:
    return definition()->size_;
  }
}

const Type* Type::definition() const {
  if (!is_declaration_)
    return this;
  if (!have_definition_) {
    have_definition_ = true;
    if (table_->find_definition_ && !own_name().empty())
      if (DieRef found = table_->find_definition_(own_name(), kind_)) {
        TypeRef type = table_->from_die(found);
        if (!type->is_declaration_)
          definition_ = type;
      }
  }
  return definition_ ? definition_ : this;
}

bool Type::is_incomplete() const { return definition()->is_declaration_; }

TypeRef Type::target() const {
  if (!have_target_) {
    have_target_ = true;
    target_ = kind_ == TypeKind::kEnum ? TypeReader::underlying_type(*this) : table_->type_of(die_);
  }
  return target_;
}

const std::vector<Member>& Type::members() const {
  const Type* d = definition();
  if (!d->have_children_) {
    d->have_children_ = true;
    TypeReader::read_members(*d);
  }
  return d->members_;
}

const std::vector<Enumerator>& Type::enumerators() const {
  const Type* d = definition();
  if (!d->have_children_) {
    d->have_children_ = true;
    TypeReader::read_enumerators(*d);
  }
  return d->enumerators_;
}

// gdb's rule: no negative value, and no two non-zero enumerators that share a bit unless one is a
// contiguous multi-bit mask of its own.
bool Type::is_flag_enum() const {
  uint64_t seen = 0;
  for (const Enumerator& e : enumerators()) {
    if (e.value < 0)
      return false;
    uint64_t bits = static_cast<uint64_t>(e.value);
    if (bits == 0)
      continue;
    uint64_t shifted = bits >> __builtin_ctzll(bits);
    if ((shifted & (shifted + 1)) != 0 || (seen & bits) != 0)
      return false;
    seen |= bits;
  }
  return true;
}

const std::vector<TypeRef>& Type::parameters() const {
  if (!have_children_) {
    have_children_ = true;
    TypeReader::read_parameters(*this);
  }
  return parameters_;
}

bool Type::is_variadic() const { return parameters(), is_variadic_; }
bool Type::is_prototyped() const { return parameters(), is_prototyped_; }

TypeRef Type::unqualified() const {
  TypeRef type = this;
  while (type->kind_ == TypeKind::kConst || type->kind_ == TypeKind::kVolatile ||
         type->kind_ == TypeKind::kRestrict || type->kind_ == TypeKind::kAtomic)
    type = type->target();
  return type;
}

TypeRef Type::stripped() const {
  TypeRef type = this;
  // A damaged file can make a typedef its own target: give up after a depth no program has.
  for (int depth = 0; depth < 256; depth++) {
    switch (type->kind_) {
    case TypeKind::kTypedef:
    case TypeKind::kConst:
    case TypeKind::kVolatile:
    case TypeKind::kRestrict:
    case TypeKind::kAtomic:
      type = type->target();
      break;
    default:
      return type;
    }
  }
  return BuiltinTypes::get().void_type;
}

bool Type::is_integral() const {
  switch (stripped()->kind_) {
  case TypeKind::kBool:
  case TypeKind::kChar:
  case TypeKind::kInt:
  case TypeKind::kEnum:
  case TypeKind::kFlags:
    return true;
  default:
    return false;
  }
}

bool Type::is_scalar() const {
  TypeKind kind = stripped()->kind_;
  return is_integral() || kind == TypeKind::kFloat || kind == TypeKind::kPointer;
}

bool Type::is_record() const {
  TypeKind kind = stripped()->kind_;
  return kind == TypeKind::kStruct || kind == TypeKind::kClass || kind == TypeKind::kUnion;
}

bool Type::is_reference() const {
  TypeKind kind = stripped()->kind_;
  return kind == TypeKind::kLvalueReference || kind == TypeKind::kRvalueReference;
}

TypeRef Type::derived(TypeKind kind, uint64_t size) const {
  for (const auto& type : derived_)
    if (type->kind_ == kind)
      return type.get();
  auto type = std::make_unique<Type>(kind, "", size, false);
  type->target_ = this;
  type->language_ = language_;
  return derived_.emplace_back(std::move(type)).get();
}

TypeRef Type::pointer() const { return derived(TypeKind::kPointer, 8); }
TypeRef Type::lvalue_reference() const { return derived(TypeKind::kLvalueReference, 8); }
TypeRef Type::const_qualified() const { return derived(TypeKind::kConst, 0); }
TypeRef Type::volatile_qualified() const { return derived(TypeKind::kVolatile, 0); }

TypeRef Type::array(uint64_t count) const {
  for (const auto& type : derived_)
    if (type->kind_ == TypeKind::kArray && !type->is_vector_ && type->count_ == count)
      return type.get();
  auto type = std::make_unique<Type>(TypeKind::kArray, "", 0, false);
  type->target_ = this;
  type->language_ = language_;
  type->count_ = count;
  return derived_.emplace_back(std::move(type)).get();
}

TypeRef Type::vector(uint64_t count) const {
  for (const auto& type : derived_)
    if (type->is_vector_ && type->count_ == count)
      return type.get();
  auto type = std::make_unique<Type>(TypeKind::kArray, "", 0, false);
  type->target_ = this;
  type->count_ = count;
  type->is_vector_ = true;
  return derived_.emplace_back(std::move(type)).get();
}

TypeRef Type::function() const {
  for (const auto& type : derived_)
    if (type->kind_ == TypeKind::kFunction && !type->is_prototyped_)
      return type.get();
  auto type = std::make_unique<Type>(TypeKind::kFunction, "", 1, false);
  type->target_ = this;
  type->language_ = language_;
  return derived_.emplace_back(std::move(type)).get();
}

TypeRef Type::function(std::vector<TypeRef> parameters, bool variadic) const {
  for (const auto& type : derived_)
    if (type->kind_ == TypeKind::kFunction && type->is_prototyped_ &&
        type->is_variadic_ == variadic && type->parameters_ == parameters)
      return type.get();
  auto type = std::make_unique<Type>(TypeKind::kFunction, "", 1, false);
  type->target_ = this;
  type->language_ = language_;
  type->parameters_ = std::move(parameters);
  type->is_variadic_ = variadic;
  type->is_prototyped_ = true;
  return derived_.emplace_back(std::move(type)).get();
}

namespace {

struct BuiltinSet : BuiltinTypes {
  std::vector<std::unique_ptr<Type>> owned;

  TypeRef make(TypeKind kind, const char* name, uint64_t size, bool is_signed) {
    return owned.emplace_back(std::make_unique<Type>(kind, name, size, is_signed)).get();
  }
  BuiltinSet() {
    using enum TypeKind;
    void_type = make(kVoid, "void", 1, false);
    bool_type = make(kBool, "_Bool", 1, false);
    c_bool = make(kBool, "bool", 1, false);
    char_type = make(kChar, "char", 1, true);
    signed_char = make(kChar, "signed char", 1, true);
    unsigned_char = make(kChar, "unsigned char", 1, false);
    short_type = make(kInt, "short", 2, true);
    unsigned_short = make(kInt, "unsigned short", 2, false);
    int_type = make(kInt, "int", 4, true);
    unsigned_int = make(kInt, "unsigned int", 4, false);
    long_type = make(kInt, "long", 8, true);
    unsigned_long = make(kInt, "unsigned long", 8, false);
    long_long = make(kInt, "long long", 8, true);
    unsigned_long_long = make(kInt, "unsigned long long", 8, false);
    int128 = make(kInt, "__int128", 16, true);
    uint128 = make(kInt, "unsigned __int128", 16, false);
    float_type = make(kFloat, "float", 4, true);
    double_type = make(kFloat, "double", 8, true);
    long_double = make(kFloat, "long double", 16, true);
    wchar = make(kChar, "wchar_t", 4, true);
    char16 = make(kChar, "char16_t", 2, false);
    char32 = make(kChar, "char32_t", 4, false);
    int8 = make(kInt, "int8_t", 1, true);
    uint8 = make(kInt, "uint8_t", 1, false);
    int16 = make(kInt, "int16_t", 2, true);
    uint16 = make(kInt, "uint16_t", 2, false);
    int32 = make(kInt, "int32_t", 4, true);
    uint32 = make(kInt, "uint32_t", 4, false);
    int64 = make(kInt, "int64_t", 8, true);
    uint64 = make(kInt, "uint64_t", 8, false);
    eflags = make(kFlags, "i386_eflags", 4, false);
    no_debug_data = make(kNoDebugData, "<data variable, no debug info>", 0, false);
    no_debug_text = make(kNoDebugText, "<text variable, no debug info>", 1, false);
    data_ptr = void_type->pointer();
    code_ptr = void_type->function()->pointer();
  }
};

} // namespace

const BuiltinTypes& BuiltinTypes::get() {
  // Never destroyed: values in static storage may still name these types at exit.
  static const BuiltinSet* set = new BuiltinSet;
  return *set;
}

TypeRef BuiltinTypes::by_name(std::string_view name) const {
  for (TypeRef type :
       {void_type, bool_type, c_bool, char_type, signed_char, unsigned_char, short_type,
        unsigned_short, int_type, unsigned_int, long_type, unsigned_long, long_long,
        unsigned_long_long, int128, uint128, float_type, double_type, long_double})
    if (type->own_name() == name)
      return type;
  return nullptr;
}

} // namespace ddbg::symbols
