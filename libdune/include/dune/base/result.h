// Result<T, E>: a value or an error, without exceptions or heap. Freestanding-clean.
//
//   Result<Fd> open_it();
//   auto fd = open_it();
//   if (!fd)
//     return fd.error();
//   use(*fd);
//
// Error is for what the machine refused (a code, a static text, a number that the code explains).
// What a *person* typed wrong is a Diagnostic (dtrace-lite/symbols/diagnostic.h), used as E.
#pragma once

#include <dune/base/assert.h>

#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>

namespace dune {

enum class Errc : uint16_t {
  kSystem,      // a system call failed; detail is errno
  kInvalid,     // an argument or input is malformed; detail is a position or value
  kNotFound,    // detail is what was looked for, when it is a number
  kUnsupported, // understood, but cannot be done here
  kPermission,  // the kernel or a policy refuses; detail is errno or 0
  kExhausted,   // a fixed pool or range is full; detail is its capacity
  kCorrupt,     // shared or file data contradicts itself; detail is an offset
  kGone,        // the target or peer is no longer there; detail is a pid
};

struct Error {
  Errc code;
  const char* text;   // static storage, no trailing newline: what was attempted or found
  int64_t detail = 0; // meaning depends on code, see above
};

template <class T, class E = Error> class [[nodiscard]] Result {
public:
  Result(T value) : ok_(true) { new (&value_) T(std::move(value)); }
  Result(E error) : ok_(false) { new (&error_) E(std::move(error)); }
  Result(Result&& o) noexcept : ok_(o.ok_) { construct_from(std::move(o)); }
  Result& operator=(Result&& o) noexcept {
    if (this != &o) {
      destroy();
      ok_ = o.ok_;
      construct_from(std::move(o));
    }
    return *this;
  }
  Result(const Result& o) requires(
      std::is_copy_constructible_v<T>&& std::is_copy_constructible_v<E>)
      : ok_(o.ok_) {
    if (ok_)
      new (&value_) T(o.value_);
    else
      new (&error_) E(o.error_);
  }
  ~Result() { destroy(); }

  explicit operator bool() const { return ok_; }
  T& operator*() & { return check(), value_; }
  const T& operator*() const& { return check(), value_; }
  T&& operator*() && { return check(), std::move(value_); }
  T* operator->() { return check(), &value_; }
  const T* operator->() const { return check(), &value_; }
  const E& error() const {
    DUNE_ASSERT(!ok_);
    return error_;
  }
  T value_or(T fallback) && { return ok_ ? std::move(value_) : std::move(fallback); }

private:
  void check() const { DUNE_ASSERT(ok_); }
  void destroy() {
    if (ok_)
      value_.~T();
    else
      error_.~E();
  }
  void construct_from(Result&& o) {
    if (ok_)
      new (&value_) T(std::move(o.value_));
    else
      new (&error_) E(std::move(o.error_));
  }

  bool ok_;
  union {
    T value_;
    E error_;
  };
};

// Success or an error, with nothing to carry.
template <class E> class [[nodiscard]] Result<void, E> {
public:
  Result() : none_(0) {}
  Result(E error) : ok_(false) { new (&error_) E(std::move(error)); }
  Result(Result&& o) noexcept : ok_(o.ok_) {
    if (!ok_)
      new (&error_) E(std::move(o.error_));
  }
  Result(const Result& o) : ok_(o.ok_) {
    if (!ok_)
      new (&error_) E(o.error_);
  }
  Result& operator=(Result&& o) noexcept {
    if (this != &o) {
      if (!ok_)
        error_.~E();
      ok_ = o.ok_;
      if (!ok_)
        new (&error_) E(std::move(o.error_));
    }
    return *this;
  }
  ~Result() {
    if (!ok_)
      error_.~E();
  }

  explicit operator bool() const { return ok_; }
  const E& error() const {
    DUNE_ASSERT(!ok_);
    return error_;
  }

private:
  bool ok_ = true;
  union {
    char none_;
    E error_;
  };
};

using Status = Result<void, Error>;

} // namespace dune
