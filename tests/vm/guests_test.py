#!/usr/bin/env python3
"""The unit tests of backends with a guest, where ring 0 is real: on KVM or dune.ko in a machine of scripts/vm, in one start of it."""
import os
import re

import machine

TESTS = os.environ["BACKEND_TEST"]
PROCESS_TEST = os.environ["PROCESS_TEST"]
KEEPER_TEST = os.environ["KEEPER_TEST"]
SKIPPED_THERE = [
    "Guests/Guests.WatchedWriteTrapsBehindTheInstruction",  # QEMU ignores the debug registers
    "Guests/AddressSpaces.PageThatKvmDoesNotTakeIsABusErrorAndNoLoop",  # 6.1 has memfd_secret switched off
]
if not os.path.exists(f"{TESTS}/programs/life_musl"):
    SKIPPED_THERE.append("Guests/Programs.LiveTheSameLifeWithMusl")
COMMANDS = f"""
uname -r
nproc
grep -c -w la57 /proc/cpuinfo
cat /sys/module/kvm_amd/parameters/npt || echo none
if test %s = kvm; then {TESTS}/backend_bare; fi
echo $?
echo 4 > /proc/sys/vm/nr_hugepages
for test in {TESTS}/backend_test {PROCESS_TEST} {KEEPER_TEST}; do $test --gtest_filter='Guests/*/%s' || exit; done
"""


class Guests(machine.MachineTest):
    def test_with_nested_paging(self):
        added = [PROCESS_TEST, KEEPER_TEST, f"{TESTS}/backend_bare", f"{TESTS}/backend_test", f"{TESTS}/programs", "/usr/share/doc/busybox-static"]
        self.MACHINE, *arguments = self.for_guests(OPTIONS)
        done = self.vm(*arguments, "--timeout", "270", *machine.adding(*added), "--", "sh", "-c",
                       COMMANDS % (OPTIONS.backend, OPTIONS.backend))
        out = done.stdout.decode(errors="replace")
        told = f"{out}\n{done.stderr.decode(errors='replace')}"
        self.assertEqual(done.returncode, 0, told)
        surroundings, *suites = out.split("\nRunning main")
        release, processors, la57, nested, bare = surroundings.replace("in a guest\n", "").split()
        self.assertTrue(release.startswith(OPTIONS.kernel + "."), told)
        self.assertEqual((int(processors), int(la57)), (OPTIONS.smp, OPTIONS.smp if OPTIONS.la57 == "on" else 0))
        self.assertIn(nested, ("Y", "1") if OPTIONS.backend == "kvm" and OPTIONS.machine == "qemu" else ("none",))
        self.assertEqual(bare, "0", told)
        self.assertEqual(len(suites), 3, told)
        for suite in suites:
            self.only_declared_skips(suite)

    def only_declared_skips(self, out):
        ran = re.search(r"^\[==========\] (\d+) tests? from .* ran", out, re.M)
        passed = re.search(r"^\[  PASSED  \] (\d+) test", out, re.M)
        skipped = sorted(set(re.findall(r"^\[  SKIPPED \] (\S+/\w+)(?: \(|$)", out, re.M)))
        self.assertEqual([name for name in skipped if name.rpartition("/")[0] not in SKIPPED_THERE], [], out)
        self.assertGreater(int(passed[1]), 0, out)
        self.assertEqual(int(passed[1]) + len(skipped), int(ran[1]), out)


if __name__ == "__main__":
    OPTIONS = machine.arguments_of(machine.guest_options())
    machine.guest_main(OPTIONS)
