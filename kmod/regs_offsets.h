/* SPDX-License-Identifier: GPL-2.0-only */
/* Offsets in struct dune_regs for assembly; a module has no asm-offsets.h, so C checks them. */
#ifndef DUNE_REGS_OFFSETS_H
#define DUNE_REGS_OFFSETS_H

#define REGS_RAX 0
#define REGS_RCX 8
#define REGS_RDX 16
#define REGS_RBX 24
#define REGS_RBP 40
#define REGS_RSI 48
#define REGS_RDI 56
#define REGS_R8 64
#define REGS_R9 72
#define REGS_R10 80
#define REGS_R11 88
#define REGS_R12 96
#define REGS_R13 104
#define REGS_R14 112
#define REGS_R15 120

#ifndef __ASSEMBLY__
#define DUNE_CHECK_OFFSET(name, register)                                                          \
	static_assert(offsetof(struct dune_regs, register) == REGS_##name)
DUNE_CHECK_OFFSET(RAX, rax);
DUNE_CHECK_OFFSET(RCX, rcx);
DUNE_CHECK_OFFSET(RDX, rdx);
DUNE_CHECK_OFFSET(RBX, rbx);
DUNE_CHECK_OFFSET(RBP, rbp);
DUNE_CHECK_OFFSET(RSI, rsi);
DUNE_CHECK_OFFSET(RDI, rdi);
DUNE_CHECK_OFFSET(R8, r8);
DUNE_CHECK_OFFSET(R9, r9);
DUNE_CHECK_OFFSET(R10, r10);
DUNE_CHECK_OFFSET(R11, r11);
DUNE_CHECK_OFFSET(R12, r12);
DUNE_CHECK_OFFSET(R13, r13);
DUNE_CHECK_OFFSET(R14, r14);
DUNE_CHECK_OFFSET(R15, r15);
#endif

#endif
