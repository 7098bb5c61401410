#include "tests/unit/expr/core_context.h"

#include <algorithm>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <link.h>
#include <sys/mman.h>
#include <sys/procfs.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

namespace ddbg::expr {

bool CoreContext::run_gdb(const std::string& program, const std::string& core_path,
                          const std::vector<std::string>& commands,
                          std::vector<std::string>& answers) {
  std::vector<std::string> words{"gdb", "-q",          "-nx", "-batch",
                                 "-ex", "set width 0", "-ex", "set startup-with-shell off",
                                 "-ex", "run",         "-ex", "generate-core-file " + core_path};
  for (size_t i = 0; i < commands.size(); i++) {
    words.insert(words.end(), {"-ex", "echo \\n@@" + std::to_string(i) + "@@\\n"});
    words.insert(words.end(), {"-ex", commands[i]});
  }
  words.insert(words.end(), {"-ex", "echo \\n@@end@@\\n", "-ex", "kill", program});
  int pipe_ends[2];
  if (pipe(pipe_ends) != 0)
    return false;
  pid_t child = fork();
  if (child == 0) {
    dup2(pipe_ends[1], 1);
    dup2(pipe_ends[1], 2);
    close(pipe_ends[0]);
    dup2(::open("/dev/null", O_RDONLY), 0);
    setenv("LC_ALL", "C", 1);
    unsetenv("DEBUGINFOD_URLS");
    std::vector<char*> argv;
    argv.reserve(words.size() + 1);
    for (std::string& word : words)
      argv.push_back(word.data());
    argv.push_back(nullptr);
    execvp("gdb", argv.data());
    _exit(127);
  }
  close(pipe_ends[1]);
  std::string output;
  char buffer[65536];
  for (ssize_t n; (n = read(pipe_ends[0], buffer, sizeof buffer)) > 0;)
    output.append(buffer, static_cast<size_t>(n));
  close(pipe_ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  answers.clear();
  for (size_t i = 0; i < commands.size(); i++) {
    std::string begin_mark = "\n@@" + std::to_string(i) + "@@\n";
    std::string end_mark =
        "\n@@" + (i + 1 < commands.size() ? std::to_string(i + 1) : std::string("end")) + "@@\n";
    size_t begin = output.find(begin_mark);
    size_t end = output.find(end_mark, begin == std::string::npos ? 0 : begin);
    if (begin == std::string::npos || end == std::string::npos)
      return false;
    begin += begin_mark.size();
    std::string answer = output.substr(begin, end > begin ? end - begin : 0);
    while (!answer.empty() && answer.back() == '\n')
      answer.pop_back();
    answers.push_back(std::move(answer));
  }
  return true;
}

std::unique_ptr<CoreContext> CoreContext::open(const std::string& program,
                                               const std::string& core_path) {
  std::ifstream file(core_path, std::ios::binary);
  std::vector<char> core((std::istreambuf_iterator<char>(file)), {});
  Elf64_Ehdr header;
  if (core.size() < sizeof header)
    return nullptr;
  std::memcpy(&header, core.data(), sizeof header);
  auto module = symbols::Module::open(program);
  if (!module)
    return nullptr;
  dune::Registers registers{};
  uint64_t entry = 0;
  std::vector<Segment> segments;
  for (int i = 0; i < header.e_phnum; i++) {
    Elf64_Phdr segment;
    std::memcpy(&segment, core.data() + header.e_phoff + i * sizeof segment, sizeof segment);
    const char* data = core.data() + segment.p_offset;
    if (segment.p_type == PT_LOAD && segment.p_filesz) {
      const auto* bytes = reinterpret_cast<const std::byte*>(data);
      segments.push_back({segment.p_vaddr, {bytes, bytes + segment.p_filesz}});
    }
    if (segment.p_type != PT_NOTE)
      continue;
    for (uint64_t at = 0; at + sizeof(Elf64_Nhdr) < segment.p_filesz;) {
      Elf64_Nhdr note;
      std::memcpy(&note, data + at, sizeof note);
      const char* content = data + at + sizeof note + (note.n_namesz + 3) / 4 * 4;
      if (note.n_type == NT_PRSTATUS) {
        prstatus_t status;
        std::memcpy(&status, content, sizeof status);
        user_regs_struct r;
        std::memcpy(&r, &status.pr_reg, sizeof r);
        registers = {r.rax, r.rdx, r.rcx, r.rbx, r.rsi, r.rdi, r.rbp,     r.rsp,    r.r8,
                     r.r9,  r.r10, r.r11, r.r12, r.r13, r.r14, r.r15,     r.rip,    r.eflags,
                     r.cs,  r.ss,  r.ds,  r.es,  r.fs,  r.gs,  r.fs_base, r.gs_base};
      } else if (note.n_type == NT_AUXV) {
        for (uint64_t a = 0; a + sizeof(Elf64_auxv_t) <= note.n_descsz; a += sizeof(Elf64_auxv_t)) {
          Elf64_auxv_t vector;
          std::memcpy(&vector, content + a, sizeof vector);
          if (vector.a_type == AT_ENTRY)
            entry = vector.a_un.a_val;
        }
      }
      at += sizeof note + (note.n_namesz + 3) / 4 * 4 + (note.n_descsz + 3) / 4 * 4;
    }
  }
  Files files;
  files.module = std::move(*module);
  files.table = symbols::VariableTable::open(*files.module);
  ModuleScope scope{files.module.get(), files.table.get()};
  scope.bias = entry - files.module->elf().entry().value;
  auto range = files.module->elf().load_range();
  scope.range = {TargetAddr(range.begin.value + scope.bias),
                 TargetAddr(range.end.value + scope.bias)};
  scope.tls_module_id = 1;
  scope.program_tls = program_tls(files.module->elf());
  std::unique_ptr<CoreContext> context(
      new CoreContext(std::move(files), {scope}, TargetAddr(registers.rip)));
  context->registers = registers;
  context->segments_ = std::move(segments);
  return context;
}

bool CoreContext::read_memory(TargetAddr from, std::span<std::byte> to) {
  size_t done = 0;
  while (done < to.size()) {
    uint64_t at = from.value + done;
    size_t n = 0;
    for (const Segment& segment : segments_)
      if (at >= segment.address && at - segment.address < segment.bytes.size()) {
        uint64_t offset = at - segment.address;
        n = std::min<size_t>(to.size() - done, segment.bytes.size() - offset);
        std::memcpy(to.data() + done, segment.bytes.data() + offset, n);
        break;
      }
    if (n == 0) { // text and constants are in the program's file, not in the core
      const ModuleScope& module = modules()[0];
      auto bytes =
          module.module->elf().bytes_at(dune::LinkAddr(at - module.bias), to.size() - done);
      n = bytes.size();
      std::copy(bytes.begin(), bytes.end(), to.begin() + static_cast<ptrdiff_t>(done));
    }
    if (n == 0)
      return false;
    done += n;
  }
  return true;
}

std::optional<uint64_t> CoreContext::read_register(int dwarf_register) {
  auto reg = register_by_dwarf(dwarf_register);
  if (!reg)
    return std::nullopt;
  return dune::register_at(registers, *reg);
}

std::optional<uint64_t> CoreContext::run_with_memory_mapped(const std::vector<uint8_t>& code,
                                                            TargetAddr code_address) {
  void* shared = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  pid_t child = fork();
  if (child == 0) {
    auto map = [](uint64_t at, std::span<const std::byte> bytes) {
      uint64_t begin = at & ~uint64_t{4095},
               size = (at + bytes.size() - begin + 4095) & ~uint64_t{4095};
      void* p = mmap(reinterpret_cast<void*>(begin), size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
      if (p != MAP_FAILED)
        std::memcpy(reinterpret_cast<void*>(at), bytes.data(), bytes.size());
    };
    for (const Segment& segment : segments_)
      map(segment.address, segment.bytes);
    for (const symbols::Segment& segment : modules()[0].module->elf().segments())
      if (!segment.writable)
        map(segment.range.begin.value + modules()[0].bias,
            modules()[0].module->elf().bytes_at(segment.range.begin, segment.range.size()));
    auto* function = reinterpret_cast<uint64_t (*)(const dune::Registers*)>(code_address.value);
    std::memcpy(reinterpret_cast<void*>(code_address.value), code.data(), code.size());
    *static_cast<uint64_t*>(shared) = function(&registers);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  uint64_t result = *static_cast<uint64_t*>(shared);
  munmap(shared, 4096);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? std::optional(result) : std::nullopt;
}

std::optional<TargetAddr> CoreContext::cfa() {
  return TargetAddr(dune::register_at(registers, kCfa.base) + static_cast<uint64_t>(kCfa.offset));
}

bool CoreContext::write_memory(TargetAddr to, std::span<const std::byte> from) {
  for (Segment& segment : segments_)
    if (to.value >= segment.address &&
        to.value + from.size() <= segment.address + segment.bytes.size()) {
      std::copy(from.begin(), from.end(),
                segment.bytes.begin() + static_cast<ptrdiff_t>(to.value - segment.address));
      return true;
    }
  return false;
}

bool CoreContext::write_register(dune::Reg reg, uint64_t value) {
  dune::register_at(registers, reg) = value;
  return true;
}

} // namespace ddbg::expr
