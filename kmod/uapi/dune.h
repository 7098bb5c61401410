/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * What user space says to dune.ko, version 1. docs/kmod.md explains it.
 *
 * A descriptor of /dev/dune is a virtual machine without memory of its own: its physical memory is
 * the address space of the process that opened the device. A descriptor of a vCPU is one thread's
 * way into it. Both work in that address space only: elsewhere (a forked child, a process that was
 * passed the descriptor, after execve) every call but close answers EXDEV.
 *
 * Structures begin with their size as the caller knows it. The module takes smaller ones (what is
 * missing is zero) and larger ones whose rest is zero (else E2BIG). Reserved fields and unknown
 * flags must be zero (else EINVAL). Nothing here is a pointer or an address of the kernel's.
 */
#ifndef DUNE_UAPI_DUNE_H
#define DUNE_UAPI_DUNE_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define DUNE_ABI_VERSION 1
#define DUNE_IOCTL 0xd5

/* ------------------------------------------------------------------------------------------------
 * Of /dev/dune
 */

/* Takes struct dune_info with its size, and fills it in. */
#define DUNE_GET_INFO _IO(DUNE_IOCTL, 0x00)
/* Takes struct dune_region. */
#define DUNE_SET_REGION _IO(DUNE_IOCTL, 0x01)
/*
 * Every vCPU forgets what it has cached of the guest's own page tables: when the call returns none
 * uses what they said before it.
 */
#define DUNE_FORGET _IO(DUNE_IOCTL, 0x02)
/* Takes struct dune_create_vcpu; returns a descriptor (close-on-exec). */
#define DUNE_CREATE_VCPU _IO(DUNE_IOCTL, 0x03)
/* Takes struct dune_private_range. */
#define DUNE_SET_PRIVATE _IO(DUNE_IOCTL, 0x04)

/* Capabilities. */
#define DUNE_CAP_DEBUG_REGISTERS (1ULL << 0)
#define DUNE_CAP_PRIVATE_PAGES (1ULL << 1)
#define DUNE_CAP_DISPATCH (1ULL << 2) /* the module was loaded with dispatch=1 */

struct dune_info {
	__u32 size;
	__u32 version;
	__u64 capabilities;
	__u32 gpa_bits; /* width of a guest-physical address */
	__u32 max_regions;
	__u32 run_size; /* bytes to map of a vCPU's descriptor */
	__u32 max_vcpus;
	__u64 cr4_allowed; /* bits that struct dune_state may have */
	__u64 max_private_pages; /* of one VM, together */
	__u64 reserved[7];
};

/*
 * A range of guest-physical memory, and which addresses of the process it shows. All three are
 * multiples of DUNE_REGION_ALIGN; regions do not overlap, neither side (EEXIST). The range may be
 * mapped or not, now or later: what a guest may do to a page is what the process may do, at the
 * time of the access.
 */
#define DUNE_REGION_ALIGN (1ULL << 30)
#define DUNE_REGION_REMOVE (1U << 0) /* one that is there, as it is (ENOENT) */
struct dune_region {
	__u32 size;
	__u32 flags;
	__u64 gpa;
	__u64 hva;
	__u64 length;
	__u64 reserved[4];
};

/*
 * Pages that only the guest has: they lie at guest-physical addresses where no region is (EEXIST), of
 * whole pages, and have no address in the process. They begin with a copy of `length` bytes at
 * `content`, or with zeroes if that is 0, and are readable, and what the flags say. ENOSPC:
 * dune_info.max_private_pages. Who uses them in the guest is for its own tables to say.
 */
#define DUNE_PRIVATE_WRITE (1U << 0)
#define DUNE_PRIVATE_EXECUTE (1U << 1)
#define DUNE_PRIVATE_REMOVE (1U << 2) /* alone: one that is there, as it is (ENOENT) */
struct dune_private_range {
	__u32 size;
	__u32 flags;
	__u64 gpa;
	__u64 length;
	__u64 content;
	__u64 reserved[4];
};

struct dune_create_vcpu {
	__u32 size;
	__u32 flags; /* none yet */
	__u64 reserved[3];
};

/* ------------------------------------------------------------------------------------------------
 * Of a vCPU
 */

/*
 * Runs the guest with dune_run's registers until something needs user space; why is in there.
 * Errors are for misuse only: EXDEV; EBUSY, another thread runs it; EINVAL, an argument.
 *
 * Vector registers are those of the calling thread, which also keeps them: XCR0 is the same inside.
 */
