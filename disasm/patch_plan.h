// Where a breakpoint's patch goes and of which kind: the cheapest tier that is safe (docs: live
// patching). What it knows of the function is what the caller gives; what it does not know counts
// against the cheap tiers.
#pragma once

#include "disasm/relocate.h"

#include <span>
#include <string>
#include <vector>

namespace dune::disasm {

enum class Tier : uint8_t {
  kA, // jmp over one instruction of 5 bytes or more: no thread can be inside it
  kB, // jmp over several: threads inside have to be moved
  kC, // jmp over one short instruction, its tail being the bytes that follow anyway; or over
      // padding
  kD, // int3
};

struct CodePart {
  TargetAddr address;
  std::span<const uint8_t> bytes; // the original ones
};

struct PatchRequest {
  TargetAddr site; // a leading endbr64 is skipped: see PatchPlan::site
  // The function, by symbol or frame description: first the part that the site lies in, then its
  // others (GCC's .cold), which jump into it.
  std::span<const CodePart> function;
  // Bytes behind the first part, up to the next function: padding, if that is what they are.
  std::span<const uint8_t> behind = {};
  // Addresses that control may come to otherwise: jump tables, landing pads, relocations, symbols.
  std::span<const TargetAddr> known_targets = {};
  // Do they hold every target of the function's indirect jumps? If not, and it has some, any
  // instruction may be a target.
  bool indirect_jumps_known = false;
  bool shadow_stack = false;
  Tier cheapest = Tier::kA; // to go on with the next when a tier could not be had
};

struct PatchPlan {
  Tier tier;
  TargetAddr site;    // where the patch goes
  size_t overwritten; // bytes: 1 for int3, else 5, less where the tail of a jmp is not written
  std::string reason; // for `info breakpoints`: why this tier, and why none cheaper
  TargetRange reach;  // where the trampoline may begin (tier D: anywhere)
  RelocationPlan relocation;
};

// Fails only when the instruction cannot be displaced at all.
Result<PatchPlan, Refused> plan_patch(const PatchRequest& request);

} // namespace dune::disasm
