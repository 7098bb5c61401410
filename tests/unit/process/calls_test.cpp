// What libdune/process answers for calls whose arguments name something of ours.
#include "libdune/arch/syscall.h"
#include "libdune/process/calls.h"
#include "libdune/process/unknown_calls.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/aio_abi.h>
#include <linux/close_range.h>
#include <random>
#include <string>
#include <string_view>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace dune::process {
namespace {

bool read_own(void*, void* to, TargetAddr from, uint64_t size) {
  const iovec here{to, size}, there{reinterpret_cast<void*>(from.value), size};
  return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == static_cast<ssize_t>(size);
}
bool write_own(void*, TargetAddr to, const void* from, uint64_t size) {
  const iovec here{const_cast<void*>(from), size}, there{reinterpret_cast<void*>(to.value), size};
  return process_vm_writev(getpid(), &here, 1, &there, 1, 0) == static_cast<ssize_t>(size);
}
constexpr Reader kReader{read_own, nullptr};
constexpr Writer kWriter{write_own, nullptr};

template <class T> long value(T v) {
  if constexpr (std::is_null_pointer_v<T>)
    return 0;
  else if constexpr (std::is_pointer_v<T>)
    return reinterpret_cast<long>(v);
  else
    return static_cast<long>(v);
}
struct Call {
  const Row& row;
  long args[kMostArguments] = {};
  template <class... Args>
  explicit Call(uint32_t number, Args... arguments) : row(policy_of(number)) {
    unsigned i = 0;
    ((args[i++] = value(arguments)), ...);
  }
};
long make(const Row& row, const long* args) {
  return syscall_raw(row.number, args[0], args[1], args[2], args[3], args[4], args[5]);
}

struct Names : testing::Test {
  // A page of ours between two that are not.
  alignas(kPageSize) static inline std::byte pages[3 * kPageSize];
  std::byte* const ours = pages + kPageSize;
  const TargetRange range{TargetAddr(value(ours)), TargetAddr(value(ours) + kPageSize)};
  template <class... Args> bool names(uint32_t number, Args... arguments) {
    const Call call(number, arguments...);
    return names_memory(call.row, call.args, {&range, 1}, kReader);
  }
};

TEST_F(Names, BytesUpToTheFirstOfOursAreElsewhere) {
  std::byte* below = ours - 16;
  EXPECT_FALSE(names(SYS_read, 0, below, 16));
  EXPECT_TRUE(names(SYS_read, 0, below, 17));
  EXPECT_TRUE(names(SYS_read, 0, ours + kPageSize - 1, 1));
  EXPECT_FALSE(names(SYS_read, 0, ours + kPageSize, 100));
  EXPECT_FALSE(names(SYS_read, 0, ours, 0));
  EXPECT_TRUE(names(SYS_read, 0, below, -1L));
  EXPECT_FALSE(names(SYS_getpid, ours, ours, ours));
}

TEST_F(Names, AnIntCountsWithItsLowerHalf) {
  EXPECT_FALSE(names(SYS_poll, ours - 16, (7L << 32) | 2, 0));
  EXPECT_TRUE(names(SYS_poll, ours - 16, (7L << 32) | 3, 0));
  EXPECT_TRUE(names(SYS_getdents, 0, ours, 0xffffffffL));
}

TEST_F(Names, AnOperationSaysWhichArgumentsAreAddresses) {
  uint32_t word = 0;
  EXPECT_TRUE(names(SYS_futex, &word, 0 /* WAIT */, 0, ours));
  EXPECT_FALSE(names(SYS_futex, &word, 1 /* WAKE */, 0, ours));
  EXPECT_FALSE(names(SYS_futex, &word, 1 | 128 /* WAKE, private */, 0, ours));
  EXPECT_TRUE(names(SYS_fcntl, 0, F_GETLK, ours));
  EXPECT_FALSE(names(SYS_fcntl, 0, F_SETFL, ours));
  EXPECT_TRUE(names(SYS_ioctl, 0, 0x80086601 /* FS_IOC_GETFLAGS, 8 bytes */, ours - 7));
  EXPECT_FALSE(names(SYS_ioctl, 0, 0x80086601, ours - 8));
  EXPECT_TRUE(names(SYS_clone, 0x100000L /* PARENT_SETTID */, 0, ours, 0));
  EXPECT_FALSE(names(SYS_clone, 0, 0, ours, ours));
}

TEST_F(Names, EveryElementOfAVectorIsLookedAt) {
  char elsewhere[8];
  iovec vector[3] = {{elsewhere, 8}, {elsewhere, 8}, {elsewhere, 8}};
  EXPECT_FALSE(names(SYS_writev, 1, vector, 3));
  vector[2].iov_base = ours + 5;
  EXPECT_TRUE(names(SYS_writev, 1, vector, 3));
  EXPECT_FALSE(names(SYS_writev, 1, vector, 2));
  EXPECT_TRUE(names(SYS_process_vm_readv, 1, vector, 3, nullptr, 0, 0));
  vector[0].iov_len = 0;
  EXPECT_FALSE(names(SYS_writev, 1, reinterpret_cast<iovec*>(8), 3)); // cannot be read
}

TEST_F(Names, StructuresAreFollowed) {
  char elsewhere[16];
  iovec vector{elsewhere, 16};
  iocb block{};
  block.aio_buf = static_cast<uint64_t>(value(ours)) - 8;
  iocb* list[] = {&block};
  for (uint16_t buffer : {IOCB_CMD_PREAD, IOCB_CMD_PWRITE}) {
    block.aio_lio_opcode = buffer;
    block.aio_nbytes = 8;
    EXPECT_FALSE(names(SYS_io_submit, 0, 1, list));
    block.aio_nbytes = 9;
    EXPECT_TRUE(names(SYS_io_submit, 0, 1, list));
  }
  for (uint16_t vectored : {IOCB_CMD_PREADV, IOCB_CMD_PWRITEV}) {
    block.aio_lio_opcode = vectored;
    block.aio_buf = static_cast<uint64_t>(value(&vector));
    block.aio_nbytes = 1;
    vector.iov_base = elsewhere;
    EXPECT_FALSE(names(SYS_io_submit, 0, 1, list));
    vector.iov_base = ours;
    EXPECT_TRUE(names(SYS_io_submit, 0, 1, list));
  }
  block.aio_lio_opcode = IOCB_CMD_FSYNC;
  EXPECT_FALSE(names(SYS_io_submit, 0, 1, list));

  uint64_t clone[11] = {};
  clone[3] = static_cast<uint64_t>(value(ours)); // parent_tid
  EXPECT_TRUE(names(SYS_clone3, clone, 88));
  EXPECT_TRUE(names(SYS_clone3, clone, 64)); // CLONE_ARGS_SIZE_VER0
  clone[3] = 0;
  clone[8] = static_cast<uint64_t>(value(ours)); // set_tid
  clone[9] = 1;
  EXPECT_TRUE(names(SYS_clone3, clone, 80));
  EXPECT_FALSE(names(SYS_clone3, clone, 64));

  const uint64_t set[] = {static_cast<uint64_t>(value(ours)), 8};
  EXPECT_TRUE(names(SYS_pselect6, 0, 0, 0, 0, 0, set));
  EXPECT_TRUE(names(SYS_pselect6, 0, 0, 0, 0, 0, ours));
  const uint64_t program[] = {2, static_cast<uint64_t>(value(ours)) - 8};
  EXPECT_TRUE(names(SYS_seccomp, 1 /* SET_MODE_FILTER */, 0, program));
  EXPECT_TRUE(names(SYS_prctl, 22 /* PR_SET_SECCOMP */, 2, program));
  EXPECT_TRUE(names(SYS_setsockopt, 0, SOL_SOCKET, SO_ATTACH_FILTER, program, 16));
  EXPECT_FALSE(names(SYS_setsockopt, 0, SOL_SOCKET, SO_RCVBUF, program, 16));
  const uint64_t region[] = {0, static_cast<uint64_t>(value(pages)), 4 * kPageSize, 0};
  EXPECT_TRUE(names(SYS_ioctl, 0, 0xc028aa03 /* UFFDIO_COPY */, region));
  const uint64_t range_to_watch[] = {static_cast<uint64_t>(value(pages)), 2 * kPageSize, 0, 0};
  EXPECT_TRUE(names(SYS_ioctl, 0, 0xc020aa00 /* UFFDIO_REGISTER */, range_to_watch));
  const uint64_t slot[] = {0, 0, kPageSize, static_cast<uint64_t>(value(ours))};
  EXPECT_TRUE(names(SYS_ioctl, 0, 0x4020ae46 /* KVM_SET_USER_MEMORY_REGION */, slot));
}

TEST_F(Names, AnotherProcessesMemoryIsNotOurs) {
  char elsewhere[8];
  const iovec local{elsewhere, 8}, remote{ours, 8};
  EXPECT_TRUE(names(SYS_process_vm_writev, getpid(), &local, 1, &remote, 1, 0));
  EXPECT_TRUE(names(SYS_process_vm_writev, gettid(), &local, 1, &remote, 1, 0));
  EXPECT_FALSE(names(SYS_process_vm_writev, getppid(), &local, 1, &remote, 1, 0));
}

TEST_F(Names, ATextIsNamedWhereItEndsInOurs) {
  auto* below = reinterpret_cast<char*>(ours) - 8;
  memcpy(below, "1234567", 8);
  EXPECT_FALSE(names(SYS_chdir, below));
  below[7] = '8';
  EXPECT_TRUE(names(SYS_chdir, below));
  EXPECT_TRUE(names(SYS_chdir, ours));
  const char* const list[] = {"a", below, nullptr};
  EXPECT_TRUE(names(SYS_execve, "/bin/true", list, nullptr));
  below[7] = 0;
  EXPECT_FALSE(names(SYS_execve, "/bin/true", list, nullptr));
}

TEST_F(Names, TheKernelReadsWhatWasLookedAt) {
  alignas(8) std::byte room[512];
  char source[4] = {'a', 'b', 'c', 'd'};
  iovec vector{source, 4};
  const int file = memfd_create("copy", 0);
  Call call(SYS_writev, file, &vector, 1);
  CallCopy copy(room);
  ASSERT_FALSE(names_memory(call.row, call.args, {&range, 1}, kReader, &copy));
  EXPECT_EQ(copy.arguments()[1], value(room));
  vector.iov_base = ours; // another thread, meanwhile
  EXPECT_EQ(make(call.row, copy.arguments()), 4);
  char there[4];
  EXPECT_EQ(pread(file, there, 4, 0), 4);
  EXPECT_EQ(memcmp(there, source, 4), 0);
  close(file);
}

TEST_F(Names, WhatDoesNotFitIsNotCopied) {
  alignas(8) std::byte room[48];
  char source[4] = {};
  iovec vector[4] = {{source, 4}, {source, 4}, {source, 4}, {source, 4}};
  const Call call(SYS_writev, 1, vector, 4);
  CallCopy copy(room);
  ASSERT_FALSE(names_memory(call.row, call.args, {&range, 1}, kReader, &copy));
  EXPECT_EQ(copy.arguments()[1], value(vector));
}

struct Sockets {
  int pair[2];
  Sockets() { EXPECT_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair), 0); }
  ~Sockets() {
    close(pair[0]);
    close(pair[1]);
  }
};

