// SPDX-License-Identifier: GPL-2.0-only
/*
 * dune.ko: gives a process a virtual machine whose memory is its own. This file loads it and turns
 * the processors' virtualisation on and off: on while a vCPU exists, and off again only where we
 * have turned it on.
 */
#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/reboot.h>
#include <linux/uaccess.h>

#include <asm/cpufeature.h>

#include "compat.h"
#include "cpu_ops.h"
#include "dune.h"

static bool unsafe_cpu;
module_param(unsafe_cpu, bool, 0444);
MODULE_PARM_DESC(unsafe_cpu, "Load on processors with faults that this module does not mitigate");
module_param_named(max_table_pages, dune_max_table_pages, ulong, 0644);
MODULE_PARM_DESC(max_table_pages, "Pages of second-level tables of one VM; beyond them they are made anew");
module_param_named(max_private_pages, dune_max_private_pages, ulong, 0644);
MODULE_PARM_DESC(max_private_pages, "Pages of one VM's own that no process has an address of");
static bool dispatch;
module_param(dispatch, bool, 0444);
MODULE_PARM_DESC(dispatch, "Make some system calls of guests in the kernel, where nobody watches the thread");

const struct dune_cpu_ops *dune_ops;

/* ---------------------------------------------------------------------------------------------
 * On and off
 */

static DEFINE_MUTEX(hardware_lock); /* taken inside of cpus_read_lock() */
static unsigned int hardware_users;
static bool hardware_is_going; /* reboot or kexec: never on again */
DEFINE_PER_CPU(bool, dune_hardware_is_on);
static enum cpuhp_state hotplug_state;

static int enable_irqoff(void)
{
	int result;

	if (raw_cpu_read(dune_hardware_is_on))
		return 0;
	result = dune_ops->enable_irqoff();
	if (!result)
		raw_cpu_write(dune_hardware_is_on, true);
	return result;
}

static void disable_irqoff(void)
{
	if (!raw_cpu_read(dune_hardware_is_on))
		return;
	raw_cpu_write(dune_hardware_is_on, false);
	dune_ops->disable_irqoff();
}

static void enable_here(void *failed)
{
	const int result = enable_irqoff();

	if (result)
		atomic_cmpxchg((atomic_t *)failed, 0, result);
}

static void disable_here(void *unused)
{
	disable_irqoff();
}

/* -EBUSY: KVM or another hypervisor has a processor. */
int dune_hardware_get(void)
{
	atomic_t failed = ATOMIC_INIT(0);
	int result = 0;

	cpus_read_lock();
	mutex_lock(&hardware_lock);
	if (hardware_is_going) {
		result = -ESHUTDOWN;
	} else if (hardware_users == 0) {
		on_each_cpu(enable_here, &failed, 1);
		result = atomic_read(&failed);
		if (result)
			on_each_cpu(disable_here, NULL, 1);
	}
	if (!result)
		hardware_users++;
	mutex_unlock(&hardware_lock);
	cpus_read_unlock();
	return result;
}

void dune_hardware_put(void)
{
	cpus_read_lock();
	mutex_lock(&hardware_lock);
	if (--hardware_users == 0)
		on_each_cpu(disable_here, NULL, 1);
	mutex_unlock(&hardware_lock);
	cpus_read_unlock();
}

/* A processor comes: before tasks run on it. One that somebody else has cannot join while we run. */
static int cpu_comes(unsigned int cpu)
{
	unsigned long flags;
	int result = 0;

	mutex_lock(&hardware_lock);
	if (hardware_users && !hardware_is_going) {
		local_irq_save(flags);
		result = enable_irqoff();
		local_irq_restore(flags);
	}
	mutex_unlock(&hardware_lock);
	return result;
}

/* One goes: tasks have left it. */
static int cpu_goes(unsigned int cpu)
{
	unsigned long flags;

	local_irq_save(flags);
	disable_irqoff();
	local_irq_restore(flags);
	return 0;
}

/* The last processor, interrupts off, all tasks frozen. The others have gone by hotplug. */
static int suspend(void)
{
	disable_irqoff();
	return 0;
}

static void resume(void)
{
	/* As it was before; if the firmware has taken it away, vCPUs find it off. */
	if (hardware_users)
		WARN_ON_ONCE(enable_irqoff());
}

DUNE_SYSCORE_OPS(dune_syscore, suspend, resume);

