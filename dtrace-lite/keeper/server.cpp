#include "dtrace-lite/keeper/server.h"

#include "dtrace-lite/keeper/birth.h"
#include "dtrace-lite/keeper/protocol.h"
#include "dtrace-lite/keeper/release.h"
#include "dtrace-lite/keeper/watch.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/futex.h>
#include <optional>
#include <poll.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace ddbg::keeper {

using dune::TargetAddr;
using namespace dune::session;

namespace {

using Clock = std::chrono::steady_clock;

class Server {
public:
  Server(int socket, pid_t frontend) : socket_(socket), frontend_(frontend) {}
  int run();

private:
  void handle(Message&);
  void answer(const Checked<void>&);
  void answer_born(Checked<Injected>, MessageType on_success, bool attached);
  Checked<void> choose_backend(const std::string& name);
  Checked<void> write_text(Reader&);
  void reap();
  void target_exited(int status);
  void exec_stop();
  void ring_session();
  void forget_exec();
  void begin_death(pid_t tid);
  void see_to_death();
  int death_timeout() const;
  void signal_target(int signal);
  void frontend_gone();

  dune::Fd socket_;
  pid_t frontend_;
  dune::Fd pidfd_; // of an attached target, which is not our child
  std::optional<Injected> target_;
  bool is_child_ = false;
  pid_t exec_tid_ = 0; // seized for an execve
  // The target has got its signal, and its threads are held until it dies.
  struct Death {
    StoppedProcess process;
    pid_t tid;                            // who has announced it
    std::optional<Clock::time_point> due; // until it has begun; else they are let go
  };
  std::optional<Death> death_;
  WatchSet watches_;
  dune::backend::Choice backend_;
};

void append_born(Writer& body, const Injected& in, bool attached) {
  body.number<int32_t>(in.pid).number<uint8_t>(attached).number<uint8_t>(in.was_suspended);
}

void Server::answer(const Checked<void>& result) {
  Writer body;
  if (!result)
    body.string(result.error().message).string(result.error().hint);
  (void)!send_message(socket_.get(), result ? MessageType::kOk : MessageType::kError, body);
}

void Server::answer_born(Checked<Injected> born, MessageType on_success, bool attached) {
  if (!born)
    return answer(born.error());
  target_ = std::move(*born);
  Writer body;
  append_born(body, *target_, attached);
  const int fds[] = {target_->session_fd.get(), target_->code_fd.get(), target_->memory->fd()};
  (void)!send_message(socket_.get(), on_success, body, fds);
}

// The front end sleeps on the session's event_seq: news has to ring there, too.
void Server::ring_session() {
  if (!target_)
    return;
  Header& h = target_->session().header;
  h.event_seq.fetch_add(1);
  syscall(SYS_futex, &h.event_seq, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
}

Checked<void> Server::write_text(Reader& in) {
  if (!target_)
    return Diagnostic{"The program is not being run.", {}, {}};
  struct Write {
    uint64_t address;
    uint8_t value, expected;
  };
  std::vector<Write> writes(in.number<uint64_t>() % (1u << 20));
  for (Write& w : writes)
    w = {in.number<uint64_t>(), in.number<uint8_t>(), in.number<uint8_t>()};
  if (in.broken())
    return Diagnostic{"The keeper got a damaged request.", {}, {}};
  for (const Write& w : writes) {
    uint8_t now;
    if (!target_->memory->read(TargetAddr(w.address), &now, 1))
      return Diagnostic{fmt::format("Cannot access memory at address {:#x}", w.address), {}, {}};
    if (now != w.expected && now != w.value)
      return Diagnostic{fmt::format("The code at {:#x} has changed (it is {:#04x}, not {:#04x}).",
                                    w.address, now, w.expected),
                        "The program modifies its own code there; set the breakpoint again.",
                        {}};
  }
  for (const Write& w : writes)
    if (auto ok = target_->memory->write(TargetAddr(w.address), &w.value, 1); !ok)
      return to_diagnostic(ok.error());
  return {};
}

Checked<void> Server::choose_backend(const std::string& name) {
  backend_ = dune::backend::choose(name);
  if (!backend_.backend)
    return Diagnostic{backend_.why, {}, {}};
  return {};
}

LaunchOptions read_launch(Reader& in) {
  LaunchOptions o;
  o.program = in.string();
  o.shell_command = in.string();
  o.arguments = in.strings();
  o.environment = in.strings();
  o.working_directory = in.string();
  o.disable_randomization = in.number<uint8_t>();
  o.own_terminal_group = in.number<uint8_t>();
  o.backend = in.string();
  o.signals.ignored = in.number<uint64_t>();
  o.signals.blocked = in.number<uint64_t>();
  return o;
}

void Server::handle(Message& message) {
  Reader in(std::move(message.body));
  switch (message.type) {
  case MessageType::kLaunch: {
    const LaunchOptions options = read_launch(in);
    if (auto ok = choose_backend(options.backend); !ok)
      return answer(ok);
    is_child_ = true;
    return answer_born(launch(options, frontend_, backend_), MessageType::kOk, false);
  }
  case MessageType::kAttach: {
    const auto pid = in.number<int32_t>();
    if (auto ok = choose_backend(in.string()); !ok)
      return answer(ok);
    is_child_ = false;
    pidfd_ = dune::Fd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
    return answer_born(attach(pid, backend_), MessageType::kOk, true);
  }
  case MessageType::kWriteText:
    return answer(write_text(in));
  case MessageType::kExpectExec: {
    const auto tid = in.number<int32_t>();
    if (tid == exec_tid_) // a signal came between the announcement and the call
      return answer({});
    forget_exec(); // announced, and never made: a hostile target can do that
    if (!target_)
      return answer(Diagnostic{"The program is not being run.", {}, {}});
    auto ok = seize_for_exec(target_->pid, tid);
    if (ok)
      exec_tid_ = tid;
    return answer(ok);
  }
  case MessageType::kExecFailed:
    forget_exec();
    return answer({});
  case MessageType::kExpectDeath:
    begin_death(in.number<int32_t>());
    return answer({});
  case MessageType::kDetach: {
    Writer body;
    watches_.clear();
    forget_exec();
    body.strings(target_ && !death_ ? release(*target_) : std::vector<std::string>{});
    death_.reset();
    target_.reset();
    pidfd_.reset();
    (void)!send_message(socket_.get(), MessageType::kOk, body);
    return;
  }
  case MessageType::kKill:
    signal_target(SIGKILL);
    return answer({});
  case MessageType::kLiftSuspension:
    if (target_)
      target_->was_suspended = true;
    signal_target(SIGCONT);
    return answer({});
  case MessageType::kForgetSuspension:
    if (target_)
      target_->was_suspended = false;
    return answer({});
  case MessageType::kAddWatch: {
    if (!target_)
      return answer(Diagnostic{"The program is not being run.", {}, {}});
    const auto access = in.number<Client::Access>();
    const auto record = in.number<uint32_t>();
    auto id = target_->map.guest ? watches_.add_in_guest(target_->session(), access, record)
                                 : watches_.add(target_->pid, target_->session(), access, record);
    if (!id)
      return answer(id.error());
    Writer body;
    body.number(*id);
    (void)!send_message(socket_.get(), MessageType::kOk, body);
    return;
  }
  case MessageType::kRemoveWatch:
    watches_.remove(in.number<uint32_t>());
    return answer({});
  default:
    return answer(Diagnostic{"The keeper got an unknown request.", {}, {}});
  }
}

void Server::target_exited(int status) {
  Writer body;
  body.number<uint8_t>(WIFEXITED(status)     ? 0
                       : WIFSIGNALED(status) ? 1
                                             : 2)
      .number<int32_t>(WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status))
      .number<uint8_t>(WIFSIGNALED(status) && WCOREDUMP(status));
  (void)!send_message(socket_.get(), MessageType::kExited, body);
  ring_session();
  watches_.clear();
  target_.reset();
  death_.reset();
  exec_tid_ = 0;
}

void Server::exec_stop() {
  exec_tid_ = 0;
  auto born = inject_after_exec(*target_, backend_);
  watches_.clear();
  if (!born) {
    Writer body;
    body.string(born.error().message);
    (void)!send_message(socket_.get(), MessageType::kUntraced, body);
    ring_session();
    target_.reset(); // there is nothing of ours in the new image to release
    return;
  }
  Injected before = std::move(*target_);
  target_ = std::move(*born);
  Writer body;
  append_born(body, *target_, !is_child_);
  const int fds[] = {target_->session_fd.get(), target_->code_fd.get(), target_->memory->fd()};
  (void)!send_message(socket_.get(), MessageType::kExeced, body, fds);
  std::swap(*target_, before);
  ring_session(); // the front end still waits on the old one
  std::swap(*target_, before);
}

// Children: the target's exit, that a signal has stopped it, and ptrace stops while an execve is
// awaited.
void Server::reap() {
  for (;;) {
    int status;
    const pid_t pid = waitpid(-1, &status, WNOHANG | WUNTRACED | __WALL);
    if (pid <= 0)
      return;
    if (target_ && pid == target_->pid && WIFSTOPPED(status) && thread_state(pid) == 'T') {
      Writer body;
      body.number<int32_t>(WSTOPSIG(status));
      (void)!send_message(socket_.get(), MessageType::kSuspended, body);
      ring_session();
      continue;
    }
    if (WIFSTOPPED(status) && (pid != exec_tid_ && status >> 16 != PTRACE_EVENT_EXEC)) {
      (void)!Tracee(pid).detach(status >> 16 ? 0
                                             : WSTOPSIG(status)); // it had kept us waiting too long
      continue;
    }
    if (!target_)
      continue;
    if (WIFSTOPPED(status)) {
      const int event = status >> 16;
      if (event == PTRACE_EVENT_EXEC)
        exec_stop();
      else // a signal or group stop of the seized thread: as if we were not there
        ptrace(event == PTRACE_EVENT_STOP ? PTRACE_LISTEN : PTRACE_CONT, pid, nullptr,
               event ? 0 : WSTOPSIG(status));
    } else if (pid == target_->pid && is_child_) { // of another's child the pidfd tells
      target_exited(status);
    }
  }
}

void Server::signal_target(int signal) {
  if (target_ && pidfd_) // of one that is not our child the pid may be another's by now
    syscall(SYS_pidfd_send_signal, pidfd_.get(), signal, nullptr, 0);
  else if (target_)
    ::kill(target_->pid, signal);
}

void Server::forget_exec() {
  if (exec_tid_)
    let_go(exec_tid_);
  exec_tid_ = 0;
}

void Server::begin_death(pid_t tid) {
  if (!target_ || death_)
    return;
  watches_.clear();
  forget_exec();
  auto released = release_dying(*target_, tid);
  if (!released)
    return;
  const bool dies = released->let_die();
  death_.emplace(
      Death{std::move(*released), tid, Clock::now() + std::chrono::seconds(dies ? 2 : 0)});
}

int Server::death_timeout() const {
  if (!death_ || !death_->due)
    return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*death_->due - Clock::now());
  return std::max<int>(0, static_cast<int>(left.count()));
}

