#include "dtrace-lite/keeper/protocol.h"

#include <array>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

namespace ddbg::keeper {

using dune::Errc;
using dune::Error;
using dune::Fd;

namespace {
constexpr size_t kInlineBody = 16 * 1024;
constexpr size_t kMaxFds = 8;
constexpr size_t kMaxBody = 64u << 20;

struct PacketHeader {
  MessageType type;
  uint32_t body_in_memfd; // the last descriptor holds the body
};
} // namespace

dune::Status send_message(int socket, MessageType type, const Writer& body,
                          std::span<const int> fds) {
  PacketHeader header{type, 0};
  std::array<int, kMaxFds> all{};
  DUNE_ASSERT(fds.size() < kMaxFds);
  std::copy(fds.begin(), fds.end(), all.begin());
  size_t fd_count = fds.size();
  const auto& bytes = body.bytes();
  Fd large;
  iovec parts[2] = {{&header, sizeof header}, {const_cast<uint8_t*>(bytes.data()), bytes.size()}};
  if (bytes.size() > kInlineBody) {
    large = Fd(memfd_create("ddbg-message", MFD_CLOEXEC));
    if (!large || write(large.get(), bytes.data(), bytes.size()) != ssize_t(bytes.size()))
      return dune::system_error("cannot pass a large message");
    header.body_in_memfd = 1;
    parts[1].iov_len = 0;
    all[fd_count++] = large.get();
  }
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  if (fd_count) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
    cmsghdr* c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
    std::memcpy(CMSG_DATA(c), all.data(), fd_count * sizeof(int));
  }
  ssize_t n;
  do
    n = sendmsg(socket, &message, MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    return errno == EPIPE || errno == ECONNRESET
               ? Error{Errc::kGone, "the other side has closed the connection"}
               : dune::system_error("cannot send a message");
  return {};
}

dune::Result<Message> receive_message(int socket, Wait wait) {
  PacketHeader header{};
  Message result{};
  result.body.resize(kInlineBody);
  iovec parts[2] = {{&header, sizeof header}, {result.body.data(), result.body.size()}};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t n;
  do
    n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | (wait == Wait::kPoll ? MSG_DONTWAIT : 0));
  while (n < 0 && errno == EINTR && wait == Wait::kBlock);
  if (n < 0 && (errno == EAGAIN || errno == EINTR))
    return Error{Errc::kNotFound, "no message"};
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); n > 0 && c; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
      continue;
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
      result.fds.emplace_back(fd);
    }
  }
  if (n < ssize_t(sizeof header))
    return Error{Errc::kGone, "the other side has closed the connection"};
  result.type = header.type;
  result.body.resize(static_cast<size_t>(n) - sizeof header);
  if (header.body_in_memfd) {
    if (result.fds.empty())
      return Error{Errc::kCorrupt, "a message lacks its body"};
    Fd large = std::move(result.fds.back());
    result.fds.pop_back();
    struct stat info {};
    if (fstat(large.get(), &info) != 0 || static_cast<size_t>(info.st_size) > kMaxBody)
      return Error{Errc::kCorrupt, "a message's body is damaged"};
    result.body.resize(static_cast<size_t>(info.st_size));
    if (pread(large.get(), result.body.data(), result.body.size(), 0) !=
        ssize_t(result.body.size()))
      return dune::system_error("cannot read a message");
  }
  return result;
}

} // namespace ddbg::keeper