/* The firmware or the next kernel finds processors without virtualisation, which INIT would need. */
static int reboot(struct notifier_block *block, unsigned long event, void *unused)
{
	cpus_read_lock();
	mutex_lock(&hardware_lock);
	hardware_is_going = true;
	on_each_cpu(disable_here, NULL, 1);
	mutex_unlock(&hardware_lock);
	cpus_read_unlock();
	return NOTIFY_OK;
}

static struct notifier_block reboot_block = { .notifier_call = reboot };

/* ---------------------------------------------------------------------------------------------
 * The device
 */

/*
 * A structure that begins with its size: at least `least` bytes, what is missing is zero, and what
 * is too much has to be.
 */
int dune_copy_sized(void *to, size_t size, const void __user *from, size_t least)
{
	u32 given;

	if (get_user(given, (const u32 __user *)from))
		return -EFAULT;
	if (given < least || given > PAGE_SIZE)
		return -EINVAL;
	return copy_struct_from_user(to, size, from, given);
}

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "dune",
	.fops = &dune_vm_fops,
	.mode = 0600,
};

/* Faults of processors that make what a guest leaves behind, or finds, matter to others. */
static const struct {
	unsigned int bug;
	const char *name;
} faults[] = {
	{ X86_BUG_L1TF, "L1TF" },
	{ X86_BUG_MDS, "MDS" },
	{ X86_BUG_TAA, "TAA" },
	{ X86_BUG_MMIO_STALE_DATA, "MMIO stale data" },
	{ X86_BUG_RETBLEED, "Retbleed" },
#ifdef X86_BUG_SRSO
	{ X86_BUG_SRSO, "SRSO" },
#endif
#ifdef X86_BUG_RFDS
	{ X86_BUG_RFDS, "RFDS" },
#endif
#ifdef X86_BUG_BHI
	{ X86_BUG_BHI, "BHI" },
#endif
#ifdef X86_BUG_TSA
	{ X86_BUG_TSA, "TSA" },
#endif
};

static int check_faults(void)
{
	unsigned int i;
	int result = 0;

	for (i = 0; i < ARRAY_SIZE(faults); i++) {
		if (!boot_cpu_has_bug(faults[i].bug) || dune_ops->mitigate(faults[i].bug))
			continue;
		pr_warn("dune: this processor is affected by %s, which is not mitigated here%s\n",
			faults[i].name, unsafe_cpu ? "" : " (unsafe_cpu=1 loads it nevertheless)");
		if (!unsafe_cpu)
			result = -EOPNOTSUPP;
	}
	return result;
}

static int __init dune_init(void)
{
	int result;

	if (boot_cpu_data.x86_vendor == X86_VENDOR_AMD || boot_cpu_data.x86_vendor == X86_VENDOR_HYGON)
		dune_ops = &svm_ops;
	else
		dune_ops = &vmx_ops;
	result = check_faults();
	if (result)
		return result;
	result = dune_ops->setup();
	if (result)
		return result;
	dune_table_setup();
	if (dispatch)
		dune_dispatch_setup();
	result = cpuhp_setup_state_nocalls(CPUHP_AP_ONLINE_DYN, "dune:online", cpu_comes, cpu_goes);
	if (result < 0)
		goto out_setup;
	hotplug_state = result;
	dune_register_syscore(&dune_syscore);
	result = register_reboot_notifier(&reboot_block);
	if (result)
		goto out_syscore;
	/* Last: from here on there are users. */
	result = misc_register(&device);
	if (result)
		goto out_reboot;
	pr_info("dune: %s, %u levels, %u bits of guest-physical addresses\n", dune_ops->name,
		dune_table_levels(), dune_gpa_width);
	return 0;

out_reboot:
	unregister_reboot_notifier(&reboot_block);
out_syscore:
	dune_unregister_syscore(&dune_syscore);
	cpuhp_remove_state_nocalls(hotplug_state);
out_setup:
	dune_ops->teardown();
	return result;
}

static void __exit dune_exit(void)
{
	misc_deregister(&device);
	unregister_reboot_notifier(&reboot_block);
	dune_unregister_syscore(&dune_syscore);
	cpuhp_remove_state_nocalls(hotplug_state);
	dune_ops->teardown();
}

module_init(dune_init);
module_exit(dune_exit);
MODULE_DESCRIPTION("Virtual machines whose memory is the process's own");
MODULE_LICENSE("GPL");
