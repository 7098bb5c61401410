// SPDX-License-Identifier: GPL-2.0-only
/*
 * AMD SVM with nested paging ("Secure Virtual Machine" in volume 2 of the AMD64 manual).
 *
 * The control block is ours alone. What user space decides arrives checked in struct dune_vcpu, and
 * the fields below are all that is copied. What the guest may do by itself: change CR2, CR3 and its
 * descriptor tables, read its debug registers, INVLPG, CPUID, RDTSC, FS, GS and KERNEL_GS bases. The
 * rest is intercepted, and answered with the exception that an instruction gets which may not be
 * executed.
 */
#include <linux/hw_breakpoint.h>
#include <linux/io.h>
#include <linux/slab.h>

#include <asm/cpufeature.h>
#include <asm/debugreg.h>
#include <asm/msr.h>
#include <asm/svm.h>
#include <asm/trap_pf.h>
#include <asm/trapnr.h>

#include "../compat.h"
#include "../cpu_ops.h"
#include "../regs_offsets.h"

#define MSR_BITMAP_ORDER 1
#define IO_BITMAP_ORDER 2
#define CPUID_SVM 0x8000000a
#define GUEST_CR0                                                                                  \
	(X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM | X86_CR0_PG)
/* SVME has to be set in a guest's; what it would allow is intercepted. */
#define GUEST_EFER (EFER_SCE | EFER_LME | EFER_LMA | EFER_NX | EFER_SVME)
/* Every type of the guest's tables is write-back: the second level decides. */
#define GUEST_PAT 0x0606060606060606ULL
#define VMMCALL_SIZE 3

#define ATTRIB_CODE64 (0xb | BIT(4) | BIT(7) | BIT(9) | BIT(11)) /* present, L, G; DPL apart */
#define ATTRIB_DATA (0x3 | BIT(4) | BIT(7) | BIT(10) | BIT(11)) /* present, B, G */
#define ATTRIB_TASK (0xb | BIT(7)) /* busy */
#define ATTRIB_DPL_SHIFT 5
#define ATTRIB_DPL_MASK (3 << ATTRIB_DPL_SHIFT)

struct svm_vcpu {
	struct dune_vcpu vcpu;
	struct vmcb *vmcb;
	u32 asid;
	u64 asid_generation;
	u64 flushed; /* the table's generation when there was nothing under this number */
	bool shows_debug; /* the guest reads DR0-3, so its own are in there */
};

/* Of a processor. The pages stay from load to unload. */
struct svm_cpu {
	struct page *host_save; /* the processor's own */
	struct page *host_vmcb; /* what VMSAVE saves */
	u32 asids; /* numbers up to below this one */
	u32 next_asid;
	u64 asid_generation;
};

static DEFINE_PER_CPU(struct svm_cpu, svm_cpus);
static struct page *msr_bitmap, *io_bitmap;
extern bool svm_ibpb_on_exit; /* enter.S reads it */
bool svm_ibpb_on_exit;
static u64 host_xss; /* state that only XSAVES reaches, which is the kernel's */

void svm_enter(u64 guest, struct dune_regs *regs, u64 host);

/* ---------------------------------------------------------------------------------------------
 * The second level
 */

static u64 svm_memory_type(u64 host, unsigned int level)
{
	/* Nested entries use the host's PAT, in the same bits. */
	const u64 type = host & (_PAGE_PWT | _PAGE_PCD | _PAGE_PAT);

	return level ? protval_4k_2_large(type) : type;
}

static struct dune_pte_format svm_format = {
	.table = _PAGE_PRESENT | _PAGE_RW | _PAGE_USER | _PAGE_ACCESSED,
	.present = _PAGE_PRESENT,
	/* The processor walks as a user; what it marks dirty nobody asks for. */
	.leaf = _PAGE_PRESENT | _PAGE_USER | _PAGE_DIRTY,
	.write = _PAGE_RW,
	.no_execute = _PAGE_NX,
	.accessed = _PAGE_ACCESSED,
	.large = _PAGE_PSE,
	.max_level = 2,
	.memory_type = svm_memory_type,
};

/* The processor walks as deep as the host's own tables are. */
static unsigned int svm_levels(void)
{
	return pgtable_l5_enabled() ? 5 : 4;
}

/* ---------------------------------------------------------------------------------------------
 * On and off
 */

