// Dune mode for a program itself (Dune, OSDI 2012): after enter() it goes on in ring 0 of a guest
// that is the process itself, at the same addresses, with page tables, exceptions and rings of its
// own. System calls, signals, threads and files are what they were.
#pragma once

#include <dune/base/result.h>

namespace dune {

struct EnterOptions {
  // "kmod" (dune.ko, /dev/dune) or "kvm" (/dev/kvm where ring 0 is the processor's). Null: the
  // first of these that is there.
  const char* backend = nullptr;
  // Where the processor has PCIDs, what it has cached of a view stays while another is in use. Off,
  // because nothing that was tried so far keeps it: emulators forget all at each change of tables.
  bool view_tags = false;
};

// The calling thread, and every thread that it and its like make from now on, is in ring 0 when it
// comes back. A forked child is not, and may enter by itself; a program that exec makes is not
// either.
//
// kInvalid: there are other threads already, the thread is in Dune mode or in a handler that its
// parent was in, or no backend has that name. kUnsupported,
// kPermission, kSystem: no backend works; `text` says why, `detail` is an error number or 0.
// Nothing has changed then.
Status enter(const EnterOptions& = {});

// Whether the calling thread is in ring 0 of Dune mode.
inline bool inside() {
  unsigned long cs;
  asm volatile("mov %%cs, %0" : "=r"(cs));
  return !(cs & 3);
}

// Which backend it is; null outside.
const char* backend_name();

} // namespace dune
