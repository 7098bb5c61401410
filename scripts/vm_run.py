#!/usr/bin/env python3
"""Runs a command in an emulated machine that has /dev/kvm. The machine lives in memory, as long as the command.
scripts/vm calls it with the build folder; docs/testing.md says how to use it."""

import argparse
import contextlib
import fcntl
import os
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
import tty
from pathlib import Path

from vm_bochs import Bochs
from vm_image import Image
from vm_machine import MACHINE_FAILED, Failure
from vm_module import DoesNotBuild, module
from vm_parts import BUILT_KERNELS, KERNELS, NotAvailable, Parts
from vm_qemu import Qemu

MACHINES = {"qemu": Qemu, "bochs": Bochs}

# Exit statuses of our own; the others are the command's.
TIMED_OUT, NOT_AVAILABLE, NOT_EXECUTABLE, NOT_FOUND = 124, 77, 126, 127

# What a program of the build tree opens by itself, as far as it is there: what lies beside it, or a library.
COMPANIONS = {"ddbg": ["ddbg-keeper", "/usr/lib/x86_64-linux-gnu/libcapstone.so.4"]}
CONSOLE_KEPT = 16384  # bytes: the end of the kernel's messages, shown when the machine fails
FRAME_HEAD = struct.Struct("<cI")
COUNT = struct.Struct("<I")


def say(text):
    print(f"vm: {text}", file=sys.stderr, flush=True)


# --- options ------------------------------------------------------------------------------------------------------------


def parse_arguments():
    parser = argparse.ArgumentParser(prog="scripts/vm", description="Runs a command in an emulated machine that has /dev/kvm.")
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    modes = parser.add_subparsers(dest="mode", required=True, metavar="|".join([*MACHINES, "prepare"]))
    prepare = modes.add_parser("prepare", help="only download and make what the machines are made of; prints where it is")
    prepare.add_argument("--machine", choices=MACHINES, action="append")
    prepare.add_argument("--kernel", choices=[*KERNELS, *BUILT_KERNELS], action="append", help="(those of Debian; one that is built takes long)")
    for name, machine in MACHINES.items():
        mode = modes.add_parser(name, help="run a command, or a shell", description=machine.DESCRIPTION)
        add_options(mode, machine)
        machine.add_options(mode)
    arguments = parser.parse_args()
    if arguments.mode in MACHINES:
        MACHINES[arguments.mode].check_options(arguments, parser)
    return arguments


def add_options(parser, machine):
    """Those that every machine has."""
    parser.add_argument("--kernel", choices=[*KERNELS, *BUILT_KERNELS], default="6.1", help="(6.1)")
    parser.add_argument("--kvm", choices=("on", "off"), help="load kvm, which makes /dev/kvm and keeps others off the processor (on; with --dune off)")
    parser.add_argument("--dune", action="store_true", help="load dune.ko, built for that kernel if need be, which makes /dev/dune")
    parser.add_argument("--mitigations", choices=("on", "off"), default="off", help="the kernel's, for flaws of processors (off)")
    parser.add_argument("--smp", type=int, default=1, metavar="N", help="processors (1)")
    parser.add_argument("--memory", type=int, metavar="MB", help="(what the kernel needs and twice the files that go in)")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help=f"({machine.PATIENCE}; none with a terminal)")
    parser.add_argument("--add", action="append", default=[], metavar="FILE[:PATH]", help="a file or folder that the command needs")
    parser.add_argument("--console", action="store_true", help="the kernel's messages on standard error")
    parser.add_argument("--time", action="store_true", help="say how long it took until the command started")
    parser.add_argument("command", nargs="*", metavar="-- COMMAND",
                        help="of the build tree or of this machine; arguments that are files here are files there")


def find_program(name, build):
    """A program's path here, or None if busybox has it."""
    if "/" in name:
        path = name
    else:
        path = in_build_tree(name, build) or shutil.which(name)
    if path and os.path.isfile(path):
        if not os.access(path, os.X_OK):
            raise Failure(NOT_EXECUTABLE, f"{path} is not executable")
        return os.path.abspath(path)
    return None


def in_build_tree(name, build):
    for folder, folders, files in os.walk(build):
        folders[:] = [f for f in folders if f != "CMakeFiles" and not f.endswith("-cache")]
        path = os.path.join(folder, name)
        if name in files and os.access(path, os.X_OK):
            return path
    return None


