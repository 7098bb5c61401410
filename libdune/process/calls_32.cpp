// 32-bit system calls (int $0x80), by the numbers of i386.
#include "libdune/process/calls.h"

#include <asm/unistd_64.h>

namespace dune::process {

namespace {

struct Same {
  uint16_t number, native;
};
// Those whose arguments are what the native call's are, or name less memory. Not: whose structures
// have addresses in them, what is about signals, and what makes threads.
constexpr Same kSame[] = {
    {1, __NR_exit},
    {3, __NR_read},
    {4, __NR_write},
    {5, __NR_open},
    {6, __NR_close},
    {8, __NR_creat},
    {9, __NR_link},
    {10, __NR_unlink},
    {12, __NR_chdir},
    {13, __NR_time},
    {14, __NR_mknod},
    {15, __NR_chmod},
    {19, __NR_lseek},
    {20, __NR_getpid},
    {24, __NR_getuid},
    {27, __NR_alarm},
    {29, __NR_pause},
    {30, __NR_utime},
    {33, __NR_access},
    {36, __NR_sync},
    {37, __NR_kill},
    {38, __NR_rename},
    {39, __NR_mkdir},
    {40, __NR_rmdir},
    {41, __NR_dup},
    {42, __NR_pipe},
    {43, __NR_times},
    {45, __NR_brk},
    {47, __NR_getgid},
    {49, __NR_geteuid},
    {50, __NR_getegid},
    {57, __NR_setpgid},
    {60, __NR_umask},
    {63, __NR_dup2},
    {64, __NR_getppid},
    {65, __NR_getpgrp},
    {66, __NR_setsid},
    {78, __NR_gettimeofday},
    {83, __NR_symlink},
    {85, __NR_readlink},
    {91, __NR_munmap},
    {92, __NR_truncate},
    {93, __NR_ftruncate},
    {94, __NR_fchmod},
    {96, __NR_getpriority},
    {97, __NR_setpriority},
    {118, __NR_fsync},
    {122, __NR_uname},
    {125, __NR_mprotect},
    {132, __NR_getpgid},
    {133, __NR_fchdir},
    {143, __NR_flock},
    {144, __NR_msync},
    {147, __NR_getsid},
    {148, __NR_fdatasync},
    {150, __NR_mlock},
    {151, __NR_munlock},
    {158, __NR_sched_yield},
    {162, __NR_nanosleep},
    {163, __NR_mremap},
    {168, __NR_poll},
    {183, __NR_getcwd},
    {192, __NR_mmap},
    {195, __NR_stat},
    {196, __NR_lstat},
    {197, __NR_fstat},
    {199, __NR_getuid},
    {200, __NR_getgid},
    {201, __NR_geteuid},
    {202, __NR_getegid},
    {218, __NR_mincore},
    {219, __NR_madvise},
    {224, __NR_gettid},
    {238, __NR_tkill},
    {240, __NR_futex},
    {252, __NR_exit_group},
    {258, __NR_set_tid_address},
    {265, __NR_clock_gettime},
    {266, __NR_clock_getres},
    {270, __NR_tgkill},
    {295, __NR_openat},
    {296, __NR_mkdirat},
    {301, __NR_unlinkat},
    {305, __NR_readlinkat},
    {307, __NR_faccessat},
    {323, __NR_eventfd},
    {328, __NR_eventfd2},
    {329, __NR_epoll_create1},
    {330, __NR_dup3},
    {331, __NR_pipe2},
    {355, __NR_getrandom},
    {356, __NR_memfd_create},
};

} // namespace

std::optional<uint32_t> native_of_32_bits(uint32_t number) {
  for (const Same& row : kSame)
    if (row.number == number)
      return row.native;
  return std::nullopt;
}

} // namespace dune::process
