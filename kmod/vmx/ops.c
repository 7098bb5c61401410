// SPDX-License-Identifier: GPL-2.0-only
/*
 * Intel VMX with EPT and VPID ("Virtual Machine Extensions" in volume 3 of the Intel SDM). It is long
 * because what one half writes to a VMCS only the other explains.
 *
 * A VMCS stays loaded on the processor where its vCPU has run last, for the processor may keep some
 * of it, until the vCPU runs on another one or goes, or that processor's VMX is switched off: it is
 * cleared there, by that processor, interrupts off.
 *
 * What the guest may do by itself: change CR2, CR3 and its descriptor tables, INVLPG, RDTSC, FS, GS
 * and KERNEL_GS bases. CPUID is answered with the processor's own, and a read of a debug register
 * with the guest's. Everything else comes out, by the controls below or in any case, and gets the
 * exception of an instruction that may not be executed.
 */
#include <linux/hw_breakpoint.h>
#include <linux/idr.h>
#include <linux/io.h>
#include <linux/slab.h>

#include <asm/cpufeature.h>
#include <asm/debugreg.h>
#include <asm/desc.h>
#include <asm/intel_pt.h>
#include <asm/mmu_context.h>
#include <asm/msr.h>
#include <asm/tlbflush.h>
#include <asm/trapnr.h>
#include <asm/vmx.h>

#include "../compat.h"
#include "../cpu_ops.h"
#include "../regs_offsets.h"
#include "instructions.h"

#define GUEST_CR0_BITS                                                                             \
	(X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM | X86_CR0_PG)
#define GUEST_EFER_BITS (EFER_SCE | EFER_LME | EFER_LMA | EFER_NX)
#define ACCESS_CODE64 0xa09b /* present, L, G; DPL apart */
#define ACCESS_DATA 0xc093 /* present, B, G */
#define ACCESS_TASK 0x8b /* busy */
#define ACCESS_UNUSABLE 0x10000
#define ACCESS_DPL_SHIFT 5
#define BASIC_TRUE_CONTROLS BIT_ULL(55)
#define BASIC_32_BIT_PHYSICAL BIT_ULL(48)
#define CAP_VPID_SHIFT 32
/* Ends an entry after some milliseconds at most, should an interrupt not do it. */
#define PREEMPTION_TICKS (1U << 18)

#define PIN_NEEDED (PIN_BASED_EXT_INTR_MASK | PIN_BASED_NMI_EXITING)
#define PIN_WANTED PIN_BASED_VMX_PREEMPTION_TIMER
#define CPU_NEEDED                                                                                 \
	(CPU_BASED_HLT_EXITING | CPU_BASED_MWAIT_EXITING | CPU_BASED_RDPMC_EXITING |               \
	 CPU_BASED_CR8_LOAD_EXITING | CPU_BASED_CR8_STORE_EXITING | CPU_BASED_MOV_DR_EXITING |     \
	 CPU_BASED_UNCOND_IO_EXITING | CPU_BASED_USE_MSR_BITMAPS | CPU_BASED_MONITOR_EXITING |     \
	 CPU_BASED_ACTIVATE_SECONDARY_CONTROLS)
#define SECOND_NEEDED (SECONDARY_EXEC_ENABLE_EPT | SECONDARY_EXEC_ENABLE_VPID | SECONDARY_EXEC_WBINVD_EXITING)
#define SECOND_WANTED                                                                              \
	(SECONDARY_EXEC_ENABLE_RDTSCP | SECONDARY_EXEC_ENABLE_INVPCID | SECONDARY_EXEC_ENCLS_EXITING)
#define EXIT_NEEDED                                                                                \
	(VM_EXIT_HOST_ADDR_SPACE_SIZE | VM_EXIT_SAVE_DEBUG_CONTROLS | VM_EXIT_LOAD_IA32_EFER)
#define ENTRY_NEEDED (VM_ENTRY_IA32E_MODE | VM_ENTRY_LOAD_DEBUG_CONTROLS | VM_ENTRY_LOAD_IA32_EFER)

struct vmx_vcpu {
	struct dune_vcpu vcpu;
	struct page *vmcs;
	int vpid;
	/* Changed on the processor where it is loaded, or by who runs it if that is none. */
	int loaded_on; /* -1: it is clear */
	bool launched;
	struct list_head loaded; /* vmx_cpu.loaded */
	struct vmx_cpu *constants; /* of which processor they are in there; NULL: nothing is */
	unsigned int constants_enabled; /* and since when */
	struct {
		bool has_selectors; /* any of those of data */
		u16 ds, es, fs, gs;
		u64 fs_base, kernel_gs_base;
	} thread; /* what the host's thread has while it is in this run */
	/* What is in the VMCS. */
	u64 last_rip, last_rflags;
	u64 host_cr3, host_cr4, host_fs_base;
	u64 guest_cr3, guest_fs_base, guest_gs_base;
	bool has_event;
	u64 flushed; /* the table's generation when nothing was cached of it */
};

/* Of a processor. */
struct vmx_cpu {
	struct page *vmxon;
	struct vmx_vcpu *current_vmcs;
	struct list_head loaded; /* what may be active here; interrupts are off for it */
	unsigned int enabled; /* how often */
	/* What stays as it is while virtualisation is on. */
	u64 cr0, efer, star, lstar, sfmask, sysenter_cs, sysenter_esp, sysenter_eip, gs_base, task_base;
	u64 idt_base;
	struct desc_ptr gdt;
};

static struct {
	u32 revision;
	u32 pin, cpu, second, exit, entry;
	u64 ept_vpid;
} config;

static DEFINE_PER_CPU(struct vmx_cpu, vmx_cpus);
static DEFINE_IDA(vpids);
static struct page *msr_bitmap;

bool vmx_enter(struct dune_regs *regs, bool launched);
static_assert(HOST_RSP == 0x6c14 && HOST_RIP == 0x6c16);

