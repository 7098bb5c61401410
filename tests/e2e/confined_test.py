"""A program that confines itself with seccomp while it is debugged: what it puts out and how it ends is as without ddbg. As root
the same is done by nobody, too: for root ptrace suspends the filters."""
import os
import re
import signal
import subprocess
import tempfile
import unittest

import process_state
from interactive_test import DdbgTerminal
from odd_processes_test import wait_until
from support import DDBG, IN_A_GUEST, PATIENCE, Target, environment, program

CONFINED = program("confined")
WAYS = ["", "seccomp", "tsync"]
CALLS = ["wrapper", "number", "hand", "fork", "vfork", "clone", "exec"]
QUIET = ["handle SIGSYS nostop noprint", "set confirm off", "set pagination off"]
NOBODY = 65534


def users():
    if os.geteuid() != 0 or IN_A_GUEST:  # nobody may not open /dev/kvm
        return [None]
    readable = subprocess.run([DDBG, "--version"], user=NOBODY, capture_output=True).returncode == 0
    return [None, NOBODY] if readable else [None]


class Debugged(unittest.TestCase):
    program = CONFINED

    def natively(self, mode, user=None):
        completed = subprocess.run([self.program, *mode.split()], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                   timeout=PATIENCE, user=user)
        return completed.stdout, completed.returncode

    def debugged(self, mode, commands, user=None):
        """What ddbg shows, and the program."""
        with tempfile.TemporaryDirectory() as room:
            os.chmod(room, 0o777)
            arguments = [DDBG, "-q", "-nx", "-batch"]
            for command in [*QUIET, *commands]:
                arguments += ["-ex", command.replace("RUN", f"run {mode} > {room}/out")]
            completed = subprocess.run([*arguments, self.program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT, text=True, timeout=PATIENCE, user=user,
                                       env={**environment(), "HOME": "/nonexistent"})
            return completed.stdout, process_state.read(f"{room}/out")

    def same(self, mode, commands, *shown, user=None):
        """Each pattern is in what ddbg shows, in this order."""
        out, status = self.natively(mode, user)
        shown_now, out_now = self.debugged(mode, commands, user)
        self.assertEqual(out_now, out, shown_now)
        ending = r"exited with code %02o\]" % status if status >= 0 else "terminated with signal SIGSYS"
        self.assertRegex(shown_now, "(?s)" + ".*".join([*shown, ending]))
        return shown_now


class Confined(Debugged):
    def test_condition(self):
        commands = ["break work if i < 0", "RUN", "info breakpoints"]
        for user in users():
            for mode in [*WAYS, "strict", "strict seccomp", "twice", "misuse", "tsync misuse"]:
                with self.subTest(mode, user=user):
                    shown = self.same(mode, commands, user=user)
                    self.assertIn("condition evaluated in the target 4000 times", shown)
                    self.assertNotIn("strict mode", shown)

    def test_stops_and_steps(self):
        for mode in [*WAYS, "strict", "strict seccomp"]:
            with self.subTest(mode):
                self.same(mode, ["break confine", "RUN", "finish", "break work if i == 2000", "continue", "bt 1", "next",
                                 "stepi 100", "tbreak turn" if mode == "tsync" else "tbreak work", "continue", "info threads",
                                 "delete", "continue"],
                          r"Breakpoint 1, confine", r"Value returned is \$1 = 0", r"Breakpoint 2, work \(i=2000\)", "#0 ",
                          "Temporary breakpoint 3")

    def test_steps_through(self):
        """The call itself is stepped, and instructions of both sides."""
        for mode, steps in ((mode, f"stepi {steps}") for mode in [*WAYS, "strict", "strict seccomp"] for steps in (200, 2000)):
            with self.subTest(mode, steps=steps):
                self.same(mode, ["break confine", "RUN", steps, "info registers rip", "continue"], "rip")

    def test_breakpoints_on_the_calls(self):
        for mode, function in (("", "prctl"), ("seccomp", "syscall")):
            listing = self.debugged(mode, ["break main", "RUN", f"disassemble {function}"])[0]
            offset = re.search(r"<\+(\d+)>:\s+syscall", listing)[1]
            with self.subTest(mode):
                self.same(mode, ["break confine", "RUN", f"break *{function}+{offset}", "continue", "stepi", "continue", "delete",
                                 "continue"], "Breakpoint 2, ", r"\[Inferior 1|Breakpoint 2, ")

    def test_refused_calls(self):
        for user in users():
            for mode in [f"{way} {call}" for way in ("errno", "trap", "", "thread") for call in CALLS]:
                with self.subTest(mode, user=user):
                    shown = self.same(mode, ["break work if i < 0", "RUN"], user=user)
                    self.assertNotIn("It may have been", shown)

    def test_refused_calls_stepped(self):
        for mode in [f"{way} {call}" for way in ("errno", "trap", "") for call in CALLS]:
            with self.subTest(mode):
                # Past the call, on into the handler.
                self.same(mode, [f"break by_{mode.split()[-1]}", "RUN", "stepi 2000", "continue"], "Breakpoint 1, ")

    def test_refused_call_with_a_breakpoint(self):
        listing = self.debugged("errno hand", ["break main", "RUN", "disassemble by_hand"])[0]
        offset = re.search(r"<\+(\d+)>:\s+syscall", listing)[1]
        for mode in ("errno hand", "trap hand"):
            with self.subTest(mode):
                self.same(mode, ["break main", "RUN", f"break *by_hand+{offset}", "continue", "continue"], "Breakpoint 2, ")

    def test_signal_is_told(self):
        out = self.debugged("trap wrapper", ["handle SIGSYS stop print", "RUN", "bt 2", "continue"])[0]
        self.assertRegex(out, r"(?s)received signal SIGSYS, Bad system call\..*getppid \(\).*exited with code 03")

    def test_execute(self):
        """The next image inherits the filter, and is debugged on where agent and vDSO come to the same places again."""
        for user in users():
            with self.subTest(user=user):
                shown = self.same("execute", ["RUN"], "is executing new program", user=user)
                self.assertNotIn("seccomp,", shown)

    def test_execute_elsewhere(self):
        for user in users():
            with self.subTest(user=user):
                # It has ended when its end of the pipe is closed.
                completed = subprocess.run([DDBG, "-q", "-nx", "-batch", "-ex", "set disable-randomization off", "-ex",
                                            "run execute", "--args", CONFINED], stdin=subprocess.DEVNULL,
                                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE,
                                           user=user, env={**environment(), "HOME": "/nonexistent"})
                self.assertRegex(completed.stdout, "is confined by seccomp, and .*runs on without the debugger")
                for line in self.natively("execute", user)[0].splitlines():
                    self.assertIn(line, completed.stdout.splitlines())

    def test_strict_mode_kills(self):
        """By SIGKILL without us; and what the agent answers itself is not let pass."""
        for mode in ["strict wrapper", "strict seccomp number", "strict fork", "strict twice", "strict clone", "strict mask"]:
            with self.subTest(mode):
                out, status = self.natively(mode)
                self.assertEqual(status, -signal.SIGKILL)
                shown, out_now = self.debugged(mode, ["break work if i < 0", "RUN"])
                self.assertEqual(out_now, out)
                self.assertRegex(shown, r"(?s)strict mode has ended the program.*terminated with signal SIGSYS")


class Judged(Debugged):
    """What filters see and answer."""
    program = program("judged")
    CASES = ["by_address", "by_architecture", "several", "threads", "synchronised", "supervised", "a_thread_killed", "blocked", "ignored",
             "process_killed", "unknown_action", "inherited"]
    # Without a guest some calls are judged by nobody (docs/architecture.md).
    CASES_IN_A_GUEST = ["all_are_judged", "no_sigreturn"] if IN_A_GUEST else []
    QUIET_TOO = ["handle SIGUSR1 nostop noprint"]

    def test_condition(self):
        for case in self.CASES + self.CASES_IN_A_GUEST:
            with self.subTest(case):
                shown = self.same(case, [*self.QUIET_TOO, "break work if i < 0", "RUN", "info breakpoints"])
                self.assertNotIn("It may have been", shown)
                self.assertNotIn("runs on without", shown)

    def test_stops_and_steps(self):
        for case in self.CASES + self.CASES_IN_A_GUEST:
            with self.subTest(case):
                self.same(case, [*self.QUIET_TOO, "break work if i == 5", "RUN", "delete", "stepi 3000", "continue"],
                          "Breakpoint 1, work")


class Attached(unittest.TestCase):
    """Attached to before it confines itself."""

    def start(self, mode, user):
        target = Target([CONFINED, "first", "wait", *mode.split()], user=user)
        self.addCleanup(target.close)
        self.assertEqual(target.first_line, "started\n")
        terminal = DdbgTerminal("-p", str(target.pid), user=user)
        self.addCleanup(terminal.close)
        terminal.wait_for("(ddbg) ")
        for line in QUIET:
            terminal.command(line)
        return target, terminal

    def confined(self, mode, user):
        target, terminal = self.start(mode, user)
        terminal.command("tbreak work if i == 3000")
        terminal.type("continue\n")
        terminal.wait_for("Continuing.")
        target.process.stdin.write("\n")
        target.process.stdin.flush()
        terminal.wait_for("Temporary breakpoint 1, work")
        terminal.wait_for("(ddbg) ")
        self.assertEqual(process_state.fields(f"/proc/{target.pid}/status", ["Seccomp"])["Seccomp"], "2")
        return target, terminal

    def each(self, test):
        for user in users():
            for mode in [*WAYS, "sleep", "strict"]:
                with self.subTest(mode, user=user):
                    target, terminal = self.confined(mode, user)
                    test(target, terminal, mode in ("sleep", "strict"))
                    self.ends_well(target)

    def ends_well(self, target):
        self.assertEqual(process_state.left_behind(target.pid), [])
        self.assertEqual(process_state.changed_text(target.pid), [])
        self.assertEqual(target.ended(), ("confined: 0\ntotal 7998000\n", 3))

    def test_interrupt_and_detach(self):
        def test(_, terminal, waits):
            for _ in range(3):
                terminal.type("continue\n")
                terminal.wait_for("Continuing.")
                terminal.type("\x03")
                terminal.wait_for("received signal SIGINT")
                terminal.wait_for("(ddbg) ")
                self.assertIn("LWP", terminal.command("info threads"))
            if not waits:
                terminal.command("tbreak work")
                self.assertIn("Temporary breakpoint", terminal.command("continue"))
            terminal.command("detach")
        self.each(test)

    def test_detach_while_stopped_in_it(self):
        self.each(lambda target, terminal, waits: terminal.command("detach"))

    def test_kill(self):
        def test(target, terminal, _):
            terminal.type("continue\n")
            terminal.wait_for("Continuing.")
            os.kill(terminal.pid, signal.SIGKILL)
            wait_until(lambda: not process_state.left_behind(target.pid))
        self.each(test)


if __name__ == "__main__":
    unittest.main()
