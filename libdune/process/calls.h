// The policy of system calls in Dune mode: what the host loop has to do for each call, and which of
// its arguments name memory or descriptors, so that those of ours stay out of the program's reach.
// One row per system call of x86-64 up to Linux 6.18, in calls_table.cpp.
//
// How a call is made:
//   1. policy_of() the number, of which the kernel looks at the low 32 bits. An unknown one passes.
//   2. descriptor_policy(): a descriptor of ours answers as one that is not open.
//   3. memory_policy(), for rows with Effect::kMemory: a range of ours answers as a hole would.
//   4. Where the agent is protected, names_memory(): true means EFAULT, as of memory that is not
//      there. It hands out arguments whose arrays the kernel is to read in our copy.
//   5. What Effect says, then finish().
//
// What remains open, where the agent is protected:
// * Nested structures that are not copied (Shape::copied) or did not fit into the room: the kernel
//   reads them again, and another thread may have changed them meanwhile.
// * Structures that drivers follow further than Operation says; bpf(2), keyctl(2), quotactl(2):
//   there only an argument that is itself an address of ours is seen.
// * Extents that are not known here (Kind::kUnknown) count from their first byte. So below our
//   memory has to be a gap, of the 16 KiB that an ioctl can name.
// * What the kernel does to an address later: the robust list at the end of a thread, whose lock
//   words it only changes if they hold that thread's number.
// * A process that shares our memory (CLONE_VM without CLONE_THREAD) can name it by its own means:
//   it has a number of its own, for which process_vm_writev and /proc/PID/mem are not ours.
// * Pollsets, epoll sets, control messages (SCM_RIGHTS) and names below /proc/self/fd reach our
//   descriptors.
// * What root can do to any process by way of the kernel (/dev/mem, bpf, modules, kexec).
//
// Freestanding-clean. Tables have no addresses in them: nobody relocates the agent.
#pragma once

#include "libdune/base/types.h"

#include <cstdint>
#include <optional>
#include <span>

namespace dune::process {

// What the host loop has to do for a call.
enum class Effect : uint8_t {
  kPass, // make it
  // Changes what is mapped, or how: memory_policy() says which parts to make it for; under the
  // address space's lock, with the tables cleared before it.
  kMemory,
  // Makes or ends a thread or process, or replaces the image: made by its own code, never as it is.
  kThread,
  // Handlers, masks, the alternate stack, waits with a mask: goes to the agent, as without a guest.
  kSignal,
  // Closes, duplicates, renumbers, lists or limits descriptors: descriptor_policy() says for which
  // to make it, and its own code keeps ours out of what it says.
  kDescriptor,
  // Opens a file by name. One that is open for writing afterwards and is a thread of ours' memory
  // (memory_file_of()) is closed again, and the answer is EACCES, as where ptrace is not allowed.
  // Reading it changes nothing, and passes.
  kOpen,
  // Concerns registers that are the guest's, or how the kernel takes this thread's calls: FS and GS
  // by arch_prctl, seccomp, ptrace. Goes to its own code.
  kIdentity,
  // Answered with Row::error, not made: what it promises cannot be kept in a guest.
  kAbsent,
  // As kAbsent where the agent is protected, as kPass elsewhere: what it does later by itself
  // cannot be looked at before. Programs notice that io_uring is not there, as in most containers.
  kUnguarded,
};

enum class Kind : uint8_t {
  kNone,        // no such argument
  kNumber,      // a value
  kDescriptor,  // an int
  kRange,       // memory that the call manages and does not touch: memory_policy's
  kBytes,       // fixed + factor * count, of which the kernel moves less than 2 GiB at once
  kRegion,      // as many as the count, however many
  kBytesAt,     // as many as the u32 says that the count is the address of
  kSizedWithin, // a u32 in itself, at `count`, says: at least fixed, else that many + factor
  kBits,        // longs with as many bits as the count less `factor`
  kString,      // up to a zero byte, at most `fixed`
  kPages,       // a byte for each page of the count's bytes
  kStructs,     // an array of Shapes, `fixed` many and factor * the count
  kSizedStruct, // one Shape, of which the count says how many bytes are there
  kStrings,     // addresses of strings, up to a zero
  kUnknown,     // perhaps an address
  kIoctl,       // what the number of the ioctl says, in argument 1
};
enum class Access : uint8_t { kNone, kRead, kWrite, kBoth }; // by the kernel

// A condition on other arguments or fields, in calls_table.cpp.
enum class When : uint8_t {
  kAlways,
  kOwnProcess, // argument 0 is the number of a thread of this process
  kParentTid,
  kChildTid,
  kFilterMode,
  kReadsBuffer,
  kWritesBuffer,
  kReadsVector,
  kWritesVector,
  kNotifiesThread,
};

// An argument, or a field of a structure. `count` is the place of another: 8 times the argument's
// number, or the field's offset.
struct Argument {
  Kind kind = Kind::kNone;
  Access access = Access::kNone;
  When when = When::kAlways;
  uint8_t shape = 0;
  uint8_t count = 0;
  uint8_t narrow = 0; // the count is an int
  uint16_t fixed = 0;
  uint16_t factor = 0;

