// The assembly of a program in ring 0: its exceptions and system calls. It stands with the program's
// text, as far as signals go: one may find a thread anywhere in it. Up to agent_application_entered
// and from agent_application_leaving on the host side puts that right (application.cpp, settle).
#include "agent_offsets.h"

#define LOAD(name) mov Trap_##name(%rsp), %name;
#define STORE(name) mov %name, Trap_##name(%rsp);
#define EACH_REGISTER(what)                                                                        \
  what(rax) what(rdx) what(rcx) what(rbx) what(rsi) what(rdi) what(rbp) what(r8) what(r9)          \
  what(r10) what(r11) what(r12) what(r13) what(r14) what(r15)

    .section .application, "ax"
    .globl agent_application
agent_application:

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

    .balign 16
    .globl agent_application_save
agent_application_save:
    sub $Trap_vector, %rsp
    EACH_REGISTER(STORE)
    movq $0, Trap_looked_at(%rsp)
    .globl agent_application_saved
agent_application_saved:
    mov %rsp, %rbx
    and $-kTrapStacksSize, %rbx
    mov (%rbx), %rbx                          // TrapStacks::stack_entry
    subq $kTrapStackSize, (%rbx)              // an exception from here on has the next stack
    .globl agent_application_shifted
agent_application_shifted:
    push $kRing0Flags
    popfq
    .globl agent_application_entered
agent_application_entered:                    // rsp = Trap*, rbx = where its stack's end is said
    mov %rsp, %rdi
    call agent_on_application_trap
    test %rax, %rax
    jnz 1f
    addq $kTrapStackSize, (%rbx)
    .globl agent_application_leaving
agent_application_leaving:
    EACH_REGISTER(LOAD)
    add $Trap_rip, %rsp
    iretq
1:  // To the host side, as if the exception had come to its stub: the stub's address lies where rax
    // says, in front of what the processor has pushed.
    mov %rax, Trap_address(%rsp)
    addq $kTrapStackSize, (%rbx)
    .globl agent_application_passing
agent_application_passing:
    EACH_REGISTER(LOAD)
    mov Trap_address(%rsp), %rsp
    ret
    .globl agent_application_end
agent_application_end:

// Where every `syscall` of the process goes: rcx = behind it, r11 = its flags, on the stack that it
// had.
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
