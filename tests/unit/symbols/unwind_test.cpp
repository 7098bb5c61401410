// The test process unwinds itself; libgcc's unwinder (backtrace()) is the reference.
#include "dtrace-lite/symbols/unwind_cfi.h"

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <gtest/gtest.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>

namespace ddbg::symbols {
namespace {

using dune::Reg;

bool read_self(TargetAddr from, std::span<std::byte> to) {
  iovec local{to.data(), to.size()};
  iovec remote{reinterpret_cast<void*>(from.value), to.size()};
  return ::process_vm_readv(::getpid(), &local, 1, &remote, 1, 0) ==
         static_cast<ssize_t>(to.size());
}

KnownRegisters registers_of(const ucontext_t& context) {
  KnownRegisters r;
  const auto& g = context.uc_mcontext.gregs;
  const std::pair<Reg, int> rows[] = {
      {Reg::rax, REG_RAX}, {Reg::rbx, REG_RBX},   {Reg::rcx, REG_RCX}, {Reg::rdx, REG_RDX},
      {Reg::rsi, REG_RSI}, {Reg::rdi, REG_RDI},   {Reg::rbp, REG_RBP}, {Reg::rsp, REG_RSP},
      {Reg::r8, REG_R8},   {Reg::r9, REG_R9},     {Reg::r10, REG_R10}, {Reg::r11, REG_R11},
      {Reg::r12, REG_R12}, {Reg::r13, REG_R13},   {Reg::r14, REG_R14}, {Reg::r15, REG_R15},
      {Reg::rip, REG_RIP}, {Reg::eflags, REG_EFL}};
  for (const auto& [reg, index] : rows)
    r.set(reg, static_cast<uint64_t>(g[index]));
  return r;
}

// As backtrace(3), which the sanitizers replace.
__attribute__((noinline)) int libgccs_backtrace(void** pcs, int most) {
  struct Found {
    void** pcs;
    int most, count;
  } found{pcs, most, -1}; // the first is this function
  _Unwind_Backtrace(
      [](_Unwind_Context* context, void* data) {
        auto& f = *static_cast<Found*>(data);
        const auto pc = _Unwind_GetIP(context);
        if (pc == 0) // behind _start
          return _URC_END_OF_STACK;
        if (f.count >= 0)
          f.pcs[f.count] = reinterpret_cast<void*>(pc);
        return ++f.count < f.most ? _URC_NO_REASON : _URC_END_OF_STACK;
      },
      &found);
  return found.count;
}

struct Captured {
  ucontext_t context;
  void* expected[4096];
  int count = 0;
  // What runs while the stack is still there.
  std::function<void()> inspect;
};

__attribute__((noinline)) int recurse(int n, Captured& c) {
  if (n == 0) {
    c.count = libgccs_backtrace(c.expected, 4096);
    ::getcontext(&c.context);
    c.inspect();
    return 1;
  }
  volatile int keep = recurse(n - 1, c); // no tail call
  return keep + 1;
}

std::vector<uint64_t> callers(const Unwinder::Trace& trace) {
  std::vector<uint64_t> pcs;
  for (size_t i = 1; i < trace.frames.size(); i++)
    pcs.push_back(trace.frames[i].pc().value);
  return pcs;
}

TEST(Unwinder, FollowsAThousandFramesAsLibgccAndFast) {
  ModuleMap map;
  const auto change = map.refresh(::getpid(), read_self);
  ASSERT_TRUE(change) << change.error().message;
  Captured c;
  Unwinder::Trace trace;
  double milliseconds = 0;
  c.inspect = [&] {
    Unwinder unwinder(map, read_self);
    const auto begin = std::chrono::steady_clock::now();
    trace = unwinder.backtrace(registers_of(c.context), 10000, true);
    milliseconds =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  };
  recurse(1000, c);
  ASSERT_GT(c.count, 1000);
  // Frame 0 differs by the call that captured it; the callers must be the same to the last.
  const std::vector<uint64_t> ours = callers(trace);
  ASSERT_EQ(ours.size() + 1, static_cast<size_t>(c.count));
  for (size_t i = 0; i < ours.size(); i++)
    ASSERT_EQ(ours[i], reinterpret_cast<uint64_t>(c.expected[i + 1])) << "frame " << i + 1;
  EXPECT_EQ(trace.end, UnwindEnd::kOutermost);
  RecordProperty("milliseconds", std::to_string(milliseconds));
  std::printf("1000 frames, cold: %.2f ms\n", milliseconds);
}

TEST(Unwinder, StopsAfterMainUnlessAskedToGoOn) {
  ModuleMap map;
  ASSERT_TRUE(map.refresh(::getpid(), read_self));
  Captured c;
  Unwinder::Trace to_main, past_main, limited;
  c.inspect = [&] {
    Unwinder unwinder(map, read_self);
    to_main = unwinder.backtrace(registers_of(c.context), 1000);
    past_main = unwinder.backtrace(registers_of(c.context), 1000, true);
    limited = unwinder.backtrace(registers_of(c.context), 3);
  };
  recurse(5, c);
  ASSERT_FALSE(to_main.frames.empty());
  EXPECT_EQ(to_main.end, UnwindEnd::kNone);
  EXPECT_TRUE(map.describe(to_main.frames.back().pc()).starts_with("main+"))
      << map.describe(to_main.frames.back().pc());
  EXPECT_GT(past_main.frames.size(), to_main.frames.size());
  EXPECT_EQ(past_main.end, UnwindEnd::kOutermost);
  EXPECT_EQ(limited.frames.size(), 3u);
}

Captured* in_handler = nullptr;

void on_signal(int) {
  in_handler->count = libgccs_backtrace(in_handler->expected, 4096);
  ::getcontext(&in_handler->context);
  in_handler->inspect();
}

TEST(Unwinder, CrossesASignalHandlerOnAnAlternateStack) {
  ModuleMap map;
  ASSERT_TRUE(map.refresh(::getpid(), read_self));
  Captured c;
  Unwinder::Trace trace;
  c.inspect = [&] {
    Unwinder unwinder(map, read_self);
    trace = unwinder.backtrace(registers_of(c.context), 1000, true);
  };
  in_handler = &c;
  std::vector<std::byte> stack(1 << 20); // sanitizers and the unwinder itself run on it
  stack_t alternate{};
  alternate.ss_sp = stack.data();
  alternate.ss_size = stack.size();
  stack_t before;
  ASSERT_EQ(::sigaltstack(&alternate, &before), 0);
  struct sigaction action {
  }, old;
  action.sa_handler = on_signal;
  action.sa_flags = SA_ONSTACK;
  ASSERT_EQ(::sigaction(SIGUSR2, &action, &old), 0);
  ::raise(SIGUSR2);
  ::sigaction(SIGUSR2, &old, nullptr);
  ::sigaltstack(&before, nullptr);

  size_t trampolines = 0;
  for (size_t i = 0; i < trace.frames.size(); i++) {
    if (!trace.frames[i].is_signal_trampoline)
      continue;
    trampolines++;
    ASSERT_LT(i + 1, trace.frames.size());
    EXPECT_TRUE(trace.frames[i + 1].pc_is_exact);
  }
  EXPECT_EQ(trampolines, 1u);
  const std::vector<uint64_t> ours = callers(trace);
  ASSERT_EQ(ours.size() + 1, static_cast<size_t>(c.count));
  for (size_t i = 0; i < ours.size(); i++)
    EXPECT_EQ(ours[i], reinterpret_cast<uint64_t>(c.expected[i + 1])) << "frame " << i + 1;
}

TEST(Unwinder, SaysWhyItStopped) {
  ModuleMap map;
  ASSERT_TRUE(map.refresh(::getpid(), read_self));
  Unwinder unwinder(map, read_self);
  UnwindFrame unknown;
  EXPECT_EQ(unwinder.up(unknown).end, UnwindEnd::kMissing);

  UnwindFrame nowhere; // a call through a null pointer with a bad stack
  nowhere.registers.set(Reg::rip, 0);
  nowhere.registers.set(Reg::rsp, 0x10);
  EXPECT_EQ(unwinder.up(nowhere).end, UnwindEnd::kUnreadable);
  EXPECT_NE(std::string(describe(UnwindEnd::kUnreadable)), "");
  EXPECT_EQ(std::string(describe(UnwindEnd::kOutermost)), "");
}

TEST(Unwinder, ReturnsFromACallThroughANullPointer) {
  ModuleMap map;
  ASSERT_TRUE(map.refresh(::getpid(), read_self));
  Unwinder unwinder(map, read_self);
  const auto inside = reinterpret_cast<uint64_t>(&recurse) + 1;
  const uint64_t stack[4] = {inside, 0, 0, 0};
  UnwindFrame frame;
  frame.registers.set(Reg::rip, 0);
  frame.registers.set(Reg::rsp, reinterpret_cast<uint64_t>(stack));
  const auto step = unwinder.up(frame);
  ASSERT_EQ(step.end, UnwindEnd::kNone);
  EXPECT_EQ(step.caller.pc().value, inside);
  EXPECT_EQ(step.caller.registers.get(Reg::rsp), reinterpret_cast<uint64_t>(stack + 1));
}

} // namespace
} // namespace ddbg::symbols