/* ---------------------------------------------------------------------------------------------
 * The second level
 */

static u64 vmx_memory_type(u64 host, unsigned int level)
{
	/* By the host's PAT as Linux sets it: write-back, write-combining, and what is uncached. */
	const u64 type = host & (_PAGE_PWT | _PAGE_PCD) ? (host & _PAGE_PCD ? 0 : 1) : 6;

	return type << VMX_EPT_MT_EPTE_SHIFT | VMX_EPT_IPAT_BIT;
}

static struct dune_pte_format vmx_format = {
	.table = VMX_EPT_RWX_MASK | VMX_EPT_ACCESS_BIT,
	.present = VMX_EPT_RWX_MASK,
	.leaf = VMX_EPT_READABLE_MASK | VMX_EPT_DIRTY_BIT,
	.write = VMX_EPT_WRITABLE_MASK,
	.execute = VMX_EPT_EXECUTABLE_MASK,
	.large = BIT_ULL(7),
	.max_level = 0,
	.memory_type = vmx_memory_type,
};

static unsigned int vmx_levels(void)
{
	return pgtable_l5_enabled() && config.ept_vpid & VMX_EPT_PAGE_WALK_5_BIT ? 5 : 4;
}

static u64 eptp_of(const struct dune_vm *vm)
{
	u64 eptp = __pa(vm->table.root) | VMX_EPTP_MT_WB;

	eptp |= vm->table.levels == 5 ? VMX_EPTP_PWL_5 : VMX_EPTP_PWL_4;
	if (config.ept_vpid & VMX_EPT_AD_BIT)
		eptp |= VMX_EPTP_AD_ENABLE_BIT;
	return eptp;
}

/* ---------------------------------------------------------------------------------------------
 * On and off
 */

static u64 base_of_task(void)
{
	struct ldttss_desc *descriptor;
	struct desc_ptr gdt;
	u16 selector;

	native_store_gdt(&gdt);
	asm("str %0" : "=r"(selector));
	descriptor = (struct ldttss_desc *)(gdt.address + (selector & ~7));
	return descriptor->base0 | (u64)descriptor->base1 << 16 | (u64)descriptor->base2 << 24 |
	       (u64)descriptor->base3 << 32;
}

static int vmx_enable_irqoff(void)
{
	struct vmx_cpu *cpu = this_cpu_ptr(&vmx_cpus);
	const u64 address = page_to_phys(cpu->vmxon);
	struct desc_ptr idt;

	if (cr4_read_shadow() & X86_CR4_VMXE)
		return -EBUSY;
	*(u32 *)page_address(cpu->vmxon) = config.revision;
	intel_pt_handle_vmx(1);
	cr4_set_bits_irqsoff(X86_CR4_VMXE);
	/* It refuses, or raises #GP, if a hypervisor below has it. */
	asm goto("1: vmxon %0\n"
		 "jna %l[refused]\n" _ASM_EXTABLE(1b, %l[refused])
		 : : "m"(address) : "cc", "memory" : refused);
	invept(VMX_EPT_EXTENT_GLOBAL, 0);
	invvpid(VMX_VPID_EXTENT_ALL_CONTEXT, 0);

	cpu->cr0 = read_cr0();
	cpu->gdt = (struct desc_ptr){ GDT_SIZE - 1, (unsigned long)get_current_gdt_ro() };
	store_idt(&idt);
	cpu->idt_base = idt.address;
	rdmsrl(MSR_EFER, cpu->efer);
	rdmsrl(MSR_STAR, cpu->star);
	rdmsrl(MSR_LSTAR, cpu->lstar);
	rdmsrl(MSR_SYSCALL_MASK, cpu->sfmask);
	rdmsrl(MSR_IA32_SYSENTER_CS, cpu->sysenter_cs);
	rdmsrl(MSR_IA32_SYSENTER_ESP, cpu->sysenter_esp);
	rdmsrl(MSR_IA32_SYSENTER_EIP, cpu->sysenter_eip);
	rdmsrl(MSR_GS_BASE, cpu->gs_base);
	cpu->task_base = base_of_task();
	cpu->enabled++;
	return 0;

refused:
	cr4_clear_bits_irqsoff(X86_CR4_VMXE);
	intel_pt_handle_vmx(0);
	return -EBUSY;
}

static void clear_irqoff(struct vmx_vcpu *vmx, struct vmx_cpu *cpu)
{
	WARN_ON_ONCE(!vmcs_clear(vmx->vmcs));
	list_del(&vmx->loaded);
	vmx->loaded_on = -1;
	if (cpu->current_vmcs == vmx)
		cpu->current_vmcs = NULL;
}

static void clear_here(void *vmx)
{
	if (((struct vmx_vcpu *)vmx)->loaded_on == smp_processor_id())
		clear_irqoff(vmx, this_cpu_ptr(&vmx_cpus));
}

/* Interrupts are on. A processor that has gone meanwhile has cleared what it had. */
static void vmx_leave_cpu(struct dune_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = container_of(vcpu, struct vmx_vcpu, vcpu);
	const int cpu = READ_ONCE(vmx->loaded_on);

	if (cpu >= 0)
		smp_call_function_single(cpu, clear_here, vmx, true);
}

static void vmx_disable_irqoff(void)
{
	struct vmx_cpu *cpu = this_cpu_ptr(&vmx_cpus);
	struct vmx_vcpu *vmx, *next;

	list_for_each_entry_safe(vmx, next, &cpu->loaded, loaded)
		clear_irqoff(vmx, cpu);
	asm volatile("vmxoff" : : : "cc", "memory");
	cr4_clear_bits_irqsoff(X86_CR4_VMXE);
	intel_pt_handle_vmx(0);
}

