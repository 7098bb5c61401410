#include "access.h"

#include "libdune/arch/syscall.h"

#include <csetjmp>
#include <csignal>
#include <ostream>
#include <sys/mman.h>

namespace dune::process {

extern "C" const char snippet_read[], snippet_write[], snippet_call[];
asm(R"(
    .pushsection .text
    .balign 4096
snippet_read:  mov (%rdi), %rax; syscall
snippet_write: mov %rbx, (%rdi); syscall
snippet_call:  call *%rdi; mov %eax, %eax; syscall
    .balign 4096
    .popsection
)");

const Seen kUnmappedSeen{SIGSEGV, SEGV_MAPERR}, kForbiddenSeen{SIGSEGV, SEGV_ACCERR},
    kMissingSeen{SIGBUS, BUS_ADRERR};

void PrintTo(const Seen& s, std::ostream* out) {
  *out << "signal " << s.signal << " code " << s.code << " value " << std::hex << s.value
       << std::dec;
}

Seen access(backend::MappedThread& t, Access kind, uint64_t address, uint64_t value) {
  alignas(16) static thread_local char stack[256];
  const char* snippet = kind == Access::kRead    ? snippet_read
                        : kind == Access::kWrite ? snippet_write
                                                 : snippet_call;
  backend::start_at(t.cpu, snippet, stack + sizeof stack);
  t.cpu.regs.rdi = address;
  t.cpu.regs.rbx = value;
  const backend::Exit e = backend::run_mapped(t);
  if (e.why == backend::Why::kSystemCall)
    return {0, 0, kind == Access::kWrite ? 0 : t.cpu.regs.rax};
  if (e.why != backend::Why::kTrap || e.vector != kVectorPageFault)
    return {-1, int(e.why), e.error ? e.error : e.vector};
  switch (t.refused) {
  case Outcome::kNoMapping:
    return kUnmappedSeen;
  case Outcome::kNoRights:
    return kForbiddenSeen;
  case Outcome::kNoPage:
    return kMissingSeen;
  default:
    return {-2, int(t.refused)};
  }
}

namespace {
thread_local sigjmp_buf t_back;
thread_local volatile int t_code;
void on_fault(int signal, siginfo_t* info, void*) {
  t_code = info->si_code;
  siglongjmp(t_back, signal);
}
} // namespace

Seen access_natively(Access kind, uint64_t address, uint64_t value) {
  static const bool installed = [] {
    struct sigaction action {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    return sigaction(SIGSEGV, &action, nullptr) == 0 && sigaction(SIGBUS, &action, nullptr) == 0;
  }();
  if (const int signal = sigsetjmp(t_back, 1))
    return {signal, t_code};
  if (!installed)
    return {-1};
  switch (kind) {
  case Access::kRead:
    return value_seen(*reinterpret_cast<volatile uint64_t*>(address));
  case Access::kWrite:
    *reinterpret_cast<volatile uint64_t*>(address) = value;
    return kWritten;
  default:
    return value_seen(reinterpret_cast<uint32_t (*)()>(address)());
  }
}

void MemoryTest::SetUp() {
  GuestTest::SetUp();
  if (IsSkipped() || HasFatalFailure())
    return;
  auto guest = open_guest();
  ASSERT_TRUE(guest) << guest.error().text << guest.error().detail;
  guest_ = std::move(*guest);
}

long MemoryTest::make_call(void*, long number, const long a[6]) {
  return syscall_raw(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

uint8_t* MemoryTest::map(uint64_t size, int prot, int flags, int fd, void* at) {
  return reinterpret_cast<uint8_t*>(change(__NR_mmap, at, size, prot, flags, fd, 0));
}

} // namespace dune::process
