// SPDX-License-Identifier: GPL-2.0-only
/*
 * A vCPU: one thread's way into the guest. What user space wrote into the shared page is copied
 * once and checked; the processor is entered with interrupts off until something needs us; what
 * needs user space ends the run.
 */
#include <linux/anon_inodes.h>
#include <linux/fs.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vtime.h>

#include <asm/cpu.h>
#include <asm/cpufeature.h>
#include <asm/debugreg.h>
#include <asm/fpu/api.h>
#include <asm/processor-flags.h>
#include <asm/thread_info.h>
#include <asm/tlbflush.h>
#include <asm/trapnr.h>

#include "compat.h"
#include "cpu_ops.h"
#include "dune.h"

/* What a guest can set by itself, I/O is intercepted whatever IOPL says. */
#define RFLAGS_ALLOWED                                                                             \
	(X86_EFLAGS_CF | X86_EFLAGS_PF | X86_EFLAGS_AF | X86_EFLAGS_ZF | X86_EFLAGS_SF |           \
	 X86_EFLAGS_TF | X86_EFLAGS_IF | X86_EFLAGS_DF | X86_EFLAGS_OF | X86_EFLAGS_IOPL |         \
	 X86_EFLAGS_NT | X86_EFLAGS_RF | X86_EFLAGS_AC | X86_EFLAGS_ID | X86_EFLAGS_VIF |          \
	 X86_EFLAGS_VIP)
#define DR6_WRITABLE 0xe00fULL
/* Enable bits, LE, GE, and the conditions; neither GD nor the reserved bits. */
#define DR7_ALLOWED 0xffff03ffULL
/* Those that the processor pushes an error code for. */
#define ERROR_CODE_VECTORS                                                                         \
	(BIT(X86_TRAP_DF) | BIT(X86_TRAP_TS) | BIT(X86_TRAP_NP) | BIT(X86_TRAP_SS) |               \
	 BIT(X86_TRAP_GP) | BIT(X86_TRAP_PF) | BIT(X86_TRAP_AC) | BIT(X86_TRAP_CP))
/* What user space may deliver: no software exception, which is an instruction; no NMI, no #MC. */
#define EVENT_VECTORS                                                                              \
	(BIT(X86_TRAP_DE) | BIT(X86_TRAP_DB) | BIT(X86_TRAP_BR) | BIT(X86_TRAP_UD) |               \
	 BIT(X86_TRAP_NM) | BIT(X86_TRAP_DF) | BIT(X86_TRAP_TS) | BIT(X86_TRAP_NP) |               \
	 BIT(X86_TRAP_SS) | BIT(X86_TRAP_GP) | BIT(X86_TRAP_PF) | BIT(X86_TRAP_MF) |               \
	 BIT(X86_TRAP_AC) | BIT(X86_TRAP_XF))
/* What may end a run instead of going to the guest. */
#define EXIT_VECTORS (EVENT_VECTORS | BIT(X86_TRAP_BP) | BIT(X86_TRAP_OF) | BIT(X86_TRAP_CP))

/* Of four levels of tables, which every guest has. */
static bool is_canonical(u64 address)
{
	return (u64)((s64)(address << 16) >> 16) == address;
}

/* What does not reach beyond the guest, as far as the processor has it. */
u64 dune_cr4_allowed(void)
{
	u64 allowed = X86_CR4_TSD | X86_CR4_DE | X86_CR4_PAE | X86_CR4_PGE | X86_CR4_OSFXSR |
		      X86_CR4_OSXMMEXCPT;

	if (boot_cpu_has(X86_FEATURE_FSGSBASE))
		allowed |= X86_CR4_FSGSBASE;
	if (boot_cpu_has(X86_FEATURE_OSXSAVE))
		allowed |= X86_CR4_OSXSAVE;
	if (boot_cpu_has(X86_FEATURE_PCID))
		allowed |= X86_CR4_PCIDE;
	if (boot_cpu_has(X86_FEATURE_SMEP))
		allowed |= X86_CR4_SMEP;
	if (boot_cpu_has(X86_FEATURE_SMAP))
		allowed |= X86_CR4_SMAP;
	if (boot_cpu_has(X86_FEATURE_UMIP))
		allowed |= X86_CR4_UMIP;
	return allowed;
}

