// Where a thread is sent to make a system call for us. Every way back from there is sound: while
// the keeper lives it fetches the thread and puts its registers back itself; when the keeper is
// killed meanwhile, the kernel lets the thread go on, and it restores its mask and registers with
// the code that follows the call.
#pragma once

#include "dtrace-lite/keeper/proc.h"

#include <sys/user.h>

namespace ddbg::keeper {

class Detour {
public:
  // Writes the code behind the end of the vDSO's image, where nothing else is; the threads that use
  // it must be stopped until it is destroyed. Errors: no vDSO, or no room in it.
  static dune::Result<Detour> build(pid_t);
  Detour(Detour&&) = default;
  ~Detour();

  // Before a thread is sent: what it gets back, as a dune::agent::Away. Errors: the process is
  // gone.
  dune::Status save(const user_regs_struct&, uint64_t signal_mask, TargetAddr at);

  TargetAddr system_call() const { return at_; } // a `syscall`, then on to way_back()
  TargetAddr way_back() const;                   // entered with rsp = an Away
  TargetAddr mask_restored() const;              // on the way back, behind its system call
  TargetAddr saved() const;                      // room for one

private:
  Detour(Memory memory, TargetAddr at, std::vector<uint8_t> before)
      : memory_(std::move(memory)), at_(at), before_(std::move(before)) {}
  Memory memory_;
  TargetAddr at_;
  std::vector<uint8_t> before_; // empty: moved from
};

// As the kernel resumes a thread that it stopped inside a system call which it makes again.
user_regs_struct as_restarted(user_regs_struct);

} // namespace ddbg::keeper