static int svm_enable_irqoff(void)
{
	struct svm_cpu *cpu = this_cpu_ptr(&svm_cpus);
	u64 efer;

	rdmsrl(MSR_EFER, efer);
	if (efer & EFER_SVME)
		return -EBUSY;
	wrmsrl(MSR_EFER, efer | EFER_SVME);
	wrmsrl(MSR_VM_HSAVE_PA, __sme_set(page_to_phys(cpu->host_save)));
	cpu->asids = cpuid_ebx(CPUID_SVM);
	/* Numbers from before are nobody's; the first new one comes with a flush of all. */
	cpu->asid_generation++;
	cpu->next_asid = cpu->asids;
	return 0;
}

static void svm_disable_irqoff(void)
{
	u64 efer;

	wrmsrl(MSR_VM_HSAVE_PA, 0);
	rdmsrl(MSR_EFER, efer);
	wrmsrl(MSR_EFER, efer & ~EFER_SVME);
}

static bool svm_mitigate(unsigned int bug)
{
	bool by_ibpb = false;

	if (bug == X86_BUG_RETBLEED)
		by_ibpb = boot_cpu_has(X86_FEATURE_IBPB);
#ifdef X86_BUG_SRSO
	/* With the microcode by which IBPB covers returns, too. */
	else if (bug == X86_BUG_SRSO)
		by_ibpb = boot_cpu_has(X86_FEATURE_IBPB_BRTYPE);
#endif
	svm_ibpb_on_exit |= by_ibpb;
	return by_ibpb;
}

static void allow_msr(u8 *bitmap, u32 msr)
{
	/* Two bits each; the second 2 KiB are 0xc0000000 and following. */
	const u32 bit = 2 * (msr - 0xc0000000);

	bitmap[0x800 + bit / 8] &= ~(3 << bit % 8);
}

static void svm_teardown(void)
{
	int cpu;

	for_each_possible_cpu(cpu) {
		struct svm_cpu *c = per_cpu_ptr(&svm_cpus, cpu);

		if (c->host_save)
			__free_page(c->host_save);
		if (c->host_vmcb)
			__free_page(c->host_vmcb);
		c->host_save = c->host_vmcb = NULL;
	}
	if (msr_bitmap)
		__free_pages(msr_bitmap, MSR_BITMAP_ORDER);
	if (io_bitmap)
		__free_pages(io_bitmap, IO_BITMAP_ORDER);
	msr_bitmap = io_bitmap = NULL;
}

static int svm_setup(void)
{
	u64 vm_cr;
	int cpu;

	if (!boot_cpu_has(X86_FEATURE_SVM)) {
		pr_err("dune: the processor has no SVM\n");
		return -EOPNOTSUPP;
	}
	if (!boot_cpu_has(X86_FEATURE_NPT)) {
		pr_err("dune: the processor's SVM has no nested paging\n");
		return -EOPNOTSUPP;
	}
	if (!rdmsrl_safe(MSR_VM_CR, &vm_cr) && vm_cr & SVM_VM_CR_SVM_DIS_MASK) {
		pr_err("dune: the firmware has switched SVM off\n");
		return -EOPNOTSUPP;
	}
	msr_bitmap = alloc_pages(GFP_KERNEL, MSR_BITMAP_ORDER);
	io_bitmap = alloc_pages(GFP_KERNEL, IO_BITMAP_ORDER);
	if (!msr_bitmap || !io_bitmap)
		goto out;
	memset(page_address(msr_bitmap), 0xff, PAGE_SIZE << MSR_BITMAP_ORDER);
	memset(page_address(io_bitmap), 0xff, PAGE_SIZE << IO_BITMAP_ORDER);
	/* VMLOAD and VMSAVE switch these. */
	allow_msr(page_address(msr_bitmap), MSR_FS_BASE);
	allow_msr(page_address(msr_bitmap), MSR_GS_BASE);
	allow_msr(page_address(msr_bitmap), MSR_KERNEL_GS_BASE);
	if (boot_cpu_has(X86_FEATURE_XSAVES))
		rdmsrl(MSR_IA32_XSS, host_xss);
	for_each_possible_cpu(cpu) {
		struct svm_cpu *c = per_cpu_ptr(&svm_cpus, cpu);

		c->host_save = alloc_pages_node(cpu_to_node(cpu), GFP_KERNEL | __GFP_ZERO, 0);
		c->host_vmcb = alloc_pages_node(cpu_to_node(cpu), GFP_KERNEL | __GFP_ZERO, 0);
		if (!c->host_save || !c->host_vmcb)
			goto out;
	}
	return 0;

out:
	svm_teardown();
	return -ENOMEM;
}