  constexpr bool is_pointer() const {
    return kind >= Kind::kBytes; // or may be one
  }
};
inline constexpr unsigned kMostArguments = 6;

struct Row {
  uint16_t number = 0;
  Effect effect = Effect::kPass;
  uint8_t argument_count = 0;
  uint16_t error = 0;          // kAbsent, kUnguarded: the errno
  uint16_t selector_flags = 0; // bits of the selector that do not tell
  uint8_t selector = 0xff;     // the argument that says which Operation it is, if any
  char name[24] = {};
  Argument arguments[kMostArguments] = {};
};

// What is known of one operation of a call (its selector's value): these arguments instead.
struct Operation {
  uint16_t number;
  Effect effect;
  uint32_t value;
  uint16_t error = 0;
  Argument arguments[kMostArguments] = {};
};

std::span<const Row> all_rows();
std::span<const Operation> all_operations();

// Of a number without a row: passes, has no name and no arguments.
const Row& policy_of(uint32_t number);
// The native call whose row holds for one of 32 bits, too, if there is one.
std::optional<uint32_t> native_of_32_bits(uint32_t number);
inline bool is_known(const Row& row) { return row.name[0] != 0; }
// Whatever its arguments are, but for descriptors of ours.
inline bool passes_always(const Row& row) {
  return is_known(row) && row.effect == Effect::kPass && row.selector == 0xff;
}
// Null: the row itself says all.
const Operation* operation_of(const Row&, const long args[kMostArguments]);
Effect effect_of(const Row&, const long args[kMostArguments]);
uint16_t error_of(const Row&, const long args[kMostArguments]);

// Reads the program's memory; false if it cannot be read.
struct Reader {
  bool (*read)(void* context, void* to, TargetAddr from, uint64_t size);
  void* context;
  bool operator()(void* to, TargetAddr from, uint64_t size) const {
    return read(context, to, from, size);
  }
};
struct Writer {
  bool (*write)(void* context, TargetAddr to, const void* from, uint64_t size);
  void* context;
  bool operator()(TargetAddr to, const void* from, uint64_t size) const {
    return write(context, to, from, size);
  }
};

// The arguments that the kernel gets instead of the program's: arrays of iovecs, message headers
// and the like are copied into the room, as far as it has place, and the copies are what was looked
// at and what the kernel reads. 512 bytes are good for eight iovecs in each of four messages.
class CallCopy {
public:
  explicit CallCopy(std::span<std::byte> room) : room_(room) {}
  const long* arguments() const { return arguments_; }
  // After the call, with its result: what the kernel has written into copies goes to the program.
  // Returns the call's result, or -EFAULT if that cannot be written.
  long finish(long result, Writer) const;

private:
  friend class Walk;
  std::byte* take(uint64_t size);

