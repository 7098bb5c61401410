// The line number program of DWARF 2 to 5 (section 6.2 of the standards): header and state machine.
// Decoded here and not by libdw because gdb's answers depend on what libdw's sorted table loses:
// the order of rows at one address, sequences, discriminators. Internal to symbols/.
#pragma once

#include "dtrace-lite/symbols/byte_reader.h"

#include <functional>

namespace ddbg::symbols {

struct LineSections {
  Bytes line;     // .debug_line
  Bytes line_str; // .debug_line_str
  Bytes str;      // .debug_str
};

struct LineHeader {
  struct File {
    std::string_view name;
    uint64_t directory;
  };
  uint16_t version = 0;
  uint8_t minimum_instruction_length = 1;
  uint8_t maximum_operations = 1;
  bool default_is_statement = true;
  int8_t line_base = 0;
  uint8_t line_range = 1;
  uint8_t opcode_base = 1;
  std::vector<uint8_t> opcode_lengths; // from opcode 1
  std::vector<std::string_view> directories;
  std::vector<File> files; // index as in the program: from 0 in version 5, else [0] is unused
  size_t program_begin = 0, program_end = 0; // in .debug_line
};

struct LineRow {
  LinkAddr address;
  uint64_t file = 1;
  uint64_t line = 1;
  uint64_t discriminator = 0;
  bool is_statement = true;
  bool prologue_end = false;
  bool end_sequence = false;
  bool begins_sequence = false; // the first row after an end
};

// Nothing when the header is damaged or of an unknown version.
std::optional<LineHeader> read_line_header(const LineSections& sections, uint64_t offset);

// Runs the program, giving each row in order. Stops where it is damaged; what came before was
// given.
void run_line_program(const LineSections& sections, const LineHeader& header,
                      const std::function<void(const LineRow&)>& on_row);

} // namespace ddbg::symbols
