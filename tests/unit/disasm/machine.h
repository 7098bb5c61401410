// Runs code at a chosen address with a chosen state, natively, and says what became of the state.
// For the execution tests: one at a time, on one thread.
#pragma once

#include "disasm/relocate.h"
#include "libdune/arch/registers.h"

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace dune::disasm::test {

// A place in memory, mapped read, write and execute. Freed with it.
class Place {
public:
  // At `address` exactly; not mapped (see ok()) where that is taken.
  Place(uint64_t address, size_t size);
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  ~Place();
  bool ok() const { return base_ != nullptr; }
  uint8_t* data() const { return base_; }
  uint64_t address() const { return reinterpret_cast<uint64_t>(base_); }
  size_t size() const { return size_; }

private:
  uint8_t* base_ = nullptr;
  size_t size_;
};

inline constexpr size_t kDataSize = 0x1000;
inline constexpr size_t kStackSize = 0x2000;
inline constexpr size_t kVectorSize = 4096;

struct State {
  Registers registers{}; // rip and eflags too; the segments are not looked at
  std::array<uint8_t, kVectorSize> vectors{};
  std::vector<uint8_t> data;
  std::vector<uint8_t> stack;
};

struct Outcome {
  State state;
  int signal = 0; // what it died of, at registers.rip
  uint64_t fault_address = 0;
  uint32_t reached = 0; // which of the capture stubs, when no signal
};

// Stops a run inside the copy after so many single steps, and goes on in the original at the
// address and with the registers that the copy's boundary says.
struct StepOut {
  const Relocated* copy = nullptr;
  uint64_t copy_address = 0;
  unsigned after = 0; // steps inside the copy; 0: before the first instruction
};

// The outcome of a run that was stepped.
struct StepReport {
  bool left_by_itself = false; // the copy came to its end before that many steps
  std::string complaint;       // e.g. no boundary where the instruction pointer was
};

class Machine {
public:
  // Code at `address`; data 0x3000 behind it; both within reach of each other.
  explicit Machine(uint64_t address);
  bool ok() const { return code_.ok() && stack_.ok(); }

  uint64_t code() const { return code_.address(); }
  uint64_t data() const { return code_.address() + kDataOffset; }
  uint64_t stack_middle() const { return stack_.address() + kStackSize / 2; }
  uint8_t* bytes_at(uint64_t address) const { return reinterpret_cast<uint8_t*>(address); }

  // A stub that ends the run; the outcome says which one it was. At addresses in code().
  void put_capture(uint64_t address, uint32_t number);
  void put_code(std::span<const uint8_t> bytes);
  std::span<uint8_t> code_bytes() const { return {code_.data(), code_.size()}; }

  State random_state(std::mt19937_64& random) const;
  // Runs from start.registers.rip.
  Outcome run(const State& start);
  // The same under single steps, see StepOut. `original` is put back over the source on leaving.
  Outcome run_stepped(const State& start, const StepOut& step, std::span<const uint8_t> original,
                      StepReport& report);

  static constexpr uint64_t kDataOffset = 0x3000;

private:
  Outcome go(const State& start, bool trap_flag);
  Place code_;
  Place stack_;
};

// One line per difference that a program could see; empty when there is none. The stack counts from
// the red zone of `start` upward: what lies below is nobody's. With kIgnore the word below
// rsp does not count (relocate.h says when).
enum class CallSlot : uint8_t { kCompare, kIgnore };
std::string differences(const Outcome& expected, const Outcome& actual, const State& start,
                        CallSlot call_slot);

} // namespace dune::disasm::test
