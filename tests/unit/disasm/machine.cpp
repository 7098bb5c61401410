#include "machine.h"

#include "libdune/base/assert.h"

#include <csetjmp>
#include <csignal>
#include <cstring>
#include <sys/mman.h>
#include <ucontext.h>

extern "C" {
extern uint8_t harness_vectors_in[4096], harness_vectors_out[4096];
extern dune::Registers harness_in, harness_out;
void harness_run();
void harness_capture();
void harness_leave();
}

namespace dune::disasm::test {

namespace {

constexpr size_t kCodeSize = 0x5000;
constexpr uint64_t kReachedOffset = 0x2ff0; // the capture stubs' number is left here
constexpr uint64_t kTrapFlag = 0x100;
constexpr uint64_t kArithmeticFlags = 0x8d5 | 0x400; // CF PF AF ZF SF OF, and DF

// What the signal handler and a run share.
struct Run {
  int signal = 0;
  uint64_t fault_address = 0;
  bool stepping = false;
  bool inside = false;
  bool done = false;
  unsigned steps = 0;
  StepOut step;
  const uint8_t* original = nullptr;
  size_t original_length = 0;
  uint8_t* source = nullptr;
  const char* complaint = nullptr;
  bool left_by_itself = false;
};
Run current;

constexpr int kGregOfReg[] = {REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI,
                              REG_RBP, REG_RSP, REG_R8,  REG_R9,  REG_R10, REG_R11,
                              REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP, REG_EFL};

Registers from_context(const ucontext_t& context) {
  Registers r{};
  for (size_t i = 0; i < std::size(kGregOfReg); ++i)
    register_at(r, static_cast<Reg>(i)) =
        static_cast<uint64_t>(context.uc_mcontext.gregs[kGregOfReg[i]]);
  return r;
}

void to_context(const Registers& r, ucontext_t& context) {
  for (size_t i = 0; i < std::size(kGregOfReg); ++i)
    context.uc_mcontext.gregs[kGregOfReg[i]] =
        static_cast<greg_t>(register_at(r, static_cast<Reg>(i)));
}

uint64_t read_word(uint64_t address) {
  uint64_t value;
  memcpy(&value, reinterpret_cast<const void*>(address), sizeof value);
  return value;
}

// Where the copy is, the machine's registers as the original's. False: step on.
bool translate(uint64_t offset, Registers& r) {
  const Boundary* boundary = current.step.copy->boundary_at(offset);
  if (!boundary) {
    current.complaint = "no boundary at a stepped instruction pointer";
    return true;
  }
  if (boundary->state == BoundaryState::kStepOn)
    return false;
  apply_boundary(*boundary, r, read_word);
  return true;
}

void leave_copy(Registers& r) {
  memcpy(current.source, current.original, current.original_length);
  r.eflags &= ~kTrapFlag;
  current.stepping = false;
}

void on_step(ucontext_t& context) {
  Registers r = from_context(context);
  uint64_t offset = r.rip - current.step.copy_address;
  bool inside = offset < current.step.copy->bytes.size();
  if (inside) {
    current.inside = true;
    if (current.steps++ >= current.step.after && translate(offset, r))
      leave_copy(r);
  } else if (current.inside) {
    current.left_by_itself = true;
    leave_copy(r);
  }
  to_context(r, context);
}

void on_signal(int signal, siginfo_t* info, void* raw) {
  auto& context = *static_cast<ucontext_t*>(raw);
  constexpr int kTrapOfStep = 2; // TRAP_TRACE
  if (signal == SIGTRAP && current.stepping && info->si_code == kTrapOfStep)
    return on_step(context);
  current.signal = signal;
  current.fault_address = signal == SIGSEGV ? reinterpret_cast<uint64_t>(info->si_addr) : 0;
  harness_out = from_context(context);
  context.uc_mcontext.gregs[REG_RIP] = reinterpret_cast<greg_t>(harness_leave);
  context.uc_mcontext.gregs[REG_EFL] &= ~static_cast<greg_t>(kTrapFlag | 0x400);
}

void install_handlers() {
  alignas(64) static uint8_t alternate[65536];
  stack_t stack{};
  stack.ss_sp = alternate;
  stack.ss_size = sizeof alternate;
  DUNE_ASSERT(sigaltstack(&stack, nullptr) == 0);
  struct sigaction action {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP})
    DUNE_ASSERT(sigaction(signal, &action, nullptr) == 0);
}

void random_bytes(std::span<uint8_t> out, std::mt19937_64& random) {
  for (uint8_t& byte : out)
    byte = static_cast<uint8_t>(random());
}

} // namespace

