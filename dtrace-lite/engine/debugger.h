// The object that a front end drives: one program, its target when it runs, breakpoints, the
// selected thread and frame. Nothing here prints; what there is to tell is in StopReport and
// Diagnostic. One thread calls; every call that runs the target returns when it has stopped.
#pragma once

#include "dtrace-lite/engine/breakpoints.h"
#include "dtrace-lite/engine/environment.h"
#include "dtrace-lite/engine/signals.h"
#include "dtrace-lite/engine/stepper.h"
#include "dtrace-lite/engine/stop_report.h"
#include "dtrace-lite/expr/frame_context.h"
#include "dtrace-lite/symbols/source.h"

#include <functional>
#include <map>
#include <memory>

namespace ddbg::engine {

struct ValueStore; // context.h
using keeper::SignalState;

struct Settings {
  std::string args; // as typed, for the shell to split
  Environment environment = Environment::inherited();
  std::string cwd; // empty: ddbg's own
  bool disable_randomization = true;
  bool startup_with_shell = true;
  bool breakpoint_pending = false;       // `set breakpoint pending on`: do not fail, wait
  bool step_stops_without_lines = false; // `set step-mode on`
  bool past_main = false;                // `set backtrace past-main`
  std::string backend = "auto";          // by name, or chosen by measurement
  bool own_terminal_group = true;
  SignalState signals; // that the program starts with
  symbols::DebugFileOptions debug_files;
};

enum class RunMode { kRun, kStart, kStarti };

struct ContinueOptions {
  // What becomes of the signal that the target stopped with: by its `handle` row, or this.
  std::optional<int> signal; // 0: none
};

struct ThreadInfo {
  ThreadView view;
  CodeLocation location; // of frame 0
  bool selected = false;
};

struct SharedLibrary {
  std::string path;
  TargetRange text; // first executable segment, as `info sharedlibrary` shows it
  bool has_debug_info = false;
};

class Debugger {
public:
  Debugger();
  ~Debugger();
  Debugger(const Debugger&) = delete;
  Debugger& operator=(const Debugger&) = delete;

  // --- Program and settings ------------------------------------------------------------------
  // Resolves the name as a shell would (PATH), reads the file. Errors: not there, not an ELF we
  // run.
  Checked<void> set_program(const std::string& name);
  const std::string& program() const; // absolute; empty: none
  Settings& settings();
  // Polled while the target runs; true: stop it (Ctrl-C). Set once.
  void set_interrupt(std::function<bool()> interrupted);
  // Called with gdb's words for what happens while the target runs ("[New Thread ...]", a signal
  // that is printed but does not stop). Without it such lines are in StopReport::messages.
  void set_message_sink(std::function<void(const std::string&)> sink);

  // --- Life ----------------------------------------------------------------------------------
  bool alive() const;
  pid_t pid() const; // 0: no target
  bool attached() const;
  std::optional<int> exit_code() const; // $_exitcode of the last target that exited
  // A target that is there already is killed first (asking is the front end's matter).
  Checked<StopReport> run(RunMode mode);
  Checked<StopReport> attach(pid_t pid);
  Checked<std::vector<std::string>> detach(); // sentences about what could not be restored
  Checked<void> kill();

  // --- Running; errors: "The program is not being run." ------------------------------------------
  Checked<StopReport> resume(const ContinueOptions& options = {});
  Checked<StopReport> step(const StepRequest& request);
  // `until LOCATION`, `advance LOCATION`: to there, or to the return of the selected frame.
  enum class ReachedIn { kAnyFrame, kSelectedFrame };
  Checked<StopReport> advance(const std::string& location, ReachedIn where);
  // `jump`, `return` and `call` are later.

  // --- Breakpoints ---------------------------------------------------------------------------
  // Errors are the linespec's. When last_error_may_be_pending(), asking the user ("Make breakpoint
  // pending on future shared library load?") and calling again with allow_pending makes sense.
  Checked<unsigned> add_breakpoint(const AddBreakpoint& request);
  bool last_error_may_be_pending() const; // the location may come with a shared library
  Checked<unsigned> add_watchpoint(const AddWatchpoint& request);
  // `number`, or `number.location` with location != 0.
  Checked<void> delete_breakpoint(unsigned number);
  Checked<void> enable_breakpoint(unsigned number, unsigned location, bool on);
  Checked<void> set_disposition(unsigned number, Disposition disposition);    // enable once, delete
  Checked<void> set_condition(unsigned number, const std::string& condition); // empty: none
  Checked<void> set_ignore_count(unsigned number, uint64_t count);
  Checked<void> set_commands(unsigned number, std::vector<std::string> commands);
  const std::vector<std::unique_ptr<Breakpoint>>& breakpoints() const;
  const Breakpoint* breakpoint(unsigned number) const;
  Checked<BreakpointInfo> breakpoint_info(unsigned number) const;

  // --- Threads and frames; errors: "No thread selected", "No stack." ---------------------------
  std::vector<ThreadInfo> threads();
  uint32_t selected_thread() const; // 0: none
  Checked<void> select_thread(uint32_t number);
  Checked<Frame> selected_frame();
  Checked<void> select_frame(unsigned level);
  // At most `limit` frames of the selected thread from frame 0; `why_it_ended` may be null.
  Checked<std::vector<Frame>> backtrace(unsigned limit, std::string* why_it_ended);
  Checked<Frame> frame_of(uint32_t thread, unsigned level);
  Checked<dune::Registers> registers(uint32_t* known);         // of the selected frame
  Checked<void> write_register(dune::Reg reg, uint64_t value); // frame 0 only

  // --- Expressions ---------------------------------------------------------------------------
  // Over the selected thread and frame, or over the program's file when nothing runs. Valid until
  // the target runs on or the selection changes.
  expr::FrameContext& context();
  // $1, $2 ... and the convenience variables: they outlive the target. `print` adds to the history.
  ValueStore& values();

  // --- Memory and code -----------------------------------------------------------------------
  Checked<void> read_memory(TargetAddr at, std::span<uint8_t> to);
  Checked<void> write_memory(TargetAddr at, std::span<const uint8_t> from);
  CodeLocation locate(TargetAddr pc) const;
  Linespec resolve(const std::string& location);
  ModuleSpan modules() const;
  symbols::ModuleMap& module_map();
  std::vector<SharedLibrary> shared_libraries();
  symbols::SourceCache& sources();
  // What `list` and relative locations start from; `list` moves it.
  SourceLine default_line() const;
  void set_default_line(SourceLine line);

  // --- Signals -------------------------------------------------------------------------------
  const SignalTable& signals() const;
  void set_signal(int signal, SignalHandling handling);

  // The layer below, for what has no word here (capabilities, memory map); null: no target.
  Inferior* inferior();

private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

} // namespace ddbg::engine