/* ---------------------------------------------------------------------------------------------
 * vCPUs
 */

static void intercept(struct vmcb_control_area *control, unsigned int bit)
{
	control->intercepts[bit / 32] |= BIT(bit % 32);
}

static void pass(struct vmcb_control_area *control, unsigned int bit)
{
	control->intercepts[bit / 32] &= ~BIT(bit % 32);
}

static const u8 intercepts[] = {
	INTERCEPT_INTR, INTERCEPT_NMI, INTERCEPT_SMI, INTERCEPT_INIT,
	INTERCEPT_SELECTIVE_CR0, INTERCEPT_CR0_WRITE, INTERCEPT_CR4_WRITE, INTERCEPT_CR8_WRITE,
	INTERCEPT_RDPMC, INTERCEPT_RSM, INTERCEPT_INVD, INTERCEPT_HLT,
	INTERCEPT_INVLPGA, INTERCEPT_IOIO_PROT, INTERCEPT_MSR_PROT, INTERCEPT_TASK_SWITCH,
	INTERCEPT_SHUTDOWN, INTERCEPT_VMRUN, INTERCEPT_VMMCALL, INTERCEPT_VMLOAD, INTERCEPT_VMSAVE,
	INTERCEPT_STGI, INTERCEPT_CLGI, INTERCEPT_SKINIT, INTERCEPT_WBINVD, INTERCEPT_MONITOR,
	INTERCEPT_MWAIT, INTERCEPT_MWAIT_COND, INTERCEPT_XSETBV, INTERCEPT_RDPRU,
	INTERCEPT_INVLPGB, INTERCEPT_INVLPGB_ILLEGAL, INTERCEPT_MCOMMIT, INTERCEPT_TLBSYNC,
};

static void init_vmcb(struct svm_vcpu *svm)
{
	struct vmcb_control_area *control = &svm->vmcb->control;
	struct vmcb_save_area *save = &svm->vmcb->save;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(intercepts); i++)
		intercept(control, intercepts[i]);
	/* All debug registers, to read and to write; but it has a DR6 and a DR7 of its own. */
	control->intercepts[INTERCEPT_DR] = ~0U;
	pass(control, INTERCEPT_DR6_READ);
	pass(control, INTERCEPT_DR7_READ);
	control->iopm_base_pa = __sme_set(page_to_phys(io_bitmap));
	control->msrpm_base_pa = __sme_set(page_to_phys(msr_bitmap));
	control->int_ctl = V_INTR_MASKING_MASK;
	control->nested_ctl = SVM_NESTED_CTL_NP_ENABLE;
	control->nested_cr3 = __sme_set(__pa(svm->vcpu.vm->table.root));
	save->efer = GUEST_EFER;
	save->cr0 = GUEST_CR0;
	save->g_pat = GUEST_PAT;
	save->dr7 = DR7_OFF;
}

static struct dune_vcpu *svm_create(struct dune_vm *vm)
{
	struct svm_vcpu *svm = kzalloc(sizeof(*svm), GFP_KERNEL_ACCOUNT);

	if (!svm)
		return ERR_PTR(-ENOMEM);
	svm->vmcb = (struct vmcb *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!svm->vmcb) {
		kfree(svm);
		return ERR_PTR(-ENOMEM);
	}
	svm->vcpu.vm = vm;
	init_vmcb(svm);
	return &svm->vcpu;
}

static void svm_free(struct dune_vcpu *vcpu)
{
	struct svm_vcpu *svm = container_of(vcpu, struct svm_vcpu, vcpu);

	free_page((unsigned long)svm->vmcb);
	kfree(svm);
}

static void set_segment(struct vmcb_seg *segment, u16 selector, u16 attrib, u32 limit, u64 base)
{
	segment->selector = selector;
	segment->attrib = attrib;
	segment->limit = limit;
	segment->base = base;
}

static void set_flat(struct vmcb_seg *segment, u16 selector, u16 attrib)
{
	set_segment(segment, selector, attrib | (selector & 3) << ATTRIB_DPL_SHIFT, ~0U, 0);
}

