#include "dtrace-lite/keeper/client.h"

#include "dtrace-lite/keeper/protocol.h"

#include <climits>
#include <csignal>
#include <deque>
#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

namespace ddbg::keeper {

struct Client::Impl {
  dune::Fd socket;
  pid_t pid = 0;
  std::deque<News> news;
  bool lost = false;

  Checked<Message> request(MessageType, const Writer&);
  void take_news(Message&);
  void mark_lost();
};

namespace {

Checked<Born> read_born(Message& message) {
  Reader in(std::move(message.body));
  Born born;
  born.pid = in.number<int32_t>();
  born.attached = in.number<uint8_t>();
  born.was_suspended = in.number<uint8_t>();
  if (message.fds.size() != 3 || in.broken())
    return Diagnostic{"The keeper's answer is damaged.", {}, {}};
  born.session = std::move(message.fds[0]);
  born.code = std::move(message.fds[1]);
  born.memory = std::move(message.fds[2]);
  return born;
}

std::string keeper_path() {
  char self[PATH_MAX];
  const ssize_t n = readlink("/proc/self/exe", self, sizeof self);
  std::string path(self, n > 0 ? static_cast<size_t>(n) : 0);
  const size_t slash = path.rfind('/');
  if (const char* given = getenv("DDBG_KEEPER"))
    return given; // test binaries live elsewhere
  return path.substr(0, slash + 1) + "ddbg-keeper";
}

} // namespace

void Client::Impl::mark_lost() {
  if (!lost)
    news.push_back({News::Kind::kKeeperLost, {}, {}, "The keeper process has died."});
  lost = true;
}

void Client::Impl::take_news(Message& message) {
  News item{};
  switch (message.type) {
  case MessageType::kExited: {
    Reader in(std::move(message.body));
    item.kind = News::Kind::kExited;
    item.status.kind = static_cast<ExitStatus::Kind>(in.number<uint8_t>());
    item.status.value = in.number<int32_t>();
    item.status.core_dumped = in.number<uint8_t>();
    break;
  }
  case MessageType::kExeced: {
    auto born = read_born(message);
    if (!born)
      return;
    item.kind = News::Kind::kExeced;
    item.born = std::move(*born);
    break;
  }
  case MessageType::kUntraced:
    item.kind = News::Kind::kUntraced;
    item.text = Reader(std::move(message.body)).string();
    break;
  case MessageType::kSuspended:
    item.kind = News::Kind::kSuspended;
    item.signal = Reader(std::move(message.body)).number<int32_t>();
    break;
  default:
    return;
  }
  news.push_back(std::move(item));
}

Checked<Message> Client::Impl::request(MessageType type, const Writer& body) {
  const Diagnostic gone{"The keeper process has died; the program runs on by itself.",
                        "A part of ddbg stays in it: restart the program to debug it again.",
                        {}};
  if (lost)
    return gone;
  if (!send_message(socket.get(), type, body)) {
    mark_lost();
    return gone;
  }
  for (;;) {
    auto message = receive_message(socket.get(), Wait::kBlock);
    if (!message) {
      mark_lost();
      return gone;
    }
    if (message->type == MessageType::kOk)
      return std::move(*message);
    if (message->type == MessageType::kError) {
      Reader in(std::move(message->body));
      std::string text = in.string();
      return Diagnostic{std::move(text), in.string(), {}};
    }
    take_news(*message);
  }
}

SignalState SignalState::own() {
  SignalState state;
  sigset_t blocked;
  sigprocmask(SIG_BLOCK, nullptr, &blocked);
  for (int signal = 1; signal < NSIG; ++signal) {
    struct sigaction action;
    const uint64_t bit = uint64_t{1} << (signal - 1);
    // Two of them are the C library's own, and refused.
    if (sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN)
      state.ignored |= bit;
    if (sigismember(&blocked, signal) == 1)
      state.blocked |= bit;
  }
  return state;
}

Checked<std::unique_ptr<Client>> Client::start() {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
    return to_diagnostic(dune::system_error("cannot make a socket pair"));
  dune::Fd ours(pair[0]), theirs(pair[1]);
  const std::string path = keeper_path();
  if (access(path.c_str(), X_OK) != 0)
    return Diagnostic{fmt::format("{}: {}.", path, strerror(errno)),
                      "ddbg-keeper has to lie beside ddbg; build it, or set DDBG_KEEPER.",
                      {}};
  // If the keeper is killed, its child, the target, becomes ours, and its exit status is not lost.
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  const std::string self = std::to_string(getpid());
  const pid_t pid = fork();
  if (pid < 0)
    return to_diagnostic(dune::system_error("cannot start the keeper"));
  if (pid == 0) {
    if (theirs.get() == 3)
      fcntl(3, F_SETFD, 0);
    else
      dup2(theirs.get(), 3);
    execl(path.c_str(), "ddbg-keeper", self.c_str(), nullptr);
    _exit(127);
  }
  auto impl = std::make_unique<Impl>();
  impl->socket = std::move(ours);
  impl->pid = pid;
  return std::unique_ptr<Client>(new Client(std::move(impl)));
}

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Client::~Client() {
  impl_->socket.reset(); // the keeper releases the target and ends
  waitpid(impl_->pid, nullptr, 0);
}

Checked<Born> Client::launch(const LaunchOptions& o) {
  Writer body;
  body.string(o.program).string(o.shell_command).strings(o.arguments).strings(o.environment);
  body.string(o.working_directory);
  body.number<uint8_t>(o.disable_randomization).number<uint8_t>(o.own_terminal_group);
  body.string(o.backend).number(o.signals.ignored).number(o.signals.blocked);
  auto answer = impl_->request(MessageType::kLaunch, body);
  if (!answer)
    return answer.error();
  return read_born(*answer);
}

Checked<Born> Client::attach(pid_t pid, const std::string& backend) {
  auto answer = impl_->request(MessageType::kAttach, Writer().number<int32_t>(pid).string(backend));
  if (!answer)
    return answer.error();
  return read_born(*answer);
}

namespace {
Checked<void> nothing(const Checked<Message>& answer) {
  if (!answer)
    return answer.error();
  return {};
}
} // namespace

Checked<void> Client::write_text(std::span<const TextWrite> writes) {
  Writer body;
  body.number<uint64_t>(writes.size());
  for (const TextWrite& w : writes)
    body.number(w.address.value).number(w.value).number(w.expected);
  return nothing(impl_->request(MessageType::kWriteText, body));
}

Checked<void> Client::expect_exec(pid_t tid) {
  return nothing(impl_->request(MessageType::kExpectExec, Writer().number<int32_t>(tid)));
}
Checked<void> Client::exec_failed() {
  return nothing(impl_->request(MessageType::kExecFailed, {}));
}
Checked<void> Client::expect_death(pid_t tid) {
  return nothing(impl_->request(MessageType::kExpectDeath, Writer().number<int32_t>(tid)));
}
Checked<void> Client::kill() { return nothing(impl_->request(MessageType::kKill, {})); }

Checked<void> Client::lift_suspension() {
  return nothing(impl_->request(MessageType::kLiftSuspension, {}));
}
Checked<void> Client::forget_suspension() {
  return nothing(impl_->request(MessageType::kForgetSuspension, {}));
}

Checked<std::vector<std::string>> Client::detach() {
  auto answer = impl_->request(MessageType::kDetach, {});
  if (!answer)
    return answer.error();
  return Reader(std::move(answer->body)).strings();
}

Checked<uint32_t> Client::add_watch(Access access, uint32_t record) {
  Writer body;
  body.number(access).number(record);
  auto answer = impl_->request(MessageType::kAddWatch, body);
  if (!answer)
    return answer.error();
  return Reader(std::move(answer->body)).number<uint32_t>();
}

Checked<void> Client::remove_watch(uint32_t id) {
  return nothing(impl_->request(MessageType::kRemoveWatch, Writer().number(id)));
}

std::optional<News> Client::poll_news() {
  while (!impl_->lost) {
    // Asked after every wake-up: room for a message is made only when there is one.
    char first;
    if (recv(impl_->socket.get(), &first, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
        (errno == EAGAIN || errno == EINTR))
      break;
    auto message = receive_message(impl_->socket.get(), Wait::kPoll);
    if (!message) {
      if (message.error().code == dune::Errc::kGone)
        impl_->mark_lost();
      break;
    }
    impl_->take_news(*message);
  }
  if (impl_->news.empty())
    return std::nullopt;
  News item = std::move(impl_->news.front());
  impl_->news.pop_front();
  return item;
}

int Client::fd() const { return impl_->socket.get(); }
pid_t Client::keeper_pid() const { return impl_->pid; }

} // namespace ddbg::keeper
