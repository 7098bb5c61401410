#include "host_loop.h"
#include "libdune/arch/signal_frame.h"
#include "libdune/arch/syscall.h"

#include <asm/prctl.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <fstream>
#include <optional>
#include <sys/auxv.h>
#include <sys/mman.h>

namespace dune::backend {

namespace {

constexpr uint64_t kWriteFault = 2, kFetchFault = 16; // in a page fault's error code

std::optional<uint64_t> rights_at(TargetAddr a) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    unsigned long begin, end;
    char rwx[4];
    if (sscanf(line.c_str(), "%lx-%lx %3s", &begin, &end, rwx) != 3 || a.value < begin ||
        a.value >= end)
      continue;
    uint64_t rights = kPageRead | kPageUser;
    if (rwx[1] == 'w')
      rights |= kPageWrite;
    if (rwx[2] == 'x')
      rights |= kPageExecute;
    return memcmp(rwx, "---", 3) == 0 ? std::nullopt : std::optional(rights);
  }
  return std::nullopt;
}

// Maps the page if the process's own rights cover the access.
bool serve(Guest& g, const Exit& fault) {
  const TargetAddr page = TargetAddr(fault.address).align_down(kPageSize);
  const auto rights = rights_at(page);
  if (!rights || (fault.error & kWriteFault && !(*rights & kPageWrite)) ||
      (fault.error & kFetchFault && !(*rights & kPageExecute)))
    return false;
  const int populate = *rights & kPageWrite ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
  if (madvise(reinterpret_cast<void*>(page.value), kPageSize, populate) != 0 && errno == EFAULT)
    return false; // beyond the end of a file
  return bool(map_page(g, page, *rights));
}

const TargetRange kEverything{TargetAddr(0), TargetAddr(kUserEnd)};

// System calls that are not passed on as they are.
struct Policy {
  long number;
  long (*call)(OwnedGuest&);
};
long pass(OwnedGuest& g) {
  const Registers& r = g.cpu.regs;
  return syscall_raw(r.rax, r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9);
}
long change_range(OwnedGuest& g) {
  const TargetAddr begin(g.cpu.regs.rdi);
  unmap_pages(g.guest, {begin, begin + g.cpu.regs.rsi});
  return pass(g);
}
long change_anything(OwnedGuest& g) {
  unmap_pages(g.guest, kEverything);
  return pass(g);
}
long change_base(OwnedGuest& g) {
  Registers& r = g.cpu.regs;
  if (r.rdi != ARCH_SET_FS)
    return -EINVAL;
  r.fs_base = r.rsi;
  return 0;
}
long refuse(OwnedGuest&) { return -ENOSYS; }
constexpr Policy kPolicies[] = {
    {__NR_mmap, change_range},     {__NR_munmap, change_range},
    {__NR_mprotect, change_range}, {__NR_mremap, change_anything},
    {__NR_brk, change_anything},   {__NR_arch_prctl, change_base},
    {__NR_rseq, refuse},           {__NR_clone, refuse},
    {__NR_clone3, refuse},         {__NR_fork, refuse},
    {__NR_vfork, refuse},          {__NR_execve, refuse},
};

void make_call(OwnedGuest& g) {
  long (*call)(OwnedGuest&) = pass;
  for (const Policy& p : kPolicies)
    if (static_cast<uint64_t>(p.number) == g.cpu.regs.rax)
      call = p.call;
  g.cpu.regs.rax = static_cast<uint64_t>(call(g));
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

int signal_of(uint32_t vector) {
  switch (vector) {
  case 0:
    return kSigFpe;
  case kVectorDebug:
  case kVectorBreakpoint:
    return kSigTrap;
  case 6:
    return kSigIll;
  default:
    return kSigSegv;
  }
}

} // namespace

void start_at(Cpu& cpu, const void* rip, const void* rsp) {
  cpu.regs = {};
  cpu.regs.rip = reinterpret_cast<uint64_t>(rip);
  cpu.regs.rsp = reinterpret_cast<uint64_t>(rsp);
  cpu.regs.eflags = 1 << 9; // IF
  cpu.regs.cs = kUserCode;
  cpu.regs.ss = kUserData;
}

Exit run_mapped(OwnedGuest& g, uint64_t* exits) {
  for (;;) {
    const Exit e = g.run();
    if (exits)
      ++*exits;
    if (e.why == Why::kUnbacked)
      unmap_pages(g.guest, kEverything); // the next fault says where
    else if (e.why != Why::kTrap || e.vector != kVectorPageFault || !serve(g.guest, e))
      return e;
  }
}

int run_program(OwnedGuest& g, const std::vector<std::string>& arguments) {
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
      return 128 + signal_of(e.vector);
    if (e.why == Why::kBroken) {
      fprintf(stderr, "the guest is broken: %#lx\n", e.error);
      return 126;
    }
    if (e.why != Why::kSystemCall)
      continue;
    if (g.cpu.regs.rax == __NR_exit_group || g.cpu.regs.rax == __NR_exit)
      return static_cast<int>(g.cpu.regs.rdi & 0xff);
    make_call(g);
  }
}

} // namespace dune::backend
