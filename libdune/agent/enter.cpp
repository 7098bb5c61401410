// How a thread comes under the agent: brought by the keeper at birth or attach.
#include "libdune/agent/agent.h"

namespace dune::agent {

using namespace session;

extern "C" {
__attribute__((section(".config"), used)) AgentConfig agent_config = {};

extern const char agent_text_size[], agent_image_size[], agent_total_size[];
}

// Reads what the program has set up so far (at birth: what it inherited), then takes the handlers.
// The kick at the end stops the thread where the keeper waits for it; should the keeper be gone, it
// is a signal like any other, and nobody has this slot.
extern "C" void agent_take_process() {
  current()->passthrough = 1;
  for (int signal = 1; signal <= kSignalCount; ++signal)
    syscall_of(__NR_rt_sigaction, signal, 0, reinterpret_cast<uint64_t>(&process.actions[signal]),
               8);
  refresh_policy();
  KernelSiginfo kick{};
  kick.signal = kKickSignal;
  kick.code = kSiQueue;
  kick.rt.value = kKickValue;
  send_to_self(kick);
}

// rsp points at the KernelSigframe that the keeper built on this block's stack; returning goes to
// agent_restorer. The keeper has filled in block.slot, block.blocked and block.altstack, the slot's
// tid, the kernel's alternate stack, and has set the kernel's mask to block everything.
extern "C" void agent_on_enter(KernelUcontext* uc) {
  ThreadBlock* t = current();
  set_kernel_mask(agent_mask());
  const uint64_t rip = uc->mcontext.rip;
  park(t, uc, StopReason::kRequested);
  t->stop_rip = rip; // shown to the user, like a stop of its own
  if (cannot_serve())
    return give_back(t, uc);
  go_on_after_stop(t, uc, 0);
}

// The front end, or the keeper before one had come, died without the sites by which the agent
// learns of the program's masks.
bool cannot_serve() { return header().abandoned.load() && !header().serving.load(); }

// The thread goes on without us: the kernel gets back what is the program's, and a signal that the
// program has not had yet. (The handlers stay ours; to them it is a thread without a slot from now
// on.)
void give_back(ThreadBlock* t, KernelUcontext* uc, const KernelSiginfo* undelivered) {
  set_kernel_mask(~SignalSet{0});
  remove_sites(t); // those that had come already
  for (int i = 0; i < 5; ++i)
    if (t->pending & signal_bit(kOwnedSignals[i]))
      send_to_self(t->pending_info[i]);
  if (undelivered)
    send_to_self(*undelivered);
  uc->sigmask = program_mask(t, uc->sigmask);
  uc->stack = t->altstack;
}

} // namespace dune::agent
