#include "dtrace-lite/engine/syscall_sites.h"

#include "disasm/decode.h"

#include <algorithm>
#include <cstring>

namespace ddbg::engine {

using dune::LinkAddr;
using dune::TargetAddr;
using dune::disasm::Flow;
using dune::disasm::Instruction;

namespace {

// One row per system call that starts, ends, re-signals or confines a thread or process, or waits
// with a mask of its own, by number.
struct Wanted {
  uint32_t number;
  // kQuick: the agent has the answer itself (agent/calls_signal.cpp).
  JumpKind jump;
};
constexpr Wanted kWanted[] = {
    {13, JumpKind::kQuick},  // rt_sigaction
    {14, JumpKind::kQuick},  // rt_sigprocmask
    {15, JumpKind::kNone},   // rt_sigreturn
    {56, JumpKind::kNone},   // clone
    {57, JumpKind::kNone},   // fork
    {58, JumpKind::kNone},   // vfork
    {59, JumpKind::kNone},   // execve
    {60, JumpKind::kNone},   // exit
    {127, JumpKind::kQuick}, // rt_sigpending
    {128, JumpKind::kNone},  // rt_sigtimedwait
    {130, JumpKind::kNone},  // rt_sigsuspend
    {131, JumpKind::kQuick}, // sigaltstack
    {157, JumpKind::kNone},  // prctl
    {231, JumpKind::kNone},  // exit_group
    {270, JumpKind::kWait},  // pselect6
    {271, JumpKind::kWait},  // ppoll
    {281, JumpKind::kWait},  // epoll_pwait
    {317, JumpKind::kNone},  // seccomp
    {322, JumpKind::kNone},  // execveat
    {435, JumpKind::kNone},  // clone3
    {441, JumpKind::kWait},  // epoll_pwait2
};
const Wanted* find_wanted(uint32_t number) {
  const auto* row = std::lower_bound(std::begin(kWanted), std::end(kWanted), number,
                                     [](const Wanted& w, uint32_t n) { return w.number < n; });
  return row != std::end(kWanted) && row->number == number ? row : nullptr;
}

// A function longer than this is not followed as a whole: the sites in it count as unknown.
constexpr uint64_t kMaxFunction = 64 * 1024;
// Where the function's beginning is not known, decoding starts at each of the bytes this far before
// the candidate: x86 decoding falls in step within a few instructions, so nearly all agree.
constexpr uint64_t kVoteFrom = 64, kVoteTo = 32;

// What is known of eax before an instruction.
struct Eax {
  enum class State : uint8_t { kUnreached, kConstant, kUnknown } state = State::kUnreached;
  uint32_t value = 0;

  static Eax unknown() { return {State::kUnknown, 0}; }
  // True when this changed.
  bool join(const Eax& other) {
    if (other.state == State::kUnreached || state == State::kUnknown)
      return false;
    if (state == State::kUnreached) {
      *this = other;
      return true;
    }
    if (other.state == State::kConstant && other.value == value)
      return false;
    state = State::kUnknown;
    return true;
  }
};

Eax after(const Instruction& i, const Eax& before) {
  if (i.eax_constant)
    return {Eax::State::kConstant, *i.eax_constant};
  if (i.writes_rax || i.is_call() || i.flow == Flow::kSyscall)
    return Eax::unknown();
  return before;
}

class Function {
public:
  Function(std::span<const uint8_t> bytes, LinkAddr begin) {
    dune::disasm::LinearDecode decoded = dune::disasm::decode_range(bytes, TargetAddr(begin.value));
    instructions_ = std::move(decoded.instructions);
  }

  // Index of the instruction that starts at `a`, if it is a `syscall`.
  std::optional<size_t> syscall_at(LinkAddr a) const {
    std::optional<size_t> i = index_of(a.value);
    if (i && instructions_[*i].flow == Flow::kSyscall && instructions_[*i].length == 2)
      return i;
    return std::nullopt;
  }

  bool covers(LinkAddr a) const {
    return !instructions_.empty() && a.value < instructions_.back().end().value;
  }

  // The instruction before the `syscall`, if a jump fits over it.
  const Instruction* room_before(size_t index) const {
    using namespace dune::session;
    const Instruction* one = index > 0 ? &instructions_[index - 1] : nullptr;
    const bool fits = one && one->flow == Flow::kSequential &&
                      (holds_jump_alone(one->length) || holds_jump_with_call(one->length));
    return fits ? one : nullptr;
  }

