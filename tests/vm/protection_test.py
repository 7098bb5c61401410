#!/usr/bin/env python3
"""A target that tries to change the agent: refused where the agent is in ring 0, and let without a guest (so the attempt is one).
With --backend kmod, on dune.ko."""
import os
import re

import machine

INTRUDER = os.path.join(os.environ["DDBG_TEST_TARGETS"], "intruder")


class Protection(machine.MachineTest):
    def attack(self, backend, *arguments, commands=("break attacked", "run", "continue")):
        """What it is let do, as far as it says."""
        self.MACHINE, *there = self.for_guests(OPTIONS)
        done = self.vm(*there, *self.patient(OPTIONS), *machine.adding(machine.DDBG, INTRUDER),
                       "--", machine.DDBG, "-q", "-nx", "-batch", "--backend", backend,
                       "-ex", "handle SIGSEGV SIGUSR1 nostop noprint", *(word for command in commands for word in ("-ex", command)),
                       "--args", INTRUDER, *arguments)
        self.out = done.stdout.decode(errors="replace")
        self.told = self.out + done.stderr.decode(errors="replace")
        return re.search(r"^\d+ mappings, (\d+) pages: (\d+) stored to, (\d+) read into$", self.out, re.M)

    def test_no_page_and_no_call(self):
        let = self.attack(OPTIONS.backend)
        self.assertRegex(self.out, r"Breakpoint 1, attacked \(\)", self.told)  # nor has it harmed itself
        self.assertTrue(let, self.told)
        self.assertGreater(int(let[1]), 60000, self.told)
        self.assertEqual((let[2], let[3]), ("0", "0"), self.told)
        self.assertNotIn("let: ", self.out, self.told)

    def attack_past_watch(self, backend):
        self.attack(backend, "watched", commands=("awatch bait if bait == 300", "break attacked", "run", "info breakpoints", "continue"))
        self.assertRegex(self.out, r"Breakpoint 2, attacked \(\)", self.told)
        evaluated = re.search(r"condition evaluated in the target (\d+) times", self.out)
        let = re.search(r"^(\d+) pages: (\d+) stored to$", self.out, re.M)
        self.assertTrue(evaluated and let and int(evaluated[1]) >= int(let[1]), self.told)  # `bait` is written before each
        return int(let[2])

    def test_instruction_past_a_watch(self):
        self.assertEqual(self.attack_past_watch(OPTIONS.backend), 0, self.told)

    def test_instruction_past_a_watch_without_a_guest(self):
        self.assertGreater(self.attack_past_watch("signal"), 0, self.told)

    def test_signal_frame(self):
        self.attack(OPTIONS.backend, "frame")
        self.assertIn("Program terminated with signal SIGSEGV", self.out, self.told)

    def test_without_a_guest(self):
        let = self.attack("signal")
        self.assertTrue(let and int(let[2]) > 0 and int(let[3]) > 0, self.told)


if __name__ == "__main__":
    OPTIONS = machine.arguments_of(machine.guest_options())
    machine.guest_main(OPTIONS)
