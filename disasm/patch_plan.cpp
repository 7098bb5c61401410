#include "disasm/patch_plan.h"

#include "disasm/decode.h"

#include <algorithm>
#include <cstring>
#include <optional>

namespace dune::disasm {

namespace {

constexpr size_t kJumpLength = 5;
constexpr TargetRange kAnywhere{TargetAddr(0), TargetAddr(uint64_t{1} << 47)};

// rel32 counts from behind the jump; a trampoline of a page or two must fit into it as well.
TargetRange rel32_reach(TargetAddr site) {
  constexpr uint64_t kMargin = 16 * kPageSize;
  constexpr uint64_t kReach = 0x8000'0000 - kMargin;
  uint64_t low = site.value > kReach ? site.value - kReach : 0;
  return {TargetAddr(low), std::min(site + kReach, kAnywhere.end)};
}

// Why a tier is not to be had, or nothing when it is.
using Obstacle = std::optional<std::string>;

struct Chooser {
  const PatchRequest& request;
  TargetAddr site{};
  std::vector<Instruction> instructions{}; // of the part with the site
  std::vector<TargetAddr> targets{};       // sorted
  bool decoded = false;
  bool unknown_jumps = false;

  const CodePart& part() const { return request.function.front(); }
  TargetAddr part_end() const { return part().address + part().bytes.size(); }

  std::span<const uint8_t> bytes_at_site() const {
    return part().bytes.subspan(site - part().address);
  }

  bool may_be_target(TargetAddr address) const {
    return unknown_jumps || std::binary_search(targets.begin(), targets.end(), address);
  }

  void skip_endbr() {
    site = request.site;
    auto first = decode(bytes_at_site(), site);
    if (first && first->is_endbr64 && first->end() < part_end())
      site = first->end();
  }

  void collect() {
    decoded = true;
    targets.assign(request.known_targets.begin(), request.known_targets.end());
    for (const CodePart& one : request.function) {
      LinearDecode range = decode_range(one.bytes, one.address);
      decoded &= !range.stopped;
      for (const Instruction& i : range.instructions) {
        if (i.target)
          targets.push_back(*i.target);
        if (i.is_endbr64)
          targets.push_back(i.address);
        unknown_jumps |= i.flow == Flow::kIndirectJump && !request.indirect_jumps_known;
      }
      if (&one == &part())
        instructions = std::move(range.instructions);
    }
    std::sort(targets.begin(), targets.end());
  }

  std::vector<Instruction>::const_iterator find_site() const {
    return std::find_if(instructions.begin(), instructions.end(),
                        [&](const Instruction& i) { return i.address == site; });
  }

  Result<RelocationPlan, Refused> relocate(size_t cover) const {
    return relocate(bytes_at_site(), cover);
  }
  Result<RelocationPlan, Refused> relocate(std::span<const uint8_t> bytes, size_t cover) const {
    return plan_relocation(bytes, site, {.cover = cover, .shadow_stack = request.shadow_stack});
  }

  PatchPlan make(Tier tier, size_t overwritten, std::string reason, TargetRange reach,
                 RelocationPlan relocation) const {
    return {tier, site, overwritten, std::move(reason), reach, std::move(relocation)};
  }

  // The tiers: a plan, or the obstacle.
  std::optional<PatchPlan> tier_a(const Instruction& first, std::string& obstacle) const {
    if (first.length < kJumpLength) {
      obstacle = "the instruction is shorter than a jump";
      return {};
    }
    auto relocation = relocate(kJumpLength);
    if (!relocation) {
      obstacle = refusal_text(relocation.error().why);
      return {};
    }
    return make(Tier::kA, kJumpLength,
                "jump over one instruction of " + std::to_string(first.length) + " bytes",
                rel32_reach(site), std::move(*relocation));
  }

  std::optional<PatchPlan> tier_b(std::vector<Instruction>::const_iterator first,
                                  std::string& obstacle) const {
    size_t length = 0;
    auto at = first;
    for (; at != instructions.end() && length < kJumpLength; ++at) {
      if (at != first && may_be_target(at->address)) {
        obstacle = unknown_jumps ? "an indirect jump of the function may go to the next instruction"
                                 : "the next instruction is a jump target";
        return {};
      }
      length += at->length;
      bool last = length >= kJumpLength;
      bool sleeps = at->is_call() || at->flow == Flow::kSyscall || at->flow == Flow::kTrap;
      if (!last && sleeps) {
        obstacle = "a call, system call or trap would return into the jump";
        return {};
      }
    }
    if (length < kJumpLength) {
      obstacle = "the function ends within the jump";
      return {};
    }
    auto relocation = relocate(kJumpLength);
    if (!relocation) {
      obstacle = refusal_text(relocation.error().why);
      return {};
    }
    return make(Tier::kB, kJumpLength,
                "jump over " + std::to_string(at - first) +
                    " instructions, threads inside are moved",
                rel32_reach(site), std::move(*relocation));
  }

