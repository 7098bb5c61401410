#include "dtrace-lite/keeper/detour.h"

#include "libdune/agent/image.h"

#include <algorithm>
#include <cstring>
#include <elf.h>
#include <sys/syscall.h>

namespace ddbg::keeper {

using dune::Errc;
using dune::Error;

namespace {

using dune::agent::Away; // the registers are popped in the order of user_regs_struct
static_assert(sizeof(Away::registers) == sizeof(user_regs_struct) &&
              offsetof(user_regs_struct, r15) == 0 &&
              offsetof(user_regs_struct, orig_rax) == 15 * 8 &&
              offsetof(user_regs_struct, rip) == 16 * 8);
constexpr uint8_t kMaskAt = offsetof(Away, mask);
static_assert(offsetof(Away, mask) == 27 * 8);

constexpr uint8_t kCode[] = {
    0x0f,    0x05, // syscall
    0xb8,    SYS_rt_sigprocmask,
    0,       0,
    0, // mov $rt_sigprocmask, %eax
    0xbf,    2,
    0,       0,
    0, // mov $SIG_SETMASK, %edi
    0x48,    0x8d,
    0xb4,    0x24,
    kMaskAt, 0,
    0,       0,    // lea mask(%rsp), %rsi
    0x31,    0xd2, // xor %edx, %edx
    0x41,    0xba,
    8,       0,
    0,       0,    // mov $8, %r10d
    0x0f,    0x05, // syscall: kMaskRestoredAt is behind it
    0x41,    0x5f,
    0x41,    0x5e,
    0x41,    0x5d,
    0x41,    0x5c, // pop %r15, %r14, %r13, %r12
    0x5d,    0x5b, // pop %rbp, %rbx
    0x41,    0x5b,
    0x41,    0x5a,
    0x41,    0x59,
    0x41,    0x58, // pop %r11, %r10, %r9, %r8
    0x58,    0x59,
    0x5a,    0x5e,
    0x5f, // pop %rax, %rcx, %rdx, %rsi, %rdi
    0x48,    0x83,
    0xc4,    8,    // add $8, %rsp: orig_rax
    0x48,    0xcf, // iretq: rip, cs, eflags, rsp, ss
};
constexpr uint64_t kWayBackAt = 2, kMaskRestoredAt = 30;
static_assert(kCode[kMaskRestoredAt - 2] == 0x0f && kCode[kMaskRestoredAt - 1] == 0x05);
constexpr uint64_t kSavedAt = (sizeof kCode + 15) & ~uint64_t{15};
constexpr uint64_t kSize = kSavedAt + sizeof(Away);

// Bytes of the vDSO's pages that no segment covers: section headers, then nothing.
dune::Result<TargetAddr> find_room(pid_t pid, const Memory& memory) {
  dune::TargetRange vdso{};
  for (const MapEntry& m : read_maps(pid))
    if (m.path == "[vdso]")
      vdso = m.range;
  Elf64_Ehdr header;
  if (vdso.size() == 0 || !memory.read(vdso.begin, &header, sizeof header))
    return Error{Errc::kNotFound, "the process has no vDSO"};
  uint64_t used = 0;
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment;
    if (!memory.read(vdso.begin + header.e_phoff + i * sizeof segment, &segment, sizeof segment))
      return Error{Errc::kNotFound, "the vDSO cannot be read"};
    used = std::max(used, segment.p_offset + segment.p_filesz);
  }
  if (used > vdso.size() || vdso.size() - used < kSize + 16)
    return Error{Errc::kNotFound, "no room in the vDSO's pages"};
  return (vdso.end - kSize).align_down(16);
}

} // namespace

dune::Result<Detour> Detour::build(pid_t pid) {
  auto memory = Memory::open(pid);
  if (!memory)
    return memory.error();
  auto at = find_room(pid, *memory);
  if (!at)
    return at.error();
  std::vector<uint8_t> before(kSize);
  if (auto ok = memory->read(*at, before.data(), before.size()); !ok)
    return ok.error();
  if (auto ok = memory->write(*at, kCode, sizeof kCode); !ok)
    return ok.error();
  return Detour(std::move(*memory), *at, std::move(before));
}

Detour::~Detour() {
  if (!before_.empty())
    (void)!memory_.write(at_, before_.data(), before_.size()); // fails if the process is gone
}

dune::Status Detour::save(const user_regs_struct& registers, uint64_t mask, TargetAddr at) {
  const user_regs_struct restarted = as_restarted(registers);
  Away away;
  std::memcpy(away.registers, &restarted, sizeof restarted);
  away.mask = mask;
  return memory_.write(at, &away, sizeof away);
}

TargetAddr Detour::way_back() const { return at_ + kWayBackAt; }
TargetAddr Detour::mask_restored() const { return at_ + kMaskRestoredAt; }
TargetAddr Detour::saved() const { return at_ + kSavedAt; }

user_regs_struct as_restarted(user_regs_struct r) {
  if (static_cast<int64_t>(r.orig_rax) < 0)
    return r;
  constexpr int64_t kErestartsys = -512, kErestartnointr = -513, kErestartnohand = -514,
                    kErestartRestartblock = -516;
  switch (static_cast<int64_t>(r.rax)) {
  case kErestartsys:
  case kErestartnointr:
  case kErestartnohand:
    r.rax = r.orig_rax;
    break;
  case kErestartRestartblock:
    r.rax = SYS_restart_syscall;
    break;
  default:
    return r;
  }
  r.rip -= 2;
  return r;
}

} // namespace ddbg::keeper