TEST_F(Names, AReceivedMessagesHeaderComesBack) {
  Sockets s;
  ASSERT_EQ(write(s.pair[1], "hello", 5), 5);
  alignas(8) std::byte room[512];
  char text[3], control[64];
  iovec vector{text, sizeof text};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  const Call call(SYS_recvmsg, s.pair[0], &header, 0);
  CallCopy copy(room);
  ASSERT_FALSE(names_memory(call.row, call.args, {&range, 1}, kReader, &copy));
  ASSERT_NE(copy.arguments()[1], value(&header));
  EXPECT_EQ(copy.finish(make(call.row, copy.arguments()), kWriter), 3);
  EXPECT_EQ(header.msg_flags, MSG_TRUNC);
  EXPECT_EQ(header.msg_controllen, 0u);
  EXPECT_EQ(header.msg_iov, &vector);
  EXPECT_EQ(memcmp(text, "hel", 3), 0);

  header.msg_controllen = sizeof control;
  CallCopy failing(room);
  ASSERT_FALSE(names_memory(call.row, call.args, {&range, 1}, kReader, &failing));
  EXPECT_EQ(failing.finish(make(call.row, failing.arguments()), kWriter), -EAGAIN);
  EXPECT_EQ(header.msg_controllen, sizeof control);

  vector.iov_base = ours;
  EXPECT_TRUE(names(SYS_recvmsg, s.pair[0], &header, 0));
  vector.iov_base = text;
  header.msg_control = ours + 8;
  EXPECT_TRUE(names(SYS_recvmsg, s.pair[0], &header, 0));
}

