// A program that enters Dune mode itself: all of it after main()'s first line is in ring 0.
#include "tests/unit/application/support.h"

#include <dune/enter.h>
#include <dune/paging.h>
#include <dune/ring3.h>
#include <dune/trap.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csetjmp>
#include <csignal>
#include <cstring>
#include <pthread.h>
#include <string>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace dune {
namespace {

TEST(Enter, ProgramIsInRing0) {
  EXPECT_TRUE(inside());
  EXPECT_FALSE(enter());
  EXPECT_EQ(getpid(), getpgid(0) ? getpid() : -1);
}

TEST(Enter, SaysWhatIsMissing) {
  const pid_t child = fork();
  if (child == 0) {
    EnterOptions unknown;
    unknown.backend = "no such";
    const Status of_name = enter(unknown);
    if (of_name || of_name.error().code != Errc::kInvalid)
      _exit(1);
    const rlimit none{3, 3};
    setrlimit(RLIMIT_NOFILE, &none); // /proc/self/task cannot be opened
    const Status of_limit = enter();
    if (of_limit || of_limit.error().code != Errc::kSystem || of_limit.error().detail != EMFILE)
      _exit(2);
    _exit(42);
  }
  EXPECT_EQ(exit_of(child), 42);
}

std::atomic<uint64_t> g_breakpoints;
TEST(Traps, BreakpointComesToTheHandler) {
  g_breakpoints = 0;
  ASSERT_TRUE(set_trap_handler(vector::kBreakpoint, [](Trap& trap) {
    ++g_breakpoints;
    EXPECT_FALSE(trap.from_ring3());
    trap.rax = 42;
    return true;
  }));
  uint64_t result = 0;
  for (int i = 0; i < 1000; ++i)
    asm volatile("int3" : "=a"(result) : : "memory");
  EXPECT_EQ(g_breakpoints, 1000u);
  EXPECT_EQ(result, 42u);
  ASSERT_TRUE(set_trap_handler(vector::kBreakpoint, nullptr));
}

// The handler may use vector registers, and those of the program stay what they are.
TEST(Traps, VectorRegistersArePreserved) {
  ASSERT_TRUE(set_trap_handler(vector::kBreakpoint, [](Trap&) {
    asm volatile("pcmpeqd %%xmm3, %%xmm3" : : : "xmm3");
    return true;
  }));
  uint64_t in = 0x123456789abcdef, out = 0;
  asm volatile("movq %1, %%xmm3\n\tint3\n\tmovq %%xmm3, %0" : "=r"(out) : "r"(in) : "xmm3");
  EXPECT_EQ(out, in);
  ASSERT_TRUE(set_trap_handler(vector::kBreakpoint, nullptr));
}

// Each of them on a stack of its own, and the last may touch what nobody has touched yet, which
// takes an exception that no handler sees.
int g_depth, g_deepest;
void (*g_at_the_bottom)();
bool nest(Trap& trap) {
  if (trap.from_ring3())
    return false;
  if (++g_depth < g_deepest)
    asm volatile("int3" : : : "memory");
  else
    g_at_the_bottom();
  --g_depth;
  return true;
}
void nest_to(int depth, void (*what)()) {
  g_depth = 0;
  g_deepest = depth;
  g_at_the_bottom = what;
  ASSERT_TRUE(set_trap_handler(vector::kBreakpoint, nest));
  asm volatile("int3" : : : "memory");
  EXPECT_EQ(g_depth, 0);
  ASSERT_TRUE(set_trap_handler(vector::kBreakpoint, nullptr));
}

char* g_fresh;
TEST(Traps, SeventhWithinOthersTouchesNewMemory) {
  g_fresh = map_pages(4096);
  nest_to(7, [] {
    for (int i = 0; i < 4096; i += 64)
      g_fresh[i * 4096] = 1;
  });
  EXPECT_EQ(g_fresh[64 * 4096], 1);
  munmap(g_fresh, 4096 * 4096);
}

// What a child process that enters by itself comes to, and says.
std::string end_of_child(void (*does)(), int& status) {
  int said[2];
  EXPECT_EQ(pipe(said), 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(said[1], 2);
    signal(SIGALRM, SIG_DFL);
    alarm(60);
    if (!enter())
      _exit(1);
    does();
    _exit(0);
  }
  close(said[1]);
  std::string text;
  char piece[256];
  for (ssize_t n = 0; (n = read(said[0], piece, sizeof piece)) > 0;)
    text.append(piece, size_t(n));
  close(said[0]);
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return text;
}

TEST(Traps, EighthWithinOthersEndsTheProgramAndSaysSo) {
  int status = 0;
  const std::string said = end_of_child([] { nest_to(8, [] {}); }, status);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) << status;
  EXPECT_NE(said.find("within seven others"), std::string::npos) << said;
}

