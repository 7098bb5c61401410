// Signals of AgentConfig::owned that the program blocks wait here, as others do in the kernel: one
// of each in the block of the thread that they are for; in Process::waiting those for the process,
// and what more a thread has of a real-time signal.
//
// The kernel hands one for the process to a thread that does not block it, and all look so to the
// kernel: a thread that gets what the program blocks there passes it on to one that lets it in or
// waits for it. Who opens its mask, or begins to wait, says so before it looks for what waits; who
// lets something wait does it before looking for a thread. So one of them sees the other.
#include "libdune/agent/agent.h"

namespace dune::agent {

using namespace session;

namespace {

constexpr uint32_t kProcess = kNone; // Waiting::slot of what is for any thread

bool is_queued(int signal) { return signal >= 32; } // real-time signals do not merge

int owned_index(int signal) {
  for (int i = 0; i < 5; ++i)
    if (kOwnedSignals[i] == signal)
      return i;
  return -1;
}

// All of these with process.lock held.

const Waiting* find_locked(uint32_t slot, SignalSet signals) {
  for (uint32_t i = 0; i < process.waiting_count; ++i)
    if (process.waiting[i].slot == slot && (signals & signal_bit(process.waiting[i].info.signal)))
      return &process.waiting[i];
  return nullptr;
}

void set_shared_locked() {
  SignalSet shared = 0;
  for (uint32_t i = 0; i < process.waiting_count; ++i)
    if (process.waiting[i].slot == kProcess)
      shared |= signal_bit(process.waiting[i].info.signal);
  process.shared.store(shared);
}

// Null if it merges with another, or there is no room.
const Waiting* add_locked(uint32_t slot, const KernelSiginfo& info) {
  if (process.waiting_count == kMostWaiting ||
      (!is_queued(info.signal) && find_locked(slot, signal_bit(info.signal))))
    return nullptr;
  Waiting* w = &process.waiting[process.waiting_count++];
  *w = {info, slot, 0};
  set_shared_locked();
  return w;
}

void remove_locked(const Waiting* w) {
  --process.waiting_count;
  for (uint32_t i = static_cast<uint32_t>(w - process.waiting); i < process.waiting_count; ++i)
    process.waiting[i] = process.waiting[i + 1];
  set_shared_locked();
}

bool takes(const ThreadBlock* t, SignalSet bit, bool only_if_waiting) {
  const auto state = static_cast<ThreadState>(slot_of(t).state.load());
  const bool there = state == ThreadState::kRunning || state == ThreadState::kParked ||
                     state == ThreadState::kInCall;
  return there && takes_part(t) &&
         ((!only_if_waiting && !(__atomic_load_n(&t->blocked, __ATOMIC_SEQ_CST) & bit)) ||
          (__atomic_load_n(&t->waits_for, __ATOMIC_SEQ_CST) & bit));
}

// The kernel lets nobody say that another thread's signal comes from kill: sigqueue, with this
// value, says it to the agent there.
constexpr uint64_t kKillPassedOn = 0x6f7373617062646b;

bool pass_on_locked(const ThreadBlock* t, KernelSiginfo info) {
  const bool only_if_waiting = info.code == kSiQueue; // it may be for this thread after all
  if (info.code == kSiUser) {
    info.code = kSiQueue;
    info.rt.value = kKillPassedOn;
  }
  const uint32_t used = header().slots_in_use.load();
  for (uint32_t i = 0; i < used && i < kThreadSlots; ++i) {
    const ThreadBlock* other = block_at(i);
    if (other != t && takes(other, signal_bit(info.signal), only_if_waiting) &&
        !is_errno(syscall_of(__NR_rt_tgsigqueueinfo, agent_config.target_pid, slot_of(other).tid,
                             info.signal, reinterpret_cast<uint64_t>(&info))))
      return true;
  }
  return false;
}

} // namespace

void undo_passing_on(KernelSiginfo* info) {
  if (info->code != kSiQueue || info->rt.value != kKillPassedOn)
    return;
  info->code = kSiUser;
  info->rt.value = 0;
}

// By its code: tgkill means a thread. What sigqueue and pthread_sigqueue send looks the same: it
// goes to a thread that waits for it, or stays with the one that got it.
void keep_pending(ThreadBlock* t, const KernelSiginfo& info) {
  const SignalSet bit = signal_bit(info.signal);
  open_gate_of_waits();
  SpinLock lock(process.lock);
  if (info.code == kSiQueue && takes_part(t) && pass_on_locked(t, info))
    return;
  if (info.code != kSiTkill && info.code != kSiQueue && takes_part(t)) {
    const Waiting* w = add_locked(kProcess, info);
    if (w && pass_on_locked(t, info))
      remove_locked(w);
  } else if (!(t->pending & bit)) {
    t->pending |= bit;
    t->pending_info[owned_index(info.signal)] = info;
  } else if (is_queued(info.signal)) {
    add_locked(t->slot, info);
  }
}

SignalSet pending_signals(const ThreadBlock* t) { return t->pending | process.shared.load(); }

bool take_pending(ThreadBlock* t, SignalSet signals, KernelSiginfo* info) {
  if (!(pending_signals(t) & signals))
    return false;
  SpinLock lock(process.lock);
  for (int i = 0; i < 5; ++i) {
    const SignalSet bit = signal_bit(kOwnedSignals[i]) & signals;
    if (t->pending & bit) {
      *info = t->pending_info[i];
      if (const Waiting* next = find_locked(t->slot, bit)) {
        t->pending_info[i] = next->info;
        remove_locked(next);
      } else {
        t->pending &= ~bit;
      }
      return true;
    }
    if (const Waiting* w = find_locked(kProcess, bit)) {
      *info = w->info;
      remove_locked(w);
      return true;
    }
  }
  return false;
}

void drop_pending(uint32_t slot) {
  SpinLock lock(process.lock);
  while (const Waiting* w = find_locked(slot, ~SignalSet{0}))
    remove_locked(w);
}

} // namespace dune::agent
