// How symbols/ reads the target: a callback that the engine gives. Short reads do not exist: all of
// the bytes, or false.
#pragma once

#include "libdune/base/types.h"

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <type_traits>

namespace ddbg::symbols {

using MemoryReader = std::function<bool(dune::TargetAddr from, std::span<std::byte> to)>;

template <class T> std::optional<T> read_value(const MemoryReader& read, dune::TargetAddr at) {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  if (!read(at, std::as_writable_bytes(std::span(&value, 1))))
    return std::nullopt;
  return value;
}

} // namespace ddbg::symbols