/* What the processor allows of controls: those that must be set, with those that are wanted. */
static bool choose(u32 msr, u32 true_msr, bool has_true, u32 needed, u32 wanted, u32 *chosen)
{
	u32 must, may;

	rdmsr(has_true ? true_msr : msr, must, may);
	*chosen = must | needed | (wanted & may);
	return (needed & ~may) == 0;
}

static void vmx_teardown(void)
{
	int cpu;

	for_each_possible_cpu(cpu) {
		struct vmx_cpu *c = per_cpu_ptr(&vmx_cpus, cpu);

		if (c->vmxon)
			__free_page(c->vmxon);
		c->vmxon = NULL;
	}
	if (msr_bitmap)
		__free_page(msr_bitmap);
	msr_bitmap = NULL;
	ida_destroy(&vpids);
}

static bool choose_controls(void)
{
	u64 basic, second;
	u32 must, may;
	bool has_true;

	rdmsrl(MSR_IA32_VMX_BASIC, basic);
	config.revision = basic & 0x7fffffff;
	has_true = basic & BASIC_TRUE_CONTROLS;
	if (basic & BASIC_32_BIT_PHYSICAL)
		return false;
	if (!choose(MSR_IA32_VMX_PINBASED_CTLS, MSR_IA32_VMX_TRUE_PINBASED_CTLS, has_true, PIN_NEEDED,
		    PIN_WANTED, &config.pin) ||
	    !choose(MSR_IA32_VMX_PROCBASED_CTLS, MSR_IA32_VMX_TRUE_PROCBASED_CTLS, has_true, CPU_NEEDED,
		    0, &config.cpu) ||
	    !choose(MSR_IA32_VMX_EXIT_CTLS, MSR_IA32_VMX_TRUE_EXIT_CTLS, has_true, EXIT_NEEDED, 0,
		    &config.exit) ||
	    !choose(MSR_IA32_VMX_ENTRY_CTLS, MSR_IA32_VMX_TRUE_ENTRY_CTLS, has_true, ENTRY_NEEDED, 0,
		    &config.entry))
		return false;
	/* Of these nothing must be set. */
	rdmsr(MSR_IA32_VMX_PROCBASED_CTLS2, must, may);
	second = SECOND_NEEDED | (SECOND_WANTED & may);
	if (SECOND_NEEDED & ~may)
		return false;
	config.second = second | must;
	/* Without "true" controls these would come out, too; with EPT they need not. */
	config.cpu &= ~(CPU_BASED_CR3_LOAD_EXITING | CPU_BASED_CR3_STORE_EXITING | CPU_BASED_INVLPG_EXITING);
	return true;
}

static bool has_caching(void)
{
	const u64 needed = VMX_EPT_PAGE_WALK_4_BIT | VMX_EPTP_WB_BIT | VMX_EPT_INVEPT_BIT |
			   VMX_EPT_EXTENT_CONTEXT_BIT | VMX_EPT_EXTENT_GLOBAL_BIT |
			   (VMX_VPID_INVVPID_BIT | VMX_VPID_EXTENT_SINGLE_CONTEXT_BIT |
			    VMX_VPID_EXTENT_GLOBAL_CONTEXT_BIT) << CAP_VPID_SHIFT;

	rdmsrl(MSR_IA32_VMX_EPT_VPID_CAP, config.ept_vpid);
	if (config.ept_vpid & VMX_EPT_2MB_PAGE_BIT)
		vmx_format.max_level = config.ept_vpid & VMX_EPT_1GB_PAGE_BIT ? 2 : 1;
	if (config.ept_vpid & VMX_EPT_AD_BIT)
		vmx_format.accessed = VMX_EPT_ACCESS_BIT;
	vmx_format.split_executable = boot_cpu_has_bug(X86_BUG_ITLB_MULTIHIT);
	return (config.ept_vpid & needed) == needed;
}

/* That would be IBRS, VERW and a flush of the first cache, none of which is here. */
static bool vmx_mitigate(unsigned int bug)
{
	return false;
}

static void allow_msr(u8 *bitmap, u32 msr)
{
	/* The second and fourth KiB are 0xc0000000 and following, to read and to write. */
	__clear_bit(msr - 0xc0000000, (unsigned long *)(bitmap + 0x400));
	__clear_bit(msr - 0xc0000000, (unsigned long *)(bitmap + 0xc00));
}

static int vmx_setup(void)
{
	int cpu;

	/* The kernel takes the feature away where the firmware has locked it. */
	if (!boot_cpu_has(X86_FEATURE_VMX)) {
		pr_err("dune: the processor has no VMX, or the firmware has switched it off\n");
		return -EOPNOTSUPP;
	}
#ifdef X86_FEATURE_FRED
	if (cpu_feature_enabled(X86_FEATURE_FRED)) {
		pr_err("dune: FRED is not supported; boot with fred=off\n");
		return -EOPNOTSUPP;
	}
#endif
	if (!choose_controls() || !has_caching()) {
		pr_err("dune: the processor's VMX is too old (it needs EPT, VPID and their invalidation)\n");
		return -EOPNOTSUPP;
	}
	msr_bitmap = alloc_page(GFP_KERNEL);
	if (!msr_bitmap)
		return -ENOMEM;
	memset(page_address(msr_bitmap), 0xff, PAGE_SIZE);
	allow_msr(page_address(msr_bitmap), MSR_FS_BASE);
	allow_msr(page_address(msr_bitmap), MSR_GS_BASE);
	allow_msr(page_address(msr_bitmap), MSR_KERNEL_GS_BASE);
	for_each_possible_cpu(cpu) {
		struct vmx_cpu *c = per_cpu_ptr(&vmx_cpus, cpu);

		INIT_LIST_HEAD(&c->loaded);
		c->vmxon = alloc_pages_node(cpu_to_node(cpu), GFP_KERNEL | __GFP_ZERO, 0);
		if (!c->vmxon) {
			vmx_teardown();
			return -ENOMEM;
		}
	}
	return 0;
}

