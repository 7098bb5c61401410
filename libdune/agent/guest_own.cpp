// What is the guest's among the program's descriptors and threads, and that it does not show.
#include "libdune/agent/guest_loop.h"

#include <linux/fcntl.h>
#include <linux/magic.h>

#include <asm/statfs.h>

namespace dune::agent {

using namespace session;

namespace {

template <class F> void each_own_descriptor(F&& f) {
  const GuestRoom& room = guest_room();
  f(room.guest.device);
  f(room.guest.vm);
  f(room.memory.descriptor());
  each_slot_with_processor([&](const GuestSlot& slot) {
    f(slot.cpu.fd);
    for (const int counter : slot.counters)
      if (counter > 0)
        f(counter);
  });
}

} // namespace

// The guest's descriptors, by rising number. Returns how many ranges. They lie close together, in
// any order; so there is no end of ranges unless the program has its own among them, which are out
// of its reach then.
uint32_t own_descriptors(process::DescriptorRange (&found)[8]) {
  constexpr uint64_t kWindow = 2048;
  uint32_t count = 0;
  for (uint64_t from = 0;;) {
    uint64_t first = ~uint64_t{0};
    each_own_descriptor([&](int fd) {
      if (const auto n = static_cast<uint64_t>(fd); n >= from && n < first)
        first = n;
    });
    if (first > INT32_MAX)
      return count;
    uint64_t taken[kWindow / 64] = {};
    each_own_descriptor([&](int fd) {
      if (const uint64_t n = static_cast<uint64_t>(fd) - first; n < kWindow)
        taken[n / 64] |= uint64_t{1} << n % 64;
    });
    uint64_t n = 0;
    while (n < kWindow && (taken[n / 64] >> n % 64 & 1))
      ++n;
    from = first + n;
    const process::Descriptor begin(first), end(from);
    if (count > 0 && (found[count - 1].end == begin || count == 8))
      found[count - 1].end = end;
    else
      found[count++] = {begin, end};
  }
}

namespace {

template <size_t N> long call_on(long number, const char (&path)[N], long more = 0, long most = 0) {
  return syscall_of(number, AT_FDCWD, reinterpret_cast<uint64_t>(path), more, most);
}

template <size_t N> char* append(char* to, const char (&text)[N]) {
  memcpy(to, text, N - 1);
  return to + N - 1;
}
char* append(char* to, uint32_t number) {
  char digits[10];
  int n = 0;
  do
    digits[n++] = static_cast<char>('0' + number % 10);
  while (number /= 10);
  while (n > 0)
    *to++ = digits[--n];
  return to;
}

// What /proc says of a descriptor, cut off where there is no more room; empty: nothing.
template <size_t N> std::span<const char> path_of(int fd, char (&path)[N]) {
  char link[32];
  *append(append(link, "/proc/self/fd/"), static_cast<uint32_t>(fd)) = 0;
  const long size = call_on(__NR_readlinkat, link,
                            static_cast<long>(reinterpret_cast<uint64_t>(path)), sizeof path);
  return {path, is_errno(size) ? 0 : static_cast<size_t>(size)};
}

bool is_in_process(int32_t thread) {
  return !is_errno(syscall_of(__NR_tgkill, agent_config.target_pid, thread, 0));
}

// Of this process, the guest's or the program's.
std::optional<process::FolderKind> own_folder(int fd) {
  struct statfs64 filesystem;
  if (is_errno(syscall_of(__NR_fstatfs, fd, reinterpret_cast<uint64_t>(&filesystem))) ||
      filesystem.f_type != PROC_SUPER_MAGIC)
    return std::nullopt;
  char path[64];
  const auto folder = process::process_folder_of(path_of(fd, path));
  if (!folder || !is_in_process(folder->thread))
    return std::nullopt;
  return folder->kind;
}

bool is_program_thread(uint32_t tid) {
  for (uint32_t i = 0; i < header().slots_in_use.load() && i < kThreadSlots; ++i)
    if (the_session().threads[i].tid == tid)
      return true;
  return false;
}

// The one that KVM makes in a process with a guest, by its name in the kernel.
bool is_kvm_thread(uint32_t tid) {
  static constexpr char kName[] = "kvm-nx-lpage-re\n";
  if (is_program_thread(tid))
    return false;
  char path[48], name[sizeof kName] = {};
  char* end = append(append(path, "/proc/self/task/"), tid);
  *append(end, "/comm") = 0;
  const long fd = call_on(__NR_openat, path, O_RDONLY | O_CLOEXEC);
  if (is_errno(fd))
    return false;
  syscall_of(__NR_read, fd, reinterpret_cast<uint64_t>(name), sizeof name);
  syscall_of(__NR_close, fd);
  return __builtin_memcmp(name, kName, sizeof kName - 1) == 0;
}

bool is_ours(process::FolderKind kind, uint32_t number) {
  if (kind == process::FolderKind::kThreads)
    return is_kvm_thread(number);
  process::DescriptorRange found[8];
  const uint32_t count = own_descriptors(found);
  for (uint32_t i = 0; i < count; ++i)
    if (found[i].contains(process::Descriptor(number)))
      return true;
  return false;
}

// An entry of either call as far as it matters: a number is not longer.
struct Entry {
  uint8_t bytes[32];
  uint16_t size;
};
constexpr uint64_t kLeastEntry = 24, kSizeOffset = 16;

bool read_entry(ThreadBlock* t, uint64_t at, uint64_t most, Entry* e) {
  *e = {};
  if (most < kLeastEntry || !read_user(t, &e->size, at + kSizeOffset, sizeof e->size) ||
      e->size < kLeastEntry || e->size > most)
    return false;
  return read_user(t, e->bytes, at, e->size < sizeof e->bytes ? e->size : sizeof e->bytes);
}

std::optional<uint32_t> number_of(const Entry& e, uint64_t name) {
  uint32_t number = 0;
  constexpr uint32_t kMost = 100'000'000; // descriptors and threads have smaller ones
  uint64_t at = name;
  for (; at < sizeof e.bytes && e.bytes[at]; ++at) {
    const uint32_t digit = uint32_t{e.bytes[at]} - '0';
    if (digit > 9 || number >= kMost)
      return std::nullopt;
    number = number * 10 + digit;
  }
  return at > name ? std::optional(number) : std::nullopt;
}

bool move_entry(ThreadBlock* t, uint64_t to, uint64_t from, uint64_t size) {
  char part[64];
  for (uint64_t done = 0; done < size; done += sizeof part) {
    const uint64_t n = size - done < sizeof part ? size - done : sizeof part;
    if (!read_user(t, part, from + done, n) || !write_user(t, to + done, part, n))
      return false;
  }
  return true;
}

} // namespace

bool writes_our_memory(int fd) {
  const long flags = syscall_of(__NR_fcntl, fd, F_GETFL);
  if (is_errno(flags) || (flags & O_ACCMODE) == O_RDONLY)
    return false;
  char path[256];
  const auto thread = process::memory_file_of(path_of(fd, path));
  return thread && is_in_process(*thread);
}

long hide_ours(ThreadBlock* t, const KernelSigcontext& m, long size) {
  const uint64_t name = m.rax == __NR_getdents64 ? 19 : 18;
  const uint64_t end = m.rsi + static_cast<uint64_t>(size);
  std::optional<process::FolderKind> kind; // looked for when there is something with a number
  uint64_t to = m.rsi;
  Entry e;
  for (uint64_t from = m.rsi; from < end; from += e.size) {
    if (!read_entry(t, from, end - from, &e))
      return size;
    if (const auto number = number_of(e, name)) {
      if (!kind && !(kind = own_folder(static_cast<int>(m.rdi))))
        return size;
      if (is_ours(*kind, *number))
        continue;
    }
    if (to != from && !move_entry(t, to, from, e.size))
      return size;
    to += e.size;
  }
  return static_cast<long>(to - m.rsi);
}

} // namespace dune::agent
