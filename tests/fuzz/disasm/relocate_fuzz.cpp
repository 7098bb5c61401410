// Any bytes, decoded, printed and displaced. What must hold: nothing crashes, no assertion of ours
// fails (the size limit, rewritten encodings), lengths stay within the input, and every instruction
// of a copy has a boundary.
//
// Input: cover, destination (8 bytes), then code.
#include "disasm/decode.h"
#include "disasm/patch_plan.h"
#include "disasm/print.h"
#include "disasm/relocate.h"

#include <cstring>

using namespace dune;
using namespace dune::disasm;

namespace {

// The copy decodes from boundary to boundary, but for the addresses that far jumps read.
void check_copy(const Relocated& copy, TargetAddr at) {
  for (size_t n = 0; n < copy.boundaries.size(); ++n) {
    const Boundary& b = copy.boundaries[n];
    DUNE_ASSERT(n == 0 || b.offset > copy.boundaries[n - 1].offset);
    DUNE_ASSERT(b.offset <= copy.bytes.size());
    if (b.offset == copy.bytes.size())
      continue;
    auto one = decode(std::span(copy.bytes).subspan(b.offset), at + b.offset);
    DUNE_ASSERT(one);
    size_t end = b.offset + one->length;
    size_t next =
        n + 1 < copy.boundaries.size() ? copy.boundaries[n + 1].offset : copy.bytes.size();
    bool far_jump = one->flow == Flow::kIndirectJump && one->rip_operand == at + end;
    DUNE_ASSERT(next == end || (far_jump && next == end + sizeof(uint64_t)));
  }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr size_t kHeader = 9;
  if (size < kHeader)
    return 0;
  size_t cover = 1 + data[0] % 16;
  uint64_t destination;
  memcpy(&destination, data + 1, sizeof destination);
  std::span<const uint8_t> code(data + kHeader, size - kHeader);
  constexpr TargetAddr kSource(0x5555'5555'0000);

  LinearDecode range = decode_range(code, kSource);
  size_t total = 0;
  for (const Instruction& i : range.instructions)
    total += i.length;
  DUNE_ASSERT(total <= code.size() && (range.stopped || total == code.size()));
  if (!code.empty()) {
    for (Syntax syntax : {Syntax::kAtt, Syntax::kIntel}) {
      Printed printed = print(code, kSource, syntax);
      DUNE_ASSERT(!printed.text.empty() && printed.length <= code.size());
    }
  }
  auto plan = plan_relocation(code, kSource, {.cover = cover});
  if (!plan) {
    DUNE_ASSERT(refusal_text(plan.error().why));
  } else {
    DUNE_ASSERT(plan->source_length() >= cover);
    for (TargetAddr at : {TargetAddr(destination), kSource + 0x10000, TargetAddr(0x7000'0000'0000)})
      check_copy(plan->commit(at), at);
  }
  if (!code.empty()) {
    CodePart part{kSource, code};
    (void)plan_patch({.site = kSource, .function = {&part, 1}});
  }
  return 0;
}
