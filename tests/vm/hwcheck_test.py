#!/usr/bin/env python3
"""scripts/hwcheck in a machine that may be thrown away: its suites pass, the module is gone behind it, also when it is interrupted, and it
says what is in the way."""
import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import machine

SCRIPT = os.path.join(os.path.dirname(os.environ["DDBG_VM"]), "hwcheck_run.py")
BUILD = os.environ["DDBG_BUILD"]
PROGRAMS = ("tests/kmod/kmod_test", "tests/unit/application/application_test", "libdune/examples/hello",
            "tests/unit/backend/backend_test", "tests/unit/process/process_test", "tests/unit/backend/programs")
MARK = "a report of it"
PYTHON = "/usr/bin/python3"


def hwcheck(*options):
    return shlex.join([PYTHON, "-I", "-S", "-B", SCRIPT, "--build", BUILD, "--module", "/dune.ko", "--yes", *options])


def interpreter(folder):
    """scripts/vm's options for Python and the modules that the script needs, compiled: there that would take a minute."""
    code = f"import sys; sys.path.insert(0, {os.path.dirname(SCRIPT)!r}); import hwcheck_run; print(*{{m.__file__ for m in sys.modules.values() if getattr(m, '__file__', None)}}, sep='\\n')"
    listed = subprocess.run([PYTHON, "-I", "-S", "-B", "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True)
    options = machine.adding(PYTHON, SCRIPT)
    for number, path in enumerate(listed.stdout.split()):
        if path.endswith(".py") and path != SCRIPT:
            compiled = f"{folder}/{number}.pyc"
            subprocess.run([PYTHON, "-I", "-S", "-B", "-c", "import py_compile, sys; py_compile.compile(sys.argv[1], sys.argv[2], sys.argv[3], doraise=True)",
                            path, compiled, path], check=True)
            options += ["--add", f"{compiled}:{path}c"]
        elif not path.endswith(".py"):
            options += ["--add", path]
    return options


class Hwcheck(machine.MachineTest):
    PATIENCE = 880  # all parts, on a busy machine

    def run_there(self, commands, *options):
        programs = machine.adding(*(f"{BUILD}/{program}" for program in PROGRAMS))
        done = self.vm("--kernel", OPTIONS.kernel, "--timeout", str(self.PATIENCE - 10), *options, *INTERPRETER, *programs,
                       "--add", f"{machine.MODULE}:/dune.ko", "--", "sh", "-c", commands)
        told = f"{done.stdout.decode(errors='replace')}\n{done.stderr.decode(errors='replace')}"
        self.assertEqual(done.returncode, 0, told)
        return done.stdout.decode(errors="replace"), told

    def check_report(self, report, told, suites):
        for suite in suites:
            self.assertRegex(report, rf"(?m)^{suite}: ok[,;]", told)
        self.assertIn("in ring 0 by kmod", report)
        self.assertTrue(report.endswith("\nall passed\nunloaded\n"), told)
        self.assertRegex(report, r"\A\S.*microcode")
        # Where the checkout lies is nobody's business.
        self.assertNotIn(str(Path(SCRIPT).parents[1]), report)

    def test_leaves_nothing_however_it_ends(self):
        """To its end, interrupted, and when the kernel complains."""
        commands = f"""
        {hwcheck('--report', '/1', '--only', 'application', '--only', 'example')}; echo status $?; grep -c ^dune /proc/modules
        {hwcheck('--report', '/2', '--only', 'application')} & hwcheck=$!
        until pidof application_test > /dev/null; do kill -0 $hwcheck || exit 90; sleep 0.1; done
        kill -INT $hwcheck; wait $hwcheck; echo status $?; pidof application_test; grep -c ^dune /proc/modules
        {hwcheck('--report', '/3', '--only', 'application', '--only', 'example')} & hwcheck=$!
        until grep -q ^dune /proc/modules; do kill -0 $hwcheck || exit 91; sleep 0.1; done
        echo 'WARNING: of the test' > /dev/kmsg; wait $hwcheck; echo status $?; grep -c ^dune /proc/modules
        for report in /1 /2 /3; do echo; echo {MARK}; cat $report; done"""
        out, told = self.run_there(commands, "--kvm", "off")
        said, *reports = out.split(f"\n{MARK}\n")
        self.assertEqual(re.findall(r"^status (\d+)\n(.*)$", said, re.M), [("0", "0"), ("130", "0"), ("1", "0")], told)
        self.check_report(reports[0], told, ("application", "example"))
        self.assertRegex(reports[1], r"\nunloaded\ninterrupted\n\Z", told)
        self.assertRegex(reports[2], r"(?s)\napplication: ok.*WARNING: of the test\nunloaded\nthe kernel complains.*application was the last\n\Z", told)
        for line in re.findall(r"^hwcheck: (.*)$", said.partition("status 0")[0], re.M)[:-1]:  # the last says where the report is
            self.assertIn(line, reports[0])

    def test_runs_all_parts(self):
        commands = f"{hwcheck('--report', '/report', '--risky')}; echo status $?; grep -c ^dune /proc/modules; echo; echo {MARK}; cat /report"
        out, told = self.run_there(commands, "--kvm", "off", "--smp", "2")
        said, report = out.split(f"\n{MARK}\n")
        self.assertTrue(said.endswith("status 0\n0\n"), told)
        self.check_report(report, told, ("module", "application", "example", "guests", "process", "risky"))
        self.assertGreater(int(re.search(r"^module: ok, (\d+) passed", report, re.M)[1]), 35, told)

    def test_says_that_kvm_has_the_processor(self):
        """Since 6.12 as long as it is loaded."""
        out, told = self.run_there(f"{hwcheck('--report', '/report')}; echo status $?; cat /report; ls /sys/module/kvm_amd")
        self.assertRegex(out, r"status 77\n(.*\n)*KVM has the processor, and modprobe could not load kvm_amd again", told)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kernel", required=True)
    OPTIONS = machine.arguments_of(parser)
    machine.MODULE = machine.build_module(OPTIONS.kernel)
    with tempfile.TemporaryDirectory(prefix="ddbg-vm-test.") as scratch:
        INTERPRETER = interpreter(scratch)
        machine.main(OPTIONS.kernel)
