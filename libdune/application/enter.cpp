// The way into Dune mode: the library brings the agent's image into its own process, as the keeper
// does into a target, and lets it take the calling thread.
#include "libdune/include/dune/enter.h"

#include "libdune/application/process.h"
#include "libdune/backend/probe_hosted.h"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <dirent.h>
#include <optional>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

extern "C" const char dune_agent_image_begin[], dune_agent_image_end[];

namespace dune {

namespace {

using agent::AgentConfig;
using agent::ApplicationEntry;
using agent::ImageHeader;

// All that is the agent's in this process: one piece of address space.
struct Block {
  uint64_t begin = 0, size = 0;
  AgentConfig* config = nullptr;
  const char* backend = nullptr;
};
Block g_block;

ImageHeader image_header() {
  ImageHeader header;
  std::memcpy(&header, dune_agent_image_begin, sizeof header);
  return header;
}

Error refused(const char* text) { return {Errc::kSystem, text, errno}; }

Result<size_t> count_threads() {
  DIR* threads = opendir("/proc/self/task");
  if (!threads)
    return refused("cannot look into /proc/self/task for other threads");
  size_t count = 0;
  while (const dirent* entry = readdir(threads))
    count += entry->d_name[0] != '.';
  closedir(threads);
  return count;
}

// Places within the block, which is aligned to the largest alignment that one of them needs.
struct Places {
  uint64_t text, stacks, trap_stacks, session, code_table, code, end_of_ours, guest, end;
};
constexpr uint64_t kAlignment = agent::kTrapStacksSize;
static_assert(kAlignment % session::kAgentStackSize == 0);

Places places(const ImageHeader& image) {
  uint64_t at = 0;
  const auto take = [&at](uint64_t size, uint64_t alignment) {
    const uint64_t begin = (at + alignment - 1) & ~(alignment - 1);
    at = begin + size;
    return begin;
  };
  Places p{};
  p.text = take(image.total_size, kPageSize);
  p.stacks = take(session::kThreadSlots * session::kAgentStackSize, session::kAgentStackSize);
  p.trap_stacks = take(session::kThreadSlots * agent::kTrapStacksSize, agent::kTrapStacksSize);
  p.session = take(session::kSessionSize, kPageSize);
  p.code_table = take(session::kCodeTableSize, kPageSize);
  p.code = take(session::kCodeNearLibsSize, kPageSize);
  p.end_of_ours = at;
  p.guest = take(agent::kGuestRoomSize, kPageSize);
  p.end = at;
  return p;
}

Status map_block(Block& block, const ImageHeader& image, const Places& p) {
  const uint64_t wanted = p.end + kAlignment;
  void* reserved =
      mmap(nullptr, wanted, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED)
    return refused("no address space for the agent (ulimit -v)");
  const uint64_t all = reinterpret_cast<uint64_t>(reserved);
  block.begin = (all + kAlignment - 1) & ~(kAlignment - 1);
  block.size = p.end;
  const auto at = [&](uint64_t place) { return reinterpret_cast<void*>(block.begin + place); };
  if (block.begin > all)
    munmap(reserved, block.begin - all);
  if (const uint64_t behind = all + wanted - (block.begin + p.end))
    munmap(at((p.end + kPageSize - 1) & ~(kPageSize - 1)), behind & ~(kPageSize - 1));
  const auto open = [&](uint64_t from, uint64_t to) {
    return mprotect(at(from), to - from, PROT_READ | PROT_WRITE) == 0;
  };
  if (!open(p.text, p.code) || !open(p.guest, p.end))
    return refused("no memory for the agent");
  std::memcpy(at(p.text), dune_agent_image_begin,
              static_cast<size_t>(dune_agent_image_end - dune_agent_image_begin));
  if (mprotect(at(p.text), image.text_size, PROT_READ | PROT_EXEC) != 0)
    return refused("the agent's code may not be executed");
  prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, block.begin, p.code, "dune");
  return {};
}

void give_up(Block& block) {
  if (block.begin)
    munmap(reinterpret_cast<void*>(block.begin), block.size);
  block = {};
}

void configure(Block& block, const ImageHeader& image, const Places& p,
               const backend::Choice& choice) {
  using namespace session;
  const uint64_t begin = block.begin;
  AgentConfig& c = *reinterpret_cast<AgentConfig*>(begin + image.config);
  c.session = begin + p.session;
  c.code_table = begin + p.code_table;
  c.stacks = begin + p.stacks;
  c.text_begin = begin;
  c.text_end = begin + image.application; // behind it is what the program runs in ring 0
  c.block_end = begin + p.end_of_ours;
  c.code_near_libs = begin + p.code;
  c.target_pid = static_cast<uint32_t>(getpid());
  c.confined = prctl(PR_GET_SECCOMP) != 0;
  c.unknown_filters = c.confined;
  c.keeps_rseq = 1;
  c.has_fsgsbase = 1; // see enter()
  c.guest = begin + p.guest;
  c.guest_size = agent::kGuestRoomSize;
  c.guest_kind = static_cast<uint32_t>(choice.backend->guest);
  c.guest_placement = static_cast<uint32_t>(backend::Placement::kRing0);
  c.trap_stacks = begin + p.trap_stacks;
  block.config = &c;
  block.backend = choice.backend->name;

  Header& h = reinterpret_cast<Session*>(c.session)->header;
  h.magic = kSessionMagic;
  h.version = kSessionVersion;
  h.header_size = sizeof(Header);
  h.total_size = kSessionSize;
  h.target_pid = c.target_pid;
  h.capabilities = kCapSystemCalls | kCapRing0;
  h.serving = 1;
  h.abandoned = 1; // nobody stops it, ever
  for (auto& policy : h.signal_policy)
    policy = kSignalPass;
}

// The calling thread becomes the agent's in the handler of a signal, which has all of its state as
// the kernel saves it.
Status send_in(const Block& block, const ImageHeader& image) {
  constexpr int kSignal = session::kKickSignal;
  ApplicationEntry entry{};
  KernelSigaction ours{};
  ours.handler = block.begin + image.enter_application;
  ours.flags = kSaSiginfo | kSaOnstack | kSaRestorer;
  ours.restorer = block.begin + image.restorer;
  ours.mask = ~SignalSet{0};
  KernelStack stack = agent::stack_of_slot(block.config->stacks, 0);
  const SignalSet signal = signal_bit(kSignal);
  KernelSiginfo info{};
  info.signal = kSignal;
  info.code = kSiQueue;
  info.rt.pid = getpid();
  info.rt.uid = getuid();
  info.rt.value = reinterpret_cast<uint64_t>(&entry);
  syscall(SYS_sigaltstack, &stack, &entry.altstack);
  syscall(SYS_rt_sigaction, kSignal, &ours, &entry.action, sizeof(SignalSet));
  syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &signal, &entry.mask, sizeof(SignalSet));
  entry.error = EAGAIN;
  entry.text = "the kernel queues no signal (ulimit -i)";
  syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), kSignal, &info);
  if (!entry.error)
    return {};
  syscall(SYS_rt_sigaction, kSignal, &entry.action, nullptr, sizeof(SignalSet));
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &entry.mask, nullptr, sizeof(SignalSet));
  entry.altstack.flags &= ~kSsOnstack;
  syscall(SYS_sigaltstack, &entry.altstack, nullptr);
  return Error{Errc::kSystem, entry.text, entry.error};
}

