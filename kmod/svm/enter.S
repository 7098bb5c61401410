/* SPDX-License-Identifier: GPL-2.0-only */
#include <linux/linkage.h>

#include <asm/alternative.h>
#include <asm/asm.h>
#include <asm/cpufeatures.h>
#include <asm/msr-index.h>
#include <asm/nospec-branch.h>

#include "../regs_offsets.h"

/*
 * void svm_enter(u64 guest, struct dune_regs *regs, u64 host)
 *
 * Into the guest and back. `guest` and `host` are physical addresses of VMCBs; the latter keeps what
 * VMRUN does not save of the host (FS, GS, TR, LDTR and the SYSCALL MSRs). rax, rsp, rip and rflags
 * are in the guest's.
 *
 * Interrupts are off. With GIF clear not even an NMI or a machine check comes between here and STGI,
 * so nobody sees the guest's GS; IF is set inside, so that a host's interrupt ends the guest.
 */
SYM_FUNC_START(svm_enter)
	push %rbp
	push %r15
	push %r14
	push %r13
	push %r12
	push %rbx
	push %rsi
	push %rdx

	clgi
	mov %rdx, %rax
	vmsave %rax
#ifdef X86_BUG_DIV0
	/* What the host has divided last is not for the guest to speculate with. */
	ALTERNATIVE "", "xor %eax, %eax; xor %edx, %edx; lea 1(%rax), %ecx; div %ecx", X86_BUG_DIV0
#endif
	mov %rdi, %rax

	mov REGS_RCX(%rsi), %rcx
	mov REGS_RDX(%rsi), %rdx
	mov REGS_RBX(%rsi), %rbx
	mov REGS_RBP(%rsi), %rbp
	mov REGS_RDI(%rsi), %rdi
	mov REGS_R8(%rsi), %r8
	mov REGS_R9(%rsi), %r9
	mov REGS_R10(%rsi), %r10
	mov REGS_R11(%rsi), %r11
	mov REGS_R12(%rsi), %r12
	mov REGS_R13(%rsi), %r13
	mov REGS_R14(%rsi), %r14
	mov REGS_R15(%rsi), %r15
	mov REGS_RSI(%rsi), %rsi

	sti
	vmload %rax
	vmrun %rax
	vmsave %rax
	cli
	pop %rax
	vmload %rax

	/* As KVM does: all of it, or what a barrier may have left on top (PBRSB). */
	FILL_RETURN_BUFFER %rax, RSB_CLEAR_LOOPS, X86_FEATURE_RSB_VMEXIT, X86_FEATURE_RSB_VMEXIT_LITE

	pop %rax
	mov %rcx, REGS_RCX(%rax)
	mov %rdx, REGS_RDX(%rax)
	mov %rbx, REGS_RBX(%rax)
	mov %rbp, REGS_RBP(%rax)
	mov %rsi, REGS_RSI(%rax)
	mov %rdi, REGS_RDI(%rax)
	mov %r8, REGS_R8(%rax)
	mov %r9, REGS_R9(%rax)
	mov %r10, REGS_R10(%rax)
	mov %r11, REGS_R11(%rax)
	mov %r12, REGS_R12(%rax)
	mov %r13, REGS_R13(%rax)
	mov %r14, REGS_R14(%rax)
	mov %r15, REGS_R15(%rax)

	/* Before the first return: what the guest has taught the predictor of branches is forgotten. */
	cmpb $0, svm_ibpb_on_exit(%rip)
	je .Lno_ibpb
	mov $MSR_IA32_PRED_CMD, %ecx
	mov $PRED_CMD_IBPB, %eax
	xor %edx, %edx
	wrmsr
.Lno_ibpb:
	/* And nobody speculates past it. */
	lfence

	/* Nothing of the guest's is left to speculate with. */
	xor %eax, %eax
	xor %ecx, %ecx
	xor %edx, %edx
	xor %esi, %esi
	xor %edi, %edi
	xor %r8d, %r8d
	xor %r9d, %r9d
	xor %r10d, %r10d
	xor %r11d, %r11d
	pop %rbx
	pop %r12
	pop %r13
	pop %r14
	pop %r15
	pop %rbp
	stgi
	RET
SYM_FUNC_END(svm_enter)
