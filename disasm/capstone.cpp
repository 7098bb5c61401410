#include "disasm/capstone.h"

#include "disasm/decode.h"

#include <algorithm>
#include <capstone/capstone.h>

namespace dune::disasm {

namespace {

// A Capstone handle is not safe to share between threads, and opening one costs microseconds.
class Handle {
public:
  explicit Handle(Syntax syntax) {
    DUNE_ASSERT(cs_open(CS_ARCH_X86, CS_MODE_64, &handle_) == CS_ERR_OK);
    cs_option(handle_, CS_OPT_SYNTAX,
              syntax == Syntax::kAtt ? CS_OPT_SYNTAX_ATT : CS_OPT_SYNTAX_INTEL);
    instruction_ = cs_malloc(handle_);
    DUNE_ASSERT(instruction_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    cs_free(instruction_, 1);
    cs_close(&handle_);
  }

  const cs_insn* decode(std::span<const uint8_t> bytes, TargetAddr address) {
    const uint8_t* code = bytes.data();
    size_t size = std::min(bytes.size(), kMaxInstructionLength);
    uint64_t at = address.value;
    return cs_disasm_iter(handle_, &code, &size, &at, instruction_) ? instruction_ : nullptr;
  }

  const char* name(const cs_insn& one) const {
    const char* found = cs_insn_name(handle_, one.id);
    return found ? found : "";
  }

private:
  csh handle_ = 0;
  cs_insn* instruction_ = nullptr;
};

Handle& handle_for(Syntax syntax) {
  thread_local Handle att(Syntax::kAtt);
  thread_local Handle intel(Syntax::kIntel);
  return syntax == Syntax::kAtt ? att : intel;
}

} // namespace

uint8_t capstone_length(std::span<const uint8_t> bytes, TargetAddr address) {
  const cs_insn* one = handle_for(Syntax::kAtt).decode(bytes, address);
  return one ? static_cast<uint8_t>(one->size) : 0;
}

std::optional<CapstoneText> capstone_print(std::span<const uint8_t> bytes, TargetAddr address,
                                           Syntax syntax) {
  const cs_insn* one = handle_for(syntax).decode(bytes, address);
  if (!one)
    return {};
  return CapstoneText{static_cast<uint8_t>(one->size), handle_for(syntax).name(*one), one->mnemonic,
                      one->op_str};
}

} // namespace dune::disasm
