// The frames of a stopped thread, as gdb counts them: inlined calls are frames of their own, frame
// 0 is the innermost. Registers come from the session, callers from CFI; a thread that is blocked
// in the kernel shows few registers, and unwinds as far as those allow.
#pragma once

#include "dtrace-lite/engine/inferior.h"
#include "dtrace-lite/engine/location.h"
#include "dtrace-lite/symbols/unwind_cfi.h"

#include <unordered_map>

namespace ddbg::engine {

// Names a frame as long as its function has not returned: gdb's frame_id.
struct FrameId {
  TargetAddr cfa;            // canonical frame address of the physical frame
  TargetAddr function;       // entry of the function; for an inlined one, of the inlined body
  unsigned inline_depth = 0; // inlined bodies around this one in the same physical frame
  bool operator==(const FrameId&) const = default;
};

struct Frame {
  unsigned level = 0;
  TargetAddr pc;        // of an inlined frame's caller: the same pc
  TargetAddr lookup_pc; // pc, or the call before it
  symbols::KnownRegisters registers;
  FrameId id;
  bool is_inlined = false;            // `function` was inlined into the next frame
  bool is_signal_trampoline = false;  // "<signal handler called>"
  unsigned inline_index = 0;          // inlined bodies inside this one at the same pc
  bool is_innermost_physical = false; // the registers are the thread's own
  bool pc_is_exact = true;            // innermost, or interrupted by a signal
  std::string function;               // empty: unknown ("??")
  TargetAddr function_entry;          // 0: unknown
  uint64_t die = 0;                   // of the function or the inlined call, for variables; 0: none
  SourceLine source;                  // for a caller: the line of the call
  std::string module;                 // path; shown as "from ..." where there is no source
  // gdb prints "0x... in" before the function: the pc is not the first of its line.
  bool show_address = true;
};

// Names for program counters, remembered: recursion and repeated backtraces ask the same again.
class FrameNames {
public:
  explicit FrameNames(const symbols::ModuleMap& modules) : modules_(modules) {}

  struct Name {
    std::string module; // empty: in none
    std::string function;
    TargetAddr function_entry;
    uint64_t die = 0;
    SourceLine source;
    // First address of the line's range that holds the pc. 0: a stop there is in the middle of a
    // line, to gdb too, because the compiler recommends no breakpoint (is_stmt).
    TargetAddr line_begin;
    struct Inlined {
      std::string function;
      uint64_t die = 0;
      SourceLine call;
      TargetAddr entry;
      std::vector<TargetRange> ranges;
    };
    std::vector<Inlined> inlined; // innermost first
  };
  const Name& at(TargetAddr lookup_pc);

private:
  const symbols::ModuleMap& modules_;
  uint64_t generation_ = 0;
  std::unordered_map<uint64_t, Name> names_;
};

// The registers of a thread as far as they are known.
symbols::KnownRegisters known_registers(const ThreadView& thread);

// One thread's stack, unwound as far as somebody asked.
class Stack {
public:
  Stack(FrameNames& names, symbols::Unwinder& unwinder, const symbols::KnownRegisters& innermost,
        bool past_main);

  // nullptr: there is none (see why_it_ended()). Valid until the next call.
  const Frame* frame(unsigned level);
  // At most `limit` frames.
  std::vector<const Frame*> frames(unsigned limit);
  // A physical frame (0 is the innermost) with its cfa; nullptr: there is none.
  const symbols::UnwindFrame* physical(unsigned index);
  // A physical frame, whatever is inlined there; none: all zero.
  FrameId physical_id(unsigned index = 0);
  // Where a frame that was physical_id() is now; nullopt: it has been left.
  std::optional<unsigned> find_physical(const FrameId& id);
  const FrameNames::Name& innermost_name();

  // "Backtrace stopped: ..." when the last frame known is not the outermost one; else empty.
  std::string why_it_ended() const;

  // How many of the innermost inlined bodies, entered at their first instruction, are hidden: the
  // thread stands at the call, as far as a person is concerned (`step` then enters one).
  void hide_inlined(unsigned count);
  unsigned hidden_inlined() const { return hidden_; }
  // How many could be hidden: the pc is the first of so many inlined bodies.
  unsigned enterable_inlined();

private:
  bool extend();
  void name_next();

  FrameNames& names_;
  symbols::Unwinder& unwinder_;
  bool past_main_;
  std::vector<symbols::UnwindFrame> physical_; // all but the last have been unwound
  std::vector<Frame> frames_;
  size_t named_ = 0; // physical frames already turned into frames_
  symbols::UnwindEnd end_ = symbols::UnwindEnd::kNone;
  bool complete_ = false;     // no physical frame above the last
  bool reached_main_ = false; // frames_ ends there
  unsigned hidden_ = 0;
};

} // namespace ddbg::engine
