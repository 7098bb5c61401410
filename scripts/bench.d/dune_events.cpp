// dune-events PLACE CPU EVENTS RUNS [EVENT...]
// What events cost a program that enters Dune mode by itself, or (PLACE linux) the same program
// without, by its own clocks: the microbenchmarks of the paper (Dune, OSDI 2012, section 6) for
// `scripts/bench dune`. PLACE: linux, kmod, kvm; dispatch, kmod that makes calls itself. EVENTS is
// a multiple of 100.
//
// Prints a line per event and run: its name, then for each event ticks of the time stamp counter,
// nanoseconds, exits from the guest, and those of them that were faults of the second level. "-":
// nobody counts them. Exits are counted by whoever runs the guest, not by the library: dune.ko says
// so in the page that it shares with the process, KVM in debugfs, for all its guests. Interrupts of
// the host's are left out.
//
// EVENT, all that the place has if none is named:
//   getppid    a system call that does nothing
//   touch      the first touch of each page of anonymous memory
//   walk       a load from a random page of 64 MiB of 4 KiB pages, which the TLB does not hold
//   trap       int3, to a handler and back (a signal's, without Dune mode)
//   vectors    the same, whose handler may use vector registers; Dune mode only
//   step       an instruction with the trap flag set, its handler and back
//   refused    a store to a read-only page, its handler, on behind the store
//   answered   a system call of ring 3 that a handler in ring 0 answers; Dune mode only
//   interposed the same, and the handler makes it; Dune mode only
//   appel1     of Appel and Li (ASPLOS 1991), a page: a store to a protected page, whose handler
//              allows it and protects another (PROT1, TRAP, UNPROT)
//   appel2     a page of a hundred that are protected at once; the handler allows it (PROTN, TRAP,
//              UNPROT)
// Both take their hundred pages in random order.
#include "kmod/uapi/dune.h"

#include <dune/enter.h>
#include <dune/paging.h>
#include <dune/ring3.h>
#include <dune/trap.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <numeric>
#include <optional>
#include <random>
#include <sched.h>
#include <string_view>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>
#include <unistd.h>
#include <vector>
#include <x86intrin.h>

namespace {

using dune::Trap;

constexpr size_t kPage = 4096;
constexpr size_t kProtected = 100; // pages, Appel and Li's number
constexpr size_t kWalked = 16384;  // pages: more than a TLB of two levels has room for
constexpr uint64_t kTrapFlag = 0x100;

[[noreturn]] void give_up(const char* what, const char* why) {
  fprintf(stderr, "dune-events: %s: %s\n", what, why);
  exit(1);
}
void need(bool ok, const char* what) {
  if (!ok)
    give_up(what, strerror(errno));
}
void need(const dune::Status& ok, const char* what) {
  if (!ok)
    give_up(what, ok.error().text);
}

// --- Counting
// ------------------------------------------------------------------------------------

struct Exits {
  uint64_t all = 0, faults = 0;
};

class ExitCounter {
public:
  virtual ~ExitCounter() = default;
  virtual Exits read() const = 0;
  virtual bool knows_faults() const = 0;
};

// The page is not the guest's; the kernel reads it for us.
class ModulesCounter : public ExitCounter {
public:
  ModulesCounter() : memory_(open("/proc/self/mem", O_RDONLY | O_CLOEXEC)) {
    need(memory_ >= 0, "/proc/self/mem");
    FILE* maps = fopen("/proc/self/maps", "re");
    need(maps != nullptr, "/proc/self/maps");
    char line[512];
    while (fgets(line, sizeof line, maps))
      if (strstr(line, "dune-vcpu"))
        run_ = strtoull(line, nullptr, 16);
    fclose(maps);
    if (!run_)
      give_up("/proc/self/maps", "it has no page of dune.ko's");
  }
  Exits read() const override {
    const dune_run run = page();
    return {run.entries - run.interrupts, run.faults};
  }
  uint64_t dispatched() const { return page().dispatched; }
  bool knows_faults() const override { return true; }

private:
  dune_run page() const {
    dune_run run;
    need(pread(memory_, &run, sizeof run, static_cast<off_t>(run_)) == sizeof run,
         "the page of dune.ko's");
    return run;
  }
  int memory_;
  uint64_t run_ = 0;
};

class KvmsCounter : public ExitCounter {
public:
  static bool is_there() { return access(kAll, R_OK) == 0; }
  Exits read() const override { return {number(kAll) - number(kInterrupts), 0}; }
  bool knows_faults() const override { return false; }

private:
  static constexpr char kAll[] = "/sys/kernel/debug/kvm/exits";
  static constexpr char kInterrupts[] = "/sys/kernel/debug/kvm/irq_exits";
  static uint64_t number(const char* path) { // such a file is read once
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    char text[32] = {};
    need(file >= 0 && ::read(file, text, sizeof text - 1) > 0, path);
    close(file);
    return strtoull(text, nullptr, 10);
  }
};

uint64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}
uint64_t now_ticks() {
  _mm_lfence();
  const uint64_t now = __rdtsc();
  _mm_lfence();
  return now;
}

