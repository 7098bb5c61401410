// A debugger as they have been since ptrace came to Linux: every event wakes the tracer, which
// reads the registers, and a breakpoint is passed by putting the byte back, stepping and inserting
// it again. It is what ddbg's own way is measured against, and as good as one that does no more
// than that: no symbols, no user, one ptrace request for each thing that has to be done.
//
// Besides keeper/, the only caller of ptrace. One thread calls: ptrace belongs to it.
#pragma once

#include "dtrace-lite/symbols/diagnostic.h"
#include "libdune/base/types.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace ddbg::baseline {

using dune::TargetAddr;

struct Program {
  std::string path;
  std::vector<std::string> arguments; // argv[0] included
  std::vector<std::string> environment;
  int cpu = -1;          // run there only; -1: anywhere
  bool discards = false; // standard input and output are /dev/null
};

class Tracer {
public:
  // Started without address randomisation, stopped at the first instruction after the exec.
  static Checked<std::unique_ptr<Tracer>> launch(const Program&);
  ~Tracer(); // kills it
  Tracer(const Tracer&) = delete;
  Tracer& operator=(const Tracer&) = delete;

  // One at a time. `byte`: what has to be there, so that a wrong address is noticed.
  Checked<void> set_breakpoint(TargetAddr, uint8_t byte);
  Checked<void> remove_breakpoint();
  // Debug register 0: writes to `size` bytes (1, 2, 4, 8), of every thread.
  Checked<void> set_watch(TargetAddr, unsigned size);

  // Lets the program run until the breakpoint or the watchpoint is hit and reads the thread's
  // registers. False: it has ended. The breakpoint is passed first if the thread stands at it.
  // Other threads are not stopped meanwhile, so one of them can slip through: real debuggers pay
  // for that as well.
  Checked<bool> run_to_hit();
  // The same without a breakpoint to pass: the program executes an int3 of its own.
  Checked<bool> run_to_own_trap(bool read_registers);
  // Up to the thread's next system call, and behind it. False: it has ended.
  Checked<bool> run_past_call();
  // One instruction of the thread that stopped last. False: it has ended.
  Checked<bool> step();

  // At the last stop whose registers were read.
  uint64_t pc() const;
  uint64_t result_register() const; // rax
  pid_t pid() const { return pid_; }

private:
  explicit Tracer(pid_t pid);
  enum class Stop { kTrap, kExited };
  Checked<Stop> wait_for_trap();
  Checked<bool> pass_breakpoint();
  Checked<void> read_registers();
  Checked<bool> is_hit();
  bool arm_watch(pid_t);
  void adopt_thread(pid_t);

  pid_t pid_;
  pid_t thread_; // that stopped last
  bool exited_ = false;
  TargetAddr breakpoint_{0};
  long original_ = 0; // the word at the breakpoint
  bool at_breakpoint_ = false;
  TargetAddr watch_{0};
  unsigned watch_size_ = 0;
  struct Registers;
  std::unique_ptr<Registers> registers_;
};

} // namespace ddbg::baseline
