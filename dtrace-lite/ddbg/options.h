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
  std::vector<std::string> arguments;          // of the program
  bool have_arguments = false;                 // there are some, or --args was given
  std::optional<pid_t> pid;                    // -p
  std::optional<pid_t> pid_of_program;         // `ddbg PROG 123`: a process, if it runs PROG
  std::string symbol_file;                     // -s
  std::string working_directory;               // -cd
  std::vector<std::string> source_directories; // -d
  std::string terminal;                        // -tty
  std::string backend = "auto";
};

// What follows the program is its own, except options with a name of more than one letter (-ex,
// -batch; gdb takes them there, too) and -p with a number. After --args all is its own.
// Errors: an unknown or ambiguous option, a missing or malformed value.
Checked<Options> parse_options(const std::vector<std::string>& arguments);
std::string usage();
std::string version_text();

} // namespace ddbg::ui