// What a stretch of the program takes.
class Meter {
public:
  explicit Meter(const ExitCounter* exits) : exits_(exits) {
    for (int warm = 0; warm < 3; ++warm) { // what reading takes, at last
      own_ = {};
      begin();
      end();
      own_ = taken_;
    }
  }
  void begin() {
    before_ = exits_ ? exits_->read() : Exits{};
    ns_ = now_ns();
    ticks_ = now_ticks();
  }
  void end() {
    ticks_ = now_ticks() - ticks_;
    ns_ = now_ns() - ns_;
    const Exits after = exits_ ? exits_->read() : Exits{};
    taken_ = {after.all - before_.all - own_.all, after.faults - before_.faults - own_.faults};
  }
  void print(const char* name, uint64_t events) const {
    const auto each = [events](uint64_t n) {
      return static_cast<double>(static_cast<int64_t>(n)) / static_cast<double>(events);
    };
    printf("%s %.2f %.2f", name, each(ticks_), each(ns_));
    exits_ ? printf(" %.4f", each(taken_.all)) : printf(" -");
    exits_ && exits_->knows_faults() ? printf(" %.4f\n", each(taken_.faults)) : printf(" -\n");
    fflush(stdout);
  }

private:
  const ExitCounter* exits_;
  Exits before_, taken_, own_;
  uint64_t ns_ = 0, ticks_ = 0;
};

// --- What happens
// --------------------------------------------------------------------------------

volatile uint64_t g_handled, g_stop_at;
char* g_pages; // twice kProtected
std::vector<size_t> g_order;

extern "C" {
void dune_events_breakpoints(uint64_t times);
void dune_events_steps(const volatile uint64_t* handled, uint64_t times);
void dune_events_stores(char* to, uint64_t times);
void dune_events_calls(uint64_t times);
extern char dune_events_behind_store[], dune_events_ring3[], dune_events_ring3_end[];
}
asm(R"(
  .pushsection .text
  .globl dune_events_breakpoints, dune_events_steps, dune_events_stores, dune_events_calls
  .globl dune_events_behind_store, dune_events_ring3, dune_events_ring3_end
dune_events_breakpoints:
  int3
  dec %rdi
  jnz dune_events_breakpoints
  ret
dune_events_steps:                # the handler ends it
  pushfq
  orq $0x100, (%rsp)
  popfq
1:
  cmp %rsi, (%rdi)
  jb 1b
  ret
dune_events_stores:
  movb $1, (%rdi)
dune_events_behind_store:
  dec %rsi
  jnz dune_events_stores
  ret
dune_events_calls:                # getppid
  mov $110, %eax
  syscall
  dec %rdi
  jnz dune_events_calls
  ret
  .balign 4096
dune_events_ring3:
  mov $110, %eax
  syscall
  dec %r12
  jnz dune_events_ring3
  int3
  .balign 4096
dune_events_ring3_end:
  .popsection
)");

