#include "dtrace-lite/keeper/inject.h"

#include "dtrace-lite/keeper/confinement.h"
#include "dtrace-lite/keeper/life.h"
#include "dtrace-lite/keeper/watch.h"
#include "libdune/backend/kick_hosted.h"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef MFD_EXEC
#define MFD_EXEC 0x10U
#endif

extern "C" const char dune_agent_image_begin[], dune_agent_image_end[];

namespace ddbg::keeper {

using namespace dune::session;
using dune::agent::AgentConfig;
using dune::agent::ImageHeader;
using dune::agent::ThreadBlock;

namespace {

constexpr uint64_t kMegabyte = 1 << 20;

// The size and features of an XSAVE image in this kernel's signal frames. ptrace's image may be
// larger (dynamically enabled features), so ask a signal frame.
struct XstateFormat {
  uint32_t extended_size = 0;
  uint64_t features = 0;
  uint32_t xstate_size = 0;
};
XstateFormat g_xstate;

void remember_xstate(int, siginfo_t*, void* context) {
  auto* uc = static_cast<ucontext_t*>(context);
  auto* fp = reinterpret_cast<const char*>(uc->uc_mcontext.fpregs);
  dune::FpSoftwareBytes software;
  std::memcpy(&software, fp + dune::kFpSwReservedOffset, sizeof software);
  if (software.magic1 == dune::kFpXstateMagic1)
    g_xstate = {software.extended_size, software.features, software.xstate_size};
  else
    g_xstate = {dune::kFpLegacySize, 0, 0};
}

const XstateFormat& xstate_format() {
  if (!g_xstate.extended_size) {
    struct sigaction action {
    }, before;
    action.sa_sigaction = remember_xstate;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGUSR1, &action, &before);
    raise(SIGUSR1);
    sigaction(SIGUSR1, &before, nullptr);
  }
  return g_xstate;
}

ImageHeader image_header() {
  ImageHeader header;
  std::memcpy(&header, dune_agent_image_begin, sizeof header);
  return header;
}

// The guest's room may lie anywhere, so it is far from where the kernel puts what has no place yet;
// but within what the sanitizers leave to the program (ThreadSanitizer ends it otherwise).
uint64_t place_of_guest(const std::vector<MapEntry>& maps, uint64_t size) {
  constexpr uint64_t kHighest = 0x7e90'0000'0000, kStep = 1ull << 36;
  uint64_t at = kHighest;
  const auto taken = [&](const MapEntry& m) {
    return m.range.begin.value < at + size && at < m.range.end.value;
  };
  while (at > kStep && std::any_of(maps.begin(), maps.end(), taken))
    at -= kStep;
  return at;
}

// Places for the agent's block and the window near the main program. The block goes right above the
// highest mapping below the stack: default mmaps grow downwards from there, so that no address the
// program gets differs from what it gets under gdb or alone.
} // namespace

