// ddbg: options, init files, the program, the commands of the command line, the conversation.
#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/latency.h"
#include "dtrace-lite/ddbg/line_reader.h"
#include "dtrace-lite/ddbg/options.h"
#include "dtrace-lite/ddbg/repl.h"
#include "dtrace-lite/ddbg/run_control.h"
#include "dtrace-lite/ddbg/startup.h"

#include <cstdio>
#include <unistd.h>

int main(int argc, char** argv) {
  using namespace ddbg::ui;
  if (argc > 1 && std::string_view(argv[1]) == "latency") {
    signals::install();
    return latency_main(std::vector<std::string>(argv + 2, argv + argc));
  }
  Output output;
  auto options = parse_options({argv + 1, argv + argc});
  if (!options) {
    output.error_line("ddbg: " + options.error().message);
    if (!options.error().hint.empty())
      output.error_line(options.error().hint);
    return 1;
  }
  if (options->help || options->version) {
    output.write(options->help ? usage() : version_text());
    return 0;
  }
  const auto inherited_signals = ddbg::engine::SignalState::own();
  signals::install();
  Context context(output);
  context.debugger.settings().signals = inherited_signals;
  context.batch = options->batch;
  context.input_is_terminal = isatty(0);
  LineReader reader(context);
  set_up_terminal(context, reader);
  if (!options->quiet)
    output.write(version_text());
  bool succeeded = start_up(context, reader, *options);
  if (!context.leave && !options->batch) {
    converse(context, reader);
    reader.save_history();
  }
  int status = context.leave.value_or(succeeded ? 0 : 1);
  leave_target(context);
  if (options->return_child_result)
    status = context.debugger.exit_code().value_or(status);
  return status;
}
