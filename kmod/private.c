// SPDX-License-Identifier: GPL-2.0-only
/*
 * Private pages: memory that only the guest has. They are the VM's own, charged to who makes them,
 * bounded, and lie where no region is; no mapping, system call or other process reaches them, and in
 * the guest only who has them in its tables. The second level shows them like the process's (mm.c).
 */
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "dune.h"

unsigned long dune_max_private_pages = 4096;

static void free_private(struct dune_private *private)
{
	unsigned long i;

	for (i = 0; i < private->count && private->pages[i]; i++)
		__free_page(private->pages[i]);
	kvfree(private);
}

void dune_private_free_all(struct dune_table *table)
{
	struct dune_private *private, *next;

	list_for_each_entry_safe(private, next, &table->privates, entry)
		free_private(private);
}

static int fill(struct dune_private *private, const u8 __user *content)
{
	unsigned long i;

	for (i = 0; i < private->count; i++) {
		/* Whoever asks for too much is told so: that kills nobody. */
		private->pages[i] =
			alloc_page(GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_ZERO);
		if (!private->pages[i])
			return -ENOMEM;
		if (content && copy_from_user(page_address(private->pages[i]),
					      content + i * PAGE_SIZE, PAGE_SIZE))
			return -EFAULT;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

static int make_private(struct dune_table *table, const struct dune_private_range *range)
{
	const unsigned long count = range->length >> PAGE_SHIFT;
	struct dune_private *private;
	int result;

	if (count > READ_ONCE(dune_max_private_pages))
		return -ENOSPC;
	private = kvzalloc(struct_size(private, pages, count),
			   GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL);
	if (!private)
		return -ENOMEM;
	private->gpa = range->gpa;
	private->count = count;
	private->writable = range->flags & DUNE_PRIVATE_WRITE;
	private->executable = range->flags & DUNE_PRIVATE_EXECUTE;
	result = fill(private, (const u8 __user *)range->content);
	if (!result)
		result = dune_table_add_private(table, private);
	if (result)
		free_private(private);
	return result;
}

int dune_private_set(struct dune_table *table, const struct dune_private_range *range)
{
	const u64 gpa_end = 1ULL << dune_gpa_width;
	struct dune_private *private;

	if (!range->length || !IS_ALIGNED(range->gpa | range->length, PAGE_SIZE))
		return -EINVAL;
	if (range->gpa >= gpa_end || range->length > gpa_end - range->gpa)
		return -EINVAL;
	if (!(range->flags & DUNE_PRIVATE_REMOVE))
		return make_private(table, range);
	if (range->flags != DUNE_PRIVATE_REMOVE || range->content)
		return -EINVAL;
	private = dune_table_remove_private(table, range->gpa, range->length >> PAGE_SHIFT);
	if (!private)
		return -ENOENT;
	free_private(private);
	return 0;
}
