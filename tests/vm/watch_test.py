#!/usr/bin/env python3
"""Watchpoints in Dune mode on dune.ko: by debug register where the machine's processor has them in a guest (Bochs), by page protection
where it takes and ignores them (QEMU). What is seen is the same, as gdb sees it natively. In one start of the machine."""
import os
import re
import shlex
import sys
import tempfile

import machine

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
os.environ["DDBG"] = machine.DDBG
from support import comparable, gdb, program  # noqa: E402

WATCHES, WATCHED = program("watches"), program("watched")
SOURCE = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e/programs/watches.c"))
NEIGHBOURS_USES = "30"
SIGNALS = ["handle SIGUSR1 nostop noprint", "handle SIGALRM nostop noprint"]
FOUR = ["watch page.word", "watch page.half", "rwatch page.byte", "awatch page.array[1]"]
BY_PAGE = "\tby page protection: each access to its page costs a fault\n"
# What gdb shows of it, one after the other: in the main thread, in one that slept when they came, in a handler, in a new one.
ALIKE = [*SIGNALS, "break ready", "run", *FOUR, *["continue"] * 4, "stepi 2", "continue", "stepi", *["continue"] * 3, "info watchpoints", "delete 3", *["continue"] * 4,
         "ignore 2 1", "continue", "info watchpoints", "delete", "break ended", "continue", "continue"]


def counting(*watches, place="ended"):
    """Each counts its hits until the program comes to that place; then it runs to its end without them."""
    ignored = [f"ignore {2 + i} 100000" for i in range(len(watches))]
    return [*SIGNALS, "break ready", "run", *watches, *ignored, f"break {place}", "continue", "info watchpoints", "delete", "continue"]


CASES = {
    "alike": ALIKE,
    "five": counting(*FOUR, "watch page.fifth"),
    "same": counting(*["watch page.word"] * 5),
    "large": counting("watch page.array", "watch page.word"),
    "freed": [*SIGNALS, "break ready", "run", *FOUR, "delete 4", "watch page.fifth", "watch page.byte", "info watchpoints", *["continue"] * 3,
              "delete", "continue"],
    "false": counting("watch page.word if page.word == 55", "awatch page.array[1] if page.array[1] == 55"),
    "own": [*SIGNALS, "break use_all if page.byte == -1", "break ready", "run", "awatch page.byte", "ignore 3 100000", "break ended", "continue", "info breakpoints",
            "delete", "continue"],
    "locked": [*SIGNALS, "break main", "run", "watch page.watched", "ignore 2 100000", "break printf", "continue", "info watchpoints", "delete", "continue"],
    "free": [*SIGNALS, "break main", "run", "awatch page.watched", "ignore 2 100000", "break printf", "continue", "info watchpoints", "delete", "continue"],
}


class Watches(machine.ShellTest):
    def run_case(self, name, *arguments):
        command = [machine.DDBG, "-q", "-nx", "-batch", "--backend", OPTIONS.backend, "-x", os.path.join(self.cases, name), "--args", *arguments]
        out = self.shell(shlex.join(command) + " </dev/null 2>&1 | cat")
        self.assertRegex(out, r"\[Inferior 1 \(process \d+\) exited", out)
        return out

    def expect(self, out, *expected):
        """Hits of each watchpoint, and whether it is by page, also where the processor's registers work in a guest."""
        watches = re.findall(rf"(?m)^(\d+) +(?:hw|read|acc) .*\n(?:\tstop only if .*\n(?:\tcondition .*\n)?)?({BY_PAGE})?(?:\tbreakpoint already hit (\d+) times?\n)?", out)
        registers = OPTIONS.machine == "bochs"
        self.assertEqual([(int(hits or 0), bool(by_page)) for _, by_page, hits in watches],
                         [(hits, by_page or not registers) for hits, by_page in expected], out)

    def test_as_gdb_sees_them(self):
        self.cases = self.enterContext(tempfile.TemporaryDirectory(prefix="ddbg-watch."))
        for name, commands in CASES.items():
            with open(os.path.join(self.cases, name), "w", encoding="utf-8") as file:
                file.write("\n".join(commands) + "\n")
        self.boot(*self.for_guests(OPTIONS), *machine.adding(machine.DDBG, WATCHES, WATCHED, SOURCE, self.cases))
        with self.subTest("alike"):
            out = self.run_case("alike", WATCHES, NEIGHBOURS_USES)
            told = gdb([], [WATCHES, NEIGHBOURS_USES], options=["-x", os.path.join(self.cases, "alike")]).out
            self.assertEqual(comparable(out.replace(BY_PAGE, "")), comparable(told), out)
            self.assertIn("Old value = 3\nNew value = 110\n", out)
        with self.subTest("five"):
            self.expect(self.run_case("five", WATCHES, NEIGHBOURS_USES), (5, False), (4, False), (4, False), (4, False), (4, True))
        with self.subTest("same"):  # of one instruction
            self.expect(self.run_case("same", WATCHES, NEIGHBOURS_USES), *[(5, False)] * 4, (5, True))
        with self.subTest("large"):  # a repeated instruction; of eight parts four have registers, and it changes them three times
            self.expect(self.run_case("large", WATCHES, NEIGHBOURS_USES), (3 * 8, True), (5, True))
        with self.subTest("freed"):
            out = self.run_case("freed", WATCHES, NEIGHBOURS_USES)
            self.expect(out, (0, False), (0, False), (0, False), (0, False), (0, True))
            self.assertEqual(re.findall(r"hit Hardware (?:\w+ \(read/write\) )?watchpoint (\d):", out), ["2", "3", "7"], out)
        with self.subTest("false"):  # the condition uses what is watched
            out = self.run_case("false", WATCHES, NEIGHBOURS_USES)
            self.expect(out, (0, False), (0, False))
            self.assertEqual(re.findall(r"evaluated in the target (\d+) times", out), ["5", "4"], out)
        with self.subTest("own"):  # what a breakpoint's condition uses is no access of the program's
            out = self.run_case("own", WATCHES, NEIGHBOURS_USES)
            self.expect(out, (8, False))
            self.assertIn("evaluated in the target 4 times\n", out)
        with self.subTest("threads"):
            self.expect(self.run_case("locked", WATCHED, "locked"), (800, False))
            self.expect(self.run_case("free", WATCHED, "free"), (801, False))
        self.end_shell()


if __name__ == "__main__":
    OPTIONS = machine.arguments_of(machine.guest_options("kmod"))
    machine.guest_main(OPTIONS)
