#include "dtrace-lite/keeper/release.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <climits>
#include <csignal>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/futex.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace ddbg::keeper {

using namespace dune::session;
using dune::agent::AgentConfig;
using dune::agent::ThreadBlock;

namespace {

bool within(uint64_t a, uint64_t begin, uint64_t size) { return a - begin < size; }

bool in_agent(const Injected& in, const user_regs_struct& r) {
  return within(r.rip, in.map.agent_text, in.image.text_size) ||
         within(r.rsp, in.map.agent_stacks, uint64_t{kThreadSlots} * kAgentStackSize);
}

bool in_arena(const Injected& in, uint64_t rip) {
  return within(rip, in.map.code_near_libs, kCodeNearLibsSize) ||
         within(rip, in.map.code_near_main, in.map.code_near_main_size);
}

// The program's address for an exact place in a copy or in a jump site's trampoline; 0 if there is
// none.
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
  const uint64_t original = out_of_trampoline(table, rip);
  return original != rip ? original : 0;
}

uint32_t slot_of_thread(const Injected& in, pid_t tid) {
  const uint32_t inner = innermost_pid(tid);
  for (uint32_t i = 0; i < kThreadSlots; ++i) {
    const auto state = static_cast<ThreadState>(in.session().threads[i].state.load());
    if (in.session().threads[i].tid == inner && state != ThreadState::kFree &&
        state != ThreadState::kLeaving)
      return i;
  }
  return kNone;
}

// What a thread goes on with as the program.
struct Program {
  user_regs_struct registers;
  uint64_t mask;
};

// For a thread at agent/entry.S's agent_stepped_call, which makes a system call in the
// middle of a step, the rest of one, or the one it was in when we attached. True: `regs` are the
// program's.
bool leave_stepped_call(const Injected& in, pid_t tid, user_regs_struct& regs) {
  const uint64_t done = regs.rip - (in.map.agent_text + in.image.stepped_call);
  if (done != 0 && done != 2)
    return false;
  const uint32_t slot = slot_of_thread(in, tid);
  ThreadBlock block;
  if (slot == kNone ||
      !in.memory->read(TargetAddr(dune::agent::block_of_slot(in.map.agent_stacks, slot)), &block,
                       sizeof block) ||
      !block.stepped_call)
    return false;
  regs.rip = block.stepped_call + done; // orig_rax stays: a restart goes back to the original
  if (block.partial_done) {             // a short count, as after a signal
    const bool more = done && static_cast<int64_t>(regs.rax) > 0;
    regs.rax = block.partial_done + (more ? regs.rax : 0);
    regs.rsi = block.partial_rsi;
    regs.rdx = block.partial_rdx;
    regs.rip = block.stepped_call + 2;
    regs.orig_rax = ~0ull;
  }
  if (block.confining.filter) { // the agent gives its memory back (agent_leave)
    regs.rdi = block.confining.rdi;
    regs.rsi = block.confining.rsi;
    regs.rdx = block.confining.rdx;
  }
  return true;
}

// The same for one whose call the agent makes from a guest, or is about to make. (What else it has
// there, the agent gives back in agent_leave.)
bool leave_forwarded_call(const Injected& in, pid_t tid, Program& program) {
  const user_regs_struct there = program.registers;
  bool is_behind = false, is_before = false;
  const auto look = [&](const uint64_t(&ends)[2]) {
    for (uint64_t end : ends) {
      is_behind |= there.rip == in.map.agent_text + end;
      is_before |= there.rip == in.map.agent_text + end - kSyscallLength;
    }
    return is_behind || is_before;
  };
  const bool is_32 = look(in.image.forward_32_ends);
  const bool is_there = in.map.guest && (is_32 || look(in.image.forward_ends));
  const uint32_t slot = is_there ? slot_of_thread(in, tid) : kNone;
  if (slot == kNone)
    return false;
  const TargetAddr block(dune::agent::block_of_slot(in.map.agent_stacks, slot));
  uint64_t home = 0;
  uint32_t in_parts = 0;
  dune::KernelUcontext context;
  if (!in.memory->read(block + offsetof(ThreadBlock, home), &home, sizeof home) || !home ||
      !in.memory->read(block + offsetof(ThreadBlock, call_in_parts), &in_parts, sizeof in_parts) ||
      in_parts || !in.memory->read(TargetAddr(home), &context, sizeof context))
    return false;
  user_regs_struct& regs = program.registers;
  copy_registers(regs, context.mcontext);
  const bool is_made = is_behind && static_cast<int64_t>(there.rax) != dune::agent::kNotMade;
  if (is_made || in_system_call(there)) {
    regs.rax = there.rax;
    regs.rip = context.mcontext.rip + kSyscallLength; // an int $0x80 has the same length
    if (!is_32) {
      regs.rcx = regs.rip;
      regs.r11 = context.mcontext.eflags;
    }
  }
  regs.fs_base = in.session().threads[slot].regs.fs_base;
  regs.gs_base = in.session().threads[slot].regs.gs_base;
  program.mask = context.sigmask;
  return true;
}