  // The last instruction of the function and the padding behind it.
  std::optional<PatchPlan> tier_c_padding(const Instruction& first) const {
    if (first.end() != part_end() || first.falls_through || may_be_target_behind(first))
      return {};
    std::vector<uint8_t> bytes(bytes_at_site().begin(), bytes_at_site().end());
    bytes.insert(bytes.end(), request.behind.begin(), request.behind.end());
    if (bytes.size() < kJumpLength)
      return {};
    auto relocation = relocate(bytes, kJumpLength);
    if (!relocation)
      return {};
    return make(Tier::kC, kJumpLength, "jump over the function's last instruction and padding",
                rel32_reach(site), std::move(*relocation));
  }

  bool may_be_target_behind(const Instruction& first) const {
    auto next = std::lower_bound(targets.begin(), targets.end(), first.end());
    return next != targets.end() && *next < site + kJumpLength;
  }

  // Punning: the high bytes of the displacement are the bytes that follow, and stay.
  std::optional<PatchPlan> tier_c_punning(const Instruction& first, std::string& obstacle) const {
    std::vector<uint8_t> bytes(bytes_at_site().begin(), bytes_at_site().end());
    bytes.insert(bytes.end(), request.behind.begin(), request.behind.end());
    if (first.length >= kJumpLength || bytes.size() < kJumpLength) {
      obstacle = "there are no bytes to share with a jump";
      return {};
    }
    uint8_t tail[4] = {};
    for (size_t i = first.length; i < kJumpLength; ++i)
      tail[i - 1] = bytes[i];
    int32_t lowest;
    memcpy(&lowest, tail, sizeof lowest);
    uint64_t choices = uint64_t{1} << 8 * (first.length - 1u);
    auto begin = static_cast<int64_t>(site.value + kJumpLength) + lowest;
    constexpr int64_t kLowestMapping = 0x10000;
    if (begin < kLowestMapping || static_cast<uint64_t>(begin) + choices > kAnywhere.end.value) {
      obstacle = "the bytes that follow, as a jump's, lead outside the address space";
      return {};
    }
    auto relocation = relocate(first.length);
    if (!relocation) {
      obstacle = refusal_text(relocation.error().why);
      return {};
    }
    TargetAddr from(static_cast<uint64_t>(begin));
    return make(Tier::kC, first.length, "jump that shares its tail with the next instruction",
                {from, from + choices}, std::move(*relocation));
  }

  Result<PatchPlan, Refused> run();
};

Result<PatchPlan, Refused> Chooser::run() {
  skip_endbr();
  collect();
  std::string why_not;
  auto consider = [&](std::optional<PatchPlan> plan) {
    if (plan && !why_not.empty())
      plan->reason += "; not cheaper: " + why_not;
    return plan;
  };
  auto first = find_site();
  if (!decoded) {
    why_not = "the function could not be decoded";
  } else if (first == instructions.end()) {
    why_not = "the address is not at an instruction of the function";
  } else {
    if (request.cheapest <= Tier::kA) {
      if (auto plan = consider(tier_a(*first, why_not)))
        return std::move(*plan);
    }
    if (request.cheapest <= Tier::kB && first->length < kJumpLength) {
      if (auto plan = consider(tier_b(first, why_not)))
        return std::move(*plan);
    }
    if (request.cheapest <= Tier::kC) {
      std::string ignored;
      if (auto plan = consider(tier_c_padding(*first)))
        return std::move(*plan);
      if (auto plan = consider(tier_c_punning(*first, ignored)))
        return std::move(*plan);
    }
  }
  auto relocation = relocate(1);
  if (!relocation)
    return relocation.error();
  if (why_not.empty())
    why_not = "the cheaper ones were ruled out";
  return make(Tier::kD, 1, "int3: " + why_not, kAnywhere, std::move(*relocation));
}

} // namespace

Result<PatchPlan, Refused> plan_patch(const PatchRequest& request) {
  DUNE_ASSERT(!request.function.empty());
  const CodePart& part = request.function.front();
  DUNE_ASSERT((TargetRange{part.address, part.address + part.bytes.size()}.contains(request.site)));
  return Chooser{request}.run();
}

} // namespace dune::disasm
