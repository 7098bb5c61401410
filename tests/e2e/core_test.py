"""A process that dies under ddbg leaves a core that shows all of its threads as the program's, like the one that the same
program leaves without a debugger."""
import ctypes
import glob
import os
import re
import resource
import signal
import subprocess
import tempfile
import time
import unittest

from process_state import read
from support import DDBG, GDB, PATIENCE, Target, environment, program

QUIET = ["-iex", "handle SIGUSR1 nostop noprint"]
SILENT = ["-iex", "handle all nostop noprint pass"]
NAMED = ["rbx", "rbp", "r12", "r13", "r14", "r15", "orig_rax", "rax"]
VALUES = [f"${name}" for name in NAMED] + ["$xmm1.v2_int64[0]", "$xmm15.v2_int64[0]", "$fs_base - *(long *)$fs_base"]
COMMANDS = ["set print frame-arguments none", "set width 0", "thread apply all bt",
            "thread apply all info symbol $pc",
            f"thread apply all printf \"values {'%lx ' * len(VALUES)}\\n\", {', '.join(VALUES)}",
            "printf \"signal %d %d %lx\\n\", $_siginfo.si_signo, $_siginfo.si_code, $_siginfo._sifields._sigfault.si_addr"]

# orig_rax and rax of a nanosleep, and what it has become behind an attach: restart_syscall.
SLEEPING, RESTARTED = (f" {number:x} {-516 % (1 << 64):x} " for number in (35, 219))

# A program whose debugger was killed has a new parent: us.
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def is_written_here():
    return not read("/proc/sys/kernel/core_pattern").startswith(("|", "@", "/"))


def wait_until_it_reads(pid):
    """A program that has said that it is ready."""
    while not read(f"/proc/{pid}/syscall").startswith("0 0x0 "):
        time.sleep(0.001)


def allow_core(size=resource.RLIM_INFINITY):
    resource.setrlimit(resource.RLIMIT_CORE, (size, resource.RLIM_INFINITY))


def by_thread(text):
    """What follows each of gdb's headlines, of all commands, by thread."""
    found = {}
    for number, part in re.findall(r"^Thread (\d+) \(.*?\):\n(.*?)(?=^Thread |\Z)", text, re.M | re.S):
        found[number] = found.get(number, "") + part
    return found


class Core:
    """What gdb shows of it. `threads`: of those that have registers of their own, by these."""

    def __init__(self, path):
        arguments = [GDB, "-q", "-nx", "-batch"]
        for command in COMMANDS:
            arguments += ["-ex", command]
        completed = subprocess.run([*arguments, program("dies"), path], capture_output=True, env=environment(), text=True,
                                   timeout=PATIENCE)
        self.ended_by = re.findall(r"^Program terminated with (.*)", completed.stdout, re.M)
        self.signal = re.findall(r"^signal (.*)", completed.stdout, re.M)
        self.threads = {}
        for text in by_thread(completed.stdout).values():
            frames = re.findall(r"^#\d+ +(?:0x[0-9a-f]+ in )?(.*?)(?: at .*)?$", text, re.M)
            values = re.findall(r"^values (.*?) *$", text, re.M)
            place = re.findall(r"^(\S+(?: \+ \d+)?) in section", text, re.M)
            is_main = any(frame.startswith("main ") for frame in frames)
            crashes = any("crash_with" in frame for frame in frames)
            # abort's own registers depend on who calls it.
            key = "main" if is_main else "crash" if crashes else values[0].split()[0] if values else text
            self.threads[key] = (frames, [] if is_main and not crashes else values, place)
        if self.signal and not any("crash_with" in "".join(frames) for frames, _, _ in self.threads.values()):
            self.signal = [" ".join(self.signal[0].split()[:2])] # no address, but who has sent it


