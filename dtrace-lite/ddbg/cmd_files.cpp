// The program, its files, its modules, its process, the backend.
#include "dtrace-lite/ddbg/commands.h"
#include "dtrace-lite/ddbg/context.h"
#include "dtrace-lite/ddbg/run_control.h"
#include "dtrace-lite/ddbg/text.h"
#include "dtrace-lite/engine/shell_words.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <unistd.h>

namespace ddbg::ui::cmd {

namespace {

std::string current_directory() {
  char* path = ::getcwd(nullptr, 0);
  std::string text = path ? path : "(unreachable)";
  std::free(path);
  return text;
}

std::string read_link(const std::string& path) {
  char target[4096];
  ssize_t n = ::readlink(path.c_str(), target, sizeof target);
  return n > 0 ? std::string(target, static_cast<size_t>(n)) : std::string();
}

std::string read_proc(pid_t pid, const char* name) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/" + name, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

} // namespace

Checked<void> file(Context& context, std::string_view args) {
  if (args.empty()) {
    if (context.from_tty)
      context.out.write("No executable file now.\n");
    return context.debugger.set_program("");
  }
  auto words = engine::split_words(args);
  if (words.size() != 1)
    return Diagnostic{"Only one file can be given.", "Quote a name that has blanks.", {}};
  if (context.debugger.alive() && context.from_tty &&
      !context.ask("A program is being debugged already.\n"
                   "Are you sure you want to change the file? "))
    return Diagnostic{"File not changed.", {}, {}};
  std::string name = expand_tilde(words[0]);
  context.apply_settings();
  if (auto set = context.debugger.set_program(name); !set)
    return set;
  context.list_cursor = {};
  if (context.from_tty) {
    context.out.print("Reading symbols from {}...\n", name);
    const symbols::LoadedModule* main = context.debugger.module_map().main();
    if (main && !main->module->has_debug_info())
      context.out.print("(No debugging symbols found in {})\n", name);
  }
  return {};
}

Checked<void> exec_file(Context& context, std::string_view args) { return file(context, args); }

Checked<void> symbol_file(Context& context, std::string_view args) {
  auto words = engine::split_words(args);
  if (words.size() == 1 && context.debugger.program().empty())
    return file(context, args);
  return Diagnostic{
      "A symbol file other than the program's own is not supported.",
      "Separate debug files are found by build-id; see \"show debug-file-directory\".",
      {}};
}

Checked<void> core_file(Context&, std::string_view) {
  return Diagnostic{"Core files are not supported yet.", {}, {}};
}

Checked<void> pwd(Context& context, std::string_view) {
  context.out.print("Working directory {}.\n", current_directory());
  return {};
}

Checked<void> cd(Context& context, std::string_view args) {
  std::string path = expand_tilde(args.empty() ? "~" : args);
  if (::chdir(path.c_str()) != 0)
    return Diagnostic{path + ": " + std::strerror(errno) + ".", {}, {}};
  if (context.from_tty)
    return pwd(context, {});
  return {};
}

Checked<void> tty(Context& context, std::string_view args) {
  if (args.empty())
    return Diagnostic{"Argument required (filename to set it to.).", {}, {}};
  return context.settings.set(Setting::kInferiorTty, args);
}

Checked<void> directory(Context& context, std::string_view args) {
  if (args.empty())
    return context.settings.set(Setting::kDirectories, "$cdir:$cwd");
  std::string path = expand_tilde(args) + ":" + context.settings.text(Setting::kDirectories);
  if (auto set = context.settings.set(Setting::kDirectories, path); !set)
    return set;
  if (context.from_tty)
    context.out.write(context.settings.show(Setting::kDirectories) + "\n");
  return {};
}

Checked<void> info_files(Context& context, std::string_view) {
  const symbols::LoadedModule* main = context.debugger.module_map().main();
  if (!main)
    return {};
  context.out.print("Symbols from \"{}\".\n", main->path);
  if (context.debugger.alive())
    context.out.print("Native process:\n\tUsing the running image of {} process {}.\n",
                      context.debugger.attached() ? "attached" : "child", context.debugger.pid());
  context.out.print("Local exec file:\n\t`{}', file type elf64-x86-64.\n\tEntry point: 0x{:x}\n",
                    main->path, main->to_target(main->module->elf().entry()).value);
  for (const symbols::LoadedModule& loaded : context.debugger.module_map().modules())
    for (const symbols::Section& section : loaded.module->elf().sections())
      if ((section.flags & 2) != 0 && !section.range.empty()) // SHF_ALLOC
        context.out.print("\t0x{:016x} - 0x{:016x} is {}{}\n",
                          loaded.to_target(section.range.begin).value,
                          loaded.to_target(section.range.end).value, section.name,
                          loaded.is_main ? "" : " in " + loaded.path);
  return {};
}

Checked<void> info_sharedlibrary(Context& context, std::string_view args) {
  auto libraries = context.debugger.shared_libraries();
  if (!args.empty())
    std::erase_if(libraries, [&](const engine::SharedLibrary& library) {
      return library.path.find(args) == std::string::npos;
    });
  if (libraries.empty()) {
    if (args.empty())
      context.out.write("No shared libraries loaded at this time.\n");
    else
      context.out.print("No shared libraries matched.\n");
    return {};
  }
  context.out.write("From                To                  Syms Read   Shared Object Library\n");
  bool some_without = false;
  for (const engine::SharedLibrary& library : libraries) {
    some_without |= !library.has_debug_info;
    context.out.print("0x{:016x}  0x{:016x}  {:<11} {}\n", library.text.begin.value,
                      library.text.end.value, library.has_debug_info ? "Yes" : "Yes (*)",
                      library.path);
  }
  if (some_without)
    context.out.write("(*): Shared library is missing debugging information.\n");
  return {};
}

Checked<void> info_proc(Context& context, std::string_view args) {
  auto [what, rest] = split_first(args);
  pid_t pid = context.debugger.pid();
  if (!what.empty() && std::isdigit(static_cast<unsigned char>(what[0]))) {
    auto number = parse_integer(what);
    if (!number || *number <= 0 || *number > INT32_MAX)
      return Diagnostic{"Illegal process-id: " + std::string(what) + ".", {}, {}};
    pid = static_cast<pid_t>(*number);
    what = rest;
  }
  if (pid == 0)
    return Diagnostic{"No current process: you must name one.", {}, {}};
  std::string base = "/proc/" + std::to_string(pid);
  std::string command = read_proc(pid, "cmdline");
  if (command.empty() && ::access(base.c_str(), F_OK) != 0)
    return Diagnostic{"unable to open " + base + ": " + std::strerror(errno), {}, {}};
  while (!command.empty() && command.back() == '\0')
    command.pop_back();
  for (char& c : command)
    if (c == '\0')
      c = ' ';
  context.out.print("process {}\n", pid);
  bool all = what == "all";
  auto wants = [&, what = what](std::string_view name) {
    return what.empty() || all || name.starts_with(what);
  };
  if (wants("cmdline"))
    context.out.print("cmdline = '{}'\n", command);
  if (wants("cwd"))
    context.out.print("cwd = '{}'\n", read_link(base + "/cwd"));
  if (wants("exe"))
    context.out.print("exe = '{}'\n", read_link(base + "/exe"));
  if (!what.empty() && (all || std::string_view("mappings").starts_with(what))) {
    auto maps = symbols::read_maps(pid);
    if (!maps)
      return maps.error();
    context.out.write(
        "Mapped address spaces:\n\n          Start Addr           End Addr       Size "
        "    Offset  Perms  objfile\n");
    for (const symbols::MapsLine& m : *maps)
      context.out.print("{:>20} {:>18} {:>10} {:>10}  {}{}{}{}   {}\n",
                        fmt::format("0x{:x}", m.range.begin.value),
                        fmt::format("0x{:x}", m.range.end.value),
                        fmt::format("0x{:x}", m.range.size()), fmt::format("0x{:x}", m.offset),
                        m.readable ? 'r' : '-', m.writable ? 'w' : '-', m.executable ? 'x' : '-',
                        m.shared ? 's' : 'p', m.path);
  }
  if (!what.empty() && (all || std::string_view("status").starts_with(what)))
    context.out.write(read_proc(pid, "status"));
  return {};
}

Checked<void> info_backend(Context& context, std::string_view) {
  context.out.print("Requested backend: {}\n", context.debugger.settings().backend);
  engine::Inferior* target = context.debugger.inferior();
  if (!target) {
    context.out.write("No target: what its traps go through is known once it runs.\n");
    return {};
  }
  struct Row {
    dune::session::Capability bit;
    const char* what;
  };
  constexpr Row kRows[] = {
      {dune::session::kCapStep, "single steps inside the target"},
      {dune::session::kCapHardwareWatch, "hardware watchpoints"},
      {dune::session::kCapDebugRegisters, "those by a guest's debug registers"},
      {dune::session::kCapRing0, "traps handled in guest ring 0"},
      {dune::session::kCapProtectedAgent, "agent protected from the target"},
      {dune::session::kCapPreciseKick, "stops that can interrupt no system call"},
  };
  const dune::session::BackendInfo& backend = target->backend();
  context.out.print("In use: {} ({}); a trap costs {:.2f} us, a null system call {:.2f} us.\n",
                    backend.name, backend.why_chosen, backend.trap_ns / 1000.0,
                    backend.syscall_ns / 1000.0);
  context.out.print("Target: process {}{}, capabilities:\n", target->pid(),
                    target->attached() ? " (attached)" : "");
  for (const Row& row : kRows)
    context.out.print("  {:<34} {}\n", row.what, target->capabilities() & row.bit ? "yes" : "no");
  const dune::session::MemoryMap& map = target->memory_map();
  context.out.print("The agent lies at 0x{:x}-0x{:x}, its code arena at 0x{:x}", map.agent_text,
                    map.agent_end, map.code_near_libs);
  context.out.write(map.code_near_main ? fmt::format(" and 0x{:x}.\n", map.code_near_main)
                                       : std::string(".\n"));
  return {};
}

} // namespace ddbg::ui::cmd
