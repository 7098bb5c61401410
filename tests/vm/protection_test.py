#!/usr/bin/env python3
"""A target that tries to change the agent: refused where the agent is in ring 0, and let without a guest (so the attempt is one).
With --backend kmod, on dune.ko."""
import argparse
import os
import re
import sys

import machine

INTRUDER = os.path.join(os.environ["DDBG_TEST_TARGETS"], "intruder")


class Protection(machine.MachineTest):
    def test_attacks(self):
        """One after the other in one start of the machine: a target leaves nothing behind."""
        added = machine.adding(machine.DDBG, machine.KEEPER, machine.CAPSTONE, INTRUDER)
        with machine.Shell(self, *self.for_guests(OPTIONS), "--timeout", "270", *added) as self.shell:
            for attack in (self.no_page_and_no_call, self.instruction_past_a_watch, self.instruction_past_a_watch_without_a_guest,
                           self.signal_frame, self.without_a_guest):
                with self.subTest(attack.__name__):
                    attack()
        self.nothing_is_left()

    def attack(self, backend, *arguments, commands=("break attacked", "run", "continue")):
        """What it is let do, as far as it says."""
        self.out, _ = self.shell.run([machine.DDBG, "-q", "-nx", "-batch", "--backend", backend, "-ex", "handle SIGSEGV SIGUSR1 nostop noprint",
                                      *(word for command in commands for word in ("-ex", command)), "--args", INTRUDER, *arguments])
        return re.search(r"^\d+ mappings, (\d+) pages: (\d+) stored to, (\d+) read into$", self.out, re.M)

    def no_page_and_no_call(self):
        let = self.attack(OPTIONS.backend)
        self.assertRegex(self.out, r"Breakpoint 1, attacked \(\)", self.out)  # nor has it harmed itself
        self.assertTrue(let, self.out)
        self.assertGreater(int(let[1]), 60000, self.out)
        self.assertEqual((let[2], let[3]), ("0", "0"), self.out)
        self.assertNotIn("let: ", self.out, self.out)

    def attack_past_watch(self, backend):
        self.attack(backend, "watched", commands=("awatch bait if bait == 300", "break attacked", "run", "info breakpoints", "continue"))
        self.assertRegex(self.out, r"Breakpoint 2, attacked \(\)", self.out)
        evaluated = re.search(r"condition evaluated in the target (\d+) times", self.out)
        let = re.search(r"^(\d+) pages: (\d+) stored to$", self.out, re.M)
        self.assertTrue(evaluated and let and int(evaluated[1]) >= int(let[1]), self.out)  # `bait` is written before each
        return int(let[2])

    def instruction_past_a_watch(self):
        self.assertEqual(self.attack_past_watch(OPTIONS.backend), 0, self.out)

    def instruction_past_a_watch_without_a_guest(self):
        self.assertGreater(self.attack_past_watch("signal"), 0, self.out)

    def signal_frame(self):
        self.attack(OPTIONS.backend, "frame")
        self.assertIn("Program terminated with signal SIGSEGV", self.out, self.out)

    def without_a_guest(self):
        let = self.attack("signal")
        self.assertTrue(let and int(let[2]) > 0 and int(let[3]) > 0, self.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    machine.guest_options(parser)
    OPTIONS, others = parser.parse_known_args()
    sys.argv[1:] = others
    machine.guest_main(OPTIONS)
