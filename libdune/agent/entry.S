// The agent's assembly: what cannot be said in C++.
// Context of everything here: ring 3, in the target, all signals blocked but SIGSEGV, SIGBUS,
// SIGFPE, unless a line says otherwise.
#include "agent_offsets.h"
#include <asm/unistd_64.h>

#define CALL_REG(name) (ThreadBlock_call_regs + Registers_##name)

    .section .text.header, "ax"

    .text

// Where a signal handler of ours returns to: rsp points at the ucontext.
    .globl agent_restorer
    .balign 16
agent_restorer:
    mov $__NR_rt_sigreturn, %eax
    syscall
    ud2

// Where the keeper sends a thread to run the function in rax, on a slot's stack: r12 is the way back
// (keeper/detour.h), to the Away that the function returns.
    .globl agent_run
    .balign 16
agent_run:
    cld
    call *%rax
    mov %rax, %rsp
    jmp *%r12

// A thread that the keeper brings in starts here: rsp points at a KernelSigframe, whose
// return_address is agent_restorer. Returning is resuming the program.
    .globl agent_enter
    .balign 16
agent_enter:
    cld
    lea 8(%rsp), %rdi
    jmp agent_on_enter

// A thread that the keeper brings in from the middle of a system call starts here, with rsp = its
// block. It makes the rest of that call at agent_stepped_call, and has to get there without
// rt_sigreturn: that would end a call which the kernel goes on with by restart_syscall.
    .globl agent_enter_call
    .balign 16
agent_enter_call:
    mov %rsp, %r11
    lea agent_on_enter_call(%rip), %rcx
    jmp call_and_restore

// long agent_set_altstack(const KernelStack*, KernelStack* before)
    .globl agent_set_altstack
    .balign 16
agent_set_altstack:
    mov %rsp, %rdx
    xor %esp, %esp                // no signal can arrive: all are blocked
    mov $__NR_sigaltstack, %eax
    syscall
    mov %rdx, %rsp
    ret

// Calls of the program's stand in a section of their own: its seccomp filters are to judge them, and
// not the agent's (calls_confine.cpp).

// A system call of a thread that is being stepped, see step_system_call in trap.cpp. Entered by
// rt_sigreturn with the program's registers, stack and mask.
    .section .program_calls, "ax"
    .globl agent_program_calls, agent_stepped_call
    .balign 16
agent_program_calls:
agent_stepped_call:
    syscall
    int3

// System calls after which the agent has work to do in the same thread: clone, fork, vfork and
// execve. Entered by rt_sigreturn with the program's registers, its stack, and all signals blocked.
// After a `syscall` only rcx and r11 are free, and there is no room to keep anything: the slot's
// number comes from where the code stands. The call that makes a thread runs from the trampoline of
// the new thread's slot, so that parent and child find their blocks from the same number, whatever
// either does next.
    .macro trampolines name, then
    .globl \name
    .balign 16
\name:
    .set slot, 0
    .rept kThreadSlots
    .balign 16
    syscall
    mov $slot, %ecx
    jmp \then
    .set slot, slot + 1
    .endr
    .endm

    trampolines agent_own_trampolines, after_own_call
    trampolines agent_child_trampolines, after_clone
    .text

    // r11 = ThreadBlock of slot rcx
    .macro find_block
    lea agent_config(%rip), %r11
    mov AgentConfig_stacks(%r11), %r11
    inc %rcx
    imul $kAgentStackSize, %rcx, %rcx
    lea -ThreadBlock_SIZE(%r11, %rcx), %r11
    .endm

    .balign 16
after_clone:
    find_block
    test %rax, %rax
    jz 1f
    mov ThreadBlock_parent(%r11), %r11        // the cloner
    lea agent_after_call(%rip), %rcx
    jmp save_and_call
1:
    lea agent_in_new_thread(%rip), %rcx
    jmp save_and_call

    .balign 16
after_own_call:
    find_block
    lea agent_after_call(%rip), %rcx

save_and_call:                                // r11 = block, rcx = function(block)
    mov %rax, CALL_REG(rax)(%r11)
    mov %rbx, CALL_REG(rbx)(%r11)
    mov %rdx, CALL_REG(rdx)(%r11)
    mov %rsi, CALL_REG(rsi)(%r11)
    mov %rdi, CALL_REG(rdi)(%r11)
    mov %rbp, CALL_REG(rbp)(%r11)
    mov %rsp, CALL_REG(rsp)(%r11)
    mov %r8, CALL_REG(r8)(%r11)
    mov %r9, CALL_REG(r9)(%r11)
    mov %r10, CALL_REG(r10)(%r11)
    mov %r12, CALL_REG(r12)(%r11)
    mov %r13, CALL_REG(r13)(%r11)
    mov %r14, CALL_REG(r14)(%r11)
    mov %r15, CALL_REG(r15)(%r11)
call_and_restore:
    mov %r11, %rsp                            // the block is 64-byte aligned
    mov %r11, %rbx
    cld
    mov %r11, %rdi
    call *%rcx
    // Let the program's signals in again. From the end of this system call on, all of the thread's
    // state is in call_regs: a signal here is treated as if it came at call_regs.rip.
    mov $__NR_rt_sigprocmask, %eax
    mov $2, %edi                              // SIG_SETMASK
    lea ThreadBlock_call_mask(%rbx), %rsi
    xor %edx, %edx
    mov $8, %r10d
    syscall
    .globl agent_restore_begin