char* map_pages(size_t count) {
  void* at =
      mmap(nullptr, count * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  need(at != MAP_FAILED && madvise(at, count * kPage, MADV_NOHUGEPAGE) == 0, "memory");
  return static_cast<char*>(at);
}

void store(char* to) { *static_cast<volatile char*>(to) = 1; }

size_t page_number(uint64_t address) {
  return (address - reinterpret_cast<uint64_t>(g_pages)) / kPage;
}
char* page_at(size_t number) { return g_pages + number * kPage; }
size_t other_half(size_t number) { return (number + kProtected) % (2 * kProtected); }

void getppid_calls(Meter& meter, uint64_t n) {
  meter.begin();
  dune_events_calls(n);
  meter.end();
}

void first_touches(Meter& meter, uint64_t n) {
  char* const memory = map_pages(n);
  meter.begin();
  for (uint64_t i = 0; i < n; ++i)
    store(memory + i * kPage);
  meter.end();
  munmap(memory, n * kPage);
}

// Each page has the place of the next, in one circle of all.
void* make_circle() {
  char* const memory = map_pages(kWalked);
  std::vector<size_t> order(kWalked);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(1));
  const auto place = [&](size_t i) { // not all in the same lines of the caches
    const size_t page = order[i % kWalked];
    return reinterpret_cast<void**>(memory + page * kPage + page * 64 % kPage);
  };
  for (size_t i = 0; i < kWalked; ++i)
    *place(i) = place(i + 1);
  return place(0);
}
void page_walks(Meter& meter, uint64_t n) {
  static void* place = make_circle();
  void* at = place;
  meter.begin();
  for (uint64_t i = 0; i < n; ++i)
    at = *static_cast<void* volatile*>(at);
  meter.end();
  place = at;
}

void breakpoints(Meter& meter, uint64_t n) {
  meter.begin();
  dune_events_breakpoints(n);
  meter.end();
}

void steps(Meter& meter, uint64_t n) {
  g_stop_at = n;
  meter.begin();
  dune_events_steps(&g_handled, n);
  meter.end();
}

void stores(Meter& meter, uint64_t n) {
  meter.begin();
  dune_events_stores(g_pages, n);
  meter.end();
}

// The hundred that are protected at the moment, which is every other time the second hundred.
void touch_all(size_t half) {
  for (size_t number : g_order)
    store(page_at(half * kProtected + number));
}
void touches_one_protected(Meter& meter, uint64_t n) {
  meter.begin();
  for (uint64_t round = 0; round < n / kProtected; ++round)
    touch_all(round % 2);
  meter.end();
}

// --- Without Dune mode
// ---------------------------------------------------------------------------

namespace linux_side {

using Handler = void (*)(int, siginfo_t*, void*);

void handle(int signal, Handler handler) {
  struct sigaction action {};
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = handler;
  need(sigaction(signal, &action, nullptr) == 0, "sigaction");
}

greg_t& reg(void* context, int which) {
  return static_cast<ucontext_t*>(context)->uc_mcontext.gregs[which];
}

void allow(size_t first, size_t count, int protection) {
  if (mprotect(page_at(first), count * kPage, protection) != 0)
    _exit(3); // also in handlers
}

void trap(Meter& meter, uint64_t n) {
  handle(SIGTRAP, [](int, siginfo_t*, void*) { g_handled = g_handled + 1; });
  breakpoints(meter, n);
}
void step(Meter& meter, uint64_t n) {
  handle(SIGTRAP, [](int, siginfo_t*, void* context) {
    g_handled = g_handled + 1;
    if (g_handled >= g_stop_at)
      reg(context, REG_EFL) &= ~static_cast<greg_t>(kTrapFlag);
  });
  steps(meter, n);
}
void refused(Meter& meter, uint64_t n) {
  handle(SIGSEGV, [](int, siginfo_t*, void* context) {
    g_handled = g_handled + 1;
    reg(context, REG_RIP) = reinterpret_cast<greg_t>(dune_events_behind_store);
  });
  allow(0, 1, PROT_READ);
  stores(meter, n);
  allow(0, 1, PROT_READ | PROT_WRITE);
}
void appel1(Meter& meter, uint64_t n) {
  handle(SIGSEGV, [](int, siginfo_t* info, void*) {
    g_handled = g_handled + 1;
    const size_t number = page_number(reinterpret_cast<uint64_t>(info->si_addr));
    allow(number, 1, PROT_READ | PROT_WRITE);
    allow(other_half(number), 1, PROT_READ);
  });
  allow(0, kProtected, PROT_READ);
  touches_one_protected(meter, n);
  allow(0, 2 * kProtected, PROT_READ | PROT_WRITE);
}
void appel2(Meter& meter, uint64_t n) {
  handle(SIGSEGV, [](int, siginfo_t* info, void*) {
    g_handled = g_handled + 1;
    allow(page_number(reinterpret_cast<uint64_t>(info->si_addr)), 1, PROT_READ | PROT_WRITE);
  });
  meter.begin();
  for (uint64_t round = 0; round < n / kProtected; ++round) {
    allow(0, kProtected, PROT_READ);
    touch_all(0);
  }
  meter.end();
}

} // namespace linux_side

