// Where `break f` stops: gdb 13's rules for amd64, so that both debuggers break at one address.
// Internal to symbols/.
#pragma once

#include "dtrace-lite/symbols/module.h"

namespace ddbg::symbols {

LinkAddr skip_prologue(Module& module, LinkAddr entry);

// Past `push %rbp; mov %rsp,%rbp` (after endbr64 and a stack realignment), or `entry` itself for
// code that makes no frame.
LinkAddr skip_frame_setup(const ElfFile& file, LinkAddr entry);

} // namespace ddbg::symbols