// A signal that only the agent can make sense of is on its way to the thread: the trap of a site
// that is gone by now, a kick.
bool agent_is_wanted(const Injected& in, const Tracee& thread) {
  auto mask = thread.signal_mask();
  return mask && (read_signal_set(thread.tid(), "SigPnd") & in.config.owned & ~*mask) != 0;
}

// The agent finds its way out of a copy, step by step, when it gets a kick there. (Stepping from
// here would leave the trap flag behind if the keeper died.)
void kick(const Injected& in, pid_t tid) {
  const bool own_signal = in.config.owned & dune::signal_bit(kKickSignal);
  siginfo_t info{};
  info.si_signo = own_signal ? kKickSignal : SIGTRAP;
  info.si_code = SI_QUEUE;
  info.si_value.sival_ptr = reinterpret_cast<void*>(kKickValue);
  syscall(SYS_rt_tgsigqueueinfo, in.pid, tid, info.si_signo, &info);
}

// A thread that is about to make a system call makes it later: it stands before the instruction
// then.
dune::Status stay_before_call(const Tracee& thread, user_regs_struct& regs) {
  regs.rip -= 2;
  regs.rax = regs.orig_rax;
  regs.orig_rax = ~0ull; // the kernel makes none now
  if (auto ok = thread.set_registers(regs); !ok)
    return ok;
  if (auto ok = thread.run_until(
          PTRACE_SYSCALL, [](const Stop& stop) { return stop.kind == Stop::Kind::kSystemCall; });
      !ok)
    return ok;
  return thread.set_registers(regs);
}

// The agent has it step to where its state can be named, or for a watchpoint's sake, and has things
// kept until then.
bool is_stepped_out(const Injected& in, pid_t tid) {
  const uint32_t slot = slot_of_thread(in, tid);
  if (slot == kNone)
    return false;
  ThreadBlock block;
  return in.memory->read(TargetAddr(dune::agent::block_of_slot(in.map.agent_stacks, slot)), &block,
                         sizeof block) &&
         (block.step_out || block.past_watches);
}

// From what a stopped thread has to what is the program's, where that can be told.
bool translate(const Injected& in, pid_t tid, Program& program) {
  user_regs_struct& regs = program.registers;
  if (leave_stepped_call(in, tid, regs) || leave_forwarded_call(in, tid, program))
    return true;
  if (in_agent(in, regs) || is_stepped_out(in, tid))
    return false;
  if (!in_arena(in, regs.rip))
    return true;
  const uint64_t original = original_of(in, regs.rip);
  if (original && regs.rcx == regs.rip)
    regs.rcx = original; // right behind a system call
  if (original)
    regs.rip = original; // orig_rax stays: a call to restart is restarted at the original
  return original != 0;
}

// One attempt to bring a stopped thread to where the program's registers can be told; it stays
// there. False: not yet. One that has ended is out, and so is what has not stopped again.
bool bring_out(Injected& in, StoppedProcess& process, const Tracee& thread) {
  auto regs = thread.registers();
  if (!regs)
    return true;
  if (!agent_is_wanted(in, thread)) {
    Program program{*regs, 0};
    const bool outside = translate(in, thread.tid(), program);
    if (outside)
      return !thread.enters_system_call() || !stay_before_call(thread, *regs);
    if (!in_agent(in, *regs) && !is_stepped_out(in, thread.tid()))
      kick(in, thread.tid());
  }
  return !process.run_briefly(thread.tid());
}

// For a target that has scribbled over the agent's own data.
using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kPatience(10);

