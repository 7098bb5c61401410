// SPDX-License-Identifier: GPL-2.0-only
/*
 * Restartable sequences (rseq(2)) of code in the guest.
 *
 * The kernel aborts one when its thread has been preempted, moved or interrupted by a signal, by
 * moving the instruction pointer with which the thread goes back to user space; that of the guest
 * it does not know. So it is done here: a run that ends within a section aborts it, as a signal
 * would, for nobody knows what comes until the next one. A thread that is preempted or moved leaves
 * its run for that (TIF_NOTIFY_RESUME, which the scheduler sets for threads with rseq).
 *
 * A thread that slept on its way to the run, because a tracer or a filter stops it at each system
 * call, begins every run so, and would never come into the guest. There is no section to be aborted
 * then, so what the kernel would do on the way out is done at the beginning: the area says on which
 * processor the thread is. The kernel does the same again behind the run.
 */
#include <linux/rseq.h>
#include <linux/sched.h>
#include <linux/task_work.h>
#include <linux/topology.h>
#include <linux/uaccess.h>
#include <linux/version.h>

#include "dune.h"

#ifdef CONFIG_RSEQ
static bool update(struct rseq __user *area)
{
	/* If it changes meanwhile the flag is set again. */
	const u32 cpu = raw_smp_processor_id();

	if (put_user(cpu, &area->cpu_id_start) || put_user(cpu, &area->cpu_id))
		return false;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	if (put_user((u32)cpu_to_node(cpu), &area->node_id) ||
	    put_user((u32)task_mm_cid(current), &area->mm_cid))
		return false;
#endif
	return true;
}

/* True: the flag is down, and is to be raised when the run has ended. */
bool dune_rseq_take_over(void)
{
	/* Work that others have left for the thread comes first. */
	if (!current->rseq || task_work_pending(current))
		return false;
	clear_thread_flag(TIF_NOTIFY_RESUME);
	/* Pairs with who leaves work and raises the flag behind it. */
	smp_mb__after_atomic();
	if (!task_work_pending(current) && update(current->rseq))
		return true;
	set_thread_flag(TIF_NOTIFY_RESUME);
	return false;
}

/* What the kernel itself would not take it refuses on this thread's way out, with a SIGSEGV. */
static bool read_section(const struct rseq __user *area, struct rseq_cs *section)
{
	u64 address;
	u32 signature;

	if (get_user(address, &area->rseq_cs) || !address || address >= TASK_SIZE_MAX)
		return false;
	if (copy_from_user(section, (const void __user *)address, sizeof(*section)))
		return false;
	if (section->version || section->flags || section->abort_ip >= TASK_SIZE_MAX ||
	    section->abort_ip < sizeof(signature) ||
	    section->abort_ip - section->start_ip < section->post_commit_offset)
		return false;
	return !get_user(signature,
			 (const u32 __user *)(section->abort_ip - sizeof(signature))) &&
	       signature == current->rseq_sig;
}

void dune_rseq_abort(struct dune_regs *regs)
{
	struct rseq __user *area = current->rseq;
	struct rseq_cs section;

	if (!area || !read_section(area, &section))
		return;
	if (regs->rip - section.start_ip >= section.post_commit_offset)
		return;
	if (!put_user(0ULL, &area->rseq_cs))
		regs->rip = section.abort_ip;
}
#else
bool dune_rseq_take_over(void)
{
	return false;
}

void dune_rseq_abort(struct dune_regs *regs)
{
}
#endif
