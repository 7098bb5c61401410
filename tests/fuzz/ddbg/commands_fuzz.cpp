// The command line of the prompt: any bytes as lines, over a debugger without a target.
#include "dtrace-lite/ddbg/completion.h"
#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/repl.h"

#include <string_view>

namespace {

using namespace ddbg::ui;

constexpr uint64_t kMostStatements = 2000; // loops and recursion must end

class Lines : public LineSource {
public:
  explicit Lines(std::string_view text) : text_(text) {}
  std::optional<std::string> next(const std::string&) override {
    if (text_.empty())
      return std::nullopt;
    size_t end = std::min(text_.find('\n'), text_.size());
    std::string line(text_.substr(0, end));
    text_.remove_prefix(std::min(end + 1, text_.size()));
    return line;
  }

private:
  std::string_view text_;
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Output output([](std::string_view, bool) {});
  Context context(output);
  context.host_is_off_limits = true;
  context.from_tty = size % 2 == 0;
  context.interpreter.set_budget(kMostStatements);
  Lines lines({reinterpret_cast<const char*>(data), size});
  while (auto line = lines.next("")) {
    complete(context, *line);
    repeated_line(*line);
    if (auto done = context.interpreter.execute(*line, lines); !done)
      context.report_error(done.error());
    if (context.leave)
      break;
  }
  return 0;
}