// --- In Dune mode
// --------------------------------------------------------------------------------

namespace dune_side {

using dune::VectorRegisters;
namespace vector = dune::vector;

// Of a handler, which is not to use what nobody saves for it.
#define GENERAL_REGISTERS_ONLY __attribute__((target("general-regs-only")))

void handle(uint32_t exception, dune::TrapHandler handler, VectorRegisters registers) {
  need(dune::set_trap_handler(exception, handler, registers), "set_trap_handler");
}

void allow(size_t first, size_t count, uint32_t access) {
  if (!dune::protect(page_at(first), count * kPage, access))
    _exit(3); // also in handlers
}
constexpr uint32_t kReadWrite = dune::kRead | dune::kWrite;

GENERAL_REGISTERS_ONLY bool count(Trap&) {
  g_handled = g_handled + 1;
  return true;
}
void trap(Meter& meter, uint64_t n) {
  handle(vector::kBreakpoint, count, VectorRegisters::kUntouched);
  breakpoints(meter, n);
}
void vectors(Meter& meter, uint64_t n) {
  handle(vector::kBreakpoint, count, VectorRegisters::kSaved);
  breakpoints(meter, n);
}

GENERAL_REGISTERS_ONLY bool count_step(Trap& trap) {
  g_handled = g_handled + 1;
  if (g_handled >= g_stop_at)
    trap.eflags &= ~kTrapFlag;
  return true;
}
void step(Meter& meter, uint64_t n) {
  handle(vector::kDebug, count_step, VectorRegisters::kUntouched);
  steps(meter, n);
}

GENERAL_REGISTERS_ONLY bool pass_store(Trap& trap) {
  g_handled = g_handled + 1;
  trap.rip = reinterpret_cast<uint64_t>(dune_events_behind_store);
  return true;
}
void refused(Meter& meter, uint64_t n) {
  handle(vector::kPageFault, pass_store, VectorRegisters::kUntouched);
  allow(0, 1, dune::kRead);
  stores(meter, n);
  allow(0, 1, kReadWrite);
}

GENERAL_REGISTERS_ONLY bool answer(Trap& trap) {
  g_handled = g_handled + 1;
  trap.rax = 42;
  return true;
}
GENERAL_REGISTERS_ONLY bool make(Trap& trap) {
  g_handled = g_handled + 1;
  asm volatile("syscall" : "+a"(trap.rax) : : "rcx", "r11", "memory");
  return true;
}
void ring3(Meter& meter, uint64_t n, dune::TrapHandler handler) {
  const auto size = static_cast<size_t>(dune_events_ring3_end - dune_events_ring3);
  need(dune::protect(dune_events_ring3, size, dune::kRead | dune::kExecute | dune::kRing3),
       "ring 3's code");
  handle(vector::kBreakpoint, nullptr, VectorRegisters::kSaved);
  handle(vector::kRing3SystemCall, handler, VectorRegisters::kUntouched);
  dune::Ring3 r;
  r.trap.rip = reinterpret_cast<uint64_t>(dune_events_ring3);
  r.trap.r12 = n;
  meter.begin();
  dune::run_ring3(r);
  meter.end();
  if (r.trap.vector != vector::kBreakpoint)
    give_up("ring 3", "it did not come to its end");
}
void answered(Meter& meter, uint64_t n) { ring3(meter, n, answer); }
void interposed(Meter& meter, uint64_t n) { ring3(meter, n, make); }

void appel1(Meter& meter, uint64_t n) {
  const auto handler = [](Trap& trap) {
    g_handled = g_handled + 1;
    const size_t number = page_number(trap.address);
    allow(number, 1, kReadWrite);
    allow(other_half(number), 1, dune::kRead);
    return true;
  };
  handle(vector::kPageFault, handler, VectorRegisters::kSaved);
  allow(0, kProtected, dune::kRead);
  touches_one_protected(meter, n);
  allow(0, 2 * kProtected, kReadWrite);
}
void appel2(Meter& meter, uint64_t n) {
  const auto handler = [](Trap& trap) {
    g_handled = g_handled + 1;
    allow(page_number(trap.address), 1, kReadWrite);
    return true;
  };
  handle(vector::kPageFault, handler, VectorRegisters::kSaved);
  meter.begin();
  for (uint64_t round = 0; round < n / kProtected; ++round) {
    allow(0, kProtected, dune::kRead);
    touch_all(0);
  }
  meter.end();
}

} // namespace dune_side

