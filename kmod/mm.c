// SPDX-License-Identifier: GPL-2.0-only
/*
 * The second level of page tables: what the processor makes of a guest-physical address.
 *
 * An entry is a copy of what the process's own page tables say of the address that the region
 * shows there, made when the guest needs it and taken away when the MMU notifier says so. The rule
 * that keeps it true: host entries are read, and ours are made of them, under the table's lock and
 * only while no invalidation of that address is in progress. Whoever changes host entries (but for
 * adding rights) begins an invalidation before, which takes the lock.
 *
 * Rights follow from the host's entry as they do for the process itself: writable if the entry is
 * writable and dirty, executable if it is. So a first write goes through the kernel's fault handler,
 * which marks the page, copies it or refuses. No page is pinned, none needs a struct page: PFN
 * mappings are the same as any.
 *
 * An entry that goes leaves traces in the processors' caches. Who takes it away raises the
 * generation and interrupts those that are in the guest, still under the lock; the others see the
 * generation before they enter (dune_vcpu_enter).
 */
#include <linux/io.h>
#include <linux/mmu_notifier.h>
#include <linux/sched/mm.h>
#include <linux/smp.h>

#include <asm/pgtable.h>

#include "compat.h"
#include "cpu_ops.h"
#include "dune.h"

#define ADDRESS_MASK GENMASK_ULL(51, 12)
#define ENTRIES 512U

unsigned long dune_max_table_pages = 16384;
unsigned int dune_gpa_width;

static const struct dune_pte_format *format(void)
{
	return dune_ops->format;
}

unsigned int dune_table_levels(void)
{
	return dune_ops->levels();
}

/* At load, when the processor is known. */
void dune_table_setup(void)
{
	dune_gpa_width =
		min_t(unsigned int, boot_cpu_data.x86_phys_bits, 12 + 9 * dune_table_levels());
}

static u64 entry_span(unsigned int level)
{
	return 1ULL << (12 + 9 * level);
}

static unsigned int entry_index(u64 gpa, unsigned int level)
{
	return gpa >> (12 + 9 * level) & (ENTRIES - 1);
}

static bool is_present(u64 entry)
{
	return entry & format()->present;
}

static bool is_leaf(u64 entry, unsigned int level)
{
	return is_present(entry) && (level == 0 || entry & format()->large);
}

static u64 *table_of(u64 entry)
{
	return __va(__sme_clr(entry & ADDRESS_MASK));
}

/* ---------------------------------------------------------------------------------------------
 * Taking away
 */

/* Pages of tables that no entry leads to; processors may still know them until they are flushed. */
struct detached {
	struct list_head pages;
	bool flush;
};

static void detach_table(struct dune_table *table, u64 *entries, unsigned int level,
			 struct detached *detached)
{
	struct page *page = virt_to_page(entries);
	unsigned int i;

	for (i = 0; level > 0 && i < ENTRIES; i++)
		if (is_present(entries[i]) && !is_leaf(entries[i], level))
			detach_table(table, table_of(entries[i]), level - 1, detached);
	list_add(&page->lru, &detached->pages);
	table->pages--;
}

/* `level` is that of the entries; [start, end) is within what they cover. */
static void zap_locked(struct dune_table *table, u64 *entries, unsigned int level, u64 start,
		       u64 end, struct detached *detached)
{
	const u64 span = entry_span(level);
	u64 at, next;

	for (at = start; at < end; at = next) {
		u64 *slot = &entries[entry_index(at, level)];
		const u64 entry = *slot;

		next = min(ALIGN_DOWN(at, span) + span, end);
		if (!is_present(entry))
			continue;
		if (!is_leaf(entry, level) && next - at < span) {
			zap_locked(table, table_of(entry), level - 1, at, next, detached);
			continue;
		}
		WRITE_ONCE(*slot, 0);
		detached->flush = true;
		if (!is_leaf(entry, level))
			detach_table(table, table_of(entry), level - 1, detached);
	}
}

static void zap_all_locked(struct dune_table *table, struct detached *detached)
{
	const unsigned int level = table->levels - 1;

	zap_locked(table, table->root, level, 0, entry_span(level) * ENTRIES, detached);
}

/* What the process has at [start, end), wherever regions show it. */
static void zap_hva_locked(struct dune_table *table, unsigned long start, unsigned long end,
			   struct detached *detached)
{
	unsigned int i;