Place::Place(uint64_t address, size_t size) : size_(size) {
  void* at = mmap(reinterpret_cast<void*>(address), size, PROT_READ | PROT_WRITE | PROT_EXEC,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (at == MAP_FAILED)
    return;
  base_ = static_cast<uint8_t*>(at);
}

Place::~Place() {
  if (base_)
    munmap(base_, size_);
}

Machine::Machine(uint64_t address)
    : code_(address, kCodeSize), stack_(0x1234'5000'0000, kStackSize) {
  install_handlers();
}

void Machine::put_capture(uint64_t address, uint32_t number) {
  uint8_t* p = bytes_at(address);
  auto displacement = static_cast<int32_t>(code() + kReachedOffset - (address + 10));
  const uint8_t store[] = {0xc7, 0x05}; // movl $number,reached(%rip); jmp *0(%rip)
  memcpy(p, store, 2);
  memcpy(p + 2, &displacement, 4);
  memcpy(p + 6, &number, 4);
  const uint8_t jump[] = {0xff, 0x25, 0, 0, 0, 0};
  memcpy(p + 10, jump, 6);
  auto capture = reinterpret_cast<uint64_t>(harness_capture);
  memcpy(p + 16, &capture, 8);
}

void Machine::put_code(std::span<const uint8_t> bytes) {
  memcpy(code_.data(), bytes.data(), bytes.size());
}

State Machine::random_state(std::mt19937_64& random) const {
  State s;
  for (size_t i = 0; i < kRegisterCount; ++i)
    register_at(s.registers, static_cast<Reg>(i)) = random();
  s.registers.rsp = stack_middle() + (random() % 16) * 8;
  s.registers.rbp = s.registers.rsp;
  s.registers.rbx = data() + kDataSize / 2;
  s.registers.r9 = random() % 8;
  s.registers.r15 = 0x20;
  static constexpr uint64_t kCounts[] = {0, 1, 2, 0x1'0000'0000, 0x1'0000'0001};
  if (size_t pick = random() % (std::size(kCounts) + 1); pick < std::size(kCounts))
    s.registers.rcx = kCounts[pick];
  s.registers.eflags = (random() & kArithmeticFlags) | 0x202;
  s.registers.rip = code();

  // XSAVE's standard format: legacy area, header, then the components. MXCSR masks all exceptions.
  random_bytes(s.vectors, random);
  memset(s.vectors.data(), 0, 32);       // x87 control: default below
  memset(s.vectors.data() + 512, 0, 64); // header
  const uint16_t x87_control = 0x37f;
  memcpy(s.vectors.data(), &x87_control, 2);
  const uint32_t mxcsr = 0x1f80;
  memcpy(s.vectors.data() + 24, &mxcsr, 4);
  uint32_t low, high;
  asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  constexpr uint32_t kVectorComponents = 0xe7; // x87, SSE, AVX, three of AVX-512
  uint64_t present = low & kVectorComponents;
  memcpy(s.vectors.data() + 512, &present, 8);

  s.data.resize(kDataSize);
  s.stack.resize(kStackSize);
  random_bytes(s.data, random);
  random_bytes(s.stack, random);
  return s;
}

Outcome Machine::go(const State& start, bool trap_flag) {
  memcpy(harness_vectors_in, start.vectors.data(), kVectorSize);
  memset(harness_vectors_out, 0, kVectorSize);
  memcpy(bytes_at(data()), start.data.data(), kDataSize);
  memcpy(stack_.data(), start.stack.data(), kStackSize);
  uint32_t none = 0;
  memcpy(bytes_at(code() + kReachedOffset), &none, 4);
  harness_in = start.registers;
  if (trap_flag)
    harness_in.eflags |= kTrapFlag;
  harness_out = Registers{};
  harness_run();
  Outcome o;
  o.signal = current.signal;
  o.fault_address = current.fault_address;
  o.state.registers = harness_out;
  o.state.registers.eflags &= ~(kTrapFlag | 0x10000); // RF: the kernel's, on a fault
  memcpy(o.state.vectors.data(), harness_vectors_out, kVectorSize);
  o.state.data.assign(bytes_at(data()), bytes_at(data()) + kDataSize);
  o.state.stack.assign(stack_.data(), stack_.data() + kStackSize);
  memcpy(&o.reached, bytes_at(code() + kReachedOffset), 4);
  return o;
}

Outcome Machine::run(const State& start) {
  current = Run{};
  return go(start, false);
}

Outcome Machine::run_stepped(const State& start, const StepOut& step,
                             std::span<const uint8_t> original, StepReport& report) {
  current = Run{};
  current.stepping = true;
  current.step = step;
  current.original = original.data();
  current.original_length = original.size();
  current.source = code_.data();
  Outcome o = go(start, true);
  report.left_by_itself = current.left_by_itself;
  report.complaint = current.complaint ? current.complaint : "";
  return o;
}

std::string differences(const Outcome& expected, const Outcome& actual, const State& start,
                        CallSlot call_slot) {
  std::string out;
  auto complain = [&](const std::string& what, uint64_t want, uint64_t got) {
    char line[128];
    snprintf(line, sizeof line, "%s: expected %#lx, got %#lx\n", what.c_str(), want, got);
    out += line;
  };
  if (expected.signal != actual.signal)
    complain("signal", static_cast<uint64_t>(expected.signal),
             static_cast<uint64_t>(actual.signal));
  if (expected.fault_address != actual.fault_address)
    complain("fault address", expected.fault_address, actual.fault_address);
  if (expected.reached != actual.reached)
    complain("reached", expected.reached, actual.reached);
  for (size_t i = 0; i <= static_cast<size_t>(Reg::eflags); ++i) {
    auto reg = static_cast<Reg>(i);
    uint64_t want = register_at(expected.state.registers, reg);
    uint64_t got = register_at(actual.state.registers, reg);
    if (want != got)
      complain(kRegisters[i].name, want, got);
  }
  auto compare = [&](const char* what, std::span<const uint8_t> want, std::span<const uint8_t> got,
                     size_t from) {
    for (size_t i = from; i < want.size(); ++i) {
      if (want[i] != got[i]) {
        complain(std::string(what) + " at " + std::to_string(i), want[i], got[i]);
        break;
      }
    }
  };
  compare("data", expected.state.data, actual.state.data, 0);
  uint64_t stack_base = start.registers.rsp / 0x10000 * 0x10000;
  size_t rsp = start.registers.rsp - stack_base;
  std::vector<uint8_t> stack = actual.state.stack;
  if (call_slot == CallSlot::kIgnore)
    memcpy(&stack[rsp - 8], &expected.state.stack[rsp - 8], 8);
  compare("stack", expected.state.stack, stack, rsp - 128);
  constexpr size_t kXmm = 160; // what lies before it are x87's, with the last instruction's address
  compare("vectors", expected.state.vectors, actual.state.vectors, kXmm);
  return out;
}

} // namespace dune::disasm::test
