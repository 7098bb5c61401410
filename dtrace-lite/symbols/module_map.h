// Which modules are loaded in the target, and where: from the dynamic linker's own list, with
// /proc/PID/maps for what is not in it (the linker before it ran, the vDSO, static programs).
#pragma once

#include "dtrace-lite/symbols/memory.h"
#include "dtrace-lite/symbols/module.h"

#include <map>

namespace ddbg::symbols {

struct MapsLine { // one line of /proc/PID/maps
  TargetRange range;
  bool readable, writable, executable, shared;
  uint64_t offset;
  uint64_t device; // major << 32 | minor
  uint64_t inode;
  std::string path; // "[vdso]", "/lib/x.so (deleted)", or empty
};
std::vector<MapsLine> parse_maps(std::string_view text);
Checked<std::vector<MapsLine>> read_maps(int pid);

struct LoadedModule {
  std::shared_ptr<Module> module; // shared between the map and its last versions
  uint64_t bias = 0;              // target address - link address, modulo 2^64
  TargetRange range;
  std::string path; // as the target sees it
  bool is_main = false;
  bool is_vdso = false;
  bool is_linker = false;

  TargetAddr to_target(LinkAddr a) const { return TargetAddr(a.value + bias); }
  LinkAddr to_link(TargetAddr a) const { return LinkAddr(a.value - bias); }
};

// Where to stop to learn of dlopen and dlclose, and how to read the list.
struct LinkerHook {
  TargetAddr r_debug;    // the rendezvous structure; 0 when it is not known yet
  TargetAddr breakpoint; // r_brk, called before and after every change
  // It is in the middle of one; true also before it has begun.
  bool is_changing = true;
};

class ModuleMap {
public:
  explicit ModuleMap(DebugFileOptions options = {});
  ~ModuleMap();

  struct Change {
    std::vector<std::string> added, removed; // paths
    std::vector<std::string> warnings;       // a file replaced on disk, one that cannot be read
    bool any() const { return !added.empty() || !removed.empty(); }
  };
  // Brings the map up to date with the process. Modules already known are kept, with all that was
  // read of them. `main_path` is the program (/proc/PID/exe when empty).
  Checked<Change> refresh(int pid, const MemoryReader& read, const std::string& main_path = {});
  // The same from parts, for what is not a live process. `auxv_entry` is AT_ENTRY or 0.
  Change refresh_from(const std::vector<MapsLine>& maps, const MemoryReader& read,
                      const std::string& main_path, int pid_for_files);
  // Only the program, before it runs: addresses are link addresses (bias 0).
  Checked<Change> set_program(const std::string& path);
  void clear(); // forgets places, keeps files

  const std::vector<LoadedModule>& modules() const { return modules_; }
  const LoadedModule* find(TargetAddr a) const;
  const LoadedModule* main() const;
  // Executable memory of any kind: modules, and what a JIT compiler made.
  bool is_executable(TargetAddr a) const;
  std::optional<LinkerHook> linker_hook(const MemoryReader& read) const;
  void set_debug_directories(std::vector<std::string> directories);
  // Counts refreshes that changed something: caches by address compare it.
  uint64_t generation() const { return generation_; }

  // Conveniences over modules.
  std::string describe(TargetAddr a) const; // "main+4", "<main+4>"'s inside; empty when unknown

private:
  Checked<std::shared_ptr<Module>> open_cached(const std::string& path,
                                               const std::string& file_to_open);

  DebugFileOptions options_;
  std::vector<LoadedModule> modules_;                    // sorted by range.begin
  std::vector<TargetRange> executable_;                  // mappings at the last refresh, in order
  std::map<std::string, std::shared_ptr<Module>> files_; // by path and identity on disk
  uint64_t generation_ = 0;
};

} // namespace ddbg::symbols
