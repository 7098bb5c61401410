// Single accesses to memory, natively and in a guest, and what becomes of them.
#pragma once

#include "tests/unit/backend/guests.h"
#include "tests/unit/backend/host_loop.h"

#include <iosfwd>

namespace dune::process {

enum class Access { kRead, kWrite, kCall };

// What a program sees of one: a value or a signal.
struct Seen {
  int signal = 0; // 0: it went through
  int code = 0;   // si_code
  uint64_t value = 0;

  bool operator==(const Seen&) const = default;
};
void PrintTo(const Seen&, std::ostream*);

inline constexpr Seen kWritten{};
constexpr Seen value_seen(uint64_t v) { return {0, 0, v}; }
extern const Seen kUnmappedSeen, kForbiddenSeen, kMissingSeen; // MAPERR, ACCERR, ADRERR

// A word that is code: calling it returns `n`, which it contains.
constexpr uint64_t returns(uint32_t n) { return 0x9090c300000000b8 | uint64_t{n} << 8; }
constexpr bool is_code(uint64_t word) { return (word & 0xffffff00000000ff) == 0x9090c300000000b8; }

// In the guest. (Not to be called by two threads that share a `t`.)
Seen access(backend::MappedThread& t, Access, uint64_t address, uint64_t value = 0);

// In this thread, which must not have anything else to do with SIGSEGV and SIGBUS.
Seen access_natively(Access, uint64_t address, uint64_t value = 0);

class MemoryTest : public backend::GuestTest {
protected:
  void SetUp() override;
  static constexpr uint64_t kLeastTables =
      (backend::kLeastGuestMemory - sizeof(backend::GuestMemory)) / kPageSize;
  Result<std::unique_ptr<backend::MappedGuest>> open_guest(size_t known = 1024,
                                                           uint64_t table_pages = 1024) {
    return backend::MappedGuest::open(ops(), placement(), {}, table_pages, known);
  }

  Seen read(const void* at) { return access(guest_->thread, Access::kRead, uint64_t(at)); }
  Seen write(const void* at, uint64_t value) {
    return access(guest_->thread, Access::kWrite, uint64_t(at), value);
  }
  Seen call(const void* at) { return access(guest_->thread, Access::kCall, uint64_t(at)); }

  // The program's system call.
  template <class... Args> long change(long number, Args... args) {
    const long a[6] = {(long)args...};
    return guest_->memory.change(number, a, make_call, nullptr);
  }
  static long make_call(void*, long number, const long arguments[6]);
  uint8_t* map(uint64_t size, int prot, int flags, int fd = -1, void* at = nullptr);

  std::unique_ptr<backend::MappedGuest> guest_;
};

} // namespace dune::process
