// The names of types, as gdb prints them.
#include "dtrace-lite/symbols/types.h"

namespace ddbg::symbols {
namespace {

bool is_qualifier(TypeKind kind) {
  return kind == TypeKind::kConst || kind == TypeKind::kVolatile || kind == TypeKind::kRestrict ||
         kind == TypeKind::kAtomic;
}

const char* qualifier_name(TypeKind kind) {
  switch (kind) {
  case TypeKind::kConst:
    return "const";
  case TypeKind::kVolatile:
    return "volatile";
  case TypeKind::kRestrict:
    return "restrict";
  default:
    return "_Atomic";
  }
}

std::string tagged_name(const Type& type) {
  const char* keyword = "";
  switch (type.kind()) {
  case TypeKind::kEnum:
    keyword = "enum";
    break;
  case TypeKind::kUnion:
    keyword = "union";
    break;
  default:
    keyword = type.kind() == TypeKind::kClass ? "class" : "struct";
  }
  const std::string& own = type.own_name();
  if (own.empty())
    return std::string(keyword) + " {...}";
  return type.language() == Language::kC ? std::string(keyword) + " " + own : own;
}

std::string parameter_list(const Type& function) {
  std::string out = "(";
  for (TypeRef parameter : function.parameters()) {
    if (out.size() > 1)
      out += ", ";
    out += parameter->name();
  }
  if (function.is_variadic())
    out += out.size() > 1 ? ", ..." : "...";
  else if (out.size() == 1 && function.is_prototyped())
    out += "void";
  return out + ")";
}

// A declarator is printed inside out: what is said about `type` goes around `inner`.
std::string declare(const Type& type, std::string inner, int depth) {
  if (depth > 64)
    return "..." + inner;
  auto words = [&](const std::string& name) {
    bool glued = inner.empty() || inner[0] == '[';
    return glued ? name + (inner.empty() ? "" : " ") + inner : name + " " + inner;
  };
  auto around_pointer = [&](const std::string& sign) {
    TypeRef target = type.target();
    bool parenthesize = target->kind() == TypeKind::kArray ? !target->is_vector()
                                                           : target->kind() == TypeKind::kFunction;
    return declare(*target, parenthesize ? "(" + sign + inner + ")" : sign + inner, depth + 1);
  };
  switch (type.kind()) {
  case TypeKind::kPointer:
    return around_pointer("*");
  case TypeKind::kLvalueReference:
    return around_pointer("&");
  case TypeKind::kRvalueReference:
    return around_pointer("&&");
  case TypeKind::kArray: {
    std::string bound = type.count()       ? std::to_string(*type.count())
                        : type.count_die() ? "variable length"
                                           : "";
    if (type.is_vector())
      return declare(*type.target(), " __attribute__ ((vector_size(" + bound + ")))" + inner,
                     depth + 1);
    return declare(*type.target(), inner + "[" + bound + "]", depth + 1);
  }
  case TypeKind::kFunction:
    // The space is gdb's: "int (int, char)" but "int (*)(int, char)".
    return declare(*type.target(), inner + parameter_list(type), depth + 1);
  case TypeKind::kConst:
  case TypeKind::kVolatile:
  case TypeKind::kRestrict:
  case TypeKind::kAtomic: {
    // All qualifiers of one level, in gdb's order, whichever way DWARF nests them.
    bool present[4] = {};
    const Type* base = &type;
    for (; is_qualifier(base->kind()); base = base->target())
      present[static_cast<int>(base->kind()) - static_cast<int>(TypeKind::kConst)] = true;
    std::string qualifiers;
    for (TypeKind kind :
         {TypeKind::kConst, TypeKind::kVolatile, TypeKind::kRestrict, TypeKind::kAtomic})
      if (present[static_cast<int>(kind) - static_cast<int>(TypeKind::kConst)])
        qualifiers += (qualifiers.empty() ? "" : " ") + std::string(qualifier_name(kind));
    bool derived = base->kind() == TypeKind::kPointer || base->is_reference();
    if (derived && base->kind() == TypeKind::kPointer) {
      bool needs_space = !inner.empty();
      return declare(*base, " " + qualifiers + (needs_space ? " " : "") + inner, depth + 1);
    }
    if (base->kind() == TypeKind::kArray || base->kind() == TypeKind::kFunction)
      return declare(*base, inner, depth + 1);
    return qualifiers + " " + declare(*base, inner, depth + 1);
  }
  case TypeKind::kEnum:
  case TypeKind::kStruct:
  case TypeKind::kClass:
  case TypeKind::kUnion:
    return words(tagged_name(type));
  case TypeKind::kMemberPointer:
    return declare(*type.target(), "(*)" + inner, depth + 1);
  case TypeKind::kUnsupported:
    return words(type.own_name().empty() ? "<unsupported type>" : type.own_name());
  default:
    return words(type.own_name());
  }
}

} // namespace

std::string Type::name_around(std::string_view inner) const {
  return declare(*this, std::string(inner), 0);
}

std::string Type::name() const { return declare(*this, "", 0); }

} // namespace ddbg::symbols
