// SPDX-License-Identifier: GPL-2.0-only
/* A descriptor of /dev/dune: the VM of the address space that opened it. */
#include <linux/fs.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "cpu_ops.h"
#include "dune.h"

static int dune_vm_open(struct inode *inode, struct file *file)
{
	struct dune_vm *vm;
	int result;

	if (!current->mm)
		return -EINVAL;
	vm = kzalloc(sizeof(*vm), GFP_KERNEL_ACCOUNT);
	if (!vm)
		return -ENOMEM;
	kref_init(&vm->refs);
	mutex_init(&vm->lock);
	result = dune_table_init(&vm->table);
	if (result)
		goto out_vm;
	vm->mm = current->mm;
	mmgrab(vm->mm);
	result = dune_notifier_register(vm);
	if (result)
		goto out_mm;
	file->private_data = vm;
	return 0;

out_mm:
	mmdrop(vm->mm);
	dune_table_destroy(&vm->table);
out_vm:
	kfree(vm);
	return result;
}

static void dune_vm_free(struct kref *refs)
{
	struct dune_vm *vm = container_of(refs, struct dune_vm, refs);

	mmu_notifier_unregister(&vm->notifier, vm->mm);
	mmdrop(vm->mm);
	dune_table_destroy(&vm->table);
	kfree(vm);
}

void dune_vm_put(struct dune_vm *vm)
{
	kref_put(&vm->refs, dune_vm_free);
}

static int dune_vm_release(struct inode *inode, struct file *file)
{
	dune_vm_put(file->private_data);
	return 0;
}

static long get_info(void __user *argument)
{
	struct dune_info info = {
		.version = DUNE_ABI_VERSION,
		.capabilities = DUNE_CAP_DEBUG_REGISTERS | DUNE_CAP_PRIVATE_PAGES |
				(dune_dispatch_is_on() ? DUNE_CAP_DISPATCH : 0),
		.gpa_bits = dune_gpa_width,
		.max_regions = DUNE_MAX_REGIONS,
		.run_size = PAGE_SIZE,
		.max_vcpus = DUNE_MAX_VCPUS,
		.cr4_allowed = dune_cr4_allowed(),
		.max_private_pages = dune_max_private_pages,
	};
	u32 size;

	if (get_user(size, (u32 __user *)argument))
		return -EFAULT;
	if (size < offsetofend(struct dune_info, version))
		return -EINVAL;
	info.size = min_t(u32, size, sizeof(info));
	if (copy_to_user(argument, &info, info.size))
		return -EFAULT;
	return 0;
}

static long set_region(struct dune_vm *vm, const void __user *argument)
{
	struct dune_region region;
	struct dune_gpa_range range;
	int result;

	result = dune_copy_sized(&region, sizeof(region), argument,
				 offsetofend(struct dune_region, length));
	if (result)
		return result;
	if (region.flags & ~DUNE_REGION_REMOVE || memchr_inv(region.reserved, 0, sizeof(region.reserved)))
		return -EINVAL;
	range = (struct dune_gpa_range){ region.gpa, region.hva, region.length };
	mutex_lock(&vm->lock);
	if (region.flags & DUNE_REGION_REMOVE)
		result = dune_table_remove_region(&vm->table, &range);
	else
		result = dune_table_add_region(&vm->table, &range);
	mutex_unlock(&vm->lock);
	return result;
}

static long set_private(struct dune_vm *vm, const void __user *argument)
{
	struct dune_private_range range;
	int result;

	result = dune_copy_sized(&range, sizeof(range), argument,
				 offsetofend(struct dune_private_range, content));
	if (result)
		return result;
	if (range.flags & ~(DUNE_PRIVATE_WRITE | DUNE_PRIVATE_EXECUTE | DUNE_PRIVATE_REMOVE) ||
	    memchr_inv(range.reserved, 0, sizeof(range.reserved)))
		return -EINVAL;
	return dune_private_set(&vm->table, &range);
}

static long create_vcpu(struct dune_vm *vm, const void __user *argument)
{
	struct dune_create_vcpu create;
	int result;

	result = dune_copy_sized(&create, sizeof(create), argument,
				 offsetofend(struct dune_create_vcpu, flags));
	if (result)
		return result;
	if (create.flags || memchr_inv(create.reserved, 0, sizeof(create.reserved)))
		return -EINVAL;
	return dune_vcpu_create(vm);
}

static long dune_vm_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct dune_vm *vm = file->private_data;
	void __user *user = (void __user *)argument;

	if (vm->mm != current->mm)
		return -EXDEV;
	switch (command) {
	case DUNE_GET_INFO:
		return get_info(user);
	case DUNE_SET_REGION:
		return set_region(vm, user);
	case DUNE_FORGET:
		if (argument)
			return -EINVAL;
		dune_table_forget(&vm->table);
		return 0;
	case DUNE_CREATE_VCPU:
		return create_vcpu(vm, user);
	case DUNE_SET_PRIVATE:
		return set_private(vm, user);
	}
	return -ENOTTY;
}

const struct file_operations dune_vm_fops = {
	.owner = THIS_MODULE,
	.open = dune_vm_open,
	.release = dune_vm_release,
	.unlocked_ioctl = dune_vm_ioctl,
	.llseek = noop_llseek,
};