/* ---------------------------------------------------------------------------------------------
 * vCPUs
 */

static struct dune_vcpu *vmx_create(struct dune_vm *vm)
{
	struct vmx_vcpu *vmx = kzalloc(sizeof(*vmx), GFP_KERNEL_ACCOUNT);
	int result = -ENOMEM;

	if (!vmx)
		return ERR_PTR(-ENOMEM);
	vmx->vmcs = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (!vmx->vmcs)
		goto out_vmx;
	/* 0 is the host's. */
	result = ida_alloc_range(&vpids, 1, 0xffff, GFP_KERNEL);
	if (result < 0)
		goto out_vmcs;
	vmx->vpid = result;
	vmx->loaded_on = -1;
	vmx->vcpu.vm = vm;
	*(u32 *)page_address(vmx->vmcs) = config.revision;
	return &vmx->vcpu;

out_vmcs:
	__free_page(vmx->vmcs);
out_vmx:
	kfree(vmx);
	return ERR_PTR(result);
}

static void vmx_free(struct dune_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = container_of(vcpu, struct vmx_vcpu, vcpu);

	vmx_leave_cpu(vcpu);
	ida_free(&vpids, vmx->vpid);
	__free_page(vmx->vmcs);
	kfree(vmx);
}

/* What never changes, once. */
static void build_vmcs(struct vmx_vcpu *vmx)
{
	vmcs_write(PIN_BASED_VM_EXEC_CONTROL, config.pin);
	vmcs_write(CPU_BASED_VM_EXEC_CONTROL, config.cpu);
	vmcs_write(SECONDARY_VM_EXEC_CONTROL, config.second);
	vmcs_write(VM_EXIT_CONTROLS, config.exit);
	vmcs_write(VM_ENTRY_CONTROLS, config.entry);
	vmcs_write(VM_EXIT_MSR_STORE_COUNT, 0);
	vmcs_write(VM_EXIT_MSR_LOAD_COUNT, 0);
	vmcs_write(VM_ENTRY_MSR_LOAD_COUNT, 0);
	vmcs_write(PAGE_FAULT_ERROR_CODE_MASK, 0);
	vmcs_write(PAGE_FAULT_ERROR_CODE_MATCH, 0);
	vmcs_write(CR3_TARGET_COUNT, 0);
	vmcs_write(MSR_BITMAP, page_to_phys(msr_bitmap));
	vmcs_write(EPT_POINTER, eptp_of(vmx->vcpu.vm));
	vmcs_write(VIRTUAL_PROCESSOR_ID, vmx->vpid);
	if (config.second & SECONDARY_EXEC_ENCLS_EXITING)
		vmcs_write(ENCLS_EXITING_BITMAP, ~0ULL);
	vmcs_write(VMCS_LINK_POINTER, ~0ULL);

	/* All of it is the host's: what differs from the shadow comes out. */
	vmcs_write(CR0_GUEST_HOST_MASK, ~0ULL);
	vmcs_write(CR4_GUEST_HOST_MASK, ~0ULL);
	vmcs_write(CR0_READ_SHADOW, GUEST_CR0_BITS);
	vmcs_write(GUEST_CR0, GUEST_CR0_BITS);
	vmcs_write(GUEST_IA32_EFER, GUEST_EFER_BITS);
	vmcs_write(GUEST_IA32_DEBUGCTL, 0);
	vmcs_write(GUEST_SYSENTER_CS, 0);
	vmcs_write(GUEST_SYSENTER_ESP, 0);
	vmcs_write(GUEST_SYSENTER_EIP, 0);
	vmcs_write(GUEST_ACTIVITY_STATE, 0);

	/* Each entry begins with as many, for no exit saves what is left. */
	if (config.pin & PIN_BASED_VMX_PREEMPTION_TIMER)
		vmcs_write(VMX_PREEMPTION_TIMER_VALUE, PREEMPTION_TICKS);
	/* Of what vmcs_update() compares with. */
	vmcs_write(HOST_CR3, 0);
	vmcs_write(HOST_CR4, 0);
	vmcs_write(HOST_FS_BASE, 0);
	vmcs_write(GUEST_CR3, 0);
	vmcs_write(GUEST_FS_BASE, 0);
	vmcs_write(GUEST_GS_BASE, 0);
	vmcs_write(VM_ENTRY_INTR_INFO_FIELD, 0);

	vmcs_write(HOST_CS_SELECTOR, __KERNEL_CS);
	vmcs_write(HOST_SS_SELECTOR, __KERNEL_DS);
	vmcs_write(HOST_TR_SELECTOR, GDT_ENTRY_TSS * 8);
	vmcs_write(HOST_DS_SELECTOR, 0);
	vmcs_write(HOST_ES_SELECTOR, 0);
	vmcs_write(HOST_FS_SELECTOR, 0);
	vmcs_write(HOST_GS_SELECTOR, 0);
}

/* The fields of a segment come in the same order, of the base, limit and access rights, too. */
static void set_segment(u32 selector_field, u16 selector, u64 base, u32 limit, u32 access)
{
	const u32 which = selector_field - GUEST_ES_SELECTOR;

	vmcs_write(selector_field, selector);
	vmcs_write(GUEST_ES_BASE + which, base);
	vmcs_write(GUEST_ES_LIMIT + which, limit);
	vmcs_write(GUEST_ES_AR_BYTES + which, access);
}

static void set_flat(u32 selector_field, u16 selector, u32 access)
{
	set_segment(selector_field, selector, 0, ~0U, access | (selector & 3) << ACCESS_DPL_SHIFT);
}

