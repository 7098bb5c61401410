// Internal to expr/: the recursive value printer.
#pragma once

#include "dtrace-lite/expr/format.h"

namespace ddbg::expr {

class Formatter {
public:
  Formatter(Context& context, const FormatOptions& options)
      : context_(context), options_(options) {}

  // All of a fetched value. top: not inside a structure or array.
  std::string value(const Value& value, bool top = false, int depth = 0);
  std::string string_at(TargetAddr address, TypeRef element);
  std::string scalar(const Value& value);

private:
  std::string record(const Value& value, int depth);
  std::string array(const Value& value, int depth);
  std::string pointer(const Value& value);
  std::string reference(const Value& value, bool top, int depth);
  std::string enumeration(const Value& value);
  std::string with_letter(const Value& value, char letter);
  std::string text(std::span<const std::byte> bytes, uint64_t width, uint64_t count,
                   bool cut_after) const;

  Context& context_;
  const FormatOptions& options_;
  unsigned printed_ = 0; // elements of arrays so far, nested ones included
};

bool is_textual(TypeRef type);
std::string to_decimal(Wide number, bool is_signed);
std::string in_base(UnsignedWide number, unsigned base, unsigned pad_to = 0);

} // namespace ddbg::expr