Checked<MemoryMap> plan_addresses(pid_t pid, bool with_guest) {
  const ImageHeader image = image_header();
  auto maps = read_maps(pid);
  size_t stack = maps.size();
  for (size_t i = 0; i < maps.size(); ++i)
    if (maps[i].path == "[stack]")
      stack = i;
  const uint64_t stacks_size = uint64_t{kThreadSlots} * kAgentStackSize;
  const uint64_t block = page_round(image.total_size) + stacks_size + kAgentStackSize +
                         kSessionSize + kCodeTableSize + kCodeNearLibsSize + 6 * kMegabyte;
  // Candidate gaps from the stack downwards; each leaves room for the neighbour above to grow.
  uint64_t base = 0;
  for (size_t i = std::min(stack, maps.size()); i-- > 0 && !base;) {
    const uint64_t gap_begin = maps[i].range.end.value;
    const uint64_t gap_end = i + 1 < maps.size() ? maps[i + 1].range.begin.value : 0x7ffffffff000;
    const uint64_t margin_below = maps[i].path == "[heap]" ? 1024 * kMegabyte : kMegabyte;
    const uint64_t margin_above = i + 1 == stack ? 16 * kMegabyte : kMegabyte;
    const uint64_t begin = TargetAddr(gap_begin + margin_below).align_up(2 * kMegabyte).value;
    if (gap_end > begin && gap_end - begin >= block + margin_above)
      base = begin;
  }
  if (!base)
    return Diagnostic{"The process has no room for the debugger's agent in its address space.",
                      "It needs 64 MB of unused addresses near its libraries.",
                      {}};
  MemoryMap map{};
  map.agent_text = base;
  map.agent_stacks =
      TargetAddr(base + page_round(image.total_size)).align_up(kAgentStackSize).value;
  map.session = page_round(map.agent_stacks + stacks_size);
  map.code_table = map.session + kSessionSize;
  map.code_near_libs = map.code_table + kCodeTableSize;
  map.agent_end = map.code_near_libs + kCodeNearLibsSize;
  if (with_guest) {
    map.guest_size = dune::agent::kGuestRoomSize;
    map.guest = place_of_guest(maps, map.guest_size);
  }

  // The window near the main program goes below it: its heap grows above.
  if (!maps.empty()) {
    const uint64_t main_begin = maps[0].range.begin.value;
    // Pages that null pointers reach stay what they are. A jump from the beginning of a program at
    // 4 MiB that is to have 0xcc in the third byte of its displacement leads to just above them.
    constexpr uint64_t kLowest = 0xc0000, kGap = 64 * 1024;
    const bool far = base - main_begin > (uint64_t{1} << 30);
    if (far && main_begin > kLowest + kGap + kMegabyte) {
      map.code_near_main_size = std::min(kCodeNearMainSize, main_begin - kGap - kLowest);
      map.code_near_main = main_begin - kGap - map.code_near_main_size;
    }
  }
  map.quick_call = map.agent_text + image.quick_call;
  map.agent_data = map.agent_text + image.config;
  return map;
}

namespace {

class Remote {
public:
  Remote(const Tracee& thread, Detour& detour) : thread_(thread), detour_(detour) {}

