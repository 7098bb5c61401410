#include "disasm/att_text.h"

#include <cctype>
#include <cstdio>
#include <cstdlib>

namespace dune::disasm {

namespace {

bool has_register_operand(const ZydisInstruction& z) {
  size_t count = z.info.operand_count_visible;
  // The count register of a shift says nothing of the size shifted.
  bool shift =
      z.info.meta.category == ZYDIS_CATEGORY_SHIFT || z.info.meta.category == ZYDIS_CATEGORY_ROTATE;
  for (size_t i = 0; i < count; ++i) {
    const ZydisDecodedOperand& operand = z.operands[i];
    if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER &&
        !(shift && operand.reg.value == ZYDIS_REGISTER_CL && i > 0))
      return true;
  }
  return false;
}

bool has_implied_size(const ZydisInstruction& z) {
  switch (z.info.meta.category) {
  case ZYDIS_CATEGORY_CALL:
  case ZYDIS_CATEGORY_RET:
  case ZYDIS_CATEGORY_UNCOND_BR:
  case ZYDIS_CATEGORY_PUSH:
  case ZYDIS_CATEGORY_POP:
    return z.info.operand_width == 64 || z.info.meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR;
  default:
    return z.info.mnemonic == ZYDIS_MNEMONIC_LEAVE || z.info.mnemonic == ZYDIS_MNEMONIC_ENTER;
  }
}

std::string without_suffix(std::string_view word, const ZydisInstruction& z) {
  std::string_view intel = ZydisMnemonicGetString(z.info.mnemonic);
  if (word == "movabsq")
    return "movabs";
  bool suffixed = word.size() == intel.size() + 1 && word.substr(0, intel.size()) == intel &&
                  std::string_view("bwlq").find(word.back()) != std::string_view::npos;
  if (suffixed && (has_implied_size(z) || has_register_operand(z)))
    word.remove_suffix(1);
  return std::string(word);
}

bool is_word(char c) { return isalnum(static_cast<unsigned char>(c)) || c == '_'; }

} // namespace

std::string att_mnemonic(std::string_view mnemonic, const ZydisInstruction& z) {
  size_t space = mnemonic.rfind(' '); // behind prefixes: "lock cmpxchgl"
  if (space == std::string_view::npos)
    return without_suffix(mnemonic, z);
  return std::string(mnemonic.substr(0, space + 1)) + without_suffix(mnemonic.substr(space + 1), z);
}

std::string att_operands(std::string_view in) {
  std::string out;
  int depth = 0;
  for (size_t i = 0; i < in.size();) {
    char c = in[i];
    depth += c == '(' ? 1 : c == ')' ? -1 : 0;
    if (c == ' ' && i > 0 && in[i - 1] == ',') {
      ++i;
      continue;
    }
    bool number = isdigit(static_cast<unsigned char>(c)) && (i == 0 || !is_word(in[i - 1])) &&
                  (i == 0 || in[i - 1] != '%') && depth == 0;
    if (!number) {
      out += c;
      ++i;
      continue;
    }
    size_t end = i;
    while (end < in.size() && is_word(in[end]))
      ++end;
    std::string_view digits = in.substr(i, end - i);
    bool decimal = digits.find_first_not_of("0123456789") == std::string_view::npos;
    if (decimal && !(i > 0 && in[i - 1] == '(')) { // %st(1) is inside parentheses anyway
      char hexadecimal[24];
      snprintf(hexadecimal, sizeof hexadecimal, "0x%llx",
               strtoull(std::string(digits).c_str(), nullptr, 10));
      out += hexadecimal;
    } else {
      out += digits;
    }
    i = end;
  }
  return out;
}

} // namespace dune::disasm
