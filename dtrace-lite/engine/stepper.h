// step, next, finish and their kin: decides after each halt of the stepping thread whether the
// command is done, and if not, how to go on. The rules are gdb's (stop where a new line begins,
// step into functions with line information past their prologue, over the others); the single steps
// themselves are the agent's.
#pragma once

#include "dtrace-lite/engine/escapes.h"
#include "dtrace-lite/engine/frames.h"
#include "dtrace-lite/engine/modules.h"

#include <memory>
#include <string>

namespace ddbg::engine {

enum class StepKind {
  kStep,    // into functions with line information
  kNext,    // over calls
  kStepi,   // `count` instructions
  kNexti,   // the same, over calls
  kFinish,  // until `frame` returns
  kUntil,   // as next, but not back to where the function has been (without a location)
  kAdvance, // run to `places`, or until the frame returns; `until LOCATION` too
};

struct StepRequest {
  StepKind kind = StepKind::kStep;
  uint64_t count = 1;
  unsigned frame = 0;               // kFinish, kAdvance: the frame whose return ends it
  std::vector<TargetAddr> places{}; // kAdvance
  bool only_in_frame = false;       // kAdvance: `until`, which passes the places in other frames
};

// What a stepper works on; all outlive it.
struct StepEnvironment {
  Inferior& inferior;
  Modules& modules;
  FrameNames& names;
  symbols::Unwinder& unwinder;
  Escapes& escapes;
  bool stop_without_lines = false; // `set step-mode on`
};

class Stepper {
public:
  // `hidden_inlined`: inlined bodies that the thread stands before (Stack::hide_inlined).
  // Errors: no frame to finish, no bounds of the current function.
  static Checked<std::unique_ptr<Stepper>> begin(StepEnvironment environment, uint32_t thread,
                                                 const StepRequest& request,
                                                 unsigned hidden_inlined);
  ~Stepper();
  Stepper(const Stepper&) = delete;
  Stepper& operator=(const Stepper&) = delete;

  uint32_t thread() const { return thread_; }
  StepKind kind() const { return request_.kind; }
  // True: nothing (more) has to run.
  bool done() const { return done_; }
  const ResumePlan& plan() const { return plan_; }
  // The thread has halted, and not for the user: decides again. An error ends the command.
  Checked<void> halted();
  // An exec took its records along with the program.
  void forget_records();

  // --- Once done -------------------------------------------------------------------------------
  // The thread stands before so many inlined bodies.
  unsigned hidden_inlined() const { return hidden_; }
  // It is still in the function instance where the step began.
  bool same_function();
  // kFinish: the function that returned, by a pc inside it.
  TargetAddr finished_pc() const { return finished_pc_; }
  // kFinish: the frame returned (and was not left by an inlined body's end, nor by an exception).
  bool has_return_value() const { return has_return_value_; }
  // What there is to say at the beginning ("Single stepping until exit from function ...").
  const std::string& message() const { return message_; }

private:
  // A place that the thread runs to at full speed.
  struct Wait {
    RecordId record;
    TargetAddr address;
    uint64_t min_sp;
    bool ends_step;
    std::optional<FrameId> frame{}; // passed in others
  };
  struct Escape {
    RecordId record;
    EscapeSite site;
  };
  struct Landing {
    RecordId record;
    TargetAddr address;
  };
  struct Origin {
    FrameId frame; // as a person sees it
    FrameId physical;
    SourceLine line;
    TargetRange range;
  };

  Stepper(StepEnvironment environment, uint32_t thread, const StepRequest& request,
          unsigned hidden_inlined);

  Checked<void> prepare();
  Checked<void> prepare_instruction();
  Checked<void> prepare_line();
  Checked<void> prepare_finish();
  Checked<void> prepare_advance();
  Checked<void> decide();
  Checked<void> decide_instructions();
  Checked<void> decide_inlined_finish();
  Checked<void> decide_line(Stack& stack);
  // nullopt: this rule does not apply; else it has decided.
  std::optional<Checked<void>> decide_subroutine(Stack& stack);
  std::optional<Checked<void>> decide_inlined(Stack& stack);
  Checked<void> enter_function(TargetAddr entry, TargetAddr back, uint64_t back_sp);
  Checked<void> one_done(unsigned bodies_entered = 0);

  // nullopt: the thread is not on its way out of functions.
  std::optional<Checked<void>> halted_at_escape();
  Checked<void> landed();
  // A jump or an exception that lands in this frame, or beyond it, ends the step.
  const FrameId& home() const;
  Checked<std::vector<RecordId>> add_with_escapes(std::vector<std::pair<TargetAddr, RecordSpec>>);
  RecordSpec own_record() const;
  void drop_landing();

  bool is_in_call();
  Checked<void> go_range(TargetRange range);
  Checked<void> go_steps(uint64_t count);
  Checked<void> go_next_instruction();
  Checked<void> wait_at(TargetAddr address, uint64_t min_sp, bool ends_step);
  void run();
  Checked<void> set_return_records(TargetRange range);
  void drop_waits();
  void drop_return_records();

  bool over_calls() const;
  Stack make_stack();
  // The physical frame that a frame of the request is part of.
  static unsigned physical_index(Stack& stack, unsigned level);
  const ThreadView& view();
  TargetAddr pc();
  uint64_t sp();
  std::optional<symbols::LineSpan> line_at(TargetAddr a, TargetRange* range);
  std::optional<TargetAddr> plt_target(TargetAddr a);

  StepEnvironment env_;
  uint32_t thread_;
  pid_t tid_;
  StepRequest request_;
  uint64_t left_;
  unsigned hidden_;
  bool done_ = false;
  bool has_return_value_ = false;
  Origin origin_;
  TargetAddr start_function_;
  TargetAddr finished_pc_;
  std::vector<TargetRange> finish_ranges_; // of the inlined body that is being finished
  std::string message_;
  ResumePlan plan_;
  std::vector<Wait> waits_;
  TargetRange return_range_;
  std::vector<RecordId> return_records_;
  FrameId home_; // kFinish: the caller; kAdvance: the selected frame; else none
  std::vector<Escape> escapes_;
  std::optional<uint64_t> escapes_of_; // generation of the modules that they are of
  std::optional<Landing> landing_;
};

} // namespace ddbg::engine
