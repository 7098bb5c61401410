// Frames and source lines as gdb prints them.
#pragma once

#include "dtrace-lite/engine/frames.h"

#include <string>

namespace ddbg::ui {

class Context;

enum class FrameStyle {
  kLevel,   // "#1  0x... in main (...) at f.c:3", as bt, up, frame
  kNoLevel, // "main (...) at f.c:3", as a stop
};
// One line with newline, for a frame of the selected thread. Its arguments are evaluated with it
// selected; the selection is the caller's again afterwards.
std::string frame_line(Context&, const engine::Frame&, FrameStyle);

// "12\tcode" of this line, moves the default line for `list`; "12\tin f.c" or an error on standard
// error when the file cannot be read. `address` in front when the pc is not the first of the line.
void print_source_line(Context&, const engine::SourceLine&, dune::TargetAddr pc, bool show_address);

// The selected frame in full: location and source line (up, down, frame, a stop).
void print_frame(Context&, const engine::Frame&, FrameStyle);

// Puts the thread and frame back that were selected; an end of the thread meanwhile leaves another.
class KeepSelection {
public:
  explicit KeepSelection(Context&);
  ~KeepSelection();
  KeepSelection(const KeepSelection&) = delete;
  KeepSelection& operator=(const KeepSelection&) = delete;

private:
  Context& context_;
  uint32_t thread_ = 0;
  unsigned level_ = 0;
};

// "Thread 0x7ffff7dd0740 (LWP 6695)", or "LWP 6695" when the thread pointer is not known.
std::string thread_description(const engine::ThreadView&);

} // namespace ddbg::ui
