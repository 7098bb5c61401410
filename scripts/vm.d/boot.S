// Starts the kernel in scripts/vm_bochs.py's machine, where this is the video adapter's ROM at 0xc0000: the BIOS calls it when it has made
// the tables of ACPI, before it has looked for disks and waited for keys. Puts the pieces of the first ATA disk where they belong in
// memory, and starts the kernel by its PVH entry (Linux: arch/x86/platform/pvh; Xen: hvm/start_info.h), where nothing has to be unpacked.
//
// Behind the code is a table, 32 bits each: first sector, address and number of sectors of a piece; after the last what the kernel is to
// find in ebx, its entry, and 0. Who appends it sets the ROM's size and its sum.
	.set kData, 0x1f0		// the disk's ports
	.set kSectors, 0x1f2		// behind it, a byte each, the number of the first sector and the device
	.set kCommand, 0x1f7		// written; read it is the status
	.set kRead, 0x20
	.set kBusyOrData, 0x88		// of the status, and
	.set kDataOnly, 0x08

	.code16
	.globl _start
_start:
	.byte 0x55, 0xaa, 0		// of a ROM: called behind this, by far call in real mode
	cli
	cld
	inb $0x92, %al			// address line 20
	orb $2, %al
	outb %al, $0x92
	lgdtl %cs:(gdt_pointer - _start)
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	ljmpl $8, $protected

	.code32
protected:
	movw $16, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movl $0x7c00, %esp
	movl $table, %esi
next_piece:
	lodsl
	movl %eax, %ebx			// the sector to begin with
	lodsl
	movl %eax, %edi
	lodsl
	movl %eax, %ebp			// how many are left
	testl %eax, %eax
	jz done
next_command:
	movl $255, %ecx			// as many as a command takes
	cmpl %ecx, %ebp
	cmovbl %ebp, %ecx
	movl $kSectors, %edx
	movb %cl, %al
	outb %al, %dx
	movl %ebx, %eax
	orl $0xe0000000, %eax		// the first disk, its sectors counted through
	.rept 4
	incl %edx
	outb %al, %dx
	shrl $8, %eax
	.endr
	incl %edx
	movb $kRead, %al
	outb %al, %dx
	addl %ecx, %ebx
	subl %ecx, %ebp
next_sector:
	pushl %ecx
	movl $kCommand, %edx
wait:
	inb %dx, %al
	andb $kBusyOrData, %al
	cmpb $kDataOnly, %al
	jne wait
	movl $kData, %edx
	movl $128, %ecx
	rep insl
	popl %ecx
	loop next_sector
	testl %ebp, %ebp
	jnz next_command
	jmp next_piece
done:
	jmp *%edi

	.balign 8
gdt:
	.quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
	.word . - gdt - 1
	.long gdt
	.balign 4
table:
