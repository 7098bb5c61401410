/* SPDX-License-Identifier: GPL-2.0-only */
/* What the module's files share. */
#ifndef DUNE_H
#define DUNE_H

#include <linux/cpumask.h>
#include <linux/kref.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/spinlock.h>

#include "uapi/dune.h"

#define DUNE_MAX_REGIONS 512
#define DUNE_MAX_PRIVATES 64
#define DUNE_MAX_VCPUS 4096
#define DUNE_MAX_LEVELS 5
/* Debug registers in which nothing has happened, and nothing is wanted. */
#define DR6_NONE 0xffff0ff0ULL
#define DR7_OFF 0x400ULL

struct dune_gpa_range {
	u64 gpa, hva, length;
};

/* Pages that only the second level shows. */
struct dune_private {
	struct list_head entry;
	u64 gpa;
	unsigned long count;
	bool writable, executable;
	struct page *pages[];
};

/*
 * The second level of a VM, and all that decides what may be in it. Its lock is the only one that
 * the MMU notifier takes: nothing sleeps under it.
 */
struct dune_table {
	spinlock_t lock;
	u64 *root;
	unsigned int levels;
	unsigned long pages; /* of tables, the root apart */

	unsigned int region_count;
	struct dune_gpa_range regions[DUNE_MAX_REGIONS];
	struct list_head privates;
	unsigned int private_count;
	unsigned long private_pages;

	/*
	 * Invalidations in progress, and a range that covers all of theirs. No entry is made for an
	 * address in there: so what is read of the process's tables under the lock is no older than
	 * the last invalidation that has begun.
	 */
	unsigned int invalidations;
	unsigned long invalid_start, invalid_end;
	bool dead; /* the address space is going away */

	/*
	 * Grows whenever an entry goes or loses a right (under the lock). A vCPU that enters flushes
	 * if it has not seen this one.
	 */
	atomic64_t generation;
	cpumask_var_t running; /* processors that are in the guest, or about to look at generation */
};

struct dune_vm {
	struct kref refs; /* the device's file, and each vCPU's */
	struct mm_struct *mm; /* mmgrab: the structure, not the address space */
	struct mmu_notifier notifier;
	struct mutex lock; /* vcpu_count, and whether regions change */
	unsigned int vcpu_count;
	struct dune_table table;
};

/* What made the processor leave the guest, in words of both vendors. */
enum dune_exit_kind {
	DUNE_KIND_HYPERCALL,
	DUNE_KIND_NESTED_FAULT, /* gpa, access */
	DUNE_KIND_INTERRUPT, /* the host's, taken by now or as soon as interrupts are on */
	DUNE_KIND_EXCEPTION, /* vector, error_code: intercepted, not delivered */
	DUNE_KIND_FORBIDDEN, /* an instruction that a guest may not execute: vector */
	DUNE_KIND_SHUTDOWN,
	DUNE_KIND_FAILED, /* not entered: detail */
	DUNE_KIND_WANTED, /* not entered: user space, or the way there, wants the thread */
	DUNE_KIND_OFF, /* not entered: this processor's virtualisation is off */
	DUNE_KIND_AGAIN, /* nothing to do, enter again */
};

struct dune_hw_exit {
	enum dune_exit_kind kind;
	u8 vector;
	bool skipped; /* an instruction was executed in the guest's stead, so a step of it is due */
	u32 error_code;
	u32 access;
	/* Known of some kinds only; those above are 0 else. */
	u64 gpa;
	u64 detail;
	u64 debug; /* of #DB: the bits of DR6 that it is of, where dune_debug.status wants them */
};

struct dune_vcpu {
	struct dune_vm *vm;
	struct mutex mutex; /* held by who runs it or changes it */
	struct dune_run *run; /* a page; user space writes to it at any time */

	/* Our copies, checked: what the processor gets is taken from here only. */
	struct dune_regs regs;
	struct dune_event event;
	struct dune_state state;
	struct dune_debug debug;
	struct dune_dispatch dispatch;
	struct pt_regs arguments; /* of such a call; the rest is zero, made so once and not for each */
	bool has_state;
	bool state_dirty, debug_dirty; /* not in the processor's control structure yet */
	bool new_run; /* not entered since user space, which may have changed the thread's segments */
	bool flat_cs, flat_ss; /* selectors are user space's, since the last entry */
	u64 last_cs, last_ss, last_cr3;

	bool use_signal_mask;
	sigset_t signal_mask;

	/* Where it ran last, and with what of the table. */
	int cpu;
	u64 generation;
	bool flush;

	struct dune_hw_exit exit;
	u64 entries, faults, interrupts, reflected, flushes, dispatched;

	/* Zeroed pages for tables, taken under the table's lock. */
	struct page *spare[DUNE_MAX_LEVELS];
	unsigned int spares;
};

static inline bool dune_vcpu_debugs(const struct dune_vcpu *vcpu)
{
	return vcpu->debug.dr7 & 0xff;
}

/* main.c */
extern const struct dune_cpu_ops *dune_ops;
int dune_hardware_get(void);
void dune_hardware_put(void);
DECLARE_PER_CPU(bool, dune_hardware_is_on); /* changed with interrupts off */
int dune_copy_sized(void *to, size_t size, const void __user *from, size_t least);

/* vm.c */
extern const struct file_operations dune_vm_fops;
void dune_vm_put(struct dune_vm *vm);
static inline void dune_vm_get(struct dune_vm *vm)
{
	kref_get(&vm->refs);
}

/* vcpu.c */
int dune_vcpu_create(struct dune_vm *vm);
u64 dune_cr4_allowed(void);
u64 dune_cr4_of(const struct dune_state *state);
void dune_load_breakpoints(const struct dune_vcpu *vcpu);
enum dune_fail dune_check_place(u64 rip, u64 rflags);

/* mm.c */
extern unsigned long dune_max_table_pages;
extern unsigned int dune_gpa_width; /* of a guest-physical address, in bits */
unsigned int dune_table_levels(void);
void dune_table_setup(void);
int dune_table_init(struct dune_table *table);
void dune_table_destroy(struct dune_table *table);
int dune_table_add_region(struct dune_table *table, const struct dune_gpa_range *range);
int dune_table_remove_region(struct dune_table *table, const struct dune_gpa_range *range);
void dune_table_forget(struct dune_table *table);
int dune_table_fault(struct dune_vcpu *vcpu, u64 gpa, u32 access, u64 *hva);
void dune_vcpu_free_spares(struct dune_vcpu *vcpu);
int dune_notifier_register(struct dune_vm *vm);
int dune_table_add_private(struct dune_table *table, struct dune_private *private);
struct dune_private *dune_table_remove_private(struct dune_table *table, u64 gpa, unsigned long count);

/* private.c */
extern unsigned long dune_max_private_pages;
int dune_private_set(struct dune_table *table, const struct dune_private_range *range);
void dune_private_free_all(struct dune_table *table);

/* dispatch.c */
void dune_dispatch_setup(void);
bool dune_dispatch_is_on(void);
bool dune_dispatch(struct dune_vcpu *vcpu);

/* rseq.c */
bool dune_rseq_take_over(void);
void dune_rseq_abort(struct dune_regs *regs);

#endif
