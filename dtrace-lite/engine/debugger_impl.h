// The debugger's state and its parts, shared by debugger*.cpp. Internal to engine/.
#pragma once

#include "dtrace-lite/engine/breakpoint_table.h"
#include "dtrace-lite/engine/debugger.h"

namespace ddbg::engine {

inline Diagnostic not_running() { return {"The program is not being run.", {}, {}}; }
inline Diagnostic no_thread() { return {"No thread selected.", {}, {}}; }
inline Diagnostic no_stack() { return {"No stack.", {}, {}}; }

struct Debugger::Impl {
  Impl();

  Settings settings;
  std::string program;
  std::function<bool()> interrupted;
  std::function<void(const std::string&)> sink;
  std::optional<int> exit_code;

  std::unique_ptr<keeper::Client> keeper;
  std::unique_ptr<Inferior> inferior;
  Modules modules;
  FrameNames names{modules.map()};
  symbols::Unwinder unwinder;
  Escapes escapes{modules.map()};
  VariableTables tables;
  ValueStore values;
  symbols::SourceCache sources;
  SignalTable signals = default_signal_table();
  SourceLine default_line;
  BreakpointTable breakpoints;

  // Selection. What is cached below is of the present stop.
  uint32_t thread = 0;
  unsigned level = 0;
  std::map<uint32_t, unsigned> hidden_inlined; // by thread number, see Stack::hide_inlined
  uint32_t signal_thread = 0;                  // stopped with `pending_signal`, not yet delivered
  int pending_signal = 0;
  std::map<uint32_t, std::unique_ptr<Stack>> stacks;
  std::unique_ptr<TargetContext> context;
  // Pages read while unwinding at this stop.
  std::unordered_map<uint64_t, std::vector<std::byte>> pages;

  // --- debugger.cpp
  bool read_cached(TargetAddr from, std::span<std::byte> to);
  void forget_stop(); // the target runs on, or its memory or registers changed
  void selection_changed() { context.reset(); }
  Stack* stack_of(uint32_t number);
  std::optional<Frame> frame_of(uint32_t number, unsigned wanted);
  expr::FrameContext& selected_context();
  SourceLine default_or_main_line() const;
  LinespecContext linespec_context();

  // --- debugger_life.cpp
  Checked<void> start_keeper();
  Checked<void> adopt(std::unique_ptr<Inferior> born, const std::string& program_path,
                      StopReport& report);
  keeper::LaunchOptions launch_options() const;
  void target_gone();

  // --- debugger_run.cpp
  Checked<StopReport> run_until_stop(ResumePlan first, std::unique_ptr<Stepper> stepper);
  // True: the stop is the user's, and `report` is filled in.
  Checked<bool> handle(const Event& event, Stepper* stepper, StopReport& report);
  Checked<bool> handle_stopped(const Event& event, Stepper* stepper, StopReport& report);
  bool handle_records(const Event& event, StopReport& report);
  WatchChange take_change(Breakpoint&, const dune::session::WatchedValue&);
  void handle_linker(StopReport& report);
  bool handle_scope(Breakpoint& watch, StopReport& report);
  Checked<void> handle_exec(const Event& event, StopReport& report);
  void finish_report(StopReport& report, uint32_t stopped, Stepper* stepper);
  void say(StopReport& report, std::string message);
  void tell(StopReport& report, const NoticeView& notice);
  void tell_suspension(StopReport& report);
  void tell_confinement(StopReport& report); // after a death by SIGSYS
  std::optional<ReturnedValue> returned_value(TargetAddr finished_pc);
};

} // namespace ddbg::engine
