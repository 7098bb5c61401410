"""QEMU without acceleration: an AMD processor with SVM and nested paging."""

import contextlib
import ctypes
import mmap
import os
import shutil
import socket
import time

from vm_machine import Machine, memory_file, parameters
from vm_parts import KERNELS, NotAvailable

PROGRAM = "qemu-system-x86_64"
READ_TIME_STAMP = bytes.fromhex("0f31 48c1e220 4809d0 c3")  # rdtsc; shl $32, %rdx; or %rdx, %rax; ret


def time_stamps_per_millisecond():
    """Of this machine's counter, which QEMU's guests read. Their kernel would measure it against emulated timers, of which it is the slower
    the busier this machine: its clock then went six times too fast. None: it cannot be read here."""
    try:
        code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    code.write(READ_TIME_STAMP)
    stamp = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(code)))

    def read():
        """Both clocks, by the reading of ten that was interrupted least."""
        return min((time.perf_counter_ns() - begin, begin, at) for begin, at in ((time.perf_counter_ns(), stamp()) for _ in range(10)))[1:]

    begin, first = read()
    time.sleep(0.02)
    end, last = read()
    return (last - first) * 1_000_000 // (end - begin)


class Qemu(Machine):
    DESCRIPTION = "Runs a command in QEMU's emulated AMD processor."
    MODULES = ("virtio_pci", "virtio_console")
    KVM = "kvm-amd"
    PORT = "virtio"
    PATIENCE = 120

    @staticmethod
    def add_options(parser):
        parser.add_argument("--la57", choices=("on", "off"), default="off", help="five levels of page tables (off)")
        parser.add_argument("--pku", choices=("on", "off"), default="on", help="protection keys (on)")
        parser.add_argument("--smap", choices=("on", "off"), default="on",
                            help="off: programs may execute iret, whose stack QEMU before 9.1 reads as ring 0 does (on)")
        parser.add_argument("--icount", action="store_true", help="its clocks count instructions, one a nanosecond; one processor")

    @staticmethod
    def check_options(arguments, parser):
        if arguments.icount and arguments.smp != 1:
            parser.error("--icount is for one processor")

    @staticmethod
    def prepare(_):
        if not shutil.which(PROGRAM):
            raise NotAvailable(f"{PROGRAM} is not installed (as root: apt-get install qemu-system-x86)")

    def __init__(self, arguments, parts, archive):
        super().__init__()
        self.prepare(parts)
        kernel = parts.kernel(arguments.kernel)
        # One that looks for mistakes keeps a byte for eight, and what was freed.
        memory = arguments.memory or (384 if arguments.kernel in KERNELS else 1024) + 2 * (len(archive) >> 20)
        # Five levels are switched on by the code that unpacks a kernel; without that it starts half a second earlier.
        linux = kernel / ("vmlinuz" if arguments.la57 == "on" else "vmlinux")
        # One host thread for all processors: QEMU before 8.1 can translate kernel text that another processor is patching, and then
        # executes an int3 that is gone (a panic within minutes if VMs come and go: the first and the last patch the scheduler).
        accelerator = "tcg,thread=single"
        told = parameters(arguments)
        if not arguments.icount and (stamps := time_stamps_per_millisecond()):
            told.append(f"tsc_early_khz={stamps}")
        with contextlib.ExitStack() as passed:
            self.console, console = self._pair(passed)
            self.output, port = self._pair(passed)
            self.input = self.output
            initrd, initrd_path = memory_file("initrd", archive, passed)
            command = [PROGRAM, "-accel", accelerator, "-cpu", f"max,la57={arguments.la57},smap={arguments.smap},pku={arguments.pku}",
                       "-m", str(memory), "-smp", str(arguments.smp), "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-nic", "none",
                       "-no-reboot", *(["-icount", "shift=0,sleep=off"] if arguments.icount else []),
                       "-chardev", f"socket,id=console,fd={console}", "-serial", "chardev:console",
                       "-chardev", f"socket,id=port,fd={port}", "-device", "virtio-serial-pci",
                       "-device", "virtserialport,chardev=port,nr=1",
                       "-kernel", str(linux), "-initrd", initrd_path, "-append", " ".join(told)]
            self.start(command, (console, port, initrd))

    def _pair(self, passed):
        ours, theirs = socket.socketpair()
        self.ours.enter_context(ours)
        passed.enter_context(theirs)
        return ours.fileno(), theirs.fileno()

    def why_it_stopped(self, console):
        complaint = self.complaint()
        status = self.process.wait()
        if status < 0:
            return f"QEMU was killed by signal {-status}"
        if status > 0:
            return f"QEMU failed: {complaint}"
        if b"Kernel panic" in console:
            return "the machine's kernel panicked"
        return "the machine stopped by itself"
