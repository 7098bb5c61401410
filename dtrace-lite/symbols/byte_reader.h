// A cursor over bytes of a file that may be damaged: reads past the end give zero and set failed(),
// so that a decoder can check once. Little-endian. Internal to symbols/.
#pragma once

#include "dtrace-lite/symbols/elf_file.h"

#include <cstring>

namespace ddbg::symbols {

class ByteReader {
public:
  explicit ByteReader(Bytes bytes, size_t at = 0) : bytes_(bytes), at_(at) {
    failed_ = at > bytes.size();
  }

  bool failed() const { return failed_; }
  size_t position() const { return at_; }
  bool at_end() const { return failed_ || at_ >= bytes_.size(); }

  template <class T> T fixed() {
    T value{};
    if (failed_ || bytes_.size() - at_ < sizeof(T)) {
      failed_ = true;
      return value;
    }
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }
  uint8_t u8() { return fixed<uint8_t>(); }
  uint16_t u16() { return fixed<uint16_t>(); }
  uint32_t u32() { return fixed<uint32_t>(); }
  uint64_t u64() { return fixed<uint64_t>(); }
  uint64_t offset(bool is_64) { return is_64 ? u64() : u32(); }
  uint64_t uleb() {
    uint64_t value = 0;
    for (unsigned shift = 0;; shift += 7) {
      const uint8_t b = u8();
      if (shift < 64)
        value |= uint64_t{b & 0x7fu} << shift;
      if (!(b & 0x80) || failed_)
        return value;
    }
  }
  int64_t sleb() {
    uint64_t value = 0;
    for (unsigned shift = 0;;) {
      const uint8_t b = u8();
      if (shift < 64)
        value |= uint64_t{b & 0x7fu} << shift;
      shift += 7;
      if (!(b & 0x80) || failed_) {
        if (shift < 64 && (b & 0x40))
          value |= ~uint64_t{0} << shift;
        return static_cast<int64_t>(value);
      }
    }
  }
  std::string_view text() { // NUL-terminated
    if (failed_ || at_ >= bytes_.size()) {
      failed_ = true;
      return {};
    }
    const char* begin = reinterpret_cast<const char*>(bytes_.data()) + at_;
    const void* end = std::memchr(begin, 0, bytes_.size() - at_);
    if (!end) {
      failed_ = true;
      return {};
    }
    const auto length = static_cast<size_t>(static_cast<const char*>(end) - begin);
    at_ += length + 1;
    return {begin, length};
  }
  void skip(uint64_t n) {
    if (failed_ || n > bytes_.size() - at_)
      failed_ = true;
    else
      at_ += n;
  }

private:
  Bytes bytes_;
  size_t at_;
  bool failed_ = false;
};

} // namespace ddbg::symbols
