"""Bochs: an Intel processor with VMX, EPT and VPID, an instruction at a time."""

import contextlib
import os
import re
import struct
import tty

from vm_machine import MACHINE_FAILED, Failure, Machine, memory_file, parameters
from vm_parts import KERNELS

# Half of the instructions until the command: a search for functions that nobody traces, a test of the processor's jitter, and who make the
# kernel read its own BTF.
MORE_SKIPPED_INITCALLS = ("ftrace_check_for_weak_functions", "jent_mod_init", "btf_module_init", "cubictcp_register", "kfunc_init",
                          "bpf_dummy_struct_ops_init", "bpf_key_sig_kfuncs_init", "bpf_prog_test_run_init", "bpf_tcp_ca_kfunc_init",
                          "bpf_rstat_kfunc_init", "cpumask_kfunc_init", "bpf_kfunc_init", "bpf_fs_kfuncs_init")
INSTRUCTIONS = 50_000_000  # in one second of the machine; its time stamp counter counts them
XSAVEC, XSAVES = 321, 323  # the kernel's numbers of what Bochs 2.7 has a wrong CPUID for, so that the kernel would go without XSAVE, too
# Beside what every machine has. Waiting for a device takes nothing (lpj). A restart is a triple fault, which ends Bochs.
MORE_PARAMETERS = ("lpj=4000", "8250.nr_uarts=2", "rcupdate.rcu_expedited=1", "audit=0", "apparmor=0", "lsm=", "random.trust_cpu=on",
                   "swiotlb=noforce", "noresume", "reboot=triple", f"clearcpuid={XSAVEC},{XSAVES}", f"tsc_early_khz={INSTRUCTIONS // 1000}",
                   "initcall_blacklist=" + ",".join(MORE_SKIPPED_INITCALLS))
CONFIGURATION = """\
cpu: model=corei7_skylake_x, count={processors}, ips={instructions}, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest={memory}, host={memory}
romimage: file={part}/BIOS-bochs-latest
vgaromimage: file={rom}
display_library: term
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
plugin_ctrl: es1370=0, sb16=0, voodoo=0, e1000=0, usb_uhci=0, usb_ohci=0, usb_ehci=0, usb_xhci=0, speaker=0, ne2k=0, gameport=0
ata0-master: type=disk, path={disk}, mode=flat, cylinders=0
clock: sync=none
panic: action=fatal
com1: enabled=1, mode=file, dev={console}
com2: enabled=1, mode=term, dev={input}
parport1: enabled=1, file={output}
log: /dev/null
"""
SECTOR, CYLINDER = 512, 16 * 63 * 512  # bytes; Bochs wants a disk of whole cylinders, and a ROM of whole sectors
START_INFO = 0x8000  # where the kernel's start information goes
E820_MEMORY, E820_RESERVED, E820_ACPI = 1, 2, 3
MOST_MEMORY = 2048  # MB, all of it below what the devices have
ACPI_TABLES = 0x10000  # bytes at the end of memory, where the BIOS has put them


class Bochs(Machine):
    DESCRIPTION = "Runs a command in Bochs' emulated Intel processor, which is slow and has VMX and EPT."
    KVM = "kvm-intel"
    DUNE_PARAMETERS = ("unsafe_cpu=1",)
    WHY_DUNE_PARAMETERS = "this processor has flaws by which a guest could read other memory, and the module does not load there otherwise"
    PORT = "parallel"
    PATIENCE = 300

    @staticmethod
    def check_options(arguments, parser):
        if arguments.memory and arguments.memory > MOST_MEMORY:
            parser.error(f"--memory is at most {MOST_MEMORY} here")
        if arguments.kernel not in KERNELS:
            parser.error(f"--kernel {arguments.kernel} is for qemu: here it would take hours")

    @staticmethod
    def prepare(parts):
        parts.bochs()
        parts.loader()

    def __init__(self, arguments, parts, archive):
        super().__init__()
        part = parts.bochs()
        kernel = (parts.kernel(arguments.kernel) / "vmlinux").read_bytes()
        with contextlib.ExitStack() as passed:
            self.console, console = self._pipe(passed)
            self.output, output = self._pipe(passed)
            self.input, line = self._line(passed)
            memory = arguments.memory or (kernel_end(kernel) >> 20) + 96 + 2 * (len(archive) >> 20)
            disk, disk_path = memory_file("disk", b"", passed)
            table = write_disk(disk, kernel, archive, memory << 20, " ".join((*parameters(arguments), *MORE_PARAMETERS)))
            rom, rom_path = memory_file("rom", make_rom(parts.loader().read_bytes() + table), passed)
            configuration, configuration_path = memory_file("configuration", CONFIGURATION.format(
                processors=arguments.smp, instructions=INSTRUCTIONS, memory=memory, part=part, disk=disk_path, rom=rom_path,
                console=f"/proc/self/fd/{console}", input=f"/proc/self/fd/{line}", output=f"/proc/self/fd/{output}").encode(), passed)
            # Debian's is built with its debugger, which waits for this.
            debugger, debugger_path = memory_file("debugger", b"continue\n", passed)
            environment = dict(os.environ, TERM="linux", LTDL_LIBRARY_PATH=str(part / "plugins"), LD_LIBRARY_PATH=str(part / "lib"))
            self.start([str(part / "bochs-bin"), "-q", "-f", configuration_path, "-rc", debugger_path],
                       (console, output, line, disk, rom, configuration, debugger), environment)

    def _pipe(self, passed):
        ours, theirs = os.pipe()
        self.ours.callback(os.close, ours)
        passed.callback(os.close, theirs)
        return ours, theirs

    def _line(self, passed):
        """A serial line is a terminal: Bochs takes nothing else that can be read."""
        ours, theirs = os.openpty()
        self.ours.callback(os.close, ours)
        passed.callback(os.close, theirs)
        tty.setraw(theirs)
        return ours, theirs

    def why_it_stopped(self, console):
        said = re.findall(r"following message:\n\[[^]]*\] *(.*)", self.complaint())
        complaint = said[-1] if said else "it says nothing"
        status = self.process.wait()
        if status < 0:
            return f"Bochs was killed by signal {-status}"
        if b"Kernel panic" in console:
            return "the machine's kernel panicked"
        if "soft power off" in complaint or b"reboot: Restarting system" in console:
            return "the machine stopped by itself"
        if "exception with no resolution" in complaint:
            return "the machine's processor shut down: a fault in the handling of a double fault (triple fault)"
        return f"Bochs failed: {complaint}"