  std::optional<uint32_t> number_at(size_t index) {
    if (states_.empty())
      propagate();
    const Eax& eax = states_[index];
    return eax.state == Eax::State::kConstant ? std::optional(eax.value) : std::nullopt;
  }

private:
  std::optional<size_t> index_of(uint64_t address) const {
    auto at = std::lower_bound(
        instructions_.begin(), instructions_.end(), address,
        [](const Instruction& i, uint64_t value) { return i.address.value < value; });
    if (at == instructions_.end() || at->address.value != address)
      return std::nullopt;
    return at - instructions_.begin();
  }

  // Forward flow of constants through direct branches. What only an indirect jump, a landing pad or
  // a split-off part of the function reaches is reached with an unknown value.
  void propagate() {
    states_.assign(instructions_.size(), Eax{});
    std::vector<bool> targeted(instructions_.size(), false);
    std::vector<std::optional<size_t>> targets(instructions_.size());
    for (size_t i = 0; i < instructions_.size(); ++i) {
      const Instruction& one = instructions_[i];
      if (one.target && !one.is_call() && (targets[i] = index_of(one.target->value)))
        targeted[*targets[i]] = true;
    }
    for (size_t i = 0; i < instructions_.size(); ++i) {
      if (i == 0 || (!instructions_[i - 1].falls_through && !targeted[i]))
        states_[i] = Eax::unknown();
    }
    // One pass sees what it joins further down; only a change further up needs another.
    for (bool again = true; again;) {
      again = false;
      for (size_t i = 0; i < instructions_.size(); ++i) {
        if (states_[i].state == Eax::State::kUnreached)
          continue;
        const Eax out = after(instructions_[i], states_[i]);
        if (instructions_[i].falls_through && i + 1 < states_.size())
          states_[i + 1].join(out);
        if (targets[i] && states_[*targets[i]].join(out) && *targets[i] <= i)
          again = true;
      }
    }
  }

  std::vector<Instruction> instructions_;
  std::vector<Eax> states_;
};

class Finder {
public:
  Finder(const CodeBytes& code, const FunctionRange& function_range)
      : code_(code), function_range_(function_range) {}

  std::vector<SyscallSite> run() {
    const uint8_t* const first = code_.bytes.data();
    const uint8_t* const last = first + code_.bytes.size();
    for (const uint8_t* at = first; at + 1 < last;) {
      at = static_cast<const uint8_t*>(std::memchr(at, 0x0f, last - at - 1));
      if (!at)
        break;
      if (at[1] == 0x05)
        candidate(static_cast<uint64_t>(at - first));
      ++at;
    }
    return std::move(sites_);
  }

private:
  void candidate(uint64_t offset) {
    const LinkAddr address = code_.address + offset;
    if (current_ && !current_range_.contains(address))
      current_.reset();
    std::optional<dune::LinkRange> range =
        current_ ? std::optional(current_range_) : bounds(address);
    if (!current_ && directly_unwanted(offset, range))
      return;
    if (!range) {
      vote(offset);
      return;
    }
    if (!current_) {
      const uint64_t begin = range->begin - code_.address;
      current_.emplace(code_.bytes.subspan(begin, range->size()), range->begin);
      current_range_ = *range;
    }
    if (std::optional<size_t> index = current_->syscall_at(address))
      take(address, current_->number_at(*index), current_->room_before(*index));
    else if (!current_->covers(address))
      vote(offset); // data in the function stopped the decoder before it came here
  }

  // The function around `address`, cut to the code at hand.
  std::optional<dune::LinkRange> bounds(LinkAddr address) const {
    std::optional<dune::LinkRange> range = function_range_(address);
    if (!range || range->begin < code_.address || !range->contains(address))
      return std::nullopt;
    range->end = std::min(range->end, code_.address + code_.bytes.size());
    if (range->end <= address + 1 || range->size() > kMaxFunction)
      return std::nullopt;
    return range;
  }

  // The common case without decoding: `mov $unwanted,%eax; syscall`, and nothing in the function
  // that could be a branch to the `syscall` past the mov. (Should the 0f 05 be no syscall at all,
  // it is not wanted either.)
  bool directly_unwanted(uint64_t offset, const std::optional<dune::LinkRange>& range) const {
    if (!range || offset < 5 || code_.bytes[offset - 5] != 0xb8)
      return false;
    uint32_t number;
    std::memcpy(&number, &code_.bytes[offset - 4], 4);
    if (agent_must_see(number) || number > 1024)
      return false;
    const uint64_t begin = range->begin - code_.address, end = range->end - code_.address;
    for (uint64_t i = begin; i + 2 <= end; ++i) {
      const uint8_t byte = code_.bytes[i];
      const bool is_short = byte == 0xeb || (byte & 0xf0) == 0x70 || (byte & 0xfc) == 0xe0;
      if (is_short && i + 2 + static_cast<int8_t>(code_.bytes[i + 1]) == offset)
        return false;
      if ((byte == 0xe9 || (byte & 0xf0) == 0x80) && i + 5 <= end) {
        int32_t relative;
        std::memcpy(&relative, &code_.bytes[i + 1], 4);
        if (i + 5 + static_cast<int64_t>(relative) == offset)
          return false;
      }
    }
    return true;
  }

