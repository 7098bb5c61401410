// Rust's manglings: legacy (_ZN...17h<hash>E) and v0 (_R...; RFC 2603).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace ddbg::symbols {

// The path without its hash, as gdb prints it; nothing when the name is not Rust's.
std::optional<std::string> demangle_rust(std::string_view linkage_name);

} // namespace ddbg::symbols
