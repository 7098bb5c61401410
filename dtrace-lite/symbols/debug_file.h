// Separate debug files: found by build-id, then by .gnu_debuglink, where gdb looks for them.
#pragma once

#include "dtrace-lite/symbols/elf_file.h"

namespace ddbg::symbols {

struct DebugFileOptions {
  // `set debug-file-directory`: several may be given.
  std::vector<std::string> directories{"/usr/lib/debug"};
};

// The debug file that belongs to `file`, or null when there is none. A candidate whose build-id or
// CRC does not match is skipped and mentioned in `warnings`.
std::unique_ptr<ElfFile> find_debug_file(const ElfFile& file, const DebugFileOptions& options,
                                         std::vector<std::string>* warnings);

// The shared (dwz) file that `debug` refers to by .gnu_debugaltlink, or null.
std::unique_ptr<ElfFile> find_alternate_file(const ElfFile& debug, const DebugFileOptions& options,
                                             std::vector<std::string>* warnings);

uint32_t gnu_debuglink_crc(Bytes data); // of a debug file's whole content

} // namespace ddbg::symbols