# --- the disk and what reads it ----------------------------------------------------------------------------------


def segments(kernel):
    """The address and content of what an ELF file has loaded."""
    for kind, offset, address, size, memory in program_headers(kernel):
        if kind == 1:  # PT_LOAD
            yield address, kernel[offset:offset + size] + bytes(memory - size)


def program_headers(kernel):
    start, size, count = (int.from_bytes(kernel[at:at + length], "little") for at, length in ((32, 8), (54, 2), (56, 2)))
    for header in range(start, start + size * count, size):
        kind, _, offset, _, address, in_file, in_memory = struct.unpack_from("<IIQQQQQ", kernel, header)
        yield kind, offset, address, in_file, in_memory


def kernel_end(kernel):
    return max(address + len(content) for address, content in segments(kernel))


def pvh_entry(kernel):
    """Where a kernel starts that finds its start information in ebx, in 32-bit mode without paging: a note of Xen's."""
    for kind, offset, _, size, _ in program_headers(kernel):
        at = offset
        while kind == 4 and at < offset + size:  # PT_NOTE
            name, described, number = struct.unpack_from("<III", kernel, at)
            text, at = kernel[at + 12:at + 12 + name], at + 12 + (name + 3 & ~3)
            if (text, number) == (b"Xen\0", 18):  # XEN_ELFNOTE_PHYS32_ENTRY
                return int.from_bytes(kernel[at:at + described], "little")
            at += described + 3 & ~3
    raise Failure(MACHINE_FAILED, "the kernel has no PVH entry, by which the loader starts it")


def start_information(archive_at, archive_size, memory, command_line):
    """struct hvm_start_info, and what it refers to."""
    areas = ((0, 0x9F000, E820_MEMORY), (0x9F000, 0x61000, E820_RESERVED), (0x100000, memory - ACPI_TABLES - 0x100000, E820_MEMORY),
             (memory - ACPI_TABLES, ACPI_TABLES, E820_ACPI))
    info, module, area = struct.Struct("<4I4Q2I"), struct.Struct("<4Q"), struct.Struct("<2Q2I")
    modules_at = START_INFO + info.size
    areas_at = modules_at + module.size
    command_line_at = areas_at + len(areas) * area.size
    return b"".join((info.pack(0x336EC578, 1, 0, 1, modules_at, command_line_at, 0, areas_at, len(areas), 0),
                     module.pack(archive_at, archive_size, 0, 0), *(area.pack(*place, 0) for place in areas), command_line.encode(), b"\0"))


def write_disk(disk, kernel, archive, memory, command_line):
    """What is to be in memory; the table of it for vm.d/boot.S."""
    archive_at = memory - ACPI_TABLES - len(archive) & ~0xFFF
    if archive_at < kernel_end(kernel):
        raise Failure(MACHINE_FAILED, f"{memory >> 20} MB are too few for the kernel and the files that go in (--memory)")
    pieces = [*segments(kernel), (archive_at, archive), (START_INFO, start_information(archive_at, len(archive), memory, command_line))]
    table, sector = bytearray(), 0
    for address, content in pieces:
        sectors = -(-len(content) // SECTOR)
        table += struct.pack("<3I", sector, address, sectors)
        os.pwrite(disk, content, sector * SECTOR)
        sector += sectors
    os.ftruncate(disk, -(-sector * SECTOR // CYLINDER) * CYLINDER)
    return table + struct.pack("<3I", START_INFO, pvh_entry(kernel), 0)


def make_rom(code):
    rom = bytearray(code.ljust(-(-(len(code) + 1) // SECTOR) * SECTOR, b"\0"))
    rom[2] = len(rom) // SECTOR
    rom[-1] = -sum(rom) & 0xFF
    return rom