  Checked<uint64_t> call(const char* what, long number, std::initializer_list<uint64_t> arguments) {
    auto result = thread_.system_call(detour_, number, {arguments.begin(), arguments.size()});
    if (!result)
      return to_diagnostic(result.error());
    if (*result < 0 && *result >= -4095) {
      const int error = static_cast<int>(-*result);
      return Diagnostic{fmt::format("{} in the target: {}", what, strerror(error)),
                        error == EPERM || error == ENOSYS
                            ? "The program seems to be confined by seccomp; ddbg needs mmap, "
                              "memfd_create and rt_sigaction in it."
                            : "",
                        {}};
    }
    return static_cast<uint64_t>(*result);
  }
  Checked<uint64_t> map(uint64_t address, uint64_t size, int protection, int flags, int fd,
                        uint64_t offset) {
    auto got = call("mmap", SYS_mmap,
                    {address, size, uint64_t(protection), uint64_t(flags | MAP_FIXED_NOREPLACE),
                     uint64_t(int64_t(fd)), offset});
    if (got && *got != address)
      return Diagnostic{"The kernel mapped the agent elsewhere than asked (too old?).", {}, {}};
    return got;
  }

private:
  const Tracee& thread_;
  Detour& detour_;
};

// A memfd made by the target (so that it lives in the target's namespaces and limits), taken over
// by pidfd_getfd. The target's own descriptor goes away with this object.
class SharedMemory {
public:
  explicit SharedMemory(Remote& remote) : remote_(remote) {}
  ~SharedMemory() {
    if (in_target_)
      (void)!remote_.call("close", SYS_close, {*in_target_});
  }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  Checked<void> make(int pidfd, uint64_t name, uint64_t size, uint64_t flags) {
    flags |= MFD_CLOEXEC | MFD_ALLOW_SEALING;
    auto made = remote_.call("memfd_create", SYS_memfd_create, {name, flags});
    if (!made && (flags & MFD_EXEC)) // a kernel that does not know it yet
      made = remote_.call("memfd_create", SYS_memfd_create, {name, flags & ~uint64_t{MFD_EXEC}});
    if (!made)
      return made.error();
    in_target_ = *made;
    ours_ = dune::Fd(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd, *made, 0)));
    if (!ours_)
      return to_diagnostic(dune::system_error("cannot take the session from the target"));
    if (ftruncate(ours_.get(), static_cast<off_t>(size)) != 0 ||
        fcntl(ours_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
      return to_diagnostic(dune::system_error("cannot size the session"));
    // Another process that shares the target's descriptors can have come in between: we map all of
    // it.
    struct stat info {};
    if (fstat(ours_.get(), &info) != 0 || static_cast<uint64_t>(info.st_size) != size)
      return Diagnostic{"The session has another size than it was given.", {}, {}};
    return {};
  }
  int in_target() const { return static_cast<int>(*in_target_); }
  dune::Fd take() { return std::move(ours_); }

private:
  Remote& remote_;
  std::optional<uint64_t> in_target_;
  dune::Fd ours_;
};

Checked<void> map_everything(Injected& in, Remote& remote) {
  const MemoryMap& m = in.map;
  constexpr int kAnonymous = MAP_PRIVATE | MAP_ANONYMOUS;
  if (auto r =
          remote.map(m.agent_text, in.image.total_size, PROT_READ | PROT_WRITE, kAnonymous, -1, 0);
      !r)
    return r.error();
  const size_t image_bytes = static_cast<size_t>(dune_agent_image_end - dune_agent_image_begin);
  if (auto ok = in.memory->write(TargetAddr(m.agent_text), dune_agent_image_begin, image_bytes);
      !ok)
    return to_diagnostic(ok.error());

  const uint64_t name = m.agent_text + in.image.config; // overwritten by the configuration below
  dune::Fd pidfd(static_cast<int>(syscall(SYS_pidfd_open, in.pid, 0)));
  if (!pidfd)
    return to_diagnostic(dune::system_error("cannot open the process"));
  auto named = [&](const char* text) {
    return in.memory->write(TargetAddr(name), text, strlen(text) + 1);
  };
  SharedMemory session(remote), code(remote);
  if (auto ok = named("ddbg-session"); !ok)
    return to_diagnostic(ok.error());
  if (auto ok = session.make(pidfd.get(), name, kSessionSize, 0); !ok)
    return ok;
  if (auto ok = named("ddbg-code"); !ok)
    return to_diagnostic(ok.error());
  if (auto ok = code.make(pidfd.get(), name, kCodeSize, MFD_EXEC); !ok)
    return ok;
  const int session_fd = session.in_target(), code_fd = code.in_target();

  struct Step {
    uint64_t address, size;
    int protection, flags, fd;
    uint64_t offset;
  };
  const Step steps[] = {
      {m.agent_stacks, kThreadSlots * kAgentStackSize, PROT_READ | PROT_WRITE,
       kAnonymous | MAP_NORESERVE, -1, 0},
      {m.session, kSessionSize, PROT_READ | PROT_WRITE, MAP_SHARED, session_fd, 0},
      {m.code_table, kCodeTableSize, PROT_READ, MAP_SHARED, code_fd, 0},
      {m.code_near_libs, kCodeNearLibsSize, PROT_READ | PROT_EXEC, MAP_SHARED, code_fd,
       kCodeNearLibsOffset},
      {m.code_near_main, m.code_near_main_size, PROT_READ | PROT_EXEC, MAP_SHARED, code_fd,
       kCodeNearMainOffset},
      {m.guest, m.guest_size, PROT_READ | PROT_WRITE, kAnonymous | MAP_NORESERVE, -1, 0},
  };
  for (const Step& s : steps)
    if (s.address)
      if (auto r = remote.map(s.address, s.size, s.protection, s.flags, s.fd, s.offset); !r)
        return r.error();
  if (auto r = remote.call("madvise", SYS_madvise, {m.session, kSessionSize, MADV_DONTFORK}); !r)
    return r.error();
  if (auto r = remote.call("mprotect", SYS_mprotect,
                           {m.agent_text, in.image.text_size, PROT_READ | PROT_EXEC});
      !r)
    return r.error();
  in.session_fd = session.take();
  in.code_fd = code.take();
  return {};
}

// What the backend found on its own threads, less what is refused for this process's.
uint32_t capabilities_for(const Tracee& thread, const dune::backend::Choice& choice) {
  uint32_t capabilities = choice.probe.capabilities;
  if (has_guest(choice)) {
    if (capabilities & kCapRing0)
      capabilities |= kCapProtectedAgent;
    capabilities &= kCapStep | kCapRing0 | kCapProtectedAgent | kCapDebugRegisters;
    const bool watches = capabilities & kCapDebugRegisters || accesses_can_be_counted();
    return capabilities | kCapSystemCalls | (watches ? uint32_t{kCapHardwareWatch} : 0);
  }
  if (!dune::Fd(dune::backend::open_kick(thread.tid())))
    capabilities &= ~kCapPreciseKick;
  return capabilities;
}

void fill_header(Injected& in, const dune::backend::Choice& choice) {
  Header& h = in.session().header;
  h.magic = kSessionMagic;
  h.version = kSessionVersion;
  h.header_size = sizeof(Header);
  h.total_size = kSessionSize;
  h.target_pid = in.config.target_pid;
  h.map = in.map;
  h.capabilities = in.capabilities;
  h.serving = (in.capabilities & kCapSystemCalls) != 0; // from the start, without sites
  strncpy(h.backend.name, choice.backend->name, sizeof h.backend.name - 1);
  strncpy(h.backend.why_chosen, choice.why.c_str(), sizeof h.backend.why_chosen - 1);
  h.backend.trap_ns = choice.probe.trap_ns;
  h.backend.syscall_ns = choice.probe.syscall_ns;
  h.stop_request = 1;
  h.stop_owner = kOwnedByFrontend;
  h.spin_limit = 2000;
  if (in.filters == Filters::kOthers)
    h.confinement = kConfinesAgent;
  show_life_in(h.keeper);
  for (auto& policy : h.signal_policy)
    policy = kSignalPass; // until the front end says otherwise
}

Checked<void> bring_up(Injected& in, const Tracee& thread, Detour& detour,
                       const dune::backend::Choice& choice) {
  Remote remote(thread, detour);
  if (auto ok = map_everything(in, remote); !ok)
    return ok.error();
  auto session = dune::Mapping::shared(in.session_fd.get(), kSessionSize);
  auto code = dune::Mapping::shared(in.code_fd.get(), kCodeSize);
  if (!session || !code)
    return to_diagnostic(!session ? session.error() : code.error());
  in.session_mapping = std::move(*session);
  in.code_mapping = std::move(*code);

  AgentConfig& c = in.config;
  c.session = in.map.session;
  c.code_table = in.map.code_table;
  c.stacks = in.map.agent_stacks;
  c.text_begin = in.map.agent_text;
  c.text_end = in.map.agent_text + in.image.text_size;
  c.block_end = in.map.agent_end;
  c.code_near_libs = in.map.code_near_libs;
  c.code_near_main = in.map.code_near_main;
  c.code_near_main_size = in.map.code_near_main_size;
  c.detour_begin = detour.system_call().value;
  c.detour_end = detour.mask_restored().value;
  c.target_pid = innermost_pid(in.pid);
  c.confined = read_status_field(thread.tid(), "Seccomp") != "0";
  c.unknown_filters = in.filters == Filters::kOthers || has_more_filters(thread.tid());
  c.xstate_size = xstate_format().extended_size;
  std::memcpy(c.xstate_features, &xstate_format().features, sizeof c.xstate_features);
  c.guest = in.map.guest;
  c.guest_size = in.map.guest_size;
  in.capabilities = capabilities_for(thread, choice);
  c.guest_kind = static_cast<uint32_t>(choice.backend->guest);
  using dune::backend::Placement;
  c.guest_placement =
      static_cast<uint32_t>(in.capabilities & kCapRing0 ? Placement::kRing0 : Placement::kRing3);
  c.owned = dune::agent::owned_signals(in.capabilities & kCapPreciseKick);
  c.has_fsgsbase = (read_auxv(in.pid, AT_HWCAP2) & dune::agent::kHwcap2Fsgsbase) != 0;
  if (auto ok = in.memory->write(TargetAddr(in.map.agent_text + in.image.config), &c, sizeof c);
      !ok)
    return to_diagnostic(ok.error());
  fill_header(in, choice);
  if (auto ok = thread.run_take(detour, errand_of(in, 0, in.image.take)); !ok)
    return to_diagnostic(ok.error());
  // What the agent has found out itself.
  if (auto ok = in.memory->read(TargetAddr(in.map.agent_text + in.image.config), &c, sizeof c); !ok)
    return to_diagnostic(ok.error());
  if (c.guest_refused)
    return Diagnostic{fmt::format("The process cannot be taken into a guest: {}.",
                                  strerror(static_cast<int>(c.guest_refused))),
                      "It needs access to the backend's device itself; try --backend signal.",
                      {}};
  return {};
}

} // namespace

