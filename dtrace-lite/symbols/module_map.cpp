#include "dtrace-lite/symbols/module_map.h"

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <elf.h>
#include <set>
#include <sys/stat.h>

namespace ddbg::symbols {
namespace {

constexpr std::string_view kDeleted = " (deleted)";
constexpr uint64_t kMaxVdsoSize = 1 << 20;

std::string read_link(const std::string& path) {
  char buffer[PATH_MAX];
  const ssize_t n = ::readlink(path.c_str(), buffer, sizeof buffer);
  return n > 0 ? std::string(buffer, static_cast<size_t>(n)) : std::string();
}

std::string resolved(const std::string& path) {
  char buffer[PATH_MAX];
  return ::realpath(path.c_str(), buffer) ? buffer : path;
}

// What tells one content of a path from the next.
std::string identity(const std::string& path, const struct stat& s) {
  return path + "|" + std::to_string(s.st_dev) + "|" + std::to_string(s.st_ino) + "|" +
         std::to_string(s.st_mtim.tv_sec) + "." + std::to_string(s.st_mtim.tv_nsec) + "|" +
         std::to_string(s.st_size);
}

// Which bias makes `line` the image of one of the file's segments.
std::optional<uint64_t> bias_of(const ElfFile& elf, const MapsLine& line) {
  for (const Segment& s : elf.segments()) {
    const uint64_t offset = s.offset.align_down(dune::kPageSize).value;
    const uint64_t file_end =
        dune::FileOffset(s.offset.value + s.file_size).align_up(dune::kPageSize).value;
    if (s.executable == line.executable && line.offset >= offset && line.offset < file_end)
      return line.range.begin.value -
             (s.range.begin.align_down(dune::kPageSize).value + (line.offset - offset));
  }
  return std::nullopt;
}

// Where the mapped file can be opened: its name may lead to another by now, and in a container
// leads to nothing of ours, or to something else. `path` is without kDeleted.
std::string file_of(int pid, const MapsLine& line, const std::string& path, bool is_main) {
  const std::string process = "/proc/" + std::to_string(pid);
  const bool deleted = line.path.size() != path.size();
  struct stat status;
  const auto is_it = [&](const std::string& file) {
    return ::stat(file.c_str(), &status) == 0 && status.st_ino == line.inode;
  };
  if (!deleted && is_it(path))
    return path;
  // The kernel's own link reaches it whatever became of its name; root's alone to use.
  char range[40];
  std::snprintf(range, sizeof range, "%lx-%lx", line.range.begin.value, line.range.end.value);
  std::string by_map = process + "/map_files/" + range;
  if (::stat(by_map.c_str(), &status) == 0)
    return by_map;
  // The names of a changed root's files begin with where it is.
  const std::string root = read_link(process + "/root");
  const size_t root_length = root.size() > 1 && path.starts_with(root + "/") ? root.size() : 0;
  std::string in_its_root = process + "/root" + path.substr(root_length);
  if (!deleted && is_it(in_its_root))
    return in_its_root;
  if (is_main)
    return process + "/exe";
  return path;
}

} // namespace

ModuleMap::ModuleMap(DebugFileOptions options) : options_(std::move(options)) {}
ModuleMap::~ModuleMap() = default;

void ModuleMap::set_debug_directories(std::vector<std::string> directories) {
  options_.directories = std::move(directories);
  files_.clear(); // what was opened already looked in the old places
}

void ModuleMap::clear() {
  generation_ += !modules_.empty();
  modules_.clear();
}

Checked<std::shared_ptr<Module>> ModuleMap::open_cached(const std::string& path,
                                                        const std::string& file_to_open) {
  struct stat status;
  const bool exists = ::stat(file_to_open.c_str(), &status) == 0;
  const std::string key = exists ? identity(path, status) : std::string();
  if (const auto known = files_.find(key); known != files_.end())
    return known->second;
  auto module = Module::open(file_to_open, options_);
  if (!module)
    return module.error();
  return files_[key] = std::shared_ptr<Module>(*std::move(module));
}

Checked<ModuleMap::Change> ModuleMap::set_program(const std::string& path) {
  auto module = open_cached(resolved(path), path); // the process will show the resolved path
  if (!module)
    return module.error();
  Change change;
  modules_.clear();
  LoadedModule m;
  m.module = *std::move(module);
  const LinkRange range = m.module->elf().load_range();
  m.range = {m.to_target(range.begin), m.to_target(range.end)};
  m.path = path;
  m.is_main = true;
  change.added.push_back(path);
  change.warnings = m.module->warnings();
  modules_.push_back(std::move(m));
  generation_++;
  return change;
}

Checked<ModuleMap::Change> ModuleMap::refresh(int pid, const MemoryReader& read,
                                              const std::string& main_path) {
  const auto maps = read_maps(pid);
  if (!maps)
    return maps.error();
  // The kernel's name has no links in it, and need not be one of ours.
  const std::string main =
      main_path.empty() ? read_link("/proc/" + std::to_string(pid) + "/exe") : resolved(main_path);
  return refresh_from(*maps, read, main, pid);
}

ModuleMap::Change ModuleMap::refresh_from(const std::vector<MapsLine>& maps,
                                          const MemoryReader& read, const std::string& main_path,
                                          int pid) {
  Change change;
  std::vector<LoadedModule> now;
  std::string main_name = main_path;
  if (main_name.ends_with(kDeleted))
    main_name.resize(main_name.size() - kDeleted.size());

  executable_.clear();
  for (const MapsLine& line : maps) {
    if (!line.executable)
      continue;
    executable_.push_back(line.range);
    const bool is_vdso = line.path == "[vdso]";
    if (!is_vdso && !line.path.starts_with('/'))
      continue;
    const bool seen = std::any_of(now.begin(), now.end(), [&](const LoadedModule& m) {
      return m.range.contains(line.range.begin);
    });
    if (seen)
      continue;

    LoadedModule m;
    m.path = line.path;
    if (is_vdso) {
      m.is_vdso = true;
      // The kernel does not change it while the process lives.
      for (const LoadedModule& old : modules_)
        if (old.is_vdso && old.range.begin == line.range.begin)
          m.module = old.module;
      if (!m.module && line.range.size() <= kMaxVdsoSize) {
        std::vector<std::byte> image(line.range.size());
        if (read(line.range.begin, image))
          if (auto module = Module::from_memory(std::move(image), "[vdso]"))
            m.module = std::shared_ptr<Module>(*std::move(module));
      }
      if (m.module)
        m.bias = line.range.begin - TargetAddr(m.module->elf().load_range().begin.value);
    } else {
      if (m.path.ends_with(kDeleted))
        m.path.resize(m.path.size() - kDeleted.size());
      auto module = open_cached(m.path, file_of(pid, line, m.path, m.path == main_name));
      if (!module)
        continue; // mapped executable, but no ELF file: nothing to name there
      m.module = *std::move(module);
      const auto bias = bias_of(m.module->elf(), line);
      if (!bias)
        continue;
      m.bias = *bias;
      m.is_main = m.path == main_name;
    }
    if (!m.module)
      continue;
    const LinkRange range = m.module->elf().load_range();
    m.range = {m.to_target(range.begin), m.to_target(range.end)};
    now.push_back(std::move(m));
  }

  std::sort(now.begin(), now.end(), [](const LoadedModule& a, const LoadedModule& b) {
    return a.range.begin < b.range.begin;
  });
  const LoadedModule* main_module = nullptr;
  for (const LoadedModule& m : now)
    if (m.is_main)
      main_module = &m;
  if (main_module && !main_module->module->elf().interpreter().empty()) {
    const std::string linker = resolved(main_module->module->elf().interpreter());
    for (LoadedModule& m : now)
      m.is_linker = m.path == linker;
  }

  const auto key = [](const LoadedModule& m) { return std::pair(m.range.begin, m.module.get()); };
  std::set<std::pair<TargetAddr, Module*>> before, after;
  for (const LoadedModule& m : modules_)
    before.insert(key(m));
  for (const LoadedModule& m : now) {
    after.insert(key(m));
    if (before.contains(key(m)))
      continue;
    change.added.push_back(m.path);
    for (const std::string& w : m.module->warnings())
      change.warnings.push_back(w);
    // What is mapped may not be what the path names now.
    const ElfFile& elf = m.module->elf();
    const Section* note = elf.section(".note.gnu.build-id");
    if (note && !m.is_vdso && !elf.build_id().empty() && note->range.size() <= 4096) {
      std::vector<std::byte> mapped(note->range.size());
      if (read(m.to_target(note->range.begin), mapped) &&
          build_id_in_notes(mapped, 4) != elf.build_id())
        change.warnings.push_back(
            m.path + ": the file was replaced since the process loaded it; its symbols "
                     "may be wrong. Restart the program.");
    }
  }
  for (const LoadedModule& m : modules_)
    if (!after.contains(key(m)))
      change.removed.push_back(m.path);
  modules_ = std::move(now);
  generation_ += change.any();
  return change;
}

const LoadedModule* ModuleMap::find(TargetAddr a) const {
  auto it = std::upper_bound(modules_.begin(), modules_.end(), a,
                             [](TargetAddr x, const LoadedModule& m) { return x < m.range.begin; });
  if (it == modules_.begin())
    return nullptr;
  --it;
  return it->range.contains(a) ? &*it : nullptr;
}

bool ModuleMap::is_executable(TargetAddr a) const {
  const auto it = std::upper_bound(executable_.begin(), executable_.end(), a,
                                   [](TargetAddr x, const TargetRange& r) { return x < r.begin; });
  return it != executable_.begin() && std::prev(it)->contains(a);
}

const LoadedModule* ModuleMap::main() const {
  for (const LoadedModule& m : modules_)
    if (m.is_main)
      return &m;
  return nullptr;
}

std::optional<LinkerHook> ModuleMap::linker_hook(const MemoryReader& read) const {
  // struct r_debug of <link.h>, which musl shares.
  struct RDebug {
    int32_t version;
    uint64_t map;
    uint64_t breakpoint;
    int32_t state;
    uint64_t linker_base;
  };
  const LoadedModule* program = main();
  if (!program)
    return std::nullopt;
  const auto dynamic = program->module->elf().dynamic();
  if (!dynamic)
    return std::nullopt; // static: nothing can be loaded behind our back by a linker
  LinkerHook hook;
  for (LinkAddr at = dynamic->begin; at < dynamic->end; at += sizeof(Elf64_Dyn)) {
    const auto entry = read_value<Elf64_Dyn>(read, program->to_target(at));
    if (!entry || entry->d_tag == DT_NULL)
      break;
    if (entry->d_tag == DT_DEBUG)
      hook.r_debug = TargetAddr(entry->d_un.d_ptr);
  }
  if (hook.r_debug) {
    if (const auto r = read_value<RDebug>(read, hook.r_debug); r && r->breakpoint != 0) {
      hook.breakpoint = TargetAddr(r->breakpoint);
      hook.is_changing = r->state != 0; // RT_CONSISTENT
      return hook;
    }
  }
  // The linker has not run yet: its own symbols say where it will be.
  for (const LoadedModule& m : modules_) {
    if (!m.is_linker)
      continue;
    // Exported, as a rule: then its debug file need not be looked for.
    const ElfSymbols own(m.module->elf(), nullptr);
    for (const char* name : {"_dl_debug_state", "_r_debug_state", "dl_debug_state"}) {
      auto found = own.find(name);
      if (found.empty())
        found = m.module->symbols().find(name);
      if (!found.empty()) {
        hook.breakpoint = m.to_target(found.front().address);
        return hook;
      }
    }
  }
  return std::nullopt;
}

std::string ModuleMap::describe(TargetAddr a) const {
  const LoadedModule* m = find(a);
  const auto symbol = m ? m->module->symbols().at(m->to_link(a)) : std::nullopt;
  if (!symbol)
    return {};
  const uint64_t offset = m->to_link(a) - symbol->address;
  return symbol->name() + (offset ? "+" + std::to_string(offset) : "");
}

} // namespace ddbg::symbols
