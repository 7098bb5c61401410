// What the random steps of differential_test.cpp do not reach: one promise at a time.
#include "access.h"
#include "libdune/base/file.h"

#include <fcntl.h>
#include <fstream>
#include <malloc.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace dune::process {
namespace {

constexpr int kReadWrite = PROT_READ | PROT_WRITE;
constexpr int kPrivate = MAP_PRIVATE | MAP_ANONYMOUS;

// What a forked child, without a guest, sees.
template <class F> Seen natively(F&& child) {
  int ends[2];
  if (pipe(ends) != 0)
    return {-3};
  const pid_t pid = fork();
  if (pid == 0) {
    const Seen seen = child();
    _exit(write(ends[1], &seen, sizeof seen) != sizeof seen);
  }
  close(ends[1]);
  Seen seen{-3};
  if (read(ends[0], &seen, sizeof seen) < 0)
    seen = {-3};
  close(ends[0]);
  waitpid(pid, nullptr, 0);
  return seen;
}

class AddressSpaces : public MemoryTest {
protected:
  void unmap(const void* at, uint64_t size) { EXPECT_EQ(change(__NR_munmap, at, size), 0); }

  // Of code that ran at `at` and is gone nothing is left: the place is not mapped, and what comes
  // there next is not executable just because that was.
  void expect_forgotten(uint8_t* at) {
    EXPECT_EQ(call(at), kUnmappedSeen);
    expect_not_executable_when_reused(at);
  }
  void expect_not_executable_when_reused(uint8_t* at) {
    // Without MAP_FIXED, which clears what is there.
    ASSERT_EQ(map(kPageSize, kReadWrite, kPrivate, -1, at), at);
    EXPECT_EQ(write(at, returns(1)), kWritten);
    EXPECT_EQ(call(at), kForbiddenSeen);
    unmap(at, kPageSize);
  }
  uint8_t* map_code(uint64_t size = kPageSize) {
    uint8_t* at = map(size, kReadWrite | PROT_EXEC, kPrivate);
    EXPECT_EQ(write(at, returns(7)), kWritten);
    EXPECT_EQ(call(at), value_seen(7));
    return at;
  }
  uint64_t resident(uint8_t* at, uint64_t size) {
    std::vector<unsigned char> pages(size / kPageSize);
    EXPECT_EQ(mincore(at, size, pages.data()), 0);
    uint64_t n = 0;
    for (unsigned char p : pages)
      n += p & 1;
    return n;
  }
  Fd file_of(uint64_t size) {
    Fd fd(memfd_create("address_space", MFD_CLOEXEC));
    EXPECT_EQ(ftruncate(fd.get(), long(size)), 0);
    return fd;
  }
};

INSTANTIATE_TEST_SUITE_P(Guests, AddressSpaces, backend::each_guest(), backend::name_of_guest);

TEST_P(AddressSpaces, UnmappedIsForgotten) {
  uint8_t* at = map_code();
  unmap(at, kPageSize);
  expect_not_executable_when_reused(at);
  at = map_code();
  unmap(at, kPageSize);
  expect_forgotten(at);
}

TEST_P(AddressSpaces, MovedIsForgottenWhereItWas) {
  uint8_t* at = map_code();
  uint8_t* target = map(4 * kPageSize, kReadWrite, kPrivate);
  ASSERT_EQ(change(__NR_mremap, at, kPageSize, 2 * kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED,
                   target + kPageSize),
            long(target + kPageSize));
  EXPECT_EQ(call(target + kPageSize), value_seen(7));
  EXPECT_EQ(write(target + 2 * kPageSize, returns(8)), kWritten);
  EXPECT_EQ(call(target + 2 * kPageSize), value_seen(8));
  EXPECT_EQ(write(target, returns(9)), kWritten);
  EXPECT_EQ(call(target), kForbiddenSeen);
  EXPECT_EQ(call(target + 3 * kPageSize), kForbiddenSeen);
  expect_not_executable_when_reused(at);
  // Made smaller where it is.
  ASSERT_EQ(change(__NR_mremap, target + kPageSize, 2 * kPageSize, kPageSize, 0),
            long(target + kPageSize));
  expect_not_executable_when_reused(target + 2 * kPageSize);
  unmap(target, 4 * kPageSize);
}

TEST_P(AddressSpaces, FailedChangeLeavesNothingKnownWrongly) {
  // Changes the first page, and fails at the hole behind it.
  uint8_t* at = map_code(3 * kPageSize);
  unmap(at + kPageSize, kPageSize);
  EXPECT_EQ(change(__NR_mprotect, at, 3 * kPageSize, PROT_READ), -ENOMEM);
  EXPECT_EQ(write(at, 1), kForbiddenSeen);
  EXPECT_EQ(call(at), kForbiddenSeen);
  EXPECT_EQ(read(at), value_seen(returns(7)));
  EXPECT_EQ(write(at + 2 * kPageSize, returns(3)), kWritten);
  EXPECT_EQ(call(at + 2 * kPageSize), value_seen(3));
  // Nothing that a call could have meant.
  for (long number : {__NR_munmap, __NR_mprotect, __NR_mremap, __NR_mmap, __NR_remap_file_pages})
    EXPECT_LT(change(number, ~0ul - 100, ~0ul - 5, 0, long(MAP_FIXED), ~0ul), 0) << number;
  EXPECT_EQ(call(at + 2 * kPageSize), value_seen(3));
  unmap(at, 3 * kPageSize);
}

TEST_P(AddressSpaces, ProgramBreakGrowsAndShrinks) {
  // The C library has what it needs meanwhile.
  mallopt(M_TOP_PAD, 1 << 20);
  free(malloc(100'000));
  const long start = change(__NR_brk, 0);
  const auto* at = reinterpret_cast<uint8_t*>((start + 4095) & -4096);
  EXPECT_EQ(read(at), kUnmappedSeen);
  ASSERT_EQ(change(__NR_brk, at + 100), long(at + 100));
  EXPECT_EQ(write(at, 5), kWritten);
  EXPECT_EQ(call(at), kForbiddenSeen);
  EXPECT_EQ(read(at + kPageSize), kUnmappedSeen);
  ASSERT_EQ(change(__NR_brk, at + 3 * kPageSize), long(at + 3 * kPageSize));
  EXPECT_EQ(write(at + 2 * kPageSize, 6), kWritten);
  ASSERT_EQ(change(__NR_brk, at + kPageSize), long(at + kPageSize));
  EXPECT_FALSE(guest_->guest.tables.mapped(TargetAddr(uint64_t(at) + kPageSize)));
  EXPECT_EQ(read(at + kPageSize), kUnmappedSeen);
  EXPECT_EQ(read(at), value_seen(5));
  ASSERT_EQ(change(__NR_brk, start), start);
}

TEST_P(AddressSpaces, SharedMemoryComesAndGoes) {
  const int id = shmget(IPC_PRIVATE, 2 * kPageSize, IPC_CREAT | 0600);
  ASSERT_GE(id, 0);
  auto* at = reinterpret_cast<uint8_t*>(change(__NR_shmat, id, 0, SHM_EXEC));
  EXPECT_EQ(write(at + kPageSize, returns(4)), kWritten);
  EXPECT_EQ(call(at + kPageSize), value_seen(4));
  // Again, read only, over code.
  uint8_t* code = map_code(2 * kPageSize);
  ASSERT_EQ(change(__NR_shmat, id, code, SHM_RDONLY | SHM_REMAP), long(code));
  EXPECT_EQ(read(code + kPageSize), value_seen(returns(4)));
  EXPECT_EQ(call(code + kPageSize), kForbiddenSeen);
  EXPECT_EQ(write(code, 1), kForbiddenSeen);
  EXPECT_EQ(change(__NR_shmdt, code), 0);
  EXPECT_EQ(call(at + kPageSize), value_seen(4));
  EXPECT_EQ(change(__NR_shmdt, at), 0);
  EXPECT_EQ(read(code), kUnmappedSeen);
  expect_not_executable_when_reused(at + kPageSize);
  shmctl(id, IPC_RMID, nullptr);
}

TEST_P(AddressSpaces, ChangesBehindItsBackAreSeen) {
  auto memory = Mapping::anonymous(4 * kPageSize);
  ASSERT_TRUE(memory);
  auto* at = reinterpret_cast<uint8_t*>(memory->data());
  EXPECT_EQ(write(at, returns(1)), kWritten);
  mprotect(at, kPageSize, PROT_READ);
  EXPECT_EQ(write(at, 2), kForbiddenSeen);
  EXPECT_EQ(read(at), value_seen(returns(1)));
  mprotect(at, kPageSize, kReadWrite | PROT_EXEC);
  EXPECT_EQ(call(at), value_seen(1));
  mprotect(at, kPageSize, PROT_NONE);
  EXPECT_EQ(read(at), kForbiddenSeen);
  munmap(at, kPageSize);
  EXPECT_EQ(read(at), kUnmappedSeen);
  EXPECT_EQ(write(at + kPageSize, 3), kWritten);
  mmap(at, kPageSize, PROT_READ, kPrivate | MAP_FIXED, -1, 0);
  EXPECT_EQ(read(at), value_seen(0));
  EXPECT_EQ(write(at, 3), kForbiddenSeen);
}

TEST_P(AddressSpaces, NeighboursComeAlongWithoutBecomingResident) {
  constexpr uint64_t kSize = 64 * kPageSize;
  uint8_t* at = map(2 * kSize, kReadWrite, kPrivate);
  at = reinterpret_cast<uint8_t*>((uint64_t(at) + kSize - 1) & -kSize);
  madvise(at, kSize, MADV_NOHUGEPAGE);
  EXPECT_EQ(write(at + 5 * kPageSize, 1), kWritten);
  EXPECT_EQ(resident(at, kSize), 1u);
  // They are mapped: reading and writing one is no fault.
  const TargetAddr first(reinterpret_cast<uint64_t>(at));
  for (uint64_t i = 0; i < 16; ++i)
    EXPECT_TRUE(guest_->guest.tables.mapped(first + i * kPageSize)) << i;
  EXPECT_FALSE(guest_->guest.tables.mapped(first + 16 * kPageSize));
  for (uint64_t i = 0; i < kSize; i += 16 * kPageSize)
    EXPECT_EQ(write(at + i, i), kWritten);
  EXPECT_EQ(resident(at, kSize), 5u);
  for (uint64_t i = 0; i < kSize; i += kPageSize)
    EXPECT_EQ(write(at + i, i), kWritten);
  for (uint64_t i = 0; i < kSize; i += kPageSize)
    EXPECT_EQ(*reinterpret_cast<uint64_t*>(at + i), i);
}

TEST_P(AddressSpaces, ReadingCopiesNothing) {
  const Fd fd = file_of(kPageSize);
  uint64_t word = 5;
  ASSERT_EQ(pwrite(fd.get(), &word, sizeof word, 0), ssize_t(sizeof word));
  uint8_t* at = map(kPageSize, kReadWrite, MAP_PRIVATE, fd.get());
  const Fd pages(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  const auto is_the_files = [&] {
    uint64_t entry = 0;
    EXPECT_EQ(pread(pages.get(), &entry, sizeof entry, long(uint64_t(at) / kPageSize * 8)), 8);
    return bool(entry >> 61 & 1);
  };
  EXPECT_EQ(read(at), value_seen(5));
  EXPECT_TRUE(is_the_files());
  EXPECT_EQ(write(at, 6), kWritten);
  EXPECT_FALSE(is_the_files());
  EXPECT_EQ(pread(fd.get(), &word, sizeof word, 0), ssize_t(sizeof word));
  EXPECT_EQ(word, 5u);
  unmap(at, kPageSize);
}

TEST_P(AddressSpaces, StackGrowsAsFarAsTheKernelLetsIt) {
  constexpr uint64_t kRoom = 1024 * kPageSize, kGap = 256 * kPageSize;
  uint8_t* room = map(kRoom, PROT_READ, kPrivate);
  // A mapping at the bottom, nothing, a stack of two pages at the top.
  unmap(room + kPageSize, kRoom - kPageSize);
  uint8_t* stack = room + kRoom - 2 * kPageSize;
  const auto map_stack = [&] {
    return map(2 * kPageSize, kReadWrite, kPrivate | MAP_FIXED | MAP_GROWSDOWN, -1, stack);
  };
  ASSERT_EQ(map_stack(), stack);
  const uint8_t* lowest = room + kPageSize + kGap;
  const auto all = [&](auto&& step) {
    Seen last;
    for (const uint8_t* at = stack; at >= lowest && last == kWritten; at -= 16 * kPageSize)
      last = step(at, Access::kWrite);
    if (last == kWritten)
      last = step(lowest, Access::kRead);
    return last == value_seen(0) ? step(lowest - 8, Access::kWrite) : last;
  };
  const Seen expected = natively([&] {
    return all([&](const uint8_t* at, Access kind) { return access_natively(kind, uint64_t(at)); });
  });
  EXPECT_EQ(all([&](const uint8_t* at, Access kind) {
              return access(guest_->thread, kind, uint64_t(at));
            }),
            expected);
  EXPECT_NE(expected.signal, 0);
  EXPECT_EQ(write(lowest + kPageSize, 3), kWritten);
  EXPECT_EQ(call(lowest + 2 * kPageSize), kForbiddenSeen);
  unmap(room, kRoom);
}

TEST_P(AddressSpaces, FileTruncatedWhileMappedIsABusErrorUntilItGrows) {
  const Fd fd = file_of(4 * kPageSize);
  uint8_t* at = map(8 * kPageSize, kReadWrite, MAP_SHARED, fd.get());
  EXPECT_EQ(write(at, 1), kWritten);
  EXPECT_EQ(write(at + 3 * kPageSize, 2), kWritten);
  EXPECT_EQ(write(at + 4 * kPageSize, 3), kMissingSeen); // a neighbour of the first
  ASSERT_EQ(ftruncate(fd.get(), kPageSize), 0);
  EXPECT_EQ(read(at + 3 * kPageSize), kMissingSeen);
  EXPECT_EQ(read(at), value_seen(1));
  ASSERT_EQ(ftruncate(fd.get(), 8 * kPageSize), 0);
  EXPECT_EQ(read(at + 3 * kPageSize), value_seen(0));
  EXPECT_EQ(write(at + 7 * kPageSize, 4), kWritten);
  unmap(at, 8 * kPageSize);
}

TEST_P(AddressSpaces, PagesThatGoAndComeAreTheKernelsBusiness) {
  uint8_t* at = map(4 * kPageSize, kReadWrite, kPrivate);
  EXPECT_EQ(write(at, 1), kWritten);
  EXPECT_EQ(change(__NR_madvise, at, kPageSize, MADV_DONTNEED), 0);
  EXPECT_EQ(read(at), value_seen(0));
  EXPECT_EQ(write(at, 2), kWritten);
  // Copied when it is written to after a fork: the child keeps what was.
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    char c;
    close(ends[1]);
    const bool waited = ::read(ends[0], &c, 1) == 0;
    _exit(waited && *reinterpret_cast<uint64_t*>(at) == 2 ? 0 : 1);
  }
  close(ends[0]);
  EXPECT_EQ(write(at, 3), kWritten);
  EXPECT_EQ(*reinterpret_cast<uint64_t*>(at), 3u);
  close(ends[1]);
  int status = -1;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(read(at), value_seen(3));
  unmap(at, 4 * kPageSize);
}

TEST_P(AddressSpaces, EveryMappingOfThisProcessReadsAsItDoesNatively) {
  // The vDSO and its data among them, which are not pages of memory.
  std::vector<std::pair<uint64_t, std::string>> found;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    unsigned long begin, end;
    ASSERT_EQ(sscanf(line.c_str(), "%lx-%lx", &begin, &end), 2);
    for (uint64_t at : {begin, (begin + end) / 2 & -kPageSize, end - kPageSize})
      if (at < kUserEnd)
        found.emplace_back(at, line);
  }
  bool vdso = false;
  for (const auto& [at, line] : found) {
    vdso |= line.find("[vdso]") != std::string::npos;
    Seen seen = access(guest_->thread, Access::kRead, at);
    Seen expected = natively([at = at] { return access_natively(Access::kRead, at); });
    if (seen.signal == 0 && expected.signal == 0)
      seen.value = expected.value = 0; // clocks tick, and much here is at work
    if (expected == kUnmappedSeen)
      continue; // what a child does not inherit
    const bool ours = guest_->guest.memory.contains(TargetAddr(at)) ||
                      guest_->cpu.memory.contains(TargetAddr(at));
    if (placement() == backend::Placement::kRing0 && ours)
      expected = kUnmappedSeen;
    EXPECT_EQ(seen, expected) << std::hex << at << " in " << line;
  }
  EXPECT_TRUE(vdso);
  EXPECT_EQ(access(guest_->thread, Access::kRead, 0xffffffffff600000), kUnmappedSeen);
}

TEST_P(AddressSpaces, HugePagesAreMappedAndSplit) {
  constexpr uint64_t kHuge = 2 << 20;
  uint8_t* room = map(3 * kHuge, kReadWrite | PROT_EXEC, kPrivate);
  auto* at = reinterpret_cast<uint8_t*>((uint64_t(room) + kHuge - 1) & -kHuge);
  madvise(at, kHuge, MADV_HUGEPAGE);
  for (uint64_t i = 0; i < 2 * kHuge; i += 37 * kPageSize)
    EXPECT_EQ(write(at + i, returns(uint32_t(i))), kWritten);
  EXPECT_EQ(change(__NR_mprotect, at + 37 * kPageSize, kPageSize, PROT_READ), 0);
  EXPECT_EQ(write(at + 37 * kPageSize, 1), kForbiddenSeen);
  EXPECT_EQ(call(at + 37 * kPageSize), kForbiddenSeen);
  EXPECT_EQ(call(at + 74 * kPageSize), value_seen(74 * kPageSize));
  unmap(at, kHuge);
  EXPECT_EQ(read(at + 74 * kPageSize), kUnmappedSeen);
  EXPECT_EQ(call(at + 37 * 14 * kPageSize), value_seen(37 * 14 * kPageSize));
  unmap(room, 3 * kHuge);
}

TEST_P(AddressSpaces, ReservedHugePagesAreReplacedWhole) {
  constexpr uint64_t kHuge = 2 << 20;
  uint8_t* room = map(4 * kHuge, kReadWrite | PROT_EXEC, kPrivate);
  auto* at = reinterpret_cast<uint8_t*>((uint64_t(room) + kHuge - 1) & -kHuge);
  EXPECT_EQ(write(at + kHuge - kPageSize, returns(1)), kWritten);
  EXPECT_EQ(call(at + kHuge - kPageSize), value_seen(1));
  // The kernel makes more of one page than was asked for.
  if (map(kPageSize, kReadWrite, kPrivate | MAP_HUGETLB | MAP_FIXED, -1, at) != at)
    GTEST_SKIP() << "no huge pages are reserved here";
  EXPECT_EQ(read(at + kHuge - kPageSize), value_seen(0));
  EXPECT_EQ(write(at + kHuge - kPageSize, returns(2)), kWritten);
  EXPECT_EQ(call(at + kHuge - kPageSize), kForbiddenSeen);
  unmap(at, kHuge);
  EXPECT_EQ(read(at), kUnmappedSeen);
}

TEST_P(AddressSpaces, PageThatKvmDoesNotTakeIsABusErrorAndNoLoop) {
  const Fd fd(int(syscall(__NR_memfd_secret, 0)));
  if (fd.get() < 0)
    GTEST_SKIP() << "memfd_secret is not there";
  ASSERT_EQ(ftruncate(fd.get(), kPageSize), 0);
  uint8_t* at = map(kPageSize, kReadWrite, MAP_SHARED, fd.get());
  EXPECT_EQ(natively([&] { return access_natively(Access::kRead, uint64_t(at)); }), value_seen(0));
  const bool taken = GetParam()->guest != backend::GuestKind::kKvm; // our module takes it
  EXPECT_EQ(read(at), taken ? value_seen(0) : kMissingSeen);
  EXPECT_EQ(write(at, 1), taken ? kWritten : kMissingSeen);
  unmap(at, kPageSize);
  EXPECT_EQ(read(at), kUnmappedSeen);
}

TEST_P(AddressSpaces, WhatIsOursIsNotTheProgramsWhereRing0IsReal) {
  uint8_t* memory = map(4 * kPageSize, kReadWrite, kPrivate);
  const TargetAddr begin(reinterpret_cast<uint64_t>(memory));
  const TargetRange own[] = {{begin + kPageSize, begin + 2 * kPageSize}};
  std::vector<Mapped> known(64);
  AddressSpace space;
  ASSERT_TRUE(space.open(guest_->guest, known, own));
  backend::MappedThread thread{space, guest_->cpu};
  const auto write_to = [&](uint64_t page) {
    return access(thread, Access::kWrite, (begin + page * kPageSize).value, page);
  };
  EXPECT_EQ(write_to(0), kWritten);
  EXPECT_EQ(write_to(2), kWritten);
  EXPECT_FALSE(guest_->guest.tables.mapped(own[0].begin)); // no neighbour of the program's
  const bool hidden = placement() == backend::Placement::kRing0;
  EXPECT_EQ(write_to(1), hidden ? kUnmappedSeen : kWritten);
  // A handler in ring 0.
  FaultHistory history{};
  EXPECT_EQ(space.serve(own[0].begin, kFaultWrite, history), Outcome::kServed);
  EXPECT_EQ(write_to(1), hidden ? kUnmappedSeen : kWritten);
  // It survives what clears the program's.
  backend::unmap_pages(guest_->guest, {TargetAddr(0), TargetAddr(kUserEnd)});
  EXPECT_TRUE(guest_->guest.tables.mapped(own[0].begin));
  EXPECT_FALSE(guest_->guest.tables.mapped(begin));
  space.close();
}

class WatchedPages : public AddressSpaces {
protected:
  static constexpr Seen kWatchedSeen{-2, int(Outcome::kWatched)};

  void watch(std::initializer_list<WatchedPage> pages) {
    const Holder holder(guest_->memory.mutex());
    guest_->memory.watch_locked({pages.begin(), pages.size()});
  }
  static TargetAddr page_at(const uint8_t* at) {
    return TargetAddr(reinterpret_cast<uint64_t>(at));
  }
};

INSTANTIATE_TEST_SUITE_P(Guests, WatchedPages, backend::each_guest(), backend::name_of_guest);

TEST_P(WatchedPages, WritesComeOutAlthoughThePageWasInUse) {
  for (int prot : {kReadWrite, kReadWrite | PROT_EXEC}) {
    uint8_t* at = map(3 * kPageSize, prot, kPrivate);
    for (int i = 0; i < 3; ++i)
      EXPECT_EQ(write(at + i * kPageSize, returns(1)), kWritten);
    watch({{page_at(at + kPageSize), true}});
    EXPECT_EQ(write(at + kPageSize, 2), kWatchedSeen);
    EXPECT_EQ(read(at + kPageSize), value_seen(returns(1)));
    EXPECT_EQ(write(at + kPageSize, 2), kWatchedSeen);
    EXPECT_EQ(call(at + kPageSize), prot & PROT_EXEC ? value_seen(1) : kForbiddenSeen);
    EXPECT_EQ(write(at, 3), kWritten);
    EXPECT_EQ(write(at + 2 * kPageSize, 3), kWritten);
    // Outside, the page has all its rights.
    EXPECT_EQ(access_natively(Access::kWrite, uint64_t(at + kPageSize), 4), kWritten);
    EXPECT_EQ(read(at + kPageSize), value_seen(4));
    watch({});
    EXPECT_EQ(write(at + kPageSize, 5), kWritten);
    unmap(at, 3 * kPageSize);
  }
}

TEST_P(WatchedPages, AllAccessesComeOut) {
  uint8_t* at = map_code(2 * kPageSize);
  EXPECT_EQ(write(at + kPageSize, returns(8)), kWritten);
  watch({{page_at(at), false}, {page_at(at), true}});
  EXPECT_EQ(read(at), kWatchedSeen);
  EXPECT_EQ(write(at, 1), kWatchedSeen);
  EXPECT_EQ(call(at), kWatchedSeen);
  EXPECT_EQ(call(at + kPageSize), value_seen(8));
  EXPECT_EQ(access_natively(Access::kRead, uint64_t(at)), value_seen(returns(7)));
  watch({{page_at(at + kPageSize), false}});
  EXPECT_EQ(call(at), value_seen(7));
  EXPECT_EQ(call(at + kPageSize), kWatchedSeen);
  watch({});
  EXPECT_EQ(call(at + kPageSize), value_seen(8));
  unmap(at, 2 * kPageSize);
}

TEST_P(WatchedPages, AreNoNeighbours) {
  constexpr uint64_t kSize = 16 * kPageSize;
  uint8_t* at = map(2 * kSize, kReadWrite, kPrivate);
  uint8_t* aligned = at + (-uint64_t(at) & (kSize - 1));
  watch({{page_at(aligned + 5 * kPageSize), true}, {page_at(aligned + 6 * kPageSize), false}});
  EXPECT_EQ(write(aligned + 4 * kPageSize, 1), kWritten);
  for (uint64_t i = 0; i < 16; ++i)
    EXPECT_EQ(guest_->guest.tables.mapped(page_at(aligned + i * kPageSize)), i != 5 && i != 6) << i;
  EXPECT_EQ(read(aligned + 5 * kPageSize), value_seen(0));
  EXPECT_EQ(write(aligned + 5 * kPageSize, 1), kWatchedSeen);
  EXPECT_EQ(write(aligned + 7 * kPageSize, 1), kWritten);
  watch({});
  unmap(at, 2 * kSize);
}

TEST_P(WatchedPages, StayWatchedWhateverIsMappedThere) {
  uint8_t* at = map(2 * kPageSize, kReadWrite, kPrivate);
  watch({{page_at(at), true}});
  EXPECT_EQ(write(at, 1), kWatchedSeen);
  ASSERT_EQ(change(__NR_mprotect, at, kPageSize, PROT_READ), 0);
  EXPECT_EQ(write(at, 1), kForbiddenSeen); // as it would be outside
  ASSERT_EQ(change(__NR_mprotect, at, kPageSize, kReadWrite), 0);
  EXPECT_EQ(write(at, 1), kWatchedSeen);
  unmap(at, kPageSize);
  EXPECT_EQ(write(at, 1), kUnmappedSeen);
  ASSERT_EQ(
      change(__NR_mremap, at + kPageSize, kPageSize, kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED, at),
      long(at));
  EXPECT_EQ(write(at, 1), kWatchedSeen);
  ASSERT_EQ(map(kPageSize, kReadWrite, kPrivate | MAP_FIXED, -1, at), at);
  EXPECT_EQ(write(at, 1), kWatchedSeen);
  // A page that is not there when the watch comes.
  unmap(at, kPageSize);
  watch({{page_at(at), false}});
  EXPECT_EQ(read(at), kUnmappedSeen);
  ASSERT_EQ(map(kPageSize, kReadWrite, kPrivate, -1, at), at);
  EXPECT_EQ(read(at), kWatchedSeen);
  watch({});
  unmap(at, kPageSize);
}

TEST_P(WatchedPages, AreFilesAndHugePagesToo) {
  const Fd file = file_of(2 * kPageSize);
  uint8_t* at = map(2 * kPageSize, kReadWrite, MAP_SHARED, file.get());
  EXPECT_EQ(write(at, 1), kWritten);
  watch({{page_at(at), true}});
  EXPECT_EQ(write(at, 2), kWatchedSeen);
  EXPECT_EQ(call(at), kForbiddenSeen);
  unmap(at, 2 * kPageSize);
  constexpr uint64_t kHuge = 2 << 20;
  at = map(2 * kHuge, kReadWrite, kPrivate);
  uint8_t* huge = at + (-uint64_t(at) & (kHuge - 1));
  madvise(huge, kHuge, MADV_HUGEPAGE);
  EXPECT_EQ(write(huge, 1), kWritten);
  EXPECT_EQ(write(huge + 3 * kPageSize, 1), kWritten);
  watch({{page_at(huge + 3 * kPageSize), true}});
  EXPECT_EQ(write(huge + 3 * kPageSize, 2), kWatchedSeen);
  EXPECT_EQ(write(huge, 2), kWritten);
  watch({});
  unmap(at, 2 * kHuge);
}

TEST_P(WatchedPages, PageThatIsWatchedTwiceIsOne) {
  uint8_t* at = map(2 * kPageSize, kReadWrite, kPrivate);
  watch({{page_at(at), true}, {page_at(at), false}, {page_at(at + kPageSize), true}});
  EXPECT_EQ(guest_->memory.watched_bit(page_at(at)), 1u);
  EXPECT_EQ(guest_->memory.watched_bit(page_at(at + kPageSize)), 2u);
  EXPECT_EQ(read(at), kWatchedSeen);
  watch({});
  unmap(at, 2 * kPageSize);
}

// As a thread has the program's pages whose instruction accesses these that are watched.
class ViewsOfWatchedPages : public WatchedPages {
protected:
  void view(std::initializer_list<const uint8_t*> pages) {
    uint32_t bits = 0;
    for (const uint8_t* page : pages)
      bits |= guest_->memory.watched_bit(page_at(page));
    guest_->cpu.root = guest_->memory.root_for(bits);
  }
  void TearDown() override {
    if (!guest_)
      return;
    watch({});
    view({});
  }
};

INSTANTIATE_TEST_SUITE_P(Guests, ViewsOfWatchedPages, backend::each_guest(),
                         backend::name_of_guest);

TEST_P(ViewsOfWatchedPages, AreTheTablesWhereRing0IsEmulated) {
  uint8_t* at = map(kPageSize, kReadWrite, kPrivate);
  watch({{page_at(at), true}});
  EXPECT_EQ(write(at, 1), kWatchedSeen);
  view({at});
  const bool is_the_same = guest_->cpu.root == guest_->guest.tables.root();
  EXPECT_EQ(is_the_same, placement() == backend::Placement::kRing3);
  EXPECT_EQ(write(at, 1), is_the_same ? kWatchedSeen : kWritten);
  unmap(at, kPageSize);
}

TEST_P(ViewsOfWatchedPages, HaveThoseThatAreAskedFor) {
  if (placement() == backend::Placement::kRing3)
    return;
  uint8_t* at = map(3 * kPageSize, kReadWrite | PROT_EXEC, kPrivate);
  uint8_t *first = at, *second = at + kPageSize, *other = at + 2 * kPageSize;
  EXPECT_EQ(write(second, returns(2)), kWritten);
  watch({{page_at(first), true}, {page_at(second), false}});
  EXPECT_EQ(write(first, 1), kWatchedSeen);
  EXPECT_EQ(read(second), kWatchedSeen);
  view({first});
  EXPECT_EQ(write(first, 1), kWritten);
  EXPECT_EQ(read(second), kWatchedSeen);
  EXPECT_EQ(write(other, 5), kWritten);
  view({second});
  EXPECT_EQ(call(second), value_seen(2));
  EXPECT_EQ(read(first), value_seen(1));
  EXPECT_EQ(write(first, 2), kWatchedSeen);
  view({first, second});
  EXPECT_EQ(write(first, 3), kWritten);
  EXPECT_EQ(write(second, 4), kWritten);
  view({});
  EXPECT_EQ(write(first, 5), kWatchedSeen);
  EXPECT_EQ(read(second), kWatchedSeen);
  // In another order, and one of them not any more.
  watch({{page_at(second), true}});
  EXPECT_EQ(write(second, 6), kWatchedSeen);
  view({second});
  EXPECT_EQ(write(second, 6), kWritten);
  EXPECT_EQ(write(first, 7), kWritten);
  unmap(at, 3 * kPageSize);
}

TEST_P(ViewsOfWatchedPages, FollowWhatIsMapped) {
  if (placement() == backend::Placement::kRing3)
    return;
  uint8_t* at = map(2 * kPageSize, kReadWrite, kPrivate);
  watch({{page_at(at), true}});
  EXPECT_EQ(write(at, 1), kWatchedSeen);
  view({at});
  EXPECT_EQ(write(at, 1), kWritten);
  EXPECT_EQ(call(at), kForbiddenSeen);
  ASSERT_EQ(change(__NR_mprotect, at, kPageSize, PROT_READ), 0);
  EXPECT_EQ(write(at, 2), kForbiddenSeen);
  EXPECT_EQ(read(at), value_seen(1));
  ASSERT_EQ(change(__NR_mprotect, at, kPageSize, kReadWrite | PROT_EXEC), 0);
  EXPECT_EQ(write(at, returns(3)), kWatchedSeen); // to be told again
  EXPECT_EQ(write(at, returns(3)), kWritten);
  EXPECT_EQ(call(at), value_seen(3));
  ASSERT_EQ(change(__NR_mprotect, at, kPageSize, kReadWrite), 0);
  EXPECT_EQ(call(at), kForbiddenSeen);
  unmap(at, kPageSize);
  EXPECT_EQ(read(at), kUnmappedSeen);
  ASSERT_EQ(
      change(__NR_mremap, at + kPageSize, kPageSize, kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED, at),
      long(at));
  EXPECT_EQ(read(at), value_seen(0));
  EXPECT_EQ(write(at, 4), kWritten);
  EXPECT_EQ(read(at + kPageSize), kUnmappedSeen);
  // Elsewhere: what comes with the view, or with it gone, is there for both; so is what goes.
  constexpr uint64_t kFar = 1ull << 30;
  uint8_t* far = map(2 * kFar, kReadWrite, kPrivate | MAP_NORESERVE);
  EXPECT_EQ(write(far, 5), kWritten);
  view({});
  EXPECT_EQ(write(far + kFar, 6), kWritten);
  EXPECT_EQ(write(at + kPageSize, 7), kUnmappedSeen);
  view({at});
  EXPECT_EQ(read(far), value_seen(5));
  EXPECT_EQ(read(far + kFar), value_seen(6));
  unmap(far, 2 * kFar);
  EXPECT_EQ(read(far), kUnmappedSeen);
  EXPECT_EQ(read(far + kFar), kUnmappedSeen);
  unmap(at, kPageSize);
}

TEST_P(AddressSpaces, FullTablesAreRenewed) {
  auto small = open_guest(1024, kLeastTables);
  ASSERT_TRUE(small) << small.error().text;
  constexpr uint64_t kRegion = 2 << 20, kRegions = 200;
  uint8_t* at = map(kRegions * kRegion, kReadWrite, kPrivate | MAP_NORESERVE);
  madvise(at, kRegions * kRegion, MADV_NOHUGEPAGE);
  for (uint64_t round = 1; round <= 2; ++round)
    for (uint64_t i = 0; i < kRegions; ++i) {
      const uint64_t word = uint64_t(at) + i * kRegion + i % 3 * kPageSize;
      EXPECT_EQ(access((*small)->thread, Access::kRead, word), value_seen(round == 1 ? 0 : i + 1));
      EXPECT_EQ(access((*small)->thread, Access::kWrite, word, i + round), kWritten);
      EXPECT_EQ(*reinterpret_cast<uint64_t*>(word), i + round);
    }
  unmap(at, kRegions * kRegion);
}

// As where addresses of the second level are few: 16 chunks of 1 GiB.
TEST_P(AddressSpaces, GigabytesThatAreNotUsedAnyMoreMakeRoom) {
  static backend::GuestOps whole;
  whole = ops();
  backend::GuestOps narrow = whole;
  narrow.open = [](backend::Guest& g) {
    Status ok = whole.open(g);
    g.physical_bits = 34;
    return ok;
  };
  auto guest = backend::MappedGuest::open(narrow, placement(), {}, 1024);
  ASSERT_TRUE(guest) << guest.error().text;
  constexpr uint64_t kChunks = 40;
  uint8_t* at = map(kChunks * backend::kChunkSize, kReadWrite, kPrivate | MAP_NORESERVE);
  madvise(at, kChunks * backend::kChunkSize, MADV_NOHUGEPAGE);
  for (uint64_t round = 1; round <= 2; ++round)
    for (uint64_t i = 0; i < kChunks; ++i) {
      const uint64_t word = uint64_t(at) + i * backend::kChunkSize;
      EXPECT_EQ(access((*guest)->thread, Access::kRead, word), value_seen(round == 1 ? 0 : i + 1));
      EXPECT_EQ(access((*guest)->thread, Access::kWrite, word, i + round), kWritten);
      EXPECT_EQ(*reinterpret_cast<uint64_t*>(word), i + round);
    }
  unmap(at, kChunks * backend::kChunkSize);
}

TEST_P(AddressSpaces, DescriptorLiesHighAndIsTheProcesssOwn) {
  EXPECT_GT(guest_->memory.descriptor(), 100);
  EXPECT_TRUE(fcntl(guest_->memory.descriptor(), F_GETFD) & FD_CLOEXEC);
  const pid_t pid = fork();
  if (pid == 0) {
    guest_->memory.close();
    _exit(fcntl(guest_->memory.descriptor(), F_GETFD) == -1 ? 0 : 1);
  }
  int status = -1;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
  auto memory = Mapping::anonymous(kPageSize);
  ASSERT_TRUE(memory);
  EXPECT_EQ(write(memory->data(), 1), kWritten);
}

} // namespace
} // namespace dune::process
