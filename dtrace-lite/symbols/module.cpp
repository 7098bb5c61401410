#include "dtrace-lite/symbols/module.h"

#include "dtrace-lite/symbols/cfi_table.h"
#include "dtrace-lite/symbols/dwarf_internal.h"
#include "dtrace-lite/symbols/mentions.h"

namespace ddbg::symbols {

Module::Module(std::unique_ptr<ElfFile> elf, DebugFileOptions options)
    : elf_(std::move(elf)), options_(std::move(options)), warnings_(elf_->warnings()) {}
Module::~Module() = default;

Checked<std::unique_ptr<Module>> Module::open(const std::string& path,
                                              const DebugFileOptions& options) {
  auto elf = ElfFile::open(path);
  if (!elf)
    return elf.error();
  return std::unique_ptr<Module>(new Module(*std::move(elf), options));
}

Checked<std::unique_ptr<Module>> Module::from_memory(std::vector<std::byte> image,
                                                     std::string name) {
  auto elf = ElfFile::from_memory(std::move(image), std::move(name));
  if (!elf)
    return elf.error();
  return std::unique_ptr<Module>(new Module(*std::move(elf), {}));
}

const ElfFile* Module::separate_debug_file() {
  if (!debug_file_sought_) {
    debug_file_sought_ = true;
    // A file that has its own DWARF is complete.
    if (!elf_->section(".debug_info") && !elf_->section(".zdebug_info"))
      debug_file_ = find_debug_file(*elf_, options_, &warnings_);
  }
  return debug_file_.get();
}

bool Module::has_debug_section() {
  const ElfFile* separate = separate_debug_file();
  const ElfFile& file = separate ? *separate : *elf_;
  return file.section(".debug_info") || file.section(".zdebug_info");
}

DebugInfo* Module::debug_info() {
  if (!debug_info_sought_) {
    debug_info_sought_ = true;
    const ElfFile* separate = separate_debug_file();
    debug_info_ = DebugInfo::open(separate ? *separate : *elf_, options_, counters_, warnings_);
  }
  return debug_info_.get();
}

ElfSymbols& Module::symbols() {
  if (!symbols_)
    symbols_ =
        std::make_unique<ElfSymbols>(*elf_, separate_debug_file(), &counters_.symbols_demangled);
  return *symbols_;
}

Lines& Module::lines() {
  if (!lines_)
    lines_ = std::make_unique<Lines>(*this);
  return *lines_;
}

Functions& Module::functions() {
  if (!functions_)
    functions_ = std::make_unique<Functions>(*this);
  return *functions_;
}

Mentions& Module::mentions() {
  if (!mentions_)
    mentions_ = std::make_unique<Mentions>(*this);
  return *mentions_;
}

CfiTable& Module::cfi() {
  if (!cfi_)
    cfi_ = std::make_unique<CfiTable>(*this);
  return *cfi_;
}

bool Module::unwind_row_exists(LinkAddr pc) { return cfi().row(pc) != nullptr; }

} // namespace ddbg::symbols
