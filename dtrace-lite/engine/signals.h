// Signals by name, with gdb's defaults of what happens when one arrives.
#pragma once

#include "libdune/session/layout.h"

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace ddbg::engine {

// "SIGINT"; "SIG34" for real-time ones. Empty: no such signal.
std::string signal_name(int signal);
std::string signal_description(int signal); // "Interrupt"
// A full name, or a number from 1 to 15, as gdb has it.
std::optional<int> signal_number(std::string_view name);

struct SignalHandling {
  bool stop = true;
  bool print = true;
  bool pass = true;
  uint8_t policy() const { // dune::session::SignalPolicy
    return static_cast<uint8_t>((stop ? dune::session::kSignalStop : 0) |
                                (print ? dune::session::kSignalPrint : 0) |
                                (pass ? dune::session::kSignalPass : 0));
  }
};
using SignalTable = std::array<SignalHandling, dune::session::kSignals>;
SignalTable default_signal_table();

} // namespace ddbg::engine
