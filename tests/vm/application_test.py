#!/usr/bin/env python3
"""Programs that enter Dune mode themselves, where ring 0 is real: libdune's tests, and its first example in both its linkages."""
import os
import re

import machine

TEST = os.environ["APPLICATION_TEST"]
HELLO, HELLO_SHARED = os.environ["HELLO"].split(":")
MARK = "the next"
SAID = re.compile(r"""enter: in ring 0 by (?P<backend>\w+), and still process \d+
breakpoint: twice 21 is 42
page fault: it said "before", and "became" behind a write at its byte 2
dirty pages: 2 5, and 0 since that look
ring 3: hello, from write\(\)
ring 3: ended with exception 3; 1 system call refused, it got "Operation not permitted"
thread: in ring 0, twice 50 is 100
""")
SUITE = f"{TEST} --gtest_color=no || exit 98"
# The suite once more: the module makes calls itself as far as it can, and views have tags if the processor has them.
IN_THE_KERNEL = f"""
echo '{MARK}'
rmmod dune && insmod /dune.ko dispatch=1 %s || exit 95
DUNE_TEST_VIEW_TAGS=1 {SUITE}
"""
COMMANDS = f"""
uname -r
{SUITE}
echo '{MARK}'; {HELLO} || exit 97
echo '{MARK}'; {HELLO_SHARED} || exit 96
"""


class Applications(machine.MachineTest):
    def test_run_in_dune_mode(self):
        self.MACHINE, *arguments = self.for_guests(OPTIONS)
        in_qemu, on_kmod = OPTIONS.machine == "qemu", OPTIONS.backend == "kmod"
        commands = COMMANDS
        if on_kmod:
            arguments += ["--add", f"{machine.MODULE}:/dune.ko"]
            commands += IN_THE_KERNEL % ("" if in_qemu else "unsafe_cpu=1")
        done = self.vm(*arguments, *self.patient(OPTIONS), *machine.adding(TEST, HELLO, HELLO_SHARED), "--", "sh", "-c", commands)
        out = done.stdout.decode(errors="replace")
        told = f"{out}\n{done.stderr.decode(errors='replace')}"
        self.assertEqual(done.returncode, 0, told)
        self.assertTrue(out.startswith(OPTIONS.kernel + "."), told)
        suite, *others = out.split(f"{MARK}\n")
        self.everything_passed(suite)
        self.assertEqual(len(others), 3 if on_kmod else 2, told)
        if on_kmod:
            self.everything_passed(others[2])
        for example in others[:2]:
            said = SAID.fullmatch(example)
            self.assertTrue(said, told)
            self.assertEqual(said["backend"], OPTIONS.backend)

    def everything_passed(self, out):
        ran = re.search(r"^\[==========\] (\d+) tests? from .* ran", out, re.M)
        passed = re.search(r"^\[  PASSED  \] (\d+) test", out, re.M)
        self.assertTrue(ran and passed, out)
        self.assertGreater(int(passed[1]), 10, out)
        self.assertEqual(passed[1], ran[1], out)


if __name__ == "__main__":
    OPTIONS = machine.arguments_of(machine.guest_options())
    machine.guest_main(OPTIONS)