/* Without the MCE of the host a machine check in the guest, of whatever processor, is a shutdown. */
u64 dune_cr4_of(const struct dune_state *state)
{
	return state->cr4 | (cr4_read_shadow() & X86_CR4_MCE);
}

/* ---------------------------------------------------------------------------------------------
 * The shared page
 */

static enum dune_fail check_segments(const struct dune_regs *regs)
{
	const unsigned int ring = regs->cs & 3;

	if ((regs->cs | regs->ss) > 0xffff || (regs->ss & 3) != ring || (ring != 0 && ring != 3))
		return DUNE_FAIL_SEGMENT;
	/* A null selector is a stack segment in ring 0, as the processor itself loads it there. */
	if (regs->cs < 4 || (regs->ss < 4 && ring != 0))
		return DUNE_FAIL_SEGMENT;
	return 0;
}

/* May a guest go on there, with these flags? 0: it may. */
enum dune_fail dune_check_place(u64 rip, u64 rflags)
{
	if (!is_canonical(rip))
		return DUNE_FAIL_RIP;
	if (rflags & ~(RFLAGS_ALLOWED | X86_EFLAGS_FIXED))
		return DUNE_FAIL_RFLAGS;
	return 0;
}

static enum dune_fail check_regs(const struct dune_regs *regs)
{
	const enum dune_fail fail = dune_check_place(regs->rip, regs->rflags);

	if (fail)
		return fail;
	if (!is_canonical(regs->fs_base) || !is_canonical(regs->gs_base) ||
	    !is_canonical(regs->kernel_gs_base))
		return DUNE_FAIL_BASE;
	/* The lower bits are what the guest itself may write there. */
	if (regs->cr3 >> dune_gpa_width)
		return DUNE_FAIL_CR3;
	return check_segments(regs);
}

static enum dune_fail check_event(const struct dune_event *event)
{
	const bool has_code = event->flags & DUNE_EVENT_ERROR_CODE;

	if (event->reserved || event->flags & ~(DUNE_EVENT_VALID | DUNE_EVENT_ERROR_CODE))
		return DUNE_FAIL_EVENT;
	if (!(event->flags & DUNE_EVENT_VALID))
		return 0;
	if (event->vector >= 32 || !(EVENT_VECTORS & BIT(event->vector)) ||
	    has_code != !!(ERROR_CODE_VECTORS & BIT(event->vector)))
		return DUNE_FAIL_EVENT;
	/* Reserved bits of an error code; only #PF has one beyond 16 bits. */
	if (has_code && event->vector != X86_TRAP_PF && event->error_code > 0xffff)
		return DUNE_FAIL_EVENT;
	return 0;
}

static bool reserved_is_zero(const struct dune_run *run)
{
	const u64 *r = run->reserved1;

	BUILD_BUG_ON(ARRAY_SIZE(run->reserved1) != 8);
	return !(run->reserved0 | r[0] | r[1] | r[2] | r[3] | r[4] | r[5] | r[6] | r[7]);
}

/*
 * The page is user space's all the time: what is checked, and counts, is the copy. One that is
 * refused stays where it is, for each run begins here.
 */
static enum dune_fail take_run(struct dune_vcpu *vcpu)
{
	const struct dune_run *run = vcpu->run;
	struct dune_regs *regs = &vcpu->regs;
	enum dune_fail fail;

	if (!vcpu->has_state)
		return DUNE_FAIL_NO_STATE;
	if (!reserved_is_zero(run))
		return DUNE_FAIL_RESERVED;
	memcpy(regs, &run->regs, sizeof(*regs));
	memcpy(&vcpu->event, &run->event, sizeof(vcpu->event));
	barrier();
	fail = check_regs(regs);
	if (!fail)
		fail = check_event(&vcpu->event);
	if (fail)
		return fail;
	regs->rflags |= X86_EFLAGS_FIXED;
	regs->dr6 = (regs->dr6 & DR6_WRITABLE) | DR6_NONE;
	/*
	 * At the first run neither is known, and both are flat. A run that ended before it entered has
	 * left the wish behind, and the old segment in the control structure.
	 */
	vcpu->flat_cs |= vcpu->state_dirty || regs->cs != vcpu->last_cs;
	vcpu->flat_ss |= vcpu->state_dirty || regs->ss != vcpu->last_ss;
	if (regs->cr3 != vcpu->last_cr3)
		vcpu->flush = true;
	vcpu->new_run = true;
	return 0;
}

