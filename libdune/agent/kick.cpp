// Kicks: how a running thread is brought to park for somebody else's stop.
//
// A precise kick (kCapPreciseKick) is a perf event that fires in user mode only, so the thread is
// between two instructions of its own. A kick by signal can find the thread on its way into a
// system call, or out of one, and then the kernel ends the call early; what can be mended of that
// is mended here. A new thread may kick itself, see calls_process.cpp.
#include "libdune/agent/guest_loop.h"

namespace dune::agent {

using namespace session;

namespace {

// The number of the call whose `syscall` stands before `rip`, where `mov $nr,%eax` says it.
uint32_t call_before(ThreadBlock* t, uint64_t rip) {
  struct [[gnu::packed]] {
    uint8_t mov;
    uint32_t number;
    uint8_t syscall[kSyscallLength];
  } code;
  const Site* site = find_site(rip - sizeof code); // its mov may be a jump, see session/layout.h
  if (!read_user(t, &code, rip - sizeof code, sizeof code))
    return kNoCall;
  if (site && site->original_length == kJumpLength)
    memcpy(&code, site->original, kJumpLength);
  if (find_site(rip - kSyscallLength))
    code.syscall[0] = 0x0f; // or an int3
  return code.mov == 0xb8 && code.syscall[0] == 0x0f && code.syscall[1] == 0x05 ? code.number
                                                                                : kNoCall;
}

// The same as repair_interrupted_call for a call that had done a part: the rest is made from a
// place of ours, where the agent puts the parts together. A short count that is not the kick's
// doing comes out as it is: the next call fails, or finds the end. True: uc is on its way there.
bool continue_short_call(ThreadBlock* t, KernelUcontext* uc) {
  constexpr uint64_t kWaitAll = 0x100, kPeek = 2;
  KernelSigcontext& m = uc->mcontext;
  if (m.rcx != m.rip || m.rip == t->restored_rip || static_cast<int64_t>(m.rax) <= 0 ||
      m.rax >= m.rdx)
    return false;
  const uint32_t number = call_before(t, m.rip);
  const bool continues = number == __NR_write || number == __NR_sendto ||
                         (number == __NR_recvfrom && (m.r10 & kWaitAll) && !(m.r10 & kPeek));
  if (!continues)
    return false;
  t->partial_done = m.rax;
  t->partial_rsi = m.rsi;
  t->partial_rdx = m.rdx;
  m.rsi += m.rax;
  m.rdx -= m.rax;
  m.rax = number;
  call_from_agent(t, uc, m.rip - kSyscallLength);
  return true;
}

} // namespace

uint32_t interrupted_call(ThreadBlock* t, const KernelUcontext* uc) {
  constexpr uint64_t kMinusEintr = static_cast<uint64_t>(-4);
  const KernelSigcontext& m = uc->mcontext;
  if (in_guest(t))
    return m.rax == kMinusEintr && m.rcx == m.rip ? static_cast<uint32_t>(t->call_number) : kNoCall;
  return t && m.rax == kMinusEintr && m.rip != t->restored_rip ? call_before(t, m.rip) : kNoCall;
}

// A kick found the thread entering a system call after the front end had seen it running, or a
// signal came that the program blocks: the kernel ended the call with EINTR where no handler of the
// program ran.
void repair_interrupted_call(ThreadBlock* t, KernelUcontext* uc) {
  const uint32_t number = interrupted_call(t, uc);
  if (number == kNoCall)
    return;
  uc->mcontext.rax = number;
  uc->mcontext.rip -= kSyscallLength;
}

bool is_queued_kick(const KernelSiginfo& info) {
  return info.code == kSiQueue && info.rt.value == kKickValue;
}

KernelSiginfo kick_by(int signal) {
  KernelSiginfo info{};
  info.signal = signal;
  info.code = kSiQueue;
  info.rt.pid = static_cast<int32_t>(agent_config.target_pid);
  info.rt.value = kKickValue;
  return info;
}

void kick_self() {
  send_to_self(kick_by(owned() & signal_bit(kKickSignal) ? kKickSignal : kSigTrap));
}

void on_kick(ThreadBlock* t, KernelUcontext* uc, KickedBy by) {
  if (!takes_part(t))
    return;
  uint64_t counted;
  if (to_program(t, uc, &counted) == Place::kUnclear) {
    if (!runs_agent(uc))
      step_out(t, uc);
    return; // about to park, or to look whether it has to; else it is kicked again
  }
  slot_of(t).kicks++;
  if (by == KickedBy::kSignal)
    repair_interrupted_call(t, uc);
  const uint64_t rip = uc->mcontext.rip;
  const bool stopped = stop_wanted(t);
  if (stopped)
    park(t, uc, StopReason::kRequested);
  if (cannot_serve())
    return give_back(t, uc);
  if (stopped && (slot_of(t).signal || uc->mcontext.rip != rip))
    return go_on_after_stop(t, uc, counted);
  if (by == KickedBy::kSignal && !counted && continue_short_call(t, uc))
    return;
  go_on(t, uc, counted);
}

} // namespace dune::agent