Errand errand_of(const Injected& in, uint32_t slot, uint64_t function) {
  Errand errand;
  errand.run = TargetAddr(in.map.agent_text + in.image.run);
  errand.function = TargetAddr(in.map.agent_text + function);
  errand.stack = TargetAddr(dune::agent::block_of_slot(in.map.agent_stacks, slot) - 64);
  return errand;
}

Checked<Injected> inject_agent(pid_t pid, const Tracee& thread, Detour& detour,
                               const dune::backend::Choice& choice, Filters filters, Age age) {
  Injected in;
  in.pid = pid;
  in.image = image_header();
  auto memory = Memory::open(pid);
  if (!memory)
    return to_diagnostic(memory.error());
  in.memory = std::move(*memory);
  auto plan = plan_addresses(pid, has_guest(choice));
  if (!plan)
    return plan.error();
  in.map = *plan;
  in.filters = filters;
  // glibc ends a program whose first thread has one and whose second gets none.
  in.config.keeps_rseq = age == Age::kRunning;
  if (auto ok = bring_up(in, thread, detour, choice); !ok) {
    unmap_agent(in, thread, detour);
    return ok.error();
  }
  return in;
}

void unmap_agent(const Injected& in, const Tracee& thread, Detour& detour) {
  const std::pair<uint64_t, uint64_t> mappings[] = {
      {in.map.guest, in.map.guest_size},
      {in.map.code_near_main, in.map.code_near_main_size},
      {in.map.code_near_libs, kCodeNearLibsSize},
      {in.map.code_table, kCodeTableSize},
      {in.map.session, kSessionSize},
      {in.map.agent_stacks, kThreadSlots * kAgentStackSize},
      {in.map.agent_text, in.image.total_size},
  };
  for (auto [address, size] : mappings)
    if (address)
      (void)!thread.system_call(detour, SYS_munmap, std::array<uint64_t, 2>{address, size});
}