static void give_run(struct dune_vcpu *vcpu, enum dune_exit_reason reason)
{
	struct dune_run *run = vcpu->run;

	vcpu->last_cs = vcpu->regs.cs;
	vcpu->last_ss = vcpu->regs.ss;
	vcpu->last_cr3 = vcpu->regs.cr3;
	memcpy(&run->regs, &vcpu->regs, sizeof(run->regs));
	memcpy(&run->event, &vcpu->event, sizeof(run->event));
	run->entries = vcpu->entries;
	run->faults = vcpu->faults;
	run->interrupts = vcpu->interrupts;
	run->reflected = vcpu->reflected;
	run->flushes = vcpu->flushes;
	run->dispatched = vcpu->dispatched;
	WRITE_ONCE(run->exit_reason, reason);
}

/* ---------------------------------------------------------------------------------------------
 * Running
 */

/* Something that only the way back to user space, or user space itself, looks after. */
static bool is_wanted(const struct dune_vcpu *vcpu)
{
	return read_thread_flags() & (_TIF_SIGPENDING | _TIF_NOTIFY_SIGNAL | _TIF_NOTIFY_RESUME) ||
	       READ_ONCE(vcpu->run->interrupt);
}

/*
 * Before an entry, whose exit restores the host's. These stop looking before: an address of the
 * guest's may be one of the kernel's, whose use a guest is not told of.
 */
void dune_load_breakpoints(const struct dune_vcpu *vcpu)
{
	int i;

	if (hw_breakpoint_active())
		set_debugreg(DR7_OFF, 7);
	for (i = 0; i < 4; i++)
		set_debugreg(vcpu->debug.address[i], i);
}

/* One entry into the guest, or none: vcpu->exit says. */
static void dune_vcpu_enter(struct dune_vcpu *vcpu)
{
	struct dune_table *table = &vcpu->vm->table;
	u64 generation;
	int cpu;

	preempt_disable();
	cpu = smp_processor_id();
	if (vcpu->cpu != cpu && dune_ops->leave_cpu)
		dune_ops->leave_cpu(vcpu);
	local_irq_disable();
	vcpu->exit.kind = DUNE_KIND_AGAIN;
	vcpu->exit.vector = 0;
	vcpu->exit.skipped = false;
	vcpu->exit.error_code = vcpu->exit.access = 0;
	if (is_wanted(vcpu)) {
		vcpu->exit.kind = DUNE_KIND_WANTED;
		goto out;
	}
	if (need_resched())
		goto out;
	/* With interrupts off nobody switches it off before we are back. */
	if (!raw_cpu_read(dune_hardware_is_on)) {
		vcpu->exit.kind = DUNE_KIND_OFF;
		goto out;
	}
	if (test_thread_flag(TIF_NEED_FPU_LOAD))
		switch_fpu_return();
	cpumask_set_cpu(cpu, table->running);
	/* Pairs with flush_running(). */
	smp_mb__after_atomic();
	generation = atomic64_read(&table->generation);
	if (vcpu->generation != generation || vcpu->cpu != cpu)
		vcpu->flush = true;
	vcpu->generation = generation;
	vcpu->flushes += vcpu->flush;
	/* The program's time, as user mode's is: its virtual timers count it. */
	vtime_account_guest_enter();
	dune_ops->run_irqoff(vcpu);
	vcpu->cpu = cpu;
	cpumask_clear_cpu(cpu, table->running);
	/*
	 * The interrupt for which it has left the guest comes here, behind the instruction behind STI.
	 * If it is a tick, that was the guest's.
	 */
	local_irq_enable();
	vcpu->entries++;
	local_irq_disable();
	vtime_account_guest_exit();
out:
	local_irq_enable();
	preempt_enable();
}

static void queue_exception(struct dune_vcpu *vcpu, u8 vector, u32 error_code)
{
	vcpu->event = (struct dune_event){ .vector = vector, .flags = DUNE_EVENT_VALID };
	if (ERROR_CODE_VECTORS & BIT(vector)) {
		vcpu->event.flags |= DUNE_EVENT_ERROR_CODE;
		vcpu->event.error_code = error_code;
	}
}

