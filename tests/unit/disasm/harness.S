// Runs a piece of code with every general register, the flags and the vector state given, and captures
// them all at its end. Ring 3, on the stack that the given rsp names; the host's stack is put away in
// harness_host_rsp, so one run at a time. Offsets are those of struct Registers (arch/registers.h;
// harness.cpp asserts them).
	// XSAVE's x87, SSE, AVX and AVX-512 components: not AMX, which would not fit the buffers.
	.set VECTOR_COMPONENTS, 0xe7

	.bss
	.balign 64
	.globl harness_vectors_in, harness_vectors_out, harness_in, harness_out
harness_vectors_in:	.skip 4096
harness_vectors_out:	.skip 4096
harness_in:		.skip 208
harness_out:		.skip 208
	.globl harness_host_rsp
harness_host_rsp:	.skip 8

	.text
	.macro for_each_register op
	\op 0, rax
	\op 8, rdx
	\op 16, rcx
	\op 24, rbx
	\op 32, rsi
	\op 40, rdi
	\op 48, rbp
	\op 64, r8
	\op 72, r9
	\op 80, r10
	\op 88, r11
	\op 96, r12
	\op 104, r13
	\op 112, r14
	\op 120, r15
	\op 56, rsp
	.endm
	.macro load offset, register
	mov harness_in+\offset(%rip), %\register
	.endm
	.macro store offset, register
	mov %\register, harness_out+\offset(%rip)
	.endm

	// void harness_run(): to harness_in.rip
	.globl harness_run
	.type harness_run, @function
harness_run:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	mov %rsp, harness_host_rsp(%rip)
	mov $VECTOR_COMPONENTS, %eax
	xor %edx, %edx
	xrstor64 harness_vectors_in(%rip)
	pushq harness_in+136(%rip)
	popfq
	for_each_register load
	jmp *harness_in+128(%rip)

	// Where the code under test goes at its end, by jmp.
	.globl harness_capture
harness_capture:
	for_each_register store
	mov harness_host_rsp(%rip), %rsp
	pushfq
	popq harness_out+136(%rip)
	// A fault's handler has filled harness_out and comes here.
	.globl harness_leave
harness_leave:
	mov harness_host_rsp(%rip), %rsp
	cld
	mov $VECTOR_COMPONENTS, %eax
	xor %edx, %edx
	xsave64 harness_vectors_out(%rip)
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret
	.size harness_run, .-harness_run

	.section .note.GNU-stack,"",@progbits