namespace {

// Writes the block of a thread that did not start under the agent, less its slot's number and what
// it blocks. Returns the mask that the kernel is to have for it.
Checked<uint64_t> adopt(Injected& in, const Tracee& thread, uint32_t slot, ThreadBlock block) {
  if (slot >= kThreadSlots)
    return Diagnostic{fmt::format("The process has more than {} threads.", kThreadSlots), {}, {}};
  auto mask = thread.signal_mask();
  if (!mask)
    return to_diagnostic(mask.error());
  block.slot = slot;
  block.blocked = *mask & in.config.owned;
  block.call_mask = *mask & ~in.config.owned;
  const TargetAddr block_at(dune::agent::block_of_slot(in.map.agent_stacks, slot));
  if (auto ok = in.memory->write(block_at, &block, sizeof block); !ok)
    return to_diagnostic(ok.error());
  Header& h = in.session().header;
  ThreadSlot& s = in.session().threads[slot];
  s.tid = innermost_pid(thread.tid());
  s.state = static_cast<uint32_t>(ThreadState::kStarting);
  h.live_threads++;
  h.slots_in_use = std::max(h.slots_in_use.load(), slot + 1);
  return block.call_mask;
}

// From the first of the two on the thread is the agent's, whether we live or not: the agent begins
// by blocking the signals, and means every one that comes before to be had later. `blocked` stay
// so: an ignored one that waits would be lost.
Checked<void> send(const Injected& in, const Tracee& thread, const user_regs_struct& entry,
                   uint64_t blocked) {
  uint64_t mask;
  if (auto ok = in.memory->read(TargetAddr(in.map.agent_text + in.image.mask), &mask, sizeof mask);
      !ok)
    return to_diagnostic(ok.error());
  if (auto ok = thread.set_registers(entry); !ok)
    return to_diagnostic(ok.error());
  if (auto ok = thread.set_signal_mask(mask | blocked); !ok)
    return to_diagnostic(ok.error());
  return {};
}

} // namespace

