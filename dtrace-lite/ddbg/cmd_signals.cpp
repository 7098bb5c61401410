// handle and info signals.
#include "dtrace-lite/ddbg/commands.h"
#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/text.h"

#include <csignal>

namespace ddbg::ui::cmd {

namespace {

constexpr const char* kHeader = "Signal        Stop\tPrint\tPass to program\tDescription\n";

void print_row(Context& context, int signal) {
  const engine::SignalHandling& h = context.debugger.signals()[static_cast<size_t>(signal)];
  auto word = [](bool on) { return on ? "Yes" : "No"; };
  context.out.print("{:<13} {}\t{}\t{}\t\t{}\n", engine::signal_name(signal), word(h.stop),
                    word(h.print), word(h.pass), engine::signal_description(signal));
}

constexpr int kLast = static_cast<int>(dune::session::kSignals) - 1;

Checked<std::vector<int>> parse_signals(std::string_view word) {
  if (auto number = engine::signal_number(word))
    return std::vector<int>{*number};
  size_t dash = word.find('-');
  if (dash != word.npos) {
    auto first = engine::signal_number(word.substr(0, dash));
    auto last = engine::signal_number(word.substr(dash + 1));
    if (first && last) {
      std::vector<int> range;
      for (int s = std::min(*first, *last); s <= std::max(*first, *last); ++s)
        range.push_back(s);
      return range;
    }
  }
  if (auto number = parse_integer(word); number)
    return Diagnostic{"Only signals 1-15 are valid as numeric signals.",
                      "Use \"info signals\" for a list of symbolic signals.",
                      {}};
  return Diagnostic{"Unrecognized or ambiguous flag word: \"" + std::string(word) + "\".",
                    "Give signals such as SIGUSR1 and what to do: stop, nostop, print, noprint, "
                    "pass, nopass.",
                    {}};
}

// The keywords of `handle`, by any beginning that tells them apart.
struct Keyword {
  const char* word;
  size_t at_least;
  void (*apply)(engine::SignalHandling&);
};
constexpr Keyword kKeywords[] = {
    {"stop", 1, [](engine::SignalHandling& h) { h.stop = h.print = true; }},
    {"nostop", 3, [](engine::SignalHandling& h) { h.stop = false; }},
    {"print", 2, [](engine::SignalHandling& h) { h.print = true; }},
    {"noprint", 4, [](engine::SignalHandling& h) { h.print = h.stop = false; }},
    {"pass", 2, [](engine::SignalHandling& h) { h.pass = true; }},
    {"nopass", 4, [](engine::SignalHandling& h) { h.pass = false; }},
    {"ignore", 1, [](engine::SignalHandling& h) { h.pass = false; }},
    {"noignore", 3, [](engine::SignalHandling& h) { h.pass = true; }},
};

} // namespace

Checked<void> handle(Context& context, std::string_view args) {
  if (args.empty())
    return Diagnostic{"Argument required (signal to handle).", {}, {}};
  std::vector<int> signals;
  std::vector<const Keyword*> actions;
  for (std::string_view word : split_blank(args)) {
    const Keyword* keyword = nullptr;
    for (const Keyword& k : kKeywords)
      if (word.size() >= k.at_least && std::string_view(k.word).starts_with(word))
        keyword = &k;
    if (keyword) {
      actions.push_back(keyword);
    } else if (word == "all") {
      // As gdb: not those that the debugger itself uses.
      for (int s = 1; s <= kLast; ++s)
        if (s != SIGTRAP && s != SIGINT && !engine::signal_name(s).empty())
          signals.push_back(s);
    } else {
      auto parsed = parse_signals(word);
      if (!parsed)
        return parsed.error();
      signals.insert(signals.end(), parsed->begin(), parsed->end());
    }
  }
  for (int s : signals) {
    if ((s == SIGTRAP || s == SIGINT) && !actions.empty() &&
        !context.confirm(engine::signal_name(s) +
                         " is used by the debugger.  \nAre you sure you want to change it? "))
      return Diagnostic{"Not confirmed, unchanged.", {}, {}};
    engine::SignalHandling h = context.debugger.signals()[static_cast<size_t>(s)];
    for (const Keyword* action : actions)
      action->apply(h);
    context.debugger.set_signal(s, h);
  }
  if (!signals.empty() && context.from_tty) {
    context.out.write(kHeader);
    for (int s : signals)
      print_row(context, s);
  }
  return {};
}

Checked<void> info_signals(Context& context, std::string_view args) {
  context.out.write(kHeader);
  if (!args.empty()) {
    auto number = engine::signal_number(args);
    if (!number)
      return Diagnostic{"Only signals 1-15 are valid as numeric signals.",
                        "Use \"info signals\" for a list of symbolic signals.",
                        {}};
    print_row(context, *number);
    return {};
  }
  context.out.write("\n");
  for (int s = 1; s <= kLast; ++s)
    if (!engine::signal_name(s).empty())
      print_row(context, s);
  context.out.write("\nUse the \"handle\" command to change these tables.\n");
  return {};
}

} // namespace ddbg::ui::cmd
