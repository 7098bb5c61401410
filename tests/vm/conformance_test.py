#!/usr/bin/env python3
"""The conformance cases and storms (tests/conformance) where ring 0 is real: natively in the machine, and in Dune mode there."""
import os
import sys
from pathlib import Path

import machine

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../conformance"))
import run  # noqa: E402
import storms  # noqa: E402

PROGRAMS = Path(os.environ["CONFORMANCE_PROGRAMS"])
# A shell on a pipe has no groups of processes for it.
NOT_THERE = ("signals.stopped_by_the_terminals_signal",)


PRELOAD = os.environ["APPLICATION_PRELOAD"]


class InRing0:
    """Programs that enter Dune mode before their main()."""
    name = "application"

    def __init__(self, execute):
        self.native = run.Native(lambda command: execute(["env", f"LD_PRELOAD={PRELOAD}", *command]))

    def run(self, program, arguments):
        return self.native.run(program, arguments)


class InTheMachine(machine.MachineTest):
    def shell(self, *more):
        added = machine.adding(machine.DDBG, *filter(Path.is_file, PROGRAMS.iterdir()))
        return machine.Shell(self, *self.for_guests(OPTIONS), "--timeout", "7000", *added, *more)

    def exceptions(self, *of):
        if OPTIONS.machine != "qemu":
            of = (*of, OPTIONS.machine)
        return {name: how for backend in of for name, how in run.read_exceptions(run.FOLDER / "exceptions.txt", backend).items()}

    def test_cases(self):
        """What the emulator's own processor does otherwise than the manual says, a guest need not do better."""
        cases = [case for case in run.read_cases(PROGRAMS, run.AREAS) if case.name not in NOT_THERE]
        exceptions = self.exceptions("kvm", "kvm.vm")
        with self.shell() as shell:
            native = run.results_of(run.Native(shell.run), PROGRAMS, cases)
            guest = run.results_of(run.Ddbg(machine.DDBG, OPTIONS.backend, shell.run), PROGRAMS, cases)
        self.assertGreater(len(cases), 0)
        found = list(run.differences(native, guest, OPTIONS.backend, exceptions))
        self.assertFalse(found, "\n".join(found))
        self.nothing_is_left()

    def test_cases_in_ring_0(self):
        """Of programs that enter Dune mode by themselves, whoever makes the guest."""
        cases = [case for case in run.read_cases(PROGRAMS, run.AREAS) if case.name not in NOT_THERE]
        exceptions = self.exceptions("application")
        with self.shell("--add", PRELOAD) as shell:
            native = run.results_of(run.Native(shell.run), PROGRAMS, cases)
            ring0 = run.results_of(InRing0(shell.run), PROGRAMS, cases)
        found = list(run.differences(native, ring0, "application", exceptions))
        self.assertFalse(found, "\n".join(found))
        self.nothing_is_left()

    def test_storms(self):
        for name in storms.STORMS:
            with self.subTest(name), self.shell() as shell:
                count = storms.STORMS[name][1] if OPTIONS.full else storms.STORMS[name][0] // 10
                out, end = run.Ddbg(machine.DDBG, OPTIONS.backend, lambda command: shell.run(command, 6000)).run(PROGRAMS / name, [str(count)])
                self.assertEqual(end, "exit 0", out[-2000:])
                self.assertEqual(out.count("\nerrors "), 1, out[-2000:])
        self.nothing_is_left()


if __name__ == "__main__":
    parser = machine.guest_options()
    parser.add_argument("--full", action="store_true", help="the storms as long as storms.py --full has them: an hour and a half")
    OPTIONS = machine.arguments_of(parser)
    machine.guest_main(OPTIONS)
