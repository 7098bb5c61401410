// Frames: backtrace, frame, up, down and what belongs to the selected one.
#include "dtrace-lite/ddbg/commands.h"
#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/evaluation.h"
#include "dtrace-lite/ddbg/frame_print.h"
#include "dtrace-lite/ddbg/text.h"

#include <algorithm>

namespace ddbg::ui::cmd {

namespace {

constexpr unsigned kMaxFrames = 1 << 20;

Checked<void> require_stack(Context& context) {
  if (!context.debugger.alive())
    return Diagnostic{"No stack.", {}, {}};
  return {};
}

// Selects `level` or, with `as_far_as_possible`, the nearest one below that exists.
Checked<void> select_level(Context& context, uint64_t level, bool as_far_as_possible) {
  auto limited = static_cast<unsigned>(std::min<uint64_t>(level, kMaxFrames));
  auto selected = context.debugger.select_frame(limited);
  if (selected || !as_far_as_possible)
    return selected;
  auto all = context.debugger.backtrace(limited + 1, nullptr);
  if (!all)
    return all.error();
  if (all->empty())
    return Diagnostic{"No stack.", {}, {}};
  return context.debugger.select_frame(all->back().level);
}

Checked<void> show_selected(Context& context) {
  auto frame = context.debugger.selected_frame();
  if (!frame)
    return frame.error();
  print_frame(context, *frame, FrameStyle::kLevel);
  return {};
}

std::string indent(const std::string& text) {
  std::string result;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = text.find('\n', begin);
    end = end == text.npos ? text.size() : end + 1;
    result += "        " + text.substr(begin, end - begin);
    begin = end;
  }
  return result;
}

} // namespace

Checked<void> backtrace(Context& context, std::string_view args) {
  if (auto there = require_stack(context); !there)
    return there;
  bool full = false;
  int64_t count = 0; // 0: all
  while (!args.empty()) {
    auto [word, rest] = split_first(args);
    if (word == "full" || word == "-full") {
      full = true;
      args = rest;
      continue;
    }
    if (word.size() > 1 && word[0] == '-' && std::isalpha(static_cast<unsigned char>(word[1])))
      return Diagnostic{"Unrecognized option at: " + std::string(args),
                        "backtrace takes a count and \"full\".",
                        {}};
    auto number = evaluate_integer(context, args);
    if (!number)
      return number.error();
    count = static_cast<int64_t>(*number);
    break;
  }
  uint64_t limit = std::min<uint64_t>(context.settings.count(Setting::kBacktraceLimit), kMaxFrames);
  std::string why;
  // One more than wanted, to know whether there are more.
  uint64_t ask = count > 0 ? std::min<uint64_t>(static_cast<uint64_t>(count) + 1, limit) : limit;
  context.apply_settings();
  auto frames = context.debugger.backtrace(static_cast<unsigned>(ask), &why);
  if (!frames)
    return frames.error();
  bool more = false;
  if (count > 0 && frames->size() > static_cast<uint64_t>(count)) {
    frames->erase(frames->begin() + count, frames->end());
    more = true;
  } else if (count < 0 && frames->size() > static_cast<uint64_t>(-count)) {
    frames->erase(frames->begin(), frames->end() + count);
  }
  KeepSelection keep(context);
  for (const engine::Frame& frame : *frames) {
    context.out.write(frame_line(context, frame, FrameStyle::kLevel));
    if (full) {
      if (auto selected = context.debugger.select_frame(frame.level); !selected)
        return selected;
      std::string locals = frame_locals(context);
      context.out.write(locals.empty() ? "No locals.\n" : indent(locals));
    }
    if (signals::interrupt_pending() || context.out.pager().quitting())
      return {};
  }
  if (more && context.from_tty)
    context.out.write("(More stack frames follow...)\n");
  if (!more && !why.empty())
    context.out.print("{}\n", why);
  return {};
}

