// The library in one program: it enters Dune mode, takes a breakpoint and a page fault, sees which
// pages it has written, runs code in ring 3 whose system calls it judges, and has a second thread.
// docs/application.md goes through it step by step.
#include <dune/enter.h>
#include <dune/paging.h>
#include <dune/ring3.h>
#include <dune/trap.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>

namespace {

constexpr size_t kPage = 4096;

// `detail` is an error number only with the codes that say so.
void complain(const char* what, const dune::Error& error) {
  const bool is_errno =
      (error.code == dune::Errc::kSystem || error.code == dune::Errc::kPermission) && error.detail;
  fprintf(stderr, "hello: %s: %s%s%s\n", what, error.text, is_errno ? ": " : "",
          is_errno ? strerror(static_cast<int>(error.detail)) : "");
}

void check(const dune::Status& done, const char* what) {
  if (done)
    return;
  complain(what, done.error());
  exit(1);
}

// Memory as ever, by the kernel's own call: its page tables are the guest's second level.
char* map_pages(size_t count) {
  void* at =
      mmap(nullptr, count * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) {
    perror("hello: mmap");
    exit(1);
  }
  return static_cast<char*>(at);
}

// --- breakpoints ---

// Called by the processor as any exception handler is, without the kernel. What it changes in
// `trap` is what the program goes on with.
bool on_breakpoint(dune::Trap& trap) {
  trap.rax *= 2;
  return true;
}

unsigned long twice(unsigned long value) {
  asm volatile("int3" : "+a"(value) : : "memory");
  return value;
}

// --- page faults ---

char* g_guarded;
// As with a signal's handler: any instruction may be the one that it comes at, so the compiler has
// to be told that these change.
volatile uint64_t g_fault_address, g_fault_error;

bool on_page_fault(dune::Trap& trap) {
  const auto page = reinterpret_cast<uint64_t>(g_guarded);
  if (trap.address < page || trap.address >= page + kPage)
    return false; // not ours: the process gets its SIGSEGV
  g_fault_address = trap.address;
  g_fault_error = trap.error;
  // The store is tried again behind us.
  return bool(dune::protect(g_guarded, kPage, dune::kRead | dune::kWrite));
}

void guard_a_page() {
  g_guarded = map_pages(1);
  strcpy(g_guarded, "before");
  check(dune::protect(g_guarded, kPage, dune::kRead), "protect"); // reading is allowed
  printf("page fault: it said \"%s\"", g_guarded);
  volatile char* word = g_guarded;
  word[2] = 'c'; // the first write to the page is its only fault
  word[3] = 'a';
  word[4] = 'm';
  printf(", and \"%s\" behind a %s at its byte %d\n", g_guarded,
         g_fault_error & dune::kFaultWasWrite ? "write" : "read",
         static_cast<int>(g_fault_address - reinterpret_cast<uint64_t>(g_guarded)));
  check(dune::release(g_guarded, kPage), "release");
}

// --- dirty pages ---

// The processor notes in the page tables what is written: no fault, and nothing that a store costs.
void find_written_pages() {
  constexpr size_t kCount = 8;
  char* pages = map_pages(kCount);
  memset(pages, 1, kCount * kPage);
  check(dune::protect(pages, kCount * kPage, dune::kRead | dune::kWrite), "protect");
  for (size_t page : {2, 5})
    const_cast<volatile char*>(pages)[page * kPage] = 2;
  printf("dirty pages:");
  dune::walk_pages(pages, kCount * kPage, true, [&](void* page, const dune::PageState& state) {
    if (state.dirty)
      printf(" %d", static_cast<int>((static_cast<char*>(page) - pages) / kPage));
  });
  int again = 0;
  dune::walk_pages(pages, kCount * kPage, false,
                   [&](void*, const dune::PageState& state) { again += state.dirty; });
  printf(", and %d since that look\n", again);
}

// --- ring 3 ---

// What runs there, on pages of its own, so that nothing else of the program's is on them. It writes
// a line by write(2), tries to read a file by open(2), and ends with a breakpoint; what open() has
// said is in rax then. It knows nothing of Dune.
extern "C" const char sandboxed_begin[], sandboxed_end[];
asm(R"(
  .pushsection .text
  .balign 4096
  .globl sandboxed_begin, sandboxed_end
sandboxed_begin:
  mov $1, %eax
  mov $1, %edi
  lea 1f(%rip), %rsi
  mov $(2f - 1f), %edx
  syscall
  mov $2, %eax
  lea 2f(%rip), %rdi
  xor %esi, %esi
  syscall
  int3
1:
  .ascii "ring 3: hello, from write()\n"
2:
  .asciz "/etc/passwd"
  .balign 4096
sandboxed_end:
  .popsection
)");

int g_refused;

// Every `syscall` of ring 3 comes here, and only what is done here is done.
bool on_ring3_call(dune::Trap& trap) {
  const auto begin = reinterpret_cast<uint64_t>(sandboxed_begin);
  const auto end = reinterpret_cast<uint64_t>(sandboxed_end);
  // A pointer of ring 3's is to be looked at before we follow it: we may read more than it may.
  const bool is_its_own = trap.rsi >= begin && trap.rsi <= end && trap.rdx <= end - trap.rsi;
  if (trap.rax == SYS_write && trap.rdi == STDOUT_FILENO && is_its_own) {
    fflush(stdout);
    const ssize_t written = write(STDOUT_FILENO, reinterpret_cast<const void*>(trap.rsi), trap.rdx);
    trap.rax = static_cast<uint64_t>(written < 0 ? -errno : written);
    return true;
  }
  ++g_refused;
  trap.rax = static_cast<uint64_t>(-EPERM);
  return true;
}

// In ring 3 a breakpoint is the end; in ring 0 it is ours.
bool on_breakpoint_of_ring0(dune::Trap& trap) { return !trap.from_ring3() && on_breakpoint(trap); }

void run_sandboxed() {
  check(dune::set_trap_handler(dune::vector::kRing3SystemCall, on_ring3_call), "handler");
  check(dune::set_trap_handler(dune::vector::kBreakpoint, on_breakpoint_of_ring0), "handler");
  check(dune::protect(sandboxed_begin, static_cast<size_t>(sandboxed_end - sandboxed_begin),
                      dune::kRead | dune::kExecute | dune::kRing3),
        "protect");
  dune::Ring3 code;
  code.trap.rip = reinterpret_cast<uint64_t>(sandboxed_begin);
  dune::run_ring3(code); // until an exception that no handler has dealt with
  printf("ring 3: ended with exception %d; %d system call refused, it got \"%s\"\n",
         static_cast<int>(code.trap.vector), g_refused, strerror(-static_cast<int>(code.trap.rax)));
}

} // namespace

int main() {
  if (auto entered = dune::enter(); !entered) {
    complain("cannot enter Dune mode", entered.error());
    return 77;
  }
  printf("enter: in ring %d by %s, and still process %d\n", dune::inside() ? 0 : 3,
         dune::backend_name(), static_cast<int>(getpid()));

  check(dune::set_trap_handler(dune::vector::kBreakpoint, on_breakpoint), "handler");
  check(dune::set_trap_handler(dune::vector::kPageFault, on_page_fault), "handler");
  printf("breakpoint: twice 21 is %lu\n", twice(21));
  guard_a_page();
  find_written_pages();
  run_sandboxed();

  unsigned long of_thread = 0;
  bool was_inside = false;
  std::thread thread([&] {
    was_inside = dune::inside();
    of_thread = twice(50);
  });
  thread.join();
  printf("thread: in ring %d, twice 50 is %lu\n", was_inside ? 0 : 3, of_thread);
  return 0;
}
