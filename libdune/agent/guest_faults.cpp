// What exceptions of the guest are to the program: those that it would have had without a guest.
// Its descriptors and tables are not the kernel's, and KVM does not emulate every instruction.
#include "libdune/agent/guest_loop.h"

namespace dune::agent {

namespace {

constexpr uint8_t kInt = 0xcd, kOutByte = 0xe6, kOutWord = 0xe7;
constexpr uint64_t kIntLength = 2, kOutLength = 2;

const uint8_t* vectors_of(ThreadBlock* t) {
  fetch_vectors(t);
  return reinterpret_cast<const uint8_t*>(
      reinterpret_cast<const KernelUcontext*>(t->home)->mcontext.fpstate);
}

bool is_out_to_stub(ThreadBlock* t, uint64_t rip) {
  uint8_t code[kOutLength];
  return read_user(t, code, rip, sizeof code) && (code[0] == kOutByte || code[0] == kOutWord) &&
         code[1] == backend::kSystemCallStub;
}

bool reads_time_stamps(ThreadBlock* t, uint64_t rip) { // rdtsc, rdtscp
  uint8_t code[3];
  if (!read_user(t, code, rip, 2) || code[0] != 0x0f)
    return false;
  return code[1] == 0x31 ||
         (code[1] == 0x01 && read_user(t, code, rip, sizeof code) && code[2] == 0xf9);
}

struct VsyscallArguments {
  uint64_t entry, first, second;
};
uint64_t call_vsyscall(const VsyscallArguments* a) {
  return reinterpret_cast<uint64_t (*)(uint64_t, uint64_t)>(a->entry)(a->first, a->second);
}

} // namespace

backend::Exit as_without_guest(ThreadBlock* t, const backend::Exit& e, KernelSigcontext& m) {
  if (e.vector != kVectorGeneralProtection && e.vector != kVectorIllegal)
    return e;
  // Not callable in the kernel's table either, but for that of 32-bit system calls. KVM takes it
  // for illegal where it has to emulate it.
  uint8_t code[kIntLength];
  if (read_user(t, code, m.rip, sizeof code) && code[0] == kInt) {
    return {e.why, kVectorGeneralProtection, interrupt_error(code[1])};
  }
  // KVM has met the host's refusal to read the time stamp counter, and does not emulate it.
  if (e.vector == kVectorIllegal && reads_time_stamps(t, m.rip))
    return {e.why, kVectorGeneralProtection, 0};
  // Let through to the host, which may show it as done (backend.h, Why::kTrap).
  if (e.vector == kVectorGeneralProtection && !is_out_to_stub(t, m.rip) &&
      is_out_to_stub(t, m.rip - kOutLength))
    m.rip -= kOutLength;
  return e;
}

// arch/x86/kernel/fpu/core.c, fpu__exception_code
int floating_point_code(ThreadBlock* t, uint32_t vector) {
  constexpr int kFltDiv = 3, kFltOvf = 4, kFltUnd = 5, kFltRes = 6, kFltInv = 7;
  constexpr uint32_t kInvalid = 1, kDenormal = 2, kByZero = 4, kOverflow = 8, kUnderflow = 16,
                     kInexact = 32;
  const uint8_t* image = vectors_of(t);
  uint16_t control, status;
  uint32_t mxcsr;
  memcpy(&control, image, sizeof control);
  memcpy(&status, image + 2, sizeof status);
  memcpy(&mxcsr, image + 24, sizeof mxcsr);
  const uint32_t open = vector == kVectorX87 ? status & ~control : ~(mxcsr >> 7) & mxcsr;
  return open & kInvalid                   ? kFltInv
         : open & kByZero                  ? kFltDiv
         : open & kOverflow                ? kFltOvf
         : open & (kDenormal | kUnderflow) ? kFltUnd
         : open & kInexact                 ? kFltRes
                                           : 0;
}

bool is_icebp(ThreadBlock* t, const KernelSigcontext& m) {
  constexpr uint8_t kIcebp = 0xf1;
  uint8_t code;
  if (m.eflags & kEflagsTrap)
    return false;
  // Hypervisors may leave it before the instruction.
  return (read_user(t, &code, m.rip - 1, 1) && code == kIcebp) ||
         (read_user(t, &code, m.rip, 1) && code == kIcebp);
}

bool make_vsyscall(ThreadBlock* t, const backend::Exit& e, KernelSigcontext& m) {
  constexpr uint64_t kPage = 0xffffffffff600000, kEntries = 3, kEntrySize = 0x400;
  uint64_t back;
  if (e.address != m.rip || m.rip - kPage >= kEntries * kEntrySize || m.rip % kEntrySize ||
      !read_user(t, &back, m.rsp, sizeof back))
    return false;
  // By the kernel itself, which may have been told that there is no such page.
  const VsyscallArguments arguments{m.rip, m.rdi, m.rsi};
  const Guarded made = guarded_call(reinterpret_cast<uint64_t>(call_vsyscall), &arguments, t);
  if (made.faulted)
    return false;
  m.rax = made.value;
  m.rip = back;
  m.rsp += sizeof back;
  return true;
}

} // namespace dune::agent
