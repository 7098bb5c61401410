#include "dtrace-lite/symbols/line_program.h"

#include <dwarf.h>

namespace ddbg::symbols {
namespace {

std::string_view text_in(Bytes section, uint64_t offset) {
  if (offset >= section.size())
    return {};
  return ByteReader(section, offset).text();
}

// One attribute of an entry format. Text comes back as text, all else as a number.
struct FormValue {
  std::string_view text;
  uint64_t number = 0;
};

std::optional<FormValue> read_form(ByteReader& in, uint64_t form, bool is_64,
                                   const LineSections& sections) {
  FormValue v;
  switch (form) {
  case DW_FORM_string:
    v.text = in.text();
    break;
  case DW_FORM_line_strp:
    v.text = text_in(sections.line_str, in.offset(is_64));
    break;
  case DW_FORM_strp:
    v.text = text_in(sections.str, in.offset(is_64));
    break;
  case DW_FORM_strp_sup: // in a supplementary file
    in.offset(is_64);
    break;
  case DW_FORM_udata:
    v.number = in.uleb();
    break;
  case DW_FORM_data1:
    v.number = in.u8();
    break;
  case DW_FORM_data2:
    v.number = in.u16();
    break;
  case DW_FORM_data4:
    v.number = in.u32();
    break;
  case DW_FORM_data8:
    v.number = in.u64();
    break;
  case DW_FORM_data16: // an MD5
    in.skip(16);
    break;
  case DW_FORM_block:
    in.skip(in.uleb());
    break;
  default:
    return std::nullopt;
  }
  if (in.failed())
    return std::nullopt;
  return v;
}

// A directory or file table of version 5; calls f(path, directory index) per entry.
template <class F> bool read_table(ByteReader& in, bool is_64, const LineSections& sections, F f) {
  struct Format {
    uint64_t content, form;
  };
  std::vector<Format> formats(in.u8());
  for (Format& format : formats) {
    format.content = in.uleb();
    format.form = in.uleb();
  }
  const uint64_t count = in.uleb();
  // An entry without attributes takes no bytes: a damaged count would never end.
  if (formats.empty())
    return count == 0 && !in.failed();
  for (uint64_t i = 0; i < count && !in.failed(); i++) {
    std::string_view path;
    uint64_t directory = 0;
    for (const Format& format : formats) {
      const auto value = read_form(in, format.form, is_64, sections);
      if (!value)
        return false;
      if (format.content == DW_LNCT_path)
        path = value->text;
      else if (format.content == DW_LNCT_directory_index)
        directory = value->number;
    }
    f(path, directory);
  }
  return !in.failed();
}

} // namespace

std::optional<LineHeader> read_line_header(const LineSections& sections, uint64_t offset) {
  ByteReader in(sections.line, offset);
  LineHeader h;
  uint64_t length = in.u32();
  const bool is_64 = length == 0xffffffff;
  if (is_64)
    length = in.u64();
  if (in.failed() || length > sections.line.size() - in.position())
    return std::nullopt;
  h.program_end = in.position() + length;
  h.version = in.u16();
  if (h.version < 2 || h.version > 5)
    return std::nullopt;
  if (h.version >= 5) {
    in.u8(); // address size: 8 here
    in.u8(); // segment selector size
  }
  const uint64_t header_length = in.offset(is_64);
  if (in.failed() || header_length > h.program_end - in.position())
    return std::nullopt;
  h.program_begin = in.position() + header_length;
  h.minimum_instruction_length = in.u8();
  if (h.version >= 4)
    h.maximum_operations = in.u8();
  h.default_is_statement = in.u8() != 0;
  h.line_base = static_cast<int8_t>(in.u8());
  h.line_range = in.u8();
  h.opcode_base = in.u8();
  if (in.failed() || h.line_range == 0 || h.opcode_base == 0)
    return std::nullopt;
  for (unsigned i = 1; i < h.opcode_base; i++)
    h.opcode_lengths.push_back(in.u8());
  if (h.version >= 5) {
    const bool directories = read_table(in, is_64, sections, [&](std::string_view path, uint64_t) {
      h.directories.push_back(path);
    });
    if (!directories || !read_table(in, is_64, sections, [&](std::string_view path, uint64_t dir) {
          h.files.push_back({path, dir});
        }))
      return std::nullopt;
  } else {
    h.directories.emplace_back(); // 0: the compilation directory
    for (auto text = in.text(); !in.failed() && !text.empty(); text = in.text())
      h.directories.push_back(text);
    h.files.push_back({{}, 0});
    for (auto text = in.text(); !in.failed() && !text.empty(); text = in.text()) {
      const uint64_t directory = in.uleb();
      in.uleb(); // time
      in.uleb(); // size
      h.files.push_back({text, directory});
    }
    if (in.failed())
      return std::nullopt;
  }
  return h;
}

void run_line_program(const LineSections& sections, const LineHeader& h,
                      const std::function<void(const LineRow&)>& on_row) {
  ByteReader in(sections.line.first(h.program_end), h.program_begin);
  LineRow row;
  uint64_t operation_index = 0; // of VLIW machines; always 0 on x86
  const auto reset = [&] {
    row = {};
    row.is_statement = h.default_is_statement;
    row.begins_sequence = true;
    operation_index = 0;
  };
  const auto emit = [&] {
    on_row(row);
    row.begins_sequence = false;
    row.discriminator = 0;
    row.prologue_end = false;
  };
  const auto advance = [&](uint64_t operations) {
    if (h.maximum_operations <= 1) {
      row.address += operations * h.minimum_instruction_length;
    } else {
      const uint64_t total = operation_index + operations;
      row.address += h.minimum_instruction_length * (total / h.maximum_operations);
      operation_index = total % h.maximum_operations;
    }
  };
  reset();
  while (!in.at_end()) {
    const uint8_t opcode = in.u8();
    if (opcode >= h.opcode_base) {
      const unsigned adjusted = opcode - h.opcode_base;
      advance(adjusted / h.line_range);
      row.line += static_cast<uint64_t>(int64_t{h.line_base} + adjusted % h.line_range);
      emit();
      continue;
    }
    switch (opcode) {
    case 0: { // extended
      const uint64_t length = in.uleb();
      const size_t begin = in.position();
      if (length == 0)
        break;
      const uint8_t extended = in.u8();
      if (extended == DW_LNE_end_sequence) {
        row.end_sequence = true;
        emit();
        reset();
      } else if (extended == DW_LNE_set_address) {
        row.address = LinkAddr(in.u64());
        operation_index = 0;
      } else if (extended == DW_LNE_set_discriminator) {
        row.discriminator = in.uleb();
      }
      // Whatever was not understood is skipped by its length.
      if (in.failed() || length > h.program_end - begin)
        return;
      in = ByteReader(sections.line.first(h.program_end), begin + length);
      break;
    }
    case DW_LNS_copy:
      emit();
      break;
    case DW_LNS_advance_pc:
      advance(in.uleb());
      break;
    case DW_LNS_advance_line:
      row.line += static_cast<uint64_t>(in.sleb());
      break;
    case DW_LNS_set_file:
      row.file = in.uleb();
      break;
    case DW_LNS_set_column:
      in.uleb();
      break;
    case DW_LNS_negate_stmt:
      row.is_statement = !row.is_statement;
      break;
    case DW_LNS_set_prologue_end:
      row.prologue_end = true;
      break;
    case DW_LNS_set_basic_block:
    case DW_LNS_set_epilogue_begin:
      break;
    case DW_LNS_const_add_pc:
      advance((255u - h.opcode_base) / h.line_range);
      break;
    case DW_LNS_fixed_advance_pc:
      row.address += in.u16();
      operation_index = 0;
      break;
    default: // DW_LNS_set_isa and what later standards may add
      for (unsigned i = 0; i < h.opcode_lengths[opcode - 1]; i++)
        in.uleb();
    }
  }
}

} // namespace ddbg::symbols
