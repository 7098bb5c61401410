#include "libdune/backend/rows.h"

#include <linux/fcntl.h>
#include <linux/mman.h>

namespace dune::backend {

GuestOps guest_ops(GuestKind kind) { return kind == GuestKind::kKmod ? kmod_guest() : kvm_guest(); }

namespace {

// Beside the others. Its place is taken first: what is made may not be given back.
long make_in_place(const Guest& g, long (*make)(const Guest&)) {
  const long place = syscall_of(__NR_fcntl, g.device, F_DUPFD_CLOEXEC, g.device);
  if (is_errno(place))
    return place;
  const long fd = make(g);
  if (is_errno(fd)) {
    syscall_of(__NR_close, place);
    return fd;
  }
  syscall_of(__NR_dup3, fd, place, O_CLOEXEC);
  syscall_of(__NR_close, fd);
  return place;
}

} // namespace

Status take_processor(Cpu& c, long (*make)(const Guest&), long shared_size) {
  Guest& g = *c.guest;
  long fd = make_in_place(g, make);
  if (fd == -kEinval || fd == -kEmfile) { // the program may have lowered its limit, or used it up
    const RaisedLimit raised(g.device);
    fd = make_in_place(g, make);
  }
  if (is_errno(fd))
    return refused("there are no more processors", fd);
  ++g.cpu_count;
  c.fd = static_cast<int>(fd);
  c.shared = nullptr;
  c.processor = ~0u;
  const uint64_t place = c.memory.begin.value + offsetof(CpuMemory, shared);
  const long shared = shared_size > long(sizeof(CpuMemory::shared))
                          ? -kEnomem
                          : syscall_of(__NR_mmap, place, shared_size, PROT_READ | PROT_WRITE,
                                       MAP_SHARED | MAP_FIXED, c.fd, 0);
  if (is_errno(shared)) {
    close_processor(c);
    return refused("cannot map a processor's registers", shared);
  }
  syscall_of(__NR_madvise, shared, shared_size, MADV_DONTFORK);
  c.shared = reinterpret_cast<void*>(shared);
  c.shared_size = static_cast<uint64_t>(shared_size);
  return {};
}

void close_processor(Cpu& c) {
  if (c.shared) // its place stays the caller's
    syscall_of(__NR_mmap, reinterpret_cast<uint64_t>(c.shared), c.shared_size,
               PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  if (c.fd >= 0)
    syscall_of(__NR_close, c.fd);
  c.shared = nullptr;
  c.fd = -1;
}

bool show_processor(Cpu& c) {
  uint32_t number;
  bool known;
  asm("lsl %2, %0" : "=r"(number), "=@ccz"(known) : "r"(uint32_t{kProcessorNumber}));
  if (!known || number == c.processor)
    return false;
  c.processor = number;
  reinterpret_cast<CpuMemory*>(c.memory.begin.value)->gdt.show_processor(number);
  return true;
}

} // namespace dune::backend
