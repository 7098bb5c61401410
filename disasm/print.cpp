#include "disasm/print.h"

#include "disasm/att_text.h"
#include "disasm/capstone.h"
#include "disasm/zydis_decoder.h"

#include <algorithm>
#include <cstdio>
#include <iterator>

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

// Capstone 4.0.2 reads some instructions that are younger than itself as others of the same length
// (rdpid as rdseed). The two libraries have the same names but for a few families.
bool same_instruction(std::string_view capstone, std::string_view zydis) {
  if (capstone == zydis)
    return true;
  static constexpr std::string_view kFamilies[][2] = {
      {"j", "j"},        {"cmov", "cmov"}, {"set", "set"},     {"movabs", "mov"},
      {"wait", "fwait"}, {"cmp", "cmp"},   {"vpcmp", "vpcmp"}, {"vcmp", "vcmp"},
  };
  return std::any_of(std::begin(kFamilies), std::end(kFamilies), [&](const auto& family) {
    return capstone.starts_with(family[0]) && zydis.starts_with(family[1]);
  });
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
  if (text && text->length == i.length &&
      same_instruction(text->name, ZydisMnemonicGetString(z->info.mnemonic))) {
    mnemonic = text->mnemonic;
    operands = text->operands;
  } else {
    std::string all = zydis_text(*z, address, syntax);
    size_t space = all.find(' ');
    mnemonic = all.substr(0, space);
    operands = space == std::string::npos ? "" : all.substr(space + 1);
  }
  if (syntax == Syntax::kAtt) {
    AttText att = as_gdb_writes({mnemonic, operands}, *z);
    mnemonic = att.mnemonic;
    operands = att.operands;
  }
  if (i.target)
    operands = with_symbol(*i.target, symbolizer);
  std::string out = in_columns(mnemonic, operands);
  if (i.rip_operand)
    out += "        # " + with_symbol(*i.rip_operand, symbolizer);
  return {out, i.length};
}

} // namespace dune::disasm