  // Without a known beginning: the majority of the decodings from nearby bytes says whether this is
  // an instruction; the longest of those that agree says its number. The instruction before it is
  // known if all that come so far agree: one of the places they start at is an instruction's.
  void vote(uint64_t offset) {
    const LinkAddr address = code_.address + offset;
    unsigned yes = 0, no = 0;
    std::optional<uint32_t> number;
    std::optional<Instruction> before;
    bool agree = offset >= kVoteFrom;
    for (uint64_t back = std::min(kVoteFrom, offset); back > 0; --back) {
      const uint64_t size = std::min(back + dune::disasm::kMaxInstructionLength,
                                     code_.bytes.size() - (offset - back));
      Function window(code_.bytes.subspan(offset - back, size), address - back);
      if (std::optional<size_t> index = window.syscall_at(address)) {
        const Instruction* one = window.room_before(*index);
        if (yes == 0) {
          number = window.number_at(*index);
          before = one ? std::optional(*one) : std::nullopt;
        }
        agree &= one && before && one->address == before->address;
        ++yes;
      } else {
        agree &= !window.covers(address);
        ++no;
      }
      if (back <= kVoteTo && yes != no)
        break;
    }
    if (yes > no)
      take(address, number, agree ? &*before : nullptr);
  }

  void take(LinkAddr address, std::optional<uint32_t> number, const Instruction* before) {
    const Wanted* wanted = number ? find_wanted(*number) : nullptr;
    if (number && !wanted)
      return;
    SyscallSite site{address, number};
    if (before && !number)
      site.jump = JumpKind::kGate;
    else if (before)
      site.jump = wanted->jump;
    if (before)
      site.before = LinkAddr(before->address.value);
    sites_.push_back(site);
  }

  const CodeBytes& code_;
  const FunctionRange& function_range_;
  std::optional<Function> current_; // several candidates often lie in one function
  dune::LinkRange current_range_;
  std::vector<SyscallSite> sites_;
};

} // namespace

dune::session::GateKind gate_of(uint32_t syscall_number) {
  using dune::session::GateKind;
  const Wanted* wanted = find_wanted(syscall_number);
  if (!wanted)
    return GateKind::kShut;
  return wanted->jump == JumpKind::kWait ? GateKind::kWaits : GateKind::kAlways;
}

std::vector<SyscallSite> find_syscall_sites(const CodeBytes& code,
                                            const FunctionRange& function_range) {
  return Finder(code, function_range).run();
}

std::vector<SyscallSite> find_syscall_sites(symbols::Module& module) {
  const symbols::ElfFile& elf = module.elf();
  // .eh_frame first: a binary search in the file, where the symbols' index has to be built.
  const FunctionRange range_of = [&](LinkAddr a) -> std::optional<dune::LinkRange> {
    if (std::optional<dune::LinkRange> fde = elf.fde_range(a))
      return fde;
    std::optional<symbols::Symbol> symbol = module.symbols().function_at(a);
    if (!symbol || symbol->is_plt)
      return std::nullopt;
    LinkAddr end = symbol->address + symbol->size;
    if (symbol->size == 0) {
      std::optional<LinkAddr> next = module.symbols().next_function(a);
      end = next ? *next : a + kMaxFunction;
    }
    return dune::LinkRange{symbol->address, end};
  };
  std::vector<SyscallSite> sites;
  for (const dune::LinkRange& text : elf.text_ranges()) {
    const symbols::Bytes bytes = elf.bytes_at(text.begin, text.size());
    const CodeBytes code{{reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()},
                         text.begin};
    std::vector<SyscallSite> found = find_syscall_sites(code, range_of);
    sites.insert(sites.end(), found.begin(), found.end());
  }
  std::sort(sites.begin(), sites.end(),
            [](const SyscallSite& a, const SyscallSite& b) { return a.address < b.address; });
  return sites;
}

} // namespace ddbg::engine