@unittest.skipUnless(GDB, "gdb is not there")
@unittest.skipUnless(is_written_here(), "cores are not written into the current folder")
class Cores(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.here = {"cwd": self.folder.name, "preexec_fn": allow_core}

    def take_core(self):
        [path] = glob.glob(f"{self.folder.name}/core*")
        core = Core(path)
        os.unlink(path)
        return core

    def run_natively(self, how, number=None):
        target = Target([program("dies"), how], **self.here)
        self.addCleanup(target.close)
        if number:
            wait_until_it_reads(target.pid)
            os.kill(target.pid, number)
        target.ended()
        return self.take_core()

    def start(self, how, options, commands):
        """ddbg, when the program has said that it is ready, and the program's number."""
        arguments = [DDBG, "-q", "-nx", "-batch", *options]
        for command in commands:
            arguments += ["-ex", command]
        process = subprocess.Popen([*arguments, "--args", program("dies"), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, env=environment(), **self.here)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        for line in process.stdout:
            if line.startswith("ready "):
                return process, int(line.split()[1])
        self.fail("the program has not begun")

    def run_under_ddbg(self, how, options, commands, number=None):
        process, pid = self.start(how, options, commands)
        if number:
            wait_until_it_reads(pid)
            os.kill(pid, number)
        return process.communicate(timeout=PATIENCE)[0]

    def check(self, core, native):
        self.assertEqual(core.ended_by, native.ended_by)
        self.assertEqual(core.signal, native.signal)
        self.assertEqual(sorted(core.threads), sorted(native.threads))
        for key, shown in native.threads.items():
            frames, values, place = core.threads[key]
            values = [re.sub(RESTARTED, SLEEPING, line) for line in values]
            self.assertEqual((frames, values, place), shown)

    def check_one(self, how, options, commands, text, number=None):
        out = self.run_under_ddbg(how, options, commands, number)
        self.assertIn(f"Program terminated with signal {text}", out)
        core = self.take_core()
        native = self.run_natively(how, number)
        self.assertGreaterEqual(len(native.threads), 7)
        self.check(core, native)

    def test_segv(self):
        self.check_one("segv", QUIET, ["run", "continue"], "SIGSEGV")

    def test_segv_that_is_not_told(self):
        self.check_one("segv", SILENT, ["run"], "SIGSEGV")

    def test_abort(self):
        self.check_one("abort", QUIET, ["run", "continue"], "SIGABRT")

    def test_abort_that_is_not_told(self):
        self.check_one("abort", SILENT, ["run"], "SIGABRT")

    def test_killed_from_outside(self):
        for number in (signal.SIGABRT, signal.SIGQUIT, signal.SIGSEGV):
            with self.subTest(number.name):
                self.check_one("wait", SILENT, ["run"], number.name, number)

    def test_with_breakpoints(self):
        self.check_one("segv", SILENT, ["break on_signal if 0", "break run if argument == 77", "run"], "SIGSEGV")

    def test_two_at_once(self):
        self.run_under_ddbg("both", SILENT, ["run"])
        core = self.take_core()
        native = self.run_natively("both")
        self.assertEqual(core.signal, native.signal)
        self.assertEqual(sorted(core.threads), sorted(native.threads))
        for key in set(native.threads) - {"main", "crash"}: # one of them may not have come to its crash
            self.assertEqual(core.threads[key], native.threads[key])
        for key in ("main", "crash"):
            self.assertEqual(core.threads[key][0], native.threads[key][0])

    def attach(self, number):
        target = Target([program("dies"), "wait"], **self.here)
        self.addCleanup(target.close)
        process = subprocess.Popen([DDBG, "-q", "-nx", "-batch", *SILENT, "-p", str(target.pid), "-ex", "echo attached\\n",
                                    "-ex", "continue"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, env=environment())
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        for line in process.stdout:
            if "attached" in line:
                break
        if number:
            os.kill(target.pid, number)
        else:
            target.process.stdin.close()
            target.process.stdin = None
        rest = process.communicate(timeout=PATIENCE)[0]
        self.assertRegex(rest, r"\[Inferior 1 \(process \d+\) exited, its status is not known\]")
        self.assertEqual(-target.ended()[1], number or signal.SIGSEGV)

    def test_attached(self):
        for number in (None, signal.SIGABRT):
            with self.subTest(number):
                self.attach(number)
                self.check(self.take_core(), self.run_natively("wait", number))

    def test_without_a_core(self):
        self.here["preexec_fn"] = lambda: allow_core(0)
        self.assertIn("Program terminated with signal SIGSEGV", self.run_under_ddbg("segv", SILENT, ["run"]))
        self.assertEqual(glob.glob(f"{self.folder.name}/core*"), [])


if __name__ == "__main__":
    unittest.main()
