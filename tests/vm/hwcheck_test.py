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
QUICK = ("application", "example")
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
    def run_there(self, commands, *options):
        programs = machine.adding(*(f"{BUILD}/{program}" for program in PROGRAMS))
        done = self.vm("--kernel", OPTIONS.kernel, "--timeout", "270", *options, *INTERPRETER, *programs,
                       "--add", f"{machine.MODULE}:/dune.ko", "--", "sh", "-c", commands)
        told = f"{done.stdout.decode(errors='replace')}\n{done.stderr.decode(errors='replace')}"
        self.assertEqual(done.returncode, 0, told)
        return done.stdout.decode(errors="replace"), told

    def test_runs_and_leaves_nothing(self):
        only = [word for suite in QUICK for word in ("--only", suite)] if OPTIONS.quick else ["--risky"]
        commands = f"{hwcheck('--report', '/report', *only)}; echo status $?; grep -c ^dune /proc/modules; cat /report"
        out, told = self.run_there(commands, "--kvm", "off", "--smp", "2")
        said, report = out.split("status 0\n0\n")
        for suite in QUICK if OPTIONS.quick else ("module", *QUICK, "guests", "process", "risky"):
            self.assertRegex(report, rf"(?m)^{suite}: ok[,;]", told)
        if not OPTIONS.quick:
            self.assertGreater(int(re.search(r"^module: ok, (\d+) passed", report, re.M)[1]), 35, told)
        self.assertIn("in ring 0 by kmod", report)
        self.assertTrue(report.endswith("\nall passed\nunloaded\n"), told)
        self.assertRegex(report, r"\A\S.*microcode")
        for line in re.findall(r"^hwcheck: (.*)$", said, re.M)[:-1]:
            self.assertIn(line, report)
        # Where the checkout lies is nobody's business.
        self.assertNotIn(str(Path(SCRIPT).parents[1]), report)

    def test_interrupted_it_leaves_nothing(self):
        commands = f"""{hwcheck('--report', '/report', '--only', 'application')} & hwcheck=$!
        until pidof application_test > /dev/null; do kill -0 $hwcheck || exit 90; sleep 0.1; done
        kill -INT $hwcheck; wait $hwcheck; echo status $?
        pidof application_test; grep -c ^dune /proc/modules; cat /report"""
        out, told = self.run_there(commands, "--kvm", "off")
        self.assertRegex(out, r"(?s)status 130\n0\n.*\nunloaded\ninterrupted\n\Z", told)

    def test_complaint_of_the_kernel_ends_it(self):
        commands = f"""{hwcheck('--report', '/report', '--only', 'application', '--only', 'example')} & hwcheck=$!
        until dmesg | grep -q 'hwcheck [0-9]'; do kill -0 $hwcheck || exit 90; sleep 0.1; done
        echo 'WARNING: of the test' > /dev/kmsg; wait $hwcheck; echo status $?; cat /report"""
        out, told = self.run_there(commands, "--kvm", "off")
        self.assertRegex(out, r"(?s)status 1\n.*\napplication: ok.*WARNING: of the test\nunloaded\nthe kernel complains.*application was the last\n\Z", told)

    def test_says_that_kvm_has_the_processor(self):
        """Since 6.12 as long as it is loaded."""
        out, told = self.run_there(f"{hwcheck('--report', '/report')}; echo status $?; cat /report; ls /sys/module/kvm_amd")
        self.assertRegex(out, r"status 77\n(.*\n)*KVM has the processor, and modprobe could not load kvm_amd again", told)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--quick", action="store_true")
    OPTIONS, others = parser.parse_known_args()
    sys.argv[1:] = others
    machine.MODULE = machine.build_module(OPTIONS.kernel)
    with tempfile.TemporaryDirectory(prefix="ddbg-vm-test.") as scratch:
        INTERPRETER = interpreter(scratch)
        machine.main(OPTIONS.kernel)
