#include "dtrace-lite/ddbg/type_text.h"

#include <fmt/format.h>

namespace ddbg::ui {

namespace {

using symbols::Type;
using symbols::TypeKind;
using symbols::TypeRef;

constexpr int kMaxDepth = 16; // of anonymous records in each other

std::string record_body(const Type& type, int depth);
std::string enumerators(const Type& type);

// A member's declaration: anonymous records are spelled out, others named.
std::string member_text(const symbols::Member& member, int depth) {
  std::string margin(static_cast<size_t>(depth) * 4, ' ');
  TypeRef type = member.type;
  bool anonymous = type->is_record() && type->own_name().empty() && depth < kMaxDepth;
  std::string text = margin;
  if (member.is_static)
    text += "static ";
  if (anonymous) {
    const char* keyword = type->kind() == TypeKind::kUnion ? "union" : "struct";
    text += std::string(keyword) + " " + record_body(*type, depth) +
            (member.name.empty() ? "" : " " + member.name);
  } else if (type->kind() == TypeKind::kEnum && type->own_name().empty()) {
    text += "enum " + enumerators(*type) + (member.name.empty() ? "" : " " + member.name);
  } else {
    text += type->name_around(member.name);
  }
  if (member.bit_size)
    text += fmt::format(" : {}", member.bit_size);
  return text + ";\n";
}

std::string record_body(const Type& type, int depth) {
  std::string margin(static_cast<size_t>(depth) * 4, ' ');
  if (type.is_incomplete())
    return "{\n" + margin + "    <incomplete type>\n" + margin + "}";
  std::string text = "{\n";
  bool any = false;
  for (const symbols::Member& member : type.members()) {
    if (member.is_base || member.is_artificial)
      continue;
    text += member_text(member, depth + 1);
    any = true;
  }
  if (!any)
    text += margin + "    <no data fields>\n";
  return text + margin + "}";
}

std::string bases(const Type& type) {
  std::string text;
  for (const symbols::Member& member : type.members())
    if (member.is_base)
      text += (text.empty() ? " : " : ", ") + std::string(member.is_virtual ? "virtual " : "") +
              "public " + member.type->name();
  return text;
}

std::string enumerators(const Type& type) {
  std::string text = "{";
  int64_t expected = 0;
  for (const symbols::Enumerator& e : type.enumerators()) {
    text += (text.size() > 1 ? ", " : "") + e.name;
    if (e.value != expected)
      text += fmt::format(" = {}", e.value);
    expected = e.value + 1;
  }
  return text + "}";
}

} // namespace

std::string type_definition(TypeRef type) {
  // Through what wraps the record or enum: pointers, arrays, qualifiers at any level, typedefs.
  TypeRef core = type->stripped();
  int wraps = 0;
  TypeRef inner = core;
  while (wraps < kMaxDepth && inner->target() &&
         (inner->kind() == TypeKind::kPointer || inner->kind() == TypeKind::kArray ||
          inner->is_reference())) {
    inner = inner->target()->stripped();
    ++wraps;
  }
  bool spelled = inner->is_record() || inner->kind() == TypeKind::kEnum;
  if (!spelled)
    return core->name();
  std::string head = inner->own_name();
  std::string definition;
  if (inner->kind() == TypeKind::kEnum)
    definition = "enum " + (head.empty() ? "" : head + " ") + enumerators(*inner);
  else {
    const char* keyword = inner->kind() == TypeKind::kUnion   ? "union"
                          : inner->kind() == TypeKind::kClass ? "class"
                                                              : "struct";
    definition = std::string(keyword) + " " + (head.empty() ? "" : head) + bases(*inner) +
                 (head.empty() ? "" : " ") + record_body(*inner, 0);
  }
  if (wraps == 0)
    return definition;
  // "struct point *" -> the definition with the same stars and brackets behind it.
  std::string whole = core->name(), name = inner->name();
  return whole.starts_with(name) ? definition + whole.substr(name.size()) : whole;
}

} // namespace ddbg::ui
