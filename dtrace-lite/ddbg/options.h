// ddbg's command line, in gdb's spelling.
#pragma once

#include "dtrace-lite/symbols/diagnostic.h"

#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

namespace ddbg::ui {

struct Options {
  // -ex and -x, kept in the order they were given; -iex and -ix before the program is loaded.
  struct Step {
    enum class Kind { kCommand, kFile } kind;
    std::string text;
  };
  std::vector<Step> early;
  std::vector<Step> steps;

  bool quiet = false;
  bool batch = false;
  bool return_child_result = false;
  bool no_init = false;      // -nx: no init file at all
  bool no_home_init = false; // -nh: not the one in the home directory
  bool help = false;
  bool version = false;

  std::string program;                         // empty: none
  std::vector<std::string> arguments;          // of the program, after --args
  bool have_arguments = false;                 // --args was given, even without arguments
  std::optional<pid_t> pid;                    // -p, or `ddbg PROG PID`
  std::string symbol_file;                     // -s
  std::string working_directory;               // -cd
  std::vector<std::string> source_directories; // -d
  std::string terminal;                        // -tty
  std::string backend = "auto";
};

// Errors: an unknown or ambiguous option, a missing or malformed value.
Checked<Options> parse_options(const std::vector<std::string>& arguments);
std::string usage();
std::string version_text();

} // namespace ddbg::ui
