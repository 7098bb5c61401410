// The assembly of a program in ring 0: its exceptions and system calls. It stands with the program's
// text, as far as signals go: one may find a thread anywhere in it. Up to agent_application_entered
// and from agent_application_returning on the host side puts that right (find_program).
#include "agent_offsets.h"

#define LOAD(name) mov Trap_##name(%rsp), %name;
#define STORE(name) mov %name, Trap_##name(%rsp);
#define EACH_REGISTER(what)                                                                        \
  what(rax) what(rdx) what(rcx) what(rbx) what(rsi) what(rdi) what(rbp) what(r8) what(r9)          \
  what(r10) what(r11) what(r12) what(r13) what(r14) what(r15)

    .macro find_stacks                        // rax = TrapStacks*
    mov %rsp, %rax
    and $-kTrapStacksSize, %rax
    .endm

// rax = TrapStacks*: from ring 3's bases to its caller's, or back. Up to the label they are what they
// were; TrapStacks::in_ring3 is the last that changes.
#define BASES(from_fs, from_gs, to_fs, to_gs, label, in_ring3)                                     \
  mov TrapStacks_ring3(%rax), %rsi;                                                                \
  rdfsbase %rcx;                                                                                   \
  rdgsbase %rdx;                                                                                   \
  mov %rcx, from_fs(%rsi);                                                                         \
  mov %rdx, from_gs(%rsi);                                                                         \
  .globl label;                                                                                    \
  label:                                                                                           \
  mov to_fs(%rsi), %rcx;                                                                           \
  mov to_gs(%rsi), %rdx;                                                                           \
  wrfsbase %rcx;                                                                                   \
  wrgsbase %rdx;                                                                                   \
  movl $in_ring3, TrapStacks_in_ring3(%rax)

    .section .application, "ax"

// Exception n, by an interrupt gate: rsp = what the processor has pushed, at the upper end of a stack
// of its own.
    .globl agent_application_exceptions
    .balign 16
agent_application_exceptions:
    .set vector, 0
    .rept 32
    .balign 16
    .if (0x60227d00 >> vector) & 1            // pushes_error_code
    .else
    push $0
    .endif
    push $vector
    jmp agent_application_save
    .set vector, vector + 1
    .endr

// The same for vector kVectorRing3Call, raised by agent_application_call below: what the processor has
// pushed becomes that of the `syscall`.
    .globl agent_application_ring3_call
    .balign 16
agent_application_ring3_call:
    push $0
    push $kVectorRing3Call
    mov %rcx, (Trap_rip - Trap_vector)(%rsp)
    movq $kUserCode, (Trap_cs - Trap_vector)(%rsp)
    mov %r11, (Trap_eflags - Trap_vector)(%rsp)
    movq $kUserData, (Trap_ss - Trap_vector)(%rsp)

    .globl agent_application_save
agent_application_save:
    sub $Trap_vector, %rsp
    EACH_REGISTER(STORE)
    .globl agent_application_stored
agent_application_stored:
    mov %cr2, %rax                            // before another page fault changes it
    mov %rax, Trap_address(%rsp)
    movq $0, Trap_looked_at(%rsp)
    .globl agent_application_saved
agent_application_saved:
    find_stacks
    mov TrapStacks_stack_entry(%rax), %rbx
    subq $kTrapStackSize, (%rbx)              // an exception from here on has the next stack
    .globl agent_application_shifted
agent_application_shifted:
    push $kRing0Flags
    popfq
    cmpl $0, TrapStacks_in_ring3(%rax)
    je 1f
    BASES(Ring3_fs_base, Ring3_gs_base, Ring3_caller_fs_base, Ring3_caller_gs_base,
          agent_application_bases_in, 0)
    jmp agent_application_entered
1:
    .globl agent_application_of_ring0
agent_application_of_ring0:
    movq $kKernelCode, Trap_cs(%rsp)          // of agent_application_ring3_call: it was not ring 3's
    .globl agent_application_entered
agent_application_entered:                    // rsp = Trap*, rbx = where its stack's end is said
    mov %rsp, %rdi
    call agent_on_application_trap
    .globl agent_application_returning
agent_application_returning:
    mov %cs, %ecx
    test $3, %cl
    jnz agent_application_in_child
    mov %rax, %r12
    testb $3, Trap_cs(%rsp)
    jz 1f
    find_stacks
    BASES(Ring3_caller_fs_base, Ring3_caller_gs_base, Ring3_fs_base, Ring3_gs_base,
          agent_application_bases_out, 1)
1:
    test %r12, %r12
    jnz 1f
    addq $kTrapStackSize, (%rbx)
    .globl agent_application_leaving
agent_application_leaving:
    EACH_REGISTER(LOAD)
    add $Trap_rip, %rsp
    iretq
    .globl agent_application_refusing
agent_application_refusing:
1:  // To the host side, as if the exception had come to its stub: the stub's address lies where rax
    // says, in front of what the processor has pushed.
    mov %r12, Trap_address(%rsp)
    addq $kTrapStackSize, (%rbx)
    .globl agent_application_passing
agent_application_passing:
    EACH_REGISTER(LOAD)
    mov Trap_address(%rsp), %rsp
    ret
    .globl agent_application_end
agent_application_end:

// A handler has forked, and this is the child, outside of Dune mode: rsp = Trap*, rax as above. An iretq
// would bring what was ring 3's there as well, as a program that nobody judges. The program goes on by
// a return, whose address agent_on_return_in_child leaves below its red zone.
agent_application_in_child:
    mov %rsp, %rdi
    mov %rax, %rsi
    call agent_on_return_in_child
    push Trap_eflags(%rsp)
    popfq
    EACH_REGISTER(LOAD)
    mov Trap_rsp(%rsp), %rsp
    ret $kRedZone

// Where every `syscall` of the process goes: rcx = behind it, r11 = its flags, on the stack that it
// had. Ring 3 never has the flags of ring 0. Ring 0 may have lost them (popf): that takes longer.
    .globl agent_application_call, agent_application_call_end
    .balign 16
agent_application_call:
    test $kIoPrivilege, %r11d
    jz 1f
    jmp *agent_ring0_call(%rip)
1:
    int $kVectorRing3Call
agent_application_call_end:

    .section .note.GNU-stack, "", @progbits
