#include "dtrace-lite/ddbg/options.h"

#include "dtrace-lite/ddbg/text.h"

#include <boost/program_options.hpp>

#include <algorithm>
#include <functional>

namespace ddbg::ui {

namespace {

namespace po = boost::program_options;

// Errors: what is wrong with the value.
using Apply = Checked<void> (*)(Options&, const std::string& value);

struct Row {
  const char* spellings; // blank-separated, without dashes; the first is shown by -help
  const char* value;     // name of the value, or null when the option takes none
  const char* help;      // null: understood, not shown
  Apply apply;
};

Checked<void> unsupported(const char* what) {
  return Diagnostic{std::string(what) + " not supported yet.", {}, {}};
}

template <bool Options::*member> Checked<void> set_flag(Options& o, const std::string&) {
  o.*member = true;
  return {};
}
template <std::string Options::*member> Checked<void> set_text(Options& o, const std::string& v) {
  o.*member = v;
  return {};
}
template <std::vector<Options::Step> Options::*member, Options::Step::Kind kind>
Checked<void> add_step(Options& o, const std::string& v) {
  (o.*member).push_back({kind, v});
  return {};
}

Checked<void> set_pid(Options& o, const std::string& v) {
  auto pid = parse_integer(v);
  if (!pid || *pid <= 0 || *pid > INT32_MAX)
    return Diagnostic{"Illegal process-id: " + v + ".", "Give the number that ps shows.", {}};
  o.pid = static_cast<pid_t>(*pid);
  return {};
}

Checked<void> accept(Options&, const std::string&) { return {}; }

using enum Options::Step::Kind;
constexpr Row kRows[] = {
    {"args", nullptr, "All that follows executable-file is passed to the program.", accept},
    {"pid p", "PID", "Attach to running process PID.", set_pid},
    {"exec e", "EXECFILE", "Use EXECFILE as the executable.", set_text<&Options::program>},
    {"symbols s", "SYMFILE", "Read symbols from SYMFILE.", set_text<&Options::symbol_file>},
    {"se", "FILE", "Use FILE as symbol file and executable file.", set_text<&Options::program>},
    {"directory d", "DIR", "Search for source files in DIR.",
     [](Options& o, const std::string& v) -> Checked<void> {
       o.source_directories.push_back(v);
       return {};
     }},
    {"core c", "COREFILE", nullptr,
     [](Options&, const std::string&) { return unsupported("Core files are"); }},
    {"backend", "NAME", "How traps reach the agent; `auto' (the default) measures and chooses.",
     set_text<&Options::backend>},
    {"eval-command ex", "COMMAND", "Execute a single command; may be given many times.",
     add_step<&Options::steps, kCommand>},
    {"command x", "FILE", "Execute commands from FILE.", add_step<&Options::steps, kFile>},
    {"init-eval-command iex", "COMMAND", "Like -ex, before the program is loaded.",
     add_step<&Options::early, kCommand>},
    {"init-command ix", "FILE", "Like -x, before the program is loaded.",
     add_step<&Options::early, kFile>},
    {"nh", nullptr, "Do not read ~/.ddbginit.", set_flag<&Options::no_home_init>},
    {"nx n", nullptr, "Do not read any .ddbginit file.", set_flag<&Options::no_init>},
    {"quiet q silent", nullptr, "Do not print the version on startup.", set_flag<&Options::quiet>},
    {"batch", nullptr, "Exit after processing options.", set_flag<&Options::batch>},
    {"return-child-result", nullptr, "ddbg's exit status will be the program's.",
     set_flag<&Options::return_child_result>},
    {"tty t", "TTY", "Use TTY for input/output by the program being debugged.",
     set_text<&Options::terminal>},
    {"cd", "DIR", "Change the current directory to DIR.", set_text<&Options::working_directory>},
    {"help h", nullptr, "Print this message and then exit.", set_flag<&Options::help>},
    {"version v", nullptr, "Print version information and then exit.", set_flag<&Options::version>},
    // Asked for by front ends written for gdb; what they ask is always so here.
    {"nw nowindows", nullptr, nullptr, accept},
    {"readnow", nullptr, nullptr, accept},
};

// The same rows as Boost.Program_options wants them: an option per spelling.
struct Spellings {
  po::options_description description;
  std::vector<std::pair<std::string, const Row*>> rows;

