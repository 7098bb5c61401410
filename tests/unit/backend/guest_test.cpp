// The contract's promises one by one, on snippets of this very program.
#include "guests.h"
#include "host_loop.h"
#include "libdune/arch/debug_registers.h"
#include "libdune/arch/syscall.h"
#include "tests/open_under_signals.h"

#include <atomic>
#include <chrono>
#include <csignal>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <thread>

namespace dune::backend {
namespace {

// Snippets, which the guest finds where this program has them. rdi: a pointer, rbx: a count.
extern "C" const char snippet_call[], snippet_trap[], snippet_undefined[], snippet_divide[],
    snippet_halt[], snippet_out[], snippet_write[], snippet_spin[], snippet_vectors[],
    snippet_traps[], snippet_step[], snippet_add[], snippet_handler[];
asm(R"(
    .pushsection .text
    .balign 4096
snippet_call:      mov $110, %eax; syscall; ud2
snippet_trap:      int3; ud2
snippet_undefined: ud2
snippet_divide:    xor %ecx, %ecx; div %ecx
snippet_halt:      hlt
snippet_out:       out %al, $0x80
snippet_write:     mov %rbx, (%rdi); syscall
snippet_spin:      jmp snippet_spin
snippet_vectors:   movdqa %xmm3, %xmm4; paddq %xmm4, %xmm4; syscall
snippet_traps:     int3; dec %rbx; jnz snippet_traps; syscall
snippet_step:      nop; nop; syscall
snippet_add:       lock incq (%rdi); int3; dec %rbx; jnz snippet_add; syscall
    .balign 4096
snippet_handler:   inc %r15; iretq
    .balign 4096
    .popsection
)");

class Guests : public GuestTest {
protected:
  void SetUp() override {
    GuestTest::SetUp();
    if (IsSkipped() || HasFatalFailure())
      return;
    const Handler handler{kVectorBreakpoint,
                          TargetAddr(reinterpret_cast<uint64_t>(snippet_handler))};
    auto plain = MappedGuest::open(ops(), placement(), {}, 256);
    ASSERT_TRUE(plain) << plain.error().text << plain.error().detail;
    guest_ = std::move(*plain);
    auto handling = MappedGuest::open(ops(), placement(), std::span(&handler, 1), 256);
    ASSERT_TRUE(handling) << handling.error().text;
    handling_ = std::move(*handling);
    const uint64_t ring = placement() == Placement::kRing3 ? uint64_t{kPageUser} : 0;
    ASSERT_TRUE(
        map_page(handling_->guest, handler.entry, kPageRead | kPageExecute | kPageOwn | ring));
  }

  Exit run_at(const char* snippet) {
    start_at(cpu(), snippet, stack_ + sizeof stack_);
    return run_mapped(*guest_);
  }
  Cpu& cpu() { return guest_->cpu; }

