// The modules of the target over its life: read at birth, followed through the dynamic linker, with
// the sites that the agent needs in each before its code runs.
#pragma once

#include "dtrace-lite/engine/inferior.h"
#include "dtrace-lite/engine/location.h"
#include "dtrace-lite/symbols/module_map.h"

#include <filesystem>
#include <set>

namespace ddbg::engine {

class Modules {
public:
  explicit Modules(symbols::DebugFileOptions options = {}) : map_(std::move(options)) {}

  struct Change {
    bool any = false;
    std::vector<std::string> added, removed; // paths
    std::vector<std::string> warnings;
  };

  // At birth, attach or exec: reads what is mapped, sets the system-call sites and the internal
  // record in the dynamic linker. `program` may be empty (attach: /proc/PID/exe).
  Checked<Change> start(Inferior&, const std::string& program);
  // At the dynamic linker's record, or whenever in doubt.
  Checked<Change> refresh(Inferior&);
  // The program alone, before it runs, at its link addresses: for `break`, `list`, `info line`.
  // Empty: none.
  Checked<void> load_program(const std::string& program);
  void forget_target(); // the target is gone: places are void, what was read of the files is kept

  bool is_linker_record(RecordId id) const { return linker_record_ && *linker_record_ == id; }

  symbols::ModuleMap& map() { return map_; }
  const symbols::ModuleMap& map() const { return map_; }
  // Of the target, or the program alone while nothing runs.
  ModuleSpan view() const { return map_.modules(); }
  const std::string& program_path() const { return program_path_; }

private:
  // In what is new. Until they are whole, and at the beginning until the linker has what the
  // program starts with, the agent cannot do without us: system calls that it does not see could
  // block the very signals that the sites of others raise.
  Checked<void> set_syscall_sites(Inferior&);
  Checked<void> set_linker_record(Inferior&);

  symbols::ModuleMap map_;
  std::string program_path_;
  std::filesystem::file_time_type program_written_{};
  bool is_linked_ = false;        // what the program starts with is mapped
  std::set<uint64_t> sites_done_; // range.begin of the modules whose system-call sites are set
  std::optional<RecordId> linker_record_;
};

// Reads the target for symbols/: sites are hidden.
symbols::MemoryReader memory_reader(Inferior&);

} // namespace ddbg::engine