	for (i = 0; i < table->region_count; i++) {
		const struct dune_gpa_range *r = &table->regions[i];
		const u64 from = max_t(u64, start, r->hva);
		const u64 to = min_t(u64, end, r->hva + r->length);

		if (from < to)
			zap_locked(table, table->root, table->levels - 1, from - r->hva + r->gpa,
				   to - r->hva + r->gpa, detached);
	}
}

static void detached_init(struct detached *detached)
{
	INIT_LIST_HEAD(&detached->pages);
	detached->flush = false;
}

static void leave_guest(void *unused)
{
	/* To get here the processor has left the guest; it looks at the generation to go back. */
}

/* After it no processor uses anything that was taken away before. Interrupts are on. */
static void flush_running(struct dune_table *table)
{
	/* Pairs with the one of dune_vcpu_enter: it sees the generation, or we see it running. */
	smp_mb();
	preempt_disable();
	smp_call_function_many(table->running, leave_guest, NULL, true);
	preempt_enable();
}

/*
 * Behind what was taken away, and under the same lock: whoever finds an entry gone may rely on no
 * processor using it, so it must not look before that is so. The interrupts that we wait for are
 * taken by processors that wait for the lock, too.
 */
static void flush_locked(struct dune_table *table, const struct detached *detached)
{
	if (!detached->flush)
		return;
	atomic64_inc(&table->generation);
	flush_running(table);
}

static void free_detached(struct detached *detached)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, &detached->pages, lru)
		__free_page(page);
}

/* ---------------------------------------------------------------------------------------------
 * Making entries
 */

/* What the process's tables say of an address. */
struct host_entry {
	u64 flags; /* 0: nothing is there */
	unsigned long pfn;
	unsigned int level;
};

/*
 * Tables are freed behind an interrupt to all processors that use the address space or after a
 * grace period of RCU; with interrupts off neither is over.
 */
static struct host_entry look_up_host(struct mm_struct *mm, unsigned long address)
{
	struct host_entry found = {};
	unsigned long flags;
	pgd_t pgd;
	p4d_t *p4dp, p4d;
	pud_t *pudp, pud;
	pmd_t *pmdp, pmd;
	pte_t pte;

	local_irq_save(flags);
	pgd = READ_ONCE(*pgd_offset(mm, address));
	if (pgd_none(pgd) || !pgd_present(pgd))
		goto out;
	p4dp = p4d_offset(&pgd, address);
	p4d = READ_ONCE(*p4dp);
	if (p4d_none(p4d) || !p4d_present(p4d))
		goto out;
	pudp = pud_offset(&p4d, address);
	pud = READ_ONCE(*pudp);
	if (!(pud_flags(pud) & _PAGE_PRESENT))
		goto out;
	if (pud_flags(pud) & _PAGE_PSE) {
		found.level = 2;
		found.pfn = pud_pfn(pud);
		found.flags = pud_flags(pud);
		goto out;
	}
	pmdp = pmd_offset(&pud, address);
	pmd = READ_ONCE(*pmdp);
	if (!(pmd_flags(pmd) & _PAGE_PRESENT))
		goto out;
	if (pmd_flags(pmd) & _PAGE_PSE) {
		found.level = 1;
		found.pfn = pmd_pfn(pmd);
		found.flags = pmd_flags(pmd);
		goto out;
	}
	pte = READ_ONCE(*pte_offset_kernel(&pmd, address));
	if (!(pte_flags(pte) & _PAGE_PRESENT))
		goto out;
	found.pfn = pte_pfn(pte);
	found.flags = pte_flags(pte);
out:
	local_irq_restore(flags);
	/* A supervisor's page (the vsyscall page is none of the process's tables). */
	if (!(found.flags & _PAGE_USER))
		found.flags = 0;
	return found;
}

static bool permits(const struct host_entry *host, u32 access)
{
	if (!host->flags)
		return false;
	if (access & DUNE_ACCESS_WRITE && (~host->flags & (_PAGE_RW | _PAGE_DIRTY)))
		return false;
	return !(access & DUNE_ACCESS_EXECUTE && host->flags & _PAGE_NX);
}

