#include "dtrace-lite/symbols/prologue.h"

#include "dtrace-lite/symbols/dwarf_internal.h"
#include "dtrace-lite/symbols/unit_lines.h"

#include <algorithm>
#include <cctype>
#include <dwarf.h>

namespace ddbg::symbols {
namespace {

unsigned byte_at(Bytes code, size_t i) {
  return i < code.size() ? std::to_integer<unsigned>(code[i]) : 0;
}

bool has(Bytes code, size_t at, std::initializer_list<unsigned> bytes) {
  for (unsigned b : bytes)
    if (at >= code.size() || byte_at(code, at++) != b)
      return false;
  return true;
}

// gcc's realignment of the stack (main with AVX locals), in two forms, `reg` being r10, r13, rax,
// ...:
//   [push %reg]; lea 8|16(%rsp),%reg; and $-N,%rsp; push -8(%reg)
// The length up to and including the last push, or 0.
size_t stack_realignment(Bytes code) {
  size_t i = 0;
  int pushed = -1;
  if (byte_at(code, 0) == 0x41 && (byte_at(code, 1) & 0xf8) == 0x50) {
    pushed = static_cast<int>(byte_at(code, 1) & 7) + 8;
    i = 2;
  } else if ((byte_at(code, 0) & 0xf8) == 0x50) {
    pushed = static_cast<int>(byte_at(code, 0) & 7);
    i = 1;
  }
  // lea disp8(%rsp),%reg: REX.W 8d modrm(01 reg 100) 24 disp8
  if ((byte_at(code, i) & 0xfb) != 0x48 || byte_at(code, i + 1) != 0x8d ||
      (byte_at(code, i + 2) & 0xc7) != 0x44 || byte_at(code, i + 3) != 0x24 ||
      byte_at(code, i + 4) != (pushed >= 0 ? 0x10 : 0x08))
    return 0;
  const int reg =
      static_cast<int>((byte_at(code, i + 2) >> 3 & 7) | (byte_at(code, i) & 4 ? 8 : 0));
  if (reg == 4 || (pushed >= 0 && reg != pushed))
    return 0;
  i += 5;
  if (has(code, i, {0x48, 0x83, 0xe4})) // and $imm8,%rsp
    i += 4;
  else if (has(code, i, {0x48, 0x81, 0xe4}))
    i += 7;
  else
    return 0;
  if (reg >= 8) {
    if ((byte_at(code, i) & 0xfb) != 0x41)
      return 0;
    i++;
  }
  // push -8(%reg): ff modrm(01 110 reg) [sib] f8
  if (byte_at(code, i) != 0xff || (byte_at(code, i + 1) & 0xf8) != 0x70)
    return 0;
  i += 2;
  if ((reg & 7) == 4)
    i++;
  return byte_at(code, i) == 0xf8 ? i + 1 : 0;
}

std::string_view producer_of(Dwarf_Die* unit) {
  Dwarf_Attribute attribute;
  const char* text = dwarf_formstring(dwarf_attr(unit, DW_AT_producer, &attribute));
  return text ? text : std::string_view();
}

bool is_llvm(std::string_view producer) {
  return producer.starts_with("clang ") || producer.starts_with(" F90 Flang ");
}

// "GNU C17 12.2.0 -O2": 4.5 and later give right locations at a function's first instruction.
bool is_gcc_with_exact_locations(std::string_view producer) {
  if (!producer.starts_with("GNU "))
    return false;
  for (size_t i = 4; i + 1 < producer.size(); i++) {
    if (producer[i - 1] != ' ' || !std::isdigit(static_cast<unsigned char>(producer[i])))
      continue;
    const int major = std::atoi(std::string(producer.substr(i)).c_str());
    const size_t dot = producer.find('.', i);
    const int minor = dot == std::string_view::npos
                          ? 0
                          : std::atoi(std::string(producer.substr(dot + 1)).c_str());
    return major > 4 || (major == 4 && minor >= 5);
  }
  return false;
}

bool is_location_list(Dwarf_Die* die) {
  Dwarf_Attribute attribute;
  if (!dwarf_attr(die, DW_AT_location, &attribute))
    return false;
  switch (dwarf_whatform(&attribute)) {
  case DW_FORM_sec_offset:
  case DW_FORM_loclistx:
  case DW_FORM_data4:
  case DW_FORM_data8:
    return true;
  default:
    return false;
  }
}

// Does any variable below `die` have a location list? Ends at the first one; code compiled with
// optimization has one soon.
bool any_location_list(Dwarf_Die* die, int depth) {
  constexpr int kMaxDepth = 64;
  Dwarf_Die child;
  if (depth > kMaxDepth || dwarf_child(die, &child) != 0)
    return false;
  for (;;) {
    const int tag = dwarf_tag(&child);
    if ((tag == DW_TAG_variable || tag == DW_TAG_formal_parameter) && is_location_list(&child))
      return true;
    if ((tag == DW_TAG_subprogram || tag == DW_TAG_lexical_block ||
         tag == DW_TAG_inlined_subroutine || tag == DW_TAG_namespace) &&
        any_location_list(&child, depth + 1))
      return true;
    const Dwarf_Off before = dwarf_dieoffset(&child);
    if (dwarf_siblingof(&child, &child) != 0 || dwarf_dieoffset(&child) <= before)
      return false;
  }
}

// True when a breakpoint needs no skipping: variables can be found at the first instruction.
bool has_exact_locations(Dwarf_Die* unit) {
  const std::string_view producer = producer_of(unit);
  if (!is_gcc_with_exact_locations(producer))
    return false;
  // Without optimization gcc makes no location lists, and there is much to scan in vain.
  const size_t option = producer.rfind(" -O");
  if (option == std::string_view::npos || producer.substr(option).starts_with(" -O0"))
    return false;
  return any_location_list(unit, 0);
}

bool inlined_at(Module& module, LinkAddr pc) {
  for (Dwarf_Die& scope : scopes_at(module, pc))
    if (dwarf_tag(&scope) == DW_TAG_inlined_subroutine)
      return true;
  return false;
}

// Where the compiler itself says that the prologue ends (clang, rustc). 0 when it does not.
LinkAddr marked_end(const UnitLines& lines, LinkRange function) {
  const auto first = lines.find(function.begin);
  const auto* table = first ? lines.items_of(first->file) : nullptr;
  if (table)
    for (const LineItem& item : table->items)
      if (item.prologue_end && function.contains(item.pc))
        return item.pc;
  return LinkAddr(0);
}

// gdb's skip_prologue_using_sal: the end of the function's first line. 0 when the lines do not say.
LinkAddr second_line(Module& module, const UnitLines& lines, LinkRange function) {
  auto prologue = lines.find(function.begin);
  if (!prologue)
    return LinkAddr(0);
  // Two statements at the function's first address: a prologue without instructions.
  if (const auto* table = lines.items_of(prologue->file)) {
    const auto& items = table->items;
    for (size_t i = 0; i + 1 < items.size(); i++) {
      if (items[i].pc != prologue->range.begin || items[i].line == 0)
        continue;
      if (items[i + 1].line != 0 && items[i + 1].pc == function.begin)
        return function.begin;
      break;
    }
  }
  while (prologue->range.end < function.end) {
    const auto next = lines.find(prologue->range.end);
    if (!next || next->line >= prologue->line || next->file != prologue->file ||
        inlined_at(module, prologue->range.end))
      break;
    // A smaller line of the same function: the scheduler moved code into the prologue.
    prologue = next;
  }
  return prologue->range.end < function.end ? prologue->range.end : LinkAddr(0);
}

} // namespace

LinkAddr skip_frame_setup(const ElfFile& file, LinkAddr entry) {
  const Bytes code = file.bytes_at(entry, 64);
  size_t i = stack_realignment(code);
  if (has(code, i, {0xf3, 0x0f, 0x1e, 0xfa})) // endbr64
    i += 4;
  if (byte_at(code, i) != 0x55) // push %rbp
    return entry;
  i++;
  if (has(code, i, {0x48, 0x89, 0xe5}) || has(code, i, {0x48, 0x8b, 0xec})) // mov %rsp,%rbp
    return entry + (i + 3);
  if (has(code, i, {0x89, 0xe5}) || has(code, i, {0x8b, 0xec})) // mov %esp,%ebp
    return entry + (i + 2);
  return entry;
}

LinkAddr skip_prologue(Module& module, LinkAddr entry) {
  DebugInfo* info = module.debug_info();
  const Unit* unit = info ? info->unit_at(entry) : nullptr;
  const UnitLines* lines = unit ? module.lines().unit_lines_at(entry) : nullptr;
  if (!unit || !lines)
    return skip_frame_setup(module.elf(), entry);

  Dwarf_Die unit_die = unit->die;
  if (lines->find(entry) &&
      (dwarf_srclang(&unit_die) == DW_LANG_Mips_Assembler || has_exact_locations(&unit_die)))
    return entry;

  LinkRange function{entry, entry};
  Dwarf_Die die;
  if (function_die_at(module, entry, &die)) {
    for (const LinkRange& range : die_ranges(&die))
      if (range.contains(entry))
        function.end = range.end;
  } else if (const auto symbol = module.symbols().function_at(entry)) {
    const auto next = module.symbols().next_function(entry);
    function.end = symbol->size ? symbol->address + symbol->size : next.value_or(entry);
  }

  LinkAddr by_lines = marked_end(*lines, function);
  if (!by_lines && is_llvm(producer_of(&unit_die)))
    by_lines = second_line(module, *lines, function);
  LinkAddr pc = by_lines ? std::max(entry, by_lines) : skip_frame_setup(module.elf(), entry);
  // In the middle of a line whose end is still in the function: to that end.
  if (const auto span = lines->find(pc))
    if (span->range.begin != pc && function.begin <= span->range.end &&
        span->range.end < function.end)
      pc = span->range.end;
  return pc;
}

} // namespace ddbg::symbols
