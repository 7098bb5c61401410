#!/usr/bin/env python3
"""ddbg itself in the machine of scripts/vm, with what its user has there."""
import os
import re
import sys

import machine

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
from terminal import PROMPT, Terminal  # noqa: E402

PROGRAMS = os.environ["E2E_PROGRAMS"]
TARGETS = os.environ["DDBG_TEST_TARGETS"]


class Ddbg(machine.MachineTest):
    def batch(self, program, *machine_options):
        done = self.vm(*machine_options, "--", "ddbg", "-batch", "-ex", "break main", "-ex", "run", "-ex", "bt", "-ex", "continue",
                       "--args", program)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        out = done.stdout.decode()
        self.assertRegex(out, r"Breakpoint 1, main \(.*\n\d+\t *\S.*\n#0  main \(")  # with its source line
        return out

    def test_dynamic_program(self):
        self.assertIn("x=11 f=120\n[Inferior 1 (process ", self.batch(os.path.join(PROGRAMS, "steps")))

    def test_static_program_on_two_processors(self):
        self.assertRegex(self.batch(os.path.join(TARGETS, "count_static"), "--kernel", "6.12", "--smp", "2"),
                         r"\[Inferior 1 \(process \d+\) exited")

    def test_dune_mode(self):
        for machine_options in [], ["--kernel", "6.12", "--la57", "on", "--smp", "2"]:
            with self.subTest(machine_options):
                done = self.vm(*machine_options, "--", "ddbg", "-batch", "--backend", "kvm", "-ex", "break add if a == 4",
                               "-ex", "run", "-ex", "bt", "-ex", "x/i $pc", "-ex", "info backend", "-ex", "stepi",
                               "-ex", "finish", "-ex", "continue", "--args", os.path.join(PROGRAMS, "steps"))
                out = done.stdout.decode()
                self.assertRegex(out, r"Breakpoint 1, add \(a=4, b=3\)[^#]*\n#0  add \(a=4, b=3\).*\n#1 .* in main \(",
                                 msg=done.stderr)
                self.assertEqual(done.stderr, b"")
                self.assertIn("In use: kvm (asked for)", out)
                self.assertIn("Value returned is $1 = 7", out)
                self.assertIn("x=11 f=120\n[Inferior 1 (process ", out)

    def test_instructions_without_capstone(self):
        ddbg = f"{machine.DDBG} -q -nx -batch -ex 'disassemble main' {PROGRAMS}/steps"
        done = self.vm(*machine.adding(machine.DDBG, os.path.join(PROGRAMS, "steps")), "--",
                       "sh", "-c", f"{ddbg}; rm /usr/lib/x86_64-linux-gnu/libcapstone.so.4; {ddbg}")
        one, other = re.findall(r"Dump of assembler code for function main:\n(?: +0x.*\n)+", done.stdout.decode())
        self.assertEqual(re.findall(r"(?m)^.*?:\t", one), re.findall(r"(?m)^.*?:\t", other))
        self.assertEqual(done.stderr.decode().count("warning: instructions are read by Zydis alone: libcapstone.so.4: cannot open"), 1, done.stderr)

    def test_dune_mode_watches(self):
        done = self.vm("--", "ddbg", "-batch", "--backend", "kvm", "-ex", "watch watched if watched == 7", "-ex", "run", "-ex", "info breakpoints",
                       "-ex", "continue", "--args", os.path.join(TARGETS, "store_loop"), "50")
        out = done.stdout.decode()
        self.assertRegex(out, r"Hardware watchpoint 1: watched\n\nOld value = 6\nNew value = 7\n", msg=out)
        self.assertIn("evaluated in the target 7 times", out)
        self.assertIn("49\n[Inferior 1 (process ", out)

    def counted_watches(self, how, *commands):
        done = self.vm("--kernel", "6.12", "--la57", "on", "--smp", "2", "--timeout", "200", "--", "ddbg", "-q", "-nx", "-batch", "--backend", "kvm",
                       "-ex", "handle SIGALRM nostop noprint", "-ex", "break main", "-ex", "run", *(word for command in commands for word in ("-ex", command)),
                       "-ex", "break printf", "-ex", "continue", "-ex", "info watchpoints", "-ex", "delete", "-ex", "continue",
                       "--args", os.path.join(PROGRAMS, "watched"), how)
        out = done.stdout.decode()
        self.assertRegex(out, r"(?m)^800$", out + done.stderr.decode())
        return [int(times) for times in re.findall(r"already hit (\d+) times", out)]

    def test_watches_count_exactly_in_dune_mode(self):
        for how in "free", "churn":
            with self.subTest(how):
                self.assertEqual(self.counted_watches(how, "watch page.watched", "ignore 2 100000"), [800])
        self.assertEqual(self.counted_watches("free", "awatch page.watched", "ignore 2 100000"), [801])  # main reads it

    def test_watched_pages_of_one_instruction(self):
        counts = self.counted_watches("copied", "awatch page.watched", "ignore 2 100000", "awatch copied", "ignore 3 100000")
        self.assertEqual(counts, [800 + 200 + 1, 200])

    def test_filters_in_dune_mode(self):
        cases = ("by_address", "by_architecture", "all_are_judged", "threads", "supervised", "inherited", "a_thread_killed", "blocked")
        done = self.vm("--kernel", "6.12", "--smp", "2", "--", "ddbg", "-q", "-nx", "-batch", "--backend", "kvm",
                       "-ex", "handle SIGSYS nostop noprint", "-ex", "break work if i < 0",
                       *(word for case in cases for word in ("-ex", f"run {case}")), os.path.join(PROGRAMS, "judged"))
        out = done.stdout.decode()
        told = out + done.stderr.decode()
        for line in ("first: 1 second: -33", "call_of_32_bits(64) == -33: 1 0", "munmap(page, 4096): -1 46", "inherited: 34",
                     "asked for 110", "gone", "signal 31 code 1 errno 2 call 57 arch c000003e at 1 rax 57 rcx 1"):
            self.assertIn(line + "\n", out, told)
        self.assertEqual(len(re.findall("exited with code 03", out)), 6, told)
        self.assertEqual(out.count("terminated with signal SIGSYS"), 2, told)

    def test_on_a_terminal(self):
        t = Terminal([*machine.VM, "qemu", "--", "ddbg", "-q", "-nx", os.path.join(PROGRAMS, "spin")], self.env,
                     patience=machine.PATIENCE)
        self.addCleanup(t.close)
        t.wait_for(PROMPT)
        t.type("ru\t\n")
        t.wait_for("spinning")
        t.type("\x03")
        self.assertIn("received signal SIGINT, Interrupt.", t.wait_for(PROMPT))
        self.assertIn("main ()", t.command("backtrace"))
        t.type("kill\n")
        t.wait_for("(y or n) ")
        t.command("y")
        t.type("quit\n")
        self.assertEqual(t.ended(), 0)
        self.nothing_is_left()


if __name__ == "__main__":
    machine.main("6.1", "6.12")