static void load_state(struct vmx_vcpu *vmx)
{
	const struct dune_state *state = &vmx->vcpu.state;
	const u64 cr4 = dune_cr4_of(state);

	/* The guest does not see VMXE, which the processor wants to be set. */
	vmcs_write(GUEST_CR4, cr4 | X86_CR4_VMXE);
	vmcs_write(CR4_READ_SHADOW, cr4);
	vmcs_write(GUEST_GDTR_BASE, state->gdt.base);
	vmcs_write(GUEST_GDTR_LIMIT, state->gdt.limit);
	vmcs_write(GUEST_IDTR_BASE, state->idt.base);
	vmcs_write(GUEST_IDTR_LIMIT, state->idt.limit);
	set_segment(GUEST_TR_SELECTOR, state->task_selector, state->task.base, state->task.limit, ACCESS_TASK);
	set_segment(GUEST_LDTR_SELECTOR, 0, 0, 0, ACCESS_UNUSABLE);
	set_segment(GUEST_DS_SELECTOR, 0, 0, 0, ACCESS_UNUSABLE);
	set_segment(GUEST_ES_SELECTOR, 0, 0, 0, ACCESS_UNUSABLE);
	set_segment(GUEST_FS_SELECTOR, 0, 0, 0, ACCESS_UNUSABLE);
	set_segment(GUEST_GS_SELECTOR, 0, 0, 0, ACCESS_UNUSABLE);
	vmx->guest_fs_base = vmx->guest_gs_base = 0; /* with their segments */
	vmcs_write(GUEST_INTERRUPTIBILITY_INFO, 0);
	vmcs_write(GUEST_PENDING_DBG_EXCEPTIONS, 0);
}

/* What follows from the state and the debug registers together. */
static void load_debug(const struct vmx_vcpu *vmx)
{
	const struct dune_vcpu *vcpu = &vmx->vcpu;
	const bool debugs = dune_vcpu_debugs(vcpu);

	/* #AC and #MC always; #NM, which says what the processor keeps for the host (XFD_ERR). */
	vmcs_write(EXCEPTION_BITMAP, BIT(X86_TRAP_AC) | BIT(X86_TRAP_MC) | BIT(X86_TRAP_NM) |
					     vcpu->state.exceptions | (debugs ? BIT(X86_TRAP_DB) : 0));
	/* A guest cannot write it, and #DB clears only what it never has (GD). */
	vmcs_write(GUEST_DR7, debugs ? vcpu->debug.dr7 : DR7_OFF);
}

static void load_event(struct vmx_vcpu *vmx)
{
	const struct dune_event *event = &vmx->vcpu.event;
	u32 info = 0;

	/* An exit clears it, but an entry that fails does not. */
	if (!(vmx->has_event | event->flags))
		return;
	if (event->flags & DUNE_EVENT_VALID) {
		info = event->vector | INTR_TYPE_HARD_EXCEPTION | INTR_INFO_VALID_MASK;
		if (event->flags & DUNE_EVENT_ERROR_CODE) {
			info |= INTR_INFO_DELIVER_CODE_MASK;
			vmcs_write(VM_ENTRY_EXCEPTION_ERROR_CODE, event->error_code);
		}
	}
	vmcs_write(VM_ENTRY_INTR_INFO_FIELD, info);
	vmx->has_event = info;
}

static void load_guest(struct vmx_vcpu *vmx)
{
	struct dune_vcpu *vcpu = &vmx->vcpu;
	const struct dune_regs *regs = &vcpu->regs;

	if (vcpu->state_dirty | vcpu->debug_dirty)
		load_debug(vmx);
	if (vcpu->state_dirty)
		load_state(vmx);
	if (vcpu->flat_cs)
		set_flat(GUEST_CS_SELECTOR, regs->cs, ACCESS_CODE64);
	if (vcpu->flat_ss && regs->ss >= 4)
		set_flat(GUEST_SS_SELECTOR, regs->ss, ACCESS_DATA);
	else if (vcpu->flat_ss)
		set_segment(GUEST_SS_SELECTOR, regs->ss, 0, 0, ACCESS_UNUSABLE);
	vcpu->state_dirty = vcpu->debug_dirty = vcpu->flat_cs = vcpu->flat_ss = false;

	/* What an instruction has left behind it belongs behind that one only. */
	if (regs->rip != vmx->last_rip || regs->rflags != vmx->last_rflags) {
		vmcs_write(GUEST_INTERRUPTIBILITY_INFO, 0);
		vmcs_write(GUEST_PENDING_DBG_EXCEPTIONS, 0);
	}
	vmcs_write(GUEST_RSP, regs->rsp);
	vmcs_write(GUEST_RIP, regs->rip);
	vmcs_write(GUEST_RFLAGS, regs->rflags);
	vmcs_update(GUEST_FS_BASE, regs->fs_base, &vmx->guest_fs_base);
	vmcs_update(GUEST_GS_BASE, regs->gs_base, &vmx->guest_gs_base);
	vmcs_update(GUEST_CR3, regs->cr3, &vmx->guest_cr3);
	load_event(vmx);
}

static void store_guest(struct vmx_vcpu *vmx)
{
	struct dune_regs *regs = &vmx->vcpu.regs;

	regs->rsp = vmcs_read(GUEST_RSP);
	regs->rip = vmx->last_rip = vmcs_read(GUEST_RIP);
	regs->rflags = vmx->last_rflags = vmcs_read(GUEST_RFLAGS);
	regs->cs = vmcs_read(GUEST_CS_SELECTOR);
	regs->ss = vmcs_read(GUEST_SS_SELECTOR);
	regs->fs_base = vmx->guest_fs_base = vmcs_read(GUEST_FS_BASE);
	regs->gs_base = vmx->guest_gs_base = vmcs_read(GUEST_GS_BASE);
	regs->cr3 = vmx->guest_cr3 = vmcs_read(GUEST_CR3);
}