static u64 make_leaf(const struct host_entry *host, unsigned int level, u64 gpa, u32 access)
{
	const struct dune_pte_format *f = format();
	/* The page itself, if the host's is larger than ours. */
	const u64 within = gpa & (entry_span(host->level) - 1) & ~(entry_span(level) - 1);
	u64 entry = (PFN_PHYS(host->pfn) + within) | f->leaf;

	/* PAT's bit lies elsewhere in large pages. */
	entry |= f->memory_type(host->level ? protval_large_2_4k(host->flags) : host->flags, level);
	if (host->flags & _PAGE_RW && host->flags & _PAGE_DIRTY)
		entry |= f->write;
	entry |= host->flags & _PAGE_NX ? f->no_execute : f->execute;
	if (level) {
		entry |= f->large;
		if (f->split_executable && !(access & DUNE_ACCESS_EXECUTE))
			entry = (entry & ~f->execute) | f->no_execute;
	}
	/* It is used at once; that the processor does not have to write this saves it a walk. */
	return entry | (host->flags & sme_me_mask) | f->accessed;
}

/* The largest page that the host has around it, and that this access may have. */
static unsigned int leaf_level(const struct host_entry *host, u32 access)
{
	/* Regions are aligned to what the largest level needs, and addresses within them agree. */
	BUILD_BUG_ON(DUNE_REGION_ALIGN < 1ULL << 30);
	if (access & DUNE_ACCESS_EXECUTE && format()->split_executable)
		return 0;
	return min(host->level, format()->max_level);
}

static const struct dune_gpa_range *find_region_locked(const struct dune_table *table, u64 gpa)
{
	unsigned int i;

	for (i = 0; i < table->region_count; i++)
		if (gpa - table->regions[i].gpa < table->regions[i].length)
			return &table->regions[i];
	return NULL;
}

static struct dune_private *find_private_locked(const struct dune_table *table, u64 gpa)
{
	struct dune_private *private;

	list_for_each_entry(private, &table->privates, entry)
		if (gpa - private->gpa < (u64)private->count << PAGE_SHIFT)
			return private;
	return NULL;
}

/* As if the process had the page. */
static struct host_entry entry_of_private(const struct dune_private *private, u64 gpa)
{
	struct host_entry entry = {
		.flags = _PAGE_PRESENT | _PAGE_USER | sme_me_mask,
		.pfn = page_to_pfn(private->pages[(gpa - private->gpa) >> PAGE_SHIFT]),
	};

	if (private->writable)
		entry.flags |= _PAGE_RW | _PAGE_DIRTY;
	if (!private->executable)
		entry.flags |= _PAGE_NX;
	return entry;
}

static int top_up(struct dune_vcpu *vcpu)
{
	while (vcpu->spares < vcpu->vm->table.levels - 1) {
		struct page *page = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);

		if (!page)
			return -ENOMEM;
		vcpu->spare[vcpu->spares++] = page;
	}
	return 0;
}

void dune_vcpu_free_spares(struct dune_vcpu *vcpu)
{
	while (vcpu->spares)
		__free_page(vcpu->spare[--vcpu->spares]);
}

static void install_locked(struct dune_vcpu *vcpu, u64 gpa, const struct host_entry *host,
			   unsigned int wanted, u32 access, struct detached *detached)
{
	struct dune_table *table = &vcpu->vm->table;
	unsigned int level = table->levels - 1;
	u64 *entries = table->root;
	u64 *slot, old, new;

	for (;; level--) {
		slot = &entries[entry_index(gpa, level)];
		old = *slot;
		if (level == 0)
			break;
		if (level == wanted && (!is_present(old) || is_leaf(old, level)))
			break;
		/* A large page is in the way of a smaller one, which has more rights. */
		if (is_leaf(old, level)) {
			WRITE_ONCE(*slot, 0);
			detached->flush = true;
			old = 0;
		}
		if (!is_present(old)) {
			struct page *page = vcpu->spare[--vcpu->spares];

			table->pages++;
			old = __sme_set(page_to_phys(page)) | format()->table;
			WRITE_ONCE(*slot, old);
		}
		entries = table_of(old);
	}
	new = make_leaf(host, level, gpa, access);
	/* Another page, or fewer rights, without an invalidation? */
	if (is_present(old) &&
	    ((old ^ new) & ADDRESS_MASK ||
	     (old & ~new & (format()->write | format()->execute)) || new & ~old & format()->no_execute))
		detached->flush = true;
	WRITE_ONCE(*slot, new);
}