def sources_of(path, ddbg):
    """The source files of a program that ddbg is to show, but for the system's."""
    listed = subprocess.run([ddbg, "-q", "-nx", "-batch", "-ex", "info sources", path], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout
    files = [os.fsdecode(line.strip()) for line in listed.splitlines() if line.startswith(b"  ")]
    return [name for name in files if not name.startswith("/usr/") and os.path.isfile(name)]


def add_modules(image, arguments, parts):
    """What the machine's init loads, in this order: a name is "MODULE.ko", or with its parameters "MODULE.ko PARAMETERS"."""
    machine = MACHINES[arguments.mode]
    with_kvm = arguments.kvm == "on" or (arguments.kvm is None and not arguments.dune)
    files = [(f"{name}.ko", file) for name, file in parts.modules(arguments.kernel, machine.MODULES + ((machine.KVM,) if with_kvm else ())).items()]
    if arguments.dune:
        files.append((" ".join(("dune.ko", *machine.DUNE_PARAMETERS)), build_dune(arguments.kernel, parts)))
        if machine.DUNE_PARAMETERS:
            say(f"dune.ko is loaded with {' '.join(machine.DUNE_PARAMETERS)}: {machine.WHY_DUNE_PARAMETERS}")
    image.add_folder("/vm/modules")
    for number, (name, file) in enumerate(files):
        image.add_content(f"/vm/modules/{number:02}-{name}", file.read_bytes())


def build_dune(series, parts):
    try:
        return module(parts, series)
    except DoesNotBuild as error:
        raise Failure(MACHINE_FAILED, f"dune.ko does not build for {series}:\n{error}") from error


def add_with_companions(image, source, path=None, stripped=False):
    image.add_file(source, path, stripped)
    for name in COMPANIONS.get(os.path.basename(source), ()):
        companion = os.path.join(os.path.dirname(source), name)
        if os.path.exists(companion):
            image.add_file(companion, os.path.join(os.path.dirname(path or source), name), stripped)


def make_image(arguments, parts, terminals):
    image = Image()
    command = arguments.command or ["sh"]
    busybox = parts.busybox()
    applets = subprocess.run([busybox, "--list"], stdout=subprocess.PIPE, check=True, text=True).stdout.split()
    program = find_program(command[0], arguments.build)
    if program:
        add_with_companions(image, program, stripped=True)
    elif command[0] not in applets:
        raise Failure(NOT_FOUND, f"there is no program {command[0]} here, in {arguments.build} or in busybox")
    for argument in command[1:]:
        if os.path.isfile(argument):
            image.add_file(argument)
            if os.path.basename(program or "") == "ddbg":
                for source in sources_of(argument, program):
                    image.add_file(source)
    for added in arguments.add:
        source, _, path = added.partition(":")
        if not os.path.exists(source):
            raise Failure(NOT_FOUND, f"there is no {source} to add")
        add_with_companions(image, os.path.abspath(source), path or None)

    image.add_content("/init", parts.init().read_bytes())
    machine = MACHINES[arguments.mode]
    add_modules(image, arguments, parts)
    image.add_content("/usr/bin/busybox", busybox.read_bytes())
    for name in applets:
        image.add_link(f"/bin/{name}", "busybox")
    image.add_content("/etc/passwd", b"root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n", 0o644)
    image.add_content("/etc/group", b"root:x:0:\nnogroup:x:65534:\n", 0o644)
    for folder in ("/root", os.getcwd()):
        image.add_folder(folder)

    environment = {"PATH": "/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin", "HOME": "/root", "SHELL": "/bin/sh"}
    rows, columns = 0, 0
    if terminals[0]:
        rows, columns = terminal_size()
        environment["TERM"] = os.environ.get("TERM", "linux")
        for database in ("/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo"):
            description = f"{database}/{environment['TERM'][0]}/{environment['TERM']}"
            if os.path.isfile(description):
                image.add_file(description)
    job = [machine.PORT, "".join("t" if terminal else "p" for terminal in terminals), rows, columns, os.getcwd(), len(command), program or command[0],
           *command[1:], *(f"{name}={value}" for name, value in environment.items())]
    image.add_content("/vm/job", b"".join(os.fsencode(str(word)) + b"\0" for word in job))
    return image


# --- the command ------------------------------------------------------------------------------------------------------


class Session:
    """Carries bytes between us and the command until it ends."""

    def __init__(self, machine, arguments, terminals):
        self.machine = machine
        self.arguments = arguments
        self.began, self.running = time.monotonic(), False
        self.limit = arguments.timeout or (None if terminals[0] else machine.PATIENCE)
        self.received = bytearray()
        self.room, self.resized = 0, False  # bytes that we may send, in one frame; the terminal has another size than was told
        self.console_end = b""
        self.ending = None
        self.events = selectors.DefaultSelector()
        self.events.register(machine.output, selectors.EVENT_READ, self.take_frames)
        self.events.register(machine.console, selectors.EVENT_READ, self.take_console)
        self.wakeup = None
        if terminals[0]:
            # Python's handlers run between two of its instructions, also between the halves of a frame; this pair is read in turn.
            self.wakeup, write = socket.socketpair()
            for end in (self.wakeup, write):
                end.setblocking(False)
            self.write_wakeup = write
            signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
            signal.signal(signal.SIGWINCH, lambda *_: None)
            self.events.register(self.wakeup, selectors.EVENT_READ, self.take_signals)

    def run(self):
        """The command's exit status as a shell would have it."""
        while self.ending is None:
            left = self.limit and self.began + self.limit - time.monotonic()
            if left is not None and left <= 0:
                what = "the command did not end" if self.running else "the machine did not start the command"
                raise Failure(TIMED_OUT, f"{what} within {self.limit:g} s")
            for key, _ in self.events.select(left):
                key.data()
        kind, _, number = self.ending.partition(" ")
        if kind == "exit":
            return int(number)
        if kind == "signal":
            say(f"the command was killed by signal {number} ({signal.strsignal(int(number))})")
            return 128 + int(number)
        raise Failure(MACHINE_FAILED, f"the machine could not run the command: {self.ending}")

    def send(self, kind, payload):
        self.room = 0
        # If the machine is gone the reading side says so.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            write_all(self.machine.input, FRAME_HEAD.pack(kind, len(payload)) + payload)

    def take_frames(self):
        chunk = receive(self.machine.output)
        if not chunk:
            self.machine_is_gone()
        self.received += chunk
        while len(self.received) >= FRAME_HEAD.size:
            kind, size = FRAME_HEAD.unpack_from(self.received)
            if len(self.received) < FRAME_HEAD.size + size:
                break
            payload = bytes(self.received[FRAME_HEAD.size:FRAME_HEAD.size + size])
            del self.received[:FRAME_HEAD.size + size]
            self.FRAMES[kind](self, payload)

    def command_starts(self, _):
        if self.arguments.time:
            say(f"{time.monotonic() - self.began:.2f} s to the command")
        self.running = True

    def may_send(self, payload):
        (self.room,) = COUNT.unpack(payload)
        if self.resized:
            self.send_size()
        elif sys.stdin is None:
            self.send(b"i", b"")
        else:
            try:
                self.events.register(0, selectors.EVENT_READ, self.take_input)
            except PermissionError:  # a regular file, which epoll does not take, is always ready
                self.take_input()

    def take_input(self):
        self.stop_input()
        try:
            chunk = os.read(0, self.room)
        except OSError:
            chunk = b""
        self.send(b"i", chunk)

    def stop_input(self):
        with contextlib.suppress(KeyError):
            self.events.unregister(0)

    def send_size(self):
        self.stop_input()
        self.resized = False
        self.send(b"w", struct.pack("<HH", *terminal_size()))

    def ended(self, payload):
        self.ending = payload.decode()

    FRAMES = {b"r": command_starts, b"n": may_send, b"x": ended,
              b"o": lambda self, payload: write_all(1, payload), b"e": lambda self, payload: write_all(2, payload)}

    def take_console(self):
        chunk = receive(self.machine.console)
        if not chunk:
            self.events.unregister(self.machine.console)
            return
        self.console_end = (self.console_end + chunk)[-CONSOLE_KEPT:]
        if self.arguments.console:
            write_all(2, chunk)

    def take_signals(self):
        self.wakeup.recv(4096)
        self.resized = True
        if self.room:
            self.send_size()

    def machine_is_gone(self):
        while self.machine.console in (key.fileobj for key in self.events.get_map().values()):
            self.take_console()
        why = self.machine.why_it_stopped(self.console_end)
        if self.console_end and not self.arguments.console:
            sys.stderr.write(self.console_end.decode(errors="replace").replace("\r", ""))
        raise Failure(MACHINE_FAILED, why)


def receive(fd):
    """Nothing when the machine is gone, one way or the other."""
    try:
        return os.read(fd, 1 << 16)
    except ConnectionResetError:
        return b""


def write_all(fd, data):
    while data:
        data = data[os.write(fd, data):]


# --- our terminal -------------------------------------------------------------------------------------------------------


def terminal_size():
    return struct.unpack("HHHH", fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))[:2]