  Spellings() {
    for (const Row& row : kRows)
      for (std::string_view spelling : split_blank(row.spellings)) {
        std::string name(spelling);
        if (row.value)
          description.add_options()(name.c_str(), po::value<std::string>(), "");
        else
          description.add_options()(name.c_str(), "");
        rows.emplace_back(name, &row);
      }
  }
  const Row& row(const std::string& name) const {
    auto it = std::find_if(rows.begin(), rows.end(), [&](auto& r) { return r.first == name; });
    DUNE_ASSERT(it != rows.end());
    return *it->second;
  }
};

// The words on the command line, by whose they are.
struct Division {
  std::vector<std::string> ours;
  std::vector<std::string> programs; // the program and its arguments
  bool has_args = false;             // `--args` was there, as an option and not as another's value
};

// An option of ours where the program's own stand.
bool is_ours_behind_program(const Spellings& spellings, const std::string& word,
                            const std::string* next) {
  const size_t begin = word.find_first_not_of('-');
  if (begin == 0 || begin == word.npos)
    return false;
  const std::string name = word.substr(begin, word.find('=') - begin);
  if (name == "p")
    return next && parse_integer(*next);
  return name.size() > 1 && name != "help" && name != "version" &&
         spellings.description.find_nothrow(name, false);
}

bool takes_next_word(const Spellings& spellings, const std::string& option) {
  const size_t begin = option.find_first_not_of('-');
  if (begin == option.npos || option.find('=') != option.npos)
    return false;
  const auto* found = spellings.description.find_nothrow(option.substr(begin), true);
  return found && found->semantic()->max_tokens() > 0;
}

Division divide(const Spellings& spellings, const std::vector<std::string>& words) {
  Division d;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    const std::string* next = i + 1 < words.size() ? &words[i + 1] : nullptr;
    const bool has_program = !d.programs.empty();
    d.has_args = word == "--args" || word == "-args";
    const bool ends_ours = d.has_args || (word == "--" && !has_program);
    const bool is_ours = has_program ? is_ours_behind_program(spellings, word, next)
                                     : word.size() > 1 && word[0] == '-';
    if (ends_ours || (has_program && !is_ours)) {
      d.programs.insert(d.programs.end(), words.begin() + static_cast<long>(i + ends_ours),
                        words.end());
      break;
    }
    (is_ours ? d.ours : d.programs).push_back(word);
    if (is_ours && next && takes_next_word(spellings, word))
      d.ours.push_back(words[++i]);
  }
  return d;
}

} // namespace

Checked<Options> parse_options(const std::vector<std::string>& arguments) {
  static const Spellings spellings;
  Options options;
  Division words;
  try { // the library's border: everything it throws is about what was typed
    words = divide(spellings, arguments);
    using namespace po::command_line_style;
    po::parsed_options parsed = po::basic_command_line_parser<char>(words.ours)
                                    .options(spellings.description)
                                    .style(allow_long | allow_long_disguise | long_allow_adjacent |
                                           long_allow_next | allow_guessing)
                                    .run();
    for (const po::option& option : parsed.options) {
      // The library takes a disguised long option that it does not know for a plain word.
      if (option.position_key >= 0 || option.string_key.empty())
        return Diagnostic{"unrecognized option '" + option.value.front() + "'",
                          "Use `ddbg --help' for a complete list of options.",
                          {}};
      auto applied = spellings.row(option.string_key)
                         .apply(options, option.value.empty() ? std::string() : option.value[0]);
      if (!applied)
        return applied.error();
    }
  } catch (const po::error& e) {
    // About a word with one of its placeholders (%prefix%) the library would talk for ever.
    const bool is_safe = std::none_of(arguments.begin(), arguments.end(),
                                      [](auto& word) { return word.find('%') != word.npos; });
    return Diagnostic{(is_safe ? std::string(e.what()) : "an option is unknown or malformed") + ".",
                      "Use `ddbg --help' for a complete list of options.",
                      {}};
  }

  if (words.has_args && words.programs.empty())
    return Diagnostic{"`--args' specified but no program specified.", {}, {}};
  if (!words.programs.empty()) {
    options.program = words.programs.front();
    options.arguments.assign(words.programs.begin() + 1, words.programs.end());
    options.have_arguments = words.has_args || !options.arguments.empty();
    if (!words.has_args && options.arguments.size() == 1)
      if (auto pid = parse_integer(options.arguments[0]); pid && *pid > 0 && *pid <= INT32_MAX)
        options.pid_of_program = static_cast<pid_t>(*pid);
  }
  // As gdb: batch mode implies quiet.
  options.quiet |= options.batch;
  return options;
}

std::string usage() {
  std::string text =
      "ddbg, a debugger whose breakpoints are handled inside the program.  Usage:\n\n"
      "    ddbg [options] executable-file [program-arguments ...]\n"
      "    ddbg [options] executable-file process-id-of-that-program\n\n"
      "Options (one dash or two, unambiguous beginnings suffice):\n\n";
  for (const Row& row : kRows) {
    if (!row.help)
      continue;
    std::string left;
    for (std::string_view spelling : split_blank(row.spellings))
      left += (left.empty() ? "  --" : ", -") + std::string(spelling);
    if (row.value)
      left += std::string(" ") + row.value;
    text += left + std::string(left.size() < 34 ? 34 - left.size() : 1, ' ') + row.help + "\n";
  }
  text +=
      "\nBehind executable-file only options with a name of more than one letter (-ex, -batch;\n"
      "not --help, --version) and `-p PID' are ddbg's.  --args or `--' before it: none is.\n"
      "\nAt startup, ddbg reads ~/.ddbginit, and ./.ddbginit when you own it and nobody else can\n"
      "write it.  For more, type \"help\" within ddbg.\n";
  return text;
}

std::string version_text() {
  return "ddbg " DDBG_VERSION "\n"
         "A debugger for x86-64 Linux on Dune.  Type \"help\" for a list of classes of commands.\n";
}

} // namespace ddbg::ui
