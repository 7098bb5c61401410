#!/usr/bin/env python3
"""dune.ko, built for the machine's kernel: it is loaded, tests/kmod runs, it is unloaded, and the kernel has nothing to complain of."""
import argparse
import os
import re
import sys

import machine

TEST = os.environ["KMOD_TEST"]
EVENTS = os.environ["DUNE_EVENTS"]
# Of a program that enters Dune mode by itself: how often an event leaves the guest, and how many instructions it may take.
OF_APPLICATIONS = {"getppid": (1, 2100), "trap": (0, 125), "vectors": (0, 175), "step": (0, 130), "refused": (0, 215), "answered": (0, 170),
                   "interposed": (1, 2300), "appel1": (0, 800), "appel2": (0, 590)}
# QEMU's VMRUN loads DR7 and does not act on it, and its processor checks no alignment. Bochs has both.
SKIPPED_THERE = ["Debug.WatchedWriteReachesTheGuestsHandler", "Debug.WatchedWriteEndsTheRunIfAskedFor",
                 "Debug.BreakpointOnItsOwnStackHoldsNoProcessor", "AlignmentCheck.GoesThroughToTheGuest"]
# The kernel's words for what must not happen.
COMPLAINTS = re.compile(r"WARNING:|BUG:|Oops|Call Trace|general protection|stack segment|soft lockup|rcu:.*stall|dune: vm(read|write)", re.I)
MARK = "dune.ko goes in here"
BESIDE_KVM = f"""
{TEST} --gtest_filter='Kvm.*' || exit 91
rmmod kvm_amd || exit 92
"""
# In Bochs not beside KVM, which takes long there; its processor has what a kernel without mitigations is warned of, and nothing to steal.
COMMANDS = f"""
echo '{MARK}' > /dev/kmsg
insmod /dune.ko %s || exit 90
%s
{TEST} --gtest_filter='-Kvm.*' || exit 93
rmmod dune || exit 94
test ! -e /dev/dune || exit 95
insmod /dune.ko %s && rmmod dune || exit 96
echo; echo '{MARK}'
dmesg
"""


class Kmod(machine.MachineTest):
    def test_events_cost_no_more_than_they_may(self):
        """In instructions, which are this machine's nanoseconds."""
        done = self.vm("--kernel", OPTIONS.kernel, "--icount", "--timeout", "270", "--dune", *machine.adding(TEST, EVENTS),
                       "--", "sh", "-c", f"KMOD_TEST_BUDGET=1 {TEST} --gtest_filter='Budget.*' && {EVENTS} kmod 0 500 1 {' '.join(OF_APPLICATIONS)}")
        out = done.stdout.decode(errors="replace")
        self.assertEqual(done.returncode, 0, out + done.stderr.decode(errors="replace"))
        self.assertEqual(len(re.findall(r"^budget .* [1-9]\d*$", out, re.M)), 5, out)
        events = {name: (float(ticks), float(exits)) for name, ticks, exits in re.findall(r"^(\w+) ([0-9.]+) [0-9.]+ ([0-9.]+) [0-9.]+$", out, re.M)}
        self.assertEqual(set(events), set(OF_APPLICATIONS), out)
        for name, (exits, instructions) in OF_APPLICATIONS.items():
            self.assertAlmostEqual(events[name][1], exits, delta=0.02, msg=f"{name}: exits\n{out}")
            self.assertLessEqual(events[name][0], instructions, f"{name}: instructions\n{out}")
        print(out)

    def test_loads_works_and_unloads(self):
        in_qemu = OPTIONS.machine == "qemu"
        self.MACHINE, patience = OPTIONS.machine, 270 if in_qemu else 840
        self.PATIENCE = patience + 10
        there = ["--la57", OPTIONS.la57] if in_qemu else ["--kvm", "off"]
        done = self.vm("--kernel", OPTIONS.kernel, *there, "--smp", str(OPTIONS.smp), "--timeout", str(patience),
                       "--add", f"{machine.MODULE}:/dune.ko", "--add", TEST, "--", "sh", "-c",
                       COMMANDS % (("", BESIDE_KVM, "") if in_qemu else ("unsafe_cpu=1", "", "unsafe_cpu=1")))
        out = done.stdout.decode(errors="replace")
        told = f"{out}\n{done.stderr.decode(errors='replace')}"
        self.assertEqual(done.returncode, 0, told)
        tests, _, log = out.rpartition(f"\n{MARK}\n")
        log = log[log.index(MARK):]
        self.assertRegex(log, f"dune: {'SVM' if in_qemu else 'VMX'}, {5 if OPTIONS.la57 == 'on' else 4} levels")
        self.assertEqual([line for line in log.splitlines() if COMPLAINTS.search(line)], [], log)
        self.only_declared_skips(tests)

    def only_declared_skips(self, out):
        suites = re.findall(r"^\[==========\] (\d+) tests? from .* ran\.", out, re.M)
        self.assertEqual(len(suites), 3 if OPTIONS.machine == "qemu" else 2, out)  # KVM's, the others, and within these the new image
        passed = sum(int(number) for number in re.findall(r"^\[  PASSED  \] (\d+) test", out, re.M))
        skipped = set(re.findall(r"^\[  SKIPPED \] (\w+\.\w+)(?: \(|$)", out, re.M))
        allowed = {"Budget.OfEvents", *(SKIPPED_THERE if OPTIONS.machine == "qemu" else [])}
        if OPTIONS.kernel != "6.1":
            allowed.add("Kvm.AndWeExcludeEachOther")  # KVM has the processors as long as it is loaded
        if OPTIONS.smp == 1:
            allowed.add("Hotplug.GuestGoesOnWhereverItIs")
        self.assertEqual(skipped - allowed, set(), out)
        self.assertEqual(passed + len(skipped), sum(map(int, suites)), out)
        self.assertGreater(passed, 45, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    machine.guest_options(parser)
    parser.set_defaults(backend="kmod")
    OPTIONS, others = parser.parse_known_args()
    sys.argv[1:] = others
    machine.guest_main(OPTIONS)