// When it is due: a core may take long to write.
void Server::see_to_death() {
  death_->due.reset();
  const pid_t tid = death_->tid;
  if (is_ended(thread_state(tid)) || read_status_field(tid, "CoreDumping") == "1")
    return;
  death_.reset();
  Writer body;
  body.string("The program has not died of its signal.");
  (void)!send_message(socket_.get(), MessageType::kUntraced, body);
  ring_session();
  target_.reset();
}

void Server::frontend_gone() {
  if (!target_ || death_)
    return;
  watches_.clear();
  forget_exec();
  release(*target_);
  target_.reset();
}

int Server::run() {
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child, nullptr);
  dune::Fd signals(signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK));
  for (;;) {
    pollfd wait[] = {
        {socket_.get(), POLLIN, 0}, {signals.get(), POLLIN, 0}, {pidfd_.get(), POLLIN, 0}};
    if (poll(wait, pidfd_ && target_ ? 3 : 2, death_timeout()) < 0 && errno != EINTR)
      return 1;
    if (death_timeout() == 0)
      see_to_death();
    if (wait[1].revents) {
      signalfd_siginfo info;
      while (read(signals.get(), &info, sizeof info) > 0)
        ;
      reap();
    }
    if (pidfd_ && target_ && wait[2].revents) {
      // Not our child: its status is its parent's to know.
      pidfd_.reset();
      target_exited(0xff); // neither exited nor signaled: unknown
    }
    if (!wait[0].revents)
      continue;
    auto message = receive_message(socket_.get(), Wait::kPoll);
    if (message) {
      handle(*message);
      reap(); // whatever a synchronous wait in there may have left behind
    } else if (message.error().code == dune::Errc::kGone) {
      frontend_gone();
      return 0;
    }
  }
}

} // namespace

int serve(int socket, pid_t frontend_pid) {
  fcntl(socket, F_SETFD, FD_CLOEXEC);
  return Server(socket, frontend_pid).run();
}

} // namespace ddbg::keeper
