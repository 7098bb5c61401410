"""Differential test against gdb: functions and interior instructions of real programs, drawn at random from those that a run
executes (DDBG_TEST_SEED repeats a draw). Same hit counts, output and exit status; same backtraces at random hits.

Some programs do not execute the same twice (Spec.races). There ddbg's own run is looked at by others: the processor counts the
executions, and gdb says where the stops are.

functions_test.py [-v] PROGRAM...    the names are the rows of PROGRAMS; exit status 77: a program is not installed."""
import os
import random
import re
import sys
import tempfile
import time

import functions_elf as elf
import functions_processor as processor
from functions_frames import BACKTRACE, DESCRIBE_STOP, GDB_BACKTRACE, LIST_TAIL_FRAMES, agree, frames, gdb_at_stop
from functions_programs import PROGRAMS, Missing
from functions_session import LOOK, Session
from support import DDBG, GDB

FUNCTIONS = 50  # hit, per program
UNHIT = 5       # not hit as ddbg sees it: gdb must agree
INTERIOR = 20
BACKTRACES = 8
CANDIDATES = 1200  # per file, in the run that finds what is executed
MOST_HITS = 400   # of one address: gdb needs 100 to 300 us for each
IGNORED = 1000000000


def counting(addresses):
    lines = []
    for number, address in enumerate(addresses, 2):  # the first one is that of the entry point
        lines += [f"break *{address:#x}", f"ignore {number} {IGNORED}"]
    return lines


def parse_counts(text, addresses):
    """{address: hits} from `info breakpoints`; {} if it did not list every one."""
    counts = {}
    for block in re.split(r"\n(?=\d+\s+breakpoint)", text):
        head = re.match(r"(\d+)\s+breakpoint\s+keep\s+y\s+0x([0-9a-f]+)", block)
        if head:
            hit = re.search(r"breakpoint already hit (\d+) time", block)
            counts[int(head[2], 16)] = int(hit[1]) if hit else 0
    return counts if set(addresses) <= set(counts) else {}


def ending(text):
    return re.findall(r"\[Inferior 1 \(process \d+\) (exited .*)\]|Program (terminated with .*)", text)