TEST_F(Names, OfManyMessagesThoseThatCameComeBack) {
  Sockets s;
  ASSERT_EQ(write(s.pair[1], "one", 3), 3);
  ASSERT_EQ(write(s.pair[1], "three", 5), 5);
  alignas(8) std::byte room[512];
  char text[3][8];
  iovec vectors[3];
  mmsghdr messages[3] = {};
  for (int i = 0; i < 3; i++) {
    vectors[i] = {text[i], sizeof text[i]};
    messages[i].msg_hdr.msg_iov = &vectors[i];
    messages[i].msg_hdr.msg_iovlen = 1;
    messages[i].msg_len = 77;
  }
  const Call call(SYS_recvmmsg, s.pair[0], messages, 3, 0, nullptr);
  CallCopy copy(room);
  ASSERT_FALSE(names_memory(call.row, call.args, {&range, 1}, kReader, &copy));
  ASSERT_NE(copy.arguments()[1], value(messages));
  EXPECT_EQ(copy.finish(make(call.row, copy.arguments()), kWriter), 2);
  EXPECT_EQ(messages[0].msg_len, 3u);
  EXPECT_EQ(messages[1].msg_len, 5u);
  EXPECT_EQ(messages[2].msg_len, 77u);
  EXPECT_EQ(messages[1].msg_hdr.msg_iov, &vectors[1]);
  vectors[2].iov_base = ours;
  EXPECT_TRUE(names(SYS_recvmmsg, s.pair[0], messages, 3, 0, nullptr));
}

