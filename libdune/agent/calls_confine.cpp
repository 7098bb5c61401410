// A program that confines itself with seccomp. Its filters are to judge its own system calls and
// not the agent's, which it knows nothing of: in front of each go lines that let pass what comes
// from the agent's text, and from where the keeper has a thread call something. What the agent
// calls for the program comes from entry.S's .program_calls, behind that.
#include "libdune/agent/guest_loop.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/mman.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>

namespace dune::agent {

using namespace session;

namespace {

struct Filter {
  sock_fprog program;
  sock_filter lines[BPF_MAXINSNS];
};

class FilterWriter {
public:
  explicit FilterWriter(Filter& filter) : filter_(filter) {
    filter_.program.len = 0;
    filter_.program.filter = filter_.lines;
  }
  void statement(int code, uint32_t k) { jump(code, k, 0, 0); }
  void jump(int code, uint32_t k, int if_true, int if_false) {
    filter_.lines[filter_.program.len++] = {static_cast<uint16_t>(code),
                                            static_cast<uint8_t>(if_true),
                                            static_cast<uint8_t>(if_false), k};
  }
  void load(uint64_t offset) { statement(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)); }

private:
  Filter& filter_;
};

// The kernel tells where a `syscall` ends. `begin` and `end` have the same upper half, which no
// 32-bit code comes to.
void exempt(FilterWriter& w, uint64_t begin, uint64_t end) {
  constexpr uint64_t kLow = offsetof(seccomp_data, instruction_pointer), kHigh = kLow + 4;
  w.load(kHigh);
  w.jump(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(begin >> 32), 0, 4);
  w.load(kLow);
  w.jump(BPF_JMP | BPF_JGT | BPF_K, static_cast<uint32_t>(begin), 0, 2);
  w.jump(BPF_JMP | BPF_JGT | BPF_K, static_cast<uint32_t>(end), 1, 0);
  w.statement(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
}

constexpr uint32_t kPreamble = 13;
void append_preamble(FilterWriter& w) {
  exempt(w, agent_config.text_begin, reinterpret_cast<uint64_t>(agent_program_calls));
  exempt(w, agent_config.detour_begin, agent_config.detour_end);
  w.statement(BPF_LD | BPF_IMM, 0); // what a filter begins with
}

constexpr uint32_t kStrictCalls[] = {__NR_read, __NR_write, __NR_exit, __NR_rt_sigreturn};

void append_strict_mode(FilterWriter& w) {
  w.load(offsetof(seccomp_data, arch));
  w.jump(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
  w.statement(BPF_RET | BPF_K, SECCOMP_RET_KILL_THREAD);
  w.load(offsetof(seccomp_data, nr));
  for (uint32_t number : kStrictCalls) {
    w.jump(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
    w.statement(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  }
  w.statement(BPF_RET | BPF_K, SECCOMP_RET_KILL_THREAD);
}

enum class Wish { kNone, kStrict, kFilter };

Wish wish_of(const KernelSigcontext& m) {
  if (m.rax == __NR_prctl && static_cast<int>(m.rdi) == PR_SET_SECCOMP)
    return m.rsi == SECCOMP_MODE_FILTER   ? Wish::kFilter
           : m.rsi == SECCOMP_MODE_STRICT ? Wish::kStrict
                                          : Wish::kNone;
  if (m.rax != __NR_seccomp)
    return Wish::kNone;
  const auto operation = static_cast<uint32_t>(m.rdi), flags = static_cast<uint32_t>(m.rsi);
  if (operation == SECCOMP_SET_MODE_FILTER)
    return Wish::kFilter;
  return operation == SECCOMP_SET_MODE_STRICT && !flags && !m.rdx ? Wish::kStrict : Wish::kNone;
}

bool is_confined() { return syscall_of(__NR_prctl, PR_GET_SECCOMP, 0, 0, 0, 0) != 0; }

} // namespace

bool is_strictly_allowed(uint64_t number) {
  for (uint32_t allowed : kStrictCalls)
    if (number == allowed)
      return true;
  return false;
}

// What is left as it is: a filter that cannot be read or that has no room for our lines (the kernel
// knows what to say of it), and the wish of a thread without a slot.
Confinement prepare_confining(ThreadBlock* t, KernelSigcontext& m) {
  const Wish wish = wish_of(m);
  sock_fprog given{};
  if (wish == Wish::kNone || (wish == Wish::kStrict && is_confined()))
    return Confinement::kNone;
  if (wish == Wish::kFilter && t && (!read_user(t, &given, m.rdx, sizeof given) || given.len == 0))
    return Confinement::kNone;
  if (!t || given.len > BPF_MAXINSNS - kPreamble) {
    header().confinement.fetch_or(kConfinesAgent);
    return Confinement::kNone;
  }
  const long memory = syscall_of(__NR_mmap, 0, sizeof(Filter), PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (is_errno(memory))
    return Confinement::kNoMemory;
  t->confining = {static_cast<uint64_t>(memory), m.rdi, m.rsi, m.rdx};
  auto* filter = reinterpret_cast<Filter*>(memory);
  FilterWriter w(*filter);
  append_preamble(w);
  if (wish == Wish::kStrict) {
    append_strict_mode(w);
    // Strict mode needs no rights. That none are won in an execve shows nowhere: there is none.
    syscall_of(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (m.rax == __NR_prctl)
      m.rsi = SECCOMP_MODE_FILTER;
    else
      m.rdi = SECCOMP_SET_MODE_FILTER;
  } else if (!read_user(t, filter->lines + kPreamble, reinterpret_cast<uint64_t>(given.filter),
                        given.len * sizeof(sock_filter))) {
    drop_confining(t);
    return Confinement::kNone;
  } else {
    filter->program.len += given.len;
  }
  m.rdx = t->confining.filter;
  agent_config.confined = 1;
  return Confinement::kOnItsWay;
}

std::span<const sock_filter> filter_being_installed(const ThreadBlock* t) {
  const auto* filter = reinterpret_cast<const Filter*>(t->confining.filter);
  return {filter->lines + kPreamble, filter->program.len - kPreamble};
}

Confinement confine(ThreadBlock* t, KernelUcontext* uc, uint64_t syscall) {
  const Confinement prepared = prepare_confining(t, uc->mcontext);
  if (prepared == Confinement::kOnItsWay)
    call_from_agent(t, uc, syscall);
  return prepared;
}

void end_confining(ThreadBlock* t, KernelSigcontext* m, bool made) {
  const bool as_strict = m->rdi != t->confining.rdi || m->rsi != t->confining.rsi;
  m->rdi = t->confining.rdi;
  m->rsi = t->confining.rsi;
  m->rdx = t->confining.rdx;
  drop_confining(t);
  if (made && as_strict && m->rax == 0) {
    t->strict = 1;
    header().confinement.fetch_or(kConfinedStrictly);
    syscall_of(__NR_prctl, PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0); // as strict mode does
  }
}

void drop_confining(ThreadBlock* t) {
  if (t->confining.filter)
    syscall_of(__NR_munmap, t->confining.filter, sizeof(Filter));
  t->confining.filter = 0;
}

} // namespace dune::agent