// --- The table
// -----------------------------------------------------------------------------------

using Run = void (*)(Meter&, uint64_t);
constexpr struct {
  const char* name;
  Run on_linux, in_dune; // null: not there
  bool is_handled;       // a handler counts it
} kEvents[] = {{"getppid", getppid_calls, getppid_calls, false},
               {"touch", first_touches, first_touches, false},
               {"walk", page_walks, page_walks, false},
               {"trap", linux_side::trap, dune_side::trap, true},
               {"vectors", nullptr, dune_side::vectors, true},
               {"step", linux_side::step, dune_side::step, true},
               {"refused", linux_side::refused, dune_side::refused, true},
               {"answered", nullptr, dune_side::answered, true},
               {"interposed", nullptr, dune_side::interposed, true},
               {"appel1", linux_side::appel1, dune_side::appel1, true},
               {"appel2", linux_side::appel2, dune_side::appel2, true}};

void prepare_pages() {
  g_pages = map_pages(2 * kProtected);
  for (size_t i = 0; i < 2 * kProtected; ++i)
    store(page_at(i));
  g_order.resize(kProtected);
  std::iota(g_order.begin(), g_order.end(), 0);
  std::shuffle(g_order.begin(), g_order.end(), std::mt19937(2));
}

bool is_wanted(const char* name, char** names) {
  for (char** n = names; *n; ++n)
    if (strcmp(*n, name) == 0)
      return true;
  return !*names;
}

} // namespace

int main(int argc, char** argv) {
  const std::string_view place = argc > 4 ? argv[1] : "";
  const bool on_kmod = place == "kmod" || place == "dispatch";
  const bool in_dune = on_kmod || place == "kvm";
  const uint64_t events = argc > 4 ? strtoull(argv[3], nullptr, 10) : 0;
  if ((!in_dune && place != "linux") || !events || events % kProtected) {
    fprintf(stderr, "usage: dune-events linux|kmod|kvm|dispatch CPU EVENTS RUNS [EVENT...]\n"
                    "EVENTS is a multiple of 100.\n");
    return 2;
  }
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(atoi(argv[2]), &set);
  need(sched_setaffinity(0, sizeof set, &set) == 0, "sched_setaffinity");
  if (in_dune) {
    dune::EnterOptions options;
    options.backend = on_kmod ? "kmod" : argv[1];
    if (auto ok = dune::enter(options); !ok) {
      const auto error = static_cast<int>(ok.error().detail);
      fprintf(stderr, "dune-events: %s%s%s\n", ok.error().text, error ? ": " : "",
              error ? strerror(error) : "");
      return 77;
    }
  }
  std::optional<ModulesCounter> modules;
  std::optional<KvmsCounter> kvms;
  const ExitCounter* counter = nullptr;
  if (on_kmod)
    counter = &modules.emplace();
  else if (in_dune && KvmsCounter::is_there())
    counter = &kvms.emplace();
  if (place == "dispatch") {
    const uint64_t before = modules->dispatched();
    dune_events_calls(1);
    if (modules->dispatched() == before) {
      fprintf(stderr,
              "dune-events: dune.ko has made no call itself: was it loaded with dispatch=1?\n");
      return 77;
    }
  }
  Meter meter(counter);
  prepare_pages();
  for (const auto& event : kEvents) {
    const Run run = in_dune ? event.in_dune : event.on_linux;
    if (!run || !is_wanted(event.name, argv + 5))
      continue;
    for (int i = -1; i < atoi(argv[4]); ++i) { // the first to have everything in place
      g_handled = 0;
      run(meter, events);
      if (g_handled != (event.is_handled ? events : 0))
        give_up(event.name, "the handler has counted another number");
      if (i >= 0)
        meter.print(event.name, events);
    }
  }
  return 0;
}
