/* SPDX-License-Identifier: GPL-2.0-only */
/* VMX's instructions. Each says by its flags whether it has worked; only what may fail returns that. */
#ifndef DUNE_VMX_INSTRUCTIONS_H
#define DUNE_VMX_INSTRUCTIONS_H

#include <linux/bug.h>
#include <linux/io.h>
#include <linux/types.h>

static inline void vmcs_write(u32 field, u64 value)
{
	bool failed;

	asm volatile("vmwrite %2, %1" : "=@ccna"(failed) : "r"((u64)field), "r"(value) : "cc");
	WARN_ONCE(failed, "dune: vmwrite of field %x", field);
}

/* `last` is what the field has: it stays there from entry to entry. */
static inline void vmcs_update(u32 field, u64 value, u64 *last)
{
	if (value == *last)
		return;
	*last = value;
	vmcs_write(field, value);
}

static inline u64 vmcs_read(u32 field)
{
	bool failed;
	u64 value;

	asm volatile("vmread %2, %1" : "=@ccna"(failed), "=r"(value) : "r"((u64)field) : "cc");
	return WARN_ONCE(failed, "dune: vmread of field %x", field) ? 0 : value;
}

static inline bool vmcs_clear(struct page *vmcs)
{
	const u64 address = page_to_phys(vmcs);
	bool failed;

	asm volatile("vmclear %1" : "=@ccna"(failed) : "m"(address) : "cc", "memory");
	return !failed;
}

static inline bool vmcs_load(struct page *vmcs)
{
	const u64 address = page_to_phys(vmcs);
	bool failed;

	asm volatile("vmptrld %1" : "=@ccna"(failed) : "m"(address) : "cc", "memory");
	return !failed;
}

static inline void invept(u64 extent, u64 eptp)
{
	const struct {
		u64 eptp, zero;
	} what = { eptp, 0 };
	bool failed;

	asm volatile("invept %1, %2" : "=@ccna"(failed) : "m"(what), "r"(extent) : "cc", "memory");
	WARN_ON_ONCE(failed);
}

static inline void invvpid(u64 extent, u16 vpid)
{
	const struct {
		u64 vpid, address;
	} what = { vpid, 0 };
	bool failed;

	asm volatile("invvpid %1, %2" : "=@ccna"(failed) : "m"(what), "r"(extent) : "cc", "memory");
	WARN_ON_ONCE(failed);
}

#endif