/* What the #DB is of, for who has asked for it. */
static int store_status(struct dune_vcpu *vcpu)
{
	u64 __user *status = u64_to_user_ptr(vcpu->debug.status);

	return vcpu->debug.status ? put_user(vcpu->exit.debug, status) : 0;
}

/*
 * An instruction that the guest's trap flag should have trapped behind: as if the processor had
 * executed it, but for one that ends the run, behind which the trap has to wait.
 */
static void step(struct dune_vcpu *vcpu)
{
	const bool intercepted = dune_vcpu_debugs(vcpu) || vcpu->state.exceptions & BIT(X86_TRAP_DB);

	if (!vcpu->debug.status)
		vcpu->regs.dr6 |= DR_STEP;
	vcpu->exit.debug = DR_STEP;
	if (vcpu->exit.kind == DUNE_KIND_AGAIN && intercepted) {
		vcpu->exit.kind = DUNE_KIND_EXCEPTION;
		vcpu->exit.vector = X86_TRAP_DB;
	} else {
		queue_exception(vcpu, X86_TRAP_DB, 0);
		/* Where that fails, the word still tells of the last one. */
		(void)store_status(vcpu);
	}
}

/* 0: the guest goes on. */
static enum dune_exit_reason handle_fault(struct dune_vcpu *vcpu)
{
	struct dune_exit_fault *fault = &vcpu->run->exit.fault;
	u64 hva;
	int result;

	vcpu->faults++;
	result = dune_table_fault(vcpu, vcpu->exit.gpa, vcpu->exit.access, &hva);
	if (!result || result == -EAGAIN)
		return 0;
	/*
	 * The guest's tables may have said so before DUNE_FORGET, behind which the region has gone: they
	 * are walked again.
	 */
	if (result == -ENOENT && vcpu->generation != atomic64_read(&vcpu->vm->table.generation))
		return 0;
	fault->gpa = vcpu->exit.gpa;
	fault->hva = hva;
	fault->access = vcpu->exit.access;
	fault->error = -result;
	return DUNE_EXIT_FAULT;
}

/* Of ring 0 alone, and nobody wants to know. The access is done, so the guest just goes on. */
static bool ignores_debug(struct dune_vcpu *vcpu)
{
	if (!(vcpu->debug.flags & DUNE_DEBUG_RING3) || vcpu->regs.cs & 3 ||
	    !(vcpu->exit.debug & DR_TRAP_BITS))
		return false;
	vcpu->exit.debug &= ~DR_TRAP_BITS;
	return !vcpu->exit.debug;
}

static enum dune_exit_reason handle_debug(struct dune_vcpu *vcpu)
{
	struct dune_exit_fault *fault = &vcpu->run->exit.fault;

	if (store_status(vcpu)) {
		queue_exception(vcpu, X86_TRAP_DB, 0);
		*fault = (struct dune_exit_fault){ .hva = vcpu->debug.status,
						   .access = DUNE_ACCESS_WRITE,
						   .error = EFAULT };
		return DUNE_EXIT_FAULT;
	}
	return vcpu->debug.flags & DUNE_DEBUG_EXIT ? DUNE_EXIT_DEBUG : 0;
}

/*
 * Of a locked access across cache lines, where the processor is told to trap on it: no alignment
 * check, which only ring 3 has, with AC set. What the kernel does of one in user mode it does here:
 * lets it happen, with a warning and slowly, or sends SIGBUS.
 */
static bool handles_split_lock(const struct dune_vcpu *vcpu)
{
	if (!boot_cpu_has(X86_FEATURE_SPLIT_LOCK_DETECT) ||
	    ((vcpu->regs.cs & 3) == 3 && vcpu->regs.rflags & X86_EFLAGS_AC))
		return false;
	(void)handle_guest_split_lock(vcpu->regs.rip);
	return true;
}

static enum dune_exit_reason handle_exception(struct dune_vcpu *vcpu)
{
	struct dune_exit_exception *exception = &vcpu->run->exit.exception;
	const u8 vector = vcpu->exit.vector;
	enum dune_exit_reason reason;

	if (vector == X86_TRAP_DB) {
		if (ignores_debug(vcpu))
			return 0;
		reason = handle_debug(vcpu);
		if (reason)
			return reason;
	}
	if (vector == X86_TRAP_AC && handles_split_lock(vcpu))
		return 0;
	if (vcpu->state.exceptions & BIT(vector)) {
		exception->vector = vector;
		exception->error_code = vcpu->exit.error_code;
		return DUNE_EXIT_EXCEPTION;
	}
	/* Intercepted for our sake only. */
	queue_exception(vcpu, vector, vcpu->exit.error_code);
	return 0;
}