/* The exception that was on its way when the guest was left. */
static void store_event(struct vmx_vcpu *vmx)
{
	struct dune_event *event = &vmx->vcpu.event;
	const u32 info = vmcs_read(IDT_VECTORING_INFO_FIELD);

	*event = (struct dune_event){};
	/* INT n, INT3, INTO and INT1 are executed again, for rip is still at them. */
	if (!(info & VECTORING_INFO_VALID_MASK) ||
	    (info & VECTORING_INFO_TYPE_MASK) != INTR_TYPE_HARD_EXCEPTION)
		return;
	event->vector = info & VECTORING_INFO_VECTOR_MASK;
	/* What was pending is being delivered. */
	if (event->vector == X86_TRAP_DB)
		vmcs_write(GUEST_PENDING_DBG_EXCEPTIONS, 0);
	event->flags = DUNE_EVENT_VALID;
	if (info & VECTORING_INFO_DELIVER_CODE_MASK) {
		event->flags |= DUNE_EVENT_ERROR_CODE;
		event->error_code = vmcs_read(IDT_VECTORING_ERROR_CODE);
	}
}

static void forbidden(struct dune_hw_exit *exit, u8 vector)
{
	exit->kind = DUNE_KIND_FORBIDDEN;
	exit->vector = vector;
}

static void store_exception(struct vmx_vcpu *vmx)
{
	struct dune_hw_exit *exit = &vmx->vcpu.exit;
	struct dune_regs *regs = &vmx->vcpu.regs;
	const u32 info = vmcs_read(VM_EXIT_INTR_INFO);
	u64 qualification;

	if ((info & INTR_INFO_INTR_TYPE_MASK) == INTR_TYPE_NMI_INTR) {
		/* It is ours now, and NMIs are blocked until its handler returns. */
		asm volatile("int %0" : : "i"(X86_TRAP_NMI));
		exit->kind = DUNE_KIND_INTERRUPT;
		return;
	}
	exit->kind = DUNE_KIND_EXCEPTION;
	exit->vector = info & INTR_INFO_VECTOR_MASK;
	if (info & INTR_INFO_DELIVER_CODE_MASK)
		exit->error_code = vmcs_read(VM_EXIT_INTR_ERROR_CODE);
	switch (exit->vector) {
	case X86_TRAP_MC:
		dune_handle_machine_check();
		exit->kind = DUNE_KIND_AGAIN;
		break;
	case X86_TRAP_DB:
		/* Not delivered, so the processor has not set DR6. */
		qualification = vmcs_read(EXIT_QUALIFICATION);
		exit->debug = qualification & (DR_TRAP_BITS | DR_STEP);
		if (!vmx->vcpu.debug.status)
			regs->dr6 = (regs->dr6 & ~0xfULL) | qualification;
		/* INT1 is not behind itself yet, as what is delivered in its place has to find it. */
		if ((info & INTR_INFO_INTR_TYPE_MASK) == INTR_TYPE_PRIV_SW_EXCEPTION)
			regs->rip += vmcs_read(VM_EXIT_INSTRUCTION_LEN);
		break;
	case X86_TRAP_PF:
		regs->cr2 = vmcs_read(EXIT_QUALIFICATION);
		break;
	case X86_TRAP_NM:
		if (boot_cpu_has(X86_FEATURE_XFD))
			wrmsrl(MSR_IA32_XFD_ERR, 0);
		break;
	}
}

static void skip_instruction(struct vmx_vcpu *vmx)
{
	vmx->vcpu.regs.rip += vmcs_read(VM_EXIT_INSTRUCTION_LEN);
	vmx->vcpu.exit.skipped = true;
}

/* The same answers as outside, but for what the guest's CR4 or a control decides. */
static void answer_cpuid(struct vmx_vcpu *vmx)
{
	struct dune_regs *regs = &vmx->vcpu.regs;
	u32 eax = regs->rax, ebx, ecx = regs->rcx, edx;
	const u32 leaf = eax, part = ecx;

	native_cpuid(&eax, &ebx, &ecx, &edx);
	if (leaf == 1 && !(vmx->vcpu.state.cr4 & X86_CR4_OSXSAVE))
		ecx &= ~BIT(X86_FEATURE_OSXSAVE & 31);
	if (leaf == 7 && part == 0) {
		ecx &= ~BIT(X86_FEATURE_OSPKE & 31);
		if (!(config.second & SECONDARY_EXEC_ENABLE_INVPCID))
			ebx &= ~BIT(X86_FEATURE_INVPCID & 31);
	}
	regs->rax = eax;
	regs->rbx = ebx;
	regs->rcx = ecx;
	regs->rdx = edx;
	skip_instruction(vmx);
}

/* MOV to or from a debug register, in ring 0: reading is harmless, but the host's are in there. */
static void answer_debug_register(struct vmx_vcpu *vmx)
{
	const struct dune_debug *debug = &vmx->vcpu.debug;
	struct dune_regs *regs = &vmx->vcpu.regs;
	const u64 qualification = vmcs_read(EXIT_QUALIFICATION);
	/* In the order of the processor's numbers. */
	u64 *registers = (u64 *)&regs->rax;
	u64 value;

	/* In ring 3 there should be no exit, but #GP: Bochs looks at the ring later. */
	if (!(qualification & DEBUG_REG_ACCESS_TYPE) || regs->cs & 3) {
		forbidden(&vmx->vcpu.exit, X86_TRAP_GP);
		return;
	}
	switch (qualification & DEBUG_REG_ACCESS_NUM) {
	case 0 ... 3:
		value = debug->address[qualification & DEBUG_REG_ACCESS_NUM];
		break;
	case 4:
	case 6:
		value = regs->dr6;
		break;
	default:
		value = dune_vcpu_debugs(&vmx->vcpu) ? debug->dr7 : DR7_OFF;
	}
	registers[DEBUG_REG_ACCESS_REG(qualification)] = value;
	skip_instruction(vmx);
	vmx->vcpu.exit.kind = DUNE_KIND_AGAIN;
}

