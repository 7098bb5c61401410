// A program without a library: writes a line and exits with 42.
    .globl _start
_start:
    mov $1, %eax
    mov $1, %edi
    lea line(%rip), %rsi
    mov $6, %edx
    syscall
    mov $231, %eax
    mov $42, %edi
    syscall
line:
    .ascii "hello\n"
    .section .note.GNU-stack, "", @progbits