Checked<void> enter_agent(Injected& in, const Tracee& thread, uint32_t slot) {
  auto mask = adopt(in, thread, slot, {});
  if (!mask)
    return mask.error();
  auto regs = thread.registers();
  auto xstate = thread.xstate();
  if (!regs || !xstate)
    return to_diagnostic(!regs ? regs.error() : xstate.error());

  // The frame the kernel would have pushed for a signal, on the slot's stack.
  const XstateFormat& format = xstate_format();
  const uint64_t block = dune::agent::block_of_slot(in.map.agent_stacks, slot);
  const uint64_t fp = (block - 256 - format.extended_size) & ~uint64_t{63};
  const uint64_t frame_at = ((fp - sizeof(dune::KernelSigframe)) & ~uint64_t{15}) - 8;
  std::vector<uint8_t> image = *xstate;
  image.resize(format.extended_size);
  if (format.xstate_size) {
    const dune::FpSoftwareBytes software{dune::kFpXstateMagic1, format.extended_size,
                                         format.features, format.xstate_size};
    std::memcpy(image.data() + dune::kFpSwReservedOffset, &software, sizeof software);
    std::memcpy(image.data() + format.xstate_size, &dune::kFpXstateMagic2, 4);
  }
  dune::KernelSigframe frame{};
  frame.return_address = in.map.agent_text + in.image.restorer;
  frame.uc.flags = dune::kUcFpXstate | dune::kUcSigcontextSs | dune::kUcStrictRestoreSs;
  frame.uc.stack = dune::agent::stack_of_slot(in.map.agent_stacks, slot);
  frame.uc.sigmask = *mask;
  auto& m = frame.uc.mcontext;
  const user_regs_struct& r = *regs;
  copy_registers(m, r);
  m.cs = static_cast<uint16_t>(r.cs), m.ss = static_cast<uint16_t>(r.ss);
  m.fpstate = fp;
  if (auto ok = in.memory->write(TargetAddr(fp), image.data(), image.size()); !ok)
    return to_diagnostic(ok.error());
  if (auto ok = in.memory->write(TargetAddr(frame_at), &frame, sizeof frame); !ok)
    return to_diagnostic(ok.error());

  in.session().threads[slot].regs.rip = r.rip; // where it is, until it has parked
  user_regs_struct entry = r;
  entry.rip = in.map.agent_text + in.image.enter;
  entry.rsp = frame_at;
  entry.orig_rax = ~0ull;
  entry.eflags &= ~0x500ull; // DF, TF
  return send(in, thread, entry, *mask);
}

Checked<void> enter_agent_after_call(Injected& in, const Tracee& thread, uint32_t slot) {
  auto regs = thread.registers();
  if (!regs)
    return to_diagnostic(regs.error());
  *regs = as_restarted(*regs);
  ThreadBlock block{};
  copy_registers(block.call_regs, *regs);
  block.call_regs.eflags = 0; // it is not being stepped
  block.call_regs.rip = in.map.agent_text + in.image.stepped_call;
  block.stepped_call = regs->rip;
  auto mask = adopt(in, thread, slot, block);
  if (!mask)
    return mask.error();
  in.session().threads[slot].regs.rip = block.stepped_call + 2; // where it is, for a stop meanwhile
  regs->rip = in.map.agent_text + in.image.enter_call;
  regs->rsp = dune::agent::block_of_slot(in.map.agent_stacks, slot);
  regs->orig_rax = ~0ull;
  return send(in, thread, *regs, *mask);
}

} // namespace ddbg::keeper