// Those of the threads, and of others that they make meanwhile, that cannot be brought out. By
// turns: one may hold a lock of the agent's that another spins on, or a vfork's child for which a
// straggler waits.
std::vector<pid_t> bring_all_out(Injected& in, StoppedProcess& process, std::vector<pid_t> inside) {
  const auto limit = Clock::now() + kPatience;
  do {
    std::erase_if(inside, [&](pid_t tid) { return bring_out(in, process, Tracee(tid)); });
    if (inside.empty()) // those that ran may have made others
      if (auto born = process.stop_new())
        inside = std::move(*born);
    if (inside.empty())
      inside = process.stop_stragglers();
  } while (!inside.empty() && Clock::now() < limit);
  return inside;
}

struct Leaving {
  Tracee thread;
  user_regs_struct registers; // the program's
};

// Sends every thread that has a slot to the agent's agent_leave; it begins when it is resumed, by
// us or by our death.
std::vector<Leaving> send_out(const Injected& in, const StoppedProcess& process, Detour& detour) {
  std::vector<Leaving> result;
  for (pid_t tid : process.threads()) {
    const Tracee thread(tid);
    const auto there = thread.registers();
    const auto mask = thread.signal_mask();
    if (!there || !mask)
      continue; // it has ended
    Program program{*there, *mask};
    if (!translate(in, tid, program)) // it could not be brought out
      continue;
    const uint32_t slot = slot_of_thread(in, tid);
    if (slot == kNone) {
      (void)!thread.set_registers(program.registers);
      continue;
    }
    ThreadBlock block;
    if (in.memory->read(TargetAddr(dune::agent::block_of_slot(in.map.agent_stacks, slot)), &block,
                        sizeof block) &&
        block.action != Action::kRun)
      program.registers.eflags &= ~uint64_t{0x100}; // nobody takes the trap of its step
    // At the bottom of the stack that the errand runs on.
    const TargetAddr stay(in.map.agent_stacks + slot * kAgentStackSize);
    const TargetAddr leave = stay + sizeof(dune::agent::Away);
    Errand errand = errand_of(in, slot, in.image.leave);
    errand.arguments[0] = stay.value;
    errand.arguments[1] = leave.value;
    errand.arguments[2] = read_signal_set(tid, "SigPnd");
    if (detour.save(*there, *mask, stay) && detour.save(program.registers, program.mask, leave) &&
        thread.send(detour, errand, ~0ull))
      result.push_back({thread, program.registers});
  }
  return result;
}

// In the configuration that the agent has.
void tell_agent(Injected& in, uint32_t AgentConfig::*what) {
  in.config.*what = 1;
  (void)!in.memory->write(TargetAddr(in.map.agent_text + in.image.config), &in.config,
                          sizeof in.config);
}

