#include "disasm/att_text.h"

#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <string_view>

namespace dune::disasm {

namespace {

std::string hex(uint64_t value) {
  char text[24];
  snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

std::string signed_hex(int64_t value) {
  return value < 0 ? "-" + hex(-static_cast<uint64_t>(value)) : hex(static_cast<uint64_t>(value));
}

std::string name_of(ZydisRegister reg) { return std::string("%") + ZydisRegisterGetString(reg); }

bool is_shift(const ZydisInstruction& z) {
  return z.info.meta.category == ZYDIS_CATEGORY_SHIFT ||
         z.info.meta.category == ZYDIS_CATEGORY_ROTATE;
}

const ZydisDecodedOperand* visible_memory(const ZydisInstruction& z) {
  for (size_t i = 0; i < z.info.operand_count_visible; ++i) {
    if (z.operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
      return &z.operands[i];
  }
  return nullptr;
}

bool says_its_size(const ZydisInstruction& z) {
  switch (z.info.mnemonic) {
  case ZYDIS_MNEMONIC_NOP:
    return false;
  case ZYDIS_MNEMONIC_CVTSI2SD:
  case ZYDIS_MNEMONIC_CVTSI2SS:
  case ZYDIS_MNEMONIC_VCVTSI2SD:
  case ZYDIS_MNEMONIC_VCVTSI2SS:
    return !visible_memory(z); // the register operand is a vector
  default:
    break;
  }
  for (size_t i = 0; i < z.info.operand_count_visible; ++i) {
    const ZydisDecodedOperand& operand = z.operands[i];
    // The count register of a shift says nothing of the size shifted.
    if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER &&
        !(is_shift(z) && operand.reg.value == ZYDIS_REGISTER_CL && i > 0))
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

std::string without_suffix(std::string word, const ZydisInstruction& z) {
  if (word == "movabsq")
    return "movabs";
  std::string_view intel = ZydisMnemonicGetString(z.info.mnemonic);
  bool is_size = std::string_view("bwlq").find(word.back()) != std::string_view::npos;
  bool suffixed = is_size && word.size() == intel.size() + 1 && word.starts_with(intel);
  // Condition names differ between Intel and AT&T (cmovnz, cmovne); Capstone's always have a
  // suffix.
  suffixed |= is_size && z.info.meta.category == ZYDIS_CATEGORY_CMOV;
  if (suffixed && (has_implied_size(z) || says_its_size(z)))
    word.pop_back();
  return word;
}

std::string memory_text(const ZydisInstruction& z, const ZydisDecodedOperandMem& mem) {
  std::string out;
  if (mem.segment == ZYDIS_REGISTER_FS || mem.segment == ZYDIS_REGISTER_GS)
    out = name_of(mem.segment) + ":";
  if (z.info.raw.disp.size != 0)
    out += signed_hex(mem.disp.value);
  out += "(";
  if (mem.base != ZYDIS_REGISTER_NONE)
    out += name_of(mem.base);
  if (mem.index != ZYDIS_REGISTER_NONE)
    out += "," + name_of(mem.index) + "," + std::to_string(mem.scale);
  return out + ")";
}

bool is_word(char c) { return isalnum(static_cast<unsigned char>(c)) || c == '_'; }

// Numbers outside parentheses to hexadecimal; blanks out.
std::string normalise(std::string_view in, const ZydisInstruction& z) {
  std::string out;
  int depth = 0;
  for (size_t i = 0; i < in.size();) {
    char c = in[i];
    depth += c == '(' ? 1 : c == ')' ? -1 : 0;
    bool glued =
        c == ' ' && ((i > 0 && in[i - 1] == ',') || (i + 1 < in.size() && in[i + 1] == '{'));
    if (glued) {
      ++i;
      continue;
    }
    bool number = isdigit(static_cast<unsigned char>(c)) && depth == 0 &&
                  (i == 0 || (!is_word(in[i - 1]) && in[i - 1] != '%'));
    if (!number) {
      out += c;
      ++i;
      continue;
    }
    size_t end = i;
    while (end < in.size() && is_word(in[end]))
      ++end;
    uint64_t value = strtoull(std::string(in.substr(i, end - i)).c_str(), nullptr, 0);
    if (out.size() >= 2 && out.ends_with("$-")) {
      out.pop_back();
      value = -value;
      size_t width = z.operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? 64 : z.operands[0].size;
      if (width < 64)
        value &= (uint64_t{1} << width) - 1;
    }
    out += hex(value);
    i = end;
  }
  return out;
}

// Replaces "disp(base,index)" with how gdb writes what is encoded. Not the parentheses of %st(1).
void rewrite_memory(std::string& operands, const ZydisInstruction& z) {
  const ZydisDecodedOperand* operand = visible_memory(z);
  size_t open = operands.find("(%");
  if (open == std::string::npos)
    open = operands.find("(,");
  if (!operand || open == std::string::npos ||
      (operand->mem.base == ZYDIS_REGISTER_NONE && operand->mem.index == ZYDIS_REGISTER_NONE))
    return;
  size_t close = operands.find(')', open);
  if (close == std::string::npos)
    return;
  size_t begin = open;
  while (begin > 0 && operands[begin - 1] != ',' && operands[begin - 1] != '*' &&
         operands[begin - 1] != ' ')
    --begin;
  operands.replace(begin, close + 1 - begin, memory_text(z, operand->mem));
}

// The implicit operands of string instructions, which gdb writes in full.
void rewrite_string(AttText& text, std::string& name, const ZydisInstruction& z) {
  static constexpr struct {
    const char* intel; // without the size
    bool keeps_size;
    const char* before; // the accumulator, where there is one, goes between these two
    const char* after;
    bool accumulator;
  } kStrings[] = {
      {"stos", false, "", ",%es:(%rdi)", true},
      {"lods", false, "%ds:(%rsi),", "", true},
      {"scas", false, "%es:(%rdi),", "", true},
      {"movs", true, "%ds:(%rsi),%es:(%rdi)", "", false},
      {"cmps", true, "%es:(%rdi),%ds:(%rsi)", "", false},
  };
  unsigned size = z.info.operand_width;
  if (z.info.mnemonic == ZYDIS_MNEMONIC_NOP || z.info.address_width != 64)
    return;
  std::string_view intel = ZydisMnemonicGetString(z.info.mnemonic);
  for (const auto& row : kStrings) {
    if (intel.size() != 5 || !intel.starts_with(row.intel))
      continue;
    size = intel.back() == 'b' ? 8 : size;
    const char* suffix = size == 8 ? "b" : size == 16 ? "w" : size == 32 ? "l" : "q";
    const char* accumulator = size == 8 ? "%al" : size == 16 ? "%ax" : size == 32 ? "%eax" : "%rax";
    name = std::string(row.intel) + (row.keeps_size ? suffix : "");
    text.operands = std::string(row.before) + (row.accumulator ? accumulator : "") + row.after;
  }
}

// 66 66 2e 0f 1f ...: "data16 cs nopw 0x0(%rax,%rax,1)".
void rewrite_nop(AttText& text, std::string& name, const ZydisInstruction& z) {
  size_t operand_sizes = 0;
  for (size_t i = 0; i < z.info.raw.prefix_count; ++i)
    operand_sizes += z.info.raw.prefixes[i].value == 0x66;
  if (!visible_memory(z)) {
    if (operand_sizes == 1 && z.info.length == 2) {
      name = "xchg";
      text.operands = "%ax,%ax";
    }
    return;
  }
  name = z.info.operand_width == 16 ? "nopw" : z.info.operand_width == 32 ? "nopl" : "nopq";
  if (z.has_prefix(0x2e))
    name = "cs " + name;
  for (size_t i = 1; i < operand_sizes; ++i)
    name = "data16 " + name;
  text.operands = memory_text(z, visible_memory(z)->mem);
}

// vpcmpub $1,... is vpcmpltub: the comparison is in the name.
void rewrite_vector_compare(AttText& text, std::string& name) {
  static constexpr const char* kPredicates[] = {"eq", "lt", "le", nullptr, "neq", "nlt", "nle"};
  if (!name.starts_with("vpcmp") || !text.operands.starts_with("$0x") || text.operands.size() < 5 ||
      text.operands[4] != ',')
    return;
  auto which = static_cast<size_t>(text.operands[3] - '0');
  if (which >= std::size(kPredicates) || !kPredicates[which])
    return;
  name.insert(5, kPredicates[which]);
  text.operands.erase(0, 5);
}

} // namespace

AttText as_gdb_writes(const AttText& given, const ZydisInstruction& z) {
  AttText text = given;
  size_t space = text.mnemonic.rfind(' '); // behind prefixes: "lock cmpxchgl"
  size_t start = space == std::string::npos ? 0 : space + 1;
  std::string name = without_suffix(text.mnemonic.substr(start), z);
  text.operands = normalise(text.operands, z);
  rewrite_memory(text.operands, z);
  if (is_shift(z) && (z.info.opcode & 0xfe) == 0xd0 && text.operands.starts_with("$0x1,"))
    text.operands.erase(0, 5);
  if (z.info.meta.category == ZYDIS_CATEGORY_STRINGOP)
    rewrite_string(text, name, z);
  if (z.info.mnemonic == ZYDIS_MNEMONIC_NOP)
    rewrite_nop(text, name, z);
  if (z.info.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX)
    rewrite_vector_compare(text, name);
  if (z.info.mnemonic == ZYDIS_MNEMONIC_MOVQ)
    name = "movq"; // Capstone's is movd for either width
  text.mnemonic = text.mnemonic.substr(0, start) + name;
  if (z.info.attributes & ZYDIS_ATTRIB_HAS_NOTRACK && start == 0)
    text.mnemonic = "notrack " + text.mnemonic;
  return text;
}

} // namespace dune::disasm
