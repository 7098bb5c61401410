// The calling thread's vector state, to and from an image in the standard format of XSAVE, or in
// that of FXSAVE where there is no XSAVE. Inline, for code that itself uses no vector register.
// Freestanding-clean.
#pragma once

namespace dune {

inline void load_vector_state(const void* image, bool has_xsave) {
  if (has_xsave)
    asm volatile("xrstor64 (%0)" ::"r"(image), "a"(-1), "d"(-1) : "memory");
  else
    asm volatile("fxrstor64 (%0)" ::"r"(image) : "memory");
}

inline void store_vector_state(void* image, bool has_xsave) {
  if (has_xsave)
    asm volatile("xsave64 (%0)" ::"r"(image), "a"(-1), "d"(-1) : "memory");
  else
    asm volatile("fxsave64 (%0)" ::"r"(image) : "memory");
}

} // namespace dune
