// Seccomp in Dune mode. A program's filter is installed in the kernel with lines in front of it
// (calls_confine.cpp), as without a guest; it stays when ddbg goes, and children and new images
// inherit it. But calls from a guest are all made by the agent, from one address, some in another
// form than the program's and some not at all. So the agent keeps what the program has installed,
// runs it itself on the call that the program makes, and has a call that may be made let pass by
// the kernel. What only the kernel can do it does: a call whose verdict it is to log, to ask a
// tracer or to ask a supervisor goes to where the filter judges it there.
//
// With filters that are not known (from before we came) the kernel judges what the agent forwards.
#include "libdune/agent/guest_loop.h"
#include "libdune/arch/seccomp_filter.h"

#include <linux/audit.h>
#include <linux/prctl.h>

namespace dune::agent {

using namespace session;

namespace {

bool knows_filters(const ThreadBlock* t) {
  return t->filters && !t->unknown_filters && !agent_config.unknown_filters;
}

// The program's own address, also of a call that is made from a displaced copy.
uint64_t behind_call(ThreadBlock* t, const KernelUcontext* uc) {
  KernelUcontext behind = *uc;
  behind.mcontext.rip += kSyscallLength;
  uint64_t counted = 0;
  if (in_arena(uc->mcontext.rip))
    (void)to_program(t, &behind, &counted);
  return behind.mcontext.rip;
}

uint32_t arch_of_call(const ThreadBlock* t) {
  return t->call_32 ? uint32_t{AUDIT_ARCH_I386} : uint32_t{AUDIT_ARCH_X86_64};
}

uint32_t verdict_on(const ThreadBlock* t, const KernelSigcontext& m, uint64_t behind) {
  seccomp_data data{};
  data.nr = static_cast<int>(t->call_number);
  data.arch = arch_of_call(t);
  data.instruction_pointer = behind;
  const uint64_t args[] = {m.rdi, m.rsi, m.rdx, m.r10, m.r8, m.r9};
  for (int i = 0; i < 6; ++i)
    data.args[i] = args[i];
  uint32_t verdict = SECCOMP_RET_ALLOW;
  for (auto* f = reinterpret_cast<const SeccompFilter*>(t->filters); f; f = f->older)
    if (const uint32_t one = seccomp_verdict({f->lines, f->count}, data); outranks(one, verdict))
      verdict = one;
  return verdict;
}

KernelSiginfo refusal_of(const ThreadBlock* t, uint64_t behind, uint32_t verdict) {
  constexpr int kSysSeccomp = 1;
  KernelSiginfo info{};
  info.signal = kSigSys;
  info.error = static_cast<int32_t>(verdict & SECCOMP_RET_DATA);
  info.code = kSysSeccomp;
  info.fields[0] = behind; // si_call_addr, si_syscall, si_arch
  info.fields[1] = static_cast<uint32_t>(t->call_number) | uint64_t{arch_of_call(t)} << 32;
  return info;
}

void end_process(ThreadBlock* t, KernelUcontext* uc, const KernelSiginfo& info) {
  KernelSigcontext& m = uc->mcontext;
  m.rip = info.fields[0];
  if (!t->call_32) {
    m.rcx = m.rip;
    m.r11 = m.eflags;
  }
  hold_signals(t);
  hold_back(signal_bit(kSigSys)); // until the thread is where its core is to show it
  default_action(t, uc, &info);
}

// Forced: where the program blocks or ignores it, it kills.
void raise(ThreadBlock* t, KernelUcontext* uc, KernelSiginfo info) {
  if ((program_mask(t, uc->sigmask) & signal_bit(kSigSys)) ||
      process.actions[kSigSys].handler == kSigIgn)
    return end_process(t, uc, info);
  uc->mcontext.rip = info.fields[0] - kSyscallLength;
  answer(t, uc, static_cast<long>(uc->mcontext.rax), &info);
}

// By the kernel, where its filter says the same: so the thread ends as one that was killed.
void end_thread(ThreadBlock* t, KernelUcontext* uc, const KernelSigcontext& call,
                const KernelSiginfo& info) {
  if (!takes_part(t) || header().live_threads.load() <= 1)
    return end_process(t, uc, info);
  hold_signals(t);
  if (t->has_signal)
    return;
  uc->mcontext.rax = __NR_exit;
  (void)begin_process_call(t, uc);
  close_counters(guest_slot(t));
  if (header().live_threads.load() == 0) { // the others have ended just now
    default_action(t, uc, &info);
    set_kernel_mask(~signal_bit(kSigSys));
  }
  forward_call(call, t);
  for (;;)
    syscall_of(__NR_exit, 0);
}

// Null: there is no room.
const SeccompFilter* keep(const SeccompFilter* older, std::span<const sock_filter> program) {
  SeccompFilters& all = guest_room().filters;
  const uint64_t size = sizeof(SeccompFilter) + program.size_bytes();
  if (size > sizeof all.room - all.used)
    return nullptr;
  auto* filter = reinterpret_cast<SeccompFilter*>(all.room + all.used);
  all.used += static_cast<uint32_t>(size);
  filter->older = older;
  filter->count = static_cast<uint32_t>(program.size());
  memcpy(filter->lines, program.data(), program.size_bytes());
  return filter;
}

bool same_process(const ThreadBlock* a, const ThreadBlock* b) {
  return a->passthrough == b->passthrough && a->child_pid == b->child_pid;
}

// The kernel has installed it, for the thread or for all of its process.
void record(ThreadBlock* t, bool for_all, const std::span<const sock_filter>* program) {
  SeccompFilters& all = guest_room().filters;
  SpinLock lock(all.lock);
  const SeccompFilter* kept =
      program ? keep(reinterpret_cast<const SeccompFilter*>(t->filters), *program) : nullptr;
  const auto filters = kept ? reinterpret_cast<uint64_t>(kept) : t->filters;
  const uint32_t unknown = t->unknown_filters || !kept;
  for (uint32_t i = 0; i < header().slots_in_use.load() && i < kThreadSlots; ++i)
    if (ThreadBlock* other = block_at(i); other == t || (for_all && same_process(other, t))) {
      other->filters = filters;
      other->unknown_filters = unknown;
    }
}

// Whether the call, with this result, has installed a filter.
bool has_installed(const KernelSigcontext& m, long result) {
  if (m.rax == __NR_prctl)
    return static_cast<int>(m.rdi) == PR_SET_SECCOMP && result == 0;
  if (static_cast<uint32_t>(m.rdi) == SECCOMP_GET_ACTION_AVAIL ||
      static_cast<uint32_t>(m.rdi) == SECCOMP_GET_NOTIF_SIZES)
    return false;
  return result == 0 || (result > 0 && (m.rsi & SECCOMP_FILTER_FLAG_NEW_LISTENER));
}

} // namespace

bool judge_call(ThreadBlock* t, KernelUcontext* uc, const KernelSigcontext& call) {
  t->call_judged = 0;
  if (!knows_filters(t))
    return false;
  constexpr uint32_t kMostErrno = 4095;
  const uint64_t behind = behind_call(t, uc);
  const uint32_t verdict = verdict_on(t, call, behind);
  const uint32_t data = verdict & SECCOMP_RET_DATA;
  switch (verdict & SECCOMP_RET_ACTION_FULL) {
  case SECCOMP_RET_ALLOW:
    t->call_judged = 1;
    return false;
  case SECCOMP_RET_LOG:
  case SECCOMP_RET_TRACE:
  case SECCOMP_RET_USER_NOTIF:
    return false;
  case SECCOMP_RET_ERRNO:
    answer(t, uc, -static_cast<long>(data < kMostErrno ? data : kMostErrno));
    return true;
  case SECCOMP_RET_TRAP:
    raise(t, uc, refusal_of(t, behind, verdict));
    return true;
  case SECCOMP_RET_KILL_THREAD:
    end_thread(t, uc, call, refusal_of(t, behind, verdict));
    return true;
  default:
    end_process(t, uc, refusal_of(t, behind, verdict));
    return true;
  }
}

long make_confining_call(ThreadBlock* t, const KernelSigcontext& m) {
  constexpr long kEnomem = -12;
  KernelSigcontext call = m;
  const Confinement prepared = prepare_confining(t, call);
  if (prepared == Confinement::kNoMemory)
    return kEnomem;
  const long result = forward_call(call, t);
  if (has_installed(call, result)) {
    std::span<const sock_filter> program;
    if (prepared == Confinement::kOnItsWay)
      program = filter_being_installed(t);
    const bool for_all = call.rax == __NR_seccomp && (call.rsi & SECCOMP_FILTER_FLAG_TSYNC);
    record(t, for_all, prepared == Confinement::kOnItsWay ? &program : nullptr);
  }
  if (prepared == Confinement::kOnItsWay) {
    call.rax = static_cast<uint64_t>(result);
    end_confining(t, &call, result != kNotMade);
  }
  return result;
}

void inherit_filters(ThreadBlock* child, const ThreadBlock* parent) {
  SpinLock lock(guest_room().filters.lock);
  child->filters = parent->filters;
  child->unknown_filters = parent->unknown_filters;
}

} // namespace dune::agent
