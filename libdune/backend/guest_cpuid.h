// What CPUID says in a guest: what the program knows from outside it. KVM's own suggestion is meant
// for kernels: it has no topology and no caches, says "KVM" where a hypervisor's name goes, and
// adds features of ring 0. Freestanding-clean.
#pragma once

#include <cstdint>
#include <linux/kvm.h>
#include <span>

namespace dune::backend {

struct CpuidWords {
  uint32_t eax, ebx, ecx, edx;
};
// The instruction, outside of a guest.
using Cpuid = CpuidWords (*)(uint32_t leaf, uint32_t subleaf);
inline CpuidWords cpuid_of_processor(uint32_t leaf, uint32_t subleaf) {
  CpuidWords w;
  asm volatile("cpuid"
               : "=a"(w.eax), "=b"(w.ebx), "=c"(w.ecx), "=d"(w.edx)
               : "a"(leaf), "c"(subleaf));
  return w;
}

inline constexpr uint32_t kExtendedFeatures = 0x80000001;

// Turns the first `count` of the entries, which are what KVM supports, into what the guest is to
// have, and returns how many that are. A feature that KVM does not give stays away; what does not
// fit is left out.
uint32_t make_cpuid(std::span<kvm_cpuid_entry2> entries, uint32_t count, Cpuid host);

} // namespace dune::backend
