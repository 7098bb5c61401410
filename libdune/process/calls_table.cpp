// The tables of calls.h. This file is long because Linux has that many system calls.
//
// Sizes are the kernel's, by sizeof where Debian 12's headers (Linux 6.1) have the structure; what
// came later, and what its headers hide from programs, is a number.
#include "libdune/process/shapes.h"

#include "libdune/arch/signal_frame.h"

#include <asm/ioctls.h>
#include <asm/ldt.h>
#include <asm/prctl.h>
#include <asm/stat.h>
#include <asm/statfs.h>
#include <asm/unistd_64.h>
#include <linux/aio_abi.h>
#include <linux/capability.h>
#include <linux/errno.h>
#include <linux/eventpoll.h>
#include <linux/fcntl.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/mqueue.h>
#include <linux/msg.h>
#include <linux/poll.h>
#include <linux/prctl.h>
#include <linux/resource.h>
#include <linux/sched.h>
#include <linux/sched/types.h>
#include <linux/seccomp.h>
#include <linux/sem.h>
#include <linux/shm.h>
#include <linux/signal.h>
#include <linux/sockios.h>
#include <linux/stat.h>
#include <linux/sysinfo.h>
#include <linux/time.h>
#include <linux/time_types.h>
#include <linux/times.h>
#include <linux/timex.h>
#include <linux/uio.h>
#include <linux/userfaultfd.h>
#include <linux/utime.h>
#include <linux/utsname.h>

