// Messages between the front end (Client) and the keeper process, over a SOCK_SEQPACKET pair.
// One request at a time, each answered by kOk or kError; news may come in between.
// Bodies are Writer/Reader strings and numbers; bodies that do not fit a packet travel in a memfd.
#pragma once

#include "dtrace-lite/symbols/diagnostic.h"
#include "libdune/base/file.h"

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace ddbg::keeper {

enum class MessageType : uint32_t {
  // requests
  kLaunch,
  kAttach,
  kWriteText,
  kExpectExec,
  kExecFailed,
  kExpectDeath,
  kDetach,
  kKill,
  kAddWatch,
  kRemoveWatch,
  kLiftSuspension,
  kForgetSuspension,
  // answers
  kOk,
  kError, // message, hint
  // news
  kExited,
  kExeced,
  kUntraced,  // why
  kSuspended, // signal
};

class Writer {
public:
  template <class T> Writer& number(T value) {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    append(&value, sizeof value);
    return *this;
  }
  Writer& string(const std::string& s) {
    number<uint64_t>(s.size());
    append(s.data(), s.size());
    return *this;
  }
  Writer& strings(const std::vector<std::string>& list) {
    number<uint64_t>(list.size());
    for (const auto& s : list)
      string(s);
    return *this;
  }
  const std::vector<uint8_t>& bytes() const { return bytes_; }

private:
  void append(const void* data, size_t size) {
    auto* p = static_cast<const uint8_t*>(data);
    bytes_.insert(bytes_.end(), p, p + size);
  }
  std::vector<uint8_t> bytes_;
};

// Reading past the end yields zeros and empty strings, and marks the reader as broken.
class Reader {
public:
  explicit Reader(std::vector<uint8_t> bytes) : bytes_(std::move(bytes)) {}
  template <class T> T number() {
    T value{};
    if (take(sizeof value))
      std::memcpy(&value, bytes_.data() + at_ - sizeof value, sizeof value);
    return value;
  }
  std::string string() {
    const auto size = number<uint64_t>();
    if (!take(size))
      return {};
    return {reinterpret_cast<const char*>(bytes_.data() + at_ - size), size};
  }
  std::vector<std::string> strings() {
    std::vector<std::string> list;
    const auto count = number<uint64_t>();
    for (uint64_t i = 0; i < count && !broken_; ++i)
      list.push_back(string());
    return list;
  }
  bool broken() const { return broken_; }

private:
  bool take(uint64_t size) {
    if (broken_ || size > bytes_.size() - at_)
      return !(broken_ = true);
    at_ += size;
    return true;
  }
  std::vector<uint8_t> bytes_;
  size_t at_ = 0;
  bool broken_ = false;
};

struct Message {
  MessageType type;
  std::vector<uint8_t> body;
  std::vector<dune::Fd> fds;
};

// Errors: the peer is gone (kGone), or the system refuses.
dune::Status send_message(int socket, MessageType, const Writer& body,
                          std::span<const int> fds = {});
enum class Wait { kBlock, kPoll };
// kNotFound: nothing there (kPoll). kGone: the peer closed.
dune::Result<Message> receive_message(int socket, Wait);

} // namespace ddbg::keeper
