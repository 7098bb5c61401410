// Threads of a guest that write and call, while another one changes what they write to and call.
#include "access.h"

#include "libdune/base/file.h"

#include <atomic>
#include <random>
#include <sys/mman.h>
#include <thread>

namespace dune::process {
namespace {

extern "C" const char snippet_increment[], snippet_call_increment[], increment[], increment_end[];
asm(R"(
    .pushsection .text
    .balign 4096
snippet_increment:      lock incq (%rdi); syscall
snippet_call_increment: call *%rsi; syscall
increment:              lock incq (%rdi); ret
increment_end:
    .balign 4096
    .popsection
)");

constexpr uint32_t kThreads = 4;
constexpr uint64_t kPages = 48;

class Storm : public MemoryTest {
protected:
  struct Writer {
    backend::MappedThread thread;
    uint32_t number;
    std::atomic<uint64_t> written[kPages] = {}; // increments that went through
    std::atomic<uint64_t> tries = 0;
  };

  uint64_t* word(uint64_t page, uint32_t writer) const {
    return reinterpret_cast<uint64_t*>(memory_ + page * stride_) + writer;
  }

  void write_on(Writer& w, const std::atomic<bool>& stop) {
    std::mt19937 random(w.number);
    while (!stop) {
      const uint64_t page = random() % kPages;
      const bool calls = random() % 4 == 0;
      alignas(16) char stack[64];
      backend::Cpu& cpu = w.thread.cpu;
      backend::start_at(cpu, calls ? snippet_call_increment : snippet_increment,
                        stack + sizeof stack);
      cpu.regs.rsi = reinterpret_cast<uint64_t>(code_);
      cpu.regs.rdi = calls ? reinterpret_cast<uint64_t>(&calls_)
                           : reinterpret_cast<uint64_t>(word(page, w.number));
      const backend::Exit e = backend::run_mapped(w.thread);
      if (e.why == backend::Why::kSystemCall) {
        w.written[page] += !calls;
      } else if (e.why != backend::Why::kTrap || e.vector != kVectorPageFault ||
                 (w.thread.refused != Outcome::kNoMapping &&
                  w.thread.refused != Outcome::kNoRights)) {
        ADD_FAILURE() << int(e.why) << " " << e.vector << " " << e.error << " "
                      << int(w.thread.refused);
        return;
      }
      ++w.tries;
    }
  }

  void change_what_they_use();

  uint64_t stride_ = kPageSize; // of the pages
  uint8_t* memory_ = nullptr;
  uint8_t* code_ = nullptr;
  alignas(4096) std::atomic<uint64_t> calls_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Guests, Storm, backend::each_guest(), backend::name_of_guest);

void Storm::change_what_they_use() {
  constexpr int kRounds = 300;
  memory_ = map(kPages * stride_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  code_ = map(kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
  memcpy(code_, increment, size_t(increment_end - increment));
  ASSERT_EQ(change(__NR_mprotect, code_, kPageSize, PROT_READ | PROT_EXEC), 0);
  uint8_t* elsewhere = map(kPageSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS);
  std::vector<std::unique_ptr<Writer>> writers;
  auto processors = Mapping::anonymous(kThreads * sizeof(backend::CpuMemory));
  ASSERT_TRUE(processors);
  std::vector<backend::Cpu> cpus(kThreads);
  for (uint32_t i = 0; i < kThreads; ++i) {
    const TargetAddr at(reinterpret_cast<uint64_t>(processors->data()) +
                        i * sizeof(backend::CpuMemory));
    const Holder holder(guest_->memory.mutex());
    ASSERT_TRUE(backend::open_cpu(cpus[i], guest_->guest, {at, at + sizeof(backend::CpuMemory)},
                                  TargetAddr()));
    writers.push_back(std::unique_ptr<Writer>(new Writer{{guest_->memory, cpus[i]}, i}));
  }
  std::atomic<bool> stop = false;
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (auto& w : writers)
    threads.emplace_back([&, &writer = *w] { write_on(writer, stop); });

  const auto tries = [&] {
    uint64_t n = 0;
    for (const auto& w : writers)
      n += w->tries;
    return n;
  };
  const auto sum = [&](const uint8_t* page) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < kThreads; ++i)
      n += reinterpret_cast<const volatile uint64_t*>(page)[i];
    return n;
  };
  // Every thread has tried something since.
  const auto let_them_try = [&] {
    const uint64_t before = tries();
    while (tries() < before + 4 * kThreads && !HasFailure())
      sched_yield();
  };
  std::mt19937 random(7);
  for (int round = 0; round < kRounds && !HasFailure(); ++round) {
    const uint64_t number = random() % kPages;
    uint8_t* page = memory_ + number * stride_;
    switch (random() % 4) {
    case 0: { // No right to write.
      ASSERT_EQ(change(__NR_mprotect, page, kPageSize, PROT_READ), 0);
      const uint64_t before = sum(page);
      let_them_try();
      EXPECT_EQ(sum(page), before);
      ASSERT_EQ(change(__NR_mprotect, page, kPageSize, PROT_READ | PROT_WRITE), 0);
      break;
    }
    case 1: { // No right to execute.
      ASSERT_EQ(change(__NR_mprotect, code_, kPageSize, PROT_READ), 0);
      const uint64_t before = calls_;
      let_them_try();
      EXPECT_EQ(calls_, before);
      ASSERT_EQ(change(__NR_mprotect, code_, kPageSize, PROT_READ | PROT_EXEC), 0);
      break;
    }
    case 2: { // Away and back, with what was written.
      ASSERT_EQ(
          change(__NR_mremap, page, kPageSize, kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED, elsewhere),
          long(elsewhere));
      const uint64_t before = sum(elsewhere);
      let_them_try();
      EXPECT_EQ(sum(elsewhere), before);
      ASSERT_EQ(
          change(__NR_mremap, elsewhere, kPageSize, kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED, page),
          long(page));
      break;
    }
    default: { // Replaced by one of zeroes; what comes back is the other one's copy.
      ASSERT_EQ(change(__NR_mprotect, page, kPageSize, PROT_READ), 0);
      uint64_t kept[kThreads];
      memcpy(kept, page, sizeof kept);
      ASSERT_EQ(map(kPageSize, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, page), page);
      let_them_try();
      EXPECT_EQ(sum(page), 0u);
      ASSERT_EQ(map(kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                    elsewhere),
                elsewhere);
      memcpy(elsewhere, kept, sizeof kept);
      ASSERT_EQ(
          change(__NR_mremap, elsewhere, kPageSize, kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED, page),
          long(page));
      break;
    }
    }
  }
  stop = true;
  for (std::thread& t : threads)
    t.join();
  EXPECT_GT(calls_, 100u);
  for (const auto& w : writers) {
    for (uint64_t page = 0; page < kPages; ++page)
      EXPECT_EQ(*word(page, w->number), w->written[page]) << page;
    EXPECT_GT(w->tries, 100u);
  }
  for (backend::Cpu& cpu : cpus)
    guest_->guest.ops.close_cpu(cpu);
}

TEST_P(Storm, NothingIsWrittenOrCalledWhenItMayNot) { change_what_they_use(); }

// Each page has a table of its own, and there are tables for half of them.
TEST_P(Storm, NorWhileTheTablesAreRenewed) {
  auto small = open_guest(1024, kLeastTables + kPages / 2);
  ASSERT_TRUE(small) << small.error().text;
  guest_ = std::move(*small);
  stride_ = (2 << 20) + kPageSize;
  change_what_they_use();
}

} // namespace
} // namespace dune::process