static void load_state(struct svm_vcpu *svm)
{
	const struct dune_state *state = &svm->vcpu.state;
	struct vmcb_save_area *save = &svm->vmcb->save;

	save->cr4 = dune_cr4_of(state);
	set_segment(&save->gdtr, 0, 0, state->gdt.limit, state->gdt.base);
	set_segment(&save->idtr, 0, 0, state->idt.limit, state->idt.base);
	set_segment(&save->tr, state->task_selector, ATTRIB_TASK, state->task.limit, state->task.base);
	set_segment(&save->ldtr, 0, 0x2, 0, 0);
	set_segment(&save->ds, 0, 0, 0, 0);
	set_segment(&save->es, 0, 0, 0, 0);
	set_segment(&save->fs, 0, 0, 0, 0);
	set_segment(&save->gs, 0, 0, 0, 0);
	save->star = state->star;
	save->lstar = state->lstar;
	save->cstar = state->cstar;
	save->sfmask = state->sfmask;
	svm->vmcb->control.int_state = 0;
}

static void load_guest(struct svm_vcpu *svm)
{
	struct dune_vcpu *vcpu = &svm->vcpu;
	const struct dune_regs *regs = &vcpu->regs;
	struct vmcb_control_area *control = &svm->vmcb->control;
	struct vmcb_save_area *save = &svm->vmcb->save;
	const bool debugs = dune_vcpu_debugs(vcpu);

	if (vcpu->state_dirty)
		load_state(svm);
	if (vcpu->flat_cs)
		set_flat(&save->cs, regs->cs, ATTRIB_CODE64);
	if (vcpu->flat_ss && regs->ss >= 4)
		set_flat(&save->ss, regs->ss, ATTRIB_DATA);
	else if (vcpu->flat_ss)
		set_segment(&save->ss, regs->ss, 0, 0, 0);
	vcpu->state_dirty = vcpu->flat_cs = vcpu->flat_ss = false;

	/* #AC and #MC always; #NM, which says what the processor keeps for the host (XFD_ERR). */
	control->intercepts[INTERCEPT_EXCEPTION] = BIT(X86_TRAP_AC) | BIT(X86_TRAP_MC) |
						   BIT(X86_TRAP_NM) | vcpu->state.exceptions |
						   (debugs ? BIT(X86_TRAP_DB) : 0);
	save->cpl = regs->cs & 3;
	save->rax = regs->rax;
	save->rsp = regs->rsp;
	/* What blocked interrupts behind an instruction does not behind another. */
	if (save->rip != regs->rip)
		control->int_state = 0;
	save->rip = regs->rip;
	save->rflags = regs->rflags;
	save->fs.base = regs->fs_base;
	save->gs.base = regs->gs_base;
	save->kernel_gs_base = regs->kernel_gs_base;
	save->cr2 = regs->cr2;
	save->cr3 = regs->cr3;
	save->dr6 = vcpu->debug.status ? DR6_NONE : regs->dr6;
	save->dr7 = debugs ? vcpu->debug.dr7 : DR7_OFF;
	control->event_inj = 0;
	if (vcpu->event.flags & DUNE_EVENT_VALID) {
		control->event_inj = vcpu->event.vector | SVM_EVTINJ_TYPE_EXEPT | SVM_EVTINJ_VALID;
		if (vcpu->event.flags & DUNE_EVENT_ERROR_CODE) {
			control->event_inj |= SVM_EVTINJ_VALID_ERR;
			control->event_inj_err = vcpu->event.error_code;
		}
	}
	control->clean = 0;
}

static void store_guest(struct svm_vcpu *svm)
{
	struct dune_regs *regs = &svm->vcpu.regs;
	const struct vmcb_save_area *save = &svm->vmcb->save;

	regs->rax = save->rax;
	regs->rsp = save->rsp;
	regs->rip = save->rip;
	regs->rflags = save->rflags;
	regs->cs = save->cs.selector;
	regs->ss = save->ss.selector;
	regs->fs_base = save->fs.base;
	regs->gs_base = save->gs.base;
	regs->kernel_gs_base = save->kernel_gs_base;
	regs->cr2 = save->cr2;
	regs->cr3 = save->cr3;
	regs->dr6 = svm->vcpu.debug.status ? DR6_NONE : save->dr6;
}

