// Code that the program runs in ring 3: it may use the pages that have kRing3 (paging.h) and make
// no system call by itself. Its `syscall` comes to the program's handler for
// vector::kRing3SystemCall, its exceptions to the handlers for those.
#pragma once

#include <dune/trap.h>

namespace dune {

// What ring 3 runs with, and afterwards what it has come to. Only rip, rsp, eflags, the general
// registers and the bases count at first.
struct Ring3 {
  Trap trap{};
  uint64_t fs_base = 0, gs_base = 0;

  // Ours, while it runs: who has called.
  struct {
    Trap trap;
    uint64_t fs_base, gs_base;
    Ring3* outer;
  } caller{};
};

// Comes back with the first exception or system call of ring 3 whose handler there is none or says
// that it has not dealt with: `trap` has it, and another call goes on from there. Vector registers
// are handed over as they are, in both directions.
// Only in Dune mode: elsewhere it is a SIGSEGV. In a child that a handler has forked there is no
// ring 3: there it comes back when the handler does, with the `trap` that the handler has left.
// A signal's handler runs in ring 0, as if it had come in the middle of this call. It ends ring 3
// by taking its code from it (protect() without kRing3), which is a page fault there.
void run_ring3(Ring3&);

} // namespace dune
