#include "host_loop.h"
#include "libdune/arch/signal_frame.h"
#include "libdune/arch/syscall.h"

#include <asm/prctl.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/mman.h>

namespace dune::backend {

namespace {

long make_call(void*, long number, const long a[6]) {
  return syscall_raw(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

void serve_call(MappedGuest& g) {
  Registers& r = g.cpu.regs;
  const long number = long(r.rax);
  const long a[6] = {long(r.rdi), long(r.rsi), long(r.rdx), long(r.r10), long(r.r8), long(r.r9)};
  long result = -ENOSYS;
  switch (number) {
  case __NR_arch_prctl:
    result = a[0] == ARCH_SET_FS ? 0 : -EINVAL;
    if (result == 0)
      r.fs_base = r.rsi;
    break;
  case __NR_rseq:
  case __NR_clone:
  case __NR_clone3:
  case __NR_fork:
  case __NR_vfork:
  case __NR_execve:
    break;
  default:
    result = g.memory.change(number, a, make_call, nullptr);
  }
  r.rax = static_cast<uint64_t>(result);
}

struct Loaded {
  uint64_t entry, headers;
  uint16_t header_count;
};

[[noreturn]] void give_up(const char* what) {
  perror(what);
  _exit(126);
}

Loaded load(const char* path) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  static char head[kPageSize];
  if (fd < 0 || read(fd, head, sizeof head) < ssize_t(sizeof(Elf64_Ehdr)))
    give_up(path);
  const auto* elf = reinterpret_cast<const Elf64_Ehdr*>(head);
  const auto* segments = reinterpret_cast<const Elf64_Phdr*>(head + elf->e_phoff);
  const uint64_t bias = elf->e_type == ET_DYN ? 0x10000000 : 0;
  for (int i = 0; i < elf->e_phnum; ++i) {
    const Elf64_Phdr& s = segments[i];
    if (s.p_type != PT_LOAD)
      continue;
    const uint64_t begin = TargetAddr(bias + s.p_vaddr).align_down(kPageSize).value;
    const uint64_t end = bias + s.p_vaddr + s.p_memsz;
    void* at = mmap(reinterpret_cast<void*>(begin), end - begin, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (at == MAP_FAILED || pread(fd, reinterpret_cast<void*>(bias + s.p_vaddr), s.p_filesz,
                                  long(s.p_offset)) != ssize_t(s.p_filesz))
      give_up(path);
    const int rights = (s.p_flags & PF_R ? PROT_READ : 0) | (s.p_flags & PF_W ? PROT_WRITE : 0) |
                       (s.p_flags & PF_X ? PROT_EXEC : 0);
    mprotect(at, end - begin, rights);
  }
  close(fd);
  return {bias + elf->e_entry, bias + segments[0].p_vaddr - segments[0].p_offset + elf->e_phoff,
          elf->e_phnum};
}

// The words on a program's first stack (System V psABI, "Process Initialization").
std::vector<uint64_t> first_words(const Loaded& program,
                                  const std::vector<std::string>& arguments) {
  std::vector<uint64_t> words{arguments.size()};
  for (const std::string& a : arguments)
    words.push_back(reinterpret_cast<uint64_t>(a.c_str()));
  words.push_back(0);
  for (char** e = environ; *e; ++e)
    words.push_back(reinterpret_cast<uint64_t>(*e));
  words.push_back(0);
  words.insert(words.end(), {AT_PHDR, program.headers, AT_PHENT, sizeof(Elf64_Phdr), AT_PHNUM,
                             program.header_count, AT_ENTRY, program.entry});
  for (uint64_t same : {AT_PAGESZ, AT_RANDOM, AT_HWCAP, AT_HWCAP2, AT_SYSINFO_EHDR, AT_UID, AT_EUID,
                        AT_GID, AT_EGID, AT_SECURE, AT_CLKTCK})
    words.insert(words.end(), {same, getauxval(same)});
  words.insert(words.end(), {AT_NULL, 0});
  return words;
}

int signal_of(const MappedGuest& g, uint32_t vector) {
  switch (vector) {
  case 0:
    return kSigFpe;
  case kVectorDebug:
  case kVectorBreakpoint:
    return kSigTrap;
  case 6:
    return kSigIll;
  default:
    return g.thread.refused == process::Outcome::kNoPage ? kSigBus : kSigSegv;
  }
}

} // namespace

Result<std::unique_ptr<MappedGuest>> MappedGuest::open(const GuestOps& ops, Placement placement,
                                                       std::span<const Handler> handlers,
                                                       uint64_t table_pages, size_t known) {
  auto owned = OwnedGuest::open(ops, placement, handlers, table_pages);
  if (!owned)
    return owned.error();
  std::unique_ptr<MappedGuest> self(new MappedGuest(std::move(*owned), known));
  self->own_ = {self->guest.memory.begin, self->cpu.memory.end};
  if (auto ok = self->memory.open(self->guest, self->known_, {&self->own_, 1}); !ok)
    return ok.error();
  return self;
}

void start_at(Cpu& cpu, const void* rip, const void* rsp) {
  cpu.regs = {};
  cpu.regs.rip = reinterpret_cast<uint64_t>(rip);
  cpu.regs.rsp = reinterpret_cast<uint64_t>(rsp);
  cpu.regs.eflags = 1 << 9; // IF
  cpu.regs.cs = kUserCode;
  cpu.regs.ss = kUserData;
}

Exit run_mapped(MappedThread& t, uint64_t* exits) {
  for (;;) {
    const Exit e = t.cpu.guest->ops.run(t.cpu);
    if (exits)
      ++*exits;
    if (e.why == Why::kUnbacked) {
      if (const TargetAddr page = t.memory.unbacked(t.history)) {
        t.refused = process::Outcome::kNoPage;
        return {Why::kTrap, kVectorPageFault, 0, page.value};
      }
    } else if (e.why == Why::kTrap && e.vector == kVectorPageFault) {
      t.refused = t.memory.serve(TargetAddr(e.address), e.error, t.history);
      if (t.refused != process::Outcome::kServed)
        return e;
    } else {
      return e;
    }
  }
}

int run_program(MappedGuest& g, const std::vector<std::string>& arguments) {
  const Loaded program = load(arguments[0].c_str());
  constexpr uint64_t kStackSize = 1 << 20;
  auto stack = Mapping::anonymous(kStackSize);
  if (!stack)
    give_up("stack");
  const auto words = first_words(program, arguments);
  std::byte* top = stack->data() + kStackSize - (words.size() * sizeof words[0] + 15) / 16 * 16;
  memcpy(top, words.data(), words.size() * sizeof words[0]);
  start_at(g.cpu, reinterpret_cast<const void*>(program.entry), top);
  for (;;) {
    const Exit e = run_mapped(g);
    if (e.why == Why::kTrap)
      return 128 + signal_of(g, e.vector);
    if (e.why == Why::kBroken) {
      fprintf(stderr, "the guest is broken: %#lx\n", e.error);
      return 126;
    }
    if (e.why != Why::kSystemCall)
      continue;
    if (g.cpu.regs.rax == __NR_exit_group || g.cpu.regs.rax == __NR_exit)
      return static_cast<int>(g.cpu.regs.rdi & 0xff);
    serve_call(g);
  }
}

} // namespace dune::backend
