#include "dtrace-lite/ddbg/output.h"

#include "dtrace-lite/ddbg/text.h"

#include <cerrno>
#include <poll.h>
#include <unistd.h>

namespace ddbg::ui {

namespace {
constexpr size_t kBufferSize = 1 << 16;

// A reader that went away (`| head`) must not kill ddbg while a target is alive, and a terminal
// that is non-blocking (set so by the target) must not lose text.
void write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    ssize_t n = ::write(fd, text.data(), text.size());
    if (n > 0) {
      text.remove_prefix(static_cast<size_t>(n));
    } else if (n < 0 && errno == EAGAIN) {
      pollfd ready{fd, POLLOUT, 0};
      ::poll(&ready, 1, -1);
    } else if (n < 0 && errno != EINTR) {
      return;
    }
  }
}
} // namespace

void Pager::restart() {
  line_ = column_ = 0;
  unlimited_ = quitting_ = false;
}

size_t Pager::fits(std::string_view text) {
  if (height_ < 2 || unlimited_)
    return text.size();
  bool in_escape = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (line_ + 1 >= height_)
      return i;
    char c = text[i];
    if (in_escape) {
      in_escape = !(c >= '@' && c <= '~' && c != '[');
    } else if (c == '\n') {
      ++line_;
      column_ = 0;
    } else if (c == '\033') {
      in_escape = true;
    } else {
      // UTF-8 continuation bytes take no column.
      bool continuation = (static_cast<unsigned char>(c) & 0xc0) == 0x80;
      unsigned wide = c == '\t' ? 8 - column_ % 8 : !continuation;
      if (width_ && column_ + wide > width_) {
        ++line_;
        column_ = 0;
        if (line_ + 1 >= height_)
          return i;
      }
      column_ += wide;
    }
  }
  return text.size();
}

void Pager::answered(Answer answer) {
  line_ = 0;
  unlimited_ |= answer == Answer::kWithoutPaging;
  quitting_ |= answer == Answer::kQuit;
}

Pager::Answer Pager::parse_answer(std::string_view typed) {
  typed = trim(typed);
  if (typed.starts_with('q'))
    return Answer::kQuit;
  if (typed.starts_with('c'))
    return Answer::kWithoutPaging;
  return Answer::kMore;
}

Output::Output()
    : sink_([](std::string_view text, bool is_error) { write_all(is_error ? 2 : 1, text); }) {}

Output::~Output() { flush(); }

void Output::write(std::string_view text) {
  if (!ask_)
    return emit(text);
  while (!text.empty() && !pager_.quitting()) {
    size_t n = pager_.fits(text);
    emit(text.substr(0, n));
    text.remove_prefix(n);
    if (!text.empty()) {
      flush();
      pager_.answered(ask_());
    }
  }
}

void Output::emit(std::string_view text) {
  pending_ += text;
  if (pending_.size() >= kBufferSize)
    flush();
}

void Output::error_line(std::string_view line) {
  flush();
  sink_(std::string(line) + "\n", true);
}

void Output::flush() {
  if (!pending_.empty())
    sink_(std::exchange(pending_, {}), false);
}

} // namespace ddbg::ui