  alignas(4096) std::byte stack_[4096];
  std::unique_ptr<MappedGuest> guest_, handling_;
};

INSTANTIATE_TEST_SUITE_P(Guests, Guests, each_guest(), name_of_guest);

void expect_trap(const Exit& e, uint32_t vector, uint64_t error = 0) {
  EXPECT_EQ(e.why, Why::kTrap);
  EXPECT_EQ(e.vector, vector);
  EXPECT_EQ(e.error, error);
}

TEST_P(Guests, SystemCallComesOutBehindTheInstruction) {
  EXPECT_EQ(run_at(snippet_call).why, Why::kSystemCall);
  const Registers& r = cpu().regs;
  EXPECT_EQ(r.rax, 110u);
  EXPECT_EQ(r.rip, reinterpret_cast<uint64_t>(snippet_call) + 7);
  EXPECT_EQ(r.rsp, reinterpret_cast<uint64_t>(stack_ + sizeof stack_));
  EXPECT_EQ(r.cs, kUserCode);
  EXPECT_EQ(r.eflags & 1 << 9, 1u << 9);
}

TEST_P(Guests, TrapComesOutWithTheRegistersItFound) {
  expect_trap(run_at(snippet_trap), kVectorBreakpoint);
  EXPECT_EQ(cpu().regs.rip, reinterpret_cast<uint64_t>(snippet_trap) + 1);
  EXPECT_EQ(cpu().regs.rsp, reinterpret_cast<uint64_t>(stack_ + sizeof stack_));
  EXPECT_EQ(cpu().regs.cs, kUserCode);
  expect_trap(run_at(snippet_undefined), 6);
  expect_trap(run_at(snippet_divide), 0);
  expect_trap(run_at(snippet_halt), kVectorGeneralProtection);
  EXPECT_EQ(cpu().regs.rip, reinterpret_cast<uint64_t>(snippet_halt));
}

TEST_P(Guests, ProgramCannotForgeAStubsCall) {
  expect_trap(run_at(snippet_out), kVectorGeneralProtection);
  const uint64_t length = placement() == Placement::kRing3 ? 2 : 0;
  EXPECT_EQ(cpu().regs.rip, reinterpret_cast<uint64_t>(snippet_out) + length);
}

TEST_P(Guests, PageFaultSaysWhere) {
  start_at(cpu(), snippet_write, stack_ + sizeof stack_);
  cpu().regs.rdi = 0x1234;
  const Exit e = run_mapped(*guest_);
  expect_trap(e, kVectorPageFault, 6); // ring 3, write, no page
  EXPECT_EQ(e.address, 0x1234u);
  cpu().regs.rdi = 0xffffffffff600000;
  EXPECT_EQ(run_mapped(*guest_).address, 0xffffffffff600000u);
}

TEST_P(Guests, StepTrapsBehindOneInstruction) {
  start_at(cpu(), snippet_step, stack_ + sizeof stack_);
  cpu().regs.eflags |= kEflagsTrap;
  for (uint64_t n = 1; n <= 2; ++n) {
    expect_trap(run_mapped(*guest_), kVectorDebug);
    EXPECT_EQ(cpu().regs.rip, reinterpret_cast<uint64_t>(snippet_step) + n);
  }
}

TEST_P(Guests, HandledTrapsDoNotComeOut) {
  constexpr uint64_t kTraps = 20'000;
  start_at(handling_->cpu, snippet_traps, stack_ + sizeof stack_);
  handling_->cpu.regs.rbx = kTraps;
  uint64_t exits = 0;
  EXPECT_EQ(run_mapped(*handling_, &exits).why, Why::kSystemCall);
  EXPECT_EQ(handling_->cpu.regs.r15, kTraps);
  // The page of the snippet, the system call, and what the scheduler's signals may add: none here.
  EXPECT_EQ(exits, 2u);
}

TEST_P(Guests, WatchedWriteTrapsBehindTheInstruction) {
  if (!can(session::kCapHardwareWatch))
    GTEST_SKIP() << GetParam()->name << " has no hardware watchpoints here";
  alignas(8) static uint64_t watched[2];
  const uint64_t address = reinterpret_cast<uint64_t>(&watched[1]);
  ASSERT_TRUE(guest_->guest.ops.set_debug(cpu(), {{0, address}, 4 | 9 << 20}));
  for (uint64_t value = 1; value <= 2; ++value) {
    start_at(cpu(), snippet_write, stack_ + sizeof stack_);
    cpu().regs.rdi = address;
    cpu().regs.rbx = value;
    const Exit e = run_mapped(*guest_);
    EXPECT_EQ(e.why, Why::kTrap);
    EXPECT_EQ(e.vector, kVectorDebug);
    EXPECT_EQ(e.error & 15, 2u);
    EXPECT_EQ(watched[1], value);
    EXPECT_EQ(cpu().regs.rip, reinterpret_cast<uint64_t>(snippet_write) + 3);
    EXPECT_EQ(run_mapped(*guest_).why, Why::kSystemCall);
  }
  ASSERT_TRUE(guest_->guest.ops.set_debug(cpu(), {}));
  cpu().regs.rip = reinterpret_cast<uint64_t>(snippet_write);
  EXPECT_EQ(run_mapped(*guest_).why, Why::kSystemCall);
}

TEST_P(Guests, StatusSaysWhatADebugExceptionIsOf) {
  alignas(8) static uint64_t watched[2], status;
  const uint64_t address = reinterpret_cast<uint64_t>(watched);
  const uint64_t dr7 = dr7_watching(0, 8, false) | dr7_watching(3, 8, true);
  const Status armed =
      guest_->guest.ops.set_debug(cpu(), {{address, 0, 0, address + 8}, dr7, &status});
  if (!can(session::kCapDebugRegisters) && !armed) {
    EXPECT_EQ(armed.error().code, Errc::kUnsupported);
    return;
  }
  ASSERT_TRUE(armed);
  const bool hits = can(session::kCapDebugRegisters);
  for (const uint64_t flags : {uint64_t{0}, kEflagsTrap})
    for (const uint64_t number : {0, 3}) {
      start_at(cpu(), snippet_write, stack_ + sizeof stack_);
      cpu().regs.rdi = address + (number ? 8 : 0);
      cpu().regs.eflags |= flags;
      status = 0;
      const Exit e = run_mapped(*guest_);
      const uint64_t expected = (hits ? 1 << number : 0) | (flags ? kDr6Step : 0);
      EXPECT_EQ(status, expected);
      EXPECT_EQ(e.why, expected ? Why::kTrap : Why::kSystemCall);
    }
  ASSERT_TRUE(guest_->guest.ops.set_debug(cpu(), {}));
}

TEST_P(Guests, ThreadsRunSideBySide) {
  constexpr int kThreads = 4;
  constexpr uint64_t kRounds = 5'000;
  struct Worker {
    Mapping memory;
    Cpu cpu{};
    Exit last{};
  };
  std::vector<Worker> workers(kThreads);
  Guest& guest = handling_->guest;
  alignas(4096) static std::atomic<uint64_t> counter;
  counter = 0;
  const uint64_t data = kPageRead | kPageWrite | kPageUser;
  const TargetAddr code = TargetAddr(reinterpret_cast<uint64_t>(snippet_add)).align_down(kPageSize);
  ASSERT_TRUE(map_page(guest, code, kPageRead | kPageExecute | kPageUser));
  ASSERT_TRUE(map_page(guest, TargetAddr(reinterpret_cast<uint64_t>(&counter)), data));
  for (Worker& w : workers) {
    auto memory = Mapping::anonymous(sizeof(CpuMemory) + kPageSize);
    ASSERT_TRUE(memory);
    w.memory = std::move(*memory);
    const TargetAddr begin(reinterpret_cast<uint64_t>(w.memory.data()));
    const TargetAddr stack = begin + sizeof(CpuMemory);
    ASSERT_TRUE(open_cpu(w.cpu, guest, {begin, stack}, stack + kPageSize));
    start_at(w.cpu, snippet_add, nullptr);
    w.cpu.regs.rdi = reinterpret_cast<uint64_t>(&counter);
  }
  // Twice, the second time with other threads of the host: a processor is nobody's in particular.
  for (int round = 1; round <= 2; ++round) {
    std::vector<std::thread> threads;
    threads.reserve(kThreads);
    for (Worker& w : workers)
      threads.emplace_back([&guest, &w] {
        w.cpu.regs.rip = reinterpret_cast<uint64_t>(snippet_add);
        w.cpu.regs.rbx = kRounds;
        do
          w.last = guest.ops.run(w.cpu);
        while (w.last.why == Why::kInterrupted);
      });
    for (std::thread& t : threads)
      t.join();
    for (const Worker& w : workers) {
      EXPECT_EQ(w.last.why, Why::kSystemCall);
      EXPECT_EQ(w.cpu.regs.r15, round * kRounds);
    }
    EXPECT_EQ(counter, round * kThreads * kRounds);
  }
  for (Worker& w : workers)
    guest.ops.close_cpu(w.cpu);
}

TEST_P(Guests, RightsTakenAwayAreGone) {
  auto memory = Mapping::anonymous(kPageSize);
  ASSERT_TRUE(memory);
  auto* word = reinterpret_cast<volatile uint64_t*>(memory->data());
  const auto write = [&](uint64_t value) {
    start_at(cpu(), snippet_write, stack_ + sizeof stack_);
    cpu().regs.rdi = reinterpret_cast<uint64_t>(word);
    cpu().regs.rbx = value;
    return run_mapped(*guest_);
  };
  EXPECT_EQ(write(5).why, Why::kSystemCall);
  EXPECT_EQ(*word, 5u);
  const TargetAddr page(reinterpret_cast<uint64_t>(word));
  unmap_pages(guest_->guest, {page, page + kPageSize});
  mprotect(memory->data(), kPageSize, PROT_READ);
  expect_trap(write(6), kVectorPageFault, 6);
  EXPECT_EQ(*word, 5u);
  mprotect(memory->data(), kPageSize, PROT_READ | PROT_WRITE);
  EXPECT_EQ(write(7).why, Why::kSystemCall);
  EXPECT_EQ(*word, 7u);
}

TEST_P(Guests, PageThatTheHostRefusesIsUnbackedAndThenFaults) {
  const int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(ftruncate(fd, kPageSize), 0);
  auto file = Mapping::shared(fd, 2 * kPageSize);
  ASSERT_TRUE(file);
  const TargetAddr beyond(reinterpret_cast<uint64_t>(file->data()) + kPageSize);
  const uint64_t rights = kPageRead | kPageWrite | kPageUser;
  start_at(cpu(), snippet_write, stack_ + sizeof stack_);
  const TargetAddr code = TargetAddr(cpu().regs.rip).align_down(kPageSize);
  ASSERT_TRUE(map_page(guest_->guest, code, kPageRead | kPageUser | kPageExecute));
  ASSERT_TRUE(map_page(guest_->guest, beyond, rights));
  cpu().regs.rdi = beyond.value;
  EXPECT_EQ(guest_->run().why, Why::kUnbacked);
  const Exit e = run_mapped(*guest_); // which clears the tables, and tries again
  expect_trap(e, kVectorPageFault, 6);
  EXPECT_EQ(e.address, beyond.value);
  // Once there is something, the instruction goes through.
  ASSERT_EQ(ftruncate(fd, 2 * kPageSize), 0);
  cpu().regs.rbx = 9;
  EXPECT_EQ(run_mapped(*guest_).why, Why::kSystemCall);
  EXPECT_EQ(*reinterpret_cast<uint64_t*>(beyond.value), 9u);
  close(fd);
}

std::atomic<Cpu*> g_interrupted;
std::atomic<Guest*> g_guest;

TEST_P(Guests, SignalInterruptsASpinningThread) {
  g_interrupted = &cpu();
  g_guest = &guest_->guest;
  struct sigaction action {
  }, before;
  action.sa_handler = [](int) { g_guest.load()->ops.interrupt(*g_interrupted); };
  sigaction(SIGUSR1, &action, &before);
  std::atomic<int> tid = 0, rounds = 0;
  constexpr int kRounds = 200;
  start_at(cpu(), snippet_spin, stack_ + sizeof stack_);
  std::thread spinner([&] {
    tid = gettid();
    while (rounds < kRounds) {
      const Exit e = run_mapped(*guest_);
      EXPECT_EQ(e.why, Why::kInterrupted);
      EXPECT_EQ(cpu().regs.rip, reinterpret_cast<uint64_t>(snippet_spin));
      rounds.fetch_add(1);
      rounds.notify_one();
    }
  });
  while (!tid)
    sched_yield();
  for (int round = 0; round < kRounds; ++round) {
    // The handler runs in the guest's thread, wherever that is: before, in or after the run.
    tgkill(getpid(), tid, SIGUSR1);
    rounds.wait(round);
  }
  spinner.join();
  sigaction(SIGUSR1, &before, nullptr);
}

// A trap that is on its way when the run is interrupted belongs to the program, not to what the
// thread does next: as for a signal whose handler begins then.
TEST_P(Guests, InterruptedTrapIsTheProgramsAndComesOnce) {
  g_interrupted = &handling_->cpu;
  g_guest = &handling_->guest;
  struct sigaction action {
  }, before;
  action.sa_handler = [](int) { g_guest.load()->ops.interrupt(*g_interrupted); };
  sigaction(SIGUSR1, &action, &before);
  std::atomic<bool> done = false;
  std::thread sender([&, tid = gettid()] {
    while (!done) {
      tgkill(getpid(), tid, SIGUSR1);
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  });
  constexpr uint64_t kTraps = 200'000;
  Registers& r = handling_->cpu.regs;
  start_at(handling_->cpu, snippet_traps, stack_ + sizeof stack_);
  r.rbx = kTraps;
  uint64_t told = 0, interrupted = 0;
  for (Exit e{Why::kInterrupted}; e.why != Why::kSystemCall && !HasFailure();) {
    e = run_mapped(*handling_);
    if (e.why == Why::kTrap) {
      EXPECT_EQ(e.vector, kVectorBreakpoint);
      EXPECT_EQ(r.rip, reinterpret_cast<uint64_t>(snippet_traps) + 1);
      ++told;
    }
    constexpr uint64_t kPage = 4096;
    const bool handles = r.rip - reinterpret_cast<uint64_t>(snippet_handler) < kPage;
    if (e.why != Why::kInterrupted || handles)
      continue;
    ++interrupted;
    const Registers program = r;
    start_at(handling_->cpu, snippet_call, stack_ + sizeof stack_);
    Exit other{Why::kInterrupted};
    while (other.why == Why::kInterrupted)
      other = run_mapped(*handling_);
    EXPECT_EQ(other.why, Why::kSystemCall);
    r = program;
  }
  EXPECT_EQ(r.r15 + told, kTraps);
  EXPECT_GT(interrupted, 0u);
  done = true;
  sender.join();
  sigaction(SIGUSR1, &before, nullptr);
}

TEST_P(Guests, InterruptBeforeTheRunEndsIt) {
  EXPECT_EQ(run_at(snippet_call).why, Why::kSystemCall);
  start_at(cpu(), snippet_spin, stack_ + sizeof stack_);
  guest_->guest.ops.interrupt(cpu());
  EXPECT_EQ(run_mapped(*guest_).why, Why::kInterrupted);
  EXPECT_EQ(cpu().regs.rip, reinterpret_cast<uint64_t>(snippet_spin));
  // Once.
  EXPECT_EQ(run_at(snippet_call).why, Why::kSystemCall);
}

TEST_P(Guests, VectorStateGoesInAndOut) {
  alignas(64) uint8_t image[16384] = {};
  ASSERT_TRUE(guest_->guest.ops.store_vectors(cpu(), image, sizeof image));
  constexpr size_t kXmm = 160, kFeatures = 512; // in an XSAVE image
  uint64_t lanes[2] = {21, 0x100000001};
  memcpy(image + kXmm + 3 * 16, lanes, sizeof lanes);
  uint64_t features;
  memcpy(&features, image + kFeatures, sizeof features);
  features |= 3;
  memcpy(image + kFeatures, &features, sizeof features);
  ASSERT_TRUE(guest_->guest.ops.load_vectors(cpu(), image));
  EXPECT_EQ(run_at(snippet_vectors).why, Why::kSystemCall);
  ASSERT_TRUE(guest_->guest.ops.store_vectors(cpu(), image, sizeof image));
  memcpy(lanes, image + kXmm + 4 * 16, sizeof lanes);
  EXPECT_EQ(lanes[0], 42u);
  EXPECT_EQ(lanes[1], 0x200000002u);
  EXPECT_FALSE(guest_->guest.ops.store_vectors(cpu(), image, 64));
}

TEST_P(Guests, ForkedChildMakesItsOwn) {
  const pid_t pid = fork();
  if (pid == 0) {
    guest_.reset();
    auto own = MappedGuest::open(ops(), placement(), {}, 256);
    if (!own)
      _exit(1);
    guest_ = std::move(*own);
    _exit(run_at(snippet_call).why == Why::kSystemCall ? 0 : 2);
  }
  int status = -1;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(run_at(snippet_call).why, Why::kSystemCall);
}

TEST_P(Guests, OpeningOutlastsSignals) {
  test::expect_to_open_under_signals(
      [this] { return bool(MappedGuest::open(ops(), placement(), {}, 256)); });
}

TEST_P(Guests, BrokenGuestSaysSo) {
  // Without gates an exception can go nowhere: a triple fault.
  memset(reinterpret_cast<void*>(guest_->guest.memory.begin.value), 0, sizeof(Idt));
  EXPECT_EQ(run_at(snippet_call).why, Why::kBroken);
}

TEST_P(Guests, FullTablesForgetThePrograms) {
  auto small = MappedGuest::open(ops(), placement(), {}, 40);
  ASSERT_TRUE(small) << small.error().text;
  Guest& guest = (*small)->guest;
  constexpr uint64_t kRegion = 2 << 20;
  const TargetAddr first(0x10000000);
  for (uint64_t i = 0; i < 100; ++i) {
    EXPECT_TRUE(map_page(guest, first + i * kRegion, kPageRead | kPageUser));
    EXPECT_TRUE(guest.tables.mapped(first + i * kRegion));
  }
  EXPECT_FALSE(guest.tables.mapped(first));
  EXPECT_TRUE(guest.tables.mapped(guest.memory.begin));
  start_at((*small)->cpu, snippet_call, nullptr);
  EXPECT_EQ(run_mapped(**small).why, Why::kSystemCall);
  // What is ours stays until there is no room for more.
  Status ok;
  uint64_t pages = 0;
  for (; ok && pages < 100; ++pages)
    ok = map_page(guest, first + pages * kRegion, kPageRead | kPageOwn);
  ASSERT_FALSE(ok);
  EXPECT_EQ(ok.error().code, Errc::kExhausted);
  EXPECT_LT(pages, 40u);
  EXPECT_TRUE(guest.tables.mapped(first));
  ok = map_page(guest, TargetAddr(kUserEnd), kPageRead);
  ASSERT_FALSE(ok);
  EXPECT_EQ(ok.error().code, Errc::kInvalid);
}

} // namespace
} // namespace dune::backend
