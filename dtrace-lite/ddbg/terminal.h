// The terminal that ddbg shares with the target: who is in its foreground, with which modes. While
// the target runs it owns the terminal, so that Ctrl-C is its SIGINT (which the agent turns into a
// stop); at a stop ddbg takes the terminal back with its own modes.
#pragma once

#include <csignal>
#include <optional>
#include <sys/types.h>
#include <termios.h>

namespace ddbg::ui {

class Terminal {
public:
  Terminal();

  // ddbg has a controlling terminal on its standard input and is in its foreground.
  bool available() const { return available_; }
  // The target is about to run in process group `group`.
  void give_to(pid_t group);
  // The target has stopped or is gone.
  void take_back();
  // A new target starts: it gets the modes that ddbg was started with.
  void forget_target();
  // The target's processes must not get the terminal: it was attached to.
  void set_attached(bool attached) { attached_ = attached; }

  // Columns and rows, 0 when unknown.
  static void size(unsigned& columns, unsigned& rows);

private:
  bool available_ = false;
  bool attached_ = false;
  bool given_ = false;
  pid_t our_group_ = 0;
  termios ours_{};
  termios initial_{};
  std::optional<termios> targets_;
};

// SIGINT and SIGWINCH as facts to ask for. install() once, from main.
namespace signals {
void install();
bool take_interrupt(); // true once after each SIGINT
bool interrupt_pending();
bool take_resize();
} // namespace signals

} // namespace ddbg::ui