agent_restore_begin:
    testl $0x100, CALL_REG(eflags)(%rbx)
    jz 1f
    pushfq                                    // the program is being stepped: so are these lines
    orl $0x100, (%rsp)
    popfq
1:
    mov %rbx, %r11
    mov CALL_REG(rax)(%r11), %rax
    mov CALL_REG(rbx)(%r11), %rbx
    mov CALL_REG(rdx)(%r11), %rdx
    mov CALL_REG(rsi)(%r11), %rsi
    mov CALL_REG(rdi)(%r11), %rdi
    mov CALL_REG(rbp)(%r11), %rbp
    mov CALL_REG(r8)(%r11), %r8
    mov CALL_REG(r9)(%r11), %r9
    mov CALL_REG(r10)(%r11), %r10
    mov CALL_REG(r12)(%r11), %r12
    mov CALL_REG(r13)(%r11), %r13
    mov CALL_REG(r14)(%r11), %r14
    mov CALL_REG(r15)(%r11), %r15
    mov CALL_REG(rsp)(%r11), %rsp
    mov CALL_REG(rip)(%r11), %rcx             // as `syscall` itself leaves it
    mov CALL_REG(r11)(%r11), %r11
    jmp *%rcx
    .globl agent_restore_end
agent_restore_end:

// A system call that came through a jump site's trampoline, without a trap: on the program's stack,
// with the number in rax and the address of the program's `syscall` in rcx; r11 is free, as both are
// after a system call. Signals are open at first and again at the end: sites.cpp (leave_quick_call)
// knows where the program's registers are then. The frame lies below the red zone.
#define FRAME(name) (QuickFrame_regs + Registers_##name)
    .globl agent_quick_call
    .balign 16
agent_quick_call:
    lea -(128 + QuickFrame_SIZE)(%rsp), %r11
    mov %rax, FRAME(rax)(%r11)
    mov %rbx, FRAME(rbx)(%r11)
    mov %rcx, FRAME(rcx)(%r11)
    mov %rcx, FRAME(rip)(%r11)
    mov %rdx, FRAME(rdx)(%r11)
    mov %rsi, FRAME(rsi)(%r11)
    mov %rdi, FRAME(rdi)(%r11)
    mov %rbp, FRAME(rbp)(%r11)
    mov %rsp, FRAME(rsp)(%r11)
    mov %r8, FRAME(r8)(%r11)
    mov %r9, FRAME(r9)(%r11)
    mov %r10, FRAME(r10)(%r11)
    mov %r11, FRAME(r11)(%r11)
    mov %r12, FRAME(r12)(%r11)
    mov %r13, FRAME(r13)(%r11)
    mov %r14, FRAME(r14)(%r11)
    mov %r15, FRAME(r15)(%r11)
    lea FRAME(eflags) + 8(%r11), %rsp         // from here on rsp is the frame's to give back
    .globl agent_quick_saved
agent_quick_saved:
    pushfq
    cld
    mov %r11, %rsp
    mov agent_process + Process_mask(%rip), %rax
    mov %rax, QuickFrame_agent_mask(%r11)
    mov %r11, %rbx
    mov $__NR_rt_sigprocmask, %eax
    xor %edi, %edi                            // SIG_BLOCK: see hold_back
    lea QuickFrame_agent_mask(%rbx), %rsi
    lea QuickFrame_mask(%rbx), %rdx
    mov $8, %r10d
    syscall
    .globl agent_quick_blocked
agent_quick_blocked:
    mov $__NR_sigaltstack, %eax
    xor %edi, %edi
    lea QuickFrame_stack(%rbx), %rsi
    syscall
    mov QuickFrame_stack + KernelStack_sp(%rbx), %rax
    mov %rax, %rcx
    sub agent_config + AgentConfig_stacks(%rip), %rcx
    cmp $kStacksSize, %rcx
    jae 1f                                    // a thread without a slot: the int3 is for it, too
    add QuickFrame_stack + KernelStack_size(%rbx), %rax
    mov %rax, %rsp                            // the thread's block, the upper end of its stack
    mov %rax, %rdi
    mov %rbx, %rsi
    call agent_on_quick_call
1:
    mov $__NR_rt_sigprocmask, %eax
    mov $2, %edi
    lea QuickFrame_mask(%rbx), %rsi
    xor %edx, %edx
    mov $8, %r10d
    syscall
    mov %rbx, %r11
    .globl agent_quick_leaving
agent_quick_leaving:
    lea FRAME(eflags)(%r11), %rsp
    popfq
    mov FRAME(rax)(%r11), %rax
    mov FRAME(rbx)(%r11), %rbx
    mov FRAME(rdx)(%r11), %rdx
    mov FRAME(rsi)(%r11), %rsi
    mov FRAME(rdi)(%r11), %rdi
    mov FRAME(rbp)(%r11), %rbp
    mov FRAME(r8)(%r11), %r8
    mov FRAME(r9)(%r11), %r9
    mov FRAME(r10)(%r11), %r10
    mov FRAME(r12)(%r11), %r12
    mov FRAME(r13)(%r11), %r13
    mov FRAME(r14)(%r11), %r14
    mov FRAME(r15)(%r11), %r15
    mov FRAME(rip)(%r11), %rcx
    mov FRAME(rsp)(%r11), %rsp
    jmp *%rcx
    .globl agent_quick_end
agent_quick_end:

    .section .note.GNU-stack, "", @progbits