#define DUNE_RUN _IO(DUNE_IOCTL, 0x10)
/* Takes struct dune_state. Before the first run; later all segments are flat ones afterwards. */
#define DUNE_SET_STATE _IO(DUNE_IOCTL, 0x11)
/* Takes struct dune_debug. */
#define DUNE_SET_DEBUG _IO(DUNE_IOCTL, 0x12)
/* Takes struct dune_signal_mask. */
#define DUNE_SET_SIGNAL_MASK _IO(DUNE_IOCTL, 0x13)
/* Takes struct dune_dispatch; EOPNOTSUPP without DUNE_CAP_DISPATCH. */
#define DUNE_SET_DISPATCH _IO(DUNE_IOCTL, 0x14)

struct dune_table_register {
	__u64 base;
	__u32 limit;
	__u32 reserved;
};

/*
 * What a guest keeps between runs beside its registers. It begins in 64-bit mode with paging on:
 * CR0 is PG AM WP NE ET MP PE, EFER is NXE LMA LME SCE; neither can be changed.
 */
struct dune_state {
	__u32 size;
	__u32 flags; /* none yet */
	__u64 cr4;
	struct dune_table_register gdt;
	struct dune_table_register idt;
	struct dune_table_register task; /* a 64-bit TSS */
	__u16 task_selector;
	__u16 reserved0;
	/* Bit n: exception n ends the run (DUNE_EXIT_EXCEPTION) instead of going to the IDT. */
	__u32 exceptions;
	__u64 star, lstar, cstar, sfmask;
	__u64 reserved[8];
};

/*
 * Debug registers. While DR7 enables one, each #DB goes through the module on its way to the guest:
 * otherwise a breakpoint on the stack on which #DB is delivered would hold the processor for good.
 *
 * The guest cannot write DR6, and what a processor leaves in it of earlier ones differs. So `status`
 * may name a word of the process's memory, aligned, which is written before each #DB is told: with
 * the bits of DR6 that this one is of, and no others. DR6 itself then stays clear. Where it cannot
 * be written the run ends with DUNE_EXIT_FAULT, and the #DB waits for the next one.
 */
#define DUNE_DEBUG_EXIT (1U << 0) /* #DB ends the run with DUNE_EXIT_DEBUG */
/* What ring 0 accesses is not told, nor what the processor does there by itself. Needs `status`. */
#define DUNE_DEBUG_RING3 (1U << 1)
struct dune_debug {
	__u32 size;
	__u32 flags;
	__u64 address[4];
	__u64 dr7;
	__u64 status; /* 0: there is none */
	__u64 reserved[1];
};

/* Signals (bit n - 1: signal n) that are blocked during a run, instead of the thread's own mask. */
#define DUNE_SIGNAL_MASK_USE (1U << 0) /* without it: the thread's own */
struct dune_signal_mask {
	__u32 size;
	__u32 flags;
	__u64 blocked;
};

/*
 * System calls that the module makes itself, so that the run goes on behind the hypercall with the
 * result in rax. The hypercall is the one in ring 0 that `rip` is behind, with the number and the
 * arguments where SYSCALL has them; bit n % 64 of word n / 64 allows call n. Those that the module
 * does not make (docs/kmod.md has its list), and all as long as somebody watches the thread's calls
 * (seccomp, ptrace, audit, tracepoints), end the run as if this were not set.
 */
#define DUNE_DISPATCH_CALLS 512
/*
 * For a guest whose program is in ring 0 itself: what is made here also returns from SYSCALL, to rcx
 * with the flags of r11, in the ring that it is in. Where they are not such the run ends instead.
 */
#define DUNE_DISPATCH_RETURN (1U << 0)
struct dune_dispatch {
	__u32 size;
	__u32 flags;
	__u64 rip; /* 0: of none */
	__u64 calls[DUNE_DISPATCH_CALLS / 64];
	__u64 reserved[4];
};

/* Why a run has ended. */
enum dune_exit_reason {
	/*
	 * The guest executed VMMCALL or VMCALL, in whichever ring; rip is behind it. If it was stepping
	 * the #DB that is due is in dune_run.event.
	 */
	DUNE_EXIT_SYSCALL = 1,
	/* It accessed a page that the process may not access like that: struct dune_exit_fault. */
	DUNE_EXIT_FAULT = 2,
	/*
	 * A signal is pending, the kernel wants the thread, or dune_run.interrupt was set: struct
	 * dune_exit_intr. Nothing is lost: registers are between two instructions. (A run that ends
	 * within a restartable sequence, rseq(2), aborts it: rip is its abort handler.)
	 */
	DUNE_EXIT_INTR = 3,
	/* An exception of dune_state.exceptions: struct dune_exit_exception. */
	DUNE_EXIT_EXCEPTION = 4,
	/* #DB, if asked for: its DR6 is in dune_regs. */
	DUNE_EXIT_DEBUG = 5,
	/* A triple fault. The registers mean nothing; set the state before the next run. */
	DUNE_EXIT_SHUTDOWN = 6,
	/* It was not entered, and nothing has changed: struct dune_exit_fail. */
	DUNE_EXIT_FAIL_ENTRY = 7,
};

