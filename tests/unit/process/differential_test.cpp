// Two processes make the same changes to their mappings and the same accesses, one in a guest, one
// natively. What they see has to be the same.
#include "access.h"
#include "libdune/arch/syscall.h"

#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <random>
#include <sstream>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

namespace dune::process {
namespace {

constexpr uint64_t kRegion = 0x10000000000;
constexpr uint64_t kPages = 48;
constexpr uint64_t kFilePages = 12;
constexpr int kFile = 200; // a descriptor, of another file in each process

struct Step {
  long number; // a system call, or kAccess
  long arguments[6];
};
constexpr long kAccess = -1; // kind, address, value

std::ostream& operator<<(std::ostream& out, const Step& s) {
  out << s.number << "(" << std::hex;
  for (long a : s.arguments)
    out << " " << a;
  return out << std::dec << " )";
}

// How one of the two makes its accesses and calls.
struct Way {
  std::function<Seen(Access, uint64_t, uint64_t)> access;
  std::function<long(long, const long*)> call;
};

Seen take(const Way& way, const Step& s) {
  const long* a = s.arguments;
  if (s.number != kAccess)
    return value_seen(uint64_t(way.call(s.number, a)));
  const auto kind = static_cast<Access>(a[0]);
  const auto at = uint64_t(a[1]);
  if (kind == Access::kCall) {
    // Only what is code is called; or what cannot be read, which cannot be executed either.
    const Seen word = way.access(Access::kRead, at, 0);
    if (word.signal == 0 && !is_code(word.value))
      return word;
  }
  return way.access(kind, at, uint64_t(a[2]));
}

void make_file() {
  const int fd = memfd_create("differential", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, kFilePages * kPageSize) != 0 || dup2(fd, kFile) != kFile)
    abort();
  close(fd);
}

class Native {
public:
  Native() {
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends_) != 0)
      abort();
    pid_ = fork();
    if (pid_ == 0) {
      close(ends_[0]);
      serve();
    }
    close(ends_[1]);
  }
  ~Native() {
    close(ends_[0]);
    waitpid(pid_, nullptr, 0);
  }
  Seen take(const Step& s) {
    Seen seen{-3};
    if (write(ends_[0], &s, sizeof s) != sizeof s || read(ends_[0], &seen, sizeof seen) < 0)
      seen = {-3};
    return seen;
  }

private:
  [[noreturn]] void serve() {
    make_file();
    const Way way{access_natively, [](long number, const long* a) {
                    return syscall_raw(number, a[0], a[1], a[2], a[3], a[4], a[5]);
                  }};
    for (Step s; read(ends_[1], &s, sizeof s) == sizeof s;) {
      const Seen seen = process::take(way, s);
      if (write(ends_[1], &seen, sizeof seen) != sizeof seen)
        break;
    }
    _exit(0);
  }

  int ends_[2];
  pid_t pid_;
};

class Steps {
public:
  explicit Steps(uint32_t seed) : random_(seed) {}

  Step access() {
    return {kAccess,
            {long(below(3)), long(kRegion + below(kPages) * kPageSize + below(4) * 512),
             long(returns(below(1 << 30)))}};
  }