namespace dune::process {
namespace {

// The vocabulary of the rows.

constexpr unsigned kPath = 4096; // PATH_MAX; also of a page, which others read at most
constexpr unsigned kTime = sizeof(__kernel_timespec);
constexpr unsigned kLoff = sizeof(__kernel_loff_t);
constexpr unsigned kInt = sizeof(int);
constexpr unsigned kLong = sizeof(long);

struct Count {
  uint8_t place;
  bool narrow;
};
constexpr Count of(int argument) { return {static_cast<uint8_t>(8 * argument), false}; }
constexpr Count int_of(int argument) { return {static_cast<uint8_t>(8 * argument), true}; }
constexpr Count field(int offset) { return {static_cast<uint8_t>(offset), false}; }
constexpr Count int_field(int offset) { return {static_cast<uint8_t>(offset), true}; }

constexpr Argument bytes(Access access, unsigned fixed, unsigned factor, Count count) {
  Argument a{.kind = Kind::kBytes, .access = access};
  a.count = count.place;
  a.narrow = count.narrow;
  a.fixed = static_cast<uint16_t>(fixed);
  a.factor = static_cast<uint16_t>(factor);
  return a;
}
// The kernel reads, writes or does both: so many bytes, or elements of a size.
constexpr Argument in(unsigned size) { return bytes(Access::kRead, size, 0, {}); }
constexpr Argument out(unsigned size) { return bytes(Access::kWrite, size, 0, {}); }
constexpr Argument io(unsigned size) { return bytes(Access::kBoth, size, 0, {}); }
constexpr Argument in(unsigned size, Count n) { return bytes(Access::kRead, 0, size, n); }
constexpr Argument out(unsigned size, Count n) { return bytes(Access::kWrite, 0, size, n); }
constexpr Argument io(unsigned size, Count n) { return bytes(Access::kBoth, 0, size, n); }

constexpr Argument of_kind(Kind kind, Access access, unsigned fixed, unsigned factor, Count count) {
  Argument a = bytes(access, fixed, factor, count);
  a.kind = kind;
  return a;
}
constexpr Argument region(Access access, Count count) {
  return of_kind(Kind::kRegion, access, 0, 1, count);
}
constexpr Argument out_at(int argument) {
  return of_kind(Kind::kBytesAt, Access::kWrite, 0, 1, of(argument));
}
constexpr Argument sized(Access access, unsigned at_least, unsigned offset, unsigned more = 0) {
  return of_kind(Kind::kSizedWithin, access, at_least, more, int_field(static_cast<int>(offset)));
}
constexpr Argument bits(Access access, Count count, unsigned less = 0) {
  return of_kind(Kind::kBits, access, 0, less, count);
}
constexpr Argument text_of(unsigned most) {
  return of_kind(Kind::kString, Access::kRead, most, 0, {});
}
constexpr Argument range(int length) {
  return of_kind(Kind::kRange, Access::kNone, 0, 1, of(length));
}
constexpr Argument when(When when, Argument argument) {
  argument.when = when;
  return argument;
}

constexpr Argument n{.kind = Kind::kNumber};
constexpr Argument fd{.kind = Kind::kDescriptor};
constexpr Argument text = text_of(kPath);
constexpr Argument strings{.kind = Kind::kStrings, .access = Access::kRead};
constexpr Argument unknown{.kind = Kind::kUnknown, .access = Access::kBoth};

// Structures with addresses inside.

enum class ShapeId : uint8_t {
  kReadVector,   // an iovec whose memory the kernel reads,
  kWriteVector,  // writes,
  kPipeVector,   // reads or writes, as the descriptor is,
  kRemoteVector, // or does so in another process, which may be this one
  kSendHeader,   // user_msghdr
  kReceiveHeader,
  kSendMessage, // mmsghdr
  kReceiveMessage,
  kSignalSet, // pselect6 and io_pgetevents: a set's address and size
  kCloneArgs,
  kProgram, // sock_fprog
  kFutexWait,
  kControlBlock,        // iocb
  kControlBlockAddress, // what io_submit gets many of
  kEvent,               // sigevent of mq_notify
  kValueArgs,           // xattr_args of setxattrat,
  kValueResult,         // of getxattrat
  kInterfaces,          // ifconf
  kFaultRange,          // uffdio_range and what begins with one
  kFaultCopy,           // uffdio_copy, uffdio_move
  kGuestMemory,         // kvm_userspace_memory_region
  kPageScan,            // pm_scan_arg
  kRegisterSet,         // an iovec whose length comes back
  kCount
};

constexpr Argument structs(Access access, ShapeId shape, Count count) {
  Argument a = of_kind(Kind::kStructs, access, 0, 1, count);
  a.shape = static_cast<uint8_t>(shape);
  return a;
}
constexpr Argument one(Access access, ShapeId shape) {
  Argument a = structs(access, shape, {});
  a.fixed = 1;
  a.factor = 0;
  return a;
}
constexpr Argument two(Access access, ShapeId shape) {
  Argument a = one(access, shape);
  a.fixed = 2;
  return a;
}
constexpr Argument sized_struct(ShapeId shape, Count count) {
  Argument a = structs(Access::kRead, shape, count);
  a.kind = Kind::kSizedStruct;
  return a;
}
constexpr Access kIn = Access::kRead, kOut = Access::kWrite, kBoth = Access::kBoth;

struct FieldOf {
  ShapeId shape;
  Field field;
};
constexpr FieldOf kFields[] = {
    {ShapeId::kReadVector, {0, in(1, field(8))}},
    {ShapeId::kWriteVector, {0, out(1, field(8))}},
    {ShapeId::kPipeVector, {0, io(1, field(8))}},
    {ShapeId::kRemoteVector, {0, when(When::kOwnProcess, io(1, field(8)))}},
    {ShapeId::kSendHeader, {0, in(1, int_field(8))}},
    {ShapeId::kSendHeader, {16, structs(kIn, ShapeId::kReadVector, field(24))}},
    {ShapeId::kSendHeader, {32, in(1, field(40))}},
    {ShapeId::kReceiveHeader, {0, out(1, int_field(8))}},
    {ShapeId::kReceiveHeader, {16, structs(kIn, ShapeId::kWriteVector, field(24))}},
    {ShapeId::kReceiveHeader, {32, out(1, field(40))}},
    {ShapeId::kSendMessage, {0, in(1, int_field(8))}},
    {ShapeId::kSendMessage, {16, structs(kIn, ShapeId::kReadVector, field(24))}},
    {ShapeId::kSendMessage, {32, in(1, field(40))}},
    {ShapeId::kReceiveMessage, {0, out(1, int_field(8))}},
    {ShapeId::kReceiveMessage, {16, structs(kIn, ShapeId::kWriteVector, field(24))}},
    {ShapeId::kReceiveMessage, {32, out(1, field(40))}},
    {ShapeId::kSignalSet, {0, in(sizeof(SignalSet))}},
    {ShapeId::kCloneArgs, {8, out(kInt)}},  // pidfd
    {ShapeId::kCloneArgs, {16, out(kInt)}}, // child_tid
    {ShapeId::kCloneArgs, {24, out(kInt)}}, // parent_tid
    {ShapeId::kCloneArgs, {64, in(kInt, field(72))}},
    {ShapeId::kProgram, {8, in(sizeof(sock_filter), int_field(0))}},
    {ShapeId::kFutexWait, {8, in(kInt)}},
    {ShapeId::kControlBlock, {24, when(When::kReadsBuffer, out(1, field(32)))}},
    {ShapeId::kControlBlock, {24, when(When::kWritesBuffer, in(1, field(32)))}},
    {ShapeId::kControlBlock,
     {24, when(When::kReadsVector, structs(kIn, ShapeId::kWriteVector, field(32)))}},
    {ShapeId::kControlBlock,
     {24, when(When::kWritesVector, structs(kIn, ShapeId::kReadVector, field(32)))}},
    {ShapeId::kControlBlockAddress, {0, one(kBoth, ShapeId::kControlBlock)}},
    {ShapeId::kEvent, {0, when(When::kNotifiesThread, in(32))}}, // NOTIFY_COOKIE_LEN
    {ShapeId::kValueArgs, {0, in(1, int_field(8))}},
    {ShapeId::kValueResult, {0, out(1, int_field(8))}},
    {ShapeId::kInterfaces, {8, out(1, int_field(0))}},
    {ShapeId::kFaultRange, {0, region(Access::kBoth, field(8))}},
    {ShapeId::kFaultCopy, {0, region(Access::kWrite, field(16))}},
    {ShapeId::kFaultCopy, {8, region(Access::kBoth, field(16))}},
    {ShapeId::kGuestMemory, {24, region(Access::kBoth, field(16))}},
    {ShapeId::kPageScan, {40, out(24, field(48))}},
    {ShapeId::kRegisterSet, {0, io(1, field(8))}},
};
static_assert(offsetof(iocb, aio_buf) == 24 && offsetof(iocb, aio_nbytes) == 32);
static_assert(offsetof(clone_args, set_tid) == 64 && offsetof(clone_args, set_tid_size) == 72);
static_assert(offsetof(sock_fprog, filter) == 8);
static_assert(offsetof(futex_waitv, uaddr) == 8);
static_assert(offsetof(uffdio_copy, src) == 8 && offsetof(uffdio_copy, len) == 16);
static_assert(offsetof(kvm_userspace_memory_region, userspace_addr) == 24);

constexpr Shape shape(ShapeId id, unsigned size, bool copied, FieldSpan first = {},
                      FieldSpan second = {}) {
  Shape s{static_cast<uint8_t>(size), copied, 0, 0, {first, second}};
  for (unsigned i = 0; i < std::size(kFields); i++) {
    if (kFields[i].shape == id) {
      if (s.field_count == 0)
        s.first_field = static_cast<uint8_t>(i);
      s.field_count++;
    }
  }
  return s;
}
constexpr bool kCopied = true, kInPlace = false;
constexpr FieldSpan kNameLength{8, 4}, kControlLengthAndFlags{40, 12}, kLengthOfMessage{56, 4};
constexpr Shape kShapes[] = {
    shape(ShapeId::kReadVector, sizeof(iovec), kCopied),
    shape(ShapeId::kWriteVector, sizeof(iovec), kCopied),
    shape(ShapeId::kPipeVector, sizeof(iovec), kCopied),
    shape(ShapeId::kRemoteVector, sizeof(iovec), kCopied),
    shape(ShapeId::kSendHeader, 56, kCopied),
    shape(ShapeId::kReceiveHeader, 56, kCopied, kNameLength, kControlLengthAndFlags),
    shape(ShapeId::kSendMessage, 64, kCopied, kLengthOfMessage),
    shape(ShapeId::kReceiveMessage, 64, kCopied, kNameLength, {40, 20}), // the rest together
    shape(ShapeId::kSignalSet, 16, kCopied),
    shape(ShapeId::kCloneArgs, sizeof(clone_args), kInPlace),
    shape(ShapeId::kProgram, sizeof(sock_fprog), kCopied),
    shape(ShapeId::kFutexWait, sizeof(futex_waitv), kCopied),
    shape(ShapeId::kControlBlock, sizeof(iocb), kInPlace), // its address comes back in the event
    shape(ShapeId::kControlBlockAddress, kLong, kCopied),
    shape(ShapeId::kEvent, sizeof(struct sigevent), kCopied),
    shape(ShapeId::kValueArgs, 16, kCopied),
    shape(ShapeId::kValueResult, 16, kCopied),
    shape(ShapeId::kInterfaces, 16, kInPlace),
    shape(ShapeId::kFaultRange, sizeof(uffdio_range), kInPlace),
    shape(ShapeId::kFaultCopy, 24, kInPlace),
    shape(ShapeId::kGuestMemory, sizeof(kvm_userspace_memory_region), kInPlace),
    shape(ShapeId::kPageScan, 96, kInPlace),
    shape(ShapeId::kRegisterSet, sizeof(iovec), kInPlace),
};
static_assert(std::size(kShapes) == static_cast<size_t>(ShapeId::kCount));

constexpr uint32_t kOpcode = 0xffff;
constexpr uint8_t kOpcodeAt = offsetof(iocb, aio_lio_opcode);
// By When.
constexpr Condition kConditions[] = {
    {},
    {},
    {0, true, CLONE_PARENT_SETTID | CLONE_PIDFD, 0},
    {0, true, CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID, 0},
    {8, false, ~0u, SECCOMP_MODE_FILTER},
    {kOpcodeAt, false, kOpcode, IOCB_CMD_PREAD},
    {kOpcodeAt, false, kOpcode, IOCB_CMD_PWRITE},
    {kOpcodeAt, false, kOpcode, IOCB_CMD_PREADV},
    {kOpcodeAt, false, kOpcode, IOCB_CMD_PWRITEV},
    {12, false, ~0u, SIGEV_THREAD},
};
static_assert(std::size(kConditions) == static_cast<size_t>(When::kNotifiesThread) + 1);

// The rows.

struct Selector {
  uint8_t argument;
  uint16_t flags = 0;
};
constexpr uint16_t kFutexFlags = FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME;
template <size_t N, class... Arguments>
constexpr Row row(unsigned number, const char (&name)[N], Effect effect, Arguments... arguments) {
  static_assert(N <= sizeof(Row::name));
  Row r{.number = static_cast<uint16_t>(number), .effect = effect};
  for (size_t i = 0; i < N; i++)
    r.name[i] = name[i];
  ((r.arguments[r.argument_count++] = arguments), ...);
  return r;
}
constexpr Row with(Selector selector, Row r) {
  r.selector = selector.argument;
  r.selector_flags = selector.flags;
  return r;
}
constexpr Row fails(unsigned error, Row r) {
  r.error = static_cast<uint16_t>(error);
  return r;
}

constexpr Effect kPass = Effect::kPass, kMemory = Effect::kMemory, kThread = Effect::kThread,
                 kSignal = Effect::kSignal, kDescriptor = Effect::kDescriptor,
                 kOpen = Effect::kOpen, kIdentity = Effect::kIdentity, kAbsent = Effect::kAbsent,
                 kUnguarded = Effect::kUnguarded;

constexpr Row kRows[] = {
    row(0, "read", kPass, fd, out(1, of(2)), n),
    row(1, "write", kPass, fd, in(1, of(2)), n),
    row(2, "open", kOpen, text, n, n),
    row(3, "close", kDescriptor, fd),
    row(4, "stat", kPass, text, out(sizeof(struct stat))),
    row(5, "fstat", kPass, fd, out(sizeof(struct stat))),
    row(6, "lstat", kPass, text, out(sizeof(struct stat))),
    row(7, "poll", kPass, io(sizeof(pollfd), int_of(1)), n, n),
    row(8, "lseek", kPass, fd, n, n),
    row(9, "mmap", kMemory, range(1), n, n, n, fd, n),
    row(10, "mprotect", kMemory, range(1), n, n),
    row(11, "munmap", kMemory, range(1), n),
    row(12, "brk", kMemory, n),
    row(13, "rt_sigaction", kSignal, n, in(sizeof(KernelSigaction)), out(sizeof(KernelSigaction)),
        n),
    row(14, "rt_sigprocmask", kSignal, n, in(sizeof(SignalSet)), out(sizeof(SignalSet)), n),
    row(15, "rt_sigreturn", kSignal),
    with({1}, row(16, "ioctl", kPass, fd, n, Argument{.kind = Kind::kIoctl, .access = kBoth})),
    row(17, "pread64", kPass, fd, out(1, of(2)), n, n),
    row(18, "pwrite64", kPass, fd, in(1, of(2)), n, n),
    row(19, "readv", kPass, fd, structs(kIn, ShapeId::kWriteVector, of(2)), n),
    row(20, "writev", kPass, fd, structs(kIn, ShapeId::kReadVector, of(2)), n),
    row(21, "access", kPass, text, n),
    row(22, "pipe", kPass, out(2 * kInt)),
    row(23, "select", kPass, n, bits(kBoth, int_of(0)), bits(kBoth, int_of(0)),
        bits(kBoth, int_of(0)), io(sizeof(__kernel_old_timeval))),
    row(24, "sched_yield", kPass),
    row(25, "mremap", kMemory, range(1), n, n, n, n),
    row(26, "msync", kMemory, range(1), n, n),
    row(27, "mincore", kMemory, range(1), n, of_kind(Kind::kPages, kOut, 0, 0, of(1))),
    row(28, "madvise", kMemory, range(1), n, n),
    row(29, "shmget", kPass, n, n, n),
    row(30, "shmat", kMemory, n, n, n),
    with({1}, row(31, "shmctl", kPass, n, n, unknown)),
    row(32, "dup", kDescriptor, fd),
    row(33, "dup2", kDescriptor, fd, fd),
    row(34, "pause", kPass),
    row(35, "nanosleep", kPass, in(kTime), out(kTime)),
    row(36, "getitimer", kPass, n, out(sizeof(__kernel_old_itimerval))),
    row(37, "alarm", kPass, n),
    row(38, "setitimer", kPass, n, in(sizeof(__kernel_old_itimerval)),
        out(sizeof(__kernel_old_itimerval))),
    row(39, "getpid", kPass),
    row(40, "sendfile", kPass, fd, fd, io(kLoff), n),
    row(41, "socket", kPass, n, n, n),
    row(42, "connect", kPass, fd, in(1, int_of(2)), n),
    row(43, "accept", kPass, fd, out_at(2), io(kInt)),
    row(44, "sendto", kPass, fd, in(1, of(2)), n, n, in(1, int_of(5)), n),
    row(45, "recvfrom", kPass, fd, out(1, of(2)), n, n, out_at(5), io(kInt)),
    row(46, "sendmsg", kPass, fd, one(kIn, ShapeId::kSendHeader), n),
    row(47, "recvmsg", kPass, fd, one(kBoth, ShapeId::kReceiveHeader), n),
    row(48, "shutdown", kPass, fd, n),
    row(49, "bind", kPass, fd, in(1, int_of(2)), n),
    row(50, "listen", kPass, fd, n),
    row(51, "getsockname", kPass, fd, out_at(2), io(kInt)),
    row(52, "getpeername", kPass, fd, out_at(2), io(kInt)),
    row(53, "socketpair", kPass, n, n, n, out(2 * kInt)),
    with({2}, row(54, "setsockopt", kPass, fd, n, n, in(1, int_of(4)), n)),
    row(55, "getsockopt", kPass, fd, n, n, of_kind(Kind::kBytesAt, kBoth, 0, 1, of(4)), io(kInt)),
    row(56, "clone", kThread, n, n, when(When::kParentTid, out(kInt)),
        when(When::kChildTid, out(kInt)), n),
    row(57, "fork", kThread),
    row(58, "vfork", kThread),
    row(59, "execve", kThread, text, strings, strings),
    row(60, "exit", kThread, n),
    row(61, "wait4", kPass, n, out(kInt), n, out(sizeof(rusage))),
    row(62, "kill", kPass, n, n),
    row(63, "uname", kPass, out(sizeof(new_utsname))),
    row(64, "semget", kPass, n, n, n),
    row(65, "semop", kPass, n, in(sizeof(sembuf), int_of(2)), n),
    with({2}, row(66, "semctl", kPass, n, n, n, unknown)),
    row(67, "shmdt", kMemory, n),
    row(68, "msgget", kPass, n, n),
    row(69, "msgsnd", kPass, n, bytes(kIn, kLong, 1, of(2)), n, n),
    row(70, "msgrcv", kPass, n, bytes(kOut, kLong, 1, of(2)), n, n, n),
    with({1}, row(71, "msgctl", kPass, n, n, unknown)),
    with({1}, row(72, "fcntl", kDescriptor, fd, n, n)),
    row(73, "flock", kPass, fd, n),
    row(74, "fsync", kPass, fd),
    row(75, "fdatasync", kPass, fd),
    row(76, "truncate", kPass, text, n),
    row(77, "ftruncate", kPass, fd, n),
    row(78, "getdents", kDescriptor, fd, out(1, int_of(2)), n),
    row(79, "getcwd", kPass, out(1, of(1)), n),
    row(80, "chdir", kPass, text),
    row(81, "fchdir", kPass, fd),
    row(82, "rename", kPass, text, text),
    row(83, "mkdir", kPass, text, n),
    row(84, "rmdir", kPass, text),
    row(85, "creat", kOpen, text, n),
    row(86, "link", kPass, text, text),
    row(87, "unlink", kPass, text),
    row(88, "symlink", kPass, text, text),
    row(89, "readlink", kPass, text, out(1, int_of(2)), n),
    row(90, "chmod", kPass, text, n),
    row(91, "fchmod", kPass, fd, n),
    row(92, "chown", kPass, text, n, n),
    row(93, "fchown", kPass, fd, n, n),
    row(94, "lchown", kPass, text, n, n),
    row(95, "umask", kPass, n),
    row(96, "gettimeofday", kPass, out(sizeof(__kernel_old_timeval)), out(sizeof(struct timezone))),
    row(97, "getrlimit", kDescriptor, n, out(sizeof(rlimit))),
    row(98, "getrusage", kPass, n, out(sizeof(rusage))),
    row(99, "sysinfo", kPass, out(sizeof(struct sysinfo))),
    row(100, "times", kPass, out(sizeof(tms))),
    with({0}, row(101, "ptrace", kIdentity, n, n, n, unknown)),
    row(102, "getuid", kPass),
    row(103, "syslog", kPass, n, out(1, int_of(2)), n),
    row(104, "getgid", kPass),
    row(105, "setuid", kPass, n),
    row(106, "setgid", kPass, n),
    row(107, "geteuid", kPass),
    row(108, "getegid", kPass),
    row(109, "setpgid", kPass, n, n),
    row(110, "getppid", kPass),
    row(111, "getpgrp", kPass),
    row(112, "setsid", kPass),
    row(113, "setreuid", kPass, n, n),
    row(114, "setregid", kPass, n, n),
    row(115, "getgroups", kPass, n, out(kInt, int_of(0))),
    row(116, "setgroups", kPass, n, in(kInt, int_of(0))),
    row(117, "setresuid", kPass, n, n, n),
    row(118, "getresuid", kPass, out(kInt), out(kInt), out(kInt)),
    row(119, "setresgid", kPass, n, n, n),
    row(120, "getresgid", kPass, out(kInt), out(kInt), out(kInt)),
    row(121, "getpgid", kPass, n),
    row(122, "setfsuid", kPass, n),
    row(123, "setfsgid", kPass, n),
    row(124, "getsid", kPass, n),
    row(125, "capget", kPass, io(sizeof(__user_cap_header_struct)),
        out(2 * sizeof(__user_cap_data_struct))),
    row(126, "capset", kPass, io(sizeof(__user_cap_header_struct)),
        in(2 * sizeof(__user_cap_data_struct))),
    row(127, "rt_sigpending", kSignal, out(sizeof(SignalSet)), n),
    row(128, "rt_sigtimedwait", kSignal, in(sizeof(SignalSet)), out(sizeof(KernelSiginfo)),
        in(kTime), n),
    row(129, "rt_sigqueueinfo", kPass, n, n, in(sizeof(KernelSiginfo))),
    row(130, "rt_sigsuspend", kSignal, in(sizeof(SignalSet)), n),
    row(131, "sigaltstack", kSignal, in(sizeof(KernelStack)), out(sizeof(KernelStack))),
    row(132, "utime", kPass, text, in(sizeof(utimbuf))),
    row(133, "mknod", kPass, text, n, n),
    row(134, "uselib", kPass, text),
    row(135, "personality", kPass, n),
    row(136, "ustat", kPass, n, out(32)),
    row(137, "statfs", kPass, text, out(sizeof(struct statfs))),
    row(138, "fstatfs", kPass, fd, out(sizeof(struct statfs))),
    with({0}, row(139, "sysfs", kPass, n, unknown, unknown)),
    row(140, "getpriority", kPass, n, n),
    row(141, "setpriority", kPass, n, n, n),
    row(142, "sched_setparam", kPass, n, in(kInt)),
    row(143, "sched_getparam", kPass, n, out(kInt)),
    row(144, "sched_setscheduler", kPass, n, n, in(kInt)),
    row(145, "sched_getscheduler", kPass, n),
    row(146, "sched_get_priority_max", kPass, n),
    row(147, "sched_get_priority_min", kPass, n),
    row(148, "sched_rr_get_interval", kPass, n, out(kTime)),
    row(149, "mlock", kMemory, range(1), n),
    row(150, "munlock", kMemory, range(1), n),
    row(151, "mlockall", kPass, n),
    row(152, "munlockall", kPass),
    row(153, "vhangup", kPass),
    fails(ENOSYS, row(154, "modify_ldt", kAbsent, n, io(1, of(2)), n)),
    row(155, "pivot_root", kPass, text, text),
    row(156, "_sysctl", kPass),
    with({0}, row(157, "prctl", kIdentity, n, unknown, unknown, unknown, unknown)),
    with({0}, row(158, "arch_prctl", kIdentity, n, unknown)),
    row(159, "adjtimex", kPass, io(sizeof(__kernel_timex))),
    row(160, "setrlimit", kDescriptor, n, in(sizeof(rlimit))),
    row(161, "chroot", kPass, text),
    row(162, "sync", kPass),
    row(163, "acct", kPass, text),
    row(164, "settimeofday", kPass, in(sizeof(__kernel_old_timeval)), in(sizeof(struct timezone))),
    row(165, "mount", kPass, text, text, text, n, text),
    row(166, "umount2", kPass, text, n),
    row(167, "swapon", kPass, text, n),
    row(168, "swapoff", kPass, text),
    row(169, "reboot", kPass, n, n, n, text),
    row(170, "sethostname", kPass, in(1, int_of(1)), n),
    row(171, "setdomainname", kPass, in(1, int_of(1)), n),
    fails(EPERM, row(172, "iopl", kAbsent, n)),
    fails(EPERM, row(173, "ioperm", kAbsent, n, n, n)),
    row(174, "create_module", kPass),
    row(175, "init_module", kPass, in(1, of(1)), n, text),
    row(176, "delete_module", kPass, text, n),
    row(177, "get_kernel_syms", kPass),
    row(178, "query_module", kPass),
    row(179, "quotactl", kPass, n, text, n, unknown),
    row(180, "nfsservctl", kPass),
    row(181, "getpmsg", kPass),
    row(182, "putpmsg", kPass),
    row(183, "afs_syscall", kPass),
    row(184, "tuxcall", kPass),
    row(185, "security", kPass),
    row(186, "gettid", kPass),
    row(187, "readahead", kPass, fd, n, n),
    row(188, "setxattr", kPass, text, text, in(1, of(3)), n, n),
    row(189, "lsetxattr", kPass, text, text, in(1, of(3)), n, n),
    row(190, "fsetxattr", kPass, fd, text, in(1, of(3)), n, n),
    row(191, "getxattr", kPass, text, text, out(1, of(3)), n),
    row(192, "lgetxattr", kPass, text, text, out(1, of(3)), n),
    row(193, "fgetxattr", kPass, fd, text, out(1, of(3)), n),
    row(194, "listxattr", kPass, text, out(1, of(2)), n),
    row(195, "llistxattr", kPass, text, out(1, of(2)), n),
    row(196, "flistxattr", kPass, fd, out(1, of(2)), n),
    row(197, "removexattr", kPass, text, text),
    row(198, "lremovexattr", kPass, text, text),
    row(199, "fremovexattr", kPass, fd, text),
    row(200, "tkill", kPass, n, n),
    row(201, "time", kPass, out(kLong)),
    with({1, kFutexFlags}, row(202, "futex", kPass, io(kInt), n, n, in(kTime), io(kInt), n)),
    row(203, "sched_setaffinity", kPass, n, n, in(1, int_of(1))),
    row(204, "sched_getaffinity", kPass, n, n, out(1, int_of(1))),
    row(205, "set_thread_area", kPass),
    row(206, "io_setup", kMemory, n, io(kLong)),
    row(207, "io_destroy", kMemory, n),
    row(208, "io_getevents", kPass, n, n, n, out(sizeof(io_event), of(2)), in(kTime)),
    row(209, "io_submit", kPass, n, n, structs(kIn, ShapeId::kControlBlockAddress, of(1))),
    row(210, "io_cancel", kPass, n, in(sizeof(iocb)), out(sizeof(io_event))),
    row(211, "get_thread_area", kPass),
    row(212, "lookup_dcookie", kPass, n, out(1, of(2)), n),
    row(213, "epoll_create", kPass, n),
    row(214, "epoll_ctl_old", kPass),
    row(215, "epoll_wait_old", kPass),
    row(216, "remap_file_pages", kMemory, range(1), n, n, n, n),
    row(217, "getdents64", kDescriptor, fd, out(1, int_of(2)), n),
    row(218, "set_tid_address", kPass, out(kInt)),
    row(219, "restart_syscall", kPass),
    row(220, "semtimedop", kPass, n, in(sizeof(sembuf), int_of(2)), n, in(kTime)),
    row(221, "fadvise64", kPass, fd, n, n, n),
    row(222, "timer_create", kPass, n, in(sizeof(struct sigevent)), out(kInt)),
    row(223, "timer_settime", kPass, n, n, in(sizeof(__kernel_itimerspec)),
        out(sizeof(__kernel_itimerspec))),
    row(224, "timer_gettime", kPass, n, out(sizeof(__kernel_itimerspec))),
    row(225, "timer_getoverrun", kPass, n),
    row(226, "timer_delete", kPass, n),
    row(227, "clock_settime", kPass, n, in(kTime)),
    row(228, "clock_gettime", kPass, n, out(kTime)),
    row(229, "clock_getres", kPass, n, out(kTime)),
    row(230, "clock_nanosleep", kPass, n, n, in(kTime), out(kTime)),
    row(231, "exit_group", kThread, n),
    row(232, "epoll_wait", kPass, fd, out(sizeof(epoll_event), int_of(2)), n, n),
    with({1}, row(233, "epoll_ctl", kPass, fd, n, fd, in(sizeof(epoll_event)))),
    row(234, "tgkill", kPass, n, n, n),
    row(235, "utimes", kPass, text, in(2 * sizeof(__kernel_old_timeval))),
    row(236, "vserver", kPass),
    row(237, "mbind", kMemory, range(1), n, n, bits(kIn, of(4), 1), n, n),
    row(238, "set_mempolicy", kPass, n, bits(kIn, of(2), 1), n),
    row(239, "get_mempolicy", kPass, out(kInt), bits(kOut, of(2), 1), n, n, n),
    row(240, "mq_open", kPass, text, n, n, in(sizeof(mq_attr))),
    row(241, "mq_unlink", kPass, text),
    row(242, "mq_timedsend", kPass, fd, in(1, of(2)), n, n, in(kTime)),
    row(243, "mq_timedreceive", kPass, fd, out(1, of(2)), n, out(kInt), in(kTime)),
    row(244, "mq_notify", kPass, fd, one(kIn, ShapeId::kEvent)),
    row(245, "mq_getsetattr", kPass, fd, in(sizeof(mq_attr)), out(sizeof(mq_attr))),
    row(246, "kexec_load", kPass, n, n, in(32, of(1)), n),
    row(247, "waitid", kPass, n, n, out(sizeof(KernelSiginfo)), n, out(sizeof(rusage))),
    row(248, "add_key", kPass, text, text, in(1, of(3)), n, n),
    row(249, "request_key", kPass, text, text, text, n),
    row(250, "keyctl", kPass, n, unknown, unknown, unknown, unknown),
    row(251, "ioprio_set", kPass, n, n, n),
    row(252, "ioprio_get", kPass, n, n),
    row(253, "inotify_init", kPass),
    row(254, "inotify_add_watch", kPass, fd, text, n),
    row(255, "inotify_rm_watch", kPass, fd, n),
    row(256, "migrate_pages", kPass, n, n, bits(kIn, of(1), 1), bits(kIn, of(1), 1)),
    row(257, "openat", kOpen, fd, text, n, n),
    row(258, "mkdirat", kPass, fd, text, n),
    row(259, "mknodat", kPass, fd, text, n, n),
    row(260, "fchownat", kPass, fd, text, n, n, n),
    row(261, "futimesat", kPass, fd, text, in(2 * sizeof(__kernel_old_timeval))),
    row(262, "newfstatat", kPass, fd, text, out(sizeof(struct stat)), n),
    row(263, "unlinkat", kPass, fd, text, n),
    row(264, "renameat", kPass, fd, text, fd, text),
    row(265, "linkat", kPass, fd, text, fd, text, n),
    row(266, "symlinkat", kPass, text, fd, text),
    row(267, "readlinkat", kPass, fd, text, out(1, int_of(3)), n),
    row(268, "fchmodat", kPass, fd, text, n),
    row(269, "faccessat", kPass, fd, text, n),
    row(270, "pselect6", kSignal, n, bits(kBoth, int_of(0)), bits(kBoth, int_of(0)),
        bits(kBoth, int_of(0)), io(kTime), one(kIn, ShapeId::kSignalSet)),
    row(271, "ppoll", kSignal, io(sizeof(pollfd), int_of(1)), n, io(kTime), in(sizeof(SignalSet)),
        n),
    row(272, "unshare", kPass, n),
    row(273, "set_robust_list", kPass, io(sizeof(robust_list_head)), n),
    row(274, "get_robust_list", kPass, n, out(kLong), out(kLong)),
    row(275, "splice", kPass, fd, io(kLoff), fd, io(kLoff), n, n),
    row(276, "tee", kPass, fd, fd, n, n),
    row(277, "sync_file_range", kPass, fd, n, n, n),
    row(278, "vmsplice", kPass, fd, structs(kIn, ShapeId::kPipeVector, of(2)), n, n),
    row(279, "move_pages", kPass, n, n, in(kLong, of(1)), in(kInt, of(1)), out(kInt, of(1)), n),
    row(280, "utimensat", kPass, fd, text, in(2 * kTime), n),
    row(281, "epoll_pwait", kSignal, fd, out(sizeof(epoll_event), int_of(2)), n, n,
        in(sizeof(SignalSet)), n),
    row(282, "signalfd", kSignal, fd, in(sizeof(SignalSet)), n),
    row(283, "timerfd_create", kPass, n, n),
    row(284, "eventfd", kPass, n),
    row(285, "fallocate", kPass, fd, n, n, n),
    row(286, "timerfd_settime", kPass, fd, n, in(sizeof(__kernel_itimerspec)),
        out(sizeof(__kernel_itimerspec))),
    row(287, "timerfd_gettime", kPass, fd, out(sizeof(__kernel_itimerspec))),
    row(288, "accept4", kPass, fd, out_at(2), io(kInt), n),
    row(289, "signalfd4", kSignal, fd, in(sizeof(SignalSet)), n, n),
    row(290, "eventfd2", kPass, n, n),
    row(291, "epoll_create1", kPass, n),
    row(292, "dup3", kDescriptor, fd, fd, n),
    row(293, "pipe2", kPass, out(2 * kInt), n),
    row(294, "inotify_init1", kPass, n),
    row(295, "preadv", kPass, fd, structs(kIn, ShapeId::kWriteVector, of(2)), n, n, n),
    row(296, "pwritev", kPass, fd, structs(kIn, ShapeId::kReadVector, of(2)), n, n, n),
    row(297, "rt_tgsigqueueinfo", kPass, n, n, n, in(sizeof(KernelSiginfo))),
    row(298, "perf_event_open", kPass, sized(kBoth, 64, 4), n, n, fd, n),
    row(299, "recvmmsg", kPass, fd, structs(kBoth, ShapeId::kReceiveMessage, int_of(2)), n, n,
        io(kTime)),
    row(300, "fanotify_init", kPass, n, n),
    row(301, "fanotify_mark", kPass, fd, n, n, fd, text),
    row(302, "prlimit64", kDescriptor, n, n, in(sizeof(rlimit64)), out(sizeof(rlimit64))),
    row(303, "name_to_handle_at", kPass, fd, text, sized(kBoth, 8, 0, 8), out(8), n),
    row(304, "open_by_handle_at", kOpen, fd, sized(kIn, 8, 0, 8), n),
    row(305, "clock_adjtime", kPass, n, io(sizeof(__kernel_timex))),
    row(306, "syncfs", kPass, fd),
    row(307, "sendmmsg", kPass, fd, structs(kBoth, ShapeId::kSendMessage, int_of(2)), n, n),
    row(308, "setns", kPass, fd, n),
    row(309, "getcpu", kPass, out(kInt), out(kInt), n),
    row(310, "process_vm_readv", kPass, n, structs(kIn, ShapeId::kWriteVector, of(2)), n,
        structs(kIn, ShapeId::kRemoteVector, of(4)), n, n),
    row(311, "process_vm_writev", kPass, n, structs(kIn, ShapeId::kReadVector, of(2)), n,
        structs(kIn, ShapeId::kRemoteVector, of(4)), n, n),
    row(312, "kcmp", kPass, n, n, n, n, n),
    row(313, "finit_module", kPass, fd, text, n),
    row(314, "sched_setattr", kPass, n, sized(kIn, 48, 0), n),
    row(315, "sched_getattr", kPass, n, out(1, int_of(2)), n, n),
    row(316, "renameat2", kPass, fd, text, fd, text, n),
    with({0}, row(317, "seccomp", kIdentity, n, n, unknown)),
    row(318, "getrandom", kPass, out(1, of(1)), n, n),
    row(319, "memfd_create", kPass, text, n),
    row(320, "kexec_file_load", kPass, fd, fd, n, in(1, of(2)), n),
    row(321, "bpf", kPass, n, io(1, int_of(2)), n),
    row(322, "execveat", kThread, fd, text, strings, strings, n),
    row(323, "userfaultfd", kPass, n),
    row(324, "membarrier", kPass, n, n, n),
    row(325, "mlock2", kMemory, range(1), n, n),
    row(326, "copy_file_range", kPass, fd, io(kLoff), fd, io(kLoff), n, n),
    row(327, "preadv2", kPass, fd, structs(kIn, ShapeId::kWriteVector, of(2)), n, n, n, n),
    row(328, "pwritev2", kPass, fd, structs(kIn, ShapeId::kReadVector, of(2)), n, n, n, n),
    row(329, "pkey_mprotect", kMemory, range(1), n, n, n),
    fails(ENOSPC, row(330, "pkey_alloc", kAbsent, n, n)),
    row(331, "pkey_free", kPass, n),
    row(332, "statx", kPass, fd, text, n, n, out(sizeof(struct statx))),
    row(333, "io_pgetevents", kSignal, n, n, n, out(sizeof(io_event), of(2)), in(kTime),
        one(kIn, ShapeId::kSignalSet)),
    fails(ENOSYS, row(334, "rseq", kAbsent, io(1, int_of(1)), n, n, n)),
    row(335, "uretprobe", kPass),
    row(336, "uprobe", kPass),
    row(424, "pidfd_send_signal", kPass, fd, n, in(sizeof(KernelSiginfo)), n),
    fails(ENOSYS, row(425, "io_uring_setup", kUnguarded, n, io(sizeof(io_uring_params)))),
    fails(ENOSYS, row(426, "io_uring_enter", kUnguarded, fd, n, n, n, in(1, of(5)), n)),
    fails(ENOSYS, row(427, "io_uring_register", kUnguarded, fd, n, unknown, n)),
    row(428, "open_tree", kPass, fd, text, n),
    row(429, "move_mount", kPass, fd, text, fd, text, n),
    row(430, "fsopen", kPass, text, n),
    with({1}, row(431, "fsconfig", kPass, fd, n, text, unknown, n)),
    row(432, "fsmount", kPass, fd, n, n),
    row(433, "fspick", kPass, fd, text, n),
    row(434, "pidfd_open", kPass, n, n),
    row(435, "clone3", kThread, sized_struct(ShapeId::kCloneArgs, of(1)), n),
    row(436, "close_range", kDescriptor, n, n, n),
    row(437, "openat2", kOpen, fd, text, in(1, of(3)), n),
    row(438, "pidfd_getfd", kDescriptor, fd, fd, n),
    row(439, "faccessat2", kPass, fd, text, n, n),
    row(440, "process_madvise", kPass, fd, structs(kIn, ShapeId::kPipeVector, of(2)), n, n, n),
    row(441, "epoll_pwait2", kSignal, fd, out(sizeof(epoll_event), int_of(2)), n, in(kTime),
        in(sizeof(SignalSet)), n),
    row(442, "mount_setattr", kPass, fd, text, n, in(1, of(4)), n),
    row(443, "quotactl_fd", kPass, fd, n, n, unknown),
    row(444, "landlock_create_ruleset", kPass, in(1, of(1)), n, n),
    with({1}, row(445, "landlock_add_rule", kPass, fd, n, in(12), n)),
    row(446, "landlock_restrict_self", kPass, fd, n),
    row(447, "memfd_secret", kPass, n),
    row(448, "process_mrelease", kPass, fd, n),
    row(449, "futex_waitv", kPass, structs(kIn, ShapeId::kFutexWait, int_of(1)), n, n, in(kTime),
        n),
    row(450, "set_mempolicy_home_node", kMemory, range(1), n, n, n),
    row(451, "cachestat", kPass, fd, in(16), out(40), n),
    row(452, "fchmodat2", kPass, fd, text, n, n),
    fails(EOPNOTSUPP, row(453, "map_shadow_stack", kAbsent, n, n, n)),
    row(454, "futex_wake", kPass, io(kInt), n, n, n),
    row(455, "futex_wait", kPass, io(kInt), n, n, n, in(kTime), n),
    row(456, "futex_requeue", kPass, two(kIn, ShapeId::kFutexWait), n, n, n),
    row(457, "statmount", kPass, sized(kIn, 24, 0), out(1, of(2)), n, n),
    row(458, "listmount", kPass, sized(kIn, 24, 0), out(8, of(2)), n, n),
    row(459, "lsm_get_self_attr", kPass, n, out_at(2), io(kInt), n),
    row(460, "lsm_set_self_attr", kPass, n, in(1, int_of(2)), n, n),
    row(461, "lsm_list_modules", kPass, out_at(1), io(kInt), n),
    row(462, "mseal", kMemory, range(1), n, n),
    row(463, "setxattrat", kPass, fd, text, n, text, sized_struct(ShapeId::kValueArgs, of(5)), n),
    row(464, "getxattrat", kPass, fd, text, n, text, sized_struct(ShapeId::kValueResult, of(5)), n),
    row(465, "listxattrat", kPass, fd, text, n, out(1, of(4)), n),
    row(466, "removexattrat", kPass, fd, text, n, text),
    row(467, "open_tree_attr", kPass, fd, text, n, in(1, of(4)), n),
    row(468, "file_getattr", kPass, fd, text, out(1, of(3)), n, n),
    row(469, "file_setattr", kPass, fd, text, in(1, of(3)), n, n),
};

constexpr unsigned kFirstGap = 337, kGapEnd = 424; // numbers that x86-64 has not given
static_assert([] {
  for (unsigned i = 0; i < std::size(kRows); i++) {
    if (kRows[i].number != (i < kFirstGap ? i : i - kFirstGap + kGapEnd))
      return false;
  }
  return true;
}());

constexpr Row kUnknownRow{};

// The operations.

template <class... Arguments>
constexpr Operation operation(unsigned number, uint32_t value, Effect effect,
                              Arguments... arguments) {
  Operation o{.number = static_cast<uint16_t>(number), .effect = effect, .value = value};
  unsigned i = 0;
  ((o.arguments[i++] = arguments), ...);
  return o;
}
constexpr Operation fails(unsigned error, Operation o) {
  o.error = static_cast<uint16_t>(error);
  return o;
}
constexpr Operation ioctl(uint32_t command, Argument argument) {
  return operation(__NR_ioctl, command, kPass, fd, n, argument);
}
// The first argument is what to do; then up to four.
template <class... Arguments> constexpr Operation prctl(uint32_t option, Arguments... arguments) {
  return operation(__NR_prctl, option, kPass, n, arguments...);
}
constexpr unsigned kTrace = 101;
template <class... Arguments> constexpr Operation trace(uint32_t request, Arguments... arguments) {
  return operation(kTrace, request, kIdentity, n, n, arguments...);
}

constexpr Operation kOperations[] = {
    operation(__NR_futex, FUTEX_WAIT, kPass, io(kInt), n, n, in(kTime), n, n),
    operation(__NR_futex, FUTEX_WAKE, kPass, io(kInt), n, n, n, n, n),
    operation(__NR_futex, FUTEX_REQUEUE, kPass, io(kInt), n, n, n, io(kInt), n),
    operation(__NR_futex, FUTEX_CMP_REQUEUE, kPass, io(kInt), n, n, n, io(kInt), n),
    operation(__NR_futex, FUTEX_WAKE_OP, kPass, io(kInt), n, n, n, io(kInt), n),
    operation(__NR_futex, FUTEX_LOCK_PI, kPass, io(kInt), n, n, in(kTime), n, n),
    operation(__NR_futex, FUTEX_UNLOCK_PI, kPass, io(kInt), n, n, n, n, n),
    operation(__NR_futex, FUTEX_TRYLOCK_PI, kPass, io(kInt), n, n, n, n, n),
    operation(__NR_futex, FUTEX_WAIT_BITSET, kPass, io(kInt), n, n, in(kTime), n, n),
    operation(__NR_futex, FUTEX_WAKE_BITSET, kPass, io(kInt), n, n, n, n, n),
    operation(__NR_futex, FUTEX_CMP_REQUEUE_PI, kPass, io(kInt), n, n, n, io(kInt), n),
    operation(__NR_futex, FUTEX_LOCK_PI2, kPass, io(kInt), n, n, in(kTime), n, n),
    operation(__NR_shmctl, IPC_RMID, kPass, n, n, n),
    operation(__NR_shmctl, IPC_SET, kPass, n, n, in(sizeof(shmid64_ds))),
    operation(__NR_shmctl, IPC_STAT, kPass, n, n, out(sizeof(shmid64_ds))),
    operation(__NR_shmctl, SHM_STAT, kPass, n, n, out(sizeof(shmid64_ds))),
    operation(__NR_shmctl, SHM_STAT_ANY, kPass, n, n, out(sizeof(shmid64_ds))),
    operation(__NR_shmctl, IPC_INFO, kPass, n, n, out(sizeof(shminfo64))),
    operation(__NR_shmctl, SHM_INFO, kPass, n, n, out(sizeof(struct shm_info))),
    operation(__NR_shmctl, SHM_LOCK, kPass, n, n, n),
    operation(__NR_shmctl, SHM_UNLOCK, kPass, n, n, n),
    operation(__NR_msgctl, IPC_RMID, kPass, n, n, n),
    operation(__NR_msgctl, IPC_SET, kPass, n, n, in(sizeof(msqid64_ds))),
    operation(__NR_msgctl, IPC_STAT, kPass, n, n, out(sizeof(msqid64_ds))),
    operation(__NR_msgctl, MSG_STAT, kPass, n, n, out(sizeof(msqid64_ds))),
    operation(__NR_msgctl, MSG_STAT_ANY, kPass, n, n, out(sizeof(msqid64_ds))),
    operation(__NR_msgctl, IPC_INFO, kPass, n, n, out(sizeof(struct msginfo))),
    operation(__NR_msgctl, MSG_INFO, kPass, n, n, out(sizeof(struct msginfo))),
    operation(__NR_semctl, IPC_RMID, kPass, n, n, n, n),
    operation(__NR_semctl, IPC_SET, kPass, n, n, n, in(sizeof(semid64_ds))),
    operation(__NR_semctl, IPC_STAT, kPass, n, n, n, out(sizeof(semid64_ds))),
    operation(__NR_semctl, SEM_STAT, kPass, n, n, n, out(sizeof(semid64_ds))),
    operation(__NR_semctl, SEM_STAT_ANY, kPass, n, n, n, out(sizeof(semid64_ds))),
    operation(__NR_semctl, IPC_INFO, kPass, n, n, n, out(sizeof(struct seminfo))),
    operation(__NR_semctl, SEM_INFO, kPass, n, n, n, out(sizeof(struct seminfo))),
    operation(__NR_semctl, SETVAL, kPass, n, n, n, n),
    operation(__NR_semctl, GETVAL, kPass, n, n, n, n),
    operation(__NR_semctl, GETPID, kPass, n, n, n, n),
    operation(__NR_semctl, GETNCNT, kPass, n, n, n, n),
    operation(__NR_semctl, GETZCNT, kPass, n, n, n, n),
    operation(__NR_setsockopt, 26 /* SO_ATTACH_FILTER */, kPass, fd, n, n,
              sized_struct(ShapeId::kProgram, int_of(4)), n),
    operation(__NR_setsockopt, 51 /* SO_ATTACH_REUSEPORT_CBPF */, kPass, fd, n, n,
              sized_struct(ShapeId::kProgram, int_of(4)), n),
    operation(__NR_fcntl, F_GETLK, kDescriptor, fd, n, io(sizeof(struct flock))),
    operation(__NR_fcntl, F_SETLK, kDescriptor, fd, n, in(sizeof(struct flock))),
    operation(__NR_fcntl, F_SETLKW, kDescriptor, fd, n, in(sizeof(struct flock))),
    operation(__NR_fcntl, F_OFD_GETLK, kDescriptor, fd, n, io(sizeof(struct flock))),
    operation(__NR_fcntl, F_OFD_SETLK, kDescriptor, fd, n, in(sizeof(struct flock))),
    operation(__NR_fcntl, F_OFD_SETLKW, kDescriptor, fd, n, in(sizeof(struct flock))),
    operation(__NR_fcntl, F_SETOWN_EX, kDescriptor, fd, n, in(sizeof(f_owner_ex))),
    operation(__NR_fcntl, F_GETOWN_EX, kDescriptor, fd, n, out(sizeof(f_owner_ex))),
    operation(__NR_fcntl, F_GETOWNER_UIDS, kDescriptor, fd, n, out(2 * kInt)),
    operation(__NR_fcntl, F_GET_RW_HINT, kDescriptor, fd, n, out(8)),
    operation(__NR_fcntl, F_SET_RW_HINT, kDescriptor, fd, n, in(8)),
    operation(__NR_fcntl, F_GET_FILE_RW_HINT, kDescriptor, fd, n, out(8)),
    operation(__NR_fcntl, F_SET_FILE_RW_HINT, kDescriptor, fd, n, in(8)),
    operation(__NR_sysfs, 1, kPass, n, text), operation(__NR_sysfs, 2, kPass, n, n, unknown),
    operation(__NR_sysfs, 3, kPass, n),
    operation(__NR_epoll_ctl, EPOLL_CTL_DEL, kPass, fd, n, fd, n),
    operation(__NR_fsconfig, 0 /* SET_FLAG */, kPass, fd, n, text, n, n),
    operation(__NR_fsconfig, 1 /* SET_STRING */, kPass, fd, n, text, text, n),
    operation(__NR_fsconfig, 2 /* SET_BINARY */, kPass, fd, n, text, in(1, int_of(4)), n),
    operation(__NR_fsconfig, 3 /* SET_PATH */, kPass, fd, n, text, text, fd),
    operation(__NR_fsconfig, 4 /* SET_PATH_EMPTY */, kPass, fd, n, text, text, fd),
    operation(__NR_fsconfig, 5 /* SET_FD */, kPass, fd, n, text, n, fd),
    operation(445, 2 /* NET_PORT */, kPass, fd, n, in(16), n),
    operation(__NR_arch_prctl, ARCH_SET_GS, kIdentity, n, n),
    operation(__NR_arch_prctl, ARCH_SET_FS, kIdentity, n, n),
    operation(__NR_arch_prctl, ARCH_GET_FS, kIdentity, n, out(kLong)),
    operation(__NR_arch_prctl, ARCH_GET_GS, kIdentity, n, out(kLong)),
    operation(__NR_arch_prctl, ARCH_GET_CPUID, kPass, n, n),
    operation(__NR_arch_prctl, ARCH_SET_CPUID, kPass, n, n),
    operation(__NR_arch_prctl, ARCH_GET_XCOMP_SUPP, kPass, n, out(kLong)),
    operation(__NR_arch_prctl, ARCH_GET_XCOMP_PERM, kPass, n, out(kLong)),
    fails(EOPNOTSUPP, operation(__NR_arch_prctl, ARCH_REQ_XCOMP_PERM, kAbsent, n, n)),
    fails(EOPNOTSUPP, operation(__NR_arch_prctl, 0x5001 /* ARCH_SHSTK_ENABLE */, kAbsent, n, n)),
    operation(__NR_arch_prctl, 0x5005 /* ARCH_SHSTK_STATUS */, kPass, n, out(kLong)),
    operation(__NR_seccomp, SECCOMP_SET_MODE_STRICT, kIdentity, n, n, n),
    operation(__NR_seccomp, SECCOMP_SET_MODE_FILTER, kIdentity, n, n, one(kIn, ShapeId::kProgram)),
    operation(__NR_seccomp, SECCOMP_GET_ACTION_AVAIL, kPass, n, n, in(kInt)),
    operation(__NR_seccomp, SECCOMP_GET_NOTIF_SIZES, kPass, n, n, out(sizeof(seccomp_notif_sizes))),

    prctl(PR_SET_PDEATHSIG, n), prctl(PR_GET_PDEATHSIG, out(kInt)), prctl(PR_GET_DUMPABLE),
    prctl(PR_SET_DUMPABLE, n), prctl(PR_GET_UNALIGN, out(kInt)), prctl(PR_GET_KEEPCAPS),
    prctl(PR_SET_KEEPCAPS, n), prctl(PR_GET_FPEMU, out(kInt)), prctl(PR_GET_FPEXC, out(kInt)),
    prctl(PR_GET_TIMING), prctl(PR_SET_TIMING, n), prctl(PR_SET_NAME, text_of(16)),
    prctl(PR_GET_NAME, out(16)), prctl(PR_GET_ENDIAN, out(kInt)), prctl(PR_GET_SECCOMP),
    operation(__NR_prctl, PR_SET_SECCOMP, kIdentity, n, n,
              when(When::kFilterMode, one(kIn, ShapeId::kProgram))),
    prctl(PR_CAPBSET_READ, n), prctl(PR_CAPBSET_DROP, n), prctl(PR_GET_TSC, out(kInt)),
    operation(__NR_prctl, PR_SET_TSC, kIdentity, n, n), prctl(PR_GET_SECUREBITS),
    prctl(PR_SET_SECUREBITS, n), prctl(PR_SET_TIMERSLACK, n), prctl(PR_GET_TIMERSLACK),
    prctl(PR_SET_MM, n, unknown, n, n), prctl(PR_SET_PTRACER, n), prctl(PR_SET_CHILD_SUBREAPER, n),
    prctl(PR_GET_CHILD_SUBREAPER, out(kInt)), prctl(PR_SET_NO_NEW_PRIVS, n),
    prctl(PR_GET_NO_NEW_PRIVS), prctl(PR_GET_TID_ADDRESS, out(kLong)), prctl(PR_SET_THP_DISABLE, n),
    prctl(PR_GET_THP_DISABLE), prctl(PR_CAP_AMBIENT, n, n), prctl(PR_GET_SPECULATION_CTRL, n),
    prctl(PR_SET_SPECULATION_CTRL, n, n), prctl(PR_SET_IO_FLUSHER, n), prctl(PR_GET_IO_FLUSHER),
    // Every call that the host loop makes would be one outside the program's range.
    fails(EINVAL, operation(__NR_prctl, PR_SET_SYSCALL_USER_DISPATCH, kAbsent, n, n, n, n, in(1))),
    prctl(PR_SCHED_CORE, n, n, n, out(8)), prctl(65, n, n),                       // PR_SET_MDWE
    prctl(66),                                                                    // PR_GET_MDWE
    prctl(PR_SET_VMA, n, n, n, text_of(80)), prctl(0x41555856, out(1, of(2)), n), // PR_GET_AUXV

    // ptrace's own header is not for us.
    trace(0, n, n),                                      // TRACEME
    trace(1, n, out(kLong)),                             // PEEKTEXT
    trace(2, n, out(kLong)),                             // PEEKDATA
    trace(3, n, out(kLong)),                             // PEEKUSER
    trace(4, n, n),                                      // POKETEXT
    trace(5, n, n),                                      // POKEDATA
    trace(6, n, n),                                      // POKEUSER
    trace(7, n, n),                                      // CONT
    trace(8, n, n),                                      // KILL
    trace(9, n, n),                                      // SINGLESTEP
    trace(12, n, out(27 * kLong)),                       // GETREGS
    trace(13, n, in(27 * kLong)),                        // SETREGS
    trace(14, n, out(512)),                              // GETFPREGS
    trace(15, n, in(512)),                               // SETFPREGS
    trace(16, n, n),                                     // ATTACH
    trace(17, n, n),                                     // DETACH
    trace(24, n, n),                                     // SYSCALL
    trace(25, n, out(sizeof(user_desc))),                // GET_THREAD_AREA
    trace(26, n, in(sizeof(user_desc))),                 // SET_THREAD_AREA
    trace(0x4200, n, n),                                 // SETOPTIONS
    trace(0x4201, n, out(kLong)),                        // GETEVENTMSG
    trace(0x4202, n, out(sizeof(KernelSiginfo))),        // GETSIGINFO
    trace(0x4203, n, in(sizeof(KernelSiginfo))),         // SETSIGINFO
    trace(0x4204, n, one(kBoth, ShapeId::kRegisterSet)), // GETREGSET
    trace(0x4205, n, one(kBoth, ShapeId::kRegisterSet)), // SETREGSET
    trace(0x4206, n, n),                                 // SEIZE
    trace(0x4207, n, n),                                 // INTERRUPT
    trace(0x4208, n, n),                                 // LISTEN
    trace(0x4209, in(16), unknown),                      // PEEKSIGINFO
    trace(0x420a, n, out(sizeof(SignalSet))),            // GETSIGMASK
    trace(0x420b, n, in(sizeof(SignalSet))),             // SETSIGMASK
    trace(0x420d, n, out(1, of(2))),                     // SECCOMP_GET_METADATA
    trace(0x420e, n, out(1, of(2))),                     // GET_SYSCALL_INFO
    trace(0x420f, n, out(1, of(2))),                     // GET_RSEQ_CONFIGURATION
    trace(0x4210, n, in(1, of(2))),                      // SET_SYSCALL_USER_DISPATCH_CONFIG
    trace(0x4211, n, out(1, of(2))),                     // GET_SYSCALL_USER_DISPATCH_CONFIG
    trace(0x4212, n, in(1, of(2))),                      // SET_SYSCALL_INFO

    // What has no size in its number, or addresses inside.
    ioctl(TCGETS, out(36)), // the kernel's termios
    ioctl(TCSETS, in(36)), ioctl(TCSETSW, in(36)), ioctl(TCSETSF, in(36)),
    ioctl(TCGETA, out(18)), // termio
    ioctl(TCSETA, in(18)), ioctl(TCSETAW, in(18)), ioctl(TCSETAF, in(18)), ioctl(TCSBRK, n),
    ioctl(TCXONC, n), ioctl(TCFLSH, n), ioctl(TIOCSCTTY, n), ioctl(TIOCNOTTY, n),
    ioctl(TIOCGPGRP, out(kInt)), ioctl(TIOCSPGRP, in(kInt)), ioctl(TIOCGSID, out(kInt)),
    ioctl(TIOCOUTQ, out(kInt)), ioctl(TIOCSTI, in(1)), ioctl(TIOCGWINSZ, out(8)),
    ioctl(TIOCSWINSZ, in(8)), ioctl(TIOCMGET, out(kInt)), ioctl(TIOCMBIS, in(kInt)),
    ioctl(TIOCMBIC, in(kInt)), ioctl(TIOCMSET, in(kInt)), ioctl(TIOCGETD, out(kInt)),
    ioctl(TIOCSETD, in(kInt)), ioctl(FIONREAD, out(kInt)), ioctl(FIONBIO, in(kInt)),
    ioctl(FIOASYNC, in(kInt)), ioctl(FIONCLEX, n), ioctl(FIOCLEX, n), ioctl(FIOQSIZE, out(8)),
    ioctl(SIOCGIFCONF, one(kBoth, ShapeId::kInterfaces)),
    ioctl(UFFDIO_REGISTER, one(kBoth, ShapeId::kFaultRange)),
    ioctl(UFFDIO_UNREGISTER, one(kBoth, ShapeId::kFaultRange)),
    ioctl(UFFDIO_WAKE, one(kBoth, ShapeId::kFaultRange)),
    ioctl(UFFDIO_COPY, one(kBoth, ShapeId::kFaultCopy)),
    ioctl(UFFDIO_ZEROPAGE, one(kBoth, ShapeId::kFaultRange)),
    ioctl(UFFDIO_WRITEPROTECT, one(kBoth, ShapeId::kFaultRange)),
    ioctl(UFFDIO_CONTINUE, one(kBoth, ShapeId::kFaultRange)),
    ioctl(_IOWR(UFFDIO, 0x05, char[40]), one(kBoth, ShapeId::kFaultCopy)),  // UFFDIO_MOVE
    ioctl(_IOWR(UFFDIO, 0x08, char[32]), one(kBoth, ShapeId::kFaultRange)), // UFFDIO_POISON
    ioctl(KVM_SET_USER_MEMORY_REGION, one(kIn, ShapeId::kGuestMemory)),
    ioctl(_IOW(KVMIO, 0x49, char[160]), one(kIn, ShapeId::kGuestMemory)), // ..._REGION2
    ioctl(_IOWR('f', 16, char[96]), one(kBoth, ShapeId::kPageScan)),      // PAGEMAP_SCAN
};

} // namespace

std::span<const Row> all_rows() { return kRows; }
std::span<const Operation> all_operations() { return kOperations; }

const Row& policy_of(uint32_t number) {
  if (number < kFirstGap)
    return kRows[number];
  const uint32_t index = number - kGapEnd + kFirstGap;
  return number >= kGapEnd && index < std::size(kRows) ? kRows[index] : kUnknownRow;
}

const Shape& shape_at(uint8_t index) { return kShapes[index]; }
const Field& field_at(unsigned index) { return kFields[index].field; }
const Condition& condition_of(When when) { return kConditions[static_cast<uint8_t>(when)]; }

} // namespace dune::process
