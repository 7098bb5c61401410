#include "disasm/print.h"

#include "disasm/att_text.h"
#include "disasm/capstone.h"
#include "disasm/zydis_decoder.h"

#include <cstdio>

namespace dune::disasm {

namespace {

std::string hex(uint64_t value) {
  char text[24];
  snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

std::string with_symbol(TargetAddr address, const Symbolizer& symbolizer) {
  std::string text = hex(address.value);
  std::string name = symbolizer ? symbolizer(address) : std::string();
  return name.empty() ? text : text + " <" + name + ">";
}

std::string zydis_text(const ZydisInstruction& z, TargetAddr address, Syntax syntax) {
  ZydisFormatter formatter;
  ZydisFormatterInit(&formatter, syntax == Syntax::kAtt ? ZYDIS_FORMATTER_STYLE_ATT
                                                        : ZYDIS_FORMATTER_STYLE_INTEL);
  ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_HEX_UPPERCASE, ZYAN_FALSE);
  ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_DISP_PADDING, ZYDIS_PADDING_DISABLED);
  ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_IMM_PADDING, ZYDIS_PADDING_DISABLED);
  ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_FORCE_RELATIVE_RIPREL, ZYAN_TRUE);
  char text[160];
  if (!ZYAN_SUCCESS(ZydisFormatterFormatInstruction(&formatter, &z.info, z.operands,
                                                    z.info.operand_count_visible, text, sizeof text,
                                                    address.value, nullptr)))
    return "(bad)";
  return text;
}

// "mnemonic operands" to gdb's columns; a prefix word (lock, rep, bnd) keeps its own space.
std::string in_columns(const std::string& mnemonic, const std::string& operands) {
  if (operands.empty())
    return mnemonic;
  std::string text = mnemonic;
  if (text.size() < 6)
    text.resize(6, ' ');
  return text + " " + operands;
}

} // namespace

Printed print(std::span<const uint8_t> bytes, TargetAddr address, Syntax syntax,
              const Symbolizer& symbolizer) {
  Result<ZydisInstruction> z = zydis_decode(bytes);
  if (!z)
    return {"(bad)", 1};
  Instruction i = describe(*z, address);
  std::span<const uint8_t> own = bytes.first(i.length);

  std::string mnemonic, operands;
  auto text = capstone_print(own, address, syntax);
  if (text && text->length == i.length) {
    mnemonic = text->mnemonic;
    operands = text->operands;
  } else {
    std::string all = zydis_text(*z, address, syntax);
    size_t space = all.find(' ');
    mnemonic = all.substr(0, space);
    operands = space == std::string::npos ? "" : all.substr(space + 1);
  }
  if (syntax == Syntax::kAtt) {
    mnemonic = att_mnemonic(mnemonic, *z);
    operands = att_operands(operands);
  }
  if (i.target)
    operands = with_symbol(*i.target, symbolizer);
  std::string out = in_columns(mnemonic, operands);
  if (i.rip_operand)
    out += "        # " + with_symbol(*i.rip_operand, symbolizer);
  return {out, i.length};
}

} // namespace dune::disasm
