// The assembly of Dune mode: the monitor's entry, and system calls made for the program.
#include "agent_offsets.h"
#include <asm/unistd_64.h>

    .text

// Exceptions in the guest, by interrupt gates: rsp = a TrapFrame at the upper end of the monitor's
// stack. Ring 0 where ring 0 is hardware, else ring 3. A signal may take the thread out of the
// guest at any instruction: guest_loop.cpp (leave_monitor) knows where the program's registers are
// then, and by which entry it came.
    .pushsection .text.monitor, "ax"
    .globl agent_monitor_step, agent_monitor_breakpoint
    .balign 16
agent_monitor_step:
    push $1
    jmp 1f
agent_monitor_breakpoint:
    push $3
1:
    sub $Registers_SIZE, %rsp
    mov %rax, Registers_rax(%rsp)
    mov %rbx, Registers_rbx(%rsp)
    mov %rcx, Registers_rcx(%rsp)
    mov %rdx, Registers_rdx(%rsp)
    mov %rsi, Registers_rsi(%rsp)
    mov %rdi, Registers_rdi(%rsp)
    mov %rbp, Registers_rbp(%rsp)
    mov %r8, Registers_r8(%rsp)
    mov %r9, Registers_r9(%rsp)
    mov %r10, Registers_r10(%rsp)
    mov %r11, Registers_r11(%rsp)
    mov %r12, Registers_r12(%rsp)
    mov %r13, Registers_r13(%rsp)
    mov %r14, Registers_r14(%rsp)
    mov %r15, Registers_r15(%rsp)
    .globl agent_monitor_saved
agent_monitor_saved:
    cld
    mov %rsp, %rdi
    call agent_on_monitor_trap
    test %rax, %rax
    jz agent_monitor_pass
    .globl agent_monitor_commit
agent_monitor_commit:
    cmpl $0, ThreadBlock_attention(%rax)
    jne agent_monitor_attention
    // Of those that the call has left as they were, none is read again.
    mov Registers_rax(%rsp), %rax
    mov Registers_rcx(%rsp), %rcx
    mov Registers_rdx(%rsp), %rdx
    mov Registers_rsi(%rsp), %rsi
    mov Registers_rdi(%rsp), %rdi
    mov Registers_r8(%rsp), %r8
    mov Registers_r9(%rsp), %r9
    mov Registers_r10(%rsp), %r10
    mov Registers_r11(%rsp), %r11
    add $(Registers_SIZE + 8), %rsp # and the vector
    iretq
    .globl agent_monitor_end
agent_monitor_end:
// How it tells the host side: the trap is not dealt with; it is, but somebody wants the thread.
    .globl agent_monitor_pass, agent_monitor_attention
agent_monitor_pass:
    ud2
agent_monitor_attention:
    ud2
    .popsection

// void agent_resume(const KernelUcontext*)
    .globl agent_resume
    .balign 16
agent_resume:
    mov %rdi, %rsp
    jmp agent_restorer

#define M(name) KernelSigcontext_##name

    .macro load_arguments m
    mov M(rax)(\m), %rax
    mov M(rsi)(\m), %rsi
    mov M(rdx)(\m), %rdx
    mov M(r10)(\m), %r10
    mov M(r8)(\m), %r8
    mov M(r9)(\m), %r9
    .endm

// long agent_forward(const KernelSigcontext* m, const ThreadBlock*)
// A signal that comes before the call is in the kernel, or that the kernel would restart it for,
// moves the thread to its end with kNotMade (record_signal).
//
// long agent_forward_32(const KernelSigcontext* m, const ThreadBlock*)
// The same by int $0x80, with the block's call_number.
//
// long agent_forward_clone(const KernelSigcontext* m, ThreadBlock* child)
// The call's arguments name the end of the child's stack, which begins with its block's address.
    .macro forward suffix
    .globl agent_forward\suffix, agent_forward\suffix\()_begin, agent_forward\suffix\()_end
    .balign 16
agent_forward\suffix:
    mov %rdi, %r11
    mov %rsi, %rcx
    load_arguments %r11
    mov M(rdi)(%r11), %rdi
agent_forward\suffix\()_begin:
    cmpl $0, ThreadBlock_has_signal(%rcx)
    jne 1f
    syscall
agent_forward\suffix\()_end:
    ret
1:
    mov $-512, %rax
    ret

    .globl agent_forward_32\suffix, agent_forward_32\suffix\()_begin, agent_forward_32\suffix\()_end
    .balign 16
agent_forward_32\suffix:
    push %rbx
    push %rbp
    mov %rsi, %r9
    mov %rdi, %r11
    mov ThreadBlock_call_number(%r9), %eax
    mov M(rdi)(%r11), %ebx
    mov M(rsi)(%r11), %ecx
    mov M(rdx)(%r11), %edx
    mov M(r10)(%r11), %esi
    mov M(r8)(%r11), %edi
    mov M(r9)(%r11), %ebp
agent_forward_32\suffix\()_begin:
    cmpl $0, ThreadBlock_has_signal(%r9)
    jne 1f
    int $0x80
agent_forward_32\suffix\()_end:
    pop %rbp
    pop %rbx
    ret
1:
    mov $-512, %rax
    jmp agent_forward_32\suffix\()_end

    .globl agent_forward_clone\suffix
    .balign 16
agent_forward_clone\suffix:
    mov %rdi, %r11
    load_arguments %r11
    mov M(rdi)(%r11), %rdi
    syscall
    test %rax, %rax
    jz 1f
    ret
1:
    mov (%rsp), %rdi
    xor %ebp, %ebp
    call agent_in_guest_thread
    ud2
    .endm

    forward _judged
    .section .program_calls, "ax"
    forward

    .section .note.GNU-stack, "", @progbits
