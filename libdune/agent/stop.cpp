// Stops: claiming one, parking, going on; thread slots; notices. docs/stop-protocol.md has the
// state machine with the front end's half.
#include "libdune/agent/guest_loop.h"

#include <linux/futex.h>

namespace dune::agent {

using namespace session;

namespace {

struct Timespec {
  int64_t seconds, nanoseconds;
};

void futex_wait(std::atomic<uint32_t>& word, uint32_t value) {
  Timespec second{1, 0};
  syscall_of(__NR_futex, reinterpret_cast<uint64_t>(&word), FUTEX_WAIT, value,
             reinterpret_cast<uint64_t>(&second));
}

// Front end and keeper both died: nobody will ever resume a thread again. The sites stay (the
// agent goes on serving them), but nothing stops any more.
void check_abandoned() {
  if (!is_alive(header().frontend.load()) && !is_alive(header().keeper.load()))
    header().abandoned.store(1);
}

} // namespace

void post_event() {
  header().event_seq.fetch_add(1);
  if (header().frontend_waits.load())
    syscall_of(__NR_futex, reinterpret_cast<uint64_t>(&header().event_seq), FUTEX_WAKE, 0x7fffffff);
}

bool claim_stop(ThreadBlock* t) {
  Header& h = header();
  if (stop_wanted(t))
    return false;
  uint32_t nobody = 0;
  if (!h.stop_owner.compare_exchange_strong(nobody, t->slot + 1))
    return false;
  h.stop_request.store(1);
  return true;
}

bool park(ThreadBlock* t, KernelUcontext* uc, StopReason reason) {
  Header& h = header();
  ThreadSlot& slot = slot_of(t);
  const bool owner = reason != StopReason::kRequested;
  if (h.abandoned.load()) {
    if (owner) {
      h.stop_request.store(0);
      h.stop_owner.store(0);
    }
    t->action = Action::kRun;
    t->stepping_over_call = 0;
    return true;
  }

  registers_from(slot.regs, uc->mcontext);
  t->stop_rip = owner ? uc->mcontext.rip : 0;
  if (in_guest(t)) {
    slot.regs.fs_base = guest_slot(t).cpu.regs.fs_base;
    slot.regs.gs_base = guest_slot(t).cpu.regs.gs_base;
    fetch_vectors(t);
  } else if (agent_config.has_fsgsbase) {
    asm volatile("rdfsbase %0" : "=r"(slot.regs.fs_base));
    asm volatile("rdgsbase %0" : "=r"(slot.regs.gs_base));
  } else {
    constexpr int kArchGetFs = 0x1003, kArchGetGs = 0x1004;
    syscall_of(__NR_arch_prctl, kArchGetFs, reinterpret_cast<uint64_t>(&slot.regs.fs_base));
    syscall_of(__NR_arch_prctl, kArchGetGs, reinterpret_cast<uint64_t>(&slot.regs.gs_base));
  }
  slot.fpstate = uc->mcontext.fpstate;
  slot.fpstate_size = agent_config.xstate_size;
  slot.reason = reason;
  slot.steps_taken = t->steps_taken;
  if (reason != StopReason::kSignal)
    slot.signal = 0;
  if (owner)
    slot.action = Action::kRun;
  slot.exempt.store(0);

  const uint32_t seen = slot.resume.load();
  slot.state.store(static_cast<uint32_t>(ThreadState::kParked));
  post_event();

  // A thread that parks for somebody else's stop may be late: the front end resumes those it sees
  // parked after clearing stop_request, so whoever sees it cleared after parking may go.
  uint32_t spins = 0;
  for (;;) {
    if (slot.resume.load() != seen)
      break;
    if (!owner && !h.stop_request.load()) {
      // The next stop may come meanwhile: either it sees that this thread runs, or we see it.
      slot.state.store(static_cast<uint32_t>(ThreadState::kRunning));
      if (!h.stop_request.load() || slot.resume.load() != seen)
        break;
      slot.state.store(static_cast<uint32_t>(ThreadState::kParked));
      post_event();
      continue;
    }
    if (h.abandoned.load())
      break;
    if (spins < h.spin_limit.load(std::memory_order_relaxed)) {
      ++spins;
      __builtin_ia32_pause();
      continue;
    }
    slot.asleep.store(1);
    if (owner || h.stop_request.load()) // cleared before `asleep` is looked at
      futex_wait(slot.resume, seen);
    slot.asleep.store(0);
    check_abandoned();
  }
  slot.state.store(static_cast<uint32_t>(ThreadState::kRunning));
  if (h.abandoned.load()) {
    h.stop_request.store(0);
    h.stop_owner.store(0);
    slot.action = Action::kRun;
  }

  registers_to(uc->mcontext, slot.regs);
  if (process.policy_seq != h.policy_seq.load())
    refresh_policy();
  const bool resumed = slot.resume.load() != seen;
  if (!resumed && slot.action == t->action)
    return false;
  t->action = resumed ? slot.action : Action::kRun;
  t->steps_left = slot.step_count;
  t->steps_taken = 0;
  t->stepping_over_call = 0;
  t->step_frame = t->landing = 0;
  t->last_rsp = uc->mcontext.rsp;
  return resumed;
}

void notice(NoticeKind kind, uint32_t tid, uint32_t value) {
  Header& h = header();
  uint32_t ticket = h.notice_tail.load();
  do {
    if (ticket - h.notice_head.load() >= kNotices) {
      h.lost_notices.fetch_add(1);
      return;
    }
  } while (!h.notice_tail.compare_exchange_weak(ticket, ticket + 1));
  Notice& n = the_session().notices[ticket % kNotices];
  n.kind = kind;
  n.tid = tid;
  n.value = value;
  n.sequence.store(ticket + 1, std::memory_order_release);
  post_event();
}

uint32_t allocate_slot() {
  Header& h = header();
  SpinLock lock(process.lock);
  uint32_t used = h.slots_in_use.load();
  if (used > kThreadSlots)
    return kNone;
  for (uint32_t i = 0; i <= used && i < kThreadSlots; ++i) {
    ThreadSlot& slot = the_session().threads[i];
    ThreadBlock* block = block_at(i);
    auto state = static_cast<ThreadState>(slot.state.load());
    if (state == ThreadState::kLeaving && !block->parent_pending) {
      // The slot's stack is in use until the kernel has forgotten the thread.
      constexpr long kEsrch = -3;
      long alive = block->child_pid ? syscall_of(__NR_kill, block->child_pid, 0)
                                    : syscall_of(__NR_tgkill, agent_config.target_pid, slot.tid, 0);
      if (alive == kEsrch)
        state = ThreadState::kFree;
    }
    if (state != ThreadState::kFree || block->parent_pending)
      continue;
    slot.state.store(static_cast<uint32_t>(ThreadState::kStarting));
    slot.tid = 0;
    block->parent_pending = 1; // until the cloner has passed: keeps the slot from a second taker
    block->child_pid = 0;
    if (i == used)
      h.slots_in_use.store(used + 1);
    return i;
  }
  return kNone;
}

void free_slot(uint32_t index) {
  the_session().threads[index].state.store(static_cast<uint32_t>(ThreadState::kFree));
}

} // namespace dune::agent