@contextlib.contextmanager
def raw_terminal():
    """What is typed goes to the machine's terminal as it is: echo, editing and Ctrl-C are its affair."""
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def end_by_signal(number, _):
    sys.exit(128 + number)


def run(arguments):
    parts = Parts(say)
    # For output and errors: the terminal, or a pipe. Without a terminal to type at there is none.
    terminals = [os.isatty(0) and os.isatty(1), os.isatty(0) and os.isatty(1) and os.isatty(2)]
    archive = make_image(arguments, parts, terminals).archive()
    with contextlib.closing(MACHINES[arguments.mode](arguments, parts, archive)) as machine:
        with raw_terminal() if terminals[0] else contextlib.nullcontext():
            return Session(machine, arguments, terminals).run()


def prepare(arguments):
    """All that can be had, also when something cannot."""
    parts = Parts(say)
    print(parts.folder, flush=True)
    status = 0
    wanted = [parts.busybox, parts.init, *(lambda series=series: parts.headers(series) for series in arguments.kernel or KERNELS),
              *(lambda name=name: MACHINES[name].prepare(parts) for name in arguments.machine or MACHINES)]
    if not arguments.machine:
        wanted.append(parts.dkms)
    for make in wanted:
        try:
            make()
        except NotAvailable as error:
            say(f"not available here: {error}")
            status = NOT_AVAILABLE
    return status


def main():
    arguments = parse_arguments()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end_by_signal)
    try:
        return prepare(arguments) if arguments.mode == "prepare" else run(arguments)
    except NotAvailable as error:
        say(f"not available here: {error}")
        return NOT_AVAILABLE
    except Failure as error:
        say(str(error))
        return error.status
    except BrokenPipeError:
        return 128 + signal.SIGPIPE


if __name__ == "__main__":
    sys.exit(main())
