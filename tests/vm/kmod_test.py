#!/usr/bin/env python3
"""dune.ko, built for the machine's kernel: it is loaded, tests/kmod runs, it is unloaded, and the kernel has nothing to complain of."""
import argparse
import os
import re
import subprocess
import sys

import machine

TEST = os.environ["KMOD_TEST"]
BUILD_MODULE = [sys.executable, "-B", os.path.join(os.path.dirname(os.environ["DDBG_VM"]), "vm_module.py")]
# QEMU's VMRUN loads DR7 and does not act on it, and its processor checks no alignment. Bochs has both.
SKIPPED_THERE = ["Debug.WatchedWriteReachesTheGuestsHandler", "Debug.WatchedWriteEndsTheRunIfAskedFor",
                 "Debug.BreakpointOnItsOwnStackHoldsNoProcessor", "AlignmentCheck.GoesThroughToTheGuest"]
# The kernel's words for what must not happen.
COMPLAINTS = re.compile(r"WARNING:|BUG:|Oops|Call Trace|general protection|stack segment|soft lockup|rcu:.*stall|dune: vm(read|write)", re.I)
MARK = "dune.ko goes in here"
COMMANDS = f"""
echo '{MARK}' > /dev/kmsg
insmod /dune.ko || exit 90
{TEST} --gtest_filter='Kvm.*' || exit 91
rmmod kvm_amd || exit 92
{TEST} --gtest_filter='-Kvm.*' || exit 93
rmmod dune || exit 94
test ! -e /dev/dune || exit 95
insmod /dune.ko && rmmod dune || exit 96
echo; echo '{MARK}'
dmesg
"""


class Kmod(machine.MachineTest):
    def test_events_cost_no_more_than_they_may(self):
        """In instructions, which are this machine's nanoseconds."""
        done = self.vm("--kernel", OPTIONS.kernel, "--icount", "--timeout", "270", "--add", f"{MODULE}:/dune.ko", "--add", TEST,
                       "--", "sh", "-c", f"rmmod kvm_amd; insmod /dune.ko && KMOD_TEST_BUDGET=1 exec {TEST} --gtest_filter='Budget.*'")
        out = done.stdout.decode(errors="replace")
        self.assertEqual(done.returncode, 0, out + done.stderr.decode(errors="replace"))
        self.assertEqual(len(re.findall(r"^budget .* [1-9]\d*$", out, re.M)), 5, out)
        print(out)

    def test_loads_works_and_unloads(self):
        done = self.vm("--kernel", OPTIONS.kernel, "--la57", OPTIONS.la57, "--smp", str(OPTIONS.smp), "--timeout", "270",
                       "--add", f"{MODULE}:/dune.ko", "--add", TEST, "--", "sh", "-c", COMMANDS)
        out = done.stdout.decode(errors="replace")
        told = f"{out}\n{done.stderr.decode(errors='replace')}"
        self.assertEqual(done.returncode, 0, told)
        tests, _, log = out.rpartition(f"\n{MARK}\n")
        log = log[log.index(MARK):]
        self.assertRegex(log, "dune: SVM, " + ("5" if OPTIONS.la57 == "on" else "4") + " levels")
        self.assertEqual([line for line in log.splitlines() if COMPLAINTS.search(line)], [], log)
        self.only_declared_skips(tests)

    def only_declared_skips(self, out):
        suites = re.findall(r"^\[==========\] (\d+) tests? from .* ran\.", out, re.M)
        self.assertEqual(len(suites), 3, out)  # KVM's, the others, and within these the new image
        passed = sum(int(number) for number in re.findall(r"^\[  PASSED  \] (\d+) test", out, re.M))
        skipped = set(re.findall(r"^\[  SKIPPED \] (\w+\.\w+)(?: \(|$)", out, re.M))
        allowed = {"Budget.OfEvents", *SKIPPED_THERE}
        if OPTIONS.kernel != "6.1":
            allowed.add("Kvm.AndWeExcludeEachOther")  # KVM has the processors as long as it is loaded
        if OPTIONS.smp == 1:
            allowed.add("Hotplug.GuestGoesOnWhereverItIs")
        self.assertEqual(skipped - allowed, set(), out)
        self.assertEqual(passed + len(skipped), sum(map(int, suites)), out)
        self.assertGreater(passed, 45, out)


def build_module(kernel):
    """Its path; the process ends if there is none."""
    built = subprocess.run([*BUILD_MODULE, "--kernel", kernel], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode != 0:  # it has said why, and whether that is a skip
        sys.exit(built.returncode)
    return built.stdout.strip()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--la57", default="off")
    parser.add_argument("--smp", type=int, default=1)
    OPTIONS, others = parser.parse_known_args()
    sys.argv[1:] = others
    MODULE = build_module(OPTIONS.kernel)
    machine.main(OPTIONS.kernel)
