/* SPDX-License-Identifier: GPL-2.0-only */
#include <linux/linkage.h>

#include <asm/asm.h>
#include <asm/cpufeatures.h>
#include <asm/nospec-branch.h>

#include "../regs_offsets.h"

/* Of enum vmcs_field, which is no assembler's. ops.c checks them. */
#define HOST_RSP 0x6c14
#define HOST_RIP 0x6c16

/*
 * bool vmx_enter(struct dune_regs *regs, bool launched)
 *
 * Into the guest of the current VMCS, which has been launched since it was clear or not, and back:
 * true, or false if the processor did not even try (VM_INSTRUCTION_ERROR says why). rsp, rip and
 * rflags are in the VMCS.
 *
 * Interrupts are off, before and after. An NMI behind the exit finds the host's own GS, which the
 * exit has loaded.
 */
SYM_FUNC_START(vmx_enter)
	push %rbp
	push %r15
	push %r14
	push %r13
	push %r12
	push %rbx
	push %rdi

	mov $HOST_RSP, %edx
	vmwrite %rsp, %rdx
	lea .Lexit(%rip), %rax
	mov $HOST_RIP, %edx
	vmwrite %rax, %rdx

	/* Nothing on the way changes the flags. */
	test %sil, %sil
	mov REGS_RAX(%rdi), %rax
	mov REGS_RCX(%rdi), %rcx
	mov REGS_RDX(%rdi), %rdx
	mov REGS_RBX(%rdi), %rbx
	mov REGS_RBP(%rdi), %rbp
	mov REGS_RSI(%rdi), %rsi
	mov REGS_R8(%rdi), %r8
	mov REGS_R9(%rdi), %r9
	mov REGS_R10(%rdi), %r10
	mov REGS_R11(%rdi), %r11
	mov REGS_R12(%rdi), %r12
	mov REGS_R13(%rdi), %r13
	mov REGS_R14(%rdi), %r14
	mov REGS_R15(%rdi), %r15
	mov REGS_RDI(%rdi), %rdi

	jnz .Lresume
	vmlaunch
	jmp .Lfailed
.Lresume:
	vmresume
.Lfailed:
	/* If it comes here one of these flags is set. */
	jbe .Lnot_entered

.Lexit:
	/* The stack is as it was: regs on top. */
	push %rdi
	mov 8(%rsp), %rdi
	mov %rax, REGS_RAX(%rdi)
	mov %rcx, REGS_RCX(%rdi)
	mov %rdx, REGS_RDX(%rdi)
	mov %rbx, REGS_RBX(%rdi)
	mov %rbp, REGS_RBP(%rdi)
	mov %rsi, REGS_RSI(%rdi)
	mov %r8, REGS_R8(%rdi)
	mov %r9, REGS_R9(%rdi)
	mov %r10, REGS_R10(%rdi)
	mov %r11, REGS_R11(%rdi)
	mov %r12, REGS_R12(%rdi)
	mov %r13, REGS_R13(%rdi)
	mov %r14, REGS_R14(%rdi)
	mov %r15, REGS_R15(%rdi)
	pop %rax
	mov %rax, REGS_RDI(%rdi)
	/* As KVM does: all of it, or what a barrier may have left on top (PBRSB). */
	FILL_RETURN_BUFFER %rax, RSB_CLEAR_LOOPS, X86_FEATURE_RSB_VMEXIT, X86_FEATURE_RSB_VMEXIT_LITE
	mov $1, %eax
	jmp .Lout

.Lnot_entered:
	xor %eax, %eax
.Lout:
	/* Nothing of the guest's is left to speculate with. */
	xor %ecx, %ecx
	xor %edx, %edx
	xor %esi, %esi
	xor %r8d, %r8d
	xor %r9d, %r9d
	xor %r10d, %r10d
	xor %r11d, %r11d
	pop %rdi
	pop %rbx
	pop %r12
	pop %r13
	pop %r14
	pop %r15
	pop %rbp
	RET
SYM_FUNC_END(vmx_enter)