/* Has the kernel do for the process what a page fault of its own would do. */
static int fault_in(struct mm_struct *mm, unsigned long address, u32 access)
{
	const vm_flags_t needed = access & DUNE_ACCESS_WRITE ? VM_WRITE :
				  access & DUNE_ACCESS_EXECUTE ? VM_EXEC : VM_READ | VM_EXEC | VM_WRITE;
	unsigned int flags = FAULT_FLAG_DEFAULT | FAULT_FLAG_USER;
	struct vm_area_struct *vma;
	vm_fault_t result;

	if (access & DUNE_ACCESS_WRITE)
		flags |= FAULT_FLAG_WRITE;
	if (access & DUNE_ACCESS_EXECUTE)
		flags |= FAULT_FLAG_INSTRUCTION;
	if (mmap_read_lock_killable(mm))
		return -EAGAIN;
	vma = vma_lookup(mm, address);
	/* What is written to a shadow stack the handler below would take for one of CALL's writes. */
	if (!vma || !(vma->vm_flags & needed) ||
	    (access & DUNE_ACCESS_WRITE && dune_vma_is_shadow_stack(vma))) {
		mmap_read_unlock(mm);
		return -EFAULT;
	}
	result = handle_mm_fault(vma, address, flags, NULL);
	/* In these cases the lock has been released. */
	if (result & VM_FAULT_COMPLETED)
		return 0;
	if (!(result & VM_FAULT_ERROR) && result & VM_FAULT_RETRY)
		return -EAGAIN;
	mmap_read_unlock(mm);
	if (result & VM_FAULT_OOM) {
		dune_end_memcg_oom();
		return -ENOMEM;
	}
	if (result & (VM_FAULT_HWPOISON | VM_FAULT_HWPOISON_LARGE))
		return -EHWPOISON;
	return result & VM_FAULT_ERROR ? -EFAULT : 0;
}

/*
 * The guest has used `gpa` and the second level did not let it. 0: it may try again; -EAGAIN: too,
 * but something else should be looked at before (signals); -ENOENT: no region has it; -EFAULT,
 * -ENOMEM, -EHWPOISON: what the process would get. Runs in the address space's own context.
 */
int dune_table_fault(struct dune_vcpu *vcpu, u64 gpa, u32 access, u64 *hva)
{
	struct mm_struct *mm = vcpu->vm->mm;
	struct dune_table *table = &vcpu->vm->table;
	bool faulted_in = false;
	int result;

	*hva = ~0ULL;
	for (;;) {
		const struct dune_private *private = NULL;
		const struct dune_gpa_range *range;
		struct host_entry host;
		struct detached detached;

		result = top_up(vcpu);
		if (result)
			return result;
		detached_init(&detached);
		result = 0;
		spin_lock(&table->lock);
		range = find_region_locked(table, gpa);
		if (!range)
			private = find_private_locked(table, gpa);
		if (table->dead || (!range && !private)) {
			spin_unlock(&table->lock);
			return -ENOENT;
		}
		if (private) {
			host = entry_of_private(private, gpa);
		} else {
			*hva = gpa - range->gpa + range->hva;
			if (table->invalidations && *hva >= table->invalid_start &&
			    *hva < table->invalid_end) {
				spin_unlock(&table->lock);
				return -EAGAIN;
			}
			host = look_up_host(mm, *hva);
		}
		if (permits(&host, access)) {
			/* Bounded: beyond it all is forgotten, and what is used comes back. */
			if (table->pages + table->levels > dune_max_table_pages)
				zap_all_locked(table, &detached);
			install_locked(vcpu, gpa, &host, leaf_level(&host, access), access,
				       &detached);
			flush_locked(table, &detached);
			spin_unlock(&table->lock);
			free_detached(&detached);
			return 0;
		}
		spin_unlock(&table->lock);
		if (private)
			return -EFAULT;
		/* An executable mapping's page that is there and not executable will not become so. */
		if (faulted_in && host.flags && access & DUNE_ACCESS_EXECUTE && host.flags & _PAGE_NX)
			return -EFAULT;
		/* Taken away again meanwhile: whoever does that may want something of us. */
		if (faulted_in)
			return -EAGAIN;
		result = fault_in(mm, *hva, access);
		if (result)
			return result;
		faulted_in = true;
	}
}

/* ---------------------------------------------------------------------------------------------
 * Regions
 */

static bool overlap(u64 a, u64 b, u64 a_length, u64 b_length)
{
	return a < b + b_length && b < a + a_length;
}