static enum dune_exit_reason interrupted(struct dune_vcpu *vcpu)
{
	const unsigned long flags = read_thread_flags();
	u32 by = 0;

	if (flags & (_TIF_SIGPENDING | _TIF_NOTIFY_SIGNAL))
		by |= DUNE_INTR_SIGNAL;
	if (READ_ONCE(vcpu->run->interrupt))
		by |= DUNE_INTR_ASKED;
	vcpu->run->exit.intr = (struct dune_exit_intr){ .by = by };
	return DUNE_EXIT_INTR;
}

static enum dune_exit_reason fail_entry(struct dune_vcpu *vcpu, enum dune_fail code, u64 detail)
{
	vcpu->run->exit.fail = (struct dune_exit_fail){ .code = code, .detail = detail };
	return DUNE_EXIT_FAIL_ENTRY;
}

/* 0: the guest goes on. */
static enum dune_exit_reason handle_exit(struct dune_vcpu *vcpu)
{
	const struct dune_hw_exit *exit = &vcpu->exit;

	if (exit->skipped && vcpu->regs.rflags & X86_EFLAGS_TF)
		step(vcpu);
	switch (exit->kind) {
	case DUNE_KIND_AGAIN:
		/* Perhaps not entered for that. */
		cond_resched();
		return 0;
	case DUNE_KIND_WANTED:
		return interrupted(vcpu);
	case DUNE_KIND_INTERRUPT:
		vcpu->interrupts++;
		/* As of an interrupt of user mode: the thread has been where it holds nothing. */
		local_irq_disable();
		rcu_note_context_switch(false);
		local_irq_enable();
		return 0;
	case DUNE_KIND_NESTED_FAULT:
		return handle_fault(vcpu);
	case DUNE_KIND_HYPERCALL:
		if (vcpu->regs.rip == vcpu->dispatch.rip && dune_dispatch(vcpu))
			return 0;
		return DUNE_EXIT_SYSCALL;
	case DUNE_KIND_EXCEPTION:
		return handle_exception(vcpu);
	case DUNE_KIND_FORBIDDEN:
		vcpu->reflected++;
		queue_exception(vcpu, exit->vector, 0);
		return 0;
	case DUNE_KIND_SHUTDOWN:
		/* What the processor leaves is undefined. */
		vcpu->has_state = false;
		return DUNE_EXIT_SHUTDOWN;
	case DUNE_KIND_FAILED:
		return fail_entry(vcpu, DUNE_FAIL_HARDWARE, exit->detail);
	case DUNE_KIND_OFF:
		return fail_entry(vcpu, DUNE_FAIL_OFF, 0);
	}
	WARN_ON_ONCE(1);
	return fail_entry(vcpu, DUNE_FAIL_HARDWARE, exit->detail);
}

static long run(struct dune_vcpu *vcpu)
{
	enum dune_exit_reason reason;
	enum dune_fail fail;
	sigset_t before;
	bool owed;

	fail = take_run(vcpu);
	if (fail) {
		WRITE_ONCE(vcpu->run->exit_reason, fail_entry(vcpu, fail, 0));
		return 0;
	}
	if (vcpu->use_signal_mask)
		sigprocmask(SIG_SETMASK, &vcpu->signal_mask, &before);
	owed = test_thread_flag(TIF_NOTIFY_RESUME) && dune_rseq_take_over();
	for (;;) {
		dune_vcpu_enter(vcpu);
		reason = handle_exit(vcpu);
		if (reason)
			break;
	}
	if (vcpu->use_signal_mask)
		sigprocmask(SIG_SETMASK, &before, NULL);
	if (reason == DUNE_EXIT_INTR)
		WRITE_ONCE(vcpu->run->interrupt, 0);
	/* A section makes no calls; where nothing was entered nothing was left. */
	if (reason != DUNE_EXIT_SYSCALL && reason != DUNE_EXIT_FAIL_ENTRY)
		dune_rseq_abort(&vcpu->regs);
	if (owed)
		set_thread_flag(TIF_NOTIFY_RESUME);
	give_run(vcpu, reason);
	return 0;
}

