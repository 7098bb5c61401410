// What is ours in the program's process, and how a call answers that names it among other things.
#include "libdune/arch/syscall.h"
#include "libdune/process/calls.h"

#include <linux/close_range.h>
#include <linux/errno.h>
#include <linux/mempolicy.h>
#include <linux/mman.h>
#include <linux/shm.h>

namespace dune::process {
namespace {

using Act = Policy::Act;

constexpr Policy answer(long value) { return {Act::kAnswer, value}; }

// In whole pages, as the kernel takes a length.
TargetRange pages(uint64_t begin, uint64_t size) {
  uint64_t end;
  if (__builtin_add_overflow(begin, size, &end) || end > ~uint64_t{0} - kPageSize)
    return {}; // refused by the kernel
  return {TargetAddr(begin).align_down(kPageSize), TargetAddr(end).align_up(kPageSize)};
}
template <class Addr> bool overlaps(const Range<Addr>& range, std::span<const Range<Addr>> ours) {
  for (const Range<Addr>& r : ours) {
    if (r.overlaps(range))
      return true;
  }
  return false;
}

// Takes any address of a page for its beginning.
bool rounds_down(const Row& row) {
  return row.number == __NR_mlock || row.number == __NR_mlock2 || row.number == __NR_munlock ||
         row.number == __NR_remap_file_pages;
}

// What shmat is to attach; 0: nothing that can be attached.
uint64_t segment_size(int id) {
  shmid64_ds segment;
  return is_errno(syscall_of(__NR_shmctl, id, IPC_STAT, &segment)) ? 0 : segment.shm_segsz;
}

Policy remap_policy(const long args[kMostArguments], std::span<const TargetRange> ours) {
  const auto flags = static_cast<uint64_t>(args[3]);
  if (overlaps(pages(args[0], args[1] ? args[1] : 1), ours))
    return answer(-EFAULT);
  if ((flags & MREMAP_FIXED) && overlaps(pages(args[4], args[2]), ours))
    return answer(-ENOMEM);
  return {};
}

// A row whose first two arguments are a range of which some is ours. `argument` is number 2.
Policy policy_of_overlap(const Row& row, const TargetRange& range, uint32_t argument,
                         std::span<const TargetRange> ours) {
  switch (row.number) {
  case __NR_munmap:
    return {Act::kPieces, 0};
  case __NR_madvise:
  case __NR_msync:
    return {Act::kPieces, -ENOMEM};
  case __NR_mprotect:
  case __NR_pkey_mprotect:
    // To where the mapping there grows; ours do not.
    return argument & (PROT_GROWSDOWN | PROT_GROWSUP) ? answer(-EINVAL)
                                                      : Policy{Act::kFirstPiece, -ENOMEM};
  case __NR_mbind:
    return argument == MPOL_DEFAULT && next_piece(range, range.begin, ours)
               ? Policy{Act::kPieces, 0}
               : answer(-EFAULT);
  case __NR_remap_file_pages:
    return answer(-EINVAL);
  case 462: // mseal
    return answer(-ENOMEM);
  case __NR_set_mempolicy_home_node:
    return answer(-ENOENT);
  default: // mincore, mlock, mlock2, munlock
    return {Act::kFirstPiece, -ENOMEM};
  }
}

} // namespace

TargetRange range_of(const long args[kMostArguments]) { return pages(args[0], args[1]); }

Policy memory_policy(const Row& row, const long args[kMostArguments],
                     std::span<const TargetRange> ours) {
  const auto begin = static_cast<uint64_t>(args[0]), size = static_cast<uint64_t>(args[1]);
  switch (row.number) {
  case __NR_mmap: {
    const bool replaces = (args[3] & MAP_FIXED) && !(args[3] & MAP_FIXED_NOREPLACE);
    return replaces && overlaps(pages(begin, size), ours) ? answer(-ENOMEM) : Policy{};
  }
  case __NR_mremap:
    return remap_policy(args, ours);
  case __NR_shmat: {
    const auto flags = static_cast<uint32_t>(args[2]);
    const auto address = static_cast<uint64_t>(args[1]);
    if (!(flags & SHM_REMAP) || address == 0)
      return {};
    const TargetRange attached = pages(address & ~(kPageSize - 1), segment_size(args[0]));
    return overlaps(attached, ours) ? answer(-EINVAL) : Policy{};
  }
  default:
    if (row.arguments[0].kind != Kind::kRange || (begin % kPageSize != 0 && !rounds_down(row)))
      return {}; // the kernel refuses the latter
    return overlaps(pages(begin, size), ours)
               ? policy_of_overlap(row, range_of(args), static_cast<uint32_t>(args[2]), ours)
               : Policy{};
  }
}

namespace {
template <class Addr>
std::optional<Range<Addr>> piece(Range<Addr> whole, Addr from, std::span<const Range<Addr>> ours) {
  Addr begin = from > whole.begin ? from : whole.begin;
  Addr end = whole.end;
  for (const Range<Addr>& r : ours) {
    if (r.contains(begin))
      begin = r.end;
    else if (r.begin > begin && r.begin < end)
      end = r.begin;
  }
  return begin < end ? std::optional(Range<Addr>{begin, end}) : std::nullopt;
}

Policy close_range_policy(const long args[kMostArguments], std::span<const DescriptorRange> ours) {
  const auto first = static_cast<uint32_t>(args[0]), last = static_cast<uint32_t>(args[1]),
             flags = static_cast<uint32_t>(args[2]);
  if (first > last || (flags & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC)))
    return {};
  return overlaps({Descriptor(first), Descriptor(uint64_t{last} + 1)}, ours)
             ? Policy{Act::kPieces, 0}
             : Policy{};
}
} // namespace

