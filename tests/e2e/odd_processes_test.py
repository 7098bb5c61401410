"""Attaching to processes that are not ordinary: stopped, in namespaces, dead, somebody else's, confined. Each ends as it would
have without ddbg, and what cannot be debugged is said with its reason."""
import os
import re
import signal
import subprocess
import tempfile
import time
import unittest

import process_state
from interactive_test import Terminal
from support import DDBG, PATIENCE, Target, attach, environment, program

ODD = program("odd")


def state(pid):
    return process_state.fields(f"/proc/{pid}/status", ["State"])["State"][0]


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it does not happen")
        time.sleep(0.002)


class Odd(unittest.TestCase):
    def start(self, mode, prefix=()):
        # A group of its own, with a parent outside: in an orphaned one SIGTSTP stops nobody.
        target = Target([*prefix, ODD, mode], process_group=0)
        self.addCleanup(target.close)
        self.assertEqual(target.first_line, "started\n")
        return target

    def attach(self, pid, commands, *shown):
        outcome = attach(pid, commands)
        for pattern in shown:
            self.assertRegex(outcome.stdout, pattern)
        return outcome

    def untouched(self, pid):
        self.assertEqual(process_state.left_behind(pid), [])
        self.assertEqual(process_state.changed_text(pid), [])
        self.assertEqual(process_state.fields(f"/proc/{pid}/status", ["TracerPid"])["TracerPid"], "0")

    def ends_well(self, target):
        self.assertEqual(target.ended(), ("ended\n", 3))


class Stopped(Odd):
    """By SIGSTOP or its like, before ddbg came or while it was there."""
    MODES = ["plain", "spin", "handler", "handler spin"]

    def stopped(self, mode):
        target = self.start(mode)
        os.kill(target.pid, signal.SIGSTOP)
        wait_until(lambda: state(target.pid) == "T")
        return target

    def test_detach_leaves_it_stopped(self):
        for mode in self.MODES:
            with self.subTest(mode):
                target = self.stopped(mode)
                self.attach(target.pid, ["info threads", "print continued"], r"had been stopped by a signal",
                            r"\$1 = 0")
                wait_until(lambda: state(target.pid) == "T")
                self.untouched(target.pid)
                os.kill(target.pid, signal.SIGCONT)
                self.ends_well(target)

    def test_continue_lets_it_run(self):
        for mode in self.MODES:
            with self.subTest(mode):
                target = self.stopped(mode)
                self.attach(target.pid, ["handle SIGCONT nostop noprint", "break tick", "continue", "continue",
                                         "print continued"],
                            r"hit Breakpoint 1|Breakpoint 1, ", r"\$1 = %d" % ("handler" in mode))
                wait_until(lambda: state(target.pid) in "RS")
                self.untouched(target.pid)
                self.ends_well(target)

    def test_step_lets_it_run(self):
        target = self.stopped("plain")
        self.attach(target.pid, ["stepi", "info registers rip"], r"rip ")
        wait_until(lambda: state(target.pid) in "RS")
        self.ends_well(target)

    def test_killed_debugger_leaves_it_stopped(self):
        target = self.stopped("spin")
        terminal = Terminal("-p", str(target.pid))
        self.addCleanup(terminal.close)
        terminal.wait_for("(ddbg) ")
        os.kill(terminal.pid, signal.SIGKILL)
        wait_until(lambda: state(target.pid) == "T" and not process_state.left_behind(target.pid))
        self.untouched(target.pid)
        os.kill(target.pid, signal.SIGCONT)
        self.ends_well(target)

    def stopped_while_attached(self, mode, number):
        target = self.start(mode)
        terminal = Terminal("-p", str(target.pid))
        self.addCleanup(terminal.close)
        terminal.wait_for("(ddbg) ")
        terminal.type("continue\n")
        terminal.wait_for("Continuing.")
        os.kill(target.pid, number)
        wait_until(lambda: state(target.pid) == "T")
        terminal.type("\x03")
        terminal.wait_for("had been stopped by a signal")
        terminal.wait_for("(ddbg) ")
        return target, terminal

    def test_stopped_while_attached(self):
        for number in (signal.SIGSTOP, signal.SIGTSTP):
            for mode in ("plain", "spin"):
                with self.subTest(mode, number=number):
                    target, terminal = self.stopped_while_attached(mode, number)
                    terminal.command("detach")
                    wait_until(lambda: state(target.pid) == "T")
                    self.untouched(target.pid)
                    os.kill(target.pid, signal.SIGCONT)
                    self.ends_well(target)

    def test_stopped_while_attached_goes_on(self):
        target, terminal = self.stopped_while_attached("spin", signal.SIGSTOP)
        terminal.command("tbreak tick")
        self.assertIn("Temporary breakpoint 1, tick", terminal.command("continue"))
        terminal.command("detach")
        self.ends_well(target)

    def test_stopped_while_parked(self):
        target = self.start("spin")
        terminal = Terminal("-p", str(target.pid))
        self.addCleanup(terminal.close)
        terminal.wait_for("(ddbg) ")
        os.kill(target.pid, signal.SIGSTOP)
        wait_until(lambda: state(target.pid) == "T")
        terminal.command("detach")
        wait_until(lambda: state(target.pid) == "T")
        self.untouched(target.pid)
        os.kill(target.pid, signal.SIGCONT)
        self.ends_well(target)