/* The exception that was on its way when the guest was left. */
static void store_event(struct svm_vcpu *svm)
{
	const struct vmcb_control_area *control = &svm->vmcb->control;
	struct dune_event *event = &svm->vcpu.event;
	const u32 info = control->exit_int_info;
	const u8 vector = info & SVM_EXITINTINFO_VEC_MASK;

	*event = (struct dune_event){};
	if (!(info & SVM_EXITINTINFO_VALID))
		return;
	/*
	 * INT n, INT3 and INTO are executed again, for rip is still at them. Nothing else but
	 * exceptions is delivered in a guest that has no interrupts.
	 */
	if ((info & SVM_EXITINTINFO_TYPE_MASK) != SVM_EXITINTINFO_TYPE_EXEPT ||
	    vector == X86_TRAP_BP || vector == X86_TRAP_OF)
		return;
	event->vector = vector;
	event->flags = DUNE_EVENT_VALID;
	if (info & SVM_EXITINTINFO_VALID_ERR) {
		event->flags |= DUNE_EVENT_ERROR_CODE;
		event->error_code = control->exit_int_info_err;
	}
}

static void new_asid(struct svm_vcpu *svm, struct svm_cpu *cpu)
{
	if (cpu->next_asid >= cpu->asids) {
		cpu->asid_generation++;
		cpu->next_asid = 1;
		svm->vmcb->control.tlb_ctl = TLB_CONTROL_FLUSH_ALL_ASID;
	}
	svm->asid = cpu->next_asid++;
	svm->asid_generation = cpu->asid_generation;
}

/* A number for what the processor caches, which is nobody else's here; a new one has nothing. */
static void set_asid(struct svm_vcpu *svm, struct svm_cpu *cpu)
{
	struct vmcb_control_area *control = &svm->vmcb->control;

	control->tlb_ctl = TLB_CONTROL_DO_NOTHING;
	if (svm->vcpu.cpu != smp_processor_id() || svm->asid_generation != cpu->asid_generation)
		new_asid(svm, cpu);
	else if (svm->vcpu.flush && boot_cpu_has(X86_FEATURE_FLUSHBYASID))
		control->tlb_ctl = TLB_CONTROL_FLUSH_ASID;
	else if (svm->vcpu.flush)
		new_asid(svm, cpu);
	if (svm->vcpu.flush)
		svm->flushed = svm->vcpu.generation;
	/* Emulators forget everything at each entry: there only this shows a flush that is missing. */
	WARN_ON_ONCE(svm->flushed != svm->vcpu.generation);
	svm->vcpu.flush = false;
	control->asid = svm->asid;
}

static void forbidden(struct dune_hw_exit *exit, u8 vector)
{
	exit->kind = DUNE_KIND_FORBIDDEN;
	exit->vector = vector;
}

static void store_exception(struct svm_vcpu *svm, u8 vector)
{
	const struct vmcb_control_area *control = &svm->vmcb->control;
	struct dune_hw_exit *exit = &svm->vcpu.exit;

	exit->kind = DUNE_KIND_EXCEPTION;
	exit->vector = vector;
	exit->error_code = control->exit_info_1;
	switch (vector) {
	case X86_TRAP_MC:
		/* The host's. Its handler was not called, so we do. */
		dune_handle_machine_check();
		exit->kind = DUNE_KIND_AGAIN;
		break;
	case X86_TRAP_DB:
		/* The processor has set DR6, which it entered the guest with no bit of. */
		exit->debug = svm->vmcb->save.dr6 & (DR_TRAP_BITS | DR_STEP);
		break;
	case X86_TRAP_PF:
		svm->vcpu.regs.cr2 = control->exit_info_2;
		break;
	case X86_TRAP_NM:
		if (boot_cpu_has(X86_FEATURE_XFD))
			wrmsrl(MSR_IA32_XFD_ERR, 0);
		break;
	}
}

/* Until it reads one it does without: they are slow to write. Then it tries again. */
static void show_debug(struct svm_vcpu *svm)
{
	unsigned int i;

	svm->shows_debug = true;
	for (i = 0; i < 4; i++)
		pass(&svm->vmcb->control, INTERCEPT_DR0_READ + i);
}