// Not there at all, as opposed to being there and not for us.
bool is_absent(const Error& e) { return e.code == Errc::kSystem && e.detail == ENOENT; }

Result<backend::Choice> choose(const char* wanted) {
  std::optional<Error> said;
  for (const backend::Backend& b : backend::all()) {
    if (b.guest == backend::GuestKind::kNone || (wanted && std::strcmp(wanted, b.name) != 0))
      continue;
    const auto& found = backend::probe(b);
    if (found && (found->capabilities & session::kCapRing0))
      return backend::Choice{&b, *found, {}};
    const Error why =
        found ? Error{Errc::kUnsupported, "ring 0 is emulated by software here"} : found.error();
    if (wanted || !said)
      said = why;
    else if (is_absent(*said))
      said = is_absent(why)
                 ? Error{Errc::kSystem, "there is neither /dev/dune nor /dev/kvm", ENOENT}
                 : why;
  }
  if (!said)
    return Error{Errc::kInvalid, "no backend of that name has a ring 0 for programs"};
  return *said;
}

} // namespace

namespace application {
AgentConfig* config() { return g_block.config; }
} // namespace application

Status enter(const EnterOptions& options) {
  if (inside())
    return Error{Errc::kInvalid, "the thread is in Dune mode already"};
  if (g_block.begin && g_block.config->target_pid == static_cast<uint32_t>(getpid()))
    return Error{Errc::kInvalid, "the process is in Dune mode, and this thread has left it"};
  if (!(getauxval(AT_HWCAP2) & agent::kHwcap2Fsgsbase))
    return Error{Errc::kUnsupported, "the processor or the kernel has no FSGSBASE"};
  // A handler of this process's parent has forked, and is still to come back.
  if (const uint64_t here = reinterpret_cast<uint64_t>(__builtin_frame_address(0));
      here - g_block.begin < g_block.size)
    return Error{Errc::kInvalid, "within an exception's handler; enter when that has come back"};
  const auto threads = count_threads();
  if (!threads)
    return threads.error();
  if (*threads != 1)
    return Error{Errc::kInvalid, "the process has other threads already; enter before making any"};
  give_up(g_block); // of the parent, which this process was forked from
  auto choice = choose(options.backend);
  if (!choice)
    return choice.error();
  const ImageHeader image = image_header();
  const Places p = places(image);
  Block block;
  Status ok = map_block(block, image, p);
  if (ok) {
    configure(block, image, p, *choice);
    g_block = block;
    application::begin_views();
    ok = send_in(g_block, image);
    if (ok) {
      block.config->threads_forgotten = block.config->threads_begun;
      block.config->has_tags = options.view_tags && application::finds_tags();
    }
  }
  if (!ok)
    give_up(block), g_block = {};
  return ok;
}

const char* backend_name() { return inside() ? g_block.backend : nullptr; }

} // namespace dune
