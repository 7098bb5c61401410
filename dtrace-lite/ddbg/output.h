// Where text goes: standard output through the pager, errors to standard error, in order.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <string>
#include <string_view>
#include <utility>

namespace ddbg::ui {

// Counts screen lines and says when a page is full. Knows nothing of terminals: the prompt is asked
// by whoever prints.
class Pager {
public:
  enum class Answer { kMore, kQuit, kWithoutPaging };

  // 0: unlimited. `height` counts the line of the question itself, as gdb does.
  void set_size(unsigned width, unsigned height) {
    width_ = width;
    height_ = height;
  }
  // A new command begins: a full page again.
  void restart();
  // The longest beginning of `text` that fits on this page. Shorter than `text`: the page is full
  // and the question is due before the rest.
  size_t fits(std::string_view text);
  void answered(Answer answer);
  bool quitting() const { return quitting_; } // the rest of this command's output is dropped
  unsigned width() const { return width_; }

  // What a typed line answers: "q..." quits, "c..." goes on without paging, everything else is
  // more.
  static Answer parse_answer(std::string_view typed);

private:
  unsigned width_ = 0, height_ = 0;
  unsigned line_ = 0, column_ = 0;
  bool unlimited_ = false;
  bool quitting_ = false;
};

class Output {
public:
  // Asks the pager's question; called with everything so far on the screen.
  using Ask = std::function<Pager::Answer()>;
  using Sink = std::function<void(std::string_view text, bool is_error)>;

  Output(); // to descriptors 1 and 2
  explicit Output(Sink sink) : sink_(std::move(sink)) {}
  ~Output();
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  void write(std::string_view text);
  template <class... Args> void print(fmt::format_string<Args...> format, Args&&... args) {
    write(fmt::format(format, std::forward<Args>(args)...));
  }
  // A whole line to standard error, after everything that was written before.
  void error_line(std::string_view line);
  void flush();

  // Paging applies while `ask` is set.
  void set_pager_question(Ask ask) { ask_ = std::move(ask); }
  Pager& pager() { return pager_; }

private:
  void emit(std::string_view text);

  Sink sink_;
  Ask ask_;
  Pager pager_;
  std::string pending_;
};

} // namespace ddbg::ui
