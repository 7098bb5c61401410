// The user's breakpoints and watchpoints as a table: resolved when made and whenever modules come
// or go, set in the target while there is one. Internal to engine/: front ends use debugger.h.
#pragma once

#include "dtrace-lite/engine/breakpoints.h"
#include "dtrace-lite/engine/context.h"
#include "dtrace-lite/expr/compile.h"

#include <functional>

namespace ddbg::engine {

// What the table works on; the debugger owns it.
struct BreakpointEnvironment {
  Modules* modules = nullptr;
  VariableTables* tables = nullptr;
  ValueStore* values = nullptr;
  Inferior* inferior = nullptr; // null: no target
  std::function<LinespecContext()> linespec_context;
  // The selected thread and frame, for watched expressions.
  std::function<expr::FrameContext&()> selected_context;
  std::function<std::optional<Frame>(unsigned above_selected)> frame;
  std::function<pid_t(unsigned thread)> tid_of; // 0: no such thread
};

class BreakpointTable {
public:
  explicit BreakpointTable(BreakpointEnvironment environment) : env_(std::move(environment)) {}

  void set_inferior(Inferior* inferior) { env_.inferior = inferior; }

  Checked<unsigned> add(const AddBreakpoint& request);
  Checked<unsigned> add_watch(const AddWatchpoint& request);
  bool may_be_pending() const { return may_be_pending_; }
  Checked<void> remove(unsigned number);
  Checked<void> enable(unsigned number, unsigned location, bool on);
  Checked<void> set_condition(unsigned number, const std::string& condition);
  void set_ignore_count(Breakpoint&, uint64_t count);
  Breakpoint* find(unsigned number) const;
  const std::vector<std::unique_ptr<Breakpoint>>& all() const { return all_; }
  BreakpointInfo info(const Breakpoint&) const;

  // After birth, and after modules came or went: resolves everything again and sets what is new.
  // Sentences about what could not be set.
  std::vector<std::string> reset();
  // The target is gone, or has become another by exec: its records are void. After an exec their
  // last counts are known only from the event.
  void target_gone(bool keep_local_watches);
  void target_execed(const std::map<RecordId, RecordCounts>& last_counts);
  void clear_counts(); // `run` starts counting anew

  struct Hit {
    Breakpoint* breakpoint;
    BreakpointLocation* location;
  };
  std::optional<Hit> find_record(RecordId id);
  Breakpoint* find_scope_record(RecordId id);

  // A hit whose record fired. True: the user is to see it. What the agent could not decide
  // (conditions in ddbg, ignore counts over several places) is decided and counted here.
  // `context`: of the thread that hit.
  bool accept(Hit hit, const std::function<expr::Context&()>& context);
  // A record that fired with another of the same watchpoint's: one access is one hit.
  void count_no_hit(Hit hit);
  // After accept(): once, temporary. True: it is deleted.
  bool dispose(Breakpoint&);

  // A value of the watched type as gdb prints it.
  std::string format_watched(const Breakpoint&, uint64_t raw);

private:
  Linespec resolve(const Breakpoint&);
  void place(Breakpoint&, const std::vector<ResolvedPlace>&);
  Checked<void> compile_condition(const Breakpoint&, BreakpointLocation&,
                                  std::vector<uint8_t>* code);
  std::optional<expr::CfaRule> cfa_rule(TargetAddr pc);
  Checked<void> install(Breakpoint&);
  Checked<void> install_location(Breakpoint&, BreakpointLocation&);
  Checked<void> install_watch(Breakpoint&);
  void uninstall(Breakpoint&);
  void take_over_counts(Breakpoint&, BreakpointLocation&);
  void uninstall_location(Breakpoint&, BreakpointLocation&);
  Checked<void> evaluate_watch(Breakpoint&, expr::FrameContext& context, bool* is_local);
  BreakpointCounts counts(const BreakpointLocation&) const;
  RecordCounts live_counts(RecordId id) const;
  bool agent_ignores(const Breakpoint&) const;

  BreakpointEnvironment env_;
  std::vector<std::unique_ptr<Breakpoint>> all_;
  unsigned next_number_ = 1;
  std::map<RecordId, RecordCounts> last_counts_; // during target_execed()
  bool may_be_pending_ = false;
  std::map<unsigned, symbols::TypeRef> watch_types_;
};

} // namespace ddbg::engine