TEST(Calls, AnOperationHasItsOwnEffect) {
  const Call dispatch(SYS_prctl, 59 /* PR_SET_SYSCALL_USER_DISPATCH */);
  EXPECT_EQ(effect_of(dispatch.row, dispatch.args), Effect::kAbsent);
  EXPECT_EQ(error_of(dispatch.row, dispatch.args), EINVAL);
  const Call name(SYS_prctl, 15 /* PR_SET_NAME */);
  EXPECT_EQ(effect_of(name.row, name.args), Effect::kPass);
  const Call rseq(SYS_rseq);
  EXPECT_EQ(effect_of(rseq.row, rseq.args), Effect::kAbsent);
  EXPECT_EQ(error_of(rseq.row, rseq.args), ENOSYS);
}

TEST(Calls, UnknownNumbersAreCounted) {
  UnknownCalls calls{};
  for (uint32_t i = 0; i < 3; i++)
    calls.count(1000);
  calls.count(0x40000000);
  EXPECT_EQ(calls.entries()[0].number_plus_one, 1001u);
  EXPECT_EQ(calls.entries()[0].calls, 3u);
  EXPECT_EQ(calls.entries()[1].number_plus_one, 0x40000001u);
  EXPECT_EQ(calls.others(), 0u);
  for (uint32_t i = 0; i < UnknownCalls::kMost; i++)
    calls.count(2000 + i);
  EXPECT_EQ(calls.others(), 2u);
}

// Our pages in the midst of a program's, against a hole in their place: each call answers the same,
// and leaves the same of the program's pages.
constexpr uint64_t kBase = 0x7e5600000000;
constexpr unsigned kPages = 12;
constexpr TargetRange kOurs[] = {
    {TargetAddr(kBase + 3 * kPageSize), TargetAddr(kBase + 5 * kPageSize)},
    {TargetAddr(kBase + 8 * kPageSize), TargetAddr(kBase + 9 * kPageSize)}};
bool is_ours(unsigned page) {
  const TargetAddr a(kBase + page * kPageSize);
  return kOurs[0].contains(a) || kOurs[1].contains(a);
}

long answer(const Call& call) {
  const Policy policy = memory_policy(call.row, call.args, kOurs);
  if (policy.act == Policy::Act::kAsIs)
    return make(call.row, call.args);
  if (policy.act == Policy::Act::kAnswer)
    return policy.answer;
  const TargetRange whole = range_of(call.args);
  TargetAddr at = whole.begin;
  while (const auto piece = next_piece(whole, at, kOurs)) {
    if (policy.act == Policy::Act::kFirstPiece && piece->begin != whole.begin)
      break;
    Call part = call;
    part.args[0] = static_cast<long>(piece->begin.value);
    part.args[1] = static_cast<long>(piece->size());
    const long result = make(part.row, part.args);
    if (is_errno(result))
      return result;
    at = piece->end;
  }
  return policy.answer;
}

