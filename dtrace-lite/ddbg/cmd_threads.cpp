// thread, thread apply, info threads.
#include "dtrace-lite/ddbg/commands.h"
#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/frame_print.h"
#include "dtrace-lite/ddbg/run_control.h"
#include "dtrace-lite/ddbg/text.h"

#include <algorithm>

namespace ddbg::ui::cmd {

namespace {

// "Thread 0x7ffff7dcf6c0 (LWP 12469) "thr""
std::string target_id(const engine::ThreadView& thread) {
  return thread_description(thread) + (thread.name.empty() ? "" : " \"" + thread.name + "\"");
}

Checked<void> show_thread(Context& context) {
  auto frame = context.debugger.selected_frame();
  if (!frame)
    return frame.error();
  print_frame(context, *frame, FrameStyle::kLevel);
  return {};
}

// Numbers as `thread apply` and `info threads` take them: "1 3-5", "all", "$_thread" is expr's.
Checked<std::vector<uint32_t>> parse_ids(Context& context, std::string_view text) {
  auto numbers = parse_number_list(text, "thread ID");
  if (!numbers)
    return Diagnostic{
        "Invalid thread ID: " + std::string(text), "Give numbers of \"info threads\".", {}};
  std::vector<uint32_t> ids;
  auto threads = context.debugger.threads();
  for (int n : *numbers) {
    bool known = std::any_of(threads.begin(), threads.end(), [&](const engine::ThreadInfo& t) {
      return t.view.number == static_cast<uint32_t>(n);
    });
    if (known)
      ids.push_back(static_cast<uint32_t>(n));
    else
      context.warning("Unknown thread 1." + std::to_string(n));
  }
  return ids;
}

} // namespace

Checked<void> thread(Context& context, std::string_view args) {
  if (args.empty()) {
    if (!context.debugger.alive() || context.debugger.selected_thread() == 0)
      return Diagnostic{"No thread selected", {}, {}};
    for (const engine::ThreadInfo& t : context.debugger.threads())
      if (t.selected)
        context.out.print("[Current thread is {} ({})]\n", t.view.number,
                          thread_description(t.view));
    return {};
  }
  auto number = parse_integer(args);
  if (!number || *number <= 0 || *number > INT32_MAX)
    return Diagnostic{
        "Invalid thread ID: " + std::string(args), "Give a number of \"info threads\".", {}};
  auto threads = context.debugger.threads();
  auto it = std::find_if(threads.begin(), threads.end(), [&](const engine::ThreadInfo& t) {
    return t.view.number == static_cast<uint32_t>(*number);
  });
  if (it == threads.end())
    return Diagnostic{"Unknown thread " + std::string(args) + ".", {}, {}};
  if (auto selected = context.debugger.select_thread(it->view.number); !selected)
    return selected;
  context.out.print("[Switching to thread {} ({})]\n", it->view.number,
                    thread_description(it->view));
  return show_thread(context);
}

Checked<void> thread_apply(Context& context, std::string_view args) {
  if (args.empty())
    return Diagnostic{"Please specify a thread ID list", {}, {}};
  // The list ends where a command begins: at the first letter, after "all" if that is the list.
  std::string_view list, command;
  std::vector<uint32_t> ids;
  if (starts_with_word(args, "all")) {
    command = split_first(args).second;
    for (const engine::ThreadInfo& t : context.debugger.threads())
      ids.push_back(t.view.number);
    std::sort(ids.rbegin(), ids.rend());
    if (starts_with_word(command, "-ascending")) {
      command = split_first(command).second;
      std::sort(ids.begin(), ids.end());
    }
  } else {
    size_t end = std::min(args.find_first_not_of("0123456789-, \t"), args.size());
    list = trim(args.substr(0, end));
    command = args.substr(end);
    if (list.empty())
      return Diagnostic{"Invalid thread ID: " + std::string(args), {}, {}};
    auto parsed = parse_ids(context, list);
    if (!parsed)
      return parsed.error();
    ids = std::move(*parsed);
  }
  bool quiet = false, go_on = false; // -q: no header, -c: errors are printed and passed, -s: silent
  bool skip_errors = false;
  while (command.starts_with('-')) {
    auto [option, rest] = split_first(command);
    if (option == "-q")
      quiet = true;
    else if (option == "-c")
      go_on = true;
    else if (option == "-s")
      skip_errors = true;
    else
      return Diagnostic{"Unrecognized option at: " + std::string(command), {}, {}};
    command = rest;
  }
  if (trim(command).empty())
    return Diagnostic{starts_with_word(args, "all")
                          ? "Please specify a command at the end of 'thread apply all'"
                          : "Please specify a command following the thread ID list",
                      {},
                      {}};
  std::string line(command);
  KeepSelection keep(context);
  for (uint32_t id : ids) {
    if (!context.debugger.alive() || !context.debugger.select_thread(id))
      continue; // an earlier round's command ended it
    if (!quiet)
      for (const engine::ThreadInfo& t : context.debugger.threads())
        if (t.view.number == id)
          context.out.print("\nThread {} ({}):\n", id,
                            thread_description(t.view) +
                                (t.view.name.empty() ? "" : " \"" + t.view.name + "\""));
    auto done = context.interpreter.execute(line);
    if (!done) {
      if (!skip_errors && !go_on)
        return done;
      if (go_on)
        context.report_error(done.error());
    }
  }
  return {};
}

Checked<void> thread_find(Context& context, std::string_view args) {
  bool found = false;
  for (const engine::ThreadInfo& t : context.debugger.threads())
    if (!args.empty() && target_id(t.view).find(args) != std::string::npos) {
      context.out.print("Thread {} has target id '{}'\n", t.view.number, target_id(t.view));
      found = true;
    }
  if (!found)
    context.out.print("No threads match '{}'\n", args);
  return {};
}

Checked<void> info_threads(Context& context, std::string_view args) {
  auto threads = context.debugger.threads();
  if (!context.debugger.alive() || threads.empty()) {
    context.out.write("No threads.\n");
    return {};
  }
  if (!args.empty()) {
    auto ids = parse_ids(context, args);
    if (!ids)
      return ids.error();
    std::erase_if(threads, [&](const engine::ThreadInfo& t) {
      return std::find(ids->begin(), ids->end(), t.view.number) == ids->end();
    });
    if (threads.empty()) {
      context.out.print("No threads match '{}'.\n", args);
      return {};
    }
  }
  size_t width = 9;
  for (const engine::ThreadInfo& t : threads)
    width = std::max(width, target_id(t.view).size());
  context.out.print("  Id   {:<{}} Frame \n", "Target Id", width);
  KeepSelection keep(context);
  for (const engine::ThreadInfo& t : threads) {
    std::string line;
    if (!t.selected) {
      if (context.debugger.select_thread(t.view.number))
        if (auto frame = context.debugger.selected_frame())
          line = frame_line(context, *frame, FrameStyle::kNoLevel);
    } else if (auto frame = context.debugger.frame_of(t.view.number, 0)) {
      // The selection may stand at an outer frame; the table shows the innermost.
      if (context.debugger.select_thread(t.view.number))
        line = frame_line(context, *frame, FrameStyle::kNoLevel);
    }
    context.out.print("{} {:<4} {:<{}} {}", t.selected ? '*' : ' ', t.view.number,
                      target_id(t.view), width, line.empty() ? "(running)\n" : line);
  }
  return {};
}

} // namespace ddbg::ui::cmd
