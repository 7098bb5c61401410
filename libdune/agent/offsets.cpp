// Prints the assembly's view of image.h; run at build time.
#include "libdune/agent/image.h"

#include <cstddef>
#include <cstdio>

using namespace dune;
using namespace dune::agent;

int main() {
#define OFFSET(type, field) printf("#define " #type "_" #field " %zu\n", offsetof(type, field))
  OFFSET(AgentConfig, stacks);
  OFFSET(QuickFrame, regs);
  OFFSET(QuickFrame, mask);
  OFFSET(QuickFrame, agent_mask);
  OFFSET(QuickFrame, stack);
  OFFSET(KernelStack, sp);
  OFFSET(KernelStack, size);
  printf("#define Process_mask %zu\n", sizeof(KernelSigaction) * (kSignalCount + 1));
  printf("#define QuickFrame_SIZE %zu\n", sizeof(QuickFrame));
  printf("#define kStacksSize %lu\n",
         static_cast<unsigned long>(session::kThreadSlots * session::kAgentStackSize));
  OFFSET(ThreadBlock, call_regs);
  OFFSET(ThreadBlock, parent);
  OFFSET(ThreadBlock, call_mask);
  OFFSET(ThreadBlock, attention);
  OFFSET(ThreadBlock, has_signal);
  OFFSET(ThreadBlock, call_number);
#define CONTEXT(name) OFFSET(KernelSigcontext, name)
  CONTEXT(rax);
  CONTEXT(rdi);
  CONTEXT(rsi);
  CONTEXT(rdx);
  CONTEXT(r10);
  CONTEXT(r8);
  CONTEXT(r9);
#define DUNE_X(name, dwarf) OFFSET(Registers, name);
  DUNE_REGISTERS(DUNE_X)
#undef DUNE_X
  printf("#define Registers_SIZE %zu\n", sizeof(Registers));
  printf("#define ThreadBlock_SIZE %zu\n", sizeof(ThreadBlock));
  printf("#define kAgentStackSize %lu\n", static_cast<unsigned long>(session::kAgentStackSize));
  printf("#define kThreadSlots %u\n", session::kThreadSlots);
}
