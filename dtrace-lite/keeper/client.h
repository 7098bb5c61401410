// The front end's handle on the keeper process. The keeper launches, attaches, injects the agent,
// writes text, and outlives the front end to release the target. See keeper/protocol.h for the
// messages; nothing here is on an event path.
#pragma once

#include "dtrace-lite/symbols/diagnostic.h"
#include "libdune/base/file.h"
#include "libdune/base/types.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <sys/types.h>
#include <vector>

namespace ddbg::keeper {

// What a program inherits: bit n - 1 stands for signal n.
struct SignalState {
  uint64_t ignored = 0, blocked = 0;
  static SignalState own(); // of the calling process, and thread
};

struct LaunchOptions {
  std::string program;                  // absolute path
  std::string shell_command;            // what the shell runs after `exec`; empty: exec directly
  std::vector<std::string> arguments;   // argv for a direct exec (argv[0] included)
  std::vector<std::string> environment; // NAME=value
  std::string working_directory;        // empty: inherited
  bool disable_randomization = true;
  std::string backend = "auto";
  SignalState signals;
  bool own_terminal_group = true; // own process group, given the terminal, as gdb does
};

// A text write: one site's byte. `expected` guards against writing over something else.
struct TextWrite {
  dune::TargetAddr address;
  uint8_t value;
  uint8_t expected;
};

struct ExitStatus {
  enum class Kind { kExited, kSignaled, kUnknown } kind = Kind::kUnknown;
  int value = 0; // exit status, or signal number
  bool core_dumped = false;
};

// A process with the agent inside; its threads are parked (or blocked in the kernel).
struct Born {
  pid_t pid = 0;
  dune::Fd session; // memfd, libdune/session/layout.h
  dune::Fd code;    // memfd
  dune::Fd memory;  // /proc/PID/mem, read-write
  bool attached = false;
  bool was_suspended = false; // as after lift_suspension()
};

// What the keeper has to say without being asked.
struct News {
  enum class Kind {
    kExited,     // `status`
    kExeced,     // `born`: a new image with a new agent and session; the old session is dead
    kUntraced,   // the target runs free (`text` says why: the new image could not be injected)
    kSuspended,  // `signal` has stopped the target, which the keeper has launched
    kKeeperLost, // the keeper died; the target runs on
  } kind;
  ExitStatus status{};
  Born born{};
  std::string text;
  int signal = 0;
};

class Client {
public:
  // Starts the keeper process. Errors: fork, exec (the keeper program lies beside ddbg).
  static Checked<std::unique_ptr<Client>> start();
  ~Client();

  Checked<Born> launch(const LaunchOptions&);
  Checked<Born> attach(pid_t, const std::string& backend = "auto");

  // Writes all, or nothing: on a mismatch of `expected` nothing is changed and an error says where.
  Checked<void> write_text(std::span<const TextWrite>);

  // The thread `tid` is parked just before an execve: seize the process so that the new image is
  // caught. exec_failed() lets it go again.
  Checked<void> expect_exec(pid_t tid);
  Checked<void> exec_failed();

  // The thread `tid` is parked just before it dies of a signal. If there will be a core, it shows
  // all threads as the program's: the agent is taken out, and they are held until the process is
  // dead.
  Checked<void> expect_death(pid_t tid);

  // Takes the agent out: every byte, mask, disposition and mapping as before; threads run on.
  // Returns what could not be restored, a sentence each (empty: nothing).
  Checked<std::vector<std::string>> detach();
  // SIGKILL; the exit arrives as News.
  Checked<void> kill();

  // A target that SIGSTOP or its like has stopped goes on (SIGCONT), so that its threads can park.
  // Whenever the agent is taken out it is stopped again, until the suspension is forgotten.
  Checked<void> lift_suspension();
  Checked<void> forget_suspension();

  // Of what the record says, on every thread, present and future. Descriptors live in the keeper.
  enum class Access { kWrite, kReadWrite };
  Checked<uint32_t> add_watch(Access, uint32_t record);
  Checked<void> remove_watch(uint32_t id);

  // Non-blocking; nullopt when there is none. fd() is readable when there may be some; the keeper
  // also bumps the session's event_seq so that one futex wait covers both.
  std::optional<News> poll_news();
  int fd() const;
  pid_t keeper_pid() const;

private:
  struct Impl;
  explicit Client(std::unique_ptr<Impl>);
  std::unique_ptr<Impl> impl_;
};

} // namespace ddbg::keeper
