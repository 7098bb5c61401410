#include "dtrace-lite/symbols/probes.h"

#include "dtrace-lite/symbols/byte_reader.h"

#include <charconv>
#include <string>

namespace ddbg::symbols {
namespace {

constexpr uint32_t kProbeNote = 3; // NT_STAPSDT

struct RegisterName {
  dune::Reg reg;
  unsigned size, shift;
};

// "rax", "eax", "ax", "al", "ah", "r8", "r8d", "r8w", "r8b": the name of the widest, and how much.
std::optional<RegisterName> register_named(std::string_view text) {
  struct Form {
    std::string_view name;
    unsigned size, shift;
  };
  const auto match = [&](dune::Reg reg,
                         std::initializer_list<Form> forms) -> std::optional<RegisterName> {
    for (const Form& form : forms)
      if (form.name == text)
        return RegisterName{reg, form.size, form.shift};
    return std::nullopt;
  };
  for (size_t i = 0; i < dune::kRegisterCount; ++i) {
    const auto reg = static_cast<dune::Reg>(i);
    if (reg > dune::Reg::rip)
      break;
    const std::string wide = dune::kRegisters[i].name;
    std::optional<RegisterName> found;
    if (wide[1] >= '0' && wide[1] <= '9') {
      found =
          match(reg, {{wide, 8, 0}, {wide + "d", 4, 0}, {wide + "w", 2, 0}, {wide + "b", 1, 0}});
    } else {
      const std::string word = wide.substr(1), letter = wide.substr(1, 1);
      found =
          wide.back() == 'x'
              ? match(reg, {{wide, 8, 0},
                            {"e" + word, 4, 0},
                            {word, 2, 0},
                            {letter + "l", 1, 0},
                            {letter + "h", 1, 8}})
              : match(reg, {{wide, 8, 0}, {"e" + word, 4, 0}, {word, 2, 0}, {word + "l", 1, 0}});
    }
    if (found)
      return found;
  }
  return std::nullopt;
}

std::optional<int64_t> take_number(std::string_view& text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc())
    return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return value;
}

// "%rax" at the beginning, up to one of the characters that can follow a register.
std::optional<RegisterName> take_register(std::string_view& text) {
  if (!text.starts_with('%'))
    return std::nullopt;
  const size_t end = std::min(text.find_first_of(",)"), text.size());
  const std::string_view name = text.substr(1, end - 1);
  text.remove_prefix(end);
  return register_named(name);
}

bool take(std::string_view& text, char c) {
  if (!text.starts_with(c))
    return false;
  text.remove_prefix(1);
  return true;
}

// "(%base,%index,scale)", any of the three missing.
bool parse_memory(std::string_view text, ProbeOperand& operand) {
  if (!take(text, '('))
    return false;
  if (text.starts_with('%')) {
    const std::optional<RegisterName> base = take_register(text);
    if (!base || base->size != 8)
      return false;
    operand.base = base->reg;
  }
  if (take(text, ',')) {
    const std::optional<RegisterName> index = take_register(text);
    if (!index || index->size != 8)
      return false;
    operand.index = index->reg;
    if (take(text, ',')) {
      const std::optional<int64_t> scale = take_number(text);
      if (!scale || (*scale != 1 && *scale != 2 && *scale != 4 && *scale != 8))
        return false;
      operand.scale = static_cast<uint64_t>(*scale);
    }
  }
  return text == ")";
}

uint64_t extended(uint64_t value, unsigned size, bool is_signed) {
  const unsigned unused = 64 - 8 * size;
  if (is_signed)
    return static_cast<uint64_t>(static_cast<int64_t>(value << unused) >> unused);
  return value << unused >> unused;
}

} // namespace

std::optional<ProbeOperand> ProbeOperand::parse(std::string_view text) {
  ProbeOperand operand;
  if (const size_t at = text.find('@'); at != std::string_view::npos) {
    std::string_view width = text.substr(0, at);
    // "8f": a floating-point number, which nothing here asks for.
    std::optional<int64_t> size = take_number(width);
    if (!size || !width.empty())
      return std::nullopt;
    operand.is_signed = *size < 0;
    if (operand.is_signed)
      size = -*size;
    if (*size != 1 && *size != 2 && *size != 4 && *size != 8)
      return std::nullopt;
    operand.size = static_cast<unsigned>(*size);
    text.remove_prefix(at + 1);
  }
  if (text.starts_with('%')) {
    const std::optional<RegisterName> reg = take_register(text);
    if (!reg || !text.empty())
      return std::nullopt;
    operand.kind = Kind::kRegister;
    operand.base = reg->reg;
    operand.shift = reg->shift;
    operand.size = std::min(operand.size, reg->size);
    return operand;
  }
  const bool is_constant = take(text, '$');
  if (!text.starts_with('(')) {
    const std::optional<int64_t> number = take_number(text);
    if (!number)
      return std::nullopt;
    operand.constant = *number;
  }
  if (is_constant)
    return text.empty() ? std::optional(operand) : std::nullopt;
  operand.kind = Kind::kMemory;
  if (!parse_memory(text, operand))
    return std::nullopt;
  return operand;
}

std::optional<uint64_t> ProbeOperand::value(const KnownRegisters& registers,
                                            const MemoryReader& read) const {
  uint64_t result = static_cast<uint64_t>(constant);
  if (base) {
    const std::optional<uint64_t> known = registers.get(*base);
    if (!known)
      return std::nullopt;
    result += *known >> shift;
  }
  if (index) {
    const std::optional<uint64_t> known = registers.get(*index);
    if (!known)
      return std::nullopt;
    result += *known * scale;
  }
  if (kind == Kind::kMemory) {
    uint64_t content = 0;
    if (!read(TargetAddr(result), std::as_writable_bytes(std::span(&content, 1)).first(size)))
      return std::nullopt;
    result = content;
  }
  return extended(result, size, is_signed);
}

std::optional<ProbeOperand> Probe::argument(unsigned wanted) const {
  std::string_view rest = arguments;
  for (unsigned i = 0;; ++i) {
    while (take(rest, ' ')) {
    }
    if (rest.empty())
      return std::nullopt;
    const std::string_view word = rest.substr(0, rest.find(' '));
    if (i == wanted)
      return ProbeOperand::parse(word);
    rest.remove_prefix(word.size());
  }
}

std::vector<Probe> read_probes(const ElfFile& file) {
  std::vector<Probe> probes;
  const Section* section = file.section(".note.stapsdt");
  const Section* base = file.section(".stapsdt.base");
  if (!section || !base)
    return probes;
  for (const Note& note : read_notes(section->data, 4)) {
    if (note.type != kProbeNote || note.name != "stapsdt")
      continue;
    ByteReader content(note.content);
    const uint64_t address = content.u64(), linked_base = content.u64(), semaphore = content.u64();
    // What prelink moved after the addresses were written.
    const uint64_t moved = base->range.begin.value - linked_base;
    Probe probe;
    probe.provider = content.text();
    probe.name = content.text();
    probe.arguments = content.text();
    probe.address = LinkAddr(address + moved);
    probe.semaphore = LinkAddr(semaphore ? semaphore + moved : 0);
    if (!content.failed())
      probes.push_back(probe);
  }
  return probes;
}

} // namespace ddbg::symbols