// Written from the top, as a stack is used; without vector registers, for either kind of handler.
template <size_t kSize> [[gnu::target("general-regs-only")]] bool uses_stack(Trap&) {
  auto* room = static_cast<volatile char*>(__builtin_alloca(kSize));
  for (size_t at = kSize; at > 0;)
    room[at -= 64] = 1;
  return true;
}

TEST(Traps, HandlerHasTheStackThatItIsPromised) {
  ASSERT_TRUE(set_trap_handler(vector::kBreakpoint, uses_stack<11 << 10>));
  asm volatile("int3" : : : "memory");
  ASSERT_TRUE(
      set_trap_handler(vector::kBreakpoint, uses_stack<27 << 10>, VectorRegisters::kUntouched));
  asm volatile("int3" : : : "memory");
  ASSERT_TRUE(set_trap_handler(vector::kBreakpoint, nullptr));
}

void overflow_stack() {
  (void)!set_trap_handler(vector::kBreakpoint, uses_stack<40 << 10>);
  asm volatile("int3" : : : "memory");
}
void overflow_stack_past_a_handler() {
  (void)!set_trap_handler(vector::kPageFault, [](Trap&) { return false; });
  overflow_stack();
}
TEST(Traps, HandlerThatNeedsMoreStackEndsTheProgramAndSaysSo) {
  for (const auto overflow : {overflow_stack, overflow_stack_past_a_handler}) {
    int status = 0;
    const std::string said = end_of_child(overflow, status);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) << status;
    EXPECT_NE(said.find("used up its stack"), std::string::npos) << said;
  }
}

char* g_page;
std::atomic<int> g_faults;
TEST(PageFaults, RefusedAccessComesToTheHandler) {
  g_page = map_pages(1);
  g_page[0] = 7;
  g_faults = 0;
  ASSERT_TRUE(set_trap_handler(vector::kPageFault, [](Trap& trap) {
    ++g_faults;
    EXPECT_EQ(trap.address, reinterpret_cast<uint64_t>(g_page) + 5);
    EXPECT_EQ(trap.error, kFaultWasPresent | kFaultWasWrite);
    return bool(protect(g_page, 4096, kRead | kWrite));
  }));
  ASSERT_TRUE(protect(g_page, 4096, kRead));
  EXPECT_EQ(g_page[0], 7);
  EXPECT_EQ(g_faults, 0);
  const_cast<volatile char*>(g_page)[5] = 9;
  EXPECT_EQ(g_faults, 1);
  EXPECT_EQ(g_page[5], 9);
  ASSERT_TRUE(set_trap_handler(vector::kPageFault, nullptr));
  ASSERT_TRUE(release(g_page, 4096));
  g_page[6] = 1;
}

// In the handler of a page fault memory is used that the guest has never seen.
TEST(PageFaults, HandlerMayTouchNewMemory) {
  static char* fresh;
  fresh = map_pages(64);
  g_page = map_pages(1);
  ASSERT_TRUE(set_trap_handler(vector::kPageFault, [](Trap&) {
    for (int i = 0; i < 64; ++i)
      fresh[i * 4096] = 1;
    return bool(release(g_page, 4096));
  }));
  ASSERT_TRUE(protect(g_page, 4096, kNoAccess));
  g_page[0] = 3;
  EXPECT_EQ(g_page[0], 3);
  ASSERT_TRUE(set_trap_handler(vector::kPageFault, nullptr));
}

