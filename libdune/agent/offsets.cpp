// Prints the assembly's view of image.h; run at build time.
#include "libdune/agent/image.h"
#include "libdune/include/dune/ring3.h"

#include <cstddef>
#include <cstdio>

using namespace dune;
using namespace dune::agent;

int main() {
#define OFFSET(type, field) printf("#define " #type "_" #field " %zu\n", offsetof(type, field))
  OFFSET(AgentConfig, stacks);
#define OF_TRAP(name) OFFSET(Trap, name)
  OF_TRAP(looked_at);
  OF_TRAP(rax);
  OF_TRAP(rdx);
  OF_TRAP(rcx);
  OF_TRAP(rbx);
  OF_TRAP(rsi);
  OF_TRAP(rdi);
  OF_TRAP(rbp);
  OF_TRAP(r8);
  OF_TRAP(r9);
  OF_TRAP(r10);
  OF_TRAP(r11);
  OF_TRAP(r12);
  OF_TRAP(r13);
  OF_TRAP(r14);
  OF_TRAP(r15);
  OF_TRAP(address);
  OF_TRAP(vector);
  OF_TRAP(rip);
  OF_TRAP(cs);
  OF_TRAP(eflags);
  OF_TRAP(rsp);
  OF_TRAP(ss);
  OFFSET(TrapStacks, stack_entry);
  OFFSET(TrapStacks, ring3);
  OFFSET(TrapStacks, in_ring3);
  OFFSET(Ring3, fs_base);
  OFFSET(Ring3, gs_base);
  printf("#define Ring3_caller_fs_base %zu\n", offsetof(Ring3, caller.fs_base));
  printf("#define Ring3_caller_gs_base %zu\n", offsetof(Ring3, caller.gs_base));
  printf("#define kKernelCode %u\n", kKernelCode);
  printf("#define kUserCode %u\n", kUserCode);
  printf("#define kUserData %u\n", kUserData);
  printf("#define kTrapStackSize %lu\n", static_cast<unsigned long>(kTrapStackSize));
  printf("#define kTrapStacksSize %lu\n", static_cast<unsigned long>(kTrapStacksSize));
  printf("#define kRing0Flags 0x%lx\n", static_cast<unsigned long>(kRing0Flags));
  printf("#define kRedZone %lu\n", static_cast<unsigned long>(kRedZone));
  printf("#define kIoPrivilege 0x%lx\n", static_cast<unsigned long>(kIoPrivilege));
  printf("#define kVectorRing3Call %u\n", kVectorRing3Call);
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
