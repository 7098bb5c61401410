// Lines from standard input: edited by readline on a terminal, plain otherwise. The only place that
// knows readline.
#pragma once

#include "dtrace-lite/ddbg/interpreter.h"

namespace ddbg::ui {

class LineReader : public LineSource {
public:
  explicit LineReader(Context& context);
  ~LineReader() override;
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  std::optional<std::string> next(const std::string& prompt) override;
  bool interrupted() const override { return interrupted_; }

  // A line without editing and history: answers to questions and to the pager. nullopt as next().
  std::optional<std::string> read_plain(const std::string& prompt);

  void remember(const std::string& line); // in the history
  void load_history();
  void save_history();

private:
  std::optional<std::string> read_edited(const std::string& prompt);

  Context& context_;
  bool interrupted_ = false;
};

} // namespace ddbg::ui