TEST(Pages, DirtyAndAccessedAreTheProcessors) {
  char* pages = map_pages(8);
  memset(pages, 1, 8 * 4096);
  ASSERT_TRUE(protect(pages, 8 * 4096, kRead | kWrite));
  for (int i = 0; i < 8; ++i) {
    EXPECT_FALSE(page_state(pages + i * 4096).dirty);
    EXPECT_FALSE(page_state(pages + i * 4096).accessed);
  }
  const_cast<volatile char*>(pages)[3 * 4096] = 1;
  (void)const_cast<volatile char*>(pages)[5 * 4096];
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(page_state(pages + i * 4096).dirty, i == 3) << i;
    EXPECT_EQ(page_state(pages + i * 4096).accessed, i == 3 || i == 5) << i;
  }
  int count = 0, dirty = 0;
  walk_pages(pages, 8 * 4096, true, [&](void*, const PageState& s) {
    ++count;
    dirty += s.dirty;
  });
  EXPECT_EQ(count, 8);
  EXPECT_EQ(dirty, 1);
  EXPECT_FALSE(page_state(pages + 3 * 4096).dirty);
  const_cast<volatile char*>(pages)[3 * 4096] = 1;
  EXPECT_TRUE(page_state(pages + 3 * 4096).dirty);
  // What was written is not forgotten with the mapping.
  ASSERT_EQ(mprotect(pages, 8 * 4096, PROT_READ), 0);
  EXPECT_TRUE(page_state(pages + 3 * 4096).dirty);
  EXPECT_FALSE(page_state(pages + 4 * 4096).dirty);
}