struct After {
  long result;
  std::string pages; // the program's rights, from /proc/self/maps
  bool operator==(const After&) const = default;
};
std::string rights() {
  std::string all(kPages, '-');
  FILE* maps = fopen("/proc/self/maps", "r");
  unsigned long begin, end;
  char rights[5];
  for (char line[512]; fgets(line, sizeof line, maps);) {
    if (sscanf(line, "%lx-%lx %4s", &begin, &end, rights) != 3)
      continue;
    for (unsigned i = 0; i < kPages; i++) {
      const uint64_t page = kBase + i * kPageSize;
      if (page >= begin && page < end && !is_ours(i))
        all[i] = rights[1] == 'w' ? 'w' : rights[0] == 'r' ? 'r' : '0';
    }
  }
  fclose(maps);
  return all;
}
After after(const Call& call, bool with_ours) {
  auto* shared = static_cast<char*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  const pid_t child = fork();
  if (child == 0) {
    mmap(reinterpret_cast<void*>(kBase), kPages * kPageSize, PROT_READ | PROT_WRITE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    for (const TargetRange& r : kOurs) {
      auto* begin = reinterpret_cast<char*>(r.begin.value);
      with_ours ? memset(begin, 0x77, r.size()) : nullptr;
      if (!with_ours)
        munmap(begin, r.size());
    }
    const long result = with_ours ? answer(call) : make(call.row, call.args);
    bool intact = true;
    for (const TargetRange& r : kOurs) {
      for (uint64_t at = r.begin.value; with_ours && at < r.end.value; at++)
        intact = intact && *reinterpret_cast<volatile char*>(at) == 0x77;
    }
    memcpy(shared, &result, sizeof result);
    strcpy(shared + 8, intact ? rights().c_str() : "ours was changed");
    _exit(0);
  }
  int status;
  waitpid(child, &status, 0);
  After a{0, status == 0 ? shared + 8 : "crashed: ours was taken away"};
  memcpy(&a.result, shared, sizeof a.result);
  munmap(shared, 4096);
  return a;
}

TEST(CallsMemory, OursAnswersAsAHoleWould) {
  char vector[kPages];
  const std::vector<std::vector<long>> calls = {
      {SYS_munmap},
      {SYS_mprotect, PROT_READ},
      {SYS_mprotect, PROT_NONE},
      {SYS_pkey_mprotect, PROT_READ, -1},
      {SYS_madvise, MADV_DONTNEED},
      {SYS_madvise, MADV_WILLNEED},
      {SYS_msync, MS_ASYNC},
      {SYS_msync, MS_SYNC},
      {SYS_mincore, value(vector)},
      {SYS_mlock},
      {SYS_mlock2, 0},
      {SYS_munlock},
      {SYS_mbind, 0 /* MPOL_DEFAULT */, 0, 0, 0},
      {SYS_mbind, 1 /* MPOL_PREFERRED */, 0, 0, 0},
      {SYS_mremap, 14 * kPageSize, MREMAP_MAYMOVE},
      {462, 0}, // mseal
      {SYS_set_mempolicy_home_node, 0, 0},
      {SYS_remap_file_pages, 0, 0, 0},
  };
  std::mt19937 random(1);
  for (const std::vector<long>& c : calls) {
    for (int i = 0; i < 12; i++) {
      const auto first = random() % kPages, count = 1 + random() % (kPages - first);
      const uint64_t odd = random() % 6 == 0 ? 8 : 0;
      Call call(static_cast<uint32_t>(c[0]), kBase + first * kPageSize + odd,
                count * kPageSize - random() % 2);
      std::copy(c.begin() + 1, c.end(), call.args + 2);
      // Where a mapping has gone to is not what this is about.
      After hole = after(call, false), ours = after(call, true);
      if (call.row.number == SYS_mremap && hole.result > 0 && ours.result > 0)
        hole.result = ours.result;
      EXPECT_EQ(ours.result, hole.result) << call.row.name << " of " << count << " pages from "
                                          << first << ", argument " << c.back();
      EXPECT_EQ(ours.pages, hole.pages) << call.row.name << " of " << count << " pages from "
                                        << first << ", argument " << c.back();
    }
  }
}

TEST(CallsMemory, OursIsNotReplaced) {
  const uint64_t at = kOurs[0].begin.value;
  const auto policy = [](const Call& c) { return memory_policy(c.row, c.args, kOurs); };
  const auto is = [&](const Call& c, Policy::Act act, long answer) {
    return policy(c).act == act && policy(c).answer == answer;
  };
  constexpr long kAny = MAP_PRIVATE | MAP_ANONYMOUS;
  EXPECT_TRUE(is(Call(SYS_mmap, at, 1, 3, kAny | MAP_FIXED, -1, 0), Policy::Act::kAnswer, -ENOMEM));
  EXPECT_TRUE(is(Call(SYS_mmap, at, 1, 3, kAny, -1, 0), Policy::Act::kAsIs, 0));
  EXPECT_TRUE(
      is(Call(SYS_mmap, at, 1, 3, kAny | MAP_FIXED_NOREPLACE, -1, 0), Policy::Act::kAsIs, 0));
  EXPECT_TRUE(is(Call(SYS_mmap, at - kPageSize, kPageSize, 3, kAny | MAP_FIXED, -1, 0),
                 Policy::Act::kAsIs, 0));
  EXPECT_TRUE(is(Call(SYS_mremap, kBase, kPageSize, 2 * kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED,
                      at - kPageSize),
                 Policy::Act::kAnswer, -ENOMEM));
  EXPECT_TRUE(is(Call(SYS_shmat, 0, at, 0), Policy::Act::kAsIs, 0));
  const int segment = static_cast<int>(syscall(SYS_shmget, 0, 2 * kPageSize, 0600));
  ASSERT_GE(segment, 0);
  constexpr long kRemap = 040000; // SHM_REMAP
  EXPECT_TRUE(is(Call(SYS_shmat, segment, at - kPageSize, kRemap), Policy::Act::kAnswer, -EINVAL));
  EXPECT_TRUE(is(Call(SYS_shmat, segment, at - 2 * kPageSize, kRemap), Policy::Act::kAsIs, 0));
  syscall(SYS_shmctl, segment, 0 /* IPC_RMID */, nullptr);
}

constexpr DescriptorRange kOurDescriptors[] = {{Descriptor(700), Descriptor(704)},
                                               {Descriptor(710), Descriptor(711)}};

TEST(CallsDescriptors, OursAreNotOpen) {
  const auto answer = [](const Call& c) {
    const Policy p = descriptor_policy(c.row, c.args, kOurDescriptors);
    return p.act == Policy::Act::kAnswer ? p.answer : 0;
  };
  EXPECT_EQ(answer(Call(SYS_close, 700)), -EBADF);
  EXPECT_EQ(answer(Call(SYS_close, (1L << 32) + 703)), -EBADF);
  EXPECT_EQ(answer(Call(SYS_close, 704)), 0);
  EXPECT_EQ(answer(Call(SYS_dup2, 1, 710)), -EBADF);
  EXPECT_EQ(answer(Call(SYS_dup3, 710, 1, 0)), -EBADF);
  EXPECT_EQ(answer(Call(SYS_fcntl, 701, F_GETFD)), -EBADF);
  EXPECT_EQ(answer(Call(SYS_fcntl, 1, F_DUPFD, 701)), 0);
  EXPECT_EQ(answer(Call(SYS_ioctl, 702, 0, 0)), -EBADF);
  EXPECT_EQ(answer(Call(SYS_write, 702, 0, 0)), -EBADF);
  EXPECT_EQ(answer(Call(SYS_epoll_ctl, 1, 2, 702)), -EBADF);
  EXPECT_EQ(answer(Call(SYS_lseek, 1, 702, 702)), 0);
  EXPECT_EQ(answer(Call(SYS_mmap, 0, 1, 1, MAP_PRIVATE, 702, 0)), -EBADF);
  EXPECT_EQ(answer(Call(SYS_mmap, 0, 1, 1, MAP_PRIVATE | MAP_ANONYMOUS, 702, 0)), 0);
  EXPECT_EQ(answer(Call(SYS_openat, AT_FDCWD, "x", 0)), 0);
}

TEST(CallsDescriptors, CloseRangeGoesAroundOurs) {
  const auto close_around = [](uint32_t first, uint32_t last) {
    std::vector<std::pair<uint64_t, uint64_t>> pieces;
    const Call call(SYS_close_range, first, last, 0);
    const DescriptorRange whole{Descriptor(first), Descriptor(uint64_t{last} + 1)};
    EXPECT_EQ(descriptor_policy(call.row, call.args, kOurDescriptors).act, Policy::Act::kPieces);
    Descriptor at = whole.begin;
    while (const auto piece = next_piece(whole, at, kOurDescriptors)) {
      pieces.emplace_back(piece->begin.value, piece->end.value - 1);
      at = piece->end;
    }
    return pieces;
  };
  using Pieces = std::vector<std::pair<uint64_t, uint64_t>>;
  EXPECT_EQ(close_around(3, ~0u), (Pieces{{3, 699}, {704, 709}, {711, ~0u}}));
  EXPECT_EQ(close_around(701, 705), (Pieces{{704, 705}}));
  EXPECT_EQ(close_around(700, 703), Pieces{});
  EXPECT_EQ(close_around(702, 710), (Pieces{{704, 709}}));
  for (const Call& call : {Call(SYS_close_range, 3, 699, 0), Call(SYS_close_range, 900, 3, 0),
                           Call(SYS_close_range, 3, 900, 64)})
    EXPECT_EQ(descriptor_policy(call.row, call.args, kOurDescriptors).act, Policy::Act::kAsIs);
}

TEST(CallsDescriptors, AProcessesMemoryIsAFileOfItsNumber) {
  const auto whose = [](std::string_view path) { return memory_file_of(path); };
  EXPECT_EQ(whose("/proc/12/mem"), 12);
  EXPECT_EQ(whose("/proc/12/task/14/mem"), 14);
  EXPECT_EQ(whose("/mnt/p/2147483647/mem"), 2147483647);
  for (const char* other : {"/proc/12/maps", "/proc/mem", "/dev/mem", "mem", "12/mem", "/mem", "",
                            "/proc/x12/mem", "/proc/2147483648/mem", "/proc/12/mem (deleted)"})
    EXPECT_FALSE(whose(other)) << other;
  // What the kernel says of our own.
  const int file = open("/proc/thread-self/mem", O_RDWR);
  ASSERT_GE(file, 0);
  char path[64];
  const ssize_t length = readlink(("/proc/self/fd/" + std::to_string(file)).c_str(), path, 64);
  ASSERT_GT(length, 0);
  EXPECT_EQ(whose({path, static_cast<size_t>(length)}), gettid());
  close(file);
}

TEST(CallsDescriptors, FoldersThatShowWhatAProcessHas) {
  const auto kind = [](std::string_view path) {
    const auto folder = process_folder_of(path);
    EXPECT_TRUE(!folder || folder->thread == 12) << path;
    return folder ? std::optional(folder->kind) : std::nullopt;
  };
  EXPECT_EQ(kind("/proc/12/fd"), FolderKind::kDescriptors);
  EXPECT_EQ(kind("/proc/11/task/12/fd"), FolderKind::kDescriptors);
  EXPECT_EQ(kind("/mnt/p/12/fdinfo"), FolderKind::kDescriptors);
  EXPECT_EQ(kind("/proc/12/task"), FolderKind::kThreads);
  for (const char* other : {"/proc/12", "/proc/12/task/12", "/proc/12/mem", "/dev/fd", "/proc/fd",
                            "/proc/x12/fd", "12/fd", "/task", ""})
    EXPECT_EQ(kind(other), std::nullopt) << other;
}

// They are made as they are: none may need more than its row's policy.
TEST(Calls, ThoseOf32BitsNeedNothingOfTheirOwn) {
  EXPECT_EQ(native_of_32_bits(20), SYS_getpid);
  EXPECT_EQ(native_of_32_bits(174), std::nullopt); // rt_sigaction
  for (uint32_t number = 0; number < 1000; ++number) {
    const auto native = native_of_32_bits(number);
    if (!native)
      continue;
    const Row& row = policy_of(*native);
    EXPECT_TRUE(is_known(row));
    EXPECT_NE(row.effect, Effect::kSignal) << row.name;
    EXPECT_NE(row.effect, Effect::kIdentity) << row.name;
    EXPECT_TRUE(row.effect != Effect::kThread || *native == SYS_exit || *native == SYS_exit_group)
        << row.name;
  }
}

} // namespace
} // namespace dune::process
