// Jump sites: a jmp in place of the instruction before a `syscall` that the agent has to see (tier
// A of the patching rules: no thread can be inside). The `syscall` keeps its int3, for what comes
// there another way or is not dealt with on this one. An instruction of three bytes holds a jmp
// together with the `syscall`, as in Go's generic call: the trampoline is then where the
// displacement has that very int3 as its third byte.
//
//   quick  before a call that the agent answers itself: the trampoline leads into the agent
//          (agent/entry.S, agent_quick_call).
//   gate   before a call whose number is only known when it is made, as in libc's syscall(): the
//          trampoline makes the call itself unless its number may be one that the agent wants.
//   wait   before a call that the agent wants to see only when it has a signal for it: the
//          trampoline makes the call itself until the agent opens the gate.
#include "dtrace-lite/engine/inferior_sites.h"

#include "disasm/relocate.h"
#include "dtrace-lite/engine/syscall_sites.h"

#include <algorithm>
#include <cstring>

namespace ddbg::engine {

using namespace dune::session;

namespace {

// Code with 32-bit displacements, at a known place.
class Code {
public:
  explicit Code(TargetAddr at) : at_(at) {}
  Code& bytes(std::initializer_list<uint8_t> b) {
    bytes_.insert(bytes_.end(), b);
    return *this;
  }
  Code& bytes(std::span<const uint8_t> b) {
    bytes_.insert(bytes_.end(), b.begin(), b.end());
    return *this;
  }
  Code& quad(uint64_t value) {
    uint8_t raw[sizeof value];
    std::memcpy(raw, &value, sizeof value);
    return bytes(raw);
  }
  Code& jump(TargetAddr to) {
    const auto distance = static_cast<int64_t>(to.value - (here().value + kJumpLength));
    const auto relative = static_cast<int32_t>(distance);
    reaches_ &= relative == distance;
    uint8_t raw[sizeof relative];
    std::memcpy(raw, &relative, sizeof relative);
    return bytes({kJumpOpcode}).bytes(raw);
  }
  TargetAddr here() const { return at_ + bytes_.size(); }
  const std::vector<uint8_t>& all() const { return bytes_; }
  bool reaches() const { return reaches_; }

private:
  TargetAddr at_;
  std::vector<uint8_t> bytes_;
  bool reaches_ = true;
};

constexpr size_t kMaxTrampoline = 128;

} // namespace

// By the low byte of a system call's number: the widest gate of those that it can be.
Checked<TargetAddr> SitePool::gate_table() {
  constexpr size_t kSize = 256;
  if (!gate_table_) {
    auto room = allocate(kSize, TargetAddr(windows_.front().address));
    if (!room)
      return room.error();
    for (uint32_t number = 0; number < 4 * kSize; ++number)
      if (const GateKind gate = gate_of(number);
          gate != GateKind::kShut && room->second[number % kSize] != std::byte{1})
        room->second[number % kSize] = static_cast<std::byte>(gate);
    gate_table_ = TargetAddr(room->first);
  }
  return *gate_table_;
}

std::optional<std::array<uint8_t, kJumpLength>>
SitePool::plan_jump(uint32_t index, JumpKind kind, std::span<const uint8_t> original,
                    const MemoryMap& map) {
  const TargetAddr address = places_[index].address;
  const uint64_t length = places_[index].original_length;
  const TargetAddr call = address + length;
  const uint32_t count = table_->jump_count;
  auto plan = dune::disasm::plan_relocation(original, address);
  auto table = gate_table();
  const bool alone = holds_jump_alone(length);
  // The program may have changed its code since it was read from the file.
  constexpr uint8_t kSyscall[kSyscallLength] = {0x0f, 0x05};
  if (!plan || !table || count >= kJumpSites || !(alone || holds_jump_with_call(length)) ||
      original.size() < length + kSyscallLength ||
      !std::equal(kSyscall, std::end(kSyscall), original.begin() + length))
    return std::nullopt;
  const auto room = alone ? allocate(kMaxTrampoline, address)
                          : allocate_with_third_byte(kMaxTrampoline, address + kJumpLength, kInt3);
  if (!room)
    return std::nullopt;
  const auto displaced = plan->commit(TargetAddr(room->first), dune::disasm::Tail::kNone);
  if (displaced.boundaries.size() != 2) // one instruction for one: there is nothing in between
    return std::nullopt;
  // A system call leaves nothing in rcx and r11 and keeps the flags, so these two are free and the
  // flags are not.
  Code code(TargetAddr(room->first));
  code.bytes(displaced.bytes);
  size_t behind = kMaxTrampoline;
  if (kind == JumpKind::kQuick) {
    code.bytes({0x48, 0xb9}).quad(call.value);                 // movabs $call,%rcx
    code.bytes({0xff, 0x25, 0, 0, 0, 0}).quad(map.quick_call); // jmp *0(%rip)
  } else {
    if (kind == JumpKind::kGate) {
      code.bytes({0x0f, 0xb6, 0xc8});              // movzbl %al,%ecx
      code.bytes({0x49, 0xbb}).quad(table->value); // movabs $table,%r11
      code.bytes({0x41, 0x0f, 0xb6, 0x0c, 0x0b});  // movzbl (%r11,%rcx),%ecx
    } else {
      code.bytes({0xb9, static_cast<uint8_t>(GateKind::kWaits), 0, 0, 0}); // mov $kWaits,%ecx
    }
    code.bytes({0x49, 0xbb}).quad(map.agent_data); // movabs $gates,%r11
    code.bytes({0x41, 0x0f, 0xb6, 0x0c, 0x0b});    // movzbl (%r11,%rcx),%ecx
    code.bytes({0xe3, kJumpLength}).jump(call);    // jrcxz over the jump to the int3
    code.bytes({0x0f, 0x05});                      // syscall
    behind = code.all().size();
    code.bytes({0x48, 0xb9}).quad((call + kSyscallLength).value); // movabs, as it leaves %rcx
    code.jump(call + kSyscallLength);
  }
  Code jump(address);
  jump.jump(TargetAddr(room->first));
  if (!code.reaches() || !jump.reaches() || code.all().size() > kMaxTrampoline)
    return std::nullopt;
  std::memcpy(room->second, code.all().data(), code.all().size());
  Place& place = places_[index];
  place.trampoline = {room->first, static_cast<uint16_t>(code.all().size()),
                      static_cast<uint16_t>(behind)};
  table_->sites[index].trampoline = place.trampoline;
  table_->jumps[count] = index;
  table_->jump_count.store(count + 1, std::memory_order_release);
  jumps_[call.value] = index;
  std::array<uint8_t, kJumpLength> bytes;
  std::copy(jump.all().begin(), jump.all().end(), bytes.begin());
  return bytes;
}

std::optional<uint32_t> SitePool::jump_before(TargetAddr address) const {
  const auto it = jumps_.find(address.value);
  return it != jumps_.end() && places_[it->second].has_jump() ? std::optional(it->second)
                                                              : std::nullopt;
}

} // namespace ddbg::engine
