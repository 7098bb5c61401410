// Linkage names to what a person wrote: Itanium C++, Rust's legacy and v0 manglings.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ddbg::symbols {

// "_ZN2ns1fEi" -> "ns::f(int)". The name itself when it is not mangled or cannot be demangled.
std::string demangle(std::string_view linkage_name);
bool looks_mangled(std::string_view name);

// "int ns::f<int>(int) const" -> "ns::f<int>": neither return type nor parameters nor qualifiers.
std::string function_name_only(std::string_view demangled);

// What a person types after `break`: f, ns::f, f(int), S::operator+=, max<int>.
class NameQuery {
public:
  explicit NameQuery(std::string_view typed);
  // True when the typed name names this function as gdb would have it: the typed components are the
  // last ones of the name, template arguments and parameters count only when typed.
  bool matches(std::string_view demangled) const;
  // An identifier that every matching mangled name contains after its length ("5write"), so that
  // most names need not be demangled; empty when there is no such text (operators).
  const std::string& mangled_needle() const { return needle_; }

private:
  std::vector<std::string> components_; // of the name, spaces removed
  std::string parameters_;              // "(int,char)" or empty
  bool has_parameters_ = false;
  bool has_template_arguments_ = false;
  bool fully_qualified_ = false; // typed with a leading ::
  std::string needle_;
};

} // namespace ddbg::symbols