static void store_exit(struct svm_vcpu *svm)
{
	const struct vmcb_control_area *control = &svm->vmcb->control;
	struct dune_hw_exit *exit = &svm->vcpu.exit;
	const u32 code = control->exit_code;

	exit->detail = (u64)control->exit_code_hi << 32 | code;
	switch (code) {
	case SVM_EXIT_INTR:
	case SVM_EXIT_NMI: /* taken at STGI */
	case SVM_EXIT_SMI:
	case SVM_EXIT_INIT:
		exit->kind = DUNE_KIND_INTERRUPT;
		break;
	case SVM_EXIT_NPF:
		exit->kind = DUNE_KIND_NESTED_FAULT;
		exit->gpa = control->exit_info_2;
		if (control->exit_info_1 & X86_PF_WRITE)
			exit->access |= DUNE_ACCESS_WRITE;
		if (control->exit_info_1 & X86_PF_INSTR)
			exit->access |= DUNE_ACCESS_EXECUTE;
		break;
	case SVM_EXIT_VMMCALL:
		exit->kind = DUNE_KIND_HYPERCALL;
		exit->skipped = true;
		/* Older processors do not say how long it was; prefixes are the guest's own affair. */
		svm->vcpu.regs.rip = boot_cpu_has(X86_FEATURE_NRIPS) ? control->next_rip :
								       svm->vmcb->save.rip + VMMCALL_SIZE;
		break;
	case SVM_EXIT_EXCP_BASE ... SVM_EXIT_EXCP_BASE + 31:
		store_exception(svm, code - SVM_EXIT_EXCP_BASE);
		break;
	case SVM_EXIT_READ_DR0 ... SVM_EXIT_READ_DR0 + 3:
		show_debug(svm);
		exit->kind = DUNE_KIND_AGAIN;
		break;
	case SVM_EXIT_SHUTDOWN:
		exit->kind = DUNE_KIND_SHUTDOWN;
		break;
	case SVM_EXIT_ERR:
		exit->kind = DUNE_KIND_FAILED;
		break;
	/* What a processor without SVM does not know, or a guest without the feature. */
	case SVM_EXIT_INVLPGA:
	case SVM_EXIT_RSM:
	case SVM_EXIT_VMRUN:
	case SVM_EXIT_VMLOAD:
	case SVM_EXIT_VMSAVE:
	case SVM_EXIT_STGI:
	case SVM_EXIT_CLGI:
	case SVM_EXIT_SKINIT:
	case SVM_EXIT_MONITOR:
	case SVM_EXIT_MWAIT:
	case SVM_EXIT_MWAIT_COND:
	case SVM_EXIT_RDPRU:
		forbidden(exit, X86_TRAP_UD);
		break;
	default:
		forbidden(exit, X86_TRAP_GP);
	}
}

static void svm_run_irqoff(struct dune_vcpu *vcpu)
{
	struct svm_vcpu *svm = container_of(vcpu, struct svm_vcpu, vcpu);
	struct svm_cpu *cpu = this_cpu_ptr(&svm_cpus);

	load_guest(svm);
	set_asid(svm, cpu);
	if (dune_vcpu_debugs(vcpu) || svm->shows_debug)
		dune_load_breakpoints(vcpu);
	/* Ring 0 of a guest may execute XRSTORS. */
	if (host_xss)
		wrmsrl(MSR_IA32_XSS, 0);

	svm_enter(__sme_set(__pa(svm->vmcb)), &vcpu->regs, __sme_set(page_to_phys(cpu->host_vmcb)));

	if (host_xss)
		wrmsrl(MSR_IA32_XSS, host_xss);
	/* It has the guest's bits now, which the host's next #DB would take for its own. */
	if (svm->vmcb->save.dr6 != DR6_NONE)
		native_set_debugreg(6, DR6_NONE);
	/* The processor has switched the host's breakpoints off, and we have taken their registers. */
	if (hw_breakpoint_active())
		hw_breakpoint_restore();
	if (svm->vmcb->control.exit_code != SVM_EXIT_ERR) {
		store_guest(svm);
		store_event(svm);
	} else {
		/* What was to be flushed at the entry is still there. */
		vcpu->flush = true;
	}
	store_exit(svm);
}

const struct dune_cpu_ops svm_ops = {
	.name = "SVM",
	.format = &svm_format,
	.levels = svm_levels,
	.mitigate = svm_mitigate,
	.setup = svm_setup,
	.teardown = svm_teardown,
	.enable_irqoff = svm_enable_irqoff,
	.disable_irqoff = svm_disable_irqoff,
	.create = svm_create,
	.free = svm_free,
	.run_irqoff = svm_run_irqoff,
};
