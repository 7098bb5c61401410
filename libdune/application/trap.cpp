#include "libdune/include/dune/trap.h"

#include "libdune/application/process.h"
#include "libdune/include/dune/enter.h"

namespace dune {

Status set_trap_handler(uint32_t vector, TrapHandler handler, VectorRegisters registers) {
  if (!inside())
    return Error{Errc::kInvalid, "the thread is not in Dune mode"};
  const bool is_own = vector == kVectorRing3 || vector == kVectorAttention;
  if (is_own || !agent::comes_to_application(vector))
    return Error{Errc::kInvalid, "no exception that a program can have a handler for", vector};
  agent::AgentConfig& c = *application::config();
  const uint32_t bit = 1u << vector;
  if (registers == VectorRegisters::kSaved)
    __atomic_or_fetch(&c.saves_vectors, bit, __ATOMIC_SEQ_CST);
  __atomic_store_n(&c.handlers[vector], reinterpret_cast<uint64_t>(handler), __ATOMIC_SEQ_CST);
  if (registers == VectorRegisters::kUntouched)
    __atomic_and_fetch(&c.saves_vectors, ~bit, __ATOMIC_SEQ_CST);
  return {};
}

} // namespace dune
