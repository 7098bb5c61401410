#include "dtrace-lite/ddbg/frame_print.h"

#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/evaluation.h"

namespace ddbg::ui {

KeepSelection::KeepSelection(Context& context) : context_(context) {
  thread_ = context.debugger.selected_thread();
  if (auto frame = context.debugger.selected_frame())
    level_ = frame->level;
}

KeepSelection::~KeepSelection() {
  if (thread_ == 0)
    return;
  if (context_.debugger.selected_thread() != thread_ && !context_.debugger.select_thread(thread_))
    return;
  if (auto frame = context_.debugger.selected_frame(); frame && frame->level != level_)
    static_cast<void>(context_.debugger.select_frame(level_));
}

namespace {
std::string arguments_of(Context& context, const engine::Frame& frame) {
  auto selected = context.debugger.selected_frame();
  if (selected && selected->level == frame.level)
    return frame_arguments(context);
  KeepSelection keep(context);
  if (!context.debugger.select_frame(frame.level))
    return {};
  return frame_arguments(context);
}
} // namespace

std::string frame_line(Context& context, const engine::Frame& frame, FrameStyle style) {
  std::string line;
  if (style == FrameStyle::kLevel)
    line = fmt::format("#{:<3}", frame.level);
  if (frame.is_signal_trampoline)
    return line + "<signal handler called>\n";
  bool show_address = frame.show_address || !frame.source;
  if (show_address && context.settings.flag(Setting::kPrintAddress))
    line += fmt::format("0x{:016x} in ", frame.pc.value);
  line += frame.function.empty() ? "??" : frame.function;
  line += " (" + arguments_of(context, frame) + ")";
  if (frame.source)
    line += fmt::format(" at {}:{}", frame.source.file->name, frame.source.line);
  else if (const symbols::LoadedModule* main = context.debugger.module_map().main();
           !frame.module.empty() && (!main || main->path != frame.module))
    line += " from " + frame.module;
  return line + "\n";
}

void print_source_line(Context& context, const engine::SourceLine& source, dune::TargetAddr pc,
                       bool show_address) {
  context.list_cursor.centre_default = true;
  auto text = context.debugger.sources().line(*source.file, source.line);
  bool failed_before = context.source_that_failed == source.file;
  context.source_that_failed = text ? nullptr : source.file;
  if (show_address && context.settings.flag(Setting::kPrintAddress))
    context.out.print("0x{:016x}\t", pc.value);
  if (text) {
    context.out.print("{}\t{}\n", source.line, *text);
  } else if (auto lines = context.debugger.sources().line_count(*source.file); lines) {
    context.out.print("{}\tin {}\n", source.line, source.file->name); // past the file's end
  } else if (failed_before) {
    context.out.print("{}\tin {}\n", source.line, source.file->name);
  } else {
    context.out.error_line(
        fmt::format("{}\t{}: No such file or directory.", source.line, source.file->name));
  }
}

void print_frame(Context& context, const engine::Frame& frame, FrameStyle style) {
  context.out.write(frame_line(context, frame, style));
  if (frame.source)
    print_source_line(context, frame.source, frame.pc, false); // the line above has the address
}

std::string thread_description(const engine::ThreadView& thread) {
  auto fs_base = static_cast<unsigned>(dune::Reg::fs_base);
  if ((thread.known & (1u << fs_base)) && thread.registers.fs_base != 0)
    return fmt::format("Thread 0x{:x} (LWP {})", thread.registers.fs_base, thread.tid);
  return fmt::format("LWP {}", thread.tid);
}

} // namespace ddbg::ui