static void store_exit(struct vmx_vcpu *vmx, u32 reason)
{
	struct dune_hw_exit *exit = &vmx->vcpu.exit;
	u64 qualification;

	exit->detail = reason;
	if (reason & VMX_EXIT_REASONS_FAILED_VMENTRY) {
		if ((u16)reason == EXIT_REASON_MCE_DURING_VMENTRY)
			dune_handle_machine_check();
		exit->kind = DUNE_KIND_FAILED;
		return;
	}
	switch ((u16)reason) {
	case EXIT_REASON_EXCEPTION_NMI:
		store_exception(vmx);
		break;
	case EXIT_REASON_EXTERNAL_INTERRUPT: /* pending still, until they are on */
	case EXIT_REASON_PREEMPTION_TIMER:
		exit->kind = DUNE_KIND_INTERRUPT;
		break;
	case EXIT_REASON_TRIPLE_FAULT:
		exit->kind = DUNE_KIND_SHUTDOWN;
		break;
	case EXIT_REASON_CPUID:
		answer_cpuid(vmx);
		exit->kind = DUNE_KIND_AGAIN;
		break;
	case EXIT_REASON_DR_ACCESS:
		answer_debug_register(vmx);
		break;
	case EXIT_REASON_VMCALL:
		skip_instruction(vmx);
		exit->kind = DUNE_KIND_HYPERCALL;
		break;
	case EXIT_REASON_EPT_VIOLATION:
		qualification = vmcs_read(EXIT_QUALIFICATION);
		exit->kind = DUNE_KIND_NESTED_FAULT;
		exit->gpa = vmcs_read(GUEST_PHYSICAL_ADDRESS);
		if (qualification & EPT_VIOLATION_ACC_WRITE)
			exit->access |= DUNE_ACCESS_WRITE;
		if (qualification & EPT_VIOLATION_ACC_INSTR)
			exit->access |= DUNE_ACCESS_EXECUTE;
		/*
		 * The instruction has not been executed, so only what MOV SS holds back is pending (SDM
		 * volume 3, "Saving Non-Register State"). Bochs has the step of this very instruction there.
		 */
		if (!(vmcs_read(GUEST_INTERRUPTIBILITY_INFO) & GUEST_INTR_STATE_MOV_SS))
			vmcs_write(GUEST_PENDING_DBG_EXCEPTIONS, 0);
		break;
	case EXIT_REASON_EPT_MISCONFIG:
		WARN_ONCE(1, "dune: an entry that EPT does not take, for %llx", vmcs_read(GUEST_PHYSICAL_ADDRESS));
		exit->kind = DUNE_KIND_FAILED;
		break;
	case EXIT_REASON_VMCLEAR ... EXIT_REASON_VMON:
	case EXIT_REASON_INVEPT:
	case EXIT_REASON_INVVPID:
	case EXIT_REASON_VMFUNC:
	case EXIT_REASON_MWAIT_INSTRUCTION:
	case EXIT_REASON_MONITOR_INSTRUCTION:
		forbidden(exit, X86_TRAP_UD);
		break;
	default:
		forbidden(exit, X86_TRAP_GP);
	}
}

/* Those of this processor, which stay in the VMCS. */
static void write_host_constants(const struct vmx_cpu *cpu)
{
	vmcs_write(HOST_CR0, cpu->cr0);
	vmcs_write(HOST_IDTR_BASE, cpu->idt_base);
	vmcs_write(HOST_IA32_EFER, cpu->efer);
	vmcs_write(HOST_GS_BASE, cpu->gs_base);
	vmcs_write(HOST_TR_BASE, cpu->task_base);
	vmcs_write(HOST_GDTR_BASE, (unsigned long)get_current_gdt_ro());
	vmcs_write(HOST_IA32_SYSENTER_CS, cpu->sysenter_cs);
	vmcs_write(HOST_IA32_SYSENTER_ESP, cpu->sysenter_esp);
	vmcs_write(HOST_IA32_SYSENTER_EIP, cpu->sysenter_eip);
}

/*
 * MSRs are read and written by the instruction itself: by way of the kernel's hooks for hypervisors
 * without VMX and for tracing each would take three times as long. Writing one is slow.
 */
static void update_msr(u32 msr, u64 value, u64 has)
{
	if (value != has)
		native_wrmsrl(msr, value);
}

/* What an exit makes of the segments, and what the guest changes of MSRs. */
static void save_thread(struct vmx_vcpu *vmx)
{
	savesegment(ds, vmx->thread.ds);
	savesegment(es, vmx->thread.es);
	savesegment(fs, vmx->thread.fs);
	savesegment(gs, vmx->thread.gs);
	vmx->thread.has_selectors = vmx->thread.ds | vmx->thread.es | vmx->thread.fs | vmx->thread.gs;
	vmx->thread.fs_base = boot_cpu_has(X86_FEATURE_FSGSBASE) ? rdfsbase() : __rdmsr(MSR_FS_BASE);
	vmx->thread.kernel_gs_base = __rdmsr(MSR_KERNEL_GS_BASE);
	vmcs_update(HOST_FS_BASE, vmx->thread.fs_base, &vmx->host_fs_base);
}

/* Loading one replaces its base. */
static void restore_selectors(const struct vmx_vcpu *vmx)
{
	if (vmx->thread.ds | vmx->thread.es) {
		loadsegment(ds, vmx->thread.ds);
		loadsegment(es, vmx->thread.es);
	}
	if (vmx->thread.fs) {
		loadsegment(fs, vmx->thread.fs);
		native_wrmsrl(MSR_FS_BASE, vmx->thread.fs_base);
	}
	if (vmx->thread.gs) {
		load_gs_index(vmx->thread.gs);
		native_wrmsrl(MSR_KERNEL_GS_BASE, vmx->thread.kernel_gs_base);
	}
}

static noinline void flush(struct vmx_vcpu *vmx)
{
	invept(VMX_EPT_EXTENT_CONTEXT, eptp_of(vmx->vcpu.vm));
	invvpid(VMX_VPID_EXTENT_SINGLE_CONTEXT, vmx->vpid);
	vmx->flushed = vmx->vcpu.generation;
	vmx->vcpu.flush = false;
}

