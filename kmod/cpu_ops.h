/* SPDX-License-Identifier: GPL-2.0-only */
/* What VMX and SVM each do in their way; the rest of the module does not know which it is. */
#ifndef DUNE_CPU_OPS_H
#define DUNE_CPU_OPS_H

#include "dune.h"

/* How an entry of the second level looks. */
struct dune_pte_format {
	u64 table; /* an entry that leads to a table */
	u64 present; /* one of these bits: there is something */
	u64 leaf; /* a page, readable */
	u64 write;
	u64 execute; /* set: executable */
	u64 no_execute; /* set: not executable. One of the two is 0 */
	u64 accessed; /* 0: the processor does not mark pages */
	u64 large; /* a page, at a level above the lowest */
	unsigned int max_level; /* of a page: 1 are 2 MiB, 2 a gigabyte */
	bool split_executable; /* no large page is executable (iTLB multihit) */
	/* Bits for the cache mode of a host's entry, whose flags are those of a small page. */
	u64 (*memory_type)(u64 flags, unsigned int level);
};

struct dune_cpu_ops {
	const char *name;
	struct dune_pte_format *format;
	unsigned int (*levels)(void);

	/* Does from now on what makes a guest harmless in spite of this fault (X86_BUG_*), if it can. */
	bool (*mitigate)(unsigned int bug);
	/* At load and unload. -EOPNOTSUPP: the processor or the firmware does not have it. */
	int (*setup)(void);
	void (*teardown)(void);
	/* On this processor, interrupts off. -EBUSY: somebody else's. */
	int (*enable_irqoff)(void);
	void (*disable_irqoff)(void);

	struct dune_vcpu *(*create)(struct dune_vm *vm);
	void (*free)(struct dune_vcpu *vcpu);
	/* Before it runs elsewhere than on vcpu->cpu; interrupts are on. NULL: nothing stays there. */
	void (*leave_cpu)(struct dune_vcpu *vcpu);
	/*
	 * Enters with vcpu's registers, state and event, and leaves them as the guest did, with
	 * vcpu->exit. Interrupts are off; all host state is as before when it returns, but for the
	 * vector registers.
	 */
	void (*run_irqoff)(struct dune_vcpu *vcpu);
};

extern const struct dune_cpu_ops svm_ops;
extern const struct dune_cpu_ops vmx_ops;

#endif
