// What the guest's page tables say of the program's memory. They are a cache of the process's own
// mappings: page faults fill them (serve), calls that change mappings empty them (change), and the
// kernel is asked before any access is refused. An entry never has more rights than the mapping.
//
// The rule that keeps both in step: a call that takes rights away or moves pages clears the guest's
// entries first, then changes the mapping, both under one lock. The change is what makes the
// processor (or KVM's shadow of the tables) forget; no entry can come back in between.
//
// What changes mappings and goes around change(): io_setup, another process (the keeper), a child
// of vfork that does not call it. A page that is gone or has lost its right to be read or written
// is found out all the same, by KVM; only a lost right to execute is not.
//
// What differs from life without a guest: no mapping is without the right to read (KVM takes none
// such). Write-only and execute-only ones get it when they are first used, which /proc/self/maps
// shows; on a processor with protection keys the latter would not have been readable otherwise.
//
// Watched pages are the one exception to "as many rights as the mapping": the guest has them
// without the right to write, or not at all, while the process's own mapping keeps its rights. So
// each access in the guest comes here, and is made unhindered outside it; or, where ring 0 is real,
// with a view of the tables in which the page is as any other. There is one view for each watched
// page and one for all, to be used by any number of threads, and the rule from above holds for
// them.
//
// Freestanding-clean.
#pragma once

#include "libdune/backend/guest.h"
#include "libdune/process/mappings.h"
#include "libdune/process/mutex.h"

namespace dune::process {

// Of a page fault.
enum FaultError : uint64_t {
  kFaultPresent = 1,
  kFaultWrite = 2,
  kFaultUser = 4, // in ring 3
  kFaultFetch = 16,
};

enum class Outcome : uint32_t {
  kServed,      // run the thread again
  kWatched,     // nothing but a watch stands in the way: the access has to be made past it
  kNoMapping,   // SIGSEGV, SEGV_MAPERR. (The vsyscall page, too: it is nobody's mapping.)
  kNoRights,    // SIGSEGV, SEGV_ACCERR
  kNoPage,      // SIGBUS, BUS_ADRERR: beyond the end of a file, or lost
  kOutOfMemory, // what the kernel would answer with its killer
};

// The error code with which the kernel refuses a fault that was refused here: its tables, not the
// guest's, say whether the page is there.
uint64_t error_in_kernel(TargetAddr address, uint64_t error, Outcome refused);

// A thread's, zeroed: what tells a page that KVM never takes from one that comes and goes.
struct FaultHistory {
  TargetAddr served;  // the page served last
  TargetAddr suspect; // what that was when KVM last met a page that the host refuses
  uint32_t times;     // in a row
};

struct WatchedPage {
  TargetAddr page;
  bool writes_only; // else all accesses, fetches included
};

class AddressSpace {
public:
  static constexpr uint32_t kMostWatched = 16;

  // Makes a system call. Called with the lock held.
  using Call = long (*)(void* context, long number, const long arguments[6]);

  AddressSpace() = default;
  AddressSpace(const AddressSpace&) = delete;
  AddressSpace& operator=(const AddressSpace&) = delete;

  // `own` is memory that is ours and not the program's; handlers in ring 3 share it with the
  // program, where ring 0 is real there is nothing for ring 3 but `copies`, parts of it that the
  // program executes and nobody writes. All four stay the caller's.
  // Takes a descriptor, which lies high and is closed by execve.
  Status open(backend::Guest&, std::span<Mapped> pool, std::span<const TargetRange> own,
              std::span<const TargetRange> copies = {});
  // Also in a forked child, which can do nothing else with it.
  void close();
  int descriptor() const { return maps_; }

  // A thread of the guest faulted at `address`, with the tables of that root (null: those of all).
  // Waits for the page's contents without the lock.
  Outcome serve(TargetAddr address, uint64_t error, FaultHistory&, GuestPhysAddr root = {});

  // KVM met a page that the host refuses (Why::kUnbacked): run the thread again, the next fault
  // says which. Not null: there was no such fault, time after time. This is the page, which KVM
  // does not take although the host has it; SIGBUS.
  TargetAddr unbacked(FaultHistory&);

  // Makes a system call of the program's through `call`. Takes the lock if it is one that changes
  // mappings.
  long change(long number, const long arguments[6], Call call, void* context);

  // What is watched from now on, at most kMostWatched, of a page perhaps more than once; pages of
  // ours cannot be. The lock is held by the caller. Threads that are in the guest meanwhile see it
  // at once.
  void watch_locked(std::span<const WatchedPage>);
  // A bit for the page if it is watched.
  uint32_t watched_bit(TargetAddr page);
  // The tables for an instruction that accesses these of the watched pages (0: none), where ring 0
  // is real: others stay withheld there, if it is one. What serve() has said kWatched of is there.
  GuestPhysAddr root_for(uint32_t watched) const;

  // Guards the guest's tables: whoever else changes them (open_cpu) holds it meanwhile.
  Mutex& mutex() { return mutex_; }

private:
  TargetRange own_at(TargetAddr) const;  // empty: the program's
  TargetRange copy_at(TargetAddr) const; // empty: not one of the copies
  bool read_mappings(TargetAddr wanted);
  void drop(TargetRange);
  bool make_readable(const Mapped&);
  Outcome answer(TargetAddr page, uint64_t error, long populated, bool grown);
  Outcome map_present(TargetAddr page, uint64_t error, bool grown);
  Outcome map_special(TargetAddr page, uint64_t error);
  int largest_page(TargetAddr page, TargetRange mapping) const;
  Status map_large(TargetAddr page, uint64_t rights, int level);
  Outcome map_around(TargetAddr page, uint64_t error, const Mapped&);
  uint64_t withheld_at(TargetAddr page) const; // rights, from the guest, by watches
  Status map_in_views(TargetAddr page, GuestPhysAddr to, uint64_t rights);
  void flush(TargetAddr page);

  Outcome serve_mapping(TargetAddr page, uint64_t error);
  struct Said {
    PageEntry entry;
    int level;
  };
  Said said_by_program(GuestPhysAddr root, TargetAddr page);
  Outcome serve_elsewhere(GuestPhysAddr root, TargetAddr page, Said, uint64_t error);

  long map(const long arguments[6], Call, void* context);
  long protect(long number, const long arguments[6], Call, void* context);
  long move(const long arguments[6], Call, void* context);
  long set_break(const long arguments[6], Call, void* context);

  backend::Guest* guest_ = nullptr;
  std::span<const TargetRange> own_, copies_;
  int maps_ = -1;
  Mutex mutex_;
  // Guarded by it:
  Mappings known_;
  uint32_t alone_ = 0; // faults that bring no neighbours
  uint32_t watched_count_ = 0;
  WatchedPage watched_[kMostWatched] = {};
  char text_[4096] = {}; // the kernel never gives more of /proc/self/maps at once
};

} // namespace dune::process
