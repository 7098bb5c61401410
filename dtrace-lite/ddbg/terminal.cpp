#include "dtrace-lite/ddbg/terminal.h"

#include <cerrno>
#include <sys/ioctl.h>
#include <unistd.h>

namespace ddbg::ui {

namespace {

volatile sig_atomic_t g_interrupted = 0;
volatile sig_atomic_t g_resized = 0;

// tcsetpgrp and tcsetattr from a background process raise SIGTTOU, which must not stop ddbg just as
// it takes the terminal back.
class IgnoreTtou {
public:
  IgnoreTtou() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTTOU);
    sigprocmask(SIG_BLOCK, &set, &before_);
  }
  ~IgnoreTtou() { sigprocmask(SIG_SETMASK, &before_, nullptr); }

private:
  sigset_t before_;
};

} // namespace

Terminal::Terminal() {
  our_group_ = getpgrp();
  available_ = isatty(0) && tcgetattr(0, &ours_) == 0 && tcgetpgrp(0) == our_group_;
  initial_ = ours_;
}

void Terminal::give_to(pid_t group) {
  if (!available_ || attached_ || given_ || group <= 0 || group == our_group_)
    return;
  IgnoreTtou guard;
  tcgetattr(0, &ours_);
  tcsetattr(0, TCSADRAIN, targets_ ? &*targets_ : &initial_);
  given_ = tcsetpgrp(0, group) == 0;
}

void Terminal::take_back() {
  // At its birth the target's group is put in the foreground by the keeper, not by give_to().
  if (!available_ || attached_)
    return;
  IgnoreTtou guard;
  pid_t foreground = tcgetpgrp(0);
  if (foreground == our_group_ && !given_)
    return;
  termios now;
  if (tcgetattr(0, &now) == 0)
    targets_ = now;
  tcsetpgrp(0, our_group_);
  tcsetattr(0, TCSADRAIN, &ours_);
  given_ = false;
}

void Terminal::forget_target() {
  targets_.reset();
  attached_ = false;
}

void Terminal::size(unsigned& columns, unsigned& rows) {
  winsize w{};
  columns = rows = 0;
  if (ioctl(1, TIOCGWINSZ, &w) == 0) {
    columns = w.ws_col;
    rows = w.ws_row;
  }
}

namespace signals {

void install() {
  struct sigaction action {};
  // No SA_RESTART: a wait for the target must return to look at the flag.
  action.sa_handler = [](int) { g_interrupted = 1; };
  sigaction(SIGINT, &action, nullptr);
  action.sa_handler = [](int) { g_resized = 1; };
  action.sa_flags = SA_RESTART;
  sigaction(SIGWINCH, &action, nullptr);
  action.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &action, nullptr);
}

bool take_interrupt() {
  bool was = g_interrupted;
  g_interrupted = 0;
  return was;
}
bool interrupt_pending() { return g_interrupted; }
bool take_resize() {
  bool was = g_resized;
  g_resized = 0;
  return was;
}

} // namespace signals

} // namespace ddbg::ui