class Comparison:
    def __init__(self, name, seed):
        self.name, self.seed = name, seed
        self.random = random.Random(f"{seed} {name}")
        self.faults = []
        self.owner = {}  # address -> file and link-time address, for the messages
        self.base_of = {}

    def fault(self, text):
        self.faults.append(text)
        print(f"  MISMATCH {text}", flush=True)

    def where(self, address):
        path, link = self.owner[address]
        return f"{address:#x} ({path} + {link:#x})"

    def candidates(self, session):
        drawn, sizes = [], {}
        for path, base in session.modules():
            self.base_of[path] = base
            table = elf.functions(path)
            for link in self.random.sample(sorted(table), min(len(table), CANDIDATES)):
                address = base + link
                self.owner[address] = (path, link)
                sizes[address] = table[link]
                drawn.append(address)
        return drawn, sizes

    def draw(self, session):
        """Addresses: functions that ddbg finds executed, a few that it does not, and instructions inside."""
        drawn, sizes = self.candidates(session)
        text = session.debug(DDBG, counting(drawn) + ["continue", "info breakpoints"])
        found = parse_counts(text, drawn)
        if not found:
            self.fault("ddbg's first run ended without counts:\n" + text[-2000:])
            return []
        hit = [a for a in drawn if 0 < found[a] <= MOST_HITS and a != session.start]
        unhit = [a for a in drawn if found[a] == 0]
        self.executed = len(hit)
        chosen = self.random.sample(hit, min(FUNCTIONS, len(hit)))
        inside = []
        for address in chosen[:INTERIOR]:
            path, link = self.owner[address]
            places = [p for p in elf.instructions(path, link, min(sizes[address], 400)) if p != link]
            if places:
                place = self.random.choice(places)
                self.owner[place - link + address] = (path, place)
                inside.append(place - link + address)
        self.functions = len(chosen)
        return sorted({*chosen, *inside, *self.random.sample(unhit, min(UNHIT, len(unhit)))})

    def counts(self, session, addresses):
        script = counting(addresses) + ["continue", "info breakpoints"]
        seen, ends, outputs = {}, {}, {}
        for which, debugger in (("gdb", GDB), ("gdb again", GDB), ("ddbg", DDBG)):
            began = time.monotonic()
            text = session.debug(debugger, script)
            for _ in range(3):  # gdb loses races with threads of Go that end
                if debugger == GDB and "Couldn't read debug register: No such process" in text:
                    text = session.debug(debugger, script)
            seen[which], ends[which], outputs[which] = parse_counts(text, addresses), ending(text), session.outputs()
            self.took[which] = time.monotonic() - began
            if not seen[which]:
                self.fault(f"{which} ended without counts:\n{text[-2000:]}")
                return []
        self.hits = sum(seen["ddbg"].values())
        stable = [a for a in addresses if seen["gdb"][a] == seen["gdb again"][a]]
        self.dropped = len(addresses) - len(stable)
        others = [a for a in stable if seen["ddbg"][a] != seen["gdb"][a]]
        if session.spec.races:
            self.executions(session, addresses, script)
            self.dropped += len(others)
        else:
            for address in others:
                self.fault(f"{self.where(address)}: gdb {seen['gdb'][address]} hits, ddbg {seen['ddbg'][address]}")
        if ends["ddbg"] != ends["gdb"]:
            self.fault(f"end: gdb {ends['gdb']}, ddbg {ends['ddbg']}")
        status = session.native()
        native = session.outputs()
        ended = "exited normally" if status == 0 else f"exited with code 0{status:o}"
        if [e for e, _ in ends["ddbg"]] != [ended]:
            self.fault(f"exit status: native {status}, ddbg {ends['ddbg']}")
        if outputs["ddbg"] != native:
            self.fault(f"output: native {native!r:.1000}\n    ddbg {outputs['ddbg']!r:.1000}")
        return [(a, seen["ddbg"][a]) for a in stable if seen["ddbg"][a] > 0]

    def executions(self, session, addresses, script):
        """All breakpoints are set in every run, and the processor counts a few of them."""
        for first in range(0, len(addresses), processor.AT_ONCE):
            some = addresses[first:first + processor.AT_ONCE]
            counters = []
            text = session.debug(DDBG, LOOK + script, lambda pid, _: counters.append(processor.Counters(pid, some)))
            executed, seen = counters[0].close(), parse_counts(text, addresses)
            if not seen:
                self.fault(f"ddbg ended without counts:\n{text[-2000:]}")
                continue
            for address in some:
                if seen[address] != executed[address]:
                    self.fault(f"{self.where(address)}: executed {executed[address]} times, ddbg {seen[address]} hits")

    def backtraces(self, session, counted):
        sample = self.random.sample(counted, min(BACKTRACES, len(counted)))
        stops = [(address, self.random.randrange(min(hits, 100))) for address, hits in sample]
        for pair in self.seen_by_gdb(session, stops) if session.spec.races else self.of_two_runs(session, stops):
            self.compared += 1
            if not agree(*pair):
                self.fault("backtrace:\n    gdb  {}\n    ddbg {}".format(*pair))

    def of_two_runs(self, session, stops):
        lines = []
        for number, (address, ignored) in enumerate(stops, 2):
            lines += [f"tbreak *{address:#x}", f"ignore {number} {ignored}"]
        theirs, again = (frames(session.debug(GDB, [LIST_TAIL_FRAMES, *lines, *["continue", *GDB_BACKTRACE] * len(stops), "kill"]))
                         for _ in range(2))
        text = session.debug(DDBG, [*lines, *["continue", *BACKTRACE] * len(stops), "kill"])
        ours = frames(text)
        if len(ours) != len(theirs):  # a program that ends early leaves empty ones
            self.fault(f"{len(theirs)} stops under gdb, {len(ours)} under ddbg:\n{text[-1500:]}")
        return [(their, our) for their, their_again, our in zip(theirs, again, ours) if their == their_again]

    def seen_by_gdb(self, session, stops):
        pairs = []

        def look(pid, text):
            pairs.append((frames(gdb_at_stop(pid, text, session.folder))[0], frames(text)[0]))

        for address, ignored in stops:
            # The hit may not come in this run.
            session.debug(DDBG, [f"tbreak *{address:#x}", f"ignore 2 {ignored}", "continue", *DESCRIBE_STOP, *LOOK, "kill"], look)
        return pairs

    def run(self):
        self.took, self.compared = {}, 0
        with tempfile.TemporaryDirectory(prefix="ddbg-") as folder:
            spec = PROGRAMS[self.name](folder)
            if spec.races and processor.why_not():
                raise Missing(f"racing programs need the processor's counts: {processor.why_not()}")
            session = Session(spec, folder)
            addresses = self.draw(session)
            if addresses:
                counted = self.counts(session, addresses)
                if self.took.get("ddbg"):
                    if not self.faults or counted:
                        self.backtraces(session, counted)
                    print(f"{self.name}: {self.functions} functions of {self.executed} executed, {len(addresses)} addresses, "
                          f"{self.dropped} not the same in two runs, {self.hits} hits, {self.compared} backtraces, "
                          f"gdb {self.took['gdb']:.1f} s, ddbg {self.took['ddbg']:.1f} s, "
                          f"{len(self.faults)} mismatches", flush=True)
            if addresses and self.functions < FUNCTIONS:
                print(f"  only {self.functions} functions are executed", flush=True)
        return not self.faults


def main(names):
    if not GDB:
        print("skipped: gdb is not installed")
        return 77
    seed = int(os.environ.get("DDBG_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
    print(f"DDBG_TEST_SEED={seed}", flush=True)
    passed, missing = True, False
    for name in names:
        try:
            passed = Comparison(name, seed).run() and passed
        except Missing as reason:
            print(f"skipped: {name}: {reason}", flush=True)
            missing = True
    return 1 if not passed else 77 if missing else 0


if __name__ == "__main__":
    sys.exit(main([a for a in sys.argv[1:] if not a.startswith("-")] or list(PROGRAMS)))
