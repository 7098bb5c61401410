// SPDX-License-Identifier: GPL-2.0-only
/*
 * System calls that are made at the hypercall, without the way through user space: an option of the
 * module's (dispatch=1), for vCPUs that ask for it, and for the few calls below.
 *
 * They are the kernel's own functions. No module is given their addresses, but a kprobe finds them:
 * one that is never armed, so no text is patched. Each is one that nothing need be done around but
 * what syscall_enter_from_user_mode() would do, and that is looked at anew at each call: whoever
 * watches the thread (seccomp, ptrace, audit, the tracepoints, syscall user dispatch) has set a bit
 * of its syscall_work, and then the call is bounced, where all of them see it.
 *
 * What is on the list returns at once: it neither sleeps for long nor asks to be restarted, which
 * only the way back to user space can decide; it does not look at its caller's registers (as fork,
 * execve and sigreturn do), and takes no descriptor that user space may be hiding from the guest.
 */
#include <linux/kprobes.h>
#include <linux/nospec.h>
#include <linux/sched.h>

#include <asm/cpufeature.h>
#include <asm/ibt.h>
#include <asm/processor-flags.h>
#include <asm/unistd.h>

#include "dune.h"

typedef long (*dune_call_fn)(const struct pt_regs *regs);

static const struct {
	u16 number;
	const char *function;
} calls[] = {
	{ __NR_sched_yield, "__x64_sys_sched_yield" },
	{ __NR_getpid, "__x64_sys_getpid" },
	{ __NR_gettimeofday, "__x64_sys_gettimeofday" },
	{ __NR_getuid, "__x64_sys_getuid" },
	{ __NR_getgid, "__x64_sys_getgid" },
	{ __NR_geteuid, "__x64_sys_geteuid" },
	{ __NR_getegid, "__x64_sys_getegid" },
	{ __NR_getppid, "__x64_sys_getppid" },
	{ __NR_getpgrp, "__x64_sys_getpgrp" },
	{ __NR_getpgid, "__x64_sys_getpgid" },
	{ __NR_getsid, "__x64_sys_getsid" },
	{ __NR_gettid, "__x64_sys_gettid" },
	{ __NR_time, "__x64_sys_time" },
	{ __NR_clock_gettime, "__x64_sys_clock_gettime" },
	{ __NR_clock_getres, "__x64_sys_clock_getres" },
	{ __NR_getcpu, "__x64_sys_getcpu" },
};

/* By number; what is NULL is bounced. */
static dune_call_fn functions[DUNE_DISPATCH_CALLS] __ro_after_init;
static bool dispatch_is_on __ro_after_init;

bool dune_dispatch_is_on(void)
{
	return dispatch_is_on;
}

/* NULL: there is none, or none that may be called through a pointer. */
static __init dune_call_fn find_function(const char *name)
{
	struct kprobe probe = { .symbol_name = name, .flags = KPROBE_FLAG_DISABLED };
	unsigned long address;

	if (register_kprobe(&probe))
		return NULL;
	address = (unsigned long)probe.addr;
	unregister_kprobe(&probe);
	/* A probe of a function lies behind its ENDBR. */
	if (is_endbr(*(u32 *)(address - ENDBR_INSN_SIZE)))
		address -= ENDBR_INSN_SIZE;
#ifdef CONFIG_X86_KERNEL_IBT
	/* Where the processor insists on one, the kernel has taken it from whatever nobody points to. */
	if (cpu_feature_enabled(X86_FEATURE_IBT) && *(u32 *)address != gen_endbr())
		return NULL;
#endif
	return (dune_call_fn)address;
}

void __init dune_dispatch_setup(void)
{
	unsigned int i, found = 0;

	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		functions[calls[i].number] = find_function(calls[i].function);
		found += functions[calls[i].number] != NULL;
	}
	pr_info("dune: %u of %zu calls can be made in the kernel\n", found, ARRAY_SIZE(calls));
	dispatch_is_on = found != 0;
}

static bool asks_for_restart(long result)
{
	return result == -ERESTARTSYS || result == -ERESTARTNOINTR || result == -ERESTARTNOHAND ||
	       result == -ERESTART_RESTARTBLOCK;
}

/*
 * The guest is behind the hypercall of its system calls. False: that is no call to be made here, and
 * nothing has changed. Interrupts and preemption are on.
 */
bool dune_dispatch(struct dune_vcpu *vcpu)
{
	const bool returns = vcpu->dispatch.flags & DUNE_DISPATCH_RETURN;
	struct dune_regs *regs = &vcpu->regs;
	struct pt_regs *arguments = &vcpu->arguments;
	unsigned int number;
	long result;

	/* Of ring 0: in ring 3 the guest's kernel would not have been asked. */
	if (regs->cs & 3 || regs->rax >= DUNE_DISPATCH_CALLS)
		return false;
	number = array_index_nospec(regs->rax, DUNE_DISPATCH_CALLS);
	if (!functions[number] || !(vcpu->dispatch.calls[number / 64] >> number % 64 & 1))
		return false;
	if (READ_ONCE(current_thread_info()->syscall_work))
		return false;
	if (returns && dune_check_place(regs->rcx, regs->r11))
		return false;
	/* The others nobody looks at: these are no registers to go back with. */
	arguments->di = regs->rdi;
	arguments->si = regs->rsi;
	arguments->dx = regs->rdx;
	arguments->r10 = regs->r10;
	arguments->r8 = regs->r8;
	arguments->r9 = regs->r9;
	result = functions[number](arguments);
	if (WARN_ON_ONCE(asks_for_restart(result)))
		return false;
	regs->rax = result;
	if (returns) {
		regs->rip = regs->rcx;
		regs->rflags = regs->r11 | X86_EFLAGS_FIXED;
	}
	vcpu->dispatched++;
	return true;
}
