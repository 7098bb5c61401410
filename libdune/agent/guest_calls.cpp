// System calls of threads in a guest: made on the host side, in the thread that asks.
#include "libdune/agent/application.h"
#include "libdune/process/calls.h"

#include <asm/prctl.h>
#include <asm/resource.h>
#include <linux/prctl.h>

namespace dune::agent {

using namespace session;

namespace {

constexpr uint64_t kCloneVm = 0x100, kCloneFiles = 0x400, kCloneVfork = 0x4000,
                   kCloneSettls = 0x80000;

constexpr long kEagain = -11, kEfault = -14;

// Where it is, for a stop meanwhile: behind its call. It stays in this state until it parks or is
// about to enter the guest (guest_loop.cpp, settle).
void begin_call(ThreadBlock* t, const KernelSigcontext& m) {
  ThreadSlot& slot = slot_of(t);
  if (!takes_part(t))
    return;
  const backend::Cpu& cpu = guest_slot(t).cpu;
  registers_from(slot.regs, m);
  slot.regs.rip = m.rip + kSyscallLength;
  if (!t->call_32)
    slot.regs.rcx = slot.regs.rip;
  slot.regs.fs_base = cpu.regs.fs_base;
  slot.regs.gs_base = cpu.regs.gs_base;
  slot.state.store(static_cast<uint32_t>(ThreadState::kInCall));
}

long change_base(ThreadBlock* t, const KernelSigcontext& m) {
  Registers& r = guest_slot(t).cpu.regs;
  constexpr long kEperm = -1;
  switch (static_cast<int>(m.rdi)) {
  case ARCH_SET_FS:
  case ARCH_SET_GS:
    if (m.rsi >= kUserEnd)
      return kEperm;
    (m.rdi == ARCH_SET_FS ? r.fs_base : r.gs_base) = m.rsi;
    return 0;
  case ARCH_GET_FS:
    return write_user(t, m.rsi, &r.fs_base, 8) ? 0 : kEfault;
  case ARCH_GET_GS:
    return write_user(t, m.rsi, &r.gs_base, 8) ? 0 : kEfault;
  default:
    return forward_call(m, t);
  }
}

// In front of the handler of a SIGSYS by which the kernel has answered stands the call's number.
long shown_result(ThreadBlock* t, long result) {
  if (!t->call_refused)
    return result;
  t->call_refused = 0;
  return static_cast<long>(t->call_number);
}

void open_signal(int signal) {
  constexpr long kSigUnblock = 1;
  const SignalSet set = signal_bit(signal);
  syscall_of(__NR_rt_sigprocmask, kSigUnblock, address_of(&set), 0, sizeof set);
}

// --- Calls that are not about threads
// -------------------------------------------------------------

struct Call {
  ThreadBlock* thread;
  KernelSigcontext context;
};

Call call_with(ThreadBlock* t, const KernelSigcontext& m, const long args[6]) {
  Call c{t, m};
  c.context.rdi = static_cast<uint64_t>(args[0]);
  c.context.rsi = static_cast<uint64_t>(args[1]);
  c.context.rdx = static_cast<uint64_t>(args[2]);
  c.context.r10 = static_cast<uint64_t>(args[3]);
  c.context.r8 = static_cast<uint64_t>(args[4]);
  c.context.r9 = static_cast<uint64_t>(args[5]);
  return c;
}

struct Maker {
  ThreadBlock* thread;
  const KernelSigcontext* context;
};
// process::AddressSpace::Call
long make_change(void* maker, long number, const long args[6]) {
  const Maker& m = *static_cast<const Maker*>(maker);
  Call c = call_with(m.thread, *m.context, args);
  c.context.rax = static_cast<uint64_t>(number);
  return forward_call(c.context, m.thread);
}

// While a call is made under the lock of the mappings, or in pieces: the keeper, which can take a
// thread out of a forwarded call, lets it finish.
class CallInParts {
public:
  explicit CallInParts(ThreadBlock* t) : thread_(t) { set(1); }
  ~CallInParts() { set(0); }
  CallInParts(const CallInParts&) = delete;
  CallInParts& operator=(const CallInParts&) = delete;

private:
  void set(uint32_t value) { __atomic_store_n(&thread_->call_in_parts, value, __ATOMIC_SEQ_CST); }
  ThreadBlock* thread_;
};

// Makes the call for the pieces of what it names that are not ours, as `policy` says.
template <class Range, class Ours, class MakeOne>
long in_pieces(Range whole, Ours ours, const process::Policy& policy, MakeOne make) {
  auto from = whole.begin;
  while (auto piece = process::next_piece(whole, from, ours)) {
    if (policy.act == process::Policy::Act::kFirstPiece && piece->begin != whole.begin)
      break;
    if (const long result = make(*piece); is_errno(result))
      return result;
    if (policy.act == process::Policy::Act::kFirstPiece)
      break;
    from = piece->end;
  }
  return policy.answer;
}

long change_mappings(ThreadBlock* t, const KernelSigcontext& m, const process::Row& row,
                     const long args[6]) {
  using Act = process::Policy::Act;
  GuestRoom& room = guest_room();
  const std::span<const TargetRange> ours = own_memory();
  Maker maker{t, &m};
  const auto number = static_cast<long>(m.rax);
  const process::Policy policy = process::memory_policy(row, args, ours);
  if (policy.act == Act::kAnswer)
    return policy.answer;
  const CallInParts parts(t);
  if (policy.act == Act::kAsIs)
    return room.memory.change(number, args, make_change, &maker);
  return in_pieces(process::range_of(args), ours, policy, [&](TargetRange piece) {
    const long part[6] = {static_cast<long>(piece.begin.value),
                          static_cast<long>(piece.size()),
                          args[2],
                          args[3],
                          args[4],
                          args[5]};
    return room.memory.change(number, part, make_change, &maker);
  });
}

// All of the guest's lie at or above the first that it took.
bool may_name_ours(const process::Row& row, const long args[6]) {
  const process::DescriptorRange high{
      process::Descriptor(static_cast<uint64_t>(guest_room().guest.device)),
      process::Descriptor(uint64_t{1} << 32)};
  return process::descriptor_policy(row, args, {&high, 1}).act != process::Policy::Act::kAsIs;
}

long close_in_pieces(ThreadBlock* t, const KernelSigcontext& m, const process::Policy& policy,
                     std::span<const process::DescriptorRange> ours, const long args[6]) {
  const process::DescriptorRange whole{
      process::Descriptor(static_cast<uint32_t>(args[0])),
      process::Descriptor(uint64_t{static_cast<uint32_t>(args[1])} + 1)};
  return in_pieces(whole, ours, policy, [&](process::DescriptorRange piece) {
    const long part[6] = {static_cast<long>(piece.begin.value),
                          static_cast<long>(piece.end.value - 1), args[2]};
    const Call call = call_with(t, m, part);
    return forward_call(call.context, t);
  });
}

// What a folder of /proc shows, less what is ours. After a part that is all ours comes the next.
long list_folder(ThreadBlock* t, const KernelSigcontext& m) {
  for (;;) {
    const long size = forward_call(m, t);
    if (size <= 0)
      return size;
    if (const long left = hide_ours(t, m, size); left != 0)
      return left;
  }
}

// A limit of the program's that is raised now and then while a processor is opened.
bool is_about_descriptors(const KernelSigcontext& m) {
  const auto named = static_cast<uint32_t>(m.rax == __NR_prlimit64 ? m.rsi : m.rdi);
  return named == RLIMIT_NOFILE;
}
long make_limit_call(ThreadBlock* t, const KernelSigcontext& m) {
  const CallInParts parts(t);
  const process::Holder hold(guest_room().memory.mutex());
  return forward_call(m, t);
}

long set_time_stamps(ThreadBlock* t, const KernelSigcontext& m) {
  const long result = forward_call(m, t);
  show_time_stamps(t);
  return result;
}

long make_descriptor_call(ThreadBlock* t, const KernelSigcontext& m) {
  switch (m.rax) {
  case __NR_getdents:
  case __NR_getdents64:
    return list_folder(t, m);
  case __NR_getrlimit:
  case __NR_setrlimit:
  case __NR_prlimit64:
    return is_about_descriptors(m) ? make_limit_call(t, m) : forward_call(m, t);
  default:
    return forward_call(m, t);
  }
}

long make_identity_call(ThreadBlock* t, const KernelSigcontext& m) {
  switch (m.rax) {
  case __NR_prctl:
    if (static_cast<int>(m.rdi) == PR_SET_TSC)
      return set_time_stamps(t, m);
    [[fallthrough]];
  case __NR_seccomp:
    return make_confining_call(t, m);
  default:
    return forward_call(m, t);
  }
}

long forward_plain(ThreadBlock* t, const KernelSigcontext& m, process::Effect effect) {
  switch (effect) {
  case process::Effect::kDescriptor:
    return make_descriptor_call(t, m);
  case process::Effect::kIdentity:
    return make_identity_call(t, m);
  default:
    return forward_call(m, t);
  }
}

// --- The agent's memory, where it is protected ---------------------------------------------------

struct Arguments {
  explicit Arguments(const KernelSigcontext& m)
      : values{static_cast<long>(m.rdi), static_cast<long>(m.rsi), static_cast<long>(m.rdx),
               static_cast<long>(m.r10), static_cast<long>(m.r8),  static_cast<long>(m.r9)} {}
  long values[6];
};

bool read_for_call(void* thread, void* to, TargetAddr from, uint64_t size) {
  return read_user(static_cast<ThreadBlock*>(thread), to, from.value, size);
}
bool write_for_call(void* thread, TargetAddr to, const void* from, uint64_t size) {
  return write_user(static_cast<ThreadBlock*>(thread), to.value, from, size);
}

// True: the call is not made.
bool names_our_memory(ThreadBlock* t, const KernelSigcontext& m, process::CallCopy& copy) {
  return process::names_memory(process::policy_of(static_cast<uint32_t>(m.rax)),
                               Arguments(m).values, own_memory(), {read_for_call, t}, &copy);
}

// What an open has given may be a way to write to our memory.
long keep_if_harmless(long fd) {
  constexpr long kEacces = -13;
  if (!writes_our_memory(static_cast<int>(fd)))
    return fd;
  syscall_of(__NR_close, fd);
  return kEacces;
}

// --- All others ----------------------------------------------------------------------------------

long forward(ThreadBlock* t, const KernelSigcontext& m, const process::CallCopy& copy) {
  using process::Effect;
  const Arguments arguments(m);
  const long(&args)[6] = arguments.values;
  const process::Row& row = process::policy_of(static_cast<uint32_t>(m.rax));
  if (!process::is_known(row))
    guest_room().unknown_calls.count(static_cast<uint32_t>(m.rax));
  if (may_name_ours(row, args)) {
    process::DescriptorRange found[8];
    const std::span<const process::DescriptorRange> ours{found, own_descriptors(found)};
    const process::Policy policy = process::descriptor_policy(row, args, ours);
    if (policy.act == process::Policy::Act::kAnswer)
      return policy.answer;
    if (policy.act != process::Policy::Act::kAsIs)
      return close_in_pieces(t, m, policy, ours, args);
  }
  const Effect effect = process::effect_of(row, args);
  const bool kept_rseq = m.rax == __NR_rseq && agent_config.keeps_rseq;
  if ((effect == Effect::kAbsent && !kept_rseq) || (effect == Effect::kUnguarded && is_protected()))
    return -long{process::error_of(row, args)};
  if (effect == Effect::kMemory)
    return change_mappings(t, m, row, args);
  if (effect == Effect::kIdentity && m.rax == __NR_arch_prctl)
    return change_base(t, m);
  if (!is_protected())
    return forward_plain(t, m, effect);
  const Call call = call_with(t, m, copy.arguments());
  const long result = copy.finish(forward_plain(t, call.context, effect), {write_for_call, t});
  return effect == Effect::kOpen && !is_errno(result) ? keep_if_harmless(result) : result;
}

// The arguments of a clone3, as far as they are known here.
struct CloneArguments {
  uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
  uint64_t more[24];
};

// The new thread's first steps are on its slot's stack, and its program's on the one it was given.
long make_thread(ThreadBlock* t, const KernelUcontext* uc, ThreadBlock* child) {
  const KernelSigcontext& m = uc->mcontext;
  GuestSlot& parent = guest_slot(t);
  GuestSlot& g = guest_slot(child);
  const KernelStack stack = stack_of_slot(agent_config.stacks, child->slot);
  const uint64_t top = (stack.sp + stack.size - 64) & ~uint64_t{15};
  *reinterpret_cast<uint64_t*>(top) = address_of(child);
  KernelSigcontext call = m;
  CloneArguments arguments{};
  uint64_t flags, new_stack, tls;
  if (m.rax == __NR_clone3) {
    if (m.rsi > sizeof arguments || !read_user(t, &arguments, m.rdi, m.rsi))
      return forward_call(m, t); // the kernel says which error
    flags = arguments.flags;
    new_stack = arguments.stack ? arguments.stack + arguments.stack_size : 0;
    tls = arguments.tls;
    arguments.stack = stack.sp;
    arguments.stack_size = top - stack.sp;
    call.rdi = address_of(&arguments);
  } else {
    constexpr uint64_t kVforkFlags = kCloneVm | kCloneVfork | kSigChld;
    flags = m.rax == __NR_vfork ? kVforkFlags : m.rdi;
    new_stack = m.rax == __NR_vfork ? 0 : m.rsi;
    tls = m.r8;
    call.rax = __NR_clone;
    call.rdi = flags;
    call.rsi = top;
  }
  if (!open_processor(child))
    return kEagain;
  fetch_vectors(t);
  g.first_home = *uc;
  KernelSigcontext& home = g.first_home.mcontext;
  home.rax = 0;
  home.rip = home.rcx = m.rip + kSyscallLength;
  home.r11 = m.eflags;
  home.eflags &= ~kEflagsTrap;
  if (new_stack)
    home.rsp = new_stack;
  home.fpstate = address_of(g.vectors);
  memcpy(g.vectors, parent.vectors, agent_config.xstate_size);
  g.first_home.stack = stack;
  g.cpu.regs.fs_base = flags & kCloneSettls ? tls : parent.cpu.regs.fs_base;
  g.cpu.regs.gs_base = parent.cpu.regs.gs_base;
  return t->call_judged ? agent_forward_clone_judged(&call, child)
                        : agent_forward_clone(&call, child);
}

// Of a call that makes a process.
bool shares_descriptors(ThreadBlock* t, const KernelSigcontext& m) {
  uint64_t flags = m.rax == __NR_clone ? m.rdi : 0;
  return !(m.rax == __NR_clone3 && !read_user(t, &flags, m.rdi, sizeof flags)) &&
         flags & kCloneFiles;
}

// The program's last thread ends the process. A thread that KVM keeps in it would not be outlived.
long make_exit(ThreadBlock* t, const KernelSigcontext& m) {
  KernelSigcontext call = m;
  if (takes_part(t) && header().live_threads.load() == 0)
    call.rax = __NR_exit_group;
  return forward_call(call, t);
}

void make_process_call(ThreadBlock* t, KernelUcontext* uc) {
  KernelSigcontext& m = uc->mcontext;
  hold_signals(t);
  if (t->has_signal)
    return;
  const uint64_t call_at = m.rip;
  const ProcessCall made = begin_process_call(t, uc);
  if (m.rip != call_at)
    return; // a stop has sent it elsewhere
  if (made.call == PendingCall::kThread && !made.child)
    return answer(t, uc, kEagain); // no slot: a thread cannot run in the guest without
  t->pending_call = made.call;
  t->cloned = reinterpret_cast<uint64_t>(made.child);
  t->call_mask = uc->sigmask;
  if (m.rax == __NR_exit) // that leaves its slot
    close_counters(guest_slot(t));
  else
    begin_call(t, m);
  if (m.rax == __NR_execve || m.rax == __NR_execveat)
    set_kernel_mask(program_mask(t, uc->sigmask)); // what a new image inherits
  else if (agent_config.confined && !t->call_judged && !(uc->sigmask & signal_bit(kSigSys)))
    open_signal(kSigSys); // by which a filter may answer: blocked, it would kill
  if (made.call == PendingCall::kFork)
    fetch_vectors(t);
  const bool shares = made.call == PendingCall::kFork && shares_descriptors(t, m);
  const long result = made.child           ? make_thread(t, uc, made.child)
                      : m.rax == __NR_exit ? make_exit(t, m)
                                           : forward_call(m, t);
  if (made.call == PendingCall::kFork && result == 0)
    process.detached = 1;
  const KernelSigcontext before = m;
  m.rax = static_cast<uint64_t>(result);
  m.rip += kSyscallLength;
  m.rcx = m.rip;
  m.r11 = m.eflags;
  registers_from(t->call_regs, m);
  agent_after_call(t);
  if (result == kNotMade) { // to those who waited for it, it has failed; then the signal, and again
    m = before;
    return;
  }
  m.rax = static_cast<uint64_t>(shown_result(t, result));
  t->trap_flag = TrapFlag::kProgram;
  if (made.call == PendingCall::kFork && result == 0) {
    uc->sigmask = t->call_mask;
    uc->stack = t->altstack;
    if (!shares)
      close_process_guest(); // the descriptors, of a guest that is not its own
    return;
  }
  t->landing = steps(t);
  if (t->landing)
    go_on(t, uc, 0);
}

} // namespace

namespace {

constexpr uint64_t kMostCopied = 512;

// Made, or about to be made again; `call` has the arguments.
void make_plain_call(ThreadBlock* t, KernelUcontext* uc, const KernelSigcontext& call,
                     const process::CallCopy& copy) {
  begin_call(t, uc->mcontext);
  // Whoever wants a stop has seen this thread in its call, or is seen here.
  const long result = stop_wanted(t) ? kNotMade : forward(t, call, copy);
  if (result == kNotMade)
    return;
  end_wait(t, call, result);
  answer(t, uc, shown_result(t, result));
}

void make_known_call_32(ThreadBlock* t, KernelUcontext* uc, const KernelSigcontext& call) {
  std::byte room[kMostCopied];
  process::CallCopy copy(room);
  switch (process::effect_of(process::policy_of(static_cast<uint32_t>(call.rax)),
                             Arguments(call).values)) {
  case process::Effect::kThread: { // its end
    const KernelSigcontext before = uc->mcontext;
    uc->mcontext.rax = call.rax;
    uc->mcontext.rdi = call.rdi;
    t->call_32 = 0;
    make_process_call(t, uc);
    uc->mcontext = before; // a signal came first
    return;
  }
  default:
    if (is_protected() && names_our_memory(t, call, copy))
      return answer(t, uc, kEfault);
    return make_plain_call(t, uc, call, copy);
  }
}

} // namespace

void make_guest_call_32(ThreadBlock* t, KernelUcontext* uc) {
  constexpr long kEnosys = -38;
  const KernelSigcontext& m = uc->mcontext;
  const auto low = [](uint64_t value) { return uint64_t{static_cast<uint32_t>(value)}; };
  KernelSigcontext call = m;
  call.rdi = low(m.rbx);
  call.rsi = low(m.rcx);
  call.rdx = low(m.rdx);
  call.r10 = low(m.rsi);
  call.r8 = low(m.rdi);
  call.r9 = low(m.rbp);
  t->call_number = low(m.rax);
  t->last_rsp = m.rsp;
  t->call_32 = 1;
  if (!judge_call(t, uc, call)) {
    if (const auto native = process::native_of_32_bits(static_cast<uint32_t>(m.rax))) {
      call.rax = *native;
      make_known_call_32(t, uc, call);
    } else {
      answer(t, uc, kEnosys);
    }
  }
  t->call_32 = 0;
}

namespace {

// Those that only the kernel has to see. Nobody stops the thread in there, so nobody has to find
// its registers; a signal ends the next run.
bool pass(KernelSigcontext& m) {
  const process::Row& row = process::policy_of(static_cast<uint32_t>(m.rax));
  if (agent_config.confined || !process::passes_always(row))
    return false;
  const uint64_t args[] = {m.rdi, m.rsi, m.rdx, m.r10, m.r8, m.r9};
  const auto lowest_own = static_cast<uint32_t>(guest_room().guest.device);
  for (unsigned i = 0; i < row.argument_count; ++i)
    if (row.arguments[i].kind == process::Kind::kDescriptor &&
        static_cast<uint32_t>(args[i]) >= lowest_own)
      return false;
  const long result = agent_forward(&m, current());
  m.rax = static_cast<uint64_t>(result);
  return result != kNotMade;
}

} // namespace

backend::PassCall* pass_call() { return pass; }

void make_guest_call(ThreadBlock* t, KernelUcontext* uc) {
  KernelSigcontext& m = uc->mcontext;
  if (is_application() && m.rax == kApplicationCall) {
    m.rax = static_cast<uint64_t>(application_call(m));
    return;
  }
  m.rip -= kSyscallLength;
  t->call_number = m.rax;
  t->last_rsp = m.rsp;
  if (judge_call(t, uc, m))
    return;
  std::byte room[kMostCopied];
  process::CallCopy copy(room);
  if (is_protected() && names_our_memory(t, m, copy))
    return answer(t, uc, kEfault);
  const process::Row& row = process::policy_of(static_cast<uint32_t>(m.rax));
  switch (process::effect_of(row, Arguments(m).values)) {
  case process::Effect::kThread:
    return make_process_call(t, uc);
  case process::Effect::kSignal:
    if (answer_signal_call(t, uc))
      return;
    break;
  default:
    break;
  }
  make_plain_call(t, uc, m, copy);
}

} // namespace dune::agent