// Takes the int3s out of the text where `which` says so.
template <class Which> void remove_sites(Injected& in, Which which) {
  SiteTable& table = in.sites();
  for (uint32_t i = 0; i < std::min(table.count.load(), kSites); ++i) {
    Site& s = table.sites[i];
    const uint32_t flags = s.flags.load();
    if (!(flags & kSiteInstalled) || !which(flags))
      continue;
    uint8_t now;
    if (in.memory->read(TargetAddr(s.address), &now, 1) && now == kInt3)
      (void)!in.memory->write(TargetAddr(s.address),
                              flags & kSiteJump ? &kJumpOpcode : &s.original[0], 1);
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
    if (s.reason == StopReason::kSignal) { // the program's, unless the user would not have it
      const auto signal =
          static_cast<uint32_t>(reinterpret_cast<const dune::KernelSiginfo*>(s.siginfo)->signal);
      s.signal = signal < kSignals && (h.signal_policy[signal] & kSignalPass) ? signal : 0;
    }
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
  // Sites first: a thread that is resumed must not run into one that nobody removes. Before the
  // agent serves those of system calls no thread has run the program, and all leave the agent for
  // good.
  const bool serving = in.session().header.serving;
  if (!serving)
    remove_jumps(in);
  remove_sites(in, [=](uint32_t flags) { return !serving || !(flags & kSiteSyscall); });
  let_threads_go(in);
}

namespace {

// Behind it the threads that have been brought out stand where they go on as the program.
void make_native(Injected& in, const StoppedProcess& process, Detour& detour) {
  // KVM has a thread of the kernel's in the process, which has to run for its guest to be closed.
  if (in.map.guest && process.is_suspended()) {
    in.was_suspended = true;
    ::kill(in.pid, SIGCONT);
  }
  const std::vector<Leaving> leaving = send_out(in, process, detour);
  tell_agent(in, &AgentConfig::leaving); // from here on they do it without us, too
  remove_jumps(in);                      // with the int3s that some of them hold
  remove_sites(in, [](uint32_t) { return true; });
  tell_agent(in, &AgentConfig::sites_removed);
  for (const Leaving& each : leaving)
    (void)!each.thread.fetch(detour, each.registers); // fails if it has ended
}

// No thread needs it any more.
void remove_agent(const Injected& in, const StoppedProcess& process, Detour& detour) {
  const Tracee thread(process.threads().front());
  (void)!thread.run(detour, errand_of(in, 0, in.image.actions)); // nobody has that stack
  unmap_agent(in, thread, detour);
}

} // namespace

std::vector<std::string> take_out(Injected& in, StoppedProcess& process, Detour& detour) {
  std::vector<std::string> left;
  tell_agent(in, &AgentConfig::guest_closed);
  const auto keep = [&](pid_t tid, const char* why) {
    left.push_back(fmt::format("Thread {} {}; the agent's code stays in the program.", tid, why));
  };
  const auto inside = bring_all_out(in, process, process.threads());
  for (pid_t tid : process.stragglers())
    keep(tid, "does not come out of the kernel");
  for (pid_t tid : inside)
    keep(tid, "could not be brought out of the agent");
  // With a thread that needs the agent the others keep it, too: the handlers are the process's.
  if (!left.empty() || process.threads().empty())
    return left;
  make_native(in, process, detour);
  remove_agent(in, process, detour);
  return left;
}

namespace {

// Not, when a thread that was let go has made an execve: `memory` is that of the image before.
bool has_agent(const Injected& in) {
  uint64_t magic;
  return in.memory->read(TargetAddr(in.map.agent_text), &magic, sizeof magic) &&
         magic == dune::agent::kImageMagic;
}

} // namespace

std::vector<std::string> release(Injected& in) {
  abandon(in);
  auto process = StoppedProcess::stop(in.pid);
  if (!process)
    return {process.error().message};
  if (!has_agent(in))
    return {};
  // Again: what a hostile target has written over it meanwhile would hold them, and now it cannot.
  let_threads_go(in);
  auto detour = Detour::build(in.pid);
  if (!detour)
    return {to_diagnostic(detour.error()).message};
  auto left = take_out(in, *process, *detour);
  if (in.was_suspended) // nothing of the program runs before it: the threads are still stopped
    ::kill(in.pid, SIGSTOP);
  return left;
}

namespace {

// core(5). The agent has asked whether the process may be dumped at all.
bool writes_core(pid_t pid) {
  const dune::Fd file(open("/proc/sys/kernel/core_pattern", O_RDONLY | O_CLOEXEC));
  char first = 0;
  const bool is_to_program =
      file && read(file.get(), &first, 1) == 1 && (first == '|' || first == '@');
  rlimit limit;
  return is_to_program || prlimit(pid, RLIMIT_CORE, nullptr, &limit) != 0 || limit.rlim_cur != 0;
}

// The first process of a namespace does not die of its own signals.
bool is_unkillable(pid_t pid) { return innermost_pid(pid) == 1; }

// Up to the signal that it sends itself. False: it has not come there.
bool run_to_death(StoppedProcess& process, pid_t tid) {
  const auto limit = Clock::now() + kPatience;
  const auto is_stopped = [&] {
    const auto& threads = process.threads();
    return std::find(threads.begin(), threads.end(), tid) != threads.end();
  };
  while (is_stopped() && Clock::now() < limit)
    (void)process.run_briefly(tid);
  return !is_stopped();
}

} // namespace

std::optional<StoppedProcess> release_dying(Injected& in, pid_t tid) {
  if (!writes_core(in.pid) || is_unkillable(in.pid))
    return std::nullopt;
  auto process = StoppedProcess::stop(in.pid, StoppedProcess::Deaths::kHeld);
  if (!process || !has_agent(in))
    return std::nullopt;
  auto detour = Detour::build(in.pid);
  if (!detour)
    return std::nullopt;
  abandon(in);
  tell_agent(in, &AgentConfig::guest_closed);
  // The dying one comes last: its signal has a handler as long as others may get one of the same.
  std::vector<pid_t> others = process->threads();
  std::erase(others, tid);
  bool is_empty = bring_all_out(in, *process, others).empty();
  is_empty &= run_to_death(*process, tid);
  make_native(in, *process, *detour);
  if (is_empty && process->stragglers().empty() && !process->threads().empty())
    remove_agent(in, *process, *detour);
  return std::move(*process);
}

} // namespace ddbg::keeper