int dune_table_add_region(struct dune_table *table, const struct dune_gpa_range *range)
{
	const u64 gpa_end = 1ULL << dune_gpa_width;
	const struct dune_private *private;
	unsigned int i;
	int result = 0;

	if (!range->length || !IS_ALIGNED(range->gpa | range->hva | range->length, DUNE_REGION_ALIGN))
		return -EINVAL;
	if (range->gpa >= gpa_end || range->length > gpa_end - range->gpa)
		return -EINVAL;
	/* Up to the next gigabyte: the last one of user space is not whole. */
	if (range->hva >= TASK_SIZE_MAX ||
	    range->length > round_up(TASK_SIZE_MAX, DUNE_REGION_ALIGN) - range->hva)
		return -EINVAL;

	spin_lock(&table->lock);
	for (i = 0; i < table->region_count; i++) {
		const struct dune_gpa_range *r = &table->regions[i];

		if (overlap(r->gpa, range->gpa, r->length, range->length) ||
		    overlap(r->hva, range->hva, r->length, range->length))
			result = -EEXIST;
	}
	list_for_each_entry(private, &table->privates, entry)
		if (overlap(private->gpa, range->gpa, (u64)private->count << PAGE_SHIFT, range->length))
			result = -EEXIST;
	if (!result && table->region_count == DUNE_MAX_REGIONS)
		result = -ENOSPC;
	if (!result)
		table->regions[table->region_count++] = *range;
	spin_unlock(&table->lock);
	return result;
}

int dune_table_remove_region(struct dune_table *table, const struct dune_gpa_range *range)
{
	struct detached detached;
	unsigned int i;
	int result = -ENOENT;

	detached_init(&detached);
	spin_lock(&table->lock);
	for (i = 0; i < table->region_count; i++) {
		struct dune_gpa_range *r = &table->regions[i];

		if (r->gpa != range->gpa || r->hva != range->hva || r->length != range->length)
			continue;
		zap_locked(table, table->root, table->levels - 1, r->gpa, r->gpa + r->length, &detached);
		*r = table->regions[--table->region_count];
		result = 0;
		break;
	}
	flush_locked(table, &detached);
	spin_unlock(&table->lock);
	free_detached(&detached);
	return result;
}

int dune_table_add_private(struct dune_table *table, struct dune_private *private)
{
	const u64 length = (u64)private->count << PAGE_SHIFT;
	const struct dune_private *other;
	unsigned int i;
	int result = 0;

	spin_lock(&table->lock);
	for (i = 0; i < table->region_count; i++)
		if (overlap(table->regions[i].gpa, private->gpa, table->regions[i].length, length))
			result = -EEXIST;
	list_for_each_entry(other, &table->privates, entry)
		if (overlap(other->gpa, private->gpa, (u64)other->count << PAGE_SHIFT, length))
			result = -EEXIST;
	if (!result && (table->private_count == DUNE_MAX_PRIVATES ||
			table->private_pages + private->count > READ_ONCE(dune_max_private_pages)))
		result = -ENOSPC;
	if (!result) {
		list_add(&private->entry, &table->privates);
		table->private_count++;
		table->private_pages += private->count;
	}
	spin_unlock(&table->lock);
	return result;
}

/* Nobody's any more: no entry leads to its pages, and no processor knows one. NULL: there is none. */
struct dune_private *dune_table_remove_private(struct dune_table *table, u64 gpa, unsigned long count)
{
	struct dune_private *private;
	struct detached detached;

	detached_init(&detached);
	spin_lock(&table->lock);
	private = find_private_locked(table, gpa);
	if (private && (private->gpa != gpa || private->count != count))
		private = NULL;
	if (private) {
		list_del(&private->entry);
		table->private_count--;
		table->private_pages -= count;
		zap_locked(table, table->root, table->levels - 1, gpa, gpa + ((u64)count << PAGE_SHIFT),
			   &detached);
		flush_locked(table, &detached);
	}
	spin_unlock(&table->lock);
	free_detached(&detached);
	return private;
}

void dune_table_forget(struct dune_table *table)
{
	atomic64_inc(&table->generation);
	flush_running(table);
}

int dune_table_init(struct dune_table *table)
{
	spin_lock_init(&table->lock);
	INIT_LIST_HEAD(&table->privates);
	atomic64_set(&table->generation, 1);
	table->levels = dune_table_levels();
	if (!zalloc_cpumask_var(&table->running, GFP_KERNEL))
		return -ENOMEM;
	table->root = (u64 *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!table->root) {
		free_cpumask_var(table->running);
		return -ENOMEM;
	}
	return 0;
}