/* ---------------------------------------------------------------------------------------------
 * Its descriptor
 */

static long set_state(struct dune_vcpu *vcpu, const void __user *argument)
{
	const u64 needed = X86_CR4_PAE;
	struct dune_state state;
	int result;

	result = dune_copy_sized(&state, sizeof(state), argument, offsetofend(struct dune_state, sfmask));
	if (result)
		return result;
	if (state.flags || state.reserved0 || state.gdt.reserved || state.idt.reserved ||
	    state.task.reserved || memchr_inv(state.reserved, 0, sizeof(state.reserved)))
		return -EINVAL;
	if (state.cr4 & ~dune_cr4_allowed() || (state.cr4 & needed) != needed)
		return -EINVAL;
	if (!is_canonical(state.gdt.base) || !is_canonical(state.idt.base) ||
	    !is_canonical(state.task.base) || !is_canonical(state.lstar) || !is_canonical(state.cstar))
		return -EINVAL;
	if (state.gdt.limit > 0xffff || state.idt.limit > 0xffff)
		return -EINVAL;
	/* A TSS in the GDT, of at least its size; VM entry looks at the same. */
	if (state.task_selector & 7 || state.task_selector == 0 || state.task.limit < 0x67 ||
	    state.task.limit > 0xfffff)
		return -EINVAL;
	if (state.exceptions & ~EXIT_VECTORS || state.sfmask > 0xffffffff)
		return -EINVAL;
	vcpu->state = state;
	vcpu->has_state = true;
	vcpu->state_dirty = true;
	vcpu->flush = true;
	return 0;
}

static long set_debug(struct dune_vcpu *vcpu, const void __user *argument)
{
	struct dune_debug debug;
	int result, i;

	result = dune_copy_sized(&debug, sizeof(debug), argument, offsetofend(struct dune_debug, dr7));
	if (result)
		return result;
	if (debug.flags & ~(DUNE_DEBUG_EXIT | DUNE_DEBUG_RING3) ||
	    memchr_inv(debug.reserved, 0, sizeof(debug.reserved)))
		return -EINVAL;
	if (debug.status % sizeof(u64) || !access_ok(u64_to_user_ptr(debug.status), sizeof(u64)))
		return -EINVAL;
	/* Of the DR6 of a guest nobody could tell which bits are of what it would not be told. */
	if (debug.flags & DUNE_DEBUG_RING3 && !debug.status)
		return -EINVAL;
	if (debug.dr7 & ~(DR7_ALLOWED | DR7_OFF))
		return -EINVAL;
	for (i = 0; i < 4; i++) {
		/* Of I/O, or undefined where CR4.DE is 0. */
		if ((debug.dr7 >> (16 + 4 * i) & 3) == 2 || !is_canonical(debug.address[i]))
			return -EINVAL;
	}
	debug.dr7 |= DR7_OFF;
	vcpu->debug = debug;
	vcpu->debug_dirty = true;
	return 0;
}

static long set_signal_mask(struct dune_vcpu *vcpu, const void __user *argument)
{
	struct dune_signal_mask mask;
	int result;

	result = dune_copy_sized(&mask, sizeof(mask), argument, sizeof(mask));
	if (result)
		return result;
	if (mask.flags & ~DUNE_SIGNAL_MASK_USE)
		return -EINVAL;
	vcpu->use_signal_mask = mask.flags & DUNE_SIGNAL_MASK_USE;
	BUILD_BUG_ON(sizeof(sigset_t) != sizeof(mask.blocked));
	memcpy(&vcpu->signal_mask, &mask.blocked, sizeof(mask.blocked));
	sigdelsetmask(&vcpu->signal_mask, sigmask(SIGKILL) | sigmask(SIGSTOP));
	return 0;
}

static long set_dispatch(struct dune_vcpu *vcpu, const void __user *argument)
{
	struct dune_dispatch dispatch;
	int result;

	if (!dune_dispatch_is_on())
		return -EOPNOTSUPP;
	result = dune_copy_sized(&dispatch, sizeof(dispatch), argument,
				 offsetofend(struct dune_dispatch, calls));
	if (result)
		return result;
	if (dispatch.flags & ~DUNE_DISPATCH_RETURN ||
	    memchr_inv(dispatch.reserved, 0, sizeof(dispatch.reserved)))
		return -EINVAL;
	vcpu->dispatch = dispatch;
	return 0;
}

