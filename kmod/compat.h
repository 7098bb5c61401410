/* SPDX-License-Identifier: GPL-2.0-only */
/* What kernels from 6.1 to 6.12 call differently; Kbuild looks into their headers where a version does not tell. */
#ifndef DUNE_COMPAT_H
#define DUNE_COMPAT_H

#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/syscore_ops.h>
#include <linux/version.h>

#include <asm/mce.h>
#include <asm/processor-flags.h>
#include <asm/trapnr.h>

static inline void dune_vma_set_flags(struct vm_area_struct *vma, unsigned long flags)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	vm_flags_set(vma, flags);
#else
	vma->vm_flags |= flags;
#endif
}

static inline bool dune_vma_is_shadow_stack(const struct vm_area_struct *vma)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
	return vma->vm_flags & VM_SHADOW_STACK;
#else
	return false;
#endif
}

/*
 * A cgroup of version 1 may have its processes wait for memory instead of being killed: a user's
 * fault notes that it should, with a reference, for the end of the kernel's own handler, which is
 * not exported. Who answers with ENOMEM instead gives it back.
 */
static inline void dune_end_memcg_oom(void)
{
#if defined(CONFIG_MEMCG_V1) ||                                                                    \
	(defined(CONFIG_MEMCG) && LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0))
	mem_cgroup_put(current->memcg_in_oom);
	current->memcg_in_oom = NULL;
#endif
}

/* Of a guest that was left for a machine check; interrupts are off. */
static inline void dune_handle_machine_check(void)
{
#ifdef CONFIG_X86_MCE
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
	/* As if it had come in user mode, which is where the guest belongs to. */
	struct pt_regs regs = { .cs = 3, .flags = X86_EFLAGS_IF };

	do_machine_check(&regs);
#else
	asm volatile("int %0" : : "i"(X86_TRAP_MC));
#endif
#endif
}

/* Of the stable series, too, since some of their releases. */
#ifdef DUNE_HAS_REGISTER_SYSCORE
#define DUNE_SYSCORE_OPS(name, suspend_function, resume_function)                                  \
	static int name##_suspend(void *unused)                                                    \
	{                                                                                          \
		return suspend_function();                                                         \
	}                                                                                          \
	static void name##_resume(void *unused)                                                    \
	{                                                                                          \
		resume_function();                                                                 \
	}                                                                                          \
	static const struct syscore_ops name##_ops = {                                             \
		.suspend = name##_suspend,                                                         \
		.resume = name##_resume,                                                           \
	};                                                                                         \
	static struct syscore name = {                                                             \
		.ops = &name##_ops,                                                                \
	}
#define dune_register_syscore(what) register_syscore(what)
#define dune_unregister_syscore(what) unregister_syscore(what)
#else
#define DUNE_SYSCORE_OPS(name, suspend_function, resume_function)                                  \
	static struct syscore_ops name = {                                                         \
		.suspend = suspend_function,                                                       \
		.resume = resume_function,                                                         \
	}
#define dune_register_syscore(what) register_syscore_ops(what)
#define dune_unregister_syscore(what) unregister_syscore_ops(what)
#endif

#endif
