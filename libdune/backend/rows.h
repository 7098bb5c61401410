// What the rows of guests share beneath their GuestOps: calls of a device, and a processor's
// descriptor with the page that it shares with the kernel. Freestanding-clean.
#pragma once

#include "libdune/arch/syscall.h"
#include "libdune/backend/guest.h"

namespace dune::backend {

GuestOps kmod_guest(), kvm_guest();

inline constexpr int kEnoent = 2, kEintr = 4, kEnomem = 12, kEfault = 14, kEbusy = 16, kEinval = 22,
                     kEmfile = 24, kEnospc = 28;
inline constexpr uint64_t kDr6Clear = 0xffff0ff0;
inline constexpr uint64_t kCr4Tags = 1 << 17; // PCIDE

template <class T> long control(int fd, unsigned request, T argument) {
  return syscall_of(__NR_ioctl, fd, request, argument);
}
template <class T> long control(int fd, unsigned request, T* argument) {
  return syscall_of(__NR_ioctl, fd, request, reinterpret_cast<uint64_t>(argument));
}

inline Error refused(const char* what, long result) { return {Errc::kSystem, what, -result}; }

// Has a processor made, which is a descriptor or an error, and maps so many bytes of it where
// CpuMemory says. c.fd and c.shared are it.
Status take_processor(Cpu& c, long (*make)(const Guest&), long shared_size);
void close_processor(Cpu& c);

// In the guest's descriptor table: which processor the thread runs on, where the vDSO's getcpu
// looks. False: as before. A thread that is moved while it is in the guest finds out when it comes
// back the next time.
bool show_processor(Cpu& c);

} // namespace dune::backend