static long dune_vcpu_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct dune_vcpu *vcpu = file->private_data;
	long result = -ENOTTY;

	if (vcpu->vm->mm != current->mm)
		return -EXDEV;
	if (!mutex_trylock(&vcpu->mutex))
		return -EBUSY;
	/* The one that counts. */
	if (likely(command == DUNE_RUN)) {
		result = argument ? -EINVAL : run(vcpu);
		mutex_unlock(&vcpu->mutex);
		return result;
	}
	switch (command) {
	case DUNE_SET_STATE:
		result = set_state(vcpu, (void __user *)argument);
		break;
	case DUNE_SET_DEBUG:
		result = set_debug(vcpu, (void __user *)argument);
		break;
	case DUNE_SET_SIGNAL_MASK:
		result = set_signal_mask(vcpu, (void __user *)argument);
		break;
	case DUNE_SET_DISPATCH:
		result = set_dispatch(vcpu, (void __user *)argument);
		break;
	}
	mutex_unlock(&vcpu->mutex);
	return result;
}

static int dune_vcpu_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct dune_vcpu *vcpu = file->private_data;

	if (vcpu->vm->mm != current->mm)
		return -EXDEV;
	if (vma->vm_pgoff || vma_pages(vma) != 1 || !(vma->vm_flags & VM_SHARED) ||
	    vma->vm_flags & VM_EXEC)
		return -EINVAL;
	/* A child would have its parent's registers to write. */
	dune_vma_set_flags(vma, VM_DONTCOPY | VM_DONTEXPAND);
	return vm_insert_page(vma, vma->vm_start, virt_to_page(vcpu->run));
}

static int dune_vcpu_release(struct inode *inode, struct file *file)
{
	struct dune_vcpu *vcpu = file->private_data;
	struct dune_vm *vm = vcpu->vm;

	dune_vcpu_free_spares(vcpu);
	/* Whoever has it mapped has it as long as that. */
	free_page((unsigned long)vcpu->run);
	dune_ops->free(vcpu);
	dune_hardware_put();
	mutex_lock(&vm->lock);
	vm->vcpu_count--;
	mutex_unlock(&vm->lock);
	dune_vm_put(vm);
	return 0;
}

static const struct file_operations dune_vcpu_fops = {
	.owner = THIS_MODULE,
	.release = dune_vcpu_release,
	.unlocked_ioctl = dune_vcpu_ioctl,
	.mmap = dune_vcpu_mmap,
	.llseek = noop_llseek,
};

static int count_vcpu(struct dune_vm *vm)
{
	int result = 0;

	mutex_lock(&vm->lock);
	if (vm->vcpu_count < DUNE_MAX_VCPUS)
		vm->vcpu_count++;
	else
		result = -ENOSPC;
	mutex_unlock(&vm->lock);
	return result;
}

/* A descriptor, or what went wrong; EBUSY: somebody else has the processor's virtualisation. */
int dune_vcpu_create(struct dune_vm *vm)
{
	struct dune_vcpu *vcpu;
	int result;

	result = count_vcpu(vm);
	if (result)
		return result;
	result = dune_hardware_get();
	if (result)
		goto out_count;
	vcpu = dune_ops->create(vm);
	if (IS_ERR(vcpu)) {
		result = PTR_ERR(vcpu);
		goto out_hardware;
	}
	vcpu->vm = vm;
	vcpu->cpu = -1;
	vcpu->debug.dr7 = DR7_OFF;
	mutex_init(&vcpu->mutex);
	vcpu->run = (struct dune_run *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!vcpu->run) {
		result = -ENOMEM;
		goto out_vcpu;
	}
	dune_vm_get(vm);
	result = anon_inode_getfd("dune-vcpu", &dune_vcpu_fops, vcpu, O_RDWR | O_CLOEXEC);
	if (result < 0)
		goto out_vm;
	return result;

out_vm:
	dune_vm_put(vm);
	free_page((unsigned long)vcpu->run);
out_vcpu:
	dune_ops->free(vcpu);
out_hardware:
	dune_hardware_put();
out_count:
	mutex_lock(&vm->lock);
	vm->vcpu_count--;
	mutex_unlock(&vm->lock);
	return result;
}