  // What the kernel writes into, of the copies; no call has two.
  struct Written {
    TargetAddr from;
    std::byte* copy;
    uint32_t count;
    uint8_t shape;
    bool counted; // the call's result says how many
  };
  std::span<std::byte> room_;
  size_t used_ = 0;
  long arguments_[kMostArguments] = {};
  Written written_ = {};
};

// True if the call would read or write memory in `ours`. A structure that cannot be read is none:
// the kernel cannot read it either. With `copy`, its arguments() are to be used for the call.
bool names_memory(const Row&, const long args[kMostArguments], std::span<const TargetRange> ours,
                  Reader, CallCopy* copy = nullptr);

// What becomes of a call for a range or descriptors of which some are ours.
struct Policy {
  enum class Act : uint8_t {
    kAsIs,
    kAnswer, // do not make it
    // Make it for each piece that is not ours (next_piece), with arguments 0 and 1 set for it; the
    // first error is the answer, else `answer`.
    kPieces,
    kFirstPiece, // the same for the piece that argument 0 is in, if it is in one
  };
  Act act = Act::kAsIs;
  long answer = 0;
};

// For Effect::kMemory. Ranges of ours are in pages and by rising address.
//   mmap MAP_FIXED        ENOMEM: the kernel's answer where an address cannot be had
//   munmap                the pieces, 0: "not an error if the range does not contain any mapping"
//   mremap                EFAULT for the old range: "an invalid address for this process" (one that
//                         gets shorter the kernel itself would let have holes); ENOMEM for the new
//   mprotect, mincore,    the piece before ours, then ENOMEM: pages "that are not mapped"
//   mlock, munlock
//   madvise, msync        the pieces, then ENOMEM: the kernel goes on behind a hole and says so
//   mseal                 ENOMEM: it looks for holes before it does anything
//   mbind                 the pieces, 0, for the default policy; else EFAULT: "there was an
//   unmapped
//                         hole in the specified memory range"
//   remap_file_pages,     EINVAL: no such mapping; for shmat an address that cannot be had
//   shmat
//   set_mempolicy_home_node  ENOENT, as for a range without a policy
// What else is wrong with such a call shows if a part of it is made. brk, shmdt, io_setup and what
// has no fixed address meet our mappings in the kernel, which gives the right answer.
Policy memory_policy(const Row&, const long args[kMostArguments],
                     std::span<const TargetRange> ours);

// The pages of such a call's arguments 0 and 1.
TargetRange range_of(const long args[kMostArguments]);

// The part of `whole` at or after `from` that is not ours.
std::optional<TargetRange> next_piece(TargetRange whole, TargetAddr from,
                                      std::span<const TargetRange> ours);

using Descriptor = Address<struct DescriptorTag>; // its number
using DescriptorRange = Range<Descriptor>;

// For every call. `ours` by rising number. EBADF for one of ours, which is also dup2's answer for a
// number beyond RLIMIT_NOFILE; close_range: kPieces of [argument 0, argument 1 + 1).
Policy descriptor_policy(const Row&, const long args[kMostArguments],
                         std::span<const DescriptorRange> ours);
std::optional<DescriptorRange> next_piece(DescriptorRange whole, Descriptor from,
                                          std::span<const DescriptorRange> ours);

// Whose memory a file of procfs is, by what /proc/self/fd/N says of it ("/proc/12/mem",
// "/proc/12/task/14/mem", wherever procfs is mounted): the number of a thread, which is ours if
// tgkill finds it in our process. Nothing if it is another file.
std::optional<int32_t> memory_file_of(std::span<const char> path);

// The same of a folder of procfs that shows what a process has.
enum class FolderKind : uint8_t { kDescriptors, kThreads };
struct ProcessFolder {
  FolderKind kind;
  int32_t thread; // whose
};
std::optional<ProcessFolder> process_folder_of(std::span<const char> path);

} // namespace dune::process
