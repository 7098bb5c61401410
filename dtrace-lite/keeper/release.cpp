#include "dtrace-lite/keeper/release.h"

#include "dtrace-lite/keeper/stopped_process.h"

#include <algorithm>
#include <array>
#include <climits>
#include <csignal>
#include <fmt/format.h>
#include <linux/futex.h>
#include <sys/syscall.h>

namespace ddbg::keeper {

using namespace dune::session;
using dune::agent::ThreadBlock;

namespace {

bool within(uint64_t a, uint64_t begin, uint64_t size) { return a - begin < size; }

bool in_agent(const Injected& in, const user_regs_struct& r) {
  return within(r.rip, in.map.agent_text, in.image.text_size) ||
         within(r.rsp, in.map.agent_stacks, uint64_t{kThreadSlots} * kAgentStackSize);
}

bool in_arena(const Injected& in, uint64_t rip) {
  return within(rip, in.map.code_near_libs, kCodeNearLibsSize) ||
         (in.map.code_near_main && within(rip, in.map.code_near_main, kCodeNearMainSize));
}

// The program's address for an exact place in a copy; 0 if there is none.
uint64_t original_of(const Injected& in, uint64_t rip) {
  const SiteTable& table = in.sites();
  for (uint32_t i = 0; i < std::min(table.count.load(), kSites); ++i) {
    const Site& s = table.sites[i];
    if (rip - s.copy >= s.copy_size)
      continue;
    for (uint32_t b = 0; b < std::min<uint32_t>(s.boundary_count, kMaxBoundaries); ++b)
      if (s.boundaries[b].copy_offset == rip - s.copy && s.boundaries[b].rsp_add == 0 &&
          s.boundaries[b].saved_count == 0)
        return s.boundaries[b].original;
  }
  return 0;
}

uint32_t slot_of_thread(const Injected& in, pid_t tid) {
  const uint32_t inner = innermost_pid(tid);
  for (uint32_t i = 0; i < kThreadSlots; ++i)
    if (in.session().threads[i].tid == inner &&
        in.session().threads[i].state != static_cast<uint32_t>(ThreadState::kFree))
      return i;
  return kNone;
}

// The same for a thread in agent/entry.S's agent_stepped_call, which makes a system call in the
// middle of a step, or the rest of one. True: `regs` are the program's.
bool leave_stepped_call(const Injected& in, const Tracee& thread, user_regs_struct& regs) {
  constexpr uint8_t kCall[] = {0x0f, 0x05, 0xcc};
  const uint64_t rip = regs.rip;
  if (!within(rip, in.map.agent_text, in.image.text_size))
    return false;
  const uint32_t slot = slot_of_thread(in, thread.tid());
  for (uint64_t done : {uint64_t{0}, uint64_t{2}}) {
    uint8_t code[sizeof kCall];
    ThreadBlock block;
    if (slot != kNone && in.memory->read(TargetAddr(rip - done), code, sizeof code) &&
        std::equal(code, code + sizeof code, kCall) &&
        in.memory->read(TargetAddr(dune::agent::block_of_slot(in.map.agent_stacks, slot)), &block,
                        sizeof block) &&
        block.stepped_call) {
      regs.rip = block.stepped_call + done; // orig_rax stays: a restart goes back to the original
      if (block.partial_done) {             // a short count, as after a signal
        const bool more = done && static_cast<int64_t>(regs.rax) > 0;
        regs.rax = block.partial_done + (more ? regs.rax : 0);
        regs.rsi = block.partial_rsi;
        regs.rdx = block.partial_rdx;
        regs.rip = block.stepped_call + 2;
        regs.orig_rax = ~0ull;
      }
      return true;
    }
  }
  return false;
}

// Brings a stopped thread to an instruction of the program's own. False: it cannot be moved.
bool bring_out(Injected& in, StoppedProcess& process, const Tracee& thread) {
  constexpr int kTries = 20000; // of a few microseconds each: a thread leaves the agent by itself
  for (int i = 0; i < kTries; ++i) {
    auto regs = thread.registers();
    if (!regs)
      return true; // it ended
    if (leave_stepped_call(in, thread, *regs))
      return static_cast<bool>(thread.set_registers(*regs));
    if (in_agent(in, *regs)) {
      if (!process.run_briefly(thread.tid()))
        return true;
      continue;
    }
    if (!in_arena(in, regs->rip))
      return true;
    if (const uint64_t original = original_of(in, regs->rip)) {
      regs->rip = original; // orig_rax stays: a call to restart is restarted at the original
      return static_cast<bool>(thread.set_registers(*regs));
    }
    if (!process.single_step(thread.tid()))
      return true;
  }
  return false;
}

void remove_sites(Injected& in) {
  SiteTable& table = in.sites();
  for (uint32_t i = 0; i < std::min(table.count.load(), kSites); ++i) {
    Site& s = table.sites[i];
    if (!(s.flags.load() & kSiteInstalled))
      continue;
    uint8_t now;
    if (in.memory->read(TargetAddr(s.address), &now, 1) && now == 0xcc)
      (void)!in.memory->write(TargetAddr(s.address),
                              s.flags.load() & kSiteJump ? &kJumpOpcode : &s.original[0], 1);
    s.flags.fetch_and(~kSiteInstalled);
  }
}

// All threads are stopped: none is in the middle of one.
void remove_jumps(Injected& in) {
  SiteTable& table = in.sites();
  for (uint32_t i = 0; i < std::min(table.count.load(), kSites); ++i) {
    Site& s = table.sites[i];
    uint8_t now;
    if ((s.flags.load() & kSiteJump) && in.memory->read(TargetAddr(s.address), &now, 1) &&
        now == kJumpOpcode)
      (void)!in.memory->write(TargetAddr(s.address), s.original, kJumpLength);
    s.flags.fetch_and(~kSiteJump);
  }
}

void let_threads_go(Injected& in) {
  Header& h = in.session().header;
  h.abandoned = 1;
  for (uint32_t i = 0; i < kThreadSlots; ++i) {
    ThreadSlot& s = in.session().threads[i];
    if (s.state != static_cast<uint32_t>(ThreadState::kParked))
      continue;
    s.action = Action::kRun;
    if (s.reason == StopReason::kSignal)
      s.signal = static_cast<uint32_t>(
          reinterpret_cast<const dune::KernelSiginfo*>(s.siginfo)->signal); // it is the program's
  }
  h.stop_request = 0;
  h.stop_owner = 0;
  for (uint32_t i = 0; i < kThreadSlots; ++i) {
    ThreadSlot& s = in.session().threads[i];
    s.resume.fetch_add(1);
    // Whatever its state is said to be: a thread that is not asleep does not mind.
    syscall(SYS_futex, &s.resume, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
  }
}

} // namespace

void abandon(Injected& in) {
  remove_sites(in); // first: a thread that is resumed must not run into one that nobody removes
  let_threads_go(in);
}

std::vector<std::string> release(Injected& in) {
  std::vector<std::string> left;
  abandon(in);
  auto process = StoppedProcess::stop(in.pid);
  if (!process)
    return {process.error().message};
  // Again: what a hostile target has written over it meanwhile would hold them, and now it cannot.
  let_threads_go(in);
  remove_jumps(in);
  auto instruction = find_syscall_instruction(in.pid, *in.memory);
  if (!instruction)
    return {instruction.error().text};
  bool all_out = true;
  std::vector<dune::KernelSigaction> actions(dune::kSignalCount + 1);
  const uint64_t room = in.map.agent_stacks; // slot 0's stack: nobody is on it any more, see below

  for (pid_t tid : std::vector<pid_t>(process->threads())) {
    Tracee thread(tid);
    if (!bring_out(in, *process, thread)) {
      all_out = false;
      left.push_back(fmt::format("Thread {} could not be brought out of a displaced copy; its code "
                                 "stays mapped.",
                                 tid));
    }
  }
  std::vector<std::pair<pid_t, int>> pending; // the program's, given back at the end
  for (pid_t tid : process->threads()) {
    Tracee thread(tid);
    const uint32_t slot = slot_of_thread(in, tid);
    auto mask = thread.signal_mask();
    if (slot == kNone || !mask)
      continue;
    ThreadBlock block;
    if (!in.memory->read(TargetAddr(dune::agent::block_of_slot(in.map.agent_stacks, slot)), &block,
                         sizeof block))
      continue;
    dune::KernelStack stack = block.altstack;
    if (in.memory->write(TargetAddr(room), &stack, sizeof stack))
      (void)!thread.system_call(*instruction, SYS_sigaltstack, std::array<uint64_t, 2>{room, 0});
    (void)!thread.set_signal_mask((*mask & ~in.config.owned) | block.blocked);
    for (int signal : dune::agent::kOwnedSignals)
      if (block.pending & dune::signal_bit(signal))
        pending.emplace_back(tid, signal);
  }

  // The rest is the process's, by any one thread.
  if (process->threads().empty())
    return left;
  Tracee thread(process->threads().front());
  // A kick or a watchpoint's trap that is still on its way would kill the program: ignoring a
  // signal discards it.
  dune::KernelSigaction ignore{};
  ignore.handler = dune::kSigIgn;
  for (int signal : {dune::kSigTrap, dune::agent::kKickSignal})
    if (in.config.owned & dune::signal_bit(signal)) {
      process->discard_signal(signal);
      if (in.memory->write(TargetAddr(room), &ignore, sizeof ignore))
        (void)!thread.system_call(*instruction, SYS_rt_sigaction,
                                  std::array<uint64_t, 4>{uint64_t(signal), room, 0, 8});
    }
  const TargetAddr actions_at(in.map.agent_text + in.image.actions);
  if (in.memory->read(actions_at, actions.data(), actions.size() * sizeof actions[0]))
    for (int signal = 1; signal <= dune::kSignalCount; ++signal)
      if (signal != SIGKILL && signal != SIGSTOP)
        (void)!thread.system_call(
            *instruction, SYS_rt_sigaction,
            std::array<uint64_t, 4>{
                uint64_t(signal), actions_at.value + signal * sizeof(dune::KernelSigaction), 0, 8});
  for (auto [tid, signal] : pending)
    syscall(SYS_tgkill, in.pid, tid, signal);
  if (!all_out)
    return left;
  const std::pair<uint64_t, uint64_t> mappings[] = {
      {in.map.code_near_main, kCodeNearMainSize},
      {in.map.code_near_libs, kCodeNearLibsSize},
      {in.map.code_table, kCodeTableSize},
      {in.map.session, kSessionSize},
      {in.map.agent_stacks, kThreadSlots * kAgentStackSize},
      {in.map.agent_text, in.image.total_size},
  };
  for (auto [address, size] : mappings)
    if (address)
      (void)!thread.system_call(*instruction, SYS_munmap, std::array<uint64_t, 2>{address, size});
  return left;
}

} // namespace ddbg::keeper