std::optional<TargetRange> next_piece(TargetRange whole, TargetAddr from,
                                      std::span<const TargetRange> ours) {
  return piece(whole, from, ours);
}
std::optional<DescriptorRange> next_piece(DescriptorRange whole, Descriptor from,
                                          std::span<const DescriptorRange> ours) {
  return piece(whole, from, ours);
}

Policy descriptor_policy(const Row& row, const long args[kMostArguments],
                         std::span<const DescriptorRange> ours) {
  if (row.effect == Effect::kDescriptor && row.number == __NR_close_range)
    return close_range_policy(args, ours);
  if (row.number == __NR_mmap && (args[3] & MAP_ANONYMOUS))
    return {};
  const Operation* operation = operation_of(row, args);
  const Argument* arguments = operation ? operation->arguments : row.arguments;
  for (unsigned i = 0; i < kMostArguments; i++) {
    const auto number = static_cast<int32_t>(args[i]);
    if (arguments[i].kind != Kind::kDescriptor || number < 0)
      continue;
    const Descriptor descriptor(static_cast<uint32_t>(number));
    if (overlaps({descriptor, descriptor + 1}, ours))
      return answer(-EBADF);
  }
  return {};
}

namespace {
// The number in "…/12/NAME".
template <size_t N>
std::optional<int32_t> number_before(std::span<const char> path, const char (&name)[N]) {
  constexpr size_t kLength = N - 1;
  if (path.size() < kLength)
    return std::nullopt;
  const size_t end = path.size() - kLength;
  for (size_t i = 0; i < kLength; i++) {
    if (path[end + i] != name[i])
      return std::nullopt;
  }
  size_t begin = end;
  while (begin > 0 && path[begin - 1] >= '0' && path[begin - 1] <= '9')
    begin--;
  if (begin == end || begin == 0 || path[begin - 1] != '/')
    return std::nullopt;
  uint64_t number = 0;
  for (size_t i = begin; i < end; i++) {
    number = number * 10 + static_cast<uint64_t>(path[i] - '0');
    if (number > INT32_MAX)
      return std::nullopt;
  }
  return static_cast<int32_t>(number);
}
} // namespace

std::optional<int32_t> memory_file_of(std::span<const char> path) {
  return number_before(path, "/mem");
}

std::optional<ProcessFolder> process_folder_of(std::span<const char> path) {
  if (const auto thread = number_before(path, "/task"))
    return ProcessFolder{FolderKind::kThreads, *thread};
  auto thread = number_before(path, "/fd");
  if (!thread)
    thread = number_before(path, "/fdinfo");
  return thread ? std::optional(ProcessFolder{FolderKind::kDescriptors, *thread}) : std::nullopt;
}

} // namespace dune::process
