// Owned file descriptors and mappings, for hosted code. Wrapped the moment they exist; move-only.
#pragma once

#include "libdune/base/result.h"

#include <cerrno>
#include <cstddef>
#include <span>
#include <sys/mman.h>
#include <unistd.h>

namespace dune {

inline Error system_error(const char* what, int error = errno) {
  return {error == EPERM || error == EACCES ? Errc::kPermission : Errc::kSystem, what, error};
}

class Fd {
public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
  Fd& operator=(Fd&& o) noexcept {
    reset(std::exchange(o.fd_, -1));
    return *this;
  }
  ~Fd() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1) {
    if (fd_ >= 0)
      ::close(fd_);
    fd_ = fd;
  }

private:
  int fd_ = -1;
};

class Mapping {
public:
  Mapping() = default;
  // Maps `size` bytes of `fd` from offset 0, shared. Errors: what mmap says.
  static Result<Mapping> shared(int fd, size_t size, int prot = PROT_READ | PROT_WRITE) {
    void* p = ::mmap(nullptr, size, prot, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
      return system_error("cannot map shared memory");
    return Mapping(p, size);
  }
  // At least one zero byte follows the file's: a text at its end that has no terminator ends there.
  static Result<Mapping> private_file(int fd, size_t size) {
    void* p = ::mmap(nullptr, size + 1, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
      return system_error("cannot reserve room for a file");
    Mapping room(p, size + 1);
    if (::mmap(p, size, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0) == MAP_FAILED)
      return system_error("cannot map file");
    return room;
  }
  static Result<Mapping> anonymous(size_t size) {
    void* p = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
      return system_error("cannot map memory");
    return Mapping(p, size);
  }
  Mapping(Mapping&& o) noexcept
      : base_(std::exchange(o.base_, nullptr)), size_(std::exchange(o.size_, 0)) {}
  Mapping& operator=(Mapping&& o) noexcept {
    std::swap(base_, o.base_);
    std::swap(size_, o.size_);
    return *this;
  }
  ~Mapping() {
    if (base_)
      ::munmap(base_, size_);
  }

  explicit operator bool() const { return base_ != nullptr; }
  std::byte* data() const { return static_cast<std::byte*>(base_); }
  size_t size() const { return size_; }
  std::span<std::byte> bytes() const { return {data(), size_}; }

private:
  Mapping(void* base, size_t size) : base_(base), size_(size) {}
  void* base_ = nullptr;
  size_t size_ = 0;
};

} // namespace dune
