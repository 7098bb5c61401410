#!/usr/bin/env python3
"""The engine's tests (tests/unit/inferior) in Dune mode where ring 0 is real, and a session of ddbg's there (--session): breakpoints,
conditions, steps, watchpoints, threads, signals, forks, execs, stops, Ctrl-C, attach, detach, kill -9. In one start of the machine."""
import os
import re
import subprocess
import sys

import machine

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
from terminal import PROMPT  # noqa: E402

ENGINE_TEST = os.environ["ENGINE_TEST"]
TARGETS = os.environ["DDBG_TEST_TARGETS"]
SPIN = os.path.join(os.environ["E2E_PROGRAMS"], "spin")
ATTACHED_CASES = ("read", "tick", "handler_tick", "futex", "calls", "churn")
PYTHON = "/usr/bin/python3"  # stepped only up to where it would need more than its libraries
# The emulated processor takes some 500 us for a signal of a program in a guest, and 200 us for a breakpoint that the host side sees.
SCALE = "DDBG_TEST_STORM_US=2000 DDBG_TEST_HITS=2000"
TESTS = f"{SCALE} DDBG_TEST_BACKEND=%s DDBG_KEEPER={machine.KEEPER} {ENGINE_TEST} --gtest_filter='%s'"
# What an iret at ring 3 needs in QEMU, and no protection keys: in Dune mode a program finds none, and so takes another way from its start.
# Room for a trace of every step.
MORE = {"qemu": ["--smap", "off", "--pku", "off"], "bochs": ["--memory", "512"]}
STARTED = f"{machine.DDBG} -q -nx -iex 'set confirm off' -iex 'set pagination off' -iex 'handle SIGUSR1 nostop noprint'"


def with_less(tests, others):
    """GoogleTest's filter: one minus, what does not run behind it."""
    return tests + (":" if "-" in tests else "-") + ":".join(others)


class Engine(machine.ShellTest):
    def setUp(self):
        super().setUp()
        targets = [entry.path for entry in os.scandir(TARGETS) if entry.is_file() and os.access(entry.path, os.X_OK)]
        self.boot(*self.for_guests(OPTIONS), *MORE[OPTIONS.machine],
                  *machine.adding(ENGINE_TEST, machine.DDBG, PYTHON, SPIN, *targets))

    def test_in_a_guest(self):
        for tests in LEFT_OUT:
            there = subprocess.run([ENGINE_TEST, "--gtest_list_tests", f"--gtest_filter={tests}"], stdout=subprocess.PIPE, text=True, check=True).stdout
            self.assertRegex(there, r"(?m)^  \w", tests)
        out = self.shell(TESTS % (OPTIONS.backend, with_less(OPTIONS.filter, LEFT_OUT)))
        self.assertEqual(self.shell("echo $?"), "0\n", out)
        ran = re.search(r"^\[==========\] (\d+) tests? from .* ran", out, re.M)
        passed = re.search(r"^\[  PASSED  \] (\d+) test", out, re.M)
        skipped = set(re.findall(r"^\[  SKIPPED \] (\S+/\w+)", out, re.M))
        self.assertTrue(all(name.startswith("Programs/Kinds.") for name in skipped), out)  # their compilers are not here
        self.assertTrue(ran and passed and int(ran[1]) == int(passed[1]) + len(skipped) and int(passed[1]) > 0, out)
        if OPTIONS.session:
            self.launched()
            self.attached()
        self.end_shell()

    def launched(self):
        t = self.terminal
        t.type(f"{STARTED} --backend {OPTIONS.backend} {SPIN}\n")
        t.wait_for(PROMPT)
        t.type("run\n")
        t.wait_for("spinning\n")
        t.type("\x03")
        self.assertIn("received signal SIGINT, Interrupt.", t.wait_for(PROMPT))
        self.assertIn(f"In use: {OPTIONS.backend} (asked for)", t.command("info backend"))
        t.command("watch turns")
        for _ in range(2):
            self.assertRegex(t.command("continue"), r"atchpoint 1: turns\n\nOld value = \d+\nNew value = \d+\n")
        t.command("delete")
        t.type("continue\n")
        t.wait_for("Continuing.\n")
        t.type("\x03")
        self.assertIn("received signal SIGINT, Interrupt.", t.wait_for(PROMPT))
        t.command("kill")
        t.type("quit\n")
        t.wait_for("# ")

    def attached(self):
        t = self.terminal
        self.shell("mkfifo /tmp/go")
        self.shell(f"{TARGETS}/attached {' '.join(ATTACHED_CASES)} < /tmp/go > /tmp/out & exec 3> /tmp/go")
        self.shell("until grep -q started /tmp/out; do sleep 0.01; done")
        for _ in range(2):
            out = self.shell(f"{STARTED} --backend {OPTIONS.backend} -batch -p $! -ex 'break hit_a' -ex continue -ex 'delete 1' -ex 'watch counted_a' -ex continue "
                             "-ex 'delete 2' -ex 'stepi 3' -ex 'info threads' -ex detach")
            self.assertRegex(out, r"(?s)hit Breakpoint 1, .*atchpoint 2: counted_a.*New value.*Thread .*process \d+\) detached", out)
            self.left_alone()
        # Killed while the program is stopped, and while it runs, or is about to.
        t.type(f"{STARTED} --backend {OPTIONS.backend} -p $! -ex 'break hit_a' -ex continue\n")
        t.wait_for("hit Breakpoint 1, ")
        t.wait_for(PROMPT)
        t.type("shell kill -9 $PPID\n")
        t.wait_for("Killed\n")
        t.wait_for("# ")
        t.type("stty sane\n")
        t.wait_for("# ")
        self.left_alone()
        self.shell(f"p=$!; {STARTED} --backend {OPTIONS.backend} -p $p -ex 'break hit_a if counted_a < 0' -ex 'shell kill -9 $PPID &' -ex continue")
        t.type("stty sane\n")
        t.wait_for("# ")
        self.left_alone("p")
        ended = self.shell("echo >&3; exec 3>&-; wait $p; echo $?")  # in one line: a prompt would take the status
        self.assertTrue(ended.startswith("6\n"), ended)
        out = self.shell("tail -n +2 /tmp/out")
        self.assertEqual(out, "".join(f"{case}: as it should be\n" for case in ATTACHED_CASES) +
                         "main: read returned 1, no error\n")

    def left_alone(self, pid="!"):
        """The keeper goes when the program is as it was."""
        self.shell("while pidof ddbg-keeper; do sleep 0.01; done >/dev/null")
        self.assertEqual(self.shell(f"grep -c ddbg /proc/${pid}/maps"), "0\n")


if __name__ == "__main__":
    parser = machine.guest_options()
    parser.add_argument("--filter", required=True)
    parser.add_argument("--session", action="store_true")
    OPTIONS = machine.arguments_of(parser)
    LEFT_OUT = [tests for tests in machine.left_out(OPTIONS) if not tests.startswith("Core.")]
    machine.guest_main(OPTIONS)