/* Nobody runs any more, and the notifier is gone. */
void dune_table_destroy(struct dune_table *table)
{
	struct detached detached;

	detached_init(&detached);
	zap_all_locked(table, &detached);
	free_detached(&detached);
	WARN_ON_ONCE(table->pages);
	dune_private_free_all(table);
	free_page((unsigned long)table->root);
	free_cpumask_var(table->running);
}

/* ---------------------------------------------------------------------------------------------
 * The MMU notifier
 */

static struct dune_table *table_of_notifier(struct mmu_notifier *notifier)
{
	return &container_of(notifier, struct dune_vm, notifier)->table;
}

static int invalidate_start(struct mmu_notifier *notifier, const struct mmu_notifier_range *range)
{
	struct dune_table *table = table_of_notifier(notifier);
	struct detached detached;

	detached_init(&detached);
	spin_lock(&table->lock);
	if (table->invalidations++ == 0) {
		table->invalid_start = range->start;
		table->invalid_end = range->end;
	} else {
		table->invalid_start = min(table->invalid_start, range->start);
		table->invalid_end = max(table->invalid_end, range->end);
	}
	zap_hva_locked(table, range->start, range->end, &detached);
	flush_locked(table, &detached);
	spin_unlock(&table->lock);
	free_detached(&detached);
	return 0;
}

static void invalidate_end(struct mmu_notifier *notifier, const struct mmu_notifier_range *range)
{
	struct dune_table *table = table_of_notifier(notifier);

	spin_lock(&table->lock);
	WARN_ON_ONCE(!table->invalidations--);
	spin_unlock(&table->lock);
}

static void address_space_ends(struct mmu_notifier *notifier, struct mm_struct *mm)
{
	struct dune_table *table = table_of_notifier(notifier);
	struct detached detached;

	detached_init(&detached);
	spin_lock(&table->lock);
	table->dead = true;
	zap_all_locked(table, &detached);
	flush_locked(table, &detached);
	spin_unlock(&table->lock);
	free_detached(&detached);
}

static bool age_locked(u64 *entries, unsigned int level, u64 start, u64 end, bool clear)
{
	const u64 span = entry_span(level);
	bool young = false;
	u64 at, next;

	for (at = start; at < end; at = next) {
		u64 *slot = &entries[entry_index(at, level)];
		const u64 entry = READ_ONCE(*slot);

		next = min(ALIGN_DOWN(at, span) + span, end);
		if (!is_present(entry))
			continue;
		if (!is_leaf(entry, level)) {
			young |= age_locked(table_of(entry), level - 1, at, next, clear);
			continue;
		}
		if (!(entry & format()->accessed))
			continue;
		young = true;
		/* The processor writes to it, too. */
		if (clear)
			clear_bit(__ffs64(format()->accessed), (unsigned long *)slot);
	}
	return young;
}

/* Without a flush: that a processor which knows the page marks it late does not matter. */
static int age(struct mmu_notifier *notifier, unsigned long start, unsigned long end, bool clear)
{
	struct dune_table *table = table_of_notifier(notifier);
	bool young = false;
	unsigned int i;

	spin_lock(&table->lock);
	for (i = 0; i < table->region_count; i++) {
		const struct dune_gpa_range *r = &table->regions[i];
		const u64 from = max_t(u64, start, r->hva);
		const u64 to = min_t(u64, end, r->hva + r->length);

		if (from < to)
			young |= age_locked(table->root, table->levels - 1, from - r->hva + r->gpa,
					    to - r->hva + r->gpa, clear);
	}
	spin_unlock(&table->lock);
	return young;
}

static int clear_young(struct mmu_notifier *notifier, struct mm_struct *mm, unsigned long start,
		       unsigned long end)
{
	return age(notifier, start, end, true);
}

static int test_young(struct mmu_notifier *notifier, struct mm_struct *mm, unsigned long address)
{
	return age(notifier, address, address + 1, false);
}

static const struct mmu_notifier_ops notifier_ops = {
	.release = address_space_ends,
	.invalidate_range_start = invalidate_start,
	.invalidate_range_end = invalidate_end,
	.clear_flush_young = clear_young,
	.clear_young = clear_young,
	.test_young = test_young,
};

int dune_notifier_register(struct dune_vm *vm)
{
	int result;

	vm->notifier.ops = &notifier_ops;
	result = mmu_notifier_register(&vm->notifier, vm->mm);
	/* A signal came while it took its locks: the open begins anew. */
	return result == -EINTR ? -ERESTARTNOINTR : result;
}