static bool enter(struct vmx_vcpu *vmx, struct vmx_cpu *cpu)
{
	struct dune_vcpu *vcpu = &vmx->vcpu;
	/* This, the LDT, CR3 and CR4 may change while the thread is in a run. */
	const u64 debugctl = __rdmsr(MSR_IA32_DEBUGCTLMSR);
	bool entered;
	u16 ldt;

	if (vmx->constants != cpu || vmx->constants_enabled != cpu->enabled) {
		if (!vmx->constants)
			build_vmcs(vmx);
		write_host_constants(cpu);
		vmx->constants = cpu;
		vmx->constants_enabled = cpu->enabled;
	}
	if (vcpu->new_run)
		save_thread(vmx);
	vcpu->new_run = false;
	asm volatile("sldt %0" : "=r"(ldt));
	vmcs_update(HOST_CR3, __read_cr3(), &vmx->host_cr3);
	vmcs_update(HOST_CR4, cr4_read_shadow(), &vmx->host_cr4);
	load_guest(vmx);
	if (vcpu->flush)
		flush(vmx);
	/* Emulators forget everything at each entry: there only this shows a flush that is missing. */
	WARN_ON_ONCE(vmx->flushed != vcpu->generation);
	update_msr(MSR_KERNEL_GS_BASE, vcpu->regs.kernel_gs_base, vmx->thread.kernel_gs_base);
	update_msr(MSR_STAR, vcpu->state.star, cpu->star);
	update_msr(MSR_SYSCALL_MASK, vcpu->state.sfmask, cpu->sfmask);
	native_wrmsrl(MSR_LSTAR, vcpu->state.lstar);
	if (dune_vcpu_debugs(vcpu))
		dune_load_breakpoints(vcpu);
	native_set_debugreg(6, vcpu->regs.dr6);
	native_write_cr2(vcpu->regs.cr2);

	entered = vmx_enter(&vcpu->regs, vmx->launched);

	vcpu->regs.cr2 = native_read_cr2();
	vcpu->regs.dr6 = native_get_debugreg(6);
	/* It is slow, and there is seldom something in it. */
	if (vcpu->regs.dr6 != DR6_NONE)
		native_set_debugreg(6, DR6_NONE);
	vcpu->regs.kernel_gs_base = __rdmsr(MSR_KERNEL_GS_BASE);
	update_msr(MSR_KERNEL_GS_BASE, vmx->thread.kernel_gs_base, vcpu->regs.kernel_gs_base);
	update_msr(MSR_STAR, cpu->star, vcpu->state.star);
	update_msr(MSR_SYSCALL_MASK, cpu->sfmask, vcpu->state.sfmask);
	native_wrmsrl(MSR_LSTAR, cpu->lstar);
	/*
	 * The exit has made the limits of tables the largest, and that of the TSS the smallest. No
	 * vector lies beyond the IDT, but selectors do beyond the GDT.
	 */
	native_load_gdt(&cpu->gdt);
	invalidate_tss_limit();
	if (ldt)
		asm volatile("lldt %0" : : "r"(ldt));
	if (vmx->thread.has_selectors)
		restore_selectors(vmx);
	if (debugctl)
		update_debugctlmsr(debugctl);
	/* The processor has switched the host's breakpoints off, and we have taken their registers. */
	if (hw_breakpoint_active())
		hw_breakpoint_restore();
	return entered;
}

/* Makes it the current VMCS of this processor; none else has it. */
static bool load_irqoff(struct vmx_vcpu *vmx, struct vmx_cpu *cpu)
{
	if (likely(cpu->current_vmcs == vmx))
		return true;
	if (vmx->loaded_on < 0) {
		if (WARN_ON_ONCE(!vmcs_clear(vmx->vmcs)))
			return false;
		vmx->launched = false;
		vmx->loaded_on = smp_processor_id();
		list_add(&vmx->loaded, &cpu->loaded);
	}
	if (WARN_ON_ONCE(vmx->loaded_on != smp_processor_id() || !vmcs_load(vmx->vmcs)))
		return false;
	cpu->current_vmcs = vmx;
	return true;
}

static void vmx_run_irqoff(struct dune_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = container_of(vcpu, struct vmx_vcpu, vcpu);
	struct vmx_cpu *cpu = this_cpu_ptr(&vmx_cpus);
	u32 reason;

	if (!load_irqoff(vmx, cpu)) {
		vcpu->exit.kind = DUNE_KIND_FAILED;
		vcpu->exit.detail = 0;
		return;
	}
	if (!enter(vmx, cpu)) {
		vcpu->exit.kind = DUNE_KIND_FAILED;
		vcpu->exit.detail = vmcs_read(VM_INSTRUCTION_ERROR);
		return;
	}
	reason = vmcs_read(VM_EXIT_REASON);
	/* A refused state is still there, and so are the registers. */
	if (!(reason & VMX_EXIT_REASONS_FAILED_VMENTRY)) {
		vmx->launched = true;
		store_guest(vmx);
		/* No exception is delivered by a hypercall. */
		if (reason == EXIT_REASON_VMCALL)
			vcpu->event.flags = 0;
		else
			store_event(vmx);
	}
	store_exit(vmx, reason);
}

const struct dune_cpu_ops vmx_ops = {
	.name = "VMX",
	.format = &vmx_format,
	.levels = vmx_levels,
	.mitigate = vmx_mitigate,
	.setup = vmx_setup,
	.teardown = vmx_teardown,
	.enable_irqoff = vmx_enable_irqoff,
	.disable_irqoff = vmx_disable_irqoff,
	.create = vmx_create,
	.free = vmx_free,
	.leave_cpu = vmx_leave_cpu,
	.run_irqoff = vmx_run_irqoff,
};
