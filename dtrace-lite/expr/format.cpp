// Structures, arrays, references, and what is at the top of a printed value.
#include "dtrace-lite/expr/formatter.h"

#include <algorithm>
#include <cstring>

namespace ddbg::expr {
namespace {

constexpr int kMaxDepth = 100;

bool is_function(TypeRef type) {
  TypeKind kind = type->stripped()->kind();
  return kind == TypeKind::kFunction || kind == TypeKind::kNoDebugText;
}

} // namespace

std::string Formatter::value(const Value& given, bool top, int depth) {
  if (depth > kMaxDepth)
    return "...";
  TypeRef type = given.type->stripped();
  if (type->kind() == TypeKind::kVoid)
    return "void";
  if (type->size() == 0 && type->is_record() && type->is_incomplete())
    return "<incomplete type>";
  if (given.is_wholly_optimized_out() && !given.bytes.empty() && !given.is_synthetic_pointer)
    return "<optimized out>";
  auto fetched = fetch(given, context_);
  if (!fetched)
    return "<error: " + fetched.error().message + ">";
  const Value& v = *fetched;
  if (options_.summary && (type->is_record() || type->kind() == TypeKind::kArray))
    return "...";
  if (is_function(type))
    return "{" + v.type->name() + "} " + format_address(v.address, context_);
  if (type->is_record())
    return record(v, depth);
  if (type->kind() == TypeKind::kArray)
    return array(v, depth);
  if (type->is_reference())
    return reference(v, top, depth);
  if (v.is_optimized_out(v.bit_offset, v.bit_size ? v.bit_size : 1))
    return "<optimized out>";
  return scalar(v);
}

std::string Formatter::reference(const Value& value, bool top, int depth) {
  TargetAddr address(static_cast<uint64_t>(read_integer(value.bytes, false)));
  std::string out = "@0x" + in_base(address.value, 16);
  if (!top)
    return out;
  Value target = Value::in_memory(value.type->stripped()->target(), address);
  auto fetched = fetch(std::move(target), context_);
  return out + ": " +
         (fetched ? this->value(*fetched, false, depth + 1)
                  : "<error: " + fetched.error().message + ">");
}

std::string Formatter::record(const Value& v, int depth) {
  TypeRef type = v.type->stripped();
  std::string out = "{";
  bool first = true;
  for (const symbols::Member& member : type->members()) {
    out += first ? "" : ", ";
    first = false;
    if (member.is_static) {
      out += "static " + member.name + " = ";
      auto symbol = context_.lookup(type->own_name() + "::" + member.name);
      if (!symbol || symbol->kind != Symbol::Kind::kVariable) {
        out += "<optimized out>";
        continue;
      }
      auto value = read_variable(*symbol, symbol->type, context_);
      // A static member can have the class's own type, and so itself.
      bool is_self = symbol->type->stripped() == type;
      out += is_self ? "<same as static member of an already seen type>"
             : value ? this->value(*value, false, depth + 1)
                     : "<error: " + value.error().message + ">";
      continue;
    }
    auto part = member_of(v, member, context_);
    if (member.is_base)
      out += "<" + member.type->stripped()->own_name() + "> = ";
    else if (!member.name.empty())
      out += member.name + " = ";
    bool is_vptr = member.is_artificial && member.name.starts_with("_vptr");
    if (part && is_vptr && part->type->is_pointer()) // with its symbol whatever the letter
      if (auto pointer = fetch(*part, context_)) {
        out += format_address(TargetAddr(static_cast<uint64_t>(number_of(*pointer))), context_);
        continue;
      }
    out += part ? value(*part, false, depth + 1) : "<error: " + part.error().message + ">";
  }
  if (first)
    out += type->language() == Language::kCpp ? "<No data fields>" : "";
  return out + "}";
}

std::string Formatter::array(const Value& v, int depth) {
  TypeRef type = v.type->stripped();
  TypeRef element = type->target();
  uint64_t size = element->size();
  uint64_t count = type->count().value_or(0);
  if (size != 0) // damage: a size that is not the elements'
    count = std::min(count, v.bytes.size() / size);
  if (size == 0 || count == 0)
    return is_textual(element) && size ? "\"\"" : "0x" + in_base(v.address.value, 16);
  bool has_holes = !v.optimized_out.empty();
  if (is_textual(element) && (!options_.letter || options_.letter == 's') && !has_holes &&
      !type->is_vector()) {
    // One terminating NUL is not part of the text, unless the end is not shown anyway.
    uint64_t shown = count;
    if (count <= options_.element_limit || options_.letter == 's') {
      auto last = std::span(v.bytes).subspan((count - 1) * size, size);
      if (read_integer(last, false) == 0)
        shown--;
    }
    // What is left of a longer array after its text is NUL: printed only as far as the limit.
    return text(v.bytes, size, shown, false);
  }
  auto same = [&](uint64_t a, uint64_t b) {
    return !has_holes &&
           std::memcmp(v.bytes.data() + a * size, v.bytes.data() + b * size, size) == 0;
  };
  bool nested = element->stripped()->kind() == TypeKind::kArray;
  std::string out = "{";
  uint64_t i = 0;
  while (i < count && printed_ < options_.element_limit) {
    if (i)
      out += ", ";
    uint64_t run = 1;
    while (i + run < count && same(i, i + run))
      run++;
    Value item = element_of(v, i);
    if (run >= options_.repeat_threshold) {
      out += value(item, false, depth + 1) + " <repeats " + std::to_string(run) + " times>";
      i += run;
      printed_ += options_.repeat_threshold;
    } else {
      out += value(item, false, depth + 1);
      i++;
      if (!nested)
        printed_++;
    }
  }
  if (i < count)
    out += "...";
  return out + "}";
}

Checked<std::string> format_value(const Value& value, Context& context,
                                  const FormatOptions& options) {
  auto fetched = fetch(value, context);
  if (!fetched)
    return fetched.error();
  Formatter formatter(context, options);
  TypeRef type = fetched->type;
  if (is_function(type) && options.letter && options.letter != 's')
    return Diagnostic{
        "Value can't be converted to integer.", "Take the function's address with &.", {}};
  std::string prefix;
  TypeRef plain = type->stripped();
  bool points = plain->kind() == TypeKind::kPointer || plain->is_reference();
  if (points && (!options.letter || options.letter == 's') && !fetched->is_wholly_optimized_out()) {
    // "char *" goes without saying when a string follows.
    bool is_text = type->unqualified()->kind() == TypeKind::kPointer &&
                   plain->target()->unqualified()->kind() == TypeKind::kChar &&
                   plain->target()->unqualified()->own_name() == "char";
    if (!is_text)
      prefix = "(" + type->name() + ") ";
  }
  return prefix + formatter.value(*fetched, true);
}

Checked<std::string> format_plain(const Value& value, Context& context,
                                  const FormatOptions& options) {
  auto fetched = fetch(value, context);
  if (!fetched)
    return fetched.error();
  return Formatter(context, options).value(*fetched, true);
}

} // namespace ddbg::expr
