"""Running things in the machine of scripts/vm, and looking for what it leaves behind."""
import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import unittest
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
from terminal import Terminal  # noqa: E402

VM = [sys.executable, "-B", os.environ["DDBG_VM"], "--build", os.environ["DDBG_BUILD"]]
DDBG = os.path.join(os.environ["DDBG_BUILD"], "dtrace-lite/ddbg/ddbg")
KEEPER = DDBG + "-keeper"
PATIENCE = 280  # seconds, for a start on a busy machine too: a failure, not a pace
NOT_AVAILABLE = 77
CACHE = MODULE = None  # main() and guest_main() set them


def adding(*paths):
    """scripts/vm's options for files that the command opens, as far as they are there."""
    return [word for path in paths if os.path.exists(path) for word in ("--add", str(path))]


def guest_options(backend="kvm"):
    """A parser of: which machine, and who makes the guests in it, by default `backend`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--machine", choices=("qemu", "bochs"), default="qemu")
    parser.add_argument("--backend", choices=("kvm", "kmod"), default=backend)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--la57", default="off")
    parser.add_argument("--smp", type=int, required=True)
    return parser


def arguments_of(parser):
    """What the command line says to the parser; the rest of it is unittest's."""
    options, sys.argv[1:] = parser.parse_known_args()
    return options


def left_out(options):
    """What left_out.txt has for guest_options."""
    found = []
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "left_out.txt"), encoding="utf-8") as file:
        for line in file:
            words, separator, why = line.partition(" -- ")
            if line.startswith("#"):
                continue
            if not separator or not why.strip() or len(words.split()) != 3:
                raise ValueError(f"left_out.txt: expected `MACHINE BACKEND TESTS -- REASON`, found `{line.strip()}`")
            name, backend, tests = words.split()
            if name in ("*", options.machine) and backend in ("*", options.backend):
                found.append(tests)
    return found


class MachineTest(unittest.TestCase):
    """Every process of a test carries a mark in its environment, and its temporary folder is its own."""

    MACHINE = "qemu"
    PATIENCE = PATIENCE

    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory(prefix="ddbg-vm-test.")
        self.addCleanup(self.scratch.cleanup)
        self.mark = f"DDBG_VM_TEST={uuid.uuid4()}"
        name, _, value = self.mark.partition("=")
        self.env = dict(os.environ, **{name: value, "TMPDIR": self.scratch.name, "DDBG_VM_CACHE": CACHE})

    def for_guests(self, options):
        """scripts/vm's arguments for guest_options."""
        arguments = [options.machine, "--kernel", options.kernel, "--smp", str(options.smp)]
        if options.machine == "qemu":  # the others have four levels
            arguments += ["--la57", options.la57]
        return arguments if options.backend == "kvm" else [*arguments, "--dune"]

    def patient(self, options):
        """scripts/vm's argument for a command that takes Bochs long; vm() waits as long."""
        patience = 270 if options.machine == "qemu" else 840
        self.PATIENCE = patience + 10
        return ["--timeout", str(patience)]

    def vm(self, *arguments, **keywords):
        keywords = {"stdin": subprocess.DEVNULL, **keywords} if "input" not in keywords else keywords
        done = subprocess.run([*VM, self.MACHINE, *arguments], env=self.env, capture_output=True, timeout=self.PATIENCE, check=False, **keywords)
        self.nothing_is_left()
        return done

    def start(self, *command):
        return subprocess.Popen([*VM, self.MACHINE, "--", *command], env=self.env, bufsize=0,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def processes(self, name):
        """Those of this test whose program has that name."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/environ", "rb") as environ, open(f"/proc/{pid}/comm", encoding="utf-8") as comm:
                    if self.mark.encode() in environ.read().split(b"\0") and comm.read().startswith(name):
                        found.append(int(pid))
            except OSError:  # ended meanwhile, or another user's
                pass
        return found

    def nothing_is_left(self):
        self.assertEqual(self.processes(""), [])
        self.assertEqual(os.listdir(self.scratch.name), [])


class ShellTest(MachineTest):
    """A shell on a terminal there, in one start of the machine."""

    def boot(self, name, *arguments):
        self.terminal = Terminal([*VM, name, *arguments, "--", "sh"], self.env, patience=self.PATIENCE * (3 if name == "bochs" else 1))
        self.addCleanup(self.terminal.close)
        self.terminal.wait_for("# ")

    def shell(self, line):
        """What the command prints."""
        self.terminal.type(line + "\n")
        self.terminal.wait_for("\n")
        return self.terminal.wait_for("# ")[:-len("# ")]

    def end_shell(self):
        self.terminal.type("exit 6\n")
        self.assertEqual(self.terminal.ended(), 6)
        self.nothing_is_left()


class Shell:
    """Runs commands in one start of the machine that the options name first, one after the other."""

    def __init__(self, test, *options):
        self.process = subprocess.Popen([*VM, *options, "--", "sh"], env=test.env, bufsize=0,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def run(self, command, patience=PATIENCE):
        """Output, errors with it, and exit status (-N: killed by signal N; None: it did not end)."""
        mark = uuid.uuid4().hex
        begin = time.monotonic()
        line = f"timeout -s KILL {patience} {shlex.join(map(str, command))} < /dev/null 2>&1; echo {mark} $?; echo\n"
        self.process.stdin.write(line.encode())
        out = b""
        while not (end := re.search(mark.encode() + rb" (\d+)\n", out)):
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                raise RuntimeError("the machine has ended: " + out[-2000:].decode(errors="replace"))
            out += more
        status = int(end[1])
        if time.monotonic() - begin >= patience:
            return out[:end.start()].decode(errors="replace"), None
        return out[:end.start()].decode(errors="replace"), 128 - status if status > 128 else status


def build_module(kernel):
    """dune.ko's path; the process ends if there is none."""
    builder = os.path.join(os.path.dirname(os.environ["DDBG_VM"]), "vm_module.py")
    built = subprocess.run([sys.executable, "-B", builder, "--kernel", kernel], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode != 0:  # it has said why, and whether that is a skip
        sys.exit(built.returncode)
    return built.stdout.strip()


def guest_main(options):
    """main() for guest_options."""
    global MODULE
    if options.backend == "kmod":
        MODULE = build_module(options.kernel)
    main(options.kernel, machine=options.machine)


def main(*kernels, machine="qemu"):
    """As unittest's, but for a machine that cannot be had: then the tests are skipped, and the last line says why."""
    global CACHE  # not where a test with a home of its own would look
    wanted = ["--machine", machine, *(word for kernel in kernels for word in ("--kernel", kernel))]
    prepared = subprocess.run([*VM, "prepare", *wanted], stdout=subprocess.PIPE, text=True, check=False)
    if prepared.returncode != 0:
        sys.exit(prepared.returncode)
    CACHE = prepared.stdout.strip()
    unittest.main(verbosity=2)