enum dune_access {
	DUNE_ACCESS_WRITE = 1 << 0,
	DUNE_ACCESS_EXECUTE = 1 << 1, /* neither: a read */
};

#define DUNE_INTR_SIGNAL (1U << 0) /* by the mask of the run, which the thread may not have */
#define DUNE_INTR_ASKED (1U << 1) /* dune_run.interrupt, which is zero again */
/* Neither: the kernel had something to do on the thread's way out, which is done. */
struct dune_exit_intr {
	__u32 by;
	__u32 reserved;
};

struct dune_exit_fault {
	__u64 gpa;
	__u64 hva; /* all ones: no region has it */
	__u32 access;
	__u32 error; /* EFAULT, ENOMEM, EHWPOISON, or ENOENT without a region */
};

struct dune_exit_exception {
	__u32 vector;
	__u32 error_code; /* 0 if it has none */
};

/* What is wrong with the state. */
enum dune_fail {
	DUNE_FAIL_NO_STATE = 1, /* DUNE_SET_STATE has not come yet, or not after a triple fault */
	DUNE_FAIL_RIP = 2, /* not canonical */
	DUNE_FAIL_RFLAGS = 3, /* VM or a reserved bit */
	DUNE_FAIL_SEGMENT = 4, /* cs and ss are not of ring 0 or 3, or not of the same */
	DUNE_FAIL_BASE = 5, /* of fs, gs or the kernel's gs: not canonical */
	DUNE_FAIL_CR3 = 6, /* beyond gpa_bits */
	DUNE_FAIL_EVENT = 7, /* not an exception, or an error code that does not belong to it */
	DUNE_FAIL_RESERVED = 8, /* a reserved field of dune_run */
	DUNE_FAIL_HARDWARE = 9, /* the processor refused; `detail` is its reason */
	DUNE_FAIL_OFF = 10, /* virtualisation is off on this processor (it is going down) */
};

struct dune_exit_fail {
	__u32 code; /* enum dune_fail */
	__u32 reserved;
	__u64 detail;
};

struct dune_regs {
	__u64 rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15;
	__u64 rip, rflags;
	/*
	 * Selectors. If one is not what the last run left, the segment is a flat one of 64-bit mode;
	 * otherwise it is what the guest made of it.
	 */
	__u64 cs, ss;
	__u64 fs_base, gs_base, kernel_gs_base;
	__u64 cr2, cr3;
	__u64 dr6;
};

/*
 * An exception on its way into the guest. A run that ends before it is delivered leaves it here; the
 * next run delivers what is here then. Clear `flags` to take it back.
 */
#define DUNE_EVENT_VALID (1U << 0)
#define DUNE_EVENT_ERROR_CODE (1U << 1)
struct dune_event {
	__u8 vector;
	__u8 flags;
	__u16 reserved;
	__u32 error_code;
};

/* What a vCPU shares with user space: mmap of its descriptor, MAP_SHARED, offset 0. */
struct dune_run {
	/* User space's. Not zero: the run in progress (at its next exit) or the next one ends. */
	__u32 interrupt;
	__u32 reserved0;

	/* Both sides'; the module looks at them when a run begins and writes them when it ends. */
	struct dune_regs regs;
	struct dune_event event;
	__u64 reserved1[8];

	/* The module's. */
	__u32 exit_reason;
	__u32 reserved2;
	union {
		struct dune_exit_intr intr;
		struct dune_exit_fault fault;
		struct dune_exit_exception exception;
		struct dune_exit_fail fail;
		__u64 words[8];
	} exit;
	/* Counted since the vCPU was made. */
	__u64 entries; /* of the processor into the guest */
	__u64 faults; /* of these, ended for a page that the second level did not have */
	__u64 interrupts; /* ended for an interrupt of the host's */
	__u64 reflected; /* ended for what the guest may not do, which got an exception for it */
	__u64 flushes; /* entries with nothing cached of either level */
	__u64 dispatched; /* calls made by the module */
};

#endif
