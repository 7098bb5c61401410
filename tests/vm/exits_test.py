#!/usr/bin/env python3
"""What leaves the guest, counted by the kernel that runs it (KVM's statistics in debugfs), in one start of the machine."""
import os
import re

import machine

PROGRAM = os.path.join(os.environ["DDBG_TEST_TARGETS"], "trap_loop")
STATISTICS = "/sys/kernel/debug/kvm"
FEW = 10_000
# Less the interrupts, which KVM counts by themselves and which come with time, it is eight between begin() and end(), for the stops at
# both, however often hit() is called. An interrupt may bring one or another along: a page that has to be fetched again, a kick.
SLACK = 16
TELL = f"shell echo exits $(($(cat {STATISTICS}/exits) - $(cat {STATISTICS}/irq_exits)))"


class Exits(machine.MachineTest):
    def exits(self, lines, *machine_options):
        """What ddbg says to the lines, and how many exits there were from each TELL to the next, less the interrupts'."""
        commands = [word for line in ["shell mount -t debugfs none /sys/kernel/debug", *lines] for word in ("-ex", line)]
        done = self.vm(*machine_options, "--", "ddbg", "-nx", "-q", "-batch", "--backend", "kvm", *commands, PROGRAM)
        out = done.stdout.decode()
        told = out + done.stderr.decode()
        marks = [int(number) for number in re.findall(r"^exits (\d+)$", out, re.M)]
        self.assertEqual(len(marks), lines.count(TELL), told)
        return out, told, [after - before for before, after in zip(marks, marks[1:])]

    def counts(self, *setup, machine_options=()):
        """Those between begin() and end() of FEW hits and of twice as many."""
        lines = ["break begin", "break end", *setup]
        for calls in (FEW, 2 * FEW):
            lines += [f"run {calls}", TELL, "continue", TELL, "info breakpoints", "continue"]
        out, told, (few, _, many) = self.exits(lines, *machine_options)
        self.assertEqual(re.findall(r"Breakpoint \d, (\w+) \(", out), ["begin", "end"] * 2, told)
        self.assertEqual(out.count("exited normally]"), 2, told)
        return few, many, told

    def test_false_condition_causes_none(self):
        for machine_options in [], ["--kernel", "6.12", "--la57", "on", "--smp", "2"]:
            with self.subTest(machine_options):
                few, many, told = self.counts("break hit if i == -1", machine_options=machine_options)
                self.assertIn(f"evaluated in the target {2 * FEW} times", told)
                self.assertLess(abs(many - few), SLACK, told)

    def test_hit_that_the_host_side_has_to_see_causes_one(self):
        """That the counters count: an ignored hit is not the monitor's."""
        few, many, told = self.counts("break hit", f"ignore 3 {10 * FEW}")
        self.assertGreaterEqual(many - few, FEW, told)

    def test_step_with_more_to_come_causes_one_of_kvms_own(self):
        """KVM intercepts every #DB, and hands it on to the guest itself."""
        _, told, (few, many) = self.exits(["break begin", f"run {FEW}", "stepi 100", TELL, f"stepi {FEW}", TELL, f"stepi {2 * FEW}", TELL, "kill"])
        self.assertLess(abs(many - few - FEW), SLACK, told)


if __name__ == "__main__":
    machine.main("6.1", "6.12")
