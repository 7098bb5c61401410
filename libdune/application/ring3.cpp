#include "libdune/include/dune/ring3.h"

#include "libdune/arch/descriptors.h"

namespace dune {

// The agent changes places for us (agent/application.cpp), with all general registers kept.
void run_ring3(Ring3& r) { asm volatile("int %0" : : "i"(kVectorRing3), "D"(&r) : "memory"); }

} // namespace dune
