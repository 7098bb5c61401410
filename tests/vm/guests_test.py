#!/usr/bin/env python3
"""The unit tests of backends with a guest, where ring 0 is real: on kvm-amd in the machine of scripts/vm."""
import argparse
import os
import re
import sys

import machine

# The machine ignores the debug registers.
SKIPPED_THERE = ["Guests/Guests.WatchedWriteTrapsBehindTheInstruction/kvm"]


class Guests(machine.MachineTest):
    def test_hardware_is_svm_with_nested_paging(self):
        done = self.vm(*MACHINE, "--", "sh", "-c",
                       "uname -r; nproc; grep -c -w la57 /proc/cpuinfo; cat /sys/module/kvm_amd/parameters/npt; ls /dev/kvm")
        release, processors, la57, nested, device = done.stdout.decode().split()
        self.assertTrue(release.startswith(OPTIONS.kernel + "."), release)
        self.assertEqual((int(processors), int(la57)), (OPTIONS.smp, OPTIONS.smp if OPTIONS.la57 == "on" else 0))
        self.assertIn(nested, ("Y", "1"))
        self.assertEqual(device, "/dev/kvm")

    def test_guests_without_libc(self):
        done = self.vm(*MACHINE, "--", "backend_bare")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_every_guest_test(self):
        done = self.vm(*MACHINE, "--timeout", "250", "--add", os.path.join(os.environ["BACKEND_TEST"], "programs"),
                       "--add", "/usr/share/doc/busybox-static:/usr/share/doc/busybox-static",
                       "--", "backend_test", f"--gtest_filter={OPTIONS.filter}")
        out = done.stdout.decode(errors="replace")
        self.assertEqual(done.returncode, 0, out + done.stderr.decode(errors="replace"))
        ran = re.search(r"^\[==========\] (\d+) tests? from .* ran", out, re.M)
        passed = re.search(r"^\[  PASSED  \] (\d+) test", out, re.M)
        skipped = sorted(set(re.findall(r"^\[  SKIPPED \] (\S+/\w+)(?: \(|$)", out, re.M)))
        self.assertEqual([name for name in skipped if name not in SKIPPED_THERE], [], out)
        self.assertGreater(int(passed[1]), 0, out)
        self.assertEqual(int(passed[1]) + len(skipped), int(ran[1]), out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--la57", required=True)
    parser.add_argument("--smp", type=int, required=True)
    parser.add_argument("--filter", default="Guests/*")
    OPTIONS, others = parser.parse_known_args()
    MACHINE = ["--kernel", OPTIONS.kernel, "--la57", OPTIONS.la57, "--smp", str(OPTIONS.smp)]
    sys.argv[1:] = others
    machine.main(OPTIONS.kernel)
