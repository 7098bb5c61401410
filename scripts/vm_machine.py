"""What the emulators of scripts/vm have in common. A machine runs an emulator of its own, which ends with us, however we end."""

import contextlib
import ctypes
import os
import signal
import subprocess

# What a kernel would do at its start and nobody here needs; half of the time to the command.
SKIPPED_INITCALLS = ("trace_eval_init", "btf_vmlinux_init", "init_kprobe_trace", "load_system_certificate_list", "crypto_kdf108_init",
                     "init_encrypted", "init_evm", "init_ima")
# The two about time: on a busy machine an emulated timer comes late, which the kernel takes for a broken one, and panics.
PARAMETERS = ("console=ttyS0", "quiet", "panic=-1", "nokaslr", "cryptomgr.notests", "init_on_alloc=0",
              "ipv6.disable=1", "no_timer_check", "tsc=reliable", "initcall_blacklist=" + ",".join(SKIPPED_INITCALLS))


def parameters(arguments):
    """What every machine's kernel is started with."""
    return [*PARAMETERS, *(["mitigations=off"] if arguments.mitigations == "off" else [])]


MACHINE_FAILED = 125  # our exit status


class Failure(Exception):
    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


class Machine:
    """Our ends of its connections are descriptors: `console` has the kernel's messages, `output` and `input` are the port of init.c.
    A subclass is an emulator, and says of itself what is listed here."""

    DESCRIPTION = None  # for --help
    MODULES = ()  # of the kernel, that its init loads with what they depend on
    KVM = None  # one more, which makes /dev/kvm
    DUNE_PARAMETERS = ()  # what dune.ko wants to be told here
    WHY_DUNE_PARAMETERS = None
    PORT = None  # how init.c reaches us, by its name there
    PATIENCE = None  # seconds for a command, if --timeout does not say

    @staticmethod
    def add_options(parser):
        """Those that no other machine has."""

    @staticmethod
    def check_options(arguments, parser):
        """Refuses, by parser.error, what it cannot do."""

    @staticmethod
    def prepare(parts):
        """Makes what it needs beside a kernel, or says by NotAvailable why it cannot be had."""

    def __init__(self):
        self.process = None
        self.ours = contextlib.ExitStack()

    def start(self, command, passed, environment=None):
        libc, parent = ctypes.CDLL(None), os.getpid()

        def die_with_us():
            libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGKILL)

        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                        start_new_session=True, preexec_fn=die_with_us, pass_fds=passed, env=environment)
        self.ours.callback(self.process.stderr.close)

    def close(self):
        if self.process:
            self.process.kill()
            self.process.wait()
        self.ours.close()

    def complaint(self):
        """What the emulator wrote before it ended."""
        return self.process.stderr.read().decode(errors="replace").strip()

    def why_it_stopped(self, console):
        """The connection is gone and the command's end was not heard of."""
        raise NotImplementedError


def memory_file(name, content, passed):
    """A file without a name, until `passed` is left; its number, and the path by which an emulator that was given it opens it."""
    fd = os.memfd_create(name)
    passed.callback(os.close, fd)
    with open(fd, "wb", buffering=0, closefd=False) as file:
        file.write(content)
    return fd, f"/proc/self/fd/{fd}"