Checked<void> frame(Context& context, std::string_view args) {
  if (auto there = require_stack(context); !there)
    return there;
  auto [word, rest] = split_first(args);
  if (word == "function") {
    auto all = context.debugger.backtrace(kMaxFrames, nullptr);
    if (!all)
      return all.error();
    if (rest.empty())
      return Diagnostic{"Missing function name argument", {}, {}};
    for (const engine::Frame& f : *all)
      if (f.function == rest || f.function.starts_with(std::string(rest) + "(")) {
        if (auto selected = context.debugger.select_frame(f.level); !selected)
          return selected;
        return show_selected(context);
      }
    return Diagnostic{"No frame for function \"" + std::string(rest) + "\".", {}, {}};
  }
  if (word == "level")
    args = rest;
  if (!args.empty()) {
    auto level = evaluate_integer(context, args);
    if (!level)
      return level.error();
    if (!select_level(context, *level, false))
      return Diagnostic{"No frame at level " + std::string(args) + ".", {}, {}};
  }
  return show_selected(context);
}

namespace {

Checked<void> move(Context& context, std::string_view args, int direction) {
  if (auto there = require_stack(context); !there)
    return there;
  int64_t count = 1;
  if (!args.empty()) {
    auto number = evaluate_integer(context, args);
    if (!number)
      return number.error();
    count = std::clamp<int64_t>(static_cast<int64_t>(*number), -int64_t{kMaxFrames}, kMaxFrames);
  }
  auto now = context.debugger.selected_frame();
  if (!now)
    return now.error();
  int64_t level = now->level + direction * count;
  if (level < 0) {
    if (args.empty())
      return Diagnostic{"Bottom (innermost) frame selected; you cannot go down.", {}, {}};
    level = 0;
  }
  if (auto selected = select_level(context, static_cast<uint64_t>(level), !args.empty()); !selected)
    return Diagnostic{"Initial frame selected; you cannot go up.", {}, {}};
  return show_selected(context);
}

Checked<engine::Frame> frame_with_function(Context& context) {
  if (!context.debugger.alive())
    return Diagnostic{"No frame selected.", {}, {}};
  auto frame = context.debugger.selected_frame();
  if (frame && frame->die == 0)
    return Diagnostic{"No symbol table info available.",
                      "The function was compiled without -g, or its debug file is not installed.",
                      {}};
  return frame;
}

} // namespace

Checked<void> up(Context& context, std::string_view args) { return move(context, args, 1); }
Checked<void> down(Context& context, std::string_view args) { return move(context, args, -1); }

Checked<void> info_args(Context& context, std::string_view) {
  auto frame = frame_with_function(context);
  if (!frame)
    return frame.error();
  std::string text = frame_argument_lines(context);
  context.out.write(text.empty() ? "No arguments.\n" : text);
  return {};
}

Checked<void> info_locals(Context& context, std::string_view) {
  auto frame = frame_with_function(context);
  if (!frame)
    return frame.error();
  std::string text = frame_locals(context);
  context.out.write(text.empty() ? "No locals.\n" : text);
  return {};
}

Checked<void> info_frame(Context& context, std::string_view) {
  if (auto there = require_stack(context); !there)
    return there;
  auto frame = context.debugger.selected_frame();
  if (!frame)
    return frame.error();
  uint32_t thread = context.debugger.selected_thread();
  auto caller = context.debugger.frame_of(thread, frame->level + 1);
  context.out.print("Stack level {}, frame at 0x{:x}:\n", frame->level, frame->id.cfa.value);
  context.out.print(" rip = 0x{:x}", frame->pc.value);
  if (!frame->function.empty())
    context.out.print(" in {}", frame->function);
  if (frame->source)
    context.out.print(" ({}:{})", frame->source.file->name, frame->source.line);
  if (caller)
    context.out.print("; saved rip = 0x{:x}", caller->pc.value);
  context.out.write("\n");
  if (!caller)
    context.out.write(" Outermost frame.\n");
  else if (frame->is_inlined)
    context.out.print(" inlined into frame {}\n", frame->level + 1);
  else
    context.out.print(" called by frame at 0x{:x}\n", caller->id.cfa.value);
  if (frame->level > 0)
    if (auto callee = context.debugger.frame_of(thread, frame->level - 1))
      context.out.print(" caller of frame at 0x{:x}\n", callee->id.cfa.value);
  if (frame->die != 0)
    context.out.print(" args: {}\n", frame_arguments(context));
  if (auto cfa = frame->id.cfa.value)
    context.out.print(" Previous frame's sp is 0x{:x}\n Saved registers:\n  rip at 0x{:x}\n", cfa,
                      cfa - 8);
  return {};
}

} // namespace ddbg::ui::cmd