// protect() has none left, and the program goes on with memory that it has not touched yet.
TEST(Pages, TablesThatAreFullHaveRoomForTheProgram) {
  int status = 0;
  const std::string said = end_of_child(
      [] {
        constexpr size_t kOfATable = 2 << 20, kTables = 16384;
        char* pages = static_cast<char*>(mmap(nullptr, kTables * kOfATable, PROT_READ | PROT_WRITE,
                                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (pages == MAP_FAILED)
          _exit(2);
        Status ok;
        for (size_t n = 0; n < kTables && ok; ++n)
          ok = protect(pages + n * kOfATable, 4096, kRead, Reach::kThisThread);
        if (ok || ok.error().code != Errc::kExhausted)
          _exit(3);
        if (View::open())
          _exit(4);
        for (size_t n = 0; n < 64; ++n)
          map_pages(1024)[n * 4096] = 1;
        std::thread([] {}).join();
      },
      status);
  EXPECT_EQ(status, 0) << said;
}

sigjmp_buf g_back;
TEST(Signals, FaultOfTheProgramIsASignal) {
  struct sigaction action {
  }, before;
  static uint64_t address;
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = [](int, siginfo_t* info, void*) {
    address = reinterpret_cast<uint64_t>(info->si_addr);
    siglongjmp(g_back, 1);
  };
  sigaction(SIGSEGV, &action, &before);
  if (!sigsetjmp(g_back, 1))
    *reinterpret_cast<volatile int*>(0x1230) = 1;
  EXPECT_EQ(address, 0x1230u);
  char* page = map_pages(1, PROT_READ);
  if (!sigsetjmp(g_back, 1))
    const_cast<volatile char*>(page)[12] = 1;
  EXPECT_EQ(address, reinterpret_cast<uint64_t>(page) + 12);
  EXPECT_TRUE(inside());
  sigaction(SIGSEGV, &before, nullptr);
}

// A call that a signal interrupts begins anew or fails, as the handler's flags say.
TEST(Signals, CallsAreRestartedOrNot) {
  static std::atomic<int> ticks;
  const int timer = timerfd_create(CLOCK_MONOTONIC, 0);
  ASSERT_GE(timer, 0);
  for (const int flags : {SA_RESTART, 0}) {
    ticks = 0;
    struct sigaction action {
    }, before;
    action.sa_handler = [](int) { ++ticks; };
    action.sa_flags = flags;
    sigaction(SIGALRM, &action, &before);
    const itimerval each{{0, 2000}, {0, 2000}}, none{};
    setitimer(ITIMER_REAL, &each, nullptr);
    int interrupted = 0;
    for (int i = 0; i < 10; ++i) {
      const itimerspec once{{}, {0, 20'000'000}};
      ASSERT_EQ(timerfd_settime(timer, 0, &once, nullptr), 0);
      uint64_t expired = 0;
      while (read(timer, &expired, sizeof expired) < 0) {
        ASSERT_EQ(errno, EINTR);
        ++interrupted;
      }
      EXPECT_EQ(expired, 1u);
    }
    setitimer(ITIMER_REAL, &none, nullptr);
    sigaction(SIGALRM, &before, nullptr);
    EXPECT_GT(ticks, 10);
    EXPECT_EQ(interrupted > 0, flags == 0) << interrupted;
  }
  close(timer);
}

// Handlers see every moment of the program's, also those in which an exception begins or ends.
TEST(Signals, TimersAndTrapsAtOnce) {
  static std::atomic<uint64_t> ticks;
  ticks = g_breakpoints = 0;
  struct sigaction action {
  }, before;
  action.sa_handler = [](int) { ++ticks; };
  sigaction(SIGALRM, &action, &before);
  ASSERT_TRUE(set_trap_handler(vector::kBreakpoint, [](Trap& trap) {
    ++g_breakpoints;
    trap.rcx++;
    return true;
  }));
  // One after the other: a machine that needs longer for a signal than until the next would do
  // nothing else.
  uint64_t hits = 0, rounds = 0;
  for (uint64_t round = 0; round < 200; ++round) {
    const itimerval once{{0, 0}, {0, suseconds_t(200 + 7 * round)}};
    setitimer(ITIMER_REAL, &once, nullptr);
    for (; ticks == round; ++rounds)
      asm volatile("int3" : "+c"(hits));
  }
  EXPECT_EQ(hits, rounds);
  EXPECT_EQ(g_breakpoints, rounds);
  sigaction(SIGALRM, &before, nullptr);
  ASSERT_TRUE(set_trap_handler(vector::kBreakpoint, nullptr));
}

TEST(Threads, EachHasItsOwnExceptions) {
  g_breakpoints = 0;
  ASSERT_TRUE(set_trap_handler(vector::kBreakpoint, [](Trap& trap) {
    ++g_breakpoints;
    trap.rcx++;
    return true;
  }));
  std::atomic<int> wrong = 0;
  for (int round = 0; round < 3; ++round) {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
      threads.emplace_back([&] {
        uint64_t hits = 0;
        for (int n = 0; n < 1000; ++n)
          asm volatile("int3" : "+c"(hits));
        wrong += hits != 1000 || !inside();
      });
    for (auto& t : threads)
      t.join();
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(g_breakpoints, 12000u);
  ASSERT_TRUE(set_trap_handler(vector::kBreakpoint, nullptr));
}

TEST(Processes, ChildIsOutsideAndMayEnter) {
  const pid_t child = fork();
  if (child == 0) {
    if (inside())
      _exit(1);
    if (auto ok = enter(); !ok) {
      fprintf(stderr, "%s (%d)\n", ok.error().text, int(ok.error().detail));
      _exit(2);
    }
    _exit(inside() ? 42 : 3);
  }
  EXPECT_EQ(exit_of(child), 42);
  EXPECT_EQ(system("exit 7") >> 8, 7);
}

// One signal at each moment of an enter(), whether it finds the program outside, inside or on the
// way.
TEST(Processes, ChildEntersWhateverSignalsCome) {
  using std::chrono::microseconds, std::chrono::steady_clock;
  constexpr int kMoments = 60;
  static volatile std::sig_atomic_t came;
  static microseconds* took;
  took = static_cast<microseconds*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(took, MAP_FAILED);
  *took = microseconds::max();
  const auto child_enters = [](microseconds moment) {
    const pid_t child = fork();
    if (child == 0) {
      came = 0;
      signal(
          SIGALRM, +[](int) { came = came + 1; });
      const itimerval once{{}, {0, moment.count()}};
      setitimer(ITIMER_REAL, &once, nullptr);
      const auto begin = steady_clock::now();
      if (!enter())
        _exit(1);
      *took = std::min(*took, duration_cast<microseconds>(steady_clock::now() - begin));
      while (moment.count() && !came)
        getppid();
      _exit(inside() && came == (moment.count() ? 1 : 0) ? 42 : 2);
    }
    return exit_of(child);
  };
  for (int i = 0; i < 3; ++i)
    ASSERT_EQ(child_enters(microseconds(0)), 42);
  const microseconds whole = *took;
  for (int i = 1; i <= kMoments; ++i)
    EXPECT_EQ(child_enters(std::max(microseconds(1), whole * i / kMoments)), 42) << "moment " << i;
  munmap(took, 4096);
}

// It goes on with what the handler has made of the registers, and may enter then, but not before.
pid_t g_child;
TEST(Processes, ChildOfAHandlerGoesOnOutside) {
  ASSERT_TRUE(set_trap_handler(vector::kBreakpoint, [](Trap& trap) {
    g_child = fork();
    if (g_child == 0 && enter())
      _exit(1);
    trap.rcx++;
    return true;
  }));
  uint64_t count = 1, before = 0, behind = 0;
  asm volatile("mov %%rsp, %1\n\tint3\n\tmov %%rsp, %2"
               : "+c"(count), "=&r"(before), "=&r"(behind)
               :
               : "memory");
  if (g_child == 0) {
    if (inside())
      _exit(2);
    if (count != 2 || before != behind)
      _exit(3);
    _exit(enter() ? 42 : 4);
  }
  EXPECT_TRUE(inside());
  EXPECT_EQ(exit_of(g_child), 42);
  ASSERT_TRUE(set_trap_handler(vector::kBreakpoint, nullptr));
}

// What its handler refuses is the signal that it is in any process.
TEST(Processes, ChildOfAHandlerGetsTheSignalThatItRefuses) {
  ASSERT_TRUE(set_trap_handler(vector::kBreakpoint, [](Trap&) {
    g_child = fork();
    if (g_child == 0)
      signal(SIGTRAP, [](int) { _exit(42); });
    return g_child != 0;
  }));
  asm volatile("int3" : : : "memory");
  if (g_child == 0)
    _exit(1);
  EXPECT_EQ(exit_of(g_child), 42);
  ASSERT_TRUE(set_trap_handler(vector::kBreakpoint, nullptr));
}

// Ring 3: code of our own, on pages that it may use.
extern "C" char ring3_code[], ring3_code_end[], ring3_fault[];
asm(R"(
  .pushsection .text
  .balign 4096
  .globl ring3_code, ring3_code_end, ring3_fault
ring3_code:
  mov %cs, %ebx
1:
  mov $1000, %eax
  syscall
  dec %r12
  jnz 1b
  int3
ring3_fault:
  mov (%rdi), %rax
  ud2
  .balign 4096
ring3_code_end:
  .popsection
)");

std::atomic<uint64_t> g_calls;
void open_ring3_code() {
  ASSERT_TRUE(protect(ring3_code, size_t(ring3_code_end - ring3_code), kRead | kExecute | kRing3));
}
// Where that code begins, on a stack of its own.
Ring3 ring3_with(char* stack, uint64_t calls) {
  open_ring3_code();
  EXPECT_TRUE(protect(stack, 4096, kRead | kWrite | kRing3));
  Ring3 r;
  r.trap.rip = reinterpret_cast<uint64_t>(ring3_code);
  r.trap.rsp = reinterpret_cast<uint64_t>(stack + 4096);
  r.trap.r12 = calls;
  return r;
}

TEST(Ring3, SystemCallsComeToTheProgram) {
  char* stack = map_pages(1);
  g_calls = 0;
  ASSERT_TRUE(set_trap_handler(vector::kRing3SystemCall, [](Trap& trap) {
    ++g_calls;
    EXPECT_TRUE(trap.from_ring3());
    EXPECT_EQ(trap.rax, 1000u);
    trap.rax = uint64_t(getpid());
    return true;
  }));
  Ring3 r = ring3_with(stack, 1000);
  run_ring3(r);
  EXPECT_EQ(g_calls, 1000u);
  EXPECT_EQ(r.trap.vector, vector::kBreakpoint);
  EXPECT_EQ(r.trap.rbx & 3, 3u);
  EXPECT_EQ(r.trap.rax, uint64_t(getpid()));
  // What is ring 0's is not there for it.
  static int secret = 5;
  r.trap.rdi = reinterpret_cast<uint64_t>(&secret);
  r.trap.rip = reinterpret_cast<uint64_t>(ring3_fault);
  run_ring3(r);
  EXPECT_EQ(r.trap.vector, vector::kPageFault);
  EXPECT_EQ(r.trap.address, reinterpret_cast<uint64_t>(&secret));
  EXPECT_EQ(r.trap.rip, reinterpret_cast<uint64_t>(ring3_fault));
  r.trap.rdi = reinterpret_cast<uint64_t>(stack);
  run_ring3(r);
  EXPECT_EQ(r.trap.vector, vector::kIllegalInstruction);
  ASSERT_TRUE(set_trap_handler(vector::kRing3SystemCall, nullptr));
}

// Nobody would judge it there.
TEST(Ring3, IsNotInAChildOfItsHandler) {
  g_calls = 0;
  ASSERT_TRUE(set_trap_handler(vector::kRing3SystemCall, [](Trap& trap) {
    ++g_calls;
    g_child = fork();
    trap.rax = uint64_t(g_child);
    return true;
  }));
  Ring3 r = ring3_with(map_pages(1), 1);
  run_ring3(r);
  if (g_child == 0) {
    const bool told = r.trap.vector == vector::kRing3SystemCall && r.trap.rax == 0;
    _exit(!inside() && told && g_calls == 1 ? 42 : 1);
  }
  EXPECT_EQ(r.trap.vector, vector::kBreakpoint);
  EXPECT_EQ(exit_of(g_child), 42);
  ASSERT_TRUE(set_trap_handler(vector::kRing3SystemCall, nullptr));
}

// Six handlers deep it has one stack left: for its calls, and for the signals that find it.
Ring3 g_deep;
char* g_deep_stack;
TEST(Ring3, RunsSixHandlersDeep) {
  g_deep_stack = map_pages(1);
  g_fresh = map_pages(4096);
  g_calls = 0;
  static std::atomic<int> ticks;
  ticks = 0;
  ASSERT_NO_FATAL_FAILURE(open_ring3_code());
  ASSERT_TRUE(protect(g_deep_stack, 4096, kRead | kWrite | kRing3));
  ASSERT_TRUE(set_trap_handler(vector::kRing3SystemCall, [](Trap& trap) {
    ++g_calls;
    trap.rax = uint64_t(getppid());
    if (ticks < 20)
      trap.r12 = 2; // once more
    return true;
  }));
  struct sigaction action {
  }, before;
  action.sa_handler = [](int) {
    g_fresh[++ticks * 64 * 4096] = 1; // memory that nobody has touched yet
    if (ticks < 20) {
      const itimerval again{{0, 0}, {0, 1000 + 37 * ticks}};
      setitimer(ITIMER_REAL, &again, nullptr);
    }
  };
  sigaction(SIGALRM, &action, &before);
  nest_to(6, [] {
    const itimerval once{{0, 0}, {0, 1000}};
    setitimer(ITIMER_REAL, &once, nullptr);
    g_deep = {};
    g_deep.trap.rip = reinterpret_cast<uint64_t>(ring3_code);
    g_deep.trap.rsp = reinterpret_cast<uint64_t>(g_deep_stack + 4096);
    g_deep.trap.r12 = 2;
    run_ring3(g_deep);
  });
  EXPECT_EQ(g_deep.trap.vector, vector::kBreakpoint);
  EXPECT_EQ(g_deep.trap.rax, uint64_t(getppid()));
  EXPECT_EQ(ticks, 20);
  EXPECT_GT(g_calls, 20u);
  sigaction(SIGALRM, &before, nullptr);
  ASSERT_TRUE(set_trap_handler(vector::kRing3SystemCall, nullptr));
  munmap(g_fresh, 4096 * 4096);
}

TEST(Ring3, SevenHandlersDeepEndsTheProgramAndSaysSo) {
  int status = 0;
  const std::string said = end_of_child(
      [] {
        nest_to(7, [] {
          g_deep = {};
          g_deep.trap.rip = reinterpret_cast<uint64_t>(ring3_code);
          run_ring3(g_deep);
        });
      },
      status);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) << status;
  EXPECT_NE(said.find("within seven others"), std::string::npos) << said;
}

// An address that is none: a processor may find that before it is in ring 3.
TEST(Ring3, MayBeSentNowhere) {
  for (const uint64_t rip : {uint64_t{1} << 63, uint64_t{1} << 47, ~uint64_t{0}}) {
    Ring3 r;
    r.trap.rip = rip;
    run_ring3(r);
    EXPECT_EQ(r.trap.vector, vector::kPageFault);
    EXPECT_TRUE(r.trap.from_ring3());
  }
}

extern "C" char ring3_spin[];
asm(R"(
  .pushsection .text
  .balign 4096
  .globl ring3_spin
ring3_spin:
  cmpq $0, (%rdi)
  je ring3_spin
  int3
  .balign 4096
  .popsection
)");
TEST(Ring3, SignalsAreHandledInRing0) {
  static uint64_t* page;
  page = reinterpret_cast<uint64_t*>(map_pages(1));
  ASSERT_TRUE(protect(page, 4096, kRead | kRing3));
  ASSERT_TRUE(protect(ring3_spin, 4096, kRead | kExecute | kRing3));
  struct sigaction action {
  }, before;
  action.sa_handler = [](int) {
    EXPECT_TRUE(inside());
    ASSERT_TRUE(protect(page, 4096, kRead | kWrite | kRing3));
    *page = 1;
  };
  sigaction(SIGALRM, &action, &before);
  const itimerval once{{0, 0}, {0, 20000}};
  setitimer(ITIMER_REAL, &once, nullptr);
  Ring3 r;
  r.trap.rip = reinterpret_cast<uint64_t>(ring3_spin);
  r.trap.rdi = reinterpret_cast<uint64_t>(page);
  run_ring3(r);
  EXPECT_EQ(r.trap.vector, vector::kBreakpoint);
  sigaction(SIGALRM, &before, nullptr);
}

// Threads, their signals, page faults, ring 3 and forks at once.
TEST(Storm, AllAtOnce) {
  constexpr int kThreads = 4;
  static char* pages;
  pages = map_pages(kThreads * 16);
  static std::atomic<uint64_t> wrong, signals;
  ASSERT_NO_FATAL_FAILURE(open_ring3_code());
  wrong = signals = 0;
  ASSERT_TRUE(set_trap_handler(vector::kBreakpoint, [](Trap& trap) {
    if (trap.from_ring3())
      return false;
    trap.rcx++;
    return true;
  }));
  ASSERT_TRUE(set_trap_handler(vector::kRing3SystemCall, [](Trap& trap) {
    trap.rax = uint64_t(getppid());
    return true;
  }));
  ASSERT_TRUE(set_trap_handler(vector::kPageFault, [](Trap& trap) {
    if (trap.from_ring3() ||
        trap.address - reinterpret_cast<uint64_t>(pages) >= kThreads * 16 * 4096)
      return false;
    trap.r15++;
    return bool(release(reinterpret_cast<void*>(trap.address & ~4095ul), 4096, Reach::kThisThread));
  }));
  struct sigaction action {
  }, before;
  action.sa_handler = [](int) {
    ++signals;
    uint64_t hits = 0;
    asm volatile("int3" : "+c"(hits));
    wrong += hits != 1;
  };
  sigaction(SIGUSR1, &action, &before);
  std::atomic<bool> done = false;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i)
    threads.emplace_back([i, &done] {
      char* own = pages + i * 16 * 4096;
      char* stack = map_pages(1);
      wrong += !protect(stack, 4096, kRead | kWrite | kRing3);
      for (int round = 0; !done; ++round) {
        uint64_t hits = 0;
        for (int n = 0; n < 50; ++n)
          asm volatile("int3" : "+c"(hits));
        wrong += hits != 50;
        char* page = own + round % 16 * 4096;
        wrong += !protect(page, 4096, kRead, Reach::kThisThread);
        register uint64_t faults asm("r15") = 0;
        asm volatile("movb $1, (%1)" : "+r"(faults) : "r"(page) : "memory");
        wrong += faults != 1;
        Ring3 r;
        r.trap.rip = reinterpret_cast<uint64_t>(ring3_code);
        r.trap.rsp = reinterpret_cast<uint64_t>(stack + 4096);
        r.trap.r12 = 20;
        run_ring3(r);
        wrong += r.trap.vector != vector::kBreakpoint || r.trap.rax != uint64_t(getppid());
        if (round % 64 == 0) {
          const pid_t child = fork();
          if (child == 0)
            _exit(inside() ? 1 : 7);
          int status = 0;
          while (waitpid(child, &status, 0) < 0 && errno == EINTR)
            ;
          wrong += !WIFEXITED(status) || WEXITSTATUS(status) != 7;
        }
      }
    });
  for (int n = 0; n < 400; ++n) {
    pthread_kill(threads[size_t(n) % kThreads].native_handle(), SIGUSR1);
    usleep(n % 3 * 1000);
  }
  done = true;
  for (auto& t : threads)
    t.join();
  EXPECT_EQ(wrong, 0u);
  EXPECT_GT(signals, 0u);
  sigaction(SIGUSR1, &before, nullptr);
  for (uint32_t v : {vector::kBreakpoint, vector::kRing3SystemCall, vector::kPageFault})
    ASSERT_TRUE(set_trap_handler(v, nullptr));
}

} // namespace
} // namespace dune

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  dune::EnterOptions options;
  options.view_tags = dune::wants_tags();
  if (auto ok = dune::enter(options); !ok) {
    fprintf(stderr, "%s (%s)\n", ok.error().text, strerror(static_cast<int>(ok.error().detail)));
    return 77;
  }
  return RUN_ALL_TESTS();
}