# The program on a file system of its own, in namespaces of its own: neither its numbers nor its files are ours.
CONTAINER = """
set -e
mount -t tmpfs none "$1"
cd "$1"
mkdir proc bin
cp "$2" bin/contained
ldd "$2" | grep -o '/[^ ]*' | while read -r file; do mkdir -p ".$(dirname "$file")"; cp "$file" ".$file"; done
mount -t proc none proc
exec chroot . /bin/contained "$3"
"""


class Container(Odd):
    PREFIX = ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount"]

    def setUp(self):
        if subprocess.run([*self.PREFIX, "true"], capture_output=True).returncode:
            self.skipTest("namespaces are not permitted here")

    def contained(self, mode):
        room = tempfile.TemporaryDirectory()
        self.addCleanup(room.cleanup)
        target = Target([*self.PREFIX, "sh", "-c", CONTAINER, "sh", room.name, ODD, mode])
        self.addCleanup(target.close)
        self.assertEqual(target.first_line, "started\n")
        target.pid = int(process_state.read(f"/proc/{target.pid}/task/{target.pid}/children").split()[0])
        numbers = process_state.fields(f"/proc/{target.pid}/status", ["NSpid"])["NSpid"].split()
        self.assertEqual((numbers[0], numbers[-1]), (str(target.pid), "1"))
        return target

    def test_breakpoints_and_steps(self):
        target = self.contained("plain")
        self.attach(target.pid, ["break tick", "continue", "bt", "finish", "next", "stepi"],
                    r"Breakpoint 1, tick \(\) at ", r"#1 .* in main \(argc=2", r"main \(argc=2")
        self.untouched(target.pid)
        self.ends_well(target)

    def test_threads_come_and_go(self):
        target = self.contained("spin births")
        out = self.attach(target.pid, ["tbreak short_lived", "continue", "info threads", "break births if 0",
                                       "break tick thread 2", "continue", "continue", "delete",
                                       "watch births", "continue", "info threads"],
                          r"Temporary breakpoint 1, short_lived", r"Hardware watchpoint \d+: births").stdout
        lwps = {int(lwp) for lwp in re.findall(r"\(?LWP (\d+)", out)}
        self.assertIn(target.pid, lwps)
        self.assertGreater(min(lwps), 100, out)
        self.assertEqual(out.count('Thread 2 "contained" hit Breakpoint'), 2, out)
        self.untouched(target.pid)
        self.ends_well(target)

    def test_interrupt(self):
        target = self.contained("spin births")
        terminal = Terminal("-p", str(target.pid))
        self.addCleanup(terminal.close)
        terminal.wait_for("(ddbg) ")
        for _ in range(3):
            terminal.type("continue\n")
            terminal.wait_for("Continuing.")
            terminal.type("\x03")
            self.assertIn("received signal SIGINT", terminal.wait_for("(ddbg) "))
            self.assertIn(f"LWP {target.pid}", terminal.command("info threads"))
        terminal.command("detach")
        self.untouched(target.pid)
        self.ends_well(target)

    def test_stopped(self):
        target = self.contained("spin")
        os.kill(target.pid, signal.SIGSTOP)
        wait_until(lambda: state(target.pid) == "T")
        self.attach(target.pid, ["info threads"], r"had been stopped")
        wait_until(lambda: state(target.pid) == "T")
        os.kill(target.pid, signal.SIGCONT)
        self.ends_well(target)


if __name__ == "__main__":
    unittest.main()