  Step change() {
    const long at = long(page(below(kPages)));
    const long size = long(kPageSize * (1 + below(6)));
    switch (below(12)) {
    case 0:
    case 1:
    case 2: {
      const bool file = below(2);
      const long flags = MAP_FIXED | (below(2) ? MAP_SHARED : MAP_PRIVATE) |
                         (file ? 0 : MAP_ANONYMOUS) | (below(4) ? 0 : MAP_POPULATE);
      return {__NR_mmap,
              {at, size, prot(), flags, file ? kFile : -1, file ? long(below(16) * kPageSize) : 0}};
    }
    case 3:
      return {__NR_munmap, {at, size}};
    case 4:
    case 5:
    case 6:
      return {__NR_mprotect, {at, size, prot()}};
    case 7: // to another place
      return {
          __NR_mremap,
          {at, long(kPageSize), size, MREMAP_MAYMOVE | MREMAP_FIXED, long(page(below(kPages)))}};
    case 8: // where it is
      return {__NR_mremap, {at, long(kPageSize), size, 0}};
    case 9:
      return {__NR_madvise, {at, size, below(3) ? MADV_DONTNEED : MADV_REMOVE}};
    case 10:
      return {__NR_madvise, {at, size, below(3) ? MADV_GUARD_REMOVE : MADV_GUARD_INSTALL}};
    default:
      return {__NR_ftruncate, {kFile, long(below(kFilePages + 1) * kPageSize + below(2) * 100)}};
    }
  }

private:
  uint32_t below(uint32_t n) { return random_() % n; }
  static uint64_t page(uint64_t n) { return kRegion + n * kPageSize; }
  long prot() {
    const long p = below(3) ? PROT_READ | PROT_WRITE | long(below(2) * PROT_EXEC) : below(8);
    return p == PROT_EXEC && protection_keys_ ? PROT_READ | PROT_EXEC : p;
  }

  // The kernel makes execute-only memory unreadable with one; the guest has none.
  const bool protection_keys_ = [] {
    const int key = pkey_alloc(0, 0);
    return key >= 0 && pkey_free(key) == 0;
  }();
  std::mt19937 random_;
};

class Differential : public MemoryTest {
protected:
  void compare(uint32_t seed, int rounds, size_t known) {
    auto guest = open_guest(known);
    ASSERT_TRUE(guest) << guest.error().text;
    guest_ = std::move(*guest);
    Native native;
    make_file();
    const Way way{[&](Access kind, uint64_t address, uint64_t value) {
                    return process::access(guest_->thread, kind, address, value);
                  },
                  [&](long number, const long* a) {
                    return guest_->memory.change(number, a, make_call, nullptr);
                  }};
    Steps steps(seed);
    std::ostringstream done;
    const auto same = [&](const Step& s) {
      done << s << "\n";
      const Seen expected = native.take(s);
      EXPECT_EQ(process::take(way, s), expected) << s;
      counts_[expected.signal != 0 ? size_t(expected.code) + (expected.signal == SIGBUS ? 2 : 0)
                                   : 0] += s.number == kAccess;
      return !HasFailure();
    };
    for (int round = 0; round < rounds; ++round) {
      bool ok = same(steps.change());
      for (int i = 0; i < 4 && ok; ++i)
        ok = same(steps.access());
      for (uint64_t i = 0; i < kPages && ok && round % 64 == 0; ++i)
        ok = same({kAccess, {long(Access::kRead), long(kRegion + i * kPageSize)}});
      if (!ok) {
        const std::string all = done.str();
        FAIL() << "seed " << seed << ", round " << round << ":\n"
               << (all.size() > 4000 ? all.substr(all.size() - 4000) : all);
      }
    }
  }
  void TearDown() override {
    munmap(reinterpret_cast<void*>(kRegion), 2 * kPages * kPageSize);
    close(kFile);
  }

  uint32_t counts_[8] = {}; // accesses that went through, MAPERR, ACCERR, -, ADRERR
};

INSTANTIATE_TEST_SUITE_P(Guests, Differential, backend::each_guest(), backend::name_of_guest);

// DIFFERENTIAL_SEEDS: how many, for a longer run.
TEST_P(Differential, AccessesSeeWhatTheySeeNatively) {
  const char* seeds = getenv("DIFFERENTIAL_SEEDS");
  for (uint32_t seed = 1; seed <= (seeds ? strtoul(seeds, nullptr, 0) : 4); ++seed) {
    ASSERT_NO_FATAL_FAILURE(compare(seed, 400, 1024));
    TearDown();
  }
  for (size_t kind : {0, 1, 2, 4})
    EXPECT_GT(counts_[kind], 100u) << kind;
}

TEST_P(Differential, AlsoWhenMappingsCannotBeRemembered) {
  for (uint32_t seed = 101; seed <= 102; ++seed) {
    ASSERT_NO_FATAL_FAILURE(compare(seed, 200, 2));
    TearDown();
  }
}

} // namespace
} // namespace dune::process
