#!/usr/bin/env python3
"""The engine's tests (tests/unit/inferior) in Dune mode where ring 0 is real, in one start of the machine: breakpoints, conditions,
steps, threads, signals, forks, execs, stops, and the storm of all of them."""
import argparse
import os
import re
import sys

import machine

ENGINE_TEST = os.environ["ENGINE_TEST"]
TARGETS = os.environ["DDBG_TEST_TARGETS"]
KEEPER = os.path.join(os.environ["DDBG_BUILD"], "dtrace-lite/ddbg/ddbg-keeper")
CAPSTONE = "/usr/lib/x86_64-linux-gnu/libcapstone.so.4"  # loaded when it is needed
COMMANDS = f"DDBG_TEST_BACKEND=kvm DDBG_KEEPER={KEEPER} exec {ENGINE_TEST} --gtest_filter='%s'"


class Engine(machine.MachineTest):
    def test_in_a_guest(self):
        done = self.vm("--kernel", OPTIONS.kernel, "--la57", OPTIONS.la57, "--smp", str(OPTIONS.smp), "--timeout", "270",
                       *(word for path in (ENGINE_TEST, TARGETS, KEEPER, CAPSTONE) for word in ("--add", path)), "--", "sh", "-c", COMMANDS % OPTIONS.filter)
        out = done.stdout.decode(errors="replace")
        told = f"{out}\n{done.stderr.decode(errors='replace')}"
        self.assertEqual(done.returncode, 0, told)
        passed = re.search(r"^\[  PASSED  \] (\d+) test", out, re.M)
        self.assertTrue(passed and int(passed[1]) > 0, told)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--la57", required=True)
    parser.add_argument("--smp", type=int, required=True)
    parser.add_argument("--filter", required=True)
    OPTIONS, others = parser.parse_known_args()
    sys.argv[1:] = others
    machine.main(OPTIONS.kernel)
